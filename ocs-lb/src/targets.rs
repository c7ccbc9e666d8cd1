//! Which health checks a model wants on this host.

use std::net::IpAddr;

use crate::health::{Target, source_ports};
use crate::model::Model;
use crate::setup::{Running, ephemeral_ports};

/// What is checked, from which address and ports.
///
/// # Errors
/// Where the host's ephemeral ports cannot be read.
pub fn targets(model: &Model, running: &Running) -> anyhow::Result<Vec<Target>> {
    let ephemeral = ephemeral_ports()?;
    let mut targets = Vec::new();
    for (id, cluster) in model.clusters.iter().enumerate() {
        for (slot, backend) in cluster.backends.iter().enumerate() {
            let Some(check) = backend.check.clone().filter(|_| !backend.retired) else {
                continue;
            };
            targets.push(Target {
                cluster: id as u16,
                backend: slot as u16,
                name: format!("{}/{}", cluster.name, backend.name),
                address: backend.address,
                check,
                source: Some(IpAddr::V4(running.sources[id][slot])),
                ports: source_ports(taken(model, running, id, slot), ephemeral),
            });
        }
    }
    Ok(targets)
}

/// First and last SNAT port that any flow towards a backend may have from the
/// address its checks come from, over all clusters.
fn taken(model: &Model, running: &Running, id: usize, slot: usize) -> (u16, u16) {
    let (address, source) = (
        model.clusters[id].backends[slot].address,
        running.sources[id][slot],
    );
    let mut taken = running.reach[id][slot].ports;
    for (cluster, reach) in model.clusters.iter().zip(&running.reach) {
        for (backend, reach) in cluster.backends.iter().zip(reach) {
            if backend.address == address && reach.snat.contains(&source) {
                taken = (taken.0.min(reach.ports.0), taken.1.max(reach.ports.1));
            }
        }
    }
    taken
}

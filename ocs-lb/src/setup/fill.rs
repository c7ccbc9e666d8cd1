//! Policy, services and addresses of a model, written to the maps.

use std::net::Ipv4Addr;
use std::time::Duration;

use ocs_lb_common::abi::{EventKind, Settings};

use super::Network;
use crate::datapath::apply;
use crate::datapath::load::Maps;
use crate::model::edits::{MapEdit, Reach, fragments_not_passed, plan};
use crate::model::sizes::{Sizes, ring};
use crate::model::snat::range_len;
use crate::model::standing::Standing;
use crate::model::{ClusterState, Model, Unknown, policy};

/// Kinds of events that the datapath tells: all but changes of sticky entries,
/// which `show sticky` has and which nobody would read one by one.
fn wanted_events() -> u32 {
    EventKind::ALL
        .iter()
        .filter(|kind| **kind != EventKind::Sticky)
        .fold(0, |mask, kind| mask | kind.bit())
}

/// SNAT ports that the primaries of each cluster have towards one port, without
/// what is retired.
fn ports<'a>(model: &'a Model, reach: &'a [Vec<Reach>]) -> impl Iterator<Item = u64> + 'a {
    let clusters = model.clusters.iter().zip(reach);
    let clusters = clusters.filter(|(cluster, _)| !cluster.retired);
    clusters.map(|(cluster, reach)| {
        let backends = cluster.backends.iter().zip(reach);
        backends
            .filter(|(backend, _)| !backend.backup && !backend.retired)
            .map(|(_, reach)| reach.snat.len() as u64 * u64::from(range_len(reach.ports)))
            .sum()
    })
}

/// What a model is filled in with.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// What the network says of each backend.
    pub reach: &'a [Vec<Reach>],
    /// What is known of each backend beside the file.
    pub standings: &'a [Vec<Standing>],
    /// The operator's word, by cluster id.
    pub states: &'a [ClusterState],
    /// Stands in for the clusters' own, where given.
    pub unknown: Option<Unknown>,
    /// Time since the boot.
    pub now: Duration,
}

/// Every address, port and backend that a model has on this host.
///
/// # Errors
/// What does not fit: nothing may be written then.
pub fn edits(
    model: &Model,
    network: &Network,
    reach: &[Vec<Reach>],
) -> anyhow::Result<Vec<MapEdit>> {
    let host: Vec<Ipv4Addr> = network.addresses.iter().map(|(_, ip)| *ip).collect();
    let edits = plan(model, reach, &host)?;
    for (cluster, vip) in fragments_not_passed(model, &host) {
        tracing::warn!(
            cluster,
            %vip,
            "`fragments: kernel` has no effect while the VIP is an address of this host: \
             fragments to it are dropped"
        );
    }
    Ok(edits)
}

/// Makes the maps say what the model and its edits say, in an order in which
/// every packet in between meets a whole service.
///
/// # Errors
/// A map's.
pub fn fill(
    model: &Model,
    maps: &mut Maps,
    edits: &[MapEdit],
    sizes: &Sizes,
    facts: Facts<'_>,
) -> anyhow::Result<()> {
    // A place may go to another backend: before anyone is sent there.
    apply::set_backends(maps, edits)?;
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?.max(1) as u32;
    let port_maps = maps.port_maps.len();
    apply::set_settings(
        maps,
        Settings {
            resets_per_cpu: (model.unknown_resets / cpus).max(1),
            port_maps,
            half_open: ring(sizes.half_open, ports(model, facts.reach)),
            events: wanted_events(),
            auto_last_hop: u32::from(model.auto_last_hop),
        },
    )?;
    let clusters = model.clusters.iter().zip(facts.standings).zip(facts.states);
    for (id, ((cluster, standings), state)) in clusters.enumerate() {
        let host = policy::Host::of(model, id, facts.unknown, *state, facts.now);
        let policy = policy::cluster(cluster, standings, host);
        apply::set_cluster(maps, id as u16, &policy)?;
    }
    let removed = apply::sync(maps, edits)?;
    if removed > 0 {
        tracing::info!(removed, "addresses and ports that are no longer served");
    }
    Ok(())
}

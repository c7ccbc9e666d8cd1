//! One look of the owner at everything an operator may ask for.

use std::collections::BTreeMap;

use super::owner::Owner;
use super::read;
use crate::model::policy;
use crate::snapshot::{BackendView, ClusterView, MapView, Snapshot};

impl Owner {
    /// Reads the maps.
    ///
    /// # Errors
    /// A map's.
    pub(super) fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let maps = &self.running.loaded.maps;
        let interfaces = self
            .running
            .attached
            .iter()
            .map(|attached| read::interface(maps, attached))
            .collect::<Result<_, _>>()?;
        let clusters = (0..self.model.clusters.len())
            .map(|id| self.cluster(id))
            .collect::<anyhow::Result<_>>()?;
        let rows = self.running.loaded.bill.iter();
        Ok(Snapshot {
            interfaces,
            clusters,
            snat: read::snat(maps, &self.model, &self.running.reach)?,
            maps: rows
                .map(|row| MapView {
                    name: row.name.clone(),
                    entries: (row.name == "FLOWS4").then_some(self.sweep.entries),
                    capacity: row.capacity,
                    bytes: row.bytes,
                })
                .collect(),
            sweep: self.sweep.clone(),
            events_lost: read::events_lost(maps)?,
            resets: self.down.resets.clone(),
        })
    }

    fn cluster(&self, id: usize) -> anyhow::Result<ClusterView> {
        let cluster = &self.model.clusters[id];
        let load = read::load(&self.running.loaded.maps, id as u16)?;
        let healthy = self.healthy(id);
        let host = policy::Host::of(&self.model, id, self.unknown);
        let policy = policy::cluster(cluster, &healthy, host);
        let ready = policy::ready(cluster, &healthy);
        let backends = cluster
            .backends
            .iter()
            .enumerate()
            .map(|(slot, backend)| {
                let health = &self.health[id][slot];
                BackendView {
                    name: backend.name.clone(),
                    address: match backend.port {
                        Some(port) => format!("{}:{port}", backend.address),
                        None => backend.address.to_string(),
                    },
                    backup: backend.backup,
                    state: policy::state(backend, health.healthy).to_owned(),
                    status: health.status.clone(),
                    ready: ready[slot],
                    weight: backend.weight,
                    effective_weight: policy.slots[slot].weight,
                    live: load.slots[slot].live,
                    pending: load.slots[slot].pending,
                    connections: load.connections[slot],
                    bytes_in: load.bytes_in[slot],
                    bytes_out: load.bytes_out[slot],
                    checks: health.results.clone(),
                    check_durations: health.durations.clone(),
                    last_check: health.last.clone(),
                }
            })
            .collect();
        Ok(ClusterView {
            name: cluster.name.clone(),
            max_connections: cluster.max_connections,
            live: load.live,
            pending: load.pending,
            sticky_hits: load.sticky_hits,
            sticky_misses: load.sticky_misses,
            refused: BTreeMap::from([
                ("limit".to_owned(), load.refused_limit),
                ("snat".to_owned(), load.refused_snat),
                ("no_backend".to_owned(), load.refused_no_backend),
            ]),
            backends,
        })
    }
}

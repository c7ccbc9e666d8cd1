//! One look of the owner at everything an operator may ask for.

use std::collections::BTreeMap;

use ocs_lb_common::abi::{KillReason, Load, Reason};

use super::owner::Owner;
use super::read;
use super::tell::reason;
use crate::model::policy;
use crate::model::ramp::FULL;
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
            .filter_map(|id| self.cluster(id).transpose())
            .collect::<anyhow::Result<_>>()?;
        let rows = self.running.loaded.bill.iter();
        Ok(Snapshot {
            interfaces,
            lost: self.following.lost(),
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
            reloads: self.reloads.clone(),
        })
    }

    /// One cluster, unless it is retired and has no flows; so its backends.
    fn cluster(&self, id: usize) -> anyhow::Result<Option<ClusterView>> {
        let cluster = &self.model.clusters[id];
        let load = read::load(&self.running.loaded.maps, id as u16)?;
        let all = Load {
            live: load.live,
            pending: load.pending,
        };
        if !is_shown(cluster.retired, all) {
            return Ok(None);
        }
        let now = read::uptime();
        let standings = self.standings(id);
        let ready = policy::ready(cluster, &standings);
        let takes_new = self.states[id].takes_new();
        let backends = cluster
            .backends
            .iter()
            .enumerate()
            .filter(|(slot, backend)| is_shown(backend.retired, load.slots[*slot]))
            .map(|(slot, backend)| {
                let health = &self.health[id][slot];
                let standing = &standings[slot];
                let ready = ready[slot] && takes_new;
                let share = standing.share(backend, now).filter(|_| ready);
                let weight = if ready { standing.weight(backend) } else { 0 };
                let words = self.words.backend(&cluster.name, &backend.name);
                let word = standing.word;
                BackendView {
                    name: backend.name.clone(),
                    address: match backend.port {
                        Some(port) => format!("{}:{port}", backend.address),
                        None => backend.address.to_string(),
                    },
                    backup: backend.backup,
                    state: policy::state(backend, standing, now).to_owned(),
                    healthy: health.healthy,
                    status: health.status.clone(),
                    ready,
                    weight: backend.weight,
                    effective_weight: share.map_or(weight, |share| scaled(weight, share)),
                    throttle: share.map(percent),
                    state_word: word.state,
                    said: Self::said_of(
                        words.and_then(|words| words.state.as_ref()),
                        word.state.as_ref(),
                    ),
                    weight_word: word.weight,
                    weight_said: Self::said_of(
                        words.and_then(|words| words.weight.as_ref()),
                        word.weight.as_ref(),
                    ),
                    live: load.slots[slot].live,
                    pending: load.slots[slot].pending,
                    connections: load.connections[slot],
                    bytes_in: load.bytes_in[slot],
                    bytes_out: load.bytes_out[slot],
                    resets: resets(load.resets[slot], &health.kills),
                    checks: health.results.clone(),
                    check_durations: health.durations.clone(),
                    last_check: health.last.clone(),
                }
            })
            .collect();
        Ok(Some(ClusterView {
            name: cluster.name.clone(),
            state: self.states[id],
            said: self.said(&cluster.name, self.states[id]),
            max_connections: cluster.max_connections,
            live: load.live,
            pending: load.pending,
            resting: load.resting,
            redispatches: BTreeMap::from([
                (Reason::Refused.label().to_owned(), load.moved_refused),
                (Reason::Silent.label().to_owned(), load.moved_silent),
            ]),
            ports_reused: load.reused_early,
            sticky_hits: load.sticky_hits,
            sticky_misses: load.sticky_misses,
            refused: BTreeMap::from([
                ("limit".to_owned(), load.refused_limit),
                ("snat".to_owned(), load.refused_snat),
                ("no_backend".to_owned(), load.refused_no_backend),
                ("deny".to_owned(), load.refused_deny),
                ("rate_total".to_owned(), load.refused_rate_total),
                ("rate_source".to_owned(), load.refused_rate_source),
            ]),
            removed: cluster.retired,
            backends,
        }))
    }
}

/// A share of a weight, rounded up: what takes anyone has a weight.
fn scaled(weight: u16, share: u16) -> u16 {
    (u32::from(weight) * u32::from(share)).div_ceil(u32::from(FULL)) as u16
}

fn percent(share: u16) -> f64 {
    100.0 * f64::from(share) / f64::from(FULL)
}

/// What is retired is shown while it has flows.
fn is_shown(retired: bool, load: Load) -> bool {
    !retired || load.flows() > 0
}

/// Resets of a backend's flows by reason: the server's own, and all of ours,
/// those that never happened as zero.
fn resets(by_server: u64, kills: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    let ours = [
        KillReason::Idle,
        KillReason::BackendDown,
        KillReason::Operator,
    ];
    let mut resets: BTreeMap<String, u64> = ours
        .into_iter()
        .filter_map(|kill| reason(kill as u8))
        .map(Reason::label)
        .map(|label| {
            let flows = kills.get(label).copied().unwrap_or(0);
            (label.to_owned(), flows)
        })
        .collect();
    resets.insert(Reason::ServerReset.label().to_owned(), by_server);
    resets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_retired_is_shown_while_it_has_flows() {
        for (retired, live, pending, shown) in [
            (false, 0, 0, true),
            (true, 0, 0, false),
            (true, 1, 0, true),
            (true, 0, 1, true),
            (true, u32::MAX, 0, false),
        ] {
            let load = Load { live, pending };
            assert_eq!(is_shown(retired, load), shown, "{retired} {load:?}");
        }
    }

    #[test]
    fn shares_of_weights() {
        for (weight, share, wanted) in [(1, 1, 1), (256, 1, 2), (256, 64, 128), (0, 64, 0)] {
            assert_eq!(scaled(weight, share), wanted, "{weight} {share}");
        }
        assert!((percent(FULL / 4) - 25.0).abs() < 1e-9);
    }

    #[test]
    fn every_reason_is_there() {
        let shown = resets(7, &BTreeMap::from([("backend_down", 3)]));
        let shown: Vec<_> = shown.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(
            shown,
            [
                ("backend_down", 3),
                ("idle", 0),
                ("operator", 0),
                ("server_reset", 7)
            ]
        );
    }
}

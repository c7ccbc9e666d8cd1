//! From health to what the datapath may choose: pure.

use ocs_lb_common::abi::{self, Slot};
use ocs_lb_common::limit::interval;
use ocs_lb_common::select::stride;
use ocs_lb_common::ticks::duration;

use super::bill::RESTING;
use super::{Backend, Balance, Cluster, ClusterState, Model, Persist, RefuseAction, Unknown};

/// Fewest resting flows that a cluster may keep, however small its share.
const LEAST_RESTING: u32 = 1024;

/// What a cluster's policy takes from beyond the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Host {
    /// Stands in for the cluster's own `unknown`, where given.
    pub unknown: Option<Unknown>,
    /// Resting flows that the cluster may keep.
    pub resting: u32,
    /// The operator's word.
    pub state: ClusterState,
}

impl Host {
    /// For the cluster with this id.
    pub fn of(model: &Model, id: usize, unknown: Option<Unknown>, state: ClusterState) -> Self {
        Self {
            unknown,
            resting: resting(&model.clusters, id),
            state,
        }
    }
}

/// Resting flows that a cluster may keep before it uses their ports first: its
/// share by `max_connections` of half of what the flow table has room for; the
/// other half is for what ends at once.
fn resting(clusters: &[Cluster], id: usize) -> u32 {
    let limit = |cluster: &Cluster| match cluster.retired {
        // It opens nothing, so it needs no ports.
        true => 0,
        false => u64::from(cluster.max_connections),
    };
    let all: u64 = clusters.iter().map(limit).sum();
    let own = clusters.get(id).map_or(0, limit);
    let share = (RESTING / 2 * own).checked_div(all).unwrap_or(0);
    u32::try_from(share).unwrap_or(u32::MAX).max(LEAST_RESTING)
}

/// Which backends take new clients now, by slot, where the cluster does.
///
/// A backend is ready when it is healthy, has a weight and is still in the
/// file, as its cluster is. Backups serve only
/// while no primary is ready, and then the first one in the order of the file
/// serves alone (HAProxy without `allbackups`).
pub fn ready(cluster: &Cluster, healthy: &[bool]) -> Vec<bool> {
    let able: Vec<bool> = cluster
        .backends
        .iter()
        .zip(healthy)
        .map(|(backend, healthy)| *healthy && backend.weight > 0 && !is_retired(cluster, backend))
        .collect();
    let primary = cluster
        .backends
        .iter()
        .zip(&able)
        .any(|(backend, able)| *able && !backend.backup);
    let first_backup = cluster
        .backends
        .iter()
        .zip(&able)
        .position(|(backend, able)| *able && backend.backup);
    (0..cluster.backends.len())
        .map(|slot| {
            if cluster.backends[slot].backup {
                !primary && first_backup == Some(slot)
            } else {
                able[slot]
            }
        })
        .collect()
}

fn is_retired(cluster: &Cluster, backend: &Backend) -> bool {
    cluster.retired || backend.retired
}

/// A backend's state, by the contract's word; `removed` once it is no longer in
/// the file. Without a check it is up.
pub fn state(backend: &Backend, healthy: bool) -> &'static str {
    if backend.retired {
        return "removed";
    }
    match (healthy, backend.weight) {
        (false, _) => "down",
        (true, 0) => "drain",
        (true, _) => "up",
    }
}

/// What a backend's sticky clients may do: flags of its [`Slot`].
///
/// `honoured`: its entries count at all; `usable`: it may serve where it is
/// healthy.
fn sticky(persist: Persist, healthy: bool, honoured: bool, usable: bool) -> u16 {
    match (healthy, persist) {
        // Weight 0 takes sticky clients still.
        (true, _) if usable => Slot::STICKY,
        (true, _) | (false, Persist::Redispatch) => 0,
        (false, _) if !honoured => 0,
        // They try the dead one first; its RST or silence moves them.
        (false, Persist::Haproxy) => Slot::STICKY,
        (false, Persist::Strict) => Slot::STRICT,
    }
}

/// The cluster's policy as the datapath reads it.
pub fn cluster(cluster: &Cluster, healthy: &[bool], host: Host) -> abi::Cluster {
    let ready = ready(cluster, healthy);
    let mut policy = abi::Cluster {
        backends: cluster.backends.len() as u16,
        balance: match cluster.balance {
            Balance::LeastConn => abi::Balance::LeastConn,
            Balance::RoundRobin => abi::Balance::RoundRobin,
        } as u8,
        sticky: u8::from(cluster.sticky.is_some()),
        max_connections: cluster.max_connections,
        sticky_expire: cluster.sticky.map_or(0, |sticky| duration(sticky.expire)),
        connect_timeout: duration(cluster.timeouts.connect),
        idle_timeout: duration(cluster.timeouts.client.min(cluster.timeouts.server)),
        half_closed_timeout: duration(cluster.timeouts.half_closed),
        refuse_limit: refuse(cluster.refuse.limit),
        refuse_snat: refuse(cluster.refuse.snat),
        refuse_no_backend: refuse(cluster.refuse.no_backend),
        refuse_deny: refuse(cluster.refuse.deny),
        rate_total: interval(cluster.new_connections.total),
        rate_source: interval(cluster.new_connections.per_source),
        rate_burst: u32::try_from(cluster.new_connections.burst.as_nanos()).unwrap_or(u32::MAX),
        unknown: match host.unknown.unwrap_or(cluster.unknown) {
            Unknown::Reset => abi::Unknown::Reset,
            Unknown::Drop => abi::Unknown::Drop,
            Unknown::Pass => abi::Unknown::Pass,
        } as u8,
        redispatch_after: duration(cluster.redispatch_after),
        resting: host.resting,
        state: match host.state {
            ClusterState::Pass => abi::ClusterState::Pass,
            // These are in the slots.
            ClusterState::Ready | ClusterState::Drain | ClusterState::Maint => {
                abi::ClusterState::Ready
            }
        } as u8,
        ..abi::Cluster::default()
    };
    let primary = primary_ready(cluster, &ready);
    for (slot, backend) in cluster.backends.iter().enumerate() {
        if is_retired(cluster, backend) {
            continue;
        }
        let chosen = ready[slot] && host.state.takes_new();
        let weight = if chosen { backend.weight } else { 0 };
        // A backup's entries are not honoured once a primary is ready.
        let honoured = !backend.backup || !primary;
        let usable = !backend.backup || ready[slot];
        policy.slots[slot] = Slot {
            weight,
            flags: match host.state {
                ClusterState::Maint => 0,
                _ => sticky(cluster.persist, healthy[slot], honoured, usable),
            },
        };
        policy.total_weight += u32::from(weight);
    }
    policy.stride = stride(policy.total_weight);
    policy
}

fn primary_ready(cluster: &Cluster, ready: &[bool]) -> bool {
    let mut both = cluster.backends.iter().zip(ready);
    both.any(|(backend, ready)| *ready && !backend.backup)
}

fn refuse(action: RefuseAction) -> u8 {
    match action {
        RefuseAction::Drop => abi::RefuseAction::Drop as u8,
        RefuseAction::Reset => abi::RefuseAction::Reset as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::test_cluster;

    /// (weight, backup) by slot.
    fn with(backends: &[(u16, bool)]) -> Cluster {
        test_cluster(backends)
    }

    #[test]
    fn who_is_ready() {
        let three = with(&[(1, false), (1, false), (1, true)]);
        let drained = with(&[(0, false), (1, true), (1, true)]);
        let cases: [(&str, &Cluster, [bool; 3], [bool; 3]); 6] = [
            ("all healthy", &three, [true; 3], [true, true, false]),
            (
                "one down",
                &three,
                [false, true, true],
                [false, true, false],
            ),
            (
                "primaries down",
                &three,
                [false, false, true],
                [false, false, true],
            ),
            ("all down", &three, [false; 3], [false; 3]),
            ("drained primary", &drained, [true; 3], [false, true, false]),
            (
                "second backup",
                &drained,
                [true, false, true],
                [false, false, true],
            ),
        ];
        for (case, cluster, healthy, wanted) in cases {
            assert_eq!(ready(cluster, &healthy), wanted, "{case}");
        }
    }

    #[test]
    fn sticky_flags() {
        let three = with(&[(1, false), (0, false), (1, true)]);
        let flags = |healthy: [bool; 3]| {
            let policy = cluster(&three, &healthy, Host::default());
            [0, 1, 2].map(|slot| policy.slots[slot].flags & Slot::STICKY != 0)
        };
        assert_eq!(
            flags([true; 3]),
            [true, true, false],
            "the backup's are not honoured"
        );
        assert_eq!(
            flags([false, true, true]),
            [false, true, true],
            "weight 0 keeps its own"
        );
        assert_eq!(flags([false; 3]), [false; 3]);
    }

    #[test]
    fn sticky_clients_of_a_dead_backend() {
        // Two primaries and two backups; weight 0 is drain.
        let (no, yes, strict) = (0, Slot::STICKY, Slot::STRICT);
        let all_up = [true; 4];
        let one_down = [false, true, true, false];
        let only_backup = [false, false, false, true];
        let cases = [
            (Persist::Redispatch, all_up, [yes, yes, no, no]),
            (Persist::Redispatch, one_down, [no, yes, no, no]),
            (Persist::Redispatch, only_backup, [no, no, no, yes]),
            (Persist::Haproxy, all_up, [yes, yes, no, no]),
            (Persist::Haproxy, one_down, [yes, yes, no, no]),
            (Persist::Haproxy, only_backup, [yes, yes, yes, yes]),
            (Persist::Haproxy, [false; 4], [yes; 4]),
            (Persist::Strict, all_up, [yes, yes, no, no]),
            (Persist::Strict, one_down, [strict, yes, no, no]),
            (Persist::Strict, only_backup, [strict, strict, strict, yes]),
            (Persist::Strict, [false; 4], [strict; 4]),
        ];
        for (persist, healthy, wanted) in cases {
            let mut pool = with(&[(1, false), (1, false), (1, true), (1, true)]);
            pool.persist = persist;
            let policy = cluster(&pool, &healthy, Host::default());
            let flags = [0, 1, 2, 3].map(|slot| policy.slots[slot].flags);
            assert_eq!(flags, wanted, "{persist:?} {healthy:?}");
            // No algorithm chooses a dead one, whatever its sticky clients do.
            for (slot, healthy) in healthy.iter().enumerate() {
                assert!(*healthy || policy.slots[slot].weight == 0);
            }
        }
    }

    #[test]
    fn what_is_retired_takes_nothing() {
        for persist in [Persist::Redispatch, Persist::Haproxy, Persist::Strict] {
            for healthy in [[true; 3], [false, true, true], [false; 3]] {
                let mut pool = with(&[(5, false), (1, false), (1, true)]);
                pool.persist = persist;
                pool.backends[0].retired = true;
                let policy = cluster(&pool, &healthy, Host::default());
                assert_eq!(policy.slots[0], Slot::default(), "{persist:?} {healthy:?}");
                assert_eq!(policy.backends, 3, "the others keep their slots");
                assert!(!ready(&pool, &healthy)[0]);
                pool.retired = true;
                let policy = cluster(&pool, &healthy, Host::default());
                assert_eq!(policy.slots[..3], [Slot::default(); 3]);
                assert_eq!(policy.total_weight, 0);
                assert_eq!(ready(&pool, &healthy), [false; 3]);
            }
        }
        // A primary that is retired does not keep the backup waiting.
        let mut pool = with(&[(1, false), (1, true)]);
        pool.backends[0].retired = true;
        assert_eq!(ready(&pool, &[true; 2]), [false, true]);
    }

    #[test]
    fn states() {
        let mut backend = with(&[(1, false)]).backends.remove(0);
        assert_eq!(
            (state(&backend, true), state(&backend, false)),
            ("up", "down")
        );
        backend.weight = 0;
        assert_eq!(state(&backend, true), "drain");
        backend.retired = true;
        for healthy in [true, false] {
            assert_eq!(state(&backend, healthy), "removed");
        }
    }

    #[test]
    fn an_operators_word() {
        // One backend of each kind: up, weight 0, down, backup.
        let mut pool = with(&[(2, false), (0, false), (1, false), (1, true)]);
        pool.persist = Persist::Strict;
        let healthy = [true, true, false, true];
        let (no, yes, strict) = (0, Slot::STICKY, Slot::STRICT);
        let (ready, pass) = (abi::ClusterState::Ready, abi::ClusterState::Pass);
        let flags = [yes, yes, strict, no];
        let cases = [
            (ClusterState::Ready, ready, 2, flags),
            (ClusterState::Drain, ready, 0, flags),
            (ClusterState::Maint, ready, 0, [no; 4]),
            (ClusterState::Pass, pass, 2, flags),
        ];
        for (state, wanted, total, flags) in cases {
            let host = Host {
                state,
                ..Host::default()
            };
            let policy = cluster(&pool, &healthy, host);
            assert_eq!(policy.state, wanted as u8, "{state}");
            assert_eq!(policy.total_weight, total, "{state}");
            assert_eq!(u32::from(policy.slots[0].weight), total, "{state}");
            assert_eq!(
                [0, 1, 2, 3].map(|at| policy.slots[at].flags),
                flags,
                "{state}"
            );
        }
    }

    #[test]
    fn resting_flows_are_shared_by_limit() {
        let mut clusters = vec![with(&[(1, false)]), with(&[(1, false)])];
        assert_eq!(resting(&clusters[..1], 0), 32_768);
        clusters[0].max_connections = 3_000_000;
        clusters[1].max_connections = 1_000_000;
        assert_eq!(resting(&clusters, 0), 24_576);
        assert_eq!(resting(&clusters, 1), 8_192);
        clusters[1].max_connections = 1;
        assert_eq!(resting(&clusters, 1), LEAST_RESTING);
        clusters[0].retired = true;
        assert_eq!(resting(&clusters, 0), LEAST_RESTING);
        assert_eq!(resting(&clusters, 1), 32_768);
    }

    #[test]
    fn weights_and_timeouts() {
        let mut pool = with(&[(1, false), (3, false)]);
        pool.timeouts.server = std::time::Duration::from_secs(10);
        pool.redispatch_after = std::time::Duration::from_secs(2);
        let host = Host {
            unknown: Some(Unknown::Pass),
            resting: 7,
            ..Host::default()
        };
        let policy = cluster(&pool, &[true, true], host);
        assert_eq!(policy.unknown, abi::Unknown::Pass as u8);
        assert_eq!(policy.resting, 7);
        assert_eq!(
            policy.redispatch_after,
            duration(std::time::Duration::from_secs(2))
        );
        assert_eq!(policy.total_weight, 4);
        assert_eq!([policy.slots[0].weight, policy.slots[1].weight], [1, 3]);
        assert_eq!(
            policy.idle_timeout,
            duration(std::time::Duration::from_secs(10))
        );
    }
}

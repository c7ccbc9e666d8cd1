//! From health to what the datapath may choose: pure.

use std::time::Duration;

use ocs_lb_common::abi::{self, Slot};
use ocs_lb_common::limit::interval;
use ocs_lb_common::select::stride;
use ocs_lb_common::ticks::duration;

use super::bill::RESTING;
use super::ramp;
use super::standing::Standing;
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
    /// Now, on the clock of the backends' returns.
    pub now: Duration,
}

impl Host {
    /// For the cluster with this id.
    pub fn of(
        model: &Model,
        id: usize,
        unknown: Option<Unknown>,
        state: ClusterState,
        now: Duration,
    ) -> Self {
        Self {
            unknown,
            resting: resting(&model.clusters, id),
            state,
            now,
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
/// A backend is ready when it is healthy, has a weight, is not drained or in
/// maintenance, and is still in the file, as its cluster is. Backups serve only
/// while no primary is ready, and then the first one in the order of the file
/// serves alone (HAProxy without `allbackups`).
pub fn ready(cluster: &Cluster, standings: &[Standing]) -> Vec<bool> {
    let is_able = |(backend, standing): (&Backend, &Standing)| {
        standing.healthy && standing.weight(backend) > 0 && !is_retired(cluster, backend)
    };
    let both = cluster.backends.iter().zip(standings);
    let able: Vec<bool> = both.map(is_able).collect();
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
/// the file. Without a check it is up. Maintenance hides its health, as in
/// HAProxy.
pub fn state(backend: &Backend, standing: &Standing, now: Duration) -> &'static str {
    if backend.retired {
        "removed"
    } else if standing.word.is_maint() {
        "maint"
    } else if !standing.healthy {
        "down"
    } else if standing.weight(backend) == 0 {
        "drain"
    } else if standing.share(backend, now).is_some() {
        "slow-start"
    } else {
        "up"
    }
}

/// What a backend's sticky clients may do: flags of its [`Slot`].
///
/// `honoured`: its entries count at all; `usable`: it may serve where it is
/// healthy.
fn sticky(persist: Persist, standing: &Standing, honoured: bool, usable: bool) -> u16 {
    if standing.word.is_maint() {
        // Nothing new at all, whatever its health.
        let refused = honoured && persist == Persist::Strict;
        return if refused { Slot::STRICT } else { 0 };
    }
    match (standing.healthy, persist) {
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
///
/// While a backend of it ramps, all its weights are [`ramp::FULL`] times as
/// large, so that what grows does so in fine steps.
pub fn cluster(cluster: &Cluster, standings: &[Standing], host: Host) -> abi::Cluster {
    let ready = ready(cluster, standings);
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
    let chosen: Vec<bool> = ready
        .iter()
        .map(|ready| *ready && host.state.takes_new())
        .collect();
    let share = |slot: usize| {
        let standing = &standings[slot];
        standing.share(&cluster.backends[slot], host.now)
    };
    let ramps = (0..chosen.len()).any(|slot| chosen[slot] && share(slot).is_some());
    let full = if ramps { ramp::FULL } else { 1 };
    for (slot, (backend, standing)) in cluster.backends.iter().zip(standings).enumerate() {
        if is_retired(cluster, backend) {
            continue;
        }
        let share = share(slot).filter(|_| chosen[slot]);
        let weight = match chosen[slot] {
            true => standing.weight(backend) * share.unwrap_or(full),
            false => 0,
        };
        // A backup's entries are not honoured once a primary is ready. One that
        // is drained keeps its clients; of others only the first serves.
        let honoured = !backend.backup || !primary;
        let drained = honoured && standing.weight(backend) == 0;
        let usable = !backend.backup || ready[slot] || drained;
        let flags = match host.state {
            ClusterState::Maint => 0,
            _ => sticky(cluster.persist, standing, honoured, usable),
        };
        policy.slots[slot] = Slot {
            weight,
            flags: flags | share.map_or(0, |_| Slot::RAMP),
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
    use crate::model::ramp::Ramp;
    use crate::model::{BackendState, BackendWord, test_cluster};

    /// Of backends of which only their health is known.
    fn all(healthy: &[bool]) -> Vec<Standing> {
        healthy.iter().copied().map(Standing::of).collect()
    }

    fn said(state: BackendState) -> Standing {
        let state = Some(state);
        Standing {
            word: BackendWord {
                state,
                weight: None,
            },
            ..Standing::of(true)
        }
    }

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
            assert_eq!(ready(cluster, &all(&healthy)), wanted, "{case}");
        }
    }

    #[test]
    fn sticky_flags() {
        let three = with(&[(1, false), (0, false), (1, true)]);
        let flags = |healthy: [bool; 3]| {
            let policy = cluster(&three, &all(&healthy), Host::default());
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
            let policy = cluster(&pool, &all(&healthy), Host::default());
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
                let policy = cluster(&pool, &all(&healthy), Host::default());
                assert_eq!(policy.slots[0], Slot::default(), "{persist:?} {healthy:?}");
                assert_eq!(policy.backends, 3, "the others keep their slots");
                assert!(!ready(&pool, &all(&healthy))[0]);
                pool.retired = true;
                let policy = cluster(&pool, &all(&healthy), Host::default());
                assert_eq!(policy.slots[..3], [Slot::default(); 3]);
                assert_eq!(policy.total_weight, 0);
                assert_eq!(ready(&pool, &all(&healthy)), [false; 3]);
            }
        }
        // A primary that is retired does not keep the backup waiting.
        let mut pool = with(&[(1, false), (1, true)]);
        pool.backends[0].retired = true;
        assert_eq!(ready(&pool, &all(&[true; 2])), [false, true]);
    }

    #[test]
    fn states() {
        let mut backend = with(&[(1, false)]).backends.remove(0);
        backend.slow_start = Duration::from_secs(10);
        let now = Duration::from_secs(100);
        let is = |backend: &Backend, standing: Standing| state(backend, &standing, now);
        let (up, down) = (Standing::of(true), Standing::of(false));
        let with_state = |state, healthy| Standing {
            healthy,
            ..said(state)
        };
        let since = |secs| Standing {
            ramp: Ramp::found(Some(Duration::from_secs(secs))),
            ..up
        };
        for (standing, wanted) in [
            (up, "up"),
            (down, "down"),
            (since(91), "slow-start"),
            (since(90), "up"),
            (with_state(BackendState::Ready, true), "up"),
            (with_state(BackendState::Ready, false), "down"),
            (with_state(BackendState::Drain, true), "drain"),
            (with_state(BackendState::Drain, false), "down"),
            (with_state(BackendState::Maint, true), "maint"),
            (with_state(BackendState::Maint, false), "maint"),
        ] {
            assert_eq!(is(&backend, standing), wanted, "{standing:?}");
        }
        backend.weight = 0;
        assert_eq!(is(&backend, up), "drain");
        let mut heavier = up;
        heavier.word.weight = Some(3);
        assert_eq!(is(&backend, heavier), "up");
        backend.retired = true;
        for standing in [up, down, said(BackendState::Maint)] {
            assert_eq!(is(&backend, standing), "removed");
        }
    }

    /// Every cell of the contract's table: what the sticky client of a backend
    /// meets while another one is ready.
    #[test]
    fn the_table_of_persist() {
        let drain = said(BackendState::Drain);
        let maint = said(BackendState::Maint);
        let mut light = Standing::of(true);
        light.word.weight = Some(0);
        let (no, yes, strict) = (0, Slot::STICKY, Slot::STRICT);
        for (persist, is_down, in_maint) in [
            (Persist::Redispatch, no, no),
            (Persist::Haproxy, yes, no),
            (Persist::Strict, strict, strict),
        ] {
            let mut pool = with(&[(1, false), (1, false), (1, true)]);
            pool.persist = persist;
            let mut dead = maint;
            dead.healthy = false;
            let mut gone = drain;
            gone.healthy = false;
            for (standing, wanted) in [
                (drain, yes),
                (light, yes),
                (Standing::of(false), is_down),
                (gone, is_down),
                (maint, in_maint),
                (dead, in_maint),
            ] {
                let standings = [standing, Standing::of(true), Standing::of(true)];
                let policy = cluster(&pool, &standings, Host::default());
                assert_eq!(policy.slots[0].flags, wanted, "{persist:?} {standing:?}");
                assert_eq!(policy.slots[0].weight, 0, "nobody else comes to it");
                assert_eq!(policy.slots[1].weight, 1);
                assert_eq!(policy.slots[2], Slot::default(), "a primary is ready");
            }
        }
    }

    #[test]
    fn a_backup_that_is_drained_or_in_maintenance() {
        let mut pool = with(&[(1, false), (1, true), (1, true)]);
        let (drain, maint) = (said(BackendState::Drain), said(BackendState::Maint));
        let (up, down) = (Standing::of(true), Standing::of(false));
        let slots = |pool: &Cluster, standings: [Standing; 3]| {
            let policy = cluster(pool, &standings, Host::default());
            [1, 2].map(|at| (policy.slots[at].weight, policy.slots[at].flags))
        };
        let (no, yes, strict) = (0, Slot::STICKY, Slot::STRICT);
        assert_eq!(slots(&pool, [down, drain, up]), [(0, yes), (1, yes)]);
        assert_eq!(slots(&pool, [down, maint, up]), [(0, no), (1, yes)]);
        assert_eq!(slots(&pool, [up, drain, up]), [(0, no), (0, no)]);
        // Primaries that only have sticky clients leave the new ones to it.
        assert_eq!(slots(&pool, [drain, up, up]), [(1, yes), (0, no)]);
        pool.persist = Persist::Strict;
        assert_eq!(slots(&pool, [down, maint, up]), [(0, strict), (1, yes)]);
        assert_eq!(slots(&pool, [up, maint, up]), [(0, no), (0, no)]);
    }

    #[test]
    fn the_cluster_and_its_backends_may_both_be_spoken_of() {
        let pool = with(&[(2, false), (2, false)]);
        let drained = [said(BackendState::Drain), said(BackendState::Ready)];
        for (state, weights, flags) in [
            (ClusterState::Ready, [0, 2], [Slot::STICKY; 2]),
            (ClusterState::Drain, [0, 0], [Slot::STICKY; 2]),
            (ClusterState::Maint, [0, 0], [0, 0]),
        ] {
            let host = Host {
                state,
                ..Host::default()
            };
            let policy = cluster(&pool, &drained, host);
            assert_eq!([0, 1].map(|at| policy.slots[at].weight), weights, "{state}");
            assert_eq!([0, 1].map(|at| policy.slots[at].flags), flags, "{state}");
        }
    }

    #[test]
    fn weights_of_a_ramp() {
        let mut pool = with(&[(256, false), (3, false), (3, true)]);
        for backend in &mut pool.backends {
            backend.slow_start = Duration::from_secs(8);
        }
        let host = |secs| Host {
            now: Duration::from_secs(secs),
            ..Host::default()
        };
        let mut standings = all(&[true; 3]);
        let second = Duration::from_secs;
        standings[1].ramp = Ramp::found(Some(second(10)));
        let policy = |standings: &[Standing], secs| cluster(&pool, standings, host(secs));
        let weights = |policy: &abi::Cluster| [0, 1, 2].map(|at| policy.slots[at].weight);
        let quarter = policy(&standings, 12);
        assert_eq!(weights(&quarter), [256 * 128, 3 * 32, 0]);
        assert_eq!(quarter.total_weight, 256 * 128 + 3 * 32);
        assert_eq!(quarter.stride, stride(quarter.total_weight));
        assert_eq!(quarter.slots[1].flags, Slot::STICKY | Slot::RAMP);
        assert_eq!(quarter.slots[0].flags, Slot::STICKY);
        let over = policy(&standings, 18);
        assert_eq!(weights(&over), [256, 3, 0]);
        assert_eq!(over.slots[1].flags, Slot::STICKY);
        // What takes nobody does not make the others' weights larger.
        standings[1].healthy = false;
        assert_eq!(weights(&policy(&standings, 12)), [256, 0, 0]);
        // A backup that ramps and serves alone serves all.
        let mut alone = all(&[false, false, true]);
        alone[2].ramp = Ramp::found(Some(second(10)));
        let policy = policy(&alone, 11);
        assert_eq!(weights(&policy), [0, 0, 3 * 16]);
        assert_eq!(policy.total_weight, 48);
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
            let policy = cluster(&pool, &all(&healthy), host);
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
        pool.timeouts.server = Duration::from_secs(10);
        pool.redispatch_after = Duration::from_secs(2);
        let host = Host {
            unknown: Some(Unknown::Pass),
            resting: 7,
            ..Host::default()
        };
        let policy = cluster(&pool, &all(&[true, true]), host);
        assert_eq!(policy.unknown, abi::Unknown::Pass as u8);
        assert_eq!(policy.resting, 7);
        assert_eq!(policy.redispatch_after, duration(Duration::from_secs(2)));
        assert_eq!(policy.total_weight, 4);
        assert_eq!([policy.slots[0].weight, policy.slots[1].weight], [1, 3]);
        assert_eq!(policy.idle_timeout, duration(Duration::from_secs(10)));
    }
}

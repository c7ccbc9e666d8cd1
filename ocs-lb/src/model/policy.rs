//! From health to what the datapath may choose: pure.

use ocs_lb_common::abi::{self, Slot};
use ocs_lb_common::select::stride;
use ocs_lb_common::ticks::duration;

use super::{Backend, Balance, Cluster, RefuseAction, Unknown};

/// Which backends take new clients now, by slot.
///
/// A backend is ready when it is healthy and has a weight. Backups serve only
/// while no primary is ready, and then the first one in the order of the file
/// serves alone (HAProxy without `allbackups`).
pub fn ready(cluster: &Cluster, healthy: &[bool]) -> Vec<bool> {
    let able: Vec<bool> = cluster
        .backends
        .iter()
        .zip(healthy)
        .map(|(backend, healthy)| *healthy && backend.weight > 0)
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

/// A backend's state, by the contract's word. Without a check it is up.
pub fn state(backend: &Backend, healthy: bool) -> &'static str {
    match (healthy, backend.weight) {
        (false, _) => "down",
        (true, 0) => "drain",
        (true, _) => "up",
    }
}

/// The cluster's policy as the datapath reads it. `unknown`, where given,
/// stands in for the cluster's own.
pub fn cluster(cluster: &Cluster, healthy: &[bool], unknown: Option<Unknown>) -> abi::Cluster {
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
        unknown: match unknown.unwrap_or(cluster.unknown) {
            Unknown::Reset => abi::Unknown::Reset,
            Unknown::Drop => abi::Unknown::Drop,
            Unknown::Pass => abi::Unknown::Pass,
        } as u8,
        ..abi::Cluster::default()
    };
    for (slot, backend) in cluster.backends.iter().enumerate() {
        let weight = if ready[slot] { backend.weight } else { 0 };
        // Weight 0 takes sticky clients still; a backup's are not honoured
        // once a primary is ready.
        let sticky = healthy[slot] && (!backend.backup || ready[slot]);
        policy.slots[slot] = Slot {
            weight,
            flags: if sticky { Slot::STICKY } else { 0 },
        };
        policy.total_weight += u32::from(weight);
    }
    policy.stride = stride(policy.total_weight);
    policy
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
            let policy = cluster(&three, &healthy, None);
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
    fn weights_and_timeouts() {
        let mut pool = with(&[(1, false), (3, false)]);
        pool.timeouts.server = std::time::Duration::from_secs(10);
        let policy = cluster(&pool, &[true, true], None);
        assert_eq!(policy.total_weight, 4);
        assert_eq!([policy.slots[0].weight, policy.slots[1].weight], [1, 3]);
        assert_eq!(
            policy.idle_timeout,
            duration(std::time::Duration::from_secs(10))
        );
    }
}

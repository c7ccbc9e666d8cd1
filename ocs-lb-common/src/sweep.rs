//! When a flow ends by time, and when its entries may be deleted.

use crate::abi::Cluster;
use crate::ticks::Ticks;
use crate::track::{Count, Phase, StateWord};

/// Ticks of a closed flow's rest: its entries serve retransmissions.
pub const CLOSED_REST: u32 = 10 * SECOND;

/// Ticks of a reset flow's rest.
pub const RESET_REST: u32 = 2 * SECOND;

/// Ticks from death to deletion: no packet that still holds the entry is under
/// way after that, and a freed element may become another flow at once.
pub const DEAD_REST: u32 = SECOND / 10;

/// Ticks after which an entry without its other half is taken for an orphan.
/// Halves of a pair are written microseconds apart.
pub const ORPHAN_AGE: u32 = 2 * SECOND;

const SECOND: u32 = crate::ticks::duration(core::time::Duration::from_secs(1));

/// What the sweep does with a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// Swap to [`Phase::Dead`] and count.
    End(Count),
    /// Delete both entries and free the port.
    Delete,
}

/// What is due for a flow, by its owner's state and the last packets of its
/// two directions. Of a half-open flow, `forward` is its birth; of a dead one,
/// its death.
#[inline(always)]
pub fn due(state: StateWord, forward: Ticks, reverse: Ticks, now: Ticks, cluster: &Cluster) -> Due {
    let idle = now.since(forward.later(reverse));
    let closing = state.has(StateWord::CLIENT_FIN | StateWord::SERVER_FIN);
    let (limit, age, count) = match state.phase() {
        Phase::HalfOpen => (
            cluster.connect_timeout,
            now.since(forward),
            Count::DropPending,
        ),
        Phase::Established if closing => (cluster.half_closed_timeout, idle, Count::DropLive),
        Phase::Established => (cluster.idle_timeout, idle, Count::DropLive),
        Phase::Closed => (CLOSED_REST, idle, Count::None),
        Phase::Reset => (RESET_REST, idle, Count::None),
        Phase::Deleting => return Due::Nothing,
        Phase::Dead => {
            return if now.since(forward) >= DEAD_REST {
                Due::Delete
            } else {
                Due::Nothing
            };
        }
    };
    if age >= limit {
        Due::End(count)
    } else {
        Due::Nothing
    }
}

/// Whether an entry is an orphan: its other half is missing or belongs to
/// another flow, and it is too old to be one that is just being written.
#[inline(always)]
pub fn is_orphan(last_seen: Ticks, now: Ticks, has_other_half: bool) -> bool {
    !has_other_half && now.since(last_seen) >= ORPHAN_AGE
}

/// The count that a flow holds, given back when it ends.
#[inline(always)]
pub const fn held(phase: Phase) -> Count {
    match phase {
        Phase::HalfOpen => Count::DropPending,
        Phase::Established => Count::DropLive,
        Phase::Closed | Phase::Reset | Phase::Dead | Phase::Deleting => Count::None,
    }
}

/// What one walk over the flow map found and did.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Entries seen, both directions.
    pub entries: u64,
    /// Flows half-open.
    pub half_open: u64,
    /// Flows established.
    pub established: u64,
    /// Flows closed, reset or dead: their entries rest.
    pub resting: u64,
    /// Flows ended by this walk.
    pub ended: u64,
    /// Flows whose entries this walk deleted.
    pub deleted: u64,
    /// Reverse entries without an owner, deleted.
    pub orphans: u64,
    /// Deletions that failed.
    pub errors: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due() {
        let cluster = Cluster {
            connect_timeout: 100,
            idle_timeout: 1000,
            half_closed_timeout: 300,
            ..Cluster::default()
        };
        let born = StateWord::born(0);
        let live = born.with_phase(Phase::Established);
        let half_closed = live.with(StateWord::CLIENT_FIN);
        let closed = live.with_phase(Phase::Closed);
        let dead = live.with_phase(Phase::Dead);
        let end = Due::End;
        // (state, forward, reverse, now)
        let cases = [
            (born, 0, 0, 99, Due::Nothing),
            (born, 0, 90, 100, end(Count::DropPending)),
            (live, 0, 500, 1499, Due::Nothing),
            (live, 0, 500, 1500, end(Count::DropLive)),
            (live, 500, 0, 1499, Due::Nothing),
            (half_closed, 0, 0, 300, end(Count::DropLive)),
            (closed, 0, 0, CLOSED_REST - 1, Due::Nothing),
            (closed, 0, 0, CLOSED_REST, end(Count::None)),
            (
                live.with_phase(Phase::Reset),
                0,
                0,
                RESET_REST,
                end(Count::None),
            ),
            (dead, 0, 0, DEAD_REST - 1, Due::Nothing),
            (dead, 0, 0, DEAD_REST, Due::Delete),
        ];
        for (state, forward, reverse, now, wanted) in cases {
            let is = due(state, Ticks(forward), Ticks(reverse), Ticks(now), &cluster);
            assert_eq!(is, wanted, "{state:?} {forward} {reverse} {now}");
        }
    }

    #[test]
    fn an_end_gives_back_what_is_held() {
        assert_eq!(held(Phase::HalfOpen), Count::DropPending);
        assert_eq!(held(Phase::Established), Count::DropLive);
        assert_eq!(held(Phase::Reset), Count::None);
    }
}

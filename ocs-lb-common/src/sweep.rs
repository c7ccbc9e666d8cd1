//! When a flow ends by time, and when its entries may be deleted.

use crate::abi::Cluster;
use crate::rest::{CLOSED_SERVE, DEAD_REST, KILLED_SERVE, RESET_SERVE, needed};
use crate::ticks::Ticks;
use crate::track::{Count, Phase, StateWord};

/// Ticks after which an entry without its other half is taken for an orphan.
/// Halves of a pair are written microseconds apart.
pub const ORPHAN_AGE: u32 = 2 * SECOND;

const SECOND: u32 = crate::ticks::duration(core::time::Duration::from_secs(1));

/// What time does to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// Swap to [`Phase::Dead`] and count.
    End(Count),
    /// Swap to [`Phase::Killed`], count, and tell both sides.
    Kill,
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
    let (limit, age, due) = match state.phase() {
        Phase::HalfOpen => (
            cluster.connect_timeout,
            now.since(forward),
            Due::End(Count::DropPending),
        ),
        Phase::Established if closing => (cluster.half_closed_timeout, idle, Due::Kill),
        Phase::Established => (cluster.idle_timeout, idle, Due::Kill),
        Phase::Closed => (CLOSED_SERVE, idle, Due::End(Count::None)),
        Phase::Reset => (RESET_SERVE, idle, Due::End(Count::None)),
        // Of one that is killed or dead, `forward` is the time of that.
        Phase::Killed => (KILLED_SERVE, now.since(forward), Due::End(Count::None)),
        Phase::Dead => (needed(state), now.since(forward), Due::Delete),
        Phase::Deleting => return Due::Nothing,
    };
    if age >= limit { due } else { Due::Nothing }
}

/// Whether the record of a port's rest (see [`crate::rest::retire`]), made at
/// `since`, has served.
#[inline(always)]
pub fn is_rested(state: StateWord, since: Ticks, now: Ticks) -> bool {
    matches!(state.phase(), Phase::Dead) && now.since(since) >= needed(state).max(DEAD_REST)
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
        Phase::Closed | Phase::Reset | Phase::Dead | Phase::Deleting | Phase::Killed => Count::None,
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
    /// Flows that are over: their entries and ports rest.
    pub resting: u64,
    /// Ports whose rest is recorded by a reverse entry alone.
    pub records: u64,
    /// Flows ended by this walk.
    pub ended: u64,
    /// Of these, idle for too long: killed.
    pub killed: u64,
    /// Killed flows whose record found the ring full.
    pub untold: u64,
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
        let reset = live.with_phase(Phase::Reset).with(StateWord::TOLD);
        let killed = live.with_phase(Phase::Killed).with(StateWord::TOLD);
        let end = Due::End;
        // (state, forward, reverse, now)
        let cases = [
            (born, 0, 0, 99, Due::Nothing),
            (born, 0, 90, 100, end(Count::DropPending)),
            (live, 0, 500, 1499, Due::Nothing),
            (live, 0, 500, 1500, Due::Kill),
            (live, 500, 0, 1499, Due::Nothing),
            (half_closed, 0, 0, 300, Due::Kill),
            (closed, 0, 0, CLOSED_SERVE - 1, Due::Nothing),
            (closed, 0, 0, CLOSED_SERVE, end(Count::None)),
            (reset, 0, 0, RESET_SERVE, end(Count::None)),
            (killed, 5, 0, 4 + KILLED_SERVE, Due::Nothing),
            (killed, 5, 9, 5 + KILLED_SERVE, end(Count::None)),
            (
                reset.with_phase(Phase::Dead),
                0,
                0,
                DEAD_REST - 1,
                Due::Nothing,
            ),
            (reset.with_phase(Phase::Dead), 0, 0, DEAD_REST, Due::Delete),
            (dead, 0, 0, needed(dead) - 1, Due::Nothing),
            (dead, 0, 0, needed(dead), Due::Delete),
            (
                live.with_phase(Phase::Deleting),
                0,
                0,
                u32::MAX / 2,
                Due::Nothing,
            ),
        ];
        for (state, forward, reverse, now, wanted) in cases {
            let is = due(state, Ticks(forward), Ticks(reverse), Ticks(now), &cluster);
            assert_eq!(is, wanted, "{state:?} {forward} {reverse} {now}");
        }
    }

    #[test]
    fn records_rest_their_time() {
        let record = StateWord::born(3).with_phase(Phase::Dead);
        let needed = needed(record);
        assert!(!is_rested(record, Ticks(5), Ticks(4 + needed)));
        assert!(is_rested(record, Ticks(5), Ticks(5 + needed)));
        let alive = record.with_phase(Phase::HalfOpen);
        assert!(!is_rested(alive, Ticks(5), Ticks(5 + needed)));
    }

    #[test]
    fn an_end_gives_back_what_is_held() {
        assert_eq!(held(Phase::HalfOpen), Count::DropPending);
        assert_eq!(held(Phase::Established), Count::DropLive);
        assert_eq!(held(Phase::Reset), Count::None);
    }
}

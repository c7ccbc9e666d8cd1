//! How long a SNAT port rests after its flow, and when it may be used earlier.
//!
//! The server decides whether a used tuple works again: it may hold a
//! TIME_WAIT, or wait for the end of a handshake. The times are those of
//! Linux, as are the conditions under which its TIME_WAIT lets a SYN in
//! (`net/ipv4/tcp_minisocks.c`: `tcp_timewait_state_process`).

use crate::abi::Flow;
use crate::address::Address;
use crate::ticks::Ticks;
use crate::track::{Phase, StateWord, is_after};

const SECOND: u32 = crate::ticks::duration(core::time::Duration::from_secs(1));

/// Ticks that a closed flow's entries go on serving retransmissions.
pub const CLOSED_SERVE: u32 = 10 * SECOND;

/// Ticks that a reset flow may revive at least: until it is swept.
pub const RESET_SERVE: u32 = 2 * SECOND;

/// Ticks that packets of a flow ended by us are answered with a RST.
pub const KILLED_SERVE: u32 = 10 * SECOND;

/// Ticks from death to deletion at least: no packet that still holds the entry
/// is under way after that.
pub const DEAD_REST: u32 = SECOND / 10;

/// Ticks of a TIME_WAIT (`TCP_TIMEWAIT_LEN`).
const TIME_WAIT: u32 = 60 * SECOND;

/// Ticks that a server repeats a SYN-ACK nobody answers, at its default of
/// five retries (1 + 2 + 4 + 8 + 16 + 32 s).
const SYN_RECEIVED: u32 = 64 * SECOND;

/// Looks at resting ports in one search at most.
pub const CANDIDATES: u32 = 16;

/// Ticks that must have passed since a flow's death, or since its last packet
/// while its entries still serve, before its port counts as rested.
#[inline(always)]
pub const fn needed(word: StateWord) -> u32 {
    let ended = StateWord::TOLD | StateWord::SERVER_RESET;
    let both = StateWord::CLIENT_FIN | StateWord::SERVER_FIN;
    let dead = matches!(word.phase(), Phase::Dead | Phase::Deleting);
    if !word.has(ended) && word.0 & both == both {
        return match (word.has(StateWord::SERVER_FIRST), dead) {
            // From its death on as well: a flow that another of the same client
            // replaced may have closed only then.
            (true, _) => TIME_WAIT,
            (false, true) => DEAD_REST,
            (false, false) => RESET_SERVE,
        };
    }
    if !word.has(ended) {
        // Its server was never told that the flow is over.
        return SYN_RECEIVED;
    }
    if dead { DEAD_REST } else { RESET_SERVE }
}

/// What is left of a flow whose port rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its last state.
    pub word: StateWord,
    /// The client's highest sequence number, plus one.
    pub seq_end: u32,
    /// The client's last timestamp; 0 where it or the server sent none, so
    /// that the server remembers none.
    pub timestamp: u32,
    /// Ticks since its death, or since its last packet while it still serves.
    pub age: u32,
}

impl Record {
    /// Of a flow that has both entries.
    #[inline(always)]
    pub fn of<A: Address>(forward: &Flow<A>, reverse: &Flow<A>, now: Ticks) -> Self {
        let end = match forward.state.phase() {
            Phase::Dead | Phase::Deleting | Phase::Killed => forward.last_seen,
            _ => forward.last_seen.later(reverse.last_seen),
        };
        Self {
            word: forward.state,
            seq_end: forward.seq_end,
            timestamp: remembered(forward, reverse),
            age: now.since(end),
        }
    }

    /// Of a reverse entry that stayed alone: see [`retire`].
    #[inline(always)]
    pub fn of_retired<A: Address>(reverse: &Flow<A>, now: Ticks) -> Self {
        Self {
            word: reverse.state,
            seq_end: reverse.seq_end,
            timestamp: reverse.timestamp,
            age: now.since(reverse.last_seen),
        }
    }
}

/// The client's timestamp that the server's TIME_WAIT holds. A SYN's alone is
/// none: a server that does not answer with its own forgets it (RFC 7323
/// section 3.2), and then a newer one is no reason to let a SYN in.
#[inline(always)]
fn remembered<A: Address>(forward: &Flow<A>, reverse: &Flow<A>) -> u32 {
    if reverse.timestamp == 0 {
        0
    } else {
        forward.timestamp
    }
}

/// Turns a flow's reverse entry into the record of its port's rest, so that
/// its forward entry can go: another flow needs the client's tuple.
#[inline(always)]
pub fn retire<A: Address>(reverse: &mut Flow<A>, forward: &Flow<A>, word: StateWord, now: Ticks) {
    reverse.seq_end = forward.seq_end;
    reverse.timestamp = remembered(forward, reverse);
    reverse.last_seen = now;
    reverse.state = word.with_phase(Phase::Dead);
}

/// The SYN that would use a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opening {
    /// Initial sequence number.
    pub isn: u32,
    /// Its timestamp option (RFC 7323).
    pub timestamp: Option<u32>,
}

/// Whether a resting port may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Its rest is over.
    Rested,
    /// Not over, but the server will take this SYN.
    Early,
    /// The same, if the SYN's timestamp is replaced by NOPs.
    EarlyStripped,
    /// Only where nothing else is left.
    No,
}

/// Whether `opening` may use the port of `record`.
#[inline(always)]
pub fn reuse(record: &Record, opening: &Opening) -> Reuse {
    let word = record.word;
    match word.phase() {
        Phase::Closed | Phase::Reset | Phase::Dead => {}
        // It has answered long enough; no sweep came by.
        Phase::Killed if record.age >= KILLED_SERVE && record.age >= needed(word) => {
            return Reuse::Rested;
        }
        // Live, being deleted, or still telling its peers that it is over.
        _ => return Reuse::No,
    }
    if record.age >= needed(word) {
        return Reuse::Rested;
    }
    let both = StateWord::CLIENT_FIN | StateWord::SERVER_FIN;
    let time_wait = word.0 & both == both
        && word.has(StateWord::SERVER_FIRST)
        && !word.has(StateWord::TOLD | StateWord::SERVER_RESET);
    // The last ACK may still be under way.
    if !time_wait || record.age < DEAD_REST {
        return Reuse::No;
    }
    let follows = is_after(opening.isn, record.seq_end);
    match opening.timestamp {
        Some(value) if record.timestamp != 0 => {
            if is_after(value, record.timestamp) {
                Reuse::Early
            } else if follows {
                Reuse::EarlyStripped
            } else {
                Reuse::No
            }
        }
        _ if follows => Reuse::Early,
        _ => Reuse::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: StateWord = StateWord(Phase::Established as u32 | StateWord::WAS_LIVE);

    fn closed(marks: u32) -> StateWord {
        LIVE.with_phase(Phase::Closed)
            .with(StateWord::CLIENT_FIN | StateWord::SERVER_FIN | marks)
    }

    #[test]
    fn how_long_a_port_rests() {
        let half_open = StateWord::born(7);
        let cases = [
            ("server first", closed(StateWord::SERVER_FIRST), TIME_WAIT),
            ("client first", closed(0), RESET_SERVE),
            (
                "client's RST",
                LIVE.with_phase(Phase::Reset).with(StateWord::TOLD),
                RESET_SERVE,
            ),
            (
                "server's RST",
                LIVE.with_phase(Phase::Reset).with(StateWord::SERVER_RESET),
                RESET_SERVE,
            ),
            (
                "half-open dead",
                half_open.with_phase(Phase::Dead),
                SYN_RECEIVED,
            ),
            (
                "half-open given up by a FIN",
                half_open.with_phase(Phase::Reset),
                SYN_RECEIVED,
            ),
            (
                "refused",
                half_open
                    .with_phase(Phase::Dead)
                    .with(StateWord::SERVER_RESET),
                DEAD_REST,
            ),
            (
                "server first, no longer serving",
                closed(StateWord::SERVER_FIRST).with_phase(Phase::Dead),
                TIME_WAIT,
            ),
            (
                "idle, and nobody was told",
                LIVE.with_phase(Phase::Dead),
                SYN_RECEIVED,
            ),
        ];
        for (case, word, wanted) in cases {
            assert_eq!(needed(word), wanted, "{case}");
            let at = |age| Record {
                word,
                seq_end: 1000,
                timestamp: 500,
                age,
            };
            let opening = Opening {
                isn: 999,
                timestamp: Some(499),
            };
            assert_eq!(reuse(&at(wanted - 1), &opening), Reuse::No, "{case}");
            assert_eq!(reuse(&at(wanted), &opening), Reuse::Rested, "{case}");
        }
    }

    #[test]
    fn what_a_time_wait_lets_in() {
        let record = |timestamp| Record {
            word: closed(StateWord::SERVER_FIRST),
            seq_end: 1000,
            timestamp,
            age: SECOND,
        };
        // (old timestamp, ISN, new timestamp)
        let cases = [
            (500, 1001, Some(501), Reuse::Early),
            (500, 1001, None, Reuse::Early),
            (500, 1001, Some(500), Reuse::EarlyStripped),
            (500, 1001, Some(499), Reuse::EarlyStripped),
            (500, 1000, Some(501), Reuse::Early),
            (500, 1000, Some(500), Reuse::No),
            (500, 1000, None, Reuse::No),
            (0, 1001, Some(1), Reuse::Early),
            (0, 1000, Some(1), Reuse::No),
            (u32::MAX, 1000, Some(1), Reuse::Early),
        ];
        for (old, isn, timestamp, wanted) in cases {
            let opening = Opening { isn, timestamp };
            assert_eq!(reuse(&record(old), &opening), wanted, "{old} {opening:?}");
        }
        let mut fresh = record(500);
        fresh.age = DEAD_REST - 1;
        let newer = Opening {
            isn: 5000,
            timestamp: Some(501),
        };
        assert_eq!(
            reuse(&fresh, &newer),
            Reuse::No,
            "the last ACK is under way"
        );
    }

    #[test]
    fn no_early_use_of_what_the_server_may_wait_for() {
        let newer = Opening {
            isn: 5000,
            timestamp: Some(501),
        };
        for word in [
            StateWord::born(1),
            StateWord::born(1).with_phase(Phase::Dead),
            LIVE,
            LIVE.with_phase(Phase::Killed),
            LIVE.with_phase(Phase::Deleting),
        ] {
            let record = Record {
                word,
                seq_end: 1000,
                timestamp: 500,
                age: SECOND,
            };
            assert_eq!(reuse(&record, &newer), Reuse::No, "{word:?}");
        }
    }

    #[test]
    fn a_killed_flow_answers_first() {
        let record = |age| Record {
            word: LIVE.with_phase(Phase::Killed).with(StateWord::TOLD),
            seq_end: 1000,
            timestamp: 0,
            age,
        };
        let opening = Opening::default();
        assert_eq!(reuse(&record(KILLED_SERVE - 1), &opening), Reuse::No);
        assert_eq!(reuse(&record(KILLED_SERVE), &opening), Reuse::Rested);
        let untold = Record {
            word: LIVE.with_phase(Phase::Killed),
            ..record(KILLED_SERVE)
        };
        assert_eq!(
            reuse(&untold, &opening),
            Reuse::No,
            "its server knows nothing"
        );
    }

    #[test]
    fn a_retired_record_tells_the_same() {
        use crate::address::V4;
        let word = closed(StateWord::SERVER_FIRST);
        let forward: Flow<V4> = Flow {
            state: word,
            seq_end: 77,
            timestamp: 5,
            last_seen: Ticks(10),
            ..Flow::default()
        };
        let mut reverse = forward;
        reverse.seq_end = 1;
        assert_eq!(Record::of(&forward, &reverse, Ticks(30)).age, 20);
        retire(&mut reverse, &forward, word, Ticks(30));
        let record = Record::of_retired(&reverse, Ticks(35));
        assert_eq!((record.seq_end, record.timestamp, record.age), (77, 5, 5));
        assert_eq!(record.word, word.with_phase(Phase::Dead));
    }

    #[test]
    fn a_timestamp_that_the_server_does_not_know() {
        use crate::address::V4;
        let forward: Flow<V4> = Flow {
            timestamp: 5,
            ..Flow::default()
        };
        let mut reverse = Flow::default();
        assert_eq!(Record::of(&forward, &reverse, Ticks(0)).timestamp, 0);
        retire(&mut reverse, &forward, LIVE, Ticks(0));
        assert_eq!(Record::of_retired(&reverse, Ticks(0)).timestamp, 0);
    }
}

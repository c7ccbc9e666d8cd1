//! One flow under any segments both ways, composed as the datapath composes
//! it: what it counts follows its phase, and it stays the flow it is.
//!
//! Bytes: generation (2), ISN (4), shift (1); then 16 a segment: how (1, see
//! [`how`]), flags (1), sequence and acknowledgment number (4 each, relative to
//! what its direction and the other sent), window (2), payload (2), and time
//! since the last one in 16 ticks (2).

use ocs_lb_common::abi::{Cluster, Flow, REVERSE};
use ocs_lb_common::address::V4;
use ocs_lb_common::parse::Segment;
use ocs_lb_common::rest::{Opening, Record, Reuse, needed, retire, reuse};
use ocs_lb_common::sweep::{Due, due, held};
use ocs_lb_common::ticks::Ticks;
use ocs_lb_common::track::{
    Count, Direction, Phase, StateWord, Step, establish, is_after, is_plain, start, step, touch,
};
use ocs_lb_common::wire::Flags;

use crate::take::Take;

/// Bits of a segment's first byte.
pub mod how {
    /// From the backend.
    pub const REVERSE: u8 = 1;
    /// The sequence number is as it stands.
    pub const ABSOLUTE_SEQ: u8 = 2;
    /// So is the acknowledgment.
    pub const ABSOLUTE_ACK: u8 = 4;
    /// A sweep looks at the flow first.
    pub const SWEEP: u8 = 8;
    /// It carries a timestamp: the time in ticks.
    pub const TIMESTAMP: u8 = 16;
}

/// The longest rest in ticks: 64 s.
const LONGEST: u32 = 64 * 954;

/// The target.
pub fn run(bytes: &[u8]) {
    let mut take = Take(bytes);
    let generation = take.half();
    let syn = Segment {
        flags: Flags(Flags::SYN),
        seq: take.word(),
        window: 64_240,
        ..Segment::default()
    };
    let mut life = Life::born(generation, &syn, take.byte() & 15, Ticks(1 << 20));
    while !take.0.is_empty() {
        let how = take.byte();
        let flags = Flags(take.byte());
        let (seq, ack) = (take.word(), take.word());
        let (window, payload) = (take.half(), take.half());
        life.now.0 = life.now.0.wrapping_add(u32::from(take.half()) * 16);
        if how & how::SWEEP != 0 {
            life.sweep();
        }
        let (sent, heard) = match life.direction(how) {
            Direction::Forward => (life.forward.seq_end, life.reverse.seq_end),
            Direction::Reverse => (life.reverse.seq_end, life.forward.seq_end),
        };
        let relative = |number: u32, to: u32, bit| {
            if how & bit != 0 {
                number
            } else {
                to.wrapping_add(number)
            }
        };
        let segment = Segment {
            flags,
            seq: relative(seq, sent, how::ABSOLUTE_SEQ),
            ack: relative(ack, heard, how::ABSOLUTE_ACK),
            window,
            payload,
        };
        life.segment(how, &segment);
        life.check();
    }
}

/// One flow and what is counted of it.
struct Life {
    forward: Flow<V4>,
    reverse: Flow<V4>,
    pending: i32,
    live: i32,
    now: Ticks,
    cluster: Cluster,
}

impl Life {
    fn born(generation: u16, syn: &Segment, scale: u8, now: Ticks) -> Self {
        let entry = Flow {
            state: StateWord::born(generation),
            last_seen: now,
            ..Flow::default()
        };
        let mut forward = entry;
        start(&mut forward, syn, scale);
        forward.window = syn.window;
        Self {
            forward,
            reverse: Flow {
                flags: REVERSE,
                ..entry
            },
            pending: 1,
            live: 0,
            now,
            cluster: Cluster {
                connect_timeout: 4_000,
                idle_timeout: 1_800_000,
                half_closed_timeout: 15_000,
                ..Cluster::default()
            },
        }
    }

    const fn direction(&self, how: u8) -> Direction {
        if how & how::REVERSE != 0 {
            Direction::Reverse
        } else {
            Direction::Forward
        }
    }

    fn count(&mut self, count: Count) {
        let (pending, live) = match count {
            Count::None => (0, 0),
            Count::Promote => (-1, 1),
            Count::DropPending => (-1, 0),
            Count::DropLive => (0, -1),
            Count::Revive => (0, 1),
        };
        self.pending += pending;
        self.live += live;
        if count.is_end() {
            let age = Record::of(&self.forward, &self.reverse, self.now).age;
            assert!(age <= u32::MAX / 2);
        }
    }

    fn set(&mut self, word: StateWord) {
        (self.forward.state, self.reverse.state) = (word, word);
    }

    fn sweep(&mut self) {
        let word = self.forward.state;
        let (there, back) = (self.forward.last_seen, self.reverse.last_seen);
        let count = match due(word, there, back, self.now, &self.cluster) {
            Due::Nothing => return,
            Due::End(count) => count,
            Due::Kill => held(word.phase()),
            Due::Delete => {
                self.set(word.with_phase(Phase::Deleting));
                return;
            }
        };
        let phase = match due(word, there, back, self.now, &self.cluster) {
            Due::Kill => Phase::Killed,
            _ => Phase::Dead,
        };
        self.count(count);
        self.set(word.with_phase(phase));
        self.forward.last_seen = self.now;
    }

    fn segment(&mut self, how: u8, segment: &Segment) {
        let direction = self.direction(how);
        let word = self.forward.state;
        let (own, peer) = match direction {
            Direction::Forward => (self.forward.side(), self.reverse.side()),
            Direction::Reverse => (self.reverse.side(), self.forward.side()),
        };
        let what = step(word, direction, segment, own, peer);
        assert!(
            !is_plain(word, segment.flags) || what == Step::Keep,
            "a plain packet changed {word:?}: {what:?}"
        );
        match what {
            Step::Keep => {}
            Step::Swap(next, count) => self.swap(next, count, segment),
            Step::Refused(next, count) => {
                let reset = segment.flags.any(Flags::RST);
                assert!(reset && direction == Direction::Reverse);
                self.swap(next, count, segment);
            }
            Step::Retry => {
                assert_eq!(word.phase(), Phase::HalfOpen);
                assert!(segment.flags.is_open() && !word.has(StateWord::SYN_ACK));
            }
            Step::Replace => return self.replace(segment),
            Step::Answer => {
                assert_eq!(word.phase(), Phase::Killed);
                assert!(!segment.flags.any(Flags::RST), "a RST is never answered");
                return;
            }
            Step::Gone => {
                assert!(matches!(word.phase(), Phase::Dead | Phase::Deleting));
                return;
            }
        }
        let entry = match direction {
            Direction::Forward => &mut self.forward,
            Direction::Reverse => &mut self.reverse,
        };
        let before = *entry;
        let timestamp = (how & how::TIMESTAMP != 0).then_some(self.now.0);
        touch(entry, self.now, segment, 40, timestamp);
        let address_fields = |flow: &Flow<V4>| (flow.peer_key(), flow.flags, flow.state);
        assert_eq!(address_fields(entry), address_fields(&before));
        assert_eq!(entry.bytes, before.bytes + 40);
        if before.state.phase() != Phase::HalfOpen {
            assert!(!is_after(before.seq_end, entry.seq_end), "never back");
        }
    }

    fn swap(&mut self, next: StateWord, count: Count, segment: &Segment) {
        let word = self.forward.state;
        assert!(next.is_same_flow(word), "{word:?} became another flow");
        assert_ne!(next, word, "a swap to the same");
        let kept = if count == Count::Revive {
            StateWord::CLIENT_FIN | StateWord::SERVER_FIN | StateWord::WAS_LIVE
        } else {
            0x7f00
        };
        assert_eq!(next.0 & word.0 & kept, word.0 & kept, "a mark was lost");
        self.set(next);
        self.count(count);
        match count {
            Count::Promote => establish(&mut self.forward, self.now, segment),
            Count::None if !word.has(StateWord::SYN_ACK) && next.has(StateWord::SYN_ACK) => {
                start(&mut self.reverse, segment, 7);
            }
            _ => {}
        }
    }

    /// A SYN on a flow that is over, or a client that begins again.
    fn replace(&mut self, segment: &Segment) {
        assert!(segment.flags.is_open());
        let word = self.forward.state;
        assert_ne!(word.phase(), Phase::Established, "a live flow stays");
        self.count(held(word.phase()));
        assert_eq!((self.pending, self.live), (0, 0), "given back once");
        let before = Record::of(&self.forward, &self.reverse, self.now);
        retire(&mut self.reverse, &self.forward, word, self.now);
        let after = Record::of_retired(&self.reverse, self.now);
        assert_eq!(after.word.phase(), Phase::Dead);
        assert_eq!(
            (after.seq_end, after.timestamp),
            (before.seq_end, before.timestamp)
        );
        let generation = (word.0 >> 16) as u16;
        *self = Self::born(generation.wrapping_add(1), segment, 0, self.now);
    }

    fn check(&self) {
        let word = self.forward.state;
        let wanted = match word.phase() {
            Phase::HalfOpen => (1, 0),
            Phase::Established => (0, 1),
            _ => (0, 0),
        };
        assert_eq!((self.pending, self.live), wanted, "in {:?}", word.phase());
        assert_eq!(self.reverse.state, word);
        self.check_rest();
    }

    /// A port is used again only where its rest is over or the server takes
    /// the SYN.
    fn check_rest(&self) {
        let record = Record::of(&self.forward, &self.reverse, self.now);
        let rest = needed(record.word);
        assert!(rest <= LONGEST, "{rest} ticks");
        let newer = record.timestamp.wrapping_add(1);
        for isn in [record.seq_end, record.seq_end.wrapping_add(1), self.now.0] {
            for timestamp in [None, Some(newer), Some(record.timestamp), Some(self.now.0)] {
                let opening = Opening { isn, timestamp };
                match reuse(&record, &opening) {
                    Reuse::Rested => assert!(record.age >= rest),
                    Reuse::Early => assert!(lets_in(&record, &opening), "{opening:?}"),
                    Reuse::EarlyStripped => {
                        let stripped = Opening {
                            timestamp: None,
                            ..opening
                        };
                        assert!(timestamp.is_some() && lets_in(&record, &stripped));
                    }
                    Reuse::No => continue,
                }
                let over = [Phase::Closed, Phase::Reset, Phase::Dead, Phase::Killed];
                assert!(over.contains(&record.word.phase()), "{record:?}");
            }
        }
    }
}

/// Whether Linux takes a SYN in the TIME_WAIT of this flow
/// (`net/ipv4/tcp_minisocks.c`: `tcp_timewait_state_process`).
fn lets_in(record: &Record, opening: &Opening) -> bool {
    let age_of = |value: u32| record.timestamp.wrapping_sub(value) as i32;
    let stamped = opening.timestamp.filter(|_| record.timestamp != 0);
    if stamped.is_some_and(|value| age_of(value) > 0) {
        // PAWS.
        return false;
    }
    (opening.isn.wrapping_sub(record.seq_end) as i32) > 0
        || stamped.is_some_and(|value| age_of(value) < 0)
}

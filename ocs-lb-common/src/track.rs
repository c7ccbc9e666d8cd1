//! Step three: the state of a flow, as a NAT sees TCP (RFC 9293, RFC 5382).
//!
//! The forward entry owns the state. Whoever wins the compare-and-swap to the
//! next [`StateWord`] does what its [`Count`] says, exactly once.

use crate::abi::Flow;
use crate::address::Address;
use crate::parse::Segment;
use crate::ticks::Ticks;
use crate::wire::Flags;

/// Where a flow is in its life.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The client's SYN was forwarded.
    HalfOpen = 1,
    /// The client acknowledged the server's SYN.
    Established = 2,
    /// Both sides sent a FIN; the entries linger for retransmissions.
    Closed = 3,
    /// One side sent a RST; lingers, and may revive.
    Reset = 4,
    /// Over; the entries wait for their deletion.
    Dead = 5,
    /// Whoever swapped to this deletes the entries, and nobody else.
    Deleting = 6,
    /// Ended by us: every packet of it is answered with a RST.
    Killed = 7,
}

/// State of a flow: phase in bits 0-7, marks in 8-15, generation in 16-31.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateWord(pub u32);

impl StateWord {
    /// Mark: the server answered the SYN.
    pub const SYN_ACK: u32 = 1 << 8;
    /// Mark: the client sent a FIN.
    pub const CLIENT_FIN: u32 = 1 << 9;
    /// Mark: the server sent a FIN.
    pub const SERVER_FIN: u32 = 1 << 10;
    /// Mark: the server's FIN came first, or crossed the client's: the server
    /// holds a TIME_WAIT.
    pub const SERVER_FIRST: u32 = 1 << 11;
    /// Mark: the RST came from the server.
    pub const SERVER_RESET: u32 = 1 << 12;
    /// Mark: the flow was established once.
    pub const WAS_LIVE: u32 = 1 << 13;
    /// Mark: a RST goes to the server, so it holds no state of the flow.
    pub const TOLD: u32 = 1 << 14;

    /// The first state of a flow.
    #[inline(always)]
    pub const fn born(generation: u16) -> Self {
        Self(Phase::HalfOpen as u32 | (generation as u32) << 16)
    }

    /// The phase; [`Phase::Dead`] for a byte that is none.
    #[inline(always)]
    pub const fn phase(self) -> Phase {
        match self.0 & 0xff {
            1 => Phase::HalfOpen,
            2 => Phase::Established,
            3 => Phase::Closed,
            4 => Phase::Reset,
            6 => Phase::Deleting,
            7 => Phase::Killed,
            _ => Phase::Dead,
        }
    }

    /// Whether two words are of one flow: an element of the map may have become
    /// another flow since the first was read.
    #[inline(always)]
    pub const fn is_same_flow(self, other: Self) -> bool {
        (self.0 ^ other.0) >> 16 == 0
    }

    /// Whether any of `marks` is set.
    #[inline(always)]
    pub const fn has(self, marks: u32) -> bool {
        self.0 & marks != 0
    }

    /// The same with another phase.
    #[inline(always)]
    pub const fn with_phase(self, phase: Phase) -> Self {
        Self(self.0 & !0xff | phase as u32)
    }

    /// The same with more marks.
    #[inline(always)]
    pub const fn with(self, marks: u32) -> Self {
        Self(self.0 | marks)
    }
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Client to backend.
    Forward,
    /// Backend to client.
    Reverse,
}

/// What an entry knows of the sender of its direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Side {
    /// Highest sequence number sent, plus one.
    pub seq_end: u32,
    /// Highest acknowledgment number sent.
    pub last_ack: u32,
    /// Last window announced, not scaled.
    pub window: u16,
    /// Its shift.
    pub scale: u8,
}

impl<A: Address> Flow<A> {
    /// What this entry knows of its sender.
    #[inline(always)]
    pub fn side(&self) -> Side {
        Side {
            seq_end: self.seq_end,
            last_ack: self.last_ack,
            window: self.window,
            scale: self.scale,
        }
    }
}

/// What the winner of a swap does to the backend's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Nothing.
    None,
    /// One half-open flow became a live one.
    Promote,
    /// One half-open flow less.
    DropPending,
    /// One live flow less.
    DropLive,
    /// One live flow more: a reset was not meant.
    Revive,
}

/// What a packet does to its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing; it is forwarded.
    Keep,
    /// Swap to this state and count; then it is forwarded.
    Swap(StateWord, Count),
    /// The server answers the SYN with a RST: try another one, or else swap
    /// to this state and count; then it is forwarded.
    Refused(StateWord, Count),
    /// The client's SYN again: it may move to another server; else forwarded.
    Retry,
    /// A SYN on a flow that is over: end this one and open another.
    Replace,
    /// We ended the flow: the packet is answered with a RST.
    Answer,
    /// The flow is over, and the packet belongs to none.
    Gone,
}

impl Count {
    /// Whether the flow's end begins with this: from here on its port rests.
    #[inline(always)]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::DropPending | Self::DropLive)
    }
}

/// Whether a packet needs no look at the flow's owner: nothing it carries can
/// change an established flow.
#[inline(always)]
pub const fn is_plain(word: StateWord, flags: Flags) -> bool {
    matches!(word.phase(), Phase::Established) && !flags.any(Flags::SYN | Flags::FIN | Flags::RST)
}

/// What a packet does to its flow. `own` is the sender's side, `peer` the
/// receiver's, both before this packet.
#[inline(always)]
pub fn step(
    word: StateWord,
    direction: Direction,
    segment: &Segment,
    own: Side,
    peer: Side,
) -> Step {
    let opens = segment.flags.is_open() && matches!(direction, Direction::Forward);
    match word.phase() {
        Phase::HalfOpen => half_open(word, direction, segment, own, peer),
        Phase::Established => established(word, direction, segment, own, peer),
        // The first SYN of a new connection is never dropped for port reuse.
        Phase::Closed | Phase::Reset | Phase::Dead | Phase::Killed if opens => Step::Replace,
        Phase::Closed => Step::Keep,
        // A RST is never answered with a RST (RFC 9293 section 3.5.2).
        Phase::Killed if segment.flags.any(Flags::RST) => Step::Keep,
        Phase::Killed => Step::Answer,
        Phase::Reset => lingering_reset(word, direction, segment, own, peer),
        Phase::Dead | Phase::Deleting => Step::Gone,
    }
}

#[inline(always)]
fn half_open(
    word: StateWord,
    direction: Direction,
    segment: &Segment,
    own: Side,
    peer: Side,
) -> Step {
    let flags = segment.flags;
    match direction {
        Direction::Forward => {
            if flags.any(Flags::RST) {
                let believed = near(segment.seq, own.seq_end.wrapping_sub(1));
                return if believed {
                    let next = word.with_phase(Phase::Reset).with(StateWord::TOLD);
                    Step::Swap(next, Count::DropPending)
                } else {
                    Step::Keep
                };
            }
            if flags.is_open() {
                return if segment.seq.wrapping_add(1) != own.seq_end {
                    // The client gave up and began again with the same port.
                    Step::Replace
                } else if word.has(StateWord::SYN_ACK) {
                    Step::Keep
                } else {
                    Step::Retry
                };
            }
            // A spoofed SYN cannot be followed by the right ACK: only what
            // acknowledges the server's SYN, or data right after it, promotes.
            let promotes = flags.any(Flags::ACK)
                && word.has(StateWord::SYN_ACK)
                && near(segment.ack, peer.seq_end);
            if promotes {
                let mut next = word
                    .with_phase(Phase::Established)
                    .with(StateWord::WAS_LIVE);
                if flags.any(Flags::FIN) {
                    next = next.with(StateWord::CLIENT_FIN);
                }
                return Step::Swap(next, Count::Promote);
            }
            if flags.any(Flags::FIN) {
                // The client gave up (HAProxy: abortonclose).
                return Step::Swap(word.with_phase(Phase::Reset), Count::DropPending);
            }
            Step::Keep
        }
        Direction::Reverse => {
            // Data in the client's SYN (RFC 7413) may be acknowledged or not.
            let answers = flags.any(Flags::ACK) && near(segment.ack, peer.seq_end);
            if flags.any(Flags::RST) {
                let believed =
                    answers || word.has(StateWord::SYN_ACK) && segment.seq == own.seq_end;
                let next = word.with_phase(Phase::Reset).with(StateWord::SERVER_RESET);
                return if !believed {
                    Step::Keep
                } else if word.has(StateWord::SYN_ACK) {
                    Step::Swap(next, Count::DropPending)
                } else {
                    Step::Refused(next, Count::DropPending)
                };
            }
            if flags.any(Flags::SYN) && answers && !word.has(StateWord::SYN_ACK) {
                return Step::Swap(word.with(StateWord::SYN_ACK), Count::None);
            }
            Step::Keep
        }
    }
}

#[inline(always)]
fn established(
    word: StateWord,
    direction: Direction,
    segment: &Segment,
    own: Side,
    peer: Side,
) -> Step {
    let flags = segment.flags;
    let relevant = flags.any(Flags::RST | Flags::FIN) && !flags.any(Flags::SYN);
    // A SYN is forwarded unchanged: the server answers it with a challenge ACK
    // (RFC 5961 section 4). So is what lies outside the window: its receiver
    // ignores it, and the flow does not end for it.
    if !relevant || !reaches_window(segment, own, peer) {
        return Step::Keep;
    }
    if flags.any(Flags::RST) {
        let from = match direction {
            Direction::Forward => StateWord::TOLD,
            Direction::Reverse => StateWord::SERVER_RESET,
        };
        return Step::Swap(word.with_phase(Phase::Reset).with(from), Count::DropLive);
    }
    let mark = match direction {
        Direction::Forward => StateWord::CLIENT_FIN,
        Direction::Reverse => StateWord::SERVER_FIN,
    };
    if word.has(mark) {
        return Step::Keep;
    }
    let mut next = word.with(mark);
    if next.has(StateWord::CLIENT_FIN) && next.has(StateWord::SERVER_FIN) {
        next = next.with_phase(Phase::Closed);
        // A server's FIN that does not acknowledge the client's crossed it.
        let crossed = is_after(peer.seq_end, segment.ack);
        if matches!(direction, Direction::Reverse) && crossed {
            next = next.with(StateWord::SERVER_FIRST);
        }
        return Step::Swap(next, Count::DropLive);
    }
    if matches!(direction, Direction::Reverse) {
        next = next.with(StateWord::SERVER_FIRST);
    }
    Step::Swap(next, Count::None)
}

/// A blind RST ends nothing: who is said to have sent it and goes on sending
/// in the window was not its author. The other side's late packets revive
/// nothing, as its peer is gone.
#[inline(always)]
fn lingering_reset(
    word: StateWord,
    direction: Direction,
    segment: &Segment,
    own: Side,
    peer: Side,
) -> Step {
    let accused = word.has(StateWord::SERVER_RESET) == matches!(direction, Direction::Reverse);
    let speaks = !segment.flags.any(Flags::RST | Flags::SYN) && segment.flags.any(Flags::ACK);
    // A flow that was reset before it was established has nothing to keep.
    let was_live = word.has(StateWord::WAS_LIVE);
    if accused && speaks && was_live && in_window(segment.seq, own, peer) {
        let accusation = StateWord::SERVER_RESET | StateWord::TOLD;
        let next = StateWord(word.0 & !accusation).with_phase(Phase::Established);
        return Step::Swap(next, Count::Revive);
    }
    Step::Keep
}

/// Whether the receiver would look at a segment with this sequence number:
/// from its last acknowledgment on, within the window it announced
/// (RFC 9293 section 3.10.7.4). At least 64 KiB, as an announced window may
/// have shrunk while the segment was under way.
///
/// An acknowledgment of what `sender` never sent was forged; it does not move
/// the window past what was sent.
#[inline(always)]
const fn in_window(seq: u32, sender: Side, receiver: Side) -> bool {
    let announced = (receiver.window as u32) << (receiver.scale & 15);
    let window = if announced < 65_535 {
        65_535
    } else {
        announced
    };
    let forged = is_after(receiver.last_ack, sender.seq_end);
    let (start, len) = if forged {
        (sender.seq_end.wrapping_sub(window), window.wrapping_mul(2))
    } else {
        (receiver.last_ack, window)
    };
    seq.wrapping_sub(start) <= len
}

/// The same for a segment that begins before the window and ends in it: a
/// retransmission whose first part has arrived already. A bare RST occupies no
/// number, so it must lie in the window itself.
#[inline(always)]
const fn reaches_window(segment: &Segment, sender: Side, receiver: Side) -> bool {
    in_window(segment.seq, sender, receiver)
        || is_after(receiver.last_ack, segment.seq)
            && in_window(segment.end(), sender, receiver)
            && is_after(segment.end(), receiver.last_ack)
}

/// Whether a number is `from` or at most 64 KiB after it.
#[inline(always)]
const fn near(number: u32, from: u32) -> bool {
    number.wrapping_sub(from) <= 65_535
}

/// The sequence number that a segment's acknowledgment must at least reach:
/// data in a SYN may be left unacknowledged (RFC 7413 section 4.2).
#[inline(always)]
const fn end_of(segment: &Segment) -> u32 {
    if segment.flags.any(Flags::SYN) {
        segment.seq.wrapping_add(1)
    } else {
        segment.end()
    }
}

/// Records a packet in the entry of its direction. `timestamp` is the
/// sender's (RFC 7323), where the segment carries one.
#[inline(always)]
pub fn touch<A: Address>(
    flow: &mut Flow<A>,
    now: Ticks,
    segment: &Segment,
    ip_len: u16,
    timestamp: Option<u32>,
) {
    // A half-open flow's forward entry keeps its birth: SYN retransmissions
    // must not prolong it. A killed one's keeps the time of that: its client's
    // RSTs are forwarded, and must not prolong it either.
    let phase = flow.state.phase();
    let half_open = matches!(phase, Phase::HalfOpen);
    if flow.is_reverse() || !matches!(phase, Phase::HalfOpen | Phase::Killed) {
        flow.last_seen = now;
    }
    let end = end_of(segment);
    let syn = segment.flags.any(Flags::SYN);
    if half_open {
        // Until the handshake is done, a server may begin again.
        if syn {
            flow.seq_end = end;
        }
    } else if is_after(end, flow.seq_end) {
        flow.seq_end = end;
    }
    if segment.flags.any(Flags::ACK) && is_after(segment.ack, flow.last_ack) {
        flow.last_ack = segment.ack;
    }
    flow.window = segment.window;
    if let Some(value) = timestamp {
        flow.timestamp = value;
    }
    flow.bytes = flow.bytes.wrapping_add(ip_len as u64);
    flow.packets = flow.packets.wrapping_add(1);
}

/// Sets the sequence numbers of a direction by its first segment, where there
/// is nothing older to compare with.
#[inline(always)]
pub fn start<A: Address>(flow: &mut Flow<A>, segment: &Segment, scale: u8) {
    flow.seq_end = end_of(segment);
    flow.last_ack = segment.ack;
    flow.scale = scale;
}

/// Marks a flow's forward entry as established by the client's segment: until
/// now `last_seen` was its birth, and there was no acknowledgment to compare
/// with.
#[inline(always)]
pub fn establish<A: Address>(flow: &mut Flow<A>, now: Ticks, segment: &Segment) {
    flow.last_seen = now;
    flow.last_ack = segment.ack;
}

/// Sequence comparison modulo 2^32 (RFC 9293 section 3.4).
#[inline(always)]
pub const fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).wrapping_sub(1) < 0x7fff_ffff
}

#[cfg(test)]
#[path = "track_tests.rs"]
mod tests;

//! A second try for a flow whose backend refuses its SYN or does not answer.

use crate::abi::{FlowKey, MAX_BACKENDS, OPTIONS, Pending, TRIED};
use crate::address::{Address, V4};
use crate::checksum::Sum;
use crate::parse::{IP_OFFSET, Packet, Segment};
use crate::rest::Opening;
use crate::ticks::Ticks;
use crate::track::{Phase, StateWord};
use crate::wire::{Ethernet, Flags, Frame, IpProto, Ipv4, SynOptions, Tcp};

/// Moves of one flow at most: more tries than that take longer than a client
/// waits.
const MOVES: u8 = 8;

/// At this retransmission a flow moves even where its backend answers others.
const LAST_RETRY: u8 = 3;

/// Whether a half-open flow stays where it is at a SYN retransmission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It waits on.
    Stay,
    /// It may move to another backend.
    Move,
}

/// What a SYN retransmission does. `answered` is when the backend last sent a
/// SYN-ACK to anyone; `after` is the cluster's `redispatch_after` in ticks.
/// Counts the retransmission.
#[inline(always)]
pub fn retry<A: Address>(
    pending: &mut Pending<A>,
    now: Ticks,
    answered: Ticks,
    after: u32,
) -> Retry {
    pending.retries = pending.retries.saturating_add(1);
    if pending.moves >= MOVES || pending.has_data != 0 {
        return Retry::Stay;
    }
    let waited = now.since(pending.sent);
    // Answered since: the age of the answer is below that of the SYN.
    let alive = now.since(answered) < waited;
    if pending.retries >= LAST_RETRY || waited >= after && !alive {
        Retry::Move
    } else {
        Retry::Stay
    }
}

/// Whether the backend's RST may be kept from the client and the SYN sent to
/// another backend: it answers exactly this SYN, and all of the SYN is known.
#[inline(always)]
pub fn may_retry<A: Address>(pending: &Pending<A>, reset: &Segment) -> bool {
    reset.flags.any(Flags::ACK)
        && reset.ack == pending.isn.wrapping_add(1)
        && pending.has_data == 0
        && pending.moves < MOVES
}

/// Whether a flow still waits for any answer to its SYN.
#[inline(always)]
pub const fn is_unanswered(word: StateWord) -> bool {
    matches!(word.phase(), Phase::HalfOpen) && !word.has(StateWord::SYN_ACK)
}

/// Whether word that the backend cannot be reached may be kept from the client
/// in the same way: the packet that it is about is exactly this SYN (RFC 5927
/// section 4.1), and all of the SYN is known.
#[inline(always)]
pub fn may_retry_unreachable<A: Address>(pending: &Pending<A>, seq: u32) -> bool {
    seq == pending.isn && pending.has_data == 0 && pending.moves < MOVES
}

/// Adds a backend to those that had their try.
#[inline(always)]
pub fn add(tried: &mut [u64; TRIED], slot: u16) {
    let slot = slot as usize & (MAX_BACKENDS - 1);
    tried[slot / 64] |= 1 << (slot % 64);
}

/// Whether a backend had its try.
#[inline(always)]
pub fn has(tried: &[u64; TRIED], slot: usize) -> bool {
    let slot = slot & (MAX_BACKENDS - 1);
    tried[slot / 64] & 1 << (slot % 64) != 0
}

/// Whether a place of the ring still belongs to the flow of `word`.
#[inline(always)]
pub fn is_of<A: Address>(pending: &Pending<A>, key: &FlowKey<A>, word: StateWord) -> bool {
    pending.key == *key && StateWord(pending.born).is_same_flow(word)
}

/// What a SYN says, for its place in the ring: everything but key and options'
/// bytes.
#[inline(always)]
pub fn save<A: Address>(
    pending: &mut Pending<A>,
    packet: &Packet<A>,
    options: &SynOptions,
    now: Ticks,
) {
    pending.scale = options.scale;
    pending.timestamp_at = match options.timestamp {
        // Other frames may have IP options before it.
        Some(_) => (options.timestamp_at - packet.tcp_offset + IP_OFFSET + Ipv4::LEN) as u8,
        None => 0,
    };
    pending.sent = now;
    pending.birth = now;
    pending.isn = packet.segment.seq;
    pending.window = packet.segment.window;
    pending.tos = packet.tos;
    pending.flags = packet.segment.flags.0;
    pending.options_len = (packet.tcp_header_len - Tcp::LEN) as u8;
    pending.retries = 0;
    pending.has_data = u8::from(packet.segment.payload != 0);
    pending.moves = 0;
    pending.tried = [0; TRIED];
}

/// The SYN as an allocation sees it.
#[inline(always)]
pub const fn opening(isn: u32, options: &SynOptions) -> Opening {
    Opening {
        isn,
        timestamp: options.timestamp,
    }
}

/// The client's SYN once more, as a parsed packet: what [`write_ipv4`] writes.
#[inline(always)]
pub fn packet_ipv4(pending: &Pending<V4>) -> Packet<V4> {
    let header = Tcp::LEN + options_len(pending);
    Packet {
        key: pending.key,
        tcp_offset: IP_OFFSET + Ipv4::LEN,
        tcp_header_len: header,
        ip_len: (Ipv4::LEN + header) as u16,
        tos: pending.tos,
        ttl: 64,
        segment: Segment {
            flags: Flags(pending.flags),
            seq: pending.isn,
            ack: 0,
            window: pending.window,
            payload: 0,
        },
    }
}

/// What that packet's options say; `timestamp` is the client's, which its flow
/// knows.
#[inline(always)]
pub fn options_ipv4(pending: &Pending<V4>, timestamp: u32) -> SynOptions {
    if pending.timestamp_at == 0 {
        return SynOptions {
            scale: pending.scale,
            ..SynOptions::default()
        };
    }
    SynOptions {
        scale: pending.scale,
        timestamp: Some(timestamp),
        timestamp_at: pending.timestamp_at as usize,
    }
}

/// Length of the frame that carries the SYN once more, in bytes.
#[inline(always)]
pub fn frame_len_ipv4(pending: &Pending<V4>) -> usize {
    IP_OFFSET + Ipv4::LEN + Tcp::LEN + options_len(pending)
}

/// Options come in words of four bytes.
#[inline(always)]
fn options_len(pending: &Pending<V4>) -> usize {
    let len = pending.options_len as usize & !3;
    if len > OPTIONS { OPTIONS } else { len }
}

/// Writes the client's SYN over a frame that has [`frame_len_ipv4`] bytes; its
/// MAC addresses are the forwarder's. `None` where it has fewer.
#[inline(always)]
pub fn write_ipv4(frame: &mut impl Frame, pending: &Pending<V4>) -> Option<()> {
    let (from, to) = (pending.key.source, pending.key.destination);
    let tcp_len = Tcp::LEN + options_len(pending);
    let ip_len = (Ipv4::LEN + tcp_len) as u16;

    let ethernet = frame.at_mut::<{ Ethernet::LEN }>(0)?;
    ethernet[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip = frame.at_mut::<{ Ipv4::LEN }>(IP_OFFSET)?;
    *ip = [0; Ipv4::LEN];
    ip[0] = 0x45;
    ip[1] = pending.tos;
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    // Don't fragment; one hop is taken by the translation.
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = IpProto::TCP.0;
    ip[12..16].copy_from_slice(&from.0);
    ip[16..20].copy_from_slice(&to.0);
    let addresses = to.add_to(from.add_to(Sum::ZERO));
    let fixed = Sum::ZERO
        .add_u16(0x4500 | pending.tos as u16)
        .add_u16(ip_len)
        .add_u16(0x4000)
        .add_u16(64 << 8 | IpProto::TCP.0 as u16);
    ip[10..12].copy_from_slice(&addresses.add(fixed).checksum().to_be_bytes());

    let offset_and_flags = (tcp_len as u16 / 4) << 12 | pending.flags as u16;
    let pseudo = addresses
        .add_u16(IpProto::TCP.0 as u16)
        .add_u16(tcp_len as u16);
    let mut sum = pseudo
        .add_u16(pending.key.source_port.get())
        .add_u16(pending.key.destination_port.get())
        .add_u32(pending.isn)
        .add_u16(offset_and_flags)
        .add_u16(pending.window);
    let tcp_offset = IP_OFFSET + Ipv4::LEN;
    for at in 0..OPTIONS / 4 {
        if at * 4 >= options_len(pending) {
            break;
        }
        let word = &pending.options[at * 4..at * 4 + 4];
        let bytes = frame.at_mut::<4>(tcp_offset + Tcp::LEN + at * 4)?;
        bytes.copy_from_slice(word);
        sum = sum.add_u32(u32::from_be_bytes(*bytes));
    }
    let tcp = frame.at_mut::<{ Tcp::LEN }>(tcp_offset)?;
    *tcp = [0; Tcp::LEN];
    tcp[0..2].copy_from_slice(&pending.key.source_port.0);
    tcp[2..4].copy_from_slice(&pending.key.destination_port.0);
    tcp[4..8].copy_from_slice(&pending.isn.to_be_bytes());
    tcp[12..14].copy_from_slice(&offset_and_flags.to_be_bytes());
    tcp[14..16].copy_from_slice(&pending.window.to_be_bytes());
    frame.tcp_written(tcp_offset, pseudo, sum)
}

#[cfg(test)]
#[path = "redispatch_tests.rs"]
mod tests;

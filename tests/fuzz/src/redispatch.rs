//! Any record of a SYN, as it may lie in the ring while it is overwritten: the
//! SYN written from it is one packet with right checksums.
//!
//! Bytes: 16 for the tuple and the frame's missing bytes, then the record's
//! fields in order, then options.

use ocs_lb_common::abi::{FlowKey, OPTIONS, Pending, TRIED};
use ocs_lb_common::address::{Address, Be16, V4};
use ocs_lb_common::parse::{Segment, parse_ipv4};
use ocs_lb_common::redispatch::{
    Retry, add, frame_len_ipv4, has, is_of, may_retry, options_ipv4, packet_ipv4, retry, write_ipv4,
};
use ocs_lb_common::ticks::Ticks;
use ocs_lb_common::track::StateWord;
use ocs_lb_common::wire::{Flags, SliceFrame, syn_options};

use crate::sum::Parts;
use crate::take::Take;

/// A record of nothing.
pub fn nothing<A: Address>() -> Pending<A> {
    Pending {
        key: FlowKey::default(),
        born: 0,
        sent: Ticks(0),
        birth: Ticks(0),
        isn: 0,
        window: 0,
        tos: 0,
        flags: 0,
        options_len: 0,
        retries: 0,
        early: 0,
        has_data: 0,
        moves: 0,
        scale: 0,
        timestamp_at: 0,
        pad: [0; 5],
        tried: [0; TRIED],
        options: [0; OPTIONS],
    }
}

/// The target.
pub fn run(bytes: &[u8]) {
    let mut take = Take(bytes);
    let key = FlowKey::tcp(
        V4(take.array()),
        Be16(take.array()),
        V4(take.array()),
        Be16(take.array()),
    );
    let missing = usize::from(take.byte());
    let slot = u16::from(take.byte());
    let after = u32::from(take.half());
    let mut pending = Pending {
        key,
        born: take.word(),
        sent: Ticks(take.word()),
        isn: take.word(),
        window: take.half(),
        tos: take.byte(),
        flags: take.byte(),
        options_len: take.byte(),
        retries: take.byte(),
        has_data: take.byte(),
        moves: take.byte(),
        scale: take.byte(),
        timestamp_at: take.byte(),
        ..nothing()
    };
    let (now, answered) = (Ticks(take.word()), Ticks(take.word()));
    let reset = Segment {
        flags: Flags(take.byte()),
        ack: pending.isn.wrapping_add(u32::from(take.byte())),
        ..Segment::default()
    };
    pending.options = take.array();

    written(&pending, missing);
    tried(&mut pending, slot);
    let believed = may_retry(&pending, &reset);
    assert!(!believed || reset.ack == pending.isn.wrapping_add(1) && pending.has_data == 0);
    let word = StateWord(pending.born);
    assert!(is_of(&pending, &key, word.with(StateWord::SYN_ACK)));
    assert!(!is_of(&pending, &key, StateWord(pending.born ^ 1 << 16)));

    let before = pending;
    let moves = retry(&mut pending, now, answered, after) == Retry::Move;
    assert!(!moves || before.has_data == 0 && before.moves < u8::MAX);
    assert_eq!(pending.retries, before.retries.saturating_add(1));
    let counted = Pending {
        retries: pending.retries,
        ..before
    };
    assert_eq!(pending, counted, "only the retransmission is counted");
}

fn written(pending: &Pending<V4>, missing: usize) {
    let len = frame_len_ipv4(pending);
    let mut frame = vec![0xee; len];
    let mut view = SliceFrame(&mut frame);
    assert_eq!(write_ipv4(&mut view, pending), Some(()));
    let packet = packet_ipv4(pending);
    assert_eq!(parse_ipv4(&view), Ok(packet));
    let options = packet.tcp_header_len - 20;
    let read = syn_options(&view, packet.tcp_offset, packet.tcp_header_len);
    assert!(read.scale <= 14);
    let _ = options_ipv4(pending, read.timestamp.unwrap_or(0));
    Parts::ipv4(&packet).check(&frame);
    assert_eq!(frame[54..], pending.options[..options]);
    assert_eq!(frame[..12], [0xee; 12], "the MAC addresses are another's");
    assert_eq!(frame[12..14], [8, 0], "IPv4");
    // Too short a frame is noticed.
    frame.truncate(len.saturating_sub(missing));
    let whole = write_ipv4(&mut SliceFrame(&mut frame), pending).is_some();
    assert_eq!(whole, missing == 0);
}

fn tried(pending: &mut Pending<V4>, slot: u16) {
    let other = usize::from(slot ^ 1);
    let before = has(&pending.tried, other);
    add(&mut pending.tried, slot);
    assert!(has(&pending.tried, usize::from(slot)));
    assert_eq!(has(&pending.tried, other), before);
}

//! Tests of the second try.

use super::*;
use crate::address::Be16;
use crate::parse::parse_ipv4;
use crate::wire::{SliceFrame, syn_options};

const OPTIONS_OF_LINUX: [u8; 20] = [
    2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7,
];

fn pending(options: &[u8]) -> Pending<V4> {
    let mut pending = Pending {
        key: FlowKey::tcp(
            V4([203, 0, 113, 7]),
            Be16::new(40_000),
            V4([192, 0, 2, 1]),
            Be16::new(5061),
        ),
        born: StateWord::born(9).0,
        sent: Ticks(100),
        birth: Ticks(100),
        isn: 0x0102_0304,
        window: 64_240,
        tos: 0x02,
        flags: 0xc2,
        options_len: options.len() as u8,
        retries: 0,
        early: 0,
        has_data: 0,
        moves: 0,
        scale: 0,
        timestamp_at: 0,
        pad: [0; 5],
        tried: [0; TRIED],
        options: [0; OPTIONS],
    };
    pending.options[..options.len()].copy_from_slice(options);
    pending
}

fn sums_to_all_ones(frame: &[u8]) {
    assert_eq!(Sum::ZERO.add_bytes(&frame[14..34]).fold(), 0xffff);
    let pseudo = Sum::ZERO
        .add_bytes(&frame[26..34])
        .add_u16(6)
        .add_u16((frame.len() - 34) as u16);
    assert_eq!(pseudo.add_bytes(&frame[34..]).fold(), 0xffff);
}

#[test]
fn the_syn_once_more() {
    for options in [&[][..], &OPTIONS_OF_LINUX, &[1; 40]] {
        let mut saved = pending(options);
        let mut frame = vec![0xee; frame_len_ipv4(&saved)];
        frame[12..14].copy_from_slice(&[8, 0]);
        write_ipv4(&mut SliceFrame(&mut frame), &saved).expect("long enough");
        sums_to_all_ones(&frame);
        let parsed = parse_ipv4(&SliceFrame(&mut frame)).expect("a packet");
        assert_eq!(parsed, packet_ipv4(&saved));
        assert_eq!(&frame[54..], options);
        let read = syn_options(
            &SliceFrame(&mut frame),
            parsed.tcp_offset,
            parsed.tcp_header_len,
        );
        assert_eq!(read.timestamp.is_some(), options == OPTIONS_OF_LINUX);
        let again = options_ipv4(&saved, 9);
        save(&mut saved, &parsed, &read, Ticks(100));
        if read.timestamp.is_some() {
            assert_eq!(options_ipv4(&saved, 9), read);
            assert_eq!(again, SynOptions::default(), "not saved before");
        }
        let before = saved;
        save(&mut saved, &parsed, &read, Ticks(100));
        assert_eq!(saved, before, "saving it again changes nothing");
        frame.pop();
        assert_eq!(
            write_ipv4(&mut SliceFrame(&mut frame), &saved).is_none(),
            frame.len() < 54 || !options.is_empty(),
            "a shorter frame"
        );
    }
}

#[test]
fn when_a_silent_backend_is_left() {
    // (now, answered, retries before, moves)
    let cases = [
        ("too early", 899, 0, 0, Retry::Stay),
        ("late, and nobody was answered", 900, 0, 0, Retry::Move),
        ("answered before our SYN", 900, 50, 0, Retry::Move),
        ("answered others since", 900, 101, 0, Retry::Stay),
        ("the third goes in any case", 900, 101, 2, Retry::Move),
        ("even early", 200, 101, 2, Retry::Move),
    ];
    for (case, now, answered, retries, wanted) in cases {
        let mut saved = pending(&[]);
        saved.retries = retries;
        let is = retry(&mut saved, Ticks(now), Ticks(answered), 800);
        assert_eq!(is, wanted, "{case}");
        assert_eq!(saved.retries, retries + 1, "{case}");
        saved.retries = 2;
        saved.moves = MOVES;
        let is = retry(&mut saved, Ticks(now), Ticks(answered), 800);
        assert_eq!(is, Retry::Stay, "{case}: moved often enough");
        saved.moves = 0;
        saved.has_data = 1;
        let is = retry(&mut saved, Ticks(now), Ticks(answered), 800);
        assert_eq!(is, Retry::Stay, "{case}: data in the SYN");
    }
}

#[test]
fn whose_refusal_is_believed() {
    let saved = pending(&[]);
    let reset = |flags, ack| Segment {
        flags: Flags(flags),
        ack,
        ..Segment::default()
    };
    let both = Flags::RST | Flags::ACK;
    assert!(may_retry(&saved, &reset(both, 0x0102_0305)));
    assert!(!may_retry(&saved, &reset(both, 0x0102_0306)));
    assert!(!may_retry(&saved, &reset(Flags::RST, 0x0102_0305)));
    let mut data = saved;
    data.has_data = 1;
    assert!(!may_retry(&data, &reset(both, 0x0102_0305)));
    let mut moved = saved;
    moved.moves = MOVES;
    assert!(!may_retry(&moved, &reset(both, 0x0102_0305)));
}

#[test]
fn who_had_a_try() {
    let mut tried = [0; TRIED];
    for slot in [0, 63, 64, 255] {
        assert!(!has(&tried, slot as usize));
        add(&mut tried, slot);
        assert!(has(&tried, slot as usize));
    }
    assert!(!has(&tried, 1));
}

#[test]
fn whose_place_it_is() {
    let saved = pending(&[]);
    let word = StateWord::born(9).with(StateWord::SYN_ACK);
    assert!(is_of(&saved, &saved.key, word));
    assert!(!is_of(&saved, &saved.key.reversed(), word));
    assert!(!is_of(&saved, &saved.key, StateWord::born(10)));
}

#[test]
fn unreachable_moves_this_syn_only() {
    let saved = pending(&[]);
    assert!(may_retry_unreachable(&saved, saved.isn));
    assert!(!may_retry_unreachable(&saved, saved.isn.wrapping_add(1)));
    assert!(!may_retry_unreachable(&saved, saved.isn.wrapping_sub(1)));
    let full = Pending {
        moves: MOVES,
        ..saved
    };
    assert!(!may_retry_unreachable(&full, saved.isn));
    let data = Pending {
        has_data: 1,
        ..saved
    };
    assert!(!may_retry_unreachable(&data, saved.isn));
}

//! What segments leave behind in their entries: numbers, windows, times.

use super::*;

#[test]
fn a_window_is_scaled() {
    let receiver = Side {
        last_ack: 1001,
        window: 1000,
        scale: 7,
        ..Side::default()
    };
    assert!(in_window(1001 + 128_000, SENDER, receiver));
    assert!(!in_window(1001 + 128_001, SENDER, receiver));
    assert!(
        in_window(
            10,
            Side {
                seq_end: 5,
                ..SENDER
            },
            Side {
                last_ack: u32::MAX - 5,
                ..receiver
            }
        ),
        "across the wrap"
    );
}

#[test]
fn a_touch_records_the_sender() {
    let mut flow: Flow<crate::address::V4> = Flow {
        state: established(),
        seq_end: u32::MAX,
        ..Flow::default()
    };
    let data = Segment {
        flags: Flags(ACK),
        seq: u32::MAX,
        ack: 9,
        window: 3,
        payload: 10,
    };
    touch(&mut flow, Ticks(5), &data, 50, Some(77));
    assert_eq!((flow.seq_end, flow.last_ack, flow.window), (9, 9, 3));
    assert_eq!((flow.bytes, flow.packets, flow.timestamp), (50, 1, 77));
    assert_eq!(flow.last_seen, Ticks(5));
    touch(
        &mut flow,
        Ticks(6),
        &Segment { payload: 2, ..data },
        42,
        None,
    );
    assert_eq!(
        (flow.seq_end, flow.timestamp),
        (9, 77),
        "an old segment takes nothing back"
    );
}

#[test]
fn syn_retransmissions_do_not_prolong() {
    let mut flow: Flow<crate::address::V4> = Flow {
        state: StateWord::born(0),
        last_seen: Ticks(1),
        ..Flow::default()
    };
    touch(&mut flow, Ticks(500), &segment(SYN, 1000, 0), 40, None);
    assert_eq!(flow.last_seen, Ticks(1));
}

#[test]
fn the_first_ack_counts_wherever_it_lies() {
    // A SYN carries no acknowledgment; half of all numbers are "before" its 0.
    for ack in [1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        let mut flow: Flow<crate::address::V4> = Flow::default();
        start(&mut flow, &segment(SYN, 1000, 0), 0);
        establish(&mut flow, Ticks(9), &segment(ACK, 1001, ack));
        touch(&mut flow, Ticks(9), &segment(ACK, 1001, ack), 40, None);
        assert_eq!((flow.last_ack, flow.last_seen), (ack, Ticks(9)));
        assert!(
            in_window(
                ack,
                Side {
                    seq_end: ack,
                    ..SENDER
                },
                flow.side()
            ),
            "the server's next byte is expected"
        );
    }
}

#[test]
fn data_in_the_handshake() {
    // Fast open: the server acknowledges the SYN's data or leaves it.
    let mut client: Flow<crate::address::V4> = Flow {
        state: StateWord::born(0),
        ..Flow::default()
    };
    let syn = Segment {
        payload: 100,
        ..segment(SYN, 1000, 0)
    };
    start(&mut client, &syn, 0);
    touch(&mut client, Ticks(1), &syn, 140, None);
    assert_eq!(client.seq_end, 1001);
    for ack in [1001, 1101] {
        let answer = segment(SYN | ACK, 500, ack);
        let taken = step(
            client.state,
            Direction::Reverse,
            &answer,
            SERVER,
            client.side(),
        );
        assert!(matches!(taken, Step::Swap(..)), "ack {ack}");
    }
    // The server sends on before the client's ACK has come by.
    let mut server = Flow {
        flags: crate::abi::REVERSE,
        ..client
    };
    start(&mut server, &segment(SYN | ACK, 500, 1001), 0);
    touch(
        &mut server,
        Ticks(1),
        &Segment {
            payload: 1000,
            ..segment(ACK, 501, 1001)
        },
        1040,
        None,
    );
    let answered = client.state.with(StateWord::SYN_ACK);
    for ack in [501, 1501] {
        let first = segment(ACK, 1001, ack);
        let taken = step(
            answered,
            Direction::Forward,
            &first,
            client.side(),
            server.side(),
        );
        assert!(matches!(taken, Step::Swap(_, Count::Promote)), "ack {ack}");
    }
}

#[test]
fn a_fin_behind_known_data_is_seen() {
    // 100 bytes of which the receiver has 50 already, then the FIN.
    let late = Segment {
        payload: 100,
        ..segment(FIN | ACK, 951, 501)
    };
    let taken = step(established(), Direction::Forward, &late, CLIENT, SERVER);
    assert!(matches!(taken, Step::Swap(..)));
    let old = Segment {
        payload: 10,
        ..segment(FIN | ACK, 951, 501)
    };
    assert_eq!(
        step(established(), Direction::Forward, &old, CLIENT, SERVER),
        Step::Keep
    );
}

#[test]
fn a_half_open_reset_must_be_near() {
    let born = StateWord::born(0);
    assert_eq!(forward(born, RST, 0x7000_0000, 0), Step::Keep);
}

proptest! {
    /// Any packet sequence: the counts stay consistent with the phase, and
    /// every flow that was counted can be given back exactly once.
    #[test]
    fn counts_follow_the_phase(
        packets in proptest::collection::vec((any::<bool>(), any::<u8>(), 0u32..3, 0u32..3), 0..60)
    ) {
        let (mut word, mut pending, mut live) = (StateWord::born(1), 1i32, 0i32);
        for (to_backend, bits, seq, ack) in packets {
            let taken = if to_backend {
                forward(word, bits, 1000 + seq, 500 + ack)
            } else {
                reverse(word, bits, 500 + seq, 1000 + ack)
            };
            if let Step::Swap(next, count) | Step::Refused(next, count) = taken {
                prop_assert_eq!(next.0 >> 16, 1, "the generation stays");
                word = next;
                match count {
                    Count::None => {}
                    Count::Promote => { pending -= 1; live += 1; }
                    Count::DropPending => pending -= 1,
                    Count::DropLive => live -= 1,
                    Count::Revive => live += 1,
                }
            }
            let expected = match word.phase() {
                Phase::HalfOpen => (1, 0),
                Phase::Established => (0, 1),
                _ => (0, 0),
            };
            prop_assert_eq!((pending, live), expected, "{:?}", word);
        }
    }

    #[test]
    fn after_is_a_strict_order_within_half_the_space(a in any::<u32>(), d in 1u32..0x7fff_ffff) {
        prop_assert!(is_after(a.wrapping_add(d), a));
        prop_assert!(!is_after(a, a.wrapping_add(d)));
        prop_assert!(!is_after(a, a));
    }
}

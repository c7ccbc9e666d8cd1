//! Tests of the flow state machine.

use super::*;
use proptest::prelude::*;

const CLIENT: Side = Side {
    seq_end: 1001,
    last_ack: 501,
    window: 1000,
    scale: 0,
};
const SERVER: Side = Side {
    seq_end: 501,
    last_ack: 1001,
    window: 1000,
    scale: 0,
};

fn segment(flags: u8, seq: u32, ack: u32) -> Segment {
    Segment {
        flags: Flags(flags),
        seq,
        ack,
        window: 1000,
        payload: 0,
    }
}

fn forward(word: StateWord, flags: u8, seq: u32, ack: u32) -> Step {
    step(
        word,
        Direction::Forward,
        &segment(flags, seq, ack),
        CLIENT,
        SERVER,
    )
}

fn reverse(word: StateWord, flags: u8, seq: u32, ack: u32) -> Step {
    step(
        word,
        Direction::Reverse,
        &segment(flags, seq, ack),
        SERVER,
        CLIENT,
    )
}

fn established() -> StateWord {
    StateWord::born(7)
        .with(StateWord::SYN_ACK | StateWord::WAS_LIVE)
        .with_phase(Phase::Established)
}

const SYN: u8 = Flags::SYN;
const ACK: u8 = Flags::ACK;
const FIN: u8 = Flags::FIN;
const RST: u8 = Flags::RST;

#[test]
fn handshake() {
    let born = StateWord::born(7);
    assert_eq!(
        forward(born, SYN, 1000, 0),
        Step::Retry,
        "a SYN retransmission"
    );
    let answered = born.with(StateWord::SYN_ACK);
    assert_eq!(
        reverse(born, SYN | ACK, 500, 1001),
        Step::Swap(answered, Count::None)
    );
    assert_eq!(
        reverse(answered, SYN | ACK, 500, 1001),
        Step::Keep,
        "a SYN-ACK retransmission"
    );
    assert_eq!(
        forward(answered, ACK, 1001, 501),
        Step::Swap(established(), Count::Promote)
    );
}

#[test]
fn a_blind_ack_does_not_promote() {
    let born = StateWord::born(0);
    assert_eq!(
        forward(born, ACK, 1001, 501),
        Step::Keep,
        "before the server answered"
    );
    let answered = born.with(StateWord::SYN_ACK);
    for ack in [0, 500, 70_000] {
        assert_eq!(forward(answered, ACK, 1001, ack), Step::Keep, "ack {ack}");
    }
    assert_eq!(
        reverse(born, SYN | ACK, 500, 999),
        Step::Keep,
        "a SYN-ACK for another SYN"
    );
}

#[test]
fn a_fin_with_the_first_ack() {
    let answered = StateWord::born(0).with(StateWord::SYN_ACK);
    let next = answered
        .with_phase(Phase::Established)
        .with(StateWord::CLIENT_FIN | StateWord::WAS_LIVE);
    assert_eq!(
        forward(answered, FIN | ACK, 1001, 501),
        Step::Swap(next, Count::Promote)
    );
}

#[test]
fn giving_up_while_half_open() {
    let born = StateWord::born(0);
    let reset = born.with_phase(Phase::Reset);
    assert_eq!(
        forward(born, RST, 1001, 0),
        Step::Swap(reset.with(StateWord::TOLD), Count::DropPending)
    );
    assert_eq!(
        forward(born, FIN, 1001, 0),
        Step::Swap(reset, Count::DropPending)
    );
    let refused = reset.with(StateWord::SERVER_RESET);
    assert_eq!(
        reverse(born, RST | ACK, 0, 1001),
        Step::Refused(refused, Count::DropPending)
    );
    assert_eq!(
        reverse(born, RST | ACK, 0, 77),
        Step::Keep,
        "a RST for another SYN"
    );
    assert_eq!(
        forward(reset, ACK, 1001, 501),
        Step::Keep,
        "nothing to revive"
    );
}

#[test]
fn closing_each_way() {
    let word = established();
    let client_first = word.with(StateWord::CLIENT_FIN);
    assert_eq!(
        forward(word, FIN | ACK, 1001, 501),
        Step::Swap(client_first, Count::None)
    );
    assert_eq!(
        forward(client_first, FIN | ACK, 1001, 501),
        Step::Keep,
        "retransmission"
    );
    assert_eq!(
        reverse(client_first, ACK, 501, 1002),
        Step::Keep,
        "half-closed data"
    );
    let closed = client_first
        .with(StateWord::SERVER_FIN)
        .with_phase(Phase::Closed);
    assert_eq!(
        reverse(client_first, FIN | ACK, 501, 1002),
        Step::Swap(closed, Count::DropLive)
    );
    assert_eq!(
        forward(closed, ACK, 1002, 502),
        Step::Keep,
        "the last ACK passes"
    );
    assert_eq!(
        reverse(closed, FIN | ACK, 501, 1002),
        Step::Keep,
        "and a late retransmission"
    );
    assert_eq!(
        reverse(closed, RST, 501, 0),
        Step::Keep,
        "counted once only"
    );

    let server_first = word.with(StateWord::SERVER_FIN | StateWord::SERVER_FIRST);
    assert_eq!(
        reverse(word, FIN | ACK, 501, 1001),
        Step::Swap(server_first, Count::None)
    );
}

#[test]
fn a_reset_in_the_window_ends() {
    let word = established();
    let reset = word.with_phase(Phase::Reset);
    assert_eq!(
        forward(word, RST, 1001, 0),
        Step::Swap(reset.with(StateWord::TOLD), Count::DropLive)
    );
    assert_eq!(
        reverse(word, RST | ACK, 501, 1001),
        Step::Swap(reset.with(StateWord::SERVER_RESET), Count::DropLive)
    );
    for seq in [1000, 1001 + 65_536, 0x8000_0000] {
        assert_eq!(forward(word, RST, seq, 0), Step::Keep, "seq {seq}");
        assert_eq!(forward(word, FIN | ACK, seq, 501), Step::Keep, "seq {seq}");
    }
}

#[test]
fn only_the_accused_side_revives() {
    let by_client = established().with_phase(Phase::Reset);
    let by_server = by_client.with(StateWord::SERVER_RESET);
    let revived = Step::Swap(established(), Count::Revive);
    assert_eq!(forward(by_client, ACK, 1001, 501), revived);
    assert_eq!(
        reverse(by_client, ACK, 501, 1001),
        Step::Keep,
        "late server data"
    );
    assert_eq!(reverse(by_server, ACK, 501, 1001), revived);
    assert_eq!(forward(by_server, ACK, 1001, 501), Step::Keep);
    assert_eq!(
        forward(by_client, ACK, 900, 501),
        Step::Keep,
        "outside the window"
    );
    assert_eq!(
        forward(by_client, RST, 1001, 501),
        Step::Keep,
        "a second RST"
    );
}

#[test]
fn syns_on_existing_flows() {
    assert_eq!(
        forward(established(), SYN, 5000, 0),
        Step::Keep,
        "the server challenges it"
    );
    for phase in [Phase::Closed, Phase::Reset, Phase::Dead] {
        assert_eq!(
            forward(established().with_phase(phase), SYN, 5000, 0),
            Step::Replace
        );
        assert_ne!(
            reverse(established().with_phase(phase), SYN, 5000, 0),
            Step::Replace,
            "a server opens nothing"
        );
    }
    assert_eq!(
        forward(established().with_phase(Phase::Dead), ACK, 1001, 501),
        Step::Gone
    );
}

/// Has sent all that its receiver acknowledged.
const SENDER: Side = Side {
    seq_end: 1001,
    last_ack: 0,
    window: 0,
    scale: 0,
};

#[test]
fn a_forged_acknowledgment_does_not_hide_an_end() {
    // Somebody acknowledged a gigabyte that the client never sent.
    let forged = Side {
        last_ack: 1001 + (1 << 30),
        ..SERVER
    };
    let fin = segment(FIN | ACK, 1001, 501);
    let taken = step(established(), Direction::Forward, &fin, CLIENT, forged);
    assert!(matches!(taken, Step::Swap(..)), "{taken:?}");
    let blind = segment(RST, 1001 + (1 << 30), 0);
    let taken = step(established(), Direction::Forward, &blind, CLIENT, forged);
    assert_eq!(taken, Step::Keep, "nor does it open the window far ahead");
}

#[test]
fn a_second_try() {
    let born = StateWord::born(7);
    assert_eq!(forward(born, SYN, 1000, 0), Step::Retry);
    let answered = born.with(StateWord::SYN_ACK);
    assert_eq!(forward(answered, SYN, 1000, 0), Step::Keep);
    assert_eq!(forward(born, SYN, 5000, 0), Step::Replace, "another start");
    let gone = born.with_phase(Phase::Reset).with(StateWord::SERVER_RESET);
    assert_eq!(
        reverse(born, RST | ACK, 0, 1001),
        Step::Refused(gone, Count::DropPending)
    );
    let gone = answered
        .with_phase(Phase::Reset)
        .with(StateWord::SERVER_RESET);
    assert_eq!(
        reverse(answered, RST | ACK, 0, 1001),
        Step::Swap(gone, Count::DropPending),
        "never after a SYN-ACK"
    );
}

#[test]
fn what_we_end_stays_ended() {
    let killed = established().with_phase(Phase::Killed);
    for flags in [ACK, FIN | ACK, SYN | ACK, 0] {
        assert_eq!(forward(killed, flags, 1001, 501), Step::Answer);
        assert_eq!(reverse(killed, flags, 501, 1001), Step::Answer);
    }
    assert_eq!(forward(killed, RST, 1001, 0), Step::Keep);
    assert_eq!(forward(killed, SYN, 9000, 0), Step::Replace);
}

#[test]
fn crossing_fins_leave_the_server_waiting() {
    let client_first = established().with(StateWord::CLIENT_FIN);
    let closed = |word: StateWord| word.with(StateWord::SERVER_FIN).with_phase(Phase::Closed);
    assert_eq!(
        reverse(client_first, FIN | ACK, 501, 1001),
        Step::Swap(closed(client_first), Count::DropLive)
    );
    assert_eq!(
        reverse(client_first, FIN | ACK, 501, 1000),
        Step::Swap(
            closed(client_first).with(StateWord::SERVER_FIRST),
            Count::DropLive
        )
    );
}

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

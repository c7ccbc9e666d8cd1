//! Tests of the flow state machine.

use super::*;
use proptest::prelude::*;

#[path = "track_touch_tests.rs"]
mod touch;

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

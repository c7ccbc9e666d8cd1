//! Whose an address is: what of a packet that no flow knows is the host's, and
//! what is dropped or answered because the address is nobody's here.

use ocs_lb_common::abi::{ClusterState, Unknown, Unserved};
use ocs_lb_common::verdict::{Kind, Verdict};
use ocs_lb_tests::packet::{End, Frame, MORE_FRAGMENTS, dump, flag, hex, verify};
use ocs_lb_tests::plan::{BACKENDS, CLIENT, Plan, SERVICE, SNAT, VIP};
use ocs_lb_tests::prog::{Action, Outcome};

use crate::scene::{Scene, Seen};

const SSH: End = (VIP, 22);
/// A port of the SNAT address that no flow has.
const IDLE: End = (SNAT, 20_000);

fn to(destination: End, flags: u8) -> Frame {
    Frame::tcp(CLIENT, destination, flags).numbers(100, 200)
}

/// The same packet with another protocol's number.
fn of(mut frame: Frame, protocol: u8) -> Frame {
    frame.protocol = protocol;
    frame
}

fn fragment(mut frame: Frame, bits: u16) -> Frame {
    frame.fragment = bits;
    frame
}

fn from(mut frame: Frame, source: [u8; 4]) -> Frame {
    frame.source.0 = source;
    frame
}

fn action(verdict: Verdict) -> Action {
    match verdict.kind() {
        Kind::Pass => Action::Pass,
        Kind::Drop => Action::Drop,
        // The client is behind the interface that it came in by.
        Kind::Forward => Action::Tx,
    }
}

fn is(outcome: &Outcome, wanted: Verdict, name: &str) {
    assert_eq!(outcome.verdict, wanted, "{name}");
    assert_eq!(outcome.action, action(wanted), "{name}");
}

/// `(here, away)`: what a packet meets while the VIP and the SNAT address are
/// the host's, and while they are not.
#[test]
#[ignore = "needs root"]
fn the_host_gets_only_what_is_its_own() {
    use Verdict::{
        Answered, ClusterPass, HostSnat, NotLocal, NotTcp, SnatNoFlow, UnknownFlow, UnknownPass,
        Unserved as Ssh, UnservedDrop,
    };

    const UDP: u8 = 17;
    const ESP: u8 = 50;
    let usual = (Unserved::Pass, Unknown::Reset, ClusterState::Ready);
    let reset = (Unserved::Reset, Unknown::Reset, ClusterState::Ready);
    let silent = (Unserved::Drop, Unknown::Drop, ClusterState::Ready);
    let unknown = (Unserved::Pass, Unknown::Pass, ClusterState::Ready);
    let pass = (Unserved::Pass, Unknown::Reset, ClusterState::Pass);
    let (syn, ack, rst) = (flag::SYN, flag::ACK, flag::RST);
    let cases = [
        ("SSH", usual, to(SSH, syn), Ssh, NotLocal),
        ("within SSH", usual, to(SSH, ack), Ssh, NotLocal),
        ("RST to SSH", usual, to(SSH, rst), Ssh, NotLocal),
        ("reset: SYN", reset, to(SSH, syn), Answered, Answered),
        ("reset: ACK", reset, to(SSH, ack), Answered, Answered),
        (
            "reset: RST",
            reset,
            to(SSH, rst),
            UnservedDrop,
            UnservedDrop,
        ),
        (
            "drop: SYN",
            silent,
            to(SSH, syn),
            UnservedDrop,
            UnservedDrop,
        ),
        (
            "drop: ACK",
            silent,
            to(SSH, ack),
            UnservedDrop,
            UnservedDrop,
        ),
        ("UDP", usual, of(to(SERVICE, 0), UDP), NotTcp, NotLocal),
        ("ESP", silent, of(to(SSH, 0), ESP), NotTcp, NotLocal),
        (
            "a fragment of UDP",
            usual,
            fragment(of(to(SSH, 0), UDP), MORE_FRAGMENTS),
            NotTcp,
            NotLocal,
        ),
        (
            "reset: unknown",
            usual,
            to(SERVICE, ack),
            Answered,
            Answered,
        ),
        (
            "drop: unknown",
            silent,
            to(SERVICE, ack),
            UnknownFlow,
            UnknownFlow,
        ),
        (
            "pass: unknown",
            unknown,
            to(SERVICE, ack),
            UnknownPass,
            NotLocal,
        ),
        (
            "pass: RST",
            unknown,
            to(SERVICE, rst),
            UnknownPass,
            NotLocal,
        ),
        (
            "cluster in pass: SYN",
            pass,
            to(SERVICE, syn),
            ClusterPass,
            NotLocal,
        ),
        (
            "cluster in pass: ACK",
            pass,
            to(SERVICE, ack),
            ClusterPass,
            NotLocal,
        ),
        ("SNAT: SYN", usual, to(IDLE, syn), HostSnat, Answered),
        ("SNAT: ACK", silent, to(IDLE, ack), HostSnat, Answered),
        ("SNAT: RST", usual, to(IDLE, rst), HostSnat, SnatNoFlow),
        ("SNAT: UDP", usual, of(to(IDLE, 0), UDP), NotTcp, NotLocal),
    ];
    for (name, (unserved, unknown, state), frame, here, away) in cases {
        for (local, wanted) in [(true, here), (false, away)] {
            let mut plan = Plan {
                unserved: unserved as u8,
                local,
                ..Plan::default()
            };
            plan.cluster.unknown = unknown as u8;
            plan.cluster.state = state as u8;
            let mut scene = Scene::of(&plan);
            let outcome = scene.wan(&frame);
            is(&outcome, wanted, name);
            assert_eq!(scene.entries(), 0, "{name}");
            if wanted == Answered {
                assert_eq!(verify(&outcome.bytes), Ok(()), "{name}");
                let seen = Seen::of(&outcome.bytes);
                assert_eq!((seen.from, seen.to), (frame.destination, frame.source));
            }
        }
    }
}

/// What is served is served wherever the addresses are.
#[test]
#[ignore = "needs root"]
fn flows_do_not_ask_whose_the_addresses_are() {
    let plan = Plan {
        local: false,
        ..Plan::default()
    };
    let mut scene = Scene::of(&plan);
    let connection = scene.open(CLIENT);
    scene.forwards(true, &connection.back(flag::ACK).data(*b"late"));
    assert_eq!(scene.held(), (0, 1));
}

/// RFC 9293 section 3.10.7.1, towards a backend that still talks to a flow
/// that is gone, whose SNAT address is nobody's here.
#[test]
#[ignore = "needs root"]
fn a_backend_of_no_flow_is_reset_on_an_exclusive_address() {
    let mut plan = Plan {
        local: false,
        ..Plan::default()
    };
    let late = |plan: &Plan| {
        let mut scene = Scene::of(plan);
        let mut frame = Frame::tcp((BACKENDS[0], 5061), IDLE, flag::ACK).numbers(1000, 2000);
        frame.mac_destination = ocs_lb_tests::net::LAN_MAC;
        frame.mac_source = ocs_lb_tests::net::backend_mac(BACKENDS[0][3]);
        scene.lan(&frame.data(*b"late"))
    };
    let outcome = late(&plan);
    is(&outcome, Verdict::Answered, "late data");
    // To 198.51.100.11 from 198.51.100.1:20000, RST, sequence 2000.
    let expected = "02000000020b0200000000020800
        45000028000040004006e65cc6336401c633640b
        4e2013c5000007d00000000050040000f1b70000";
    assert_eq!(verify(&outcome.bytes), Ok(()));
    assert_eq!(dump(&outcome.bytes), dump(&hex(expected)));

    plan.settings.resets_per_cpu = 0;
    is(&late(&plan), Verdict::ResetLimited, "beyond the rate");
}

/// Nobody can have these sources: whatever the packet is, to whichever of our
/// addresses, it is neither answered nor given to the host.
#[test]
#[ignore = "needs root"]
fn sources_that_nobody_has() {
    use Verdict::{Martian, OwnSource};

    let sources = [
        ([0, 0, 0, 0], Martian),
        ([0, 1, 2, 3], Martian),
        ([127, 0, 0, 1], Martian),
        ([127, 255, 255, 254], Martian),
        ([224, 0, 0, 5], Martian),
        ([239, 1, 2, 3], Martian),
        ([240, 0, 0, 1], Martian),
        ([255; 4], Martian),
        (VIP, OwnSource),
        (SNAT, OwnSource),
    ];
    let frames = [
        to(SERVICE, flag::SYN),
        to(SERVICE, flag::ACK),
        to(SERVICE, flag::RST),
        to(SSH, flag::SYN),
        to(IDLE, flag::ACK),
        of(to(SERVICE, 0), 17),
        fragment(to(SERVICE, flag::ACK), MORE_FRAGMENTS),
    ];
    for local in [true, false] {
        let mut scene = Scene::of(&Plan {
            local,
            ..Plan::default()
        });
        for (source, wanted) in sources {
            for frame in &frames {
                let frame = from(frame.clone(), source);
                let outcome = scene.wan(&frame);
                is(&outcome, wanted, &format!("{source:?} in {frame:?}"));
                assert_eq!(outcome.bytes, frame.bytes());
            }
        }
        // Elsewhere they are none of our business.
        let elsewhere = from(to(([192, 0, 2, 77], 22), flag::SYN), [127, 0, 0, 1]);
        is(&scene.wan(&elsewhere), Verdict::NotOurs, "elsewhere");
        assert_eq!(scene.entries(), 0);
    }
}

/// The lowest address of a network is a host's (Linux 5.14); the highest is
/// its broadcast address, to which there is no way back.
#[test]
#[ignore = "needs root"]
fn the_first_and_the_last_address_of_a_network() {
    let mut scene = Scene::new();
    let connection = scene.open(([203, 0, 113, 0], 40_000));
    scene.forwards(true, &connection.back(flag::ACK).data(*b"hello"));
    let broadcast = from(to(SERVICE, flag::SYN), [192, 0, 2, 255]);
    is(&scene.wan(&broadcast), Verdict::NoRoute, "broadcast");
    assert_eq!(scene.held(), (0, 1));
}

#[test]
#[ignore = "needs root"]
fn fragments_go_to_the_host_only_where_it_cannot_answer_them() {
    use Verdict::{Fragment, FragmentPass};

    for (local, kernel, wanted) in [
        (true, false, Fragment),
        (false, false, Fragment),
        // The controller does not write it so; if it did, nothing would pass.
        (true, true, Fragment),
        (false, true, FragmentPass),
    ] {
        let mut scene = Scene::of(&Plan {
            local,
            fragments: kernel,
            ..Plan::default()
        });
        let connection = scene.open(CLIENT);
        let before = scene.world.flows().expect("flows");
        let of_the_flow = connection.there(flag::ACK).data(*b"part");
        for bits in [MORE_FRAGMENTS, MORE_FRAGMENTS | 185, 185] {
            for frame in [&of_the_flow, &to(SSH, flag::SYN), &to(SERVICE, flag::SYN)] {
                let frame = fragment(frame.clone(), bits);
                let outcome = scene.wan(&frame);
                is(&outcome, wanted, &format!("local {local}, kernel {kernel}"));
                assert_eq!(outcome.bytes, frame.bytes());
            }
            // A SNAT address has no such word.
            let answer = fragment(connection.back(flag::ACK).data(*b"part"), bits);
            is(&scene.lan(&answer), Fragment, "of a backend");
        }
        assert_eq!(scene.world.flows().expect("flows"), before);
    }
}

/// Each length that contradicts another, in packets of a flow and of none.
#[test]
#[ignore = "needs root"]
fn lengths_that_contradict_each_other() {
    let mut scene = Scene::new();
    let connection = scene.open(CLIENT);
    let before = scene.world.flows().expect("flows");
    let frames = [
        connection.there(flag::ACK).data(*b"data"),
        to(SERVICE, flag::SYN).data(*b"data"),
        to(SSH, flag::SYN).data(*b"data"),
    ];
    // 20 bytes of IP, 20 of TCP, 4 of data.
    for (name, at, bytes) in [
        ("IP header of 16 bytes", 14, &[0x44][..]),
        ("IP header of 60 bytes", 14, &[0x4f]),
        ("packet longer than the frame", 16, &[0, 45]),
        ("packet of 65,535 bytes", 16, &[0xff, 0xff]),
        ("packet shorter than its headers", 16, &[0, 39]),
        ("packet of no bytes", 16, &[0, 0]),
        ("TCP header of 0 bytes", 46, &[0x00]),
        ("TCP header of 16 bytes", 46, &[0x40]),
        ("TCP header of 48 bytes", 46, &[0xc0]),
    ] {
        for frame in &frames {
            let mut frame = frame.bytes();
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            let outcome = scene.world.run(scene.world.net.wan, &frame).expect("a run");
            is(&outcome, Verdict::BadLength, name);
            assert_eq!(outcome.bytes, frame, "{name}");
        }
    }
    assert_eq!(scene.world.flows().expect("flows"), before);
}

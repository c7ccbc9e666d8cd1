//! What is not a connection's packet: passed untouched, dropped, or answered.

use ocs_lb_common::abi::{Unknown, Unserved};
use ocs_lb_common::verdict::{Kind, Verdict};
use ocs_lb_tests::packet::{End, Frame, MORE_FRAGMENTS, dump, flag, hex, verify};
use ocs_lb_tests::plan::{CLIENT, Plan, SERVICE, SNAT, VIP};
use ocs_lb_tests::prog::{Action, Program};

use crate::scene::Scene;

const ELSEWHERE: End = ([192, 0, 2, 77], 5061);

fn to(destination: End, flags: u8) -> Frame {
    Frame::tcp(CLIENT, destination, flags).numbers(100, 200)
}

fn with(frame: Frame, change: impl FnOnce(&mut Frame)) -> Frame {
    let mut frame = frame;
    change(&mut frame);
    frame
}

#[test]
#[ignore = "needs root"]
fn passed_or_dropped_untouched() {
    let mut scene = Scene::new();
    let syn = || to(SERVICE, flag::SYN);
    let cases = [
        (
            "VLAN elsewhere",
            with(to(ELSEWHERE, flag::SYN), |f| f.vlan = Some(5)),
            Verdict::Vlan,
        ),
        (
            "UDP to the VIP",
            with(syn(), |f| f.protocol = 17),
            Verdict::NotTcp,
        ),
        (
            "ICMP elsewhere",
            with(to(ELSEWHERE, 0), |f| f.protocol = 1),
            Verdict::NotOurs,
        ),
        ("unserved port", to((VIP, 22), flag::SYN), Verdict::Unserved),
        (
            "unserved port, ACK",
            to((VIP, 22), flag::ACK),
            Verdict::Unserved,
        ),
        ("not ours", to(ELSEWHERE, flag::SYN), Verdict::NotOurs),
        (
            "to the SNAT address, no flow",
            to((SNAT, 20_000), flag::ACK),
            Verdict::HostSnat,
        ),
        (
            "first fragment",
            with(syn(), |f| f.fragment = MORE_FRAGMENTS),
            Verdict::Fragment,
        ),
        (
            "later fragment",
            with(syn(), |f| f.fragment = 185),
            Verdict::Fragment,
        ),
        (
            "fragment elsewhere",
            with(to(ELSEWHERE, flag::SYN), |f| f.fragment = 185),
            Verdict::NotOurs,
        ),
        (
            "RST of no flow",
            to(SERVICE, flag::RST),
            Verdict::UnknownFlow,
        ),
        (
            "RST-ACK of no flow",
            to(SERVICE, flag::RST | flag::ACK),
            Verdict::UnknownFlow,
        ),
        (
            "SYN from loopback",
            with(syn(), |f| f.source.0 = [127, 0, 0, 1]),
            Verdict::Martian,
        ),
        (
            "SYN from multicast",
            with(syn(), |f| f.source.0 = [224, 0, 0, 5]),
            Verdict::Martian,
        ),
        (
            "SYN from zero",
            with(syn(), |f| f.source.0 = [0; 4]),
            Verdict::Martian,
        ),
        (
            "ACK from loopback",
            with(to(SERVICE, flag::ACK), |f| f.source.0 = [127, 0, 0, 1]),
            Verdict::Martian,
        ),
        (
            "SYN from the VIP",
            with(syn(), |f| f.source.0 = VIP),
            Verdict::OwnSource,
        ),
        (
            "ACK from the VIP",
            with(to(SERVICE, flag::ACK), |f| f.source.0 = VIP),
            Verdict::OwnSource,
        ),
        (
            "no route back",
            with(syn(), |f| f.source.0 = [8, 8, 8, 8]),
            Verdict::NoRoute,
        ),
    ];
    for (name, frame, wanted) in cases {
        let outcome = scene.wan(&frame);
        assert_eq!(outcome.verdict, wanted, "{name}");
        let action = match wanted.kind() {
            Kind::Pass => Action::Pass,
            Kind::Drop | Kind::Forward => Action::Drop,
        };
        assert_eq!(outcome.action, action, "{name}");
        assert_eq!(outcome.bytes, frame.bytes(), "{name}");
        assert_eq!(scene.entries(), 0, "{name}");
        assert_eq!(scene.held(), (0, 0), "{name}");
    }
    for (name, bytes, wanted) in [
        (
            "ARP",
            hex("ffffffffffff 0200000001fe 0806 0001 0800 0604 0001"),
            Verdict::NotIp,
        ),
        (
            "IPv6",
            hex("020000000001 0200000001fe 86dd 6000 0000 0000 3b40"),
            Verdict::FamilyNotWired,
        ),
        (
            "nothing but Ethernet",
            hex("020000000001 0200000001fe 88b5"),
            Verdict::NotIp,
        ),
    ] {
        let mut bytes = bytes;
        if scene.world.program == Program::Tc {
            // The kernel makes no socket buffer of less than a header.
            bytes.resize(60, 0);
        }
        let outcome = scene.world.run(scene.world.net.wan, &bytes).expect("a run");
        assert_eq!(
            (outcome.verdict, outcome.action),
            (wanted, Action::Pass),
            "{name}"
        );
        assert_eq!(outcome.bytes, bytes, "{name}");
    }
}

/// A packet whose time to live ends here changes nothing, whatever it says.
#[test]
#[ignore = "needs root"]
fn an_expired_packet_changes_no_flow() {
    for (name, flags) in [
        ("ACK", flag::ACK),
        ("RST", flag::RST),
        ("FIN", flag::FIN | flag::ACK),
    ] {
        let mut scene = Scene::new();
        let connection = scene.open(CLIENT);
        let before = scene.world.flows().expect("flows");
        for outcome in [
            scene.wan(&connection.there(flags).ttl(1)),
            scene.lan(&connection.back(flags).ttl(1)),
        ] {
            assert_eq!(
                (outcome.verdict, outcome.action),
                (Verdict::AnsweredExpired, Action::Tx),
                "{name}"
            );
        }
        assert_eq!(scene.held(), (0, 1), "{name}");
        assert_eq!(scene.world.flows().expect("flows"), before, "{name}");
    }
}

#[test]
#[ignore = "needs root"]
fn unknown_and_unserved_are_answered_by_policy() {
    // (name, unknown, unserved, frame, verdict)
    let ack = to(SERVICE, flag::ACK);
    let cases = [
        (
            "unknown: drop",
            Unknown::Drop,
            Unserved::Pass,
            ack.clone(),
            Verdict::UnknownFlow,
        ),
        (
            "unknown: pass",
            Unknown::Pass,
            Unserved::Pass,
            ack,
            Verdict::UnknownPass,
        ),
        (
            "unserved: drop",
            Unknown::Reset,
            Unserved::Drop,
            to((VIP, 22), flag::SYN),
            Verdict::UnservedDrop,
        ),
        (
            "unserved: reset",
            Unknown::Reset,
            Unserved::Reset,
            to((VIP, 22), flag::SYN),
            Verdict::Answered,
        ),
    ];
    for (name, unknown, unserved, frame, wanted) in cases {
        let mut plan = Plan {
            unserved: unserved as u8,
            ..Plan::default()
        };
        plan.cluster.unknown = unknown as u8;
        assert_eq!(Scene::of(&plan).wan(&frame).verdict, wanted, "{name}");
    }
}

/// RFC 9293 section 3.10.7.1: the numbers of a reset.
#[test]
#[ignore = "needs root"]
fn an_unknown_segment_is_reset() {
    let mut scene = Scene::new();
    let cases = [
        (
            "ACK",
            to(SERVICE, flag::ACK),
            "0200000001fe0200000000010800
             450000280000400040063cc7c0000201cb007107
             13c59c40000000c80000000050040000010a0000",
        ),
        (
            "ACK with data and options",
            to(SERVICE, flag::ACK)
                .data(*b"data")
                .ip_options([1; 8])
                .tcp_options([1; 12]),
            "0200000001fe0200000000010800
             450000280000400040063cc7c0000201cb007107
             13c59c40000000c80000000050040000010a0000",
        ),
        (
            "SYN-ACK",
            to(SERVICE, flag::SYN | flag::ACK),
            "0200000001fe0200000000010800
             450000280000400040063cc7c0000201cb007107
             13c59c40000000c80000000050040000010a0000",
        ),
        (
            "FIN with data, no ACK",
            to(SERVICE, flag::FIN).data(*b"abc"),
            "0200000001fe0200000000010800
             450000280000400040063cc7c0000201cb007107
             13c59c40000000000000006850140000015a0000",
        ),
    ];
    for (name, frame, expected) in cases {
        let outcome = scene.wan(&frame);
        assert_eq!(
            (outcome.verdict, outcome.action),
            (Verdict::Answered, Action::Tx),
            "{name}"
        );
        assert_eq!(verify(&outcome.bytes), Ok(()), "{name}");
        assert_eq!(dump(&outcome.bytes), dump(&hex(expected)), "{name}");
    }
    assert_eq!(
        scene
            .world
            .counter(0, Verdict::Answered)
            .expect("a counter"),
        4
    );
    assert_eq!(scene.entries(), 0);
}

#[test]
#[ignore = "needs root"]
fn resets_are_limited() {
    let mut plan = Plan::default();
    plan.settings.resets_per_cpu = 0;
    let mut scene = Scene::of(&plan);
    let outcome = scene.wan(&to(SERVICE, flag::ACK));
    assert_eq!(
        (outcome.verdict, outcome.action),
        (Verdict::ResetLimited, Action::Drop)
    );
}

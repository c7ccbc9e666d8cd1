//! ICMP errors in both directions, and what they do to a flow.

use ocs_lb_common::abi::{ClusterLoad, EventKind, Reason, Slot};
use ocs_lb_common::track::Phase;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::icmp::Icmp;
use ocs_lb_tests::net::{LAN_MAC, backend_mac};
use ocs_lb_tests::packet::{Frame, MORE_FRAGMENTS, dump, flag, hex, verify};
use ocs_lb_tests::plan::{BACKENDS, CLIENT, LOW, Plan, SERVICE, SNAT, VIP};
use ocs_lb_tests::prog::{Action, Outcome};

use crate::scene::{CLIENT_ISN, Connection, Scene, Seen, ends};

/// Behind the backends.
const ROUTER: [u8; 4] = [198, 51, 100, 254];
/// On the clients' side.
const GATEWAY: [u8; 4] = [203, 0, 113, 254];
pub const OPTIONS: &str = "94040000 01010101";

/// A client's segment as its backend gets it, or a backend's as its client
/// does.
fn received(connection: &Connection, from_lan: bool, flags: u8) -> Frame {
    let (mut frame, from, to) = if from_lan {
        (
            connection.back(flags),
            connection.service,
            connection.client,
        )
    } else {
        (connection.there(flags), connection.snat, connection.backend)
    };
    (frame.source, frame.destination) = (from, to);
    frame.ttl(63)
}

pub fn run(scene: &mut Scene, from_lan: bool, bytes: &[u8]) -> Outcome {
    let net = scene.world.net;
    let ifindex = if from_lan { net.lan } else { net.wan };
    scene.world.run(ifindex, bytes).expect("a run")
}

pub fn is(outcome: &Outcome, verdict: Verdict, action: Action, name: &str) {
    assert_eq!(
        (outcome.verdict, outcome.action),
        (verdict, action),
        "{name}"
    );
}

/// (name, whether the backends' side sends it, its source, type and code, IP
/// options and bytes of TCP in the quote, the frame sent on). The expected
/// bytes are literal: MACs and EtherType, IP header, ICMP header, the quote.
type Case = (
    &'static str,
    bool,
    [u8; 4],
    (u8, u8),
    (&'static str, usize),
    &'static str,
);

const CASES: [Case; 6] = [
    (
        "nobody listens",
        true,
        BACKENDS[0],
        (3, 3),
        ("", 8),
        "0200000001fe0200000000010800
         45000038123400003f016b88c0000201cb007107
         03033cf600000000
         45000028123440003f062b93cb007107c00002019c4013c510000001",
    ),
    (
        "nobody listens, IP options, from a router",
        true,
        ROUTER,
        (3, 3),
        (OPTIONS, 8),
        "0200000001fe0200000000010800
         45000040123400003f016b80c0000201cb007107
         03033cf600000000
         47000030123440003f069384cb007107c000020194040000010101019c4013c510000001",
    ),
    (
        "nobody listens, a whole TCP header",
        true,
        BACKENDS[0],
        (3, 3),
        ("", 20),
        "0200000001fe0200000000010800
         45000044123400003f016b7cc0000201cb007107
         0303fb2000000000
         45000028123440003f062b93cb007107c00002019c4013c510000001200000015010faf0d6d20000",
    ),
    (
        "fragmentation needed",
        false,
        GATEWAY,
        (3, 4),
        ("", 8),
        "02000000020b0200000000020800
         45000038123400003f010254cb0071fec633640b
         0304761500000500
         45000028123440003f06d528c633640bc633640113c54e2020000001",
    ),
    (
        "fragmentation needed, IP options",
        false,
        GATEWAY,
        (3, 4),
        (OPTIONS, 8),
        "02000000020b0200000000020800
         45000040123400003f01024ccb0071fec633640b
         0304761500000500
         47000030123440003f063d1ac633640bc6336401940400000101010113c54e2020000001",
    ),
    (
        "fragmentation needed, a whole TCP header",
        false,
        GATEWAY,
        (3, 4),
        ("", 20),
        "02000000020b0200000000020800
         45000044123400003f010248cb0071fec633640b
         03044c8a00000500
         45000028123440003f06d528c633640bc633640113c54e2020000001100000015010faf0ce880000",
    ),
];

fn message(connection: &Connection, case: &Case) -> Icmp {
    let (_, from_lan, source, (kind, code), (options, len), _) = *case;
    // The quoted packet went the other way.
    let about = received(connection, !from_lan, flag::ACK).ip_options(hex(options));
    let message = Icmp::error(source, kind, code, &about.bytes(), len);
    if code == 4 {
        message.mtu(1280)
    } else {
        message
    }
}

#[test]
#[ignore = "needs root"]
fn errors_byte_by_byte() {
    let mut scene = Scene::new();
    let connection = scene.open(CLIENT);
    assert_eq!(
        (connection.snat, connection.backend.0),
        ((SNAT, LOW), BACKENDS[0])
    );
    let before = scene.world.flows().expect("flows");
    for case in &CASES {
        let bytes = message(&connection, case).bytes();
        assert_eq!(verify(&bytes), Ok(()), "{}", case.0);
        let outcome = run(&mut scene, case.1, &bytes);
        is(&outcome, Verdict::Redirect, Action::Redirect, case.0);
        assert_eq!(verify(&outcome.bytes), Ok(()), "{}", case.0);
        assert_eq!(dump(&outcome.bytes), dump(&hex(case.5)), "{}", case.0);
    }
    assert_eq!(
        scene.world.flows().expect("flows"),
        before,
        "nothing is noted"
    );
}

/// The client itself says something: the backend sees the SNAT address.
#[test]
#[ignore = "needs root"]
fn a_clients_own_error() {
    let mut scene = Scene::new();
    let connection = scene.open(CLIENT);
    let about = received(&connection, true, flag::ACK).bytes();
    let bytes = Icmp::error(CLIENT.0, 12, 0, &about, 8).bytes();
    let outcome = run(&mut scene, false, &bytes);
    is(
        &outcome,
        Verdict::Redirect,
        Action::Redirect,
        "from the client",
    );
    assert_eq!(verify(&outcome.bytes), Ok(()));
    assert_eq!(outcome.bytes[26..30], SNAT);
    assert_eq!(outcome.bytes[30..34], BACKENDS[0]);
    let shows = |address: [u8; 4]| outcome.bytes[14..].windows(4).any(|part| part == address);
    assert!(!shows(CLIENT.0) && !shows(VIP), "{}", dump(&outcome.bytes));
}

/// Cut anywhere, with an IP header that agrees or not: never sent. What is too
/// short for that header is in `walk.rs`.
#[test]
#[ignore = "needs root"]
fn no_cut_error_is_sent() {
    let mut scene = Scene::new();
    let connection = scene.open(CLIENT);
    for case in [&CASES[1], &CASES[4]] {
        let whole = message(&connection, case).bytes();
        for len in 34..whole.len() {
            let mut cut = whole[..len].to_vec();
            for agrees in [false, true] {
                if agrees {
                    cut[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
                }
                let outcome = run(&mut scene, case.1, &cut);
                assert_eq!(outcome.verdict, Verdict::BadLength, "{} at {len}", case.0);
                assert_eq!(outcome.bytes, cut, "{} at {len}", case.0);
            }
        }
    }
}

/// What was wrong is sent on, and stays wrong: its receiver drops it.
#[test]
#[ignore = "needs root"]
fn a_wrong_checksum_stays_wrong() {
    let mut scene = Scene::new();
    let connection = scene.open(CLIENT);
    for case in &CASES {
        let mut bytes = message(&connection, case).bytes();
        bytes[36] ^= 0x10;
        let outcome = run(&mut scene, case.1, &bytes);
        is(&outcome, Verdict::Redirect, Action::Redirect, case.0);
        let wrong = Err("the ICMP checksum is wrong".into());
        assert_eq!(verify(&outcome.bytes), wrong, "{}", case.0);
    }
}

#[test]
#[ignore = "needs root"]
fn errors_that_are_not_sent_on() {
    let stranger = ([203, 0, 113, 99], 40_000);
    for host in [false, true] {
        let plan = Plan {
            local: host,
            ..Plan::default()
        };
        let mut scene = Scene::of(&plan);
        let connection = scene.open(CLIENT);
        let another = if host {
            Verdict::NotTcp
        } else {
            Verdict::NotLocal
        };
        let unknown = if host {
            Verdict::NotTcp
        } else {
            Verdict::IcmpUnknown
        };
        let there = received(&connection, false, flag::ACK);
        let other = Connection {
            client: stranger,
            snat: (SNAT, LOW + 1),
            ..connection
        };
        let mut udp = there.clone();
        udp.protocol = 17;
        let mut later = there.clone();
        later.fragment = 1;
        let about = |frame: &Frame| Icmp::error(BACKENDS[0], 3, 1, &frame.bytes(), 20);
        let mut to_another = about(&there);
        to_another.destination = VIP;
        let mut last_hop = about(&there);
        last_hop.ttl = 1;
        let mut from_us = about(&there);
        from_us.source = VIP;
        let mut from_loopback = about(&there);
        from_loopback.source = [127, 0, 0, 1];
        let mut cases = vec![
            (
                "no flow",
                about(&received(&other, false, flag::ACK)),
                unknown,
            ),
            ("about UDP", about(&udp), unknown),
            ("a later fragment", about(&later), unknown),
            ("to another than the sender", to_another, unknown),
            ("TTL 1", last_hop, Verdict::TtlExceeded),
            ("from the VIP", from_us, Verdict::OwnSource),
            ("from loopback", from_loopback, Verdict::Martian),
        ];
        for kind in [0, 4, 5, 9, 10, 13, 14, 17, 18, 40] {
            let mut message = about(&there);
            message.kind = kind;
            cases.push(("no error", message, another));
        }
        for (name, message, wanted) in cases {
            let name = format!("{name}, type {}, host {host}", message.kind);
            let bytes = message.bytes();
            let outcome = run(&mut scene, true, &bytes);
            let passed = wanted == Verdict::NotTcp;
            let action = if passed { Action::Pass } else { Action::Drop };
            is(&outcome, wanted, action, &name);
            assert_eq!(outcome.bytes, bytes, "{name}");
        }
        // No fragment of an error is translated.
        let mut bytes = about(&there).bytes();
        bytes[20..22].copy_from_slice(&MORE_FRAGMENTS.to_be_bytes());
        let outcome = run(&mut scene, true, &bytes);
        assert_eq!(outcome.verdict, another, "a fragment");
        assert_eq!(outcome.bytes, bytes, "a fragment");

        // Over, but resting: its retransmissions are still served.
        scene.forwards(true, &connection.back(flag::RST));
        assert_eq!(scene.phase(CLIENT), Some(Phase::Reset));
        let outcome = run(&mut scene, true, &about(&there).bytes());
        is(&outcome, Verdict::Redirect, Action::Redirect, "resting");
    }
}

/// Word from the backends' side that a SYN's backend cannot be reached.
fn unreachable(connection: &Connection, code: u8, seq: u32) -> Vec<u8> {
    let mut syn = received(connection, false, flag::SYN);
    syn.seq = seq;
    Icmp::error(ROUTER, 3, code, &syn.bytes(), 8).bytes()
}

#[test]
#[ignore = "needs root"]
fn an_unreachable_backend_is_left() {
    for code in [0, 1, 2, 3, 9, 10, 13] {
        let mut scene = Scene::new();
        let syn = Frame::tcp(CLIENT, SERVICE, flag::SYN)
            .numbers(CLIENT_ISN, 0)
            .tcp_options(hex("020405b4 0402080a 00000009 00000000 01030307"));
        let (snat, backend) = ends(&scene.forwards(false, &syn));
        let first = Connection {
            client: CLIENT,
            service: SERVICE,
            snat,
            backend,
        };
        let outcome = run(&mut scene, true, &unreachable(&first, code, CLIENT_ISN));
        is(&outcome, Verdict::Tx, Action::Tx, "the SYN once more");
        assert_eq!(verify(&outcome.bytes), Ok(()), "{code}");
        let seen = Seen::of(&outcome.bytes);
        let second = first.moved(&seen);
        assert_eq!(second.backend, (BACKENDS[1], 5061), "{code}");
        assert_eq!(seen.macs, [backend_mac(12), LAN_MAC], "{code}");
        assert_eq!((seen.seq, seen.flags), (CLIENT_ISN, flag::SYN), "{code}");
        assert_eq!((seen.ttl, &seen.options), (63, &syn.tcp_options), "{code}");

        let load = scene.load();
        let pending = [load.slots[0].pending, load.slots[1].pending];
        assert_eq!((scene.held(), pending), ((1, 0), [0, 1]), "{code}");
        assert_eq!((load.moved_silent, load.moved_refused), (1, 0), "{code}");
        assert_eq!(load.silences[..2], [1, 0], "{code}");
        let [moved] = scene.events(EventKind::Redispatch)[..] else {
            panic!("not one event");
        };
        assert_eq!(moved.reason, Reason::Unreachable as u8, "{code}");
        scene.handshake(&second);
        assert_eq!(scene.held(), (0, 1), "{code}");
    }
}

/// The client is told, and its flow stays as it is.
#[test]
#[ignore = "needs root"]
fn unreachable_that_moves_nothing() {
    type Prepare = fn(&mut Scene) -> Connection;
    let plain: Prepare = |scene| scene.syn(CLIENT);
    let answered: Prepare = |scene| {
        let connection = scene.syn(CLIENT);
        let answer = connection.back(flag::SYN | flag::ACK);
        scene.forwards(true, &answer.numbers(7, CLIENT_ISN + 1));
        connection
    };
    let open: Prepare = |scene| scene.open(CLIENT);
    // (name, backends, before, code, sequence number)
    let isn = CLIENT_ISN;
    let cases = [
        ("the only backend", 1, plain, 1, isn),
        ("another sequence number", 2, plain, 1, isn + 1),
        ("fragmentation needed", 2, plain, 4, isn),
        ("source route failed", 2, plain, 5, isn),
        ("after the SYN-ACK", 2, answered, 1, isn),
        ("established", 2, open, 1, isn),
    ];
    for (name, backends, prepare, code, seq) in cases {
        let mut plan = Plan::default();
        if backends == 1 {
            plan.cluster.slots[1] = Slot::default();
            plan.reweigh();
        }
        let mut scene = Scene::of(&plan);
        let connection = prepare(&mut scene);
        let state = |scene: &Scene| {
            let load = ClusterLoad {
                // Choices, also those that came to nothing.
                cursor: 0,
                ..scene.load()
            };
            (scene.world.flows().expect("flows"), load)
        };
        let before = state(&scene);
        let outcome = run(&mut scene, true, &unreachable(&connection, code, seq));
        is(&outcome, Verdict::Redirect, Action::Redirect, name);
        assert_eq!(verify(&outcome.bytes), Ok(()), "{name}");
        assert_eq!(outcome.bytes[26..30], VIP, "{name}");
        assert_eq!(outcome.bytes[30..34], CLIENT.0, "{name}");
        assert_eq!(before, state(&scene), "{name}");
        assert_eq!(scene.events(EventKind::Redispatch), [], "{name}");
    }
}

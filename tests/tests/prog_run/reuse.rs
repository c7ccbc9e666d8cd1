//! SNAT ports after their flow: how long they rest, and when they are used
//! again before.

use std::time::Duration;

use ocs_lb_common::abi::{Balance, RefuseAction, Slot};
use ocs_lb_common::track::Phase;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::packet::{End, Frame, dump, flag, hex, verify};
use ocs_lb_tests::plan::{BACKENDS, CLIENT, LOW, Plan, SERVICE, SNAT};

use crate::scene::{BACKEND_A, CLIENT_ISN, Connection, SERVER_ISN, Scene, Seen, client, ends};

const A: End = (BACKEND_A, 5061);

/// One backend, and so many SNAT ports.
fn narrow(ports: u16) -> Plan {
    let mut plan = Plan {
        range: (LOW, LOW + ports - 1),
        ..Plan::default()
    };
    plan.cluster.slots[1] = Slot::default();
    plan.reweigh();
    plan
}

/// A SYN with the options of Linux.
fn syn(client: End, isn: u32, timestamp: Option<u32>) -> Frame {
    let options = match timestamp {
        Some(value) => {
            let value = value.to_be_bytes();
            [
                &hex("020405b4 0402080a")[..],
                &value,
                &hex("00000000 01030307"),
            ]
            .concat()
        }
        None => hex("020405b4 01030307"),
    };
    Frame::tcp(client, SERVICE, flag::SYN)
        .numbers(isn, 0)
        .tcp_options(options)
}

/// The timestamp option as segments after the SYN carry it.
fn stamp(value: u32) -> Vec<u8> {
    [&hex("0101080a")[..], &value.to_be_bytes(), &[0, 0, 0, 1]].concat()
}

fn connection(client: End, bytes: &[u8]) -> Connection {
    let (snat, backend) = ends(bytes);
    Connection {
        client,
        service: SERVICE,
        snat,
        backend,
    }
}

/// A flow of `client` whose server closed first. With `theirs`, both sides
/// send timestamps; the client's last is 1000.
fn closed_by_server(scene: &mut Scene, client: End, theirs: bool) -> Connection {
    let bytes = scene.forwards(false, &syn(client, CLIENT_ISN, Some(900)));
    let flow = connection(client, &bytes);
    scene.handshake(&flow);
    let mut data = flow.there(flag::ACK).data(*b"question");
    let mut fin = flow
        .back(flag::FIN | flag::ACK)
        .numbers(SERVER_ISN + 1, CLIENT_ISN + 9);
    let mut last = flow
        .there(flag::FIN | flag::ACK)
        .numbers(CLIENT_ISN + 9, SERVER_ISN + 2);
    if theirs {
        data = data.tcp_options(stamp(950));
        fin = fin.tcp_options(stamp(5));
        last = last.tcp_options(stamp(1000));
    }
    for (from_lan, frame) in [(false, data), (true, fin), (false, last)] {
        scene.forwards(from_lan, &frame);
    }
    let ack = flow.back(flag::ACK);
    scene.forwards(true, &ack.numbers(SERVER_ISN + 2, CLIENT_ISN + 10));
    assert_eq!(scene.phase(client), Some(Phase::Closed));
    assert_eq!(scene.ports(&flow).resting, scene.load().resting);
    flow
}

/// The client's numbers ended here.
const END: u32 = CLIENT_ISN + 10;

#[test]
#[ignore = "needs root"]
fn what_a_time_wait_lets_in() {
    /// How the port is given: not before its time, as it is, or without the
    /// timestamp.
    #[derive(Debug, PartialEq)]
    enum Given {
        Last,
        Early,
        Stripped,
    }
    let (before, after) = (END.wrapping_sub(90_000), END + 90_000);
    // (name, both with timestamps, ISN, timestamp, how)
    let cases = [
        ("newer, after", true, after, Some(1001), Given::Early),
        ("newer, before", true, before, Some(1001), Given::Early),
        ("older, after", true, after, Some(999), Given::Stripped),
        ("same, after", true, after, Some(1000), Given::Stripped),
        ("older, before", true, before, Some(999), Given::Last),
        ("none, after", true, after, None, Given::Early),
        ("none, before", true, before, None, Given::Last),
    ];
    for (name, theirs, isn, timestamp, given) in cases {
        // Two ports: one that rests longer and can never be sure, and this one.
        let mut scene = Scene::of(&narrow(2));
        let stuck = scene.syn(client(100));
        let gives_up = stuck.there(flag::FIN | flag::ACK);
        scene.forwards(false, &gives_up.numbers(CLIENT_ISN + 1, 0));
        scene.age(Duration::from_millis(50));
        let old = closed_by_server(&mut scene, client(101), theirs);
        assert_eq!((stuck.snat.1, old.snat.1), (LOW, LOW + 1), "{name}");
        scene.age(Duration::from_millis(500));

        let frame = syn(CLIENT, isn, timestamp);
        let bytes = scene.forwards(false, &frame);
        let (new, seen) = (connection(CLIENT, &bytes), Seen::of(&bytes));
        let wanted = if given == Given::Last { stuck } else { old };
        assert_eq!(new.snat, wanted.snat, "{name}");
        assert_eq!(new.backend, A, "{name}");
        assert_eq!((seen.seq, seen.window), (isn, 64_240), "{name}");
        let options = if given == Given::Stripped {
            let stripped = hex("020405b4 0402 01010101 0101010101 01 01030307");
            assert_eq!(stripped.len(), 20);
            stripped
        } else {
            frame.tcp_options.clone()
        };
        assert_eq!(seen.options, options, "{name}");
        assert_eq!(scene.load().reused_early, 1, "{name}");
        assert_eq!(scene.phase_back(&new), Some(Phase::HalfOpen), "{name}");
        assert_eq!(scene.held(), (1, 0), "{name}");
        assert_eq!(
            (scene.ports(&new).used, scene.ports(&new).resting),
            (2, 1),
            "{name}"
        );
        assert_eq!(scene.entries(), 4, "{name}");
        let gone = if given == Given::Last { 100 } else { 101 };
        assert_eq!(scene.phase(client(gone)), None, "{name}: its entries go");
        let answer = new.back(flag::SYN | flag::ACK);
        let bytes = scene.forwards(true, &answer.numbers(SERVER_ISN, isn.wrapping_add(1)));
        assert_eq!(ends(&bytes), (SERVICE, CLIENT), "{name}");
    }
}

/// The SYN without its timestamp, byte by byte, and the answer to it.
#[test]
#[ignore = "needs root"]
fn a_stripped_syn_byte_by_byte() {
    let mut scene = Scene::of(&narrow(1));
    let old = closed_by_server(&mut scene, client(101), true);
    scene.age(Duration::from_secs(1));
    let mut frame = syn(CLIENT, END + 1, Some(3));
    frame.tos = 0x28;
    let bytes = scene.forwards(false, &frame);
    assert_eq!(ends(&bytes), (old.snat, old.backend));
    assert_eq!(
        dump(&bytes),
        dump(&hex(
            "02000000020b0200000000020800
             4528003c123440003f06d4ecc6336401c633640b
             4e2013c51000000b00000000a002faf089b00000020405b404020101010101010101010101030307",
        ))
    );
    assert_eq!(verify(&bytes), Ok(()));
    let answer = old.back(flag::SYN | flag::ACK);
    let back = scene.forwards(true, &answer.numbers(SERVER_ISN, END + 2));
    assert_eq!(ends(&back), (SERVICE, CLIENT));
}

/// A free port comes before any that rests.
#[test]
#[ignore = "needs root"]
fn a_free_port_comes_first() {
    let mut scene = Scene::of(&narrow(2));
    let old = closed_by_server(&mut scene, client(101), true);
    scene.age(Duration::from_secs(1));
    let bytes = scene.forwards(false, &syn(CLIENT, END + 90_000, Some(2000)));
    assert_ne!(ends(&bytes).0, old.snat);
    assert_eq!(scene.load().reused_early, 0);
}

/// Where a cluster keeps no more resting flows, they come before a free one;
/// but only where the server is sure to take the SYN.
#[test]
#[ignore = "needs root"]
fn a_crowded_cluster_reuses_first() {
    for (timestamp, reuses) in [(Some(2000), true), (None, false)] {
        let mut plan = narrow(3);
        plan.cluster.resting = 1;
        let mut scene = Scene::of(&plan);
        let old = closed_by_server(&mut scene, client(101), true);
        scene.age(Duration::from_secs(1));
        let bytes = scene.forwards(false, &syn(CLIENT, END - 5_000, timestamp));
        assert_eq!(ends(&bytes).0 == old.snat, reuses);
        assert_eq!(scene.load().reused_early, u64::from(reuses));
    }
}

/// Nothing is sure: the one that rests longest.
#[test]
#[ignore = "needs root"]
fn the_oldest_where_nothing_is_left() {
    let mut scene = Scene::of(&narrow(3));
    let flows: Vec<_> = (1..=3).map(|n| scene.open(client(n))).collect();
    // The second ends first, then the third; the first lives on.
    for n in [1, 2] {
        scene.forwards(false, &flows[n].there(flag::RST));
        scene.age(Duration::from_millis(300));
    }
    let seen = scene.syn(client(50));
    assert_eq!(seen.snat, flows[1].snat);
    let seen = scene.syn(client(51));
    assert_eq!(seen.snat, flows[2].snat);
    // A live port is never taken.
    let outcome = scene.wan(&syn(client(52), 1, None));
    assert_eq!(outcome.verdict, Verdict::Answered);
    let load = scene.load();
    assert_eq!((load.refused_snat, load.reused_early), (1, 2));
    assert_eq!(scene.ports_towards(A).failures, 1);
    assert_eq!(scene.held(), (2, 1));
    scene.forwards(true, &flows[0].back(flag::ACK).data(*b"still here"));
    assert_eq!(scene.phase(client(2)), None);
}

/// What is half-open or killed holds its port as well.
#[test]
#[ignore = "needs root"]
fn only_what_is_over_gives_its_port() {
    let mut plan = narrow(1);
    plan.cluster.idle_timeout = 1000;
    let mut scene = Scene::of(&plan);
    let old = scene.open(client(1));
    scene.age(Duration::from_secs(2));
    assert_eq!(scene.world.sweep().expect("a sweep").killed, 1);
    let refused = |scene: &mut Scene| scene.wan(&syn(CLIENT, 1, None)).verdict;
    assert_eq!(refused(&mut scene), Verdict::Answered, "killed");
    scene.age(Duration::from_secs(11));
    scene.world.sweep().expect("a sweep");
    scene.age(Duration::from_secs(1));
    scene.world.sweep().expect("a sweep");
    let new = scene.syn(client(2));
    assert_eq!(new.snat, old.snat);
    assert_eq!(refused(&mut scene), Verdict::Answered, "half-open");
    scene.handshake(&new);
    assert_eq!(refused(&mut scene), Verdict::Answered, "established");
}

/// A backend without a free port is passed over; where none has one, the
/// connection is refused as configured.
#[test]
#[ignore = "needs root"]
fn exhausted_backends() {
    let mut plan = Plan {
        range: (LOW, LOW),
        ..Plan::default()
    };
    plan.cluster.refuse_snat = RefuseAction::Drop as u8;
    // All to the first, where it can.
    plan.cluster.balance = Balance::RoundRobin as u8;
    plan.cluster.slots[0].weight = 1000;
    plan.reweigh();
    let mut scene = Scene::of(&plan);
    let b: End = (BACKENDS[1], 5061);
    assert_eq!(scene.open(client(1)).backend, A);
    let second = scene.open(client(2));
    assert_eq!((second.backend, second.snat), (b, (SNAT, LOW)));
    assert_eq!(
        scene.world.sticky(client(2).0).map(|entry| entry.backend),
        Some(1)
    );
    assert_eq!(scene.ports_towards(A).failures, 1);
    let outcome = scene.wan(&syn(client(3), 1, None));
    assert_eq!(outcome.verdict, Verdict::SnatExhausted);
    assert_eq!(scene.ports_towards(A).failures, 2);
    assert_eq!(scene.ports_towards(b).failures, 1);
    assert_eq!((scene.load().refused_snat, scene.held()), (1, (0, 2)));
    let pending = scene.world.loaded.maps.pending_sticky.keys().flatten();
    assert!(
        pending.into_iter().all(|key| key.address.0 != client(3).0),
        "a refused client is not bound to a backend that cannot take it"
    );
    // With a free port again, the first comes first again.
    scene.forwards(false, &scene.connection(client(1)).there(flag::RST));
    assert_eq!(scene.syn(client(3)).backend, A);
}

/// A RST to a SYN may be about the flow that had the port before: another
/// port of the same backend is tried first.
#[test]
#[ignore = "needs root"]
fn a_refused_early_port_blames_nobody() {
    let mut scene = Scene::of(&narrow(2));
    let kept = scene.open(client(100));
    let old = closed_by_server(&mut scene, client(101), true);
    scene.age(Duration::from_secs(1));
    let early = scene.forwards(false, &syn(CLIENT, CLIENT_ISN, Some(2000)));
    let early = connection(CLIENT, &early);
    assert_eq!(early.snat, old.snat);
    scene.forwards(false, &kept.there(flag::RST));
    scene.age(Duration::from_millis(2_100));
    let seen = scene.refuse(&early);
    assert_eq!((seen.from, seen.to), (kept.snat, A));
    assert_eq!(seen.seq, CLIENT_ISN);
    assert_eq!(scene.load().refusals[0], 0);
    assert_eq!(scene.held(), (1, 0));
}

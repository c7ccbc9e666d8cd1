//! A second try at another backend: after a RST to the SYN.

use ocs_lb_common::abi::{EventKind, Reason, Slot};
use ocs_lb_common::track::Phase;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::net::{GATEWAY_MAC, LAN_MAC, backend_mac};
use ocs_lb_tests::packet::{Frame, dump, flag, hex, verify};
use ocs_lb_tests::plan::{BACKENDS, CLIENT, LOW, Plan, SERVICE, SNAT};

use crate::scene::{BACKEND_A, CLIENT_ISN, Connection, SERVER_ISN, Scene, client, ends, port_of};

/// ECE and CWR: a SYN that offers ECN (RFC 3168 section 6.1.1).
const ECN: u8 = 0xc0;

const LINUX: &str = "020405b4 0402080a 00000009 00000000 01030307";

fn syn(options: &[u8]) -> Frame {
    let mut frame = Frame::tcp(CLIENT, SERVICE, flag::SYN | ECN)
        .numbers(CLIENT_ISN, 0)
        .tcp_options(options);
    frame.tos = 0xb8;
    frame.window = 12_345;
    frame
}

fn opened(scene: &mut Scene, frame: &Frame) -> Connection {
    let (snat, backend) = ends(&scene.forwards(false, frame));
    Connection {
        client: CLIENT,
        service: SERVICE,
        snat,
        backend,
    }
}

/// The RST to a SYN becomes the SYN to another backend, byte by byte.
#[test]
#[ignore = "needs root"]
fn a_refused_syn_byte_by_byte() {
    let mut scene = Scene::new();
    let first = opened(&mut scene, &syn(&hex(LINUX)));
    assert_eq!(
        (first.snat, first.backend),
        ((SNAT, LOW), (BACKENDS[0], 5061))
    );
    let outcome = scene.lan(&first.refusal());
    assert_eq!(verify(&outcome.bytes), Ok(()));
    assert_eq!(
        dump(&outcome.bytes),
        dump(&hex(
            "02000000020c0200000000020800
             45b8003c000040003f06e68fc6336401c633640c
             4e2013c51000000000000000a0c2303950a40000020405b40402080a000000090000000001030307",
        ))
    );
    assert_eq!(outcome.verdict, Verdict::Tx);
    let second = Connection {
        backend: (BACKENDS[1], 5061),
        ..first
    };
    let answer = second
        .back(flag::SYN | flag::ACK)
        .numbers(SERVER_ISN, CLIENT_ISN + 1)
        .tcp_options(hex("020405b4"));
    assert_eq!(
        dump(&scene.forwards(true, &answer)),
        dump(&hex("0200000001fe0200000000010800
             4500002c123440003f062b8fc0000201cb007107
             13c59c4020000000100000016012faf0bf150000020405b4",))
    );
}

#[test]
#[ignore = "needs root"]
fn a_refused_syn_is_sent_as_it_came() {
    let longest = [&hex(LINUX)[..], &[1; 20]].concat();
    for options in [Vec::new(), hex("020405b4"), hex(LINUX), longest] {
        let name = format!("{} bytes of options", options.len());
        let mut scene = Scene::new();
        let first = opened(&mut scene, &syn(&options));
        assert_eq!(scene.held(), (1, 0), "{name}");
        let seen = scene.refuse(&first);
        let second = first.moved(&seen);
        assert_ne!(second.backend, first.backend, "{name}");
        assert_eq!(second.backend.1, 5061, "{name}");
        assert_eq!(seen.macs, [backend_mac(12), LAN_MAC], "{name}");
        assert_eq!((seen.seq, seen.ack), (CLIENT_ISN, 0), "{name}");
        assert_eq!((seen.flags, seen.tos), (flag::SYN | ECN, 0xb8), "{name}");
        assert_eq!((seen.window, seen.ttl), (12_345, 63), "{name}");
        assert_eq!(seen.options, options, "{name}");
        assert!(seen.payload.is_empty(), "{name}");

        let load = scene.load();
        let pending = [load.slots[0].pending, load.slots[1].pending];
        assert_eq!((scene.held(), pending), ((1, 0), [0, 1]), "{name}");
        assert_eq!(load.refusals[..2], [1, 0], "{name}");
        assert_eq!(load.silences[..2], [0, 0], "{name}");
        assert_eq!(load.resting, 1, "{name}: the refused port");
        let [moved] = scene.events(EventKind::Redispatch)[..] else {
            panic!("{name}: not one event");
        };
        assert_eq!(moved.reason, Reason::Refused as u8, "{name}");
        assert_eq!((moved.before, moved.backend), (0, 1), "{name}");
        assert_eq!(moved.client.source.0, CLIENT.0, "{name}");
        assert_eq!(port_of(&moved), second.snat.1, "{name}");

        // What the first backend still sends belongs to no flow.
        for flags in [flag::RST | flag::ACK, flag::SYN | flag::ACK, flag::ACK] {
            let late = scene.lan(&first.back(flags));
            assert_eq!(late.verdict, Verdict::HostSnat, "{name}");
        }
        scene.handshake(&second);
        assert_eq!(scene.held(), (0, 1), "{name}");
        let bytes = scene.forwards(true, &second.back(flag::ACK).data(*b"hello"));
        assert_eq!(bytes[..6], GATEWAY_MAC, "{name}");
        assert_eq!(ends(&bytes), (SERVICE, CLIENT), "{name}");
        assert_eq!(scene.load().connections[..2], [0, 1], "{name}");
        assert_eq!(
            scene.world.sticky(CLIENT.0).map(|entry| entry.backend),
            Some(1),
            "{name}"
        );
    }
}

/// The port that a server refused holds nothing there.
#[test]
#[ignore = "needs root"]
fn a_refused_port_rests_shortly() {
    let mut scene = Scene::new();
    let first = scene.syn(CLIENT);
    scene.refuse(&first);
    assert_eq!(scene.phase_back(&first), Some(Phase::Dead));
    assert_eq!(
        (scene.ports(&first).used, scene.ports(&first).resting),
        (1, 1)
    );
    scene.age(std::time::Duration::from_millis(200));
    assert_eq!(scene.world.sweep().expect("a sweep").deleted, 1);
    assert_eq!(
        (scene.ports(&first).used, scene.ports(&first).resting),
        (0, 0)
    );
    assert_eq!((scene.load().resting, scene.entries()), (0, 2));
}

#[test]
#[ignore = "needs root"]
fn refused_by_all() {
    let mut scene = Scene::new();
    let first = scene.syn(CLIENT);
    let second = first.moved(&scene.refuse(&first));
    let seen = scene.refuse(&second);
    assert_eq!((seen.from, seen.to), (SERVICE, CLIENT));
    assert_eq!(
        (seen.flags, seen.ack),
        (flag::RST | flag::ACK, CLIENT_ISN + 1)
    );
    assert_eq!(scene.held(), (0, 0));
    assert_eq!(scene.load().refusals[..2], [1, 1]);
    assert_eq!(scene.phase(CLIENT), Some(Phase::Reset));
    assert_eq!(
        scene.told(),
        [
            (EventKind::Redispatch, Some(Reason::Refused)),
            (EventKind::Close, Some(Reason::ServerReset))
        ]
    );
    assert_eq!(
        scene.load().slots[..2]
            .iter()
            .map(|slot| slot.pending)
            .sum::<u32>(),
        0
    );
    // A new SYN begins from the beginning.
    let again = scene.syn(CLIENT);
    assert_eq!(scene.held(), (1, 0));
    assert_eq!(scene.phase_back(&again), Some(Phase::HalfOpen));
}

/// The client gets what it must not lose, and what is not about its SYN.
#[test]
#[ignore = "needs root"]
fn what_is_not_kept_from_the_client() {
    type Change = fn(&mut Plan);
    type Prepare = fn(&mut Scene) -> Connection;
    let nothing: Change = |_| {};
    let plain: Prepare = |scene| scene.syn(CLIENT);
    let answered: Prepare = |scene| {
        let connection = scene.syn(CLIENT);
        let answer = connection.back(flag::SYN | flag::ACK);
        scene.forwards(true, &answer.numbers(SERVER_ISN, CLIENT_ISN + 1));
        connection
    };
    // (name, plan, the SYN, the RST's numbers, phase after, refusals)
    type Case = (&'static str, Change, Prepare, (u32, u32), Phase, u64);
    let cases: [Case; 6] = [
        (
            "the only backend",
            |plan| plan.cluster.slots[1] = Slot::default(),
            plain,
            (0, CLIENT_ISN + 1),
            Phase::Reset,
            1,
        ),
        (
            "data in the SYN",
            nothing,
            |scene| opened(scene, &syn(&[]).data(*b"early")),
            (0, CLIENT_ISN + 6),
            Phase::Reset,
            1,
        ),
        (
            "data in the SYN that is not acknowledged",
            nothing,
            |scene| opened(scene, &syn(&[]).data(*b"early")),
            (0, CLIENT_ISN + 1),
            Phase::Reset,
            1,
        ),
        (
            "a wrong acknowledgment",
            nothing,
            plain,
            (0, CLIENT_ISN),
            Phase::HalfOpen,
            0,
        ),
        (
            "an acknowledgment of what was not sent",
            nothing,
            plain,
            (0, CLIENT_ISN + 7),
            Phase::Reset,
            1,
        ),
        (
            "after the SYN-ACK",
            nothing,
            answered,
            (SERVER_ISN + 1, CLIENT_ISN + 1),
            Phase::Reset,
            0,
        ),
    ];
    for (name, change, prepare, (seq, ack), phase, refusals) in cases {
        let mut plan = Plan::default();
        change(&mut plan);
        plan.reweigh();
        let mut scene = Scene::of(&plan);
        let connection = prepare(&mut scene);
        assert_eq!(connection.backend.0, BACKEND_A, "{name}");
        let reset = connection.back(flag::RST | flag::ACK).numbers(seq, ack);
        let seen = scene.sends(true, &reset);
        assert_eq!((seen.from, seen.to), (SERVICE, CLIENT), "{name}");
        assert_eq!((seen.seq, seen.ack), (seq, ack), "{name}");
        assert_eq!(scene.phase(CLIENT), Some(phase), "{name}");
        let pending = u32::from(phase == Phase::HalfOpen);
        assert_eq!(scene.held(), (pending, 0), "{name}");
        assert_eq!(scene.load().refusals[..2], [refusals, 0], "{name}");
        assert_eq!(scene.events(EventKind::Redispatch), [], "{name}");
        assert_eq!(scene.phase_back(&connection), Some(phase), "{name}");
    }
}

/// A client that sends on with the same port meets its new backend, also
/// while its first SYN is repeated.
#[test]
#[ignore = "needs root"]
fn a_moved_flow_stays_moved() {
    let mut scene = Scene::new();
    let first = scene.syn(client(3));
    let second = first.moved(&scene.refuse(&first));
    let again = scene.sends(false, &first.opening());
    assert_eq!((again.from, again.to), (second.snat, second.backend));
    assert_eq!(scene.held(), (1, 0));
    assert_eq!(
        scene.entries(),
        3,
        "the flow, and the record of its first port"
    );
}

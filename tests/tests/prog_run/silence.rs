//! A second try at another backend: where the first does not answer.

use std::time::Duration;

use ocs_lb_common::abi::{EventKind, Reason, Slot};
use ocs_lb_common::track::Phase;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::net::backend_mac;
use ocs_lb_tests::packet::{flag, hex};
use ocs_lb_tests::plan::{BACKENDS, CLIENT, Plan};

use crate::scene::{CLIENT_ISN, Connection, SERVER_ISN, Scene, Seen, client};

const SECOND: Duration = Duration::from_secs(1);

/// A plan that leaves time for three retransmissions.
fn patient() -> Plan {
    let mut plan = Plan::default();
    plan.cluster.connect_timeout *= 10;
    plan
}

/// The client's SYN again, and where it went.
fn again(scene: &mut Scene, connection: &Connection) -> Seen {
    scene.sends(false, &connection.opening())
}

#[test]
#[ignore = "needs root"]
fn a_silent_backend_is_left() {
    let mut scene = Scene::new();
    let first = scene.syn(CLIENT);
    scene.age(SECOND);
    let options = hex("020405b4 01030307");
    // What is sent on is the SYN as it came first, whatever the second says.
    let mut frame = first.opening().tcp_options(options);
    frame.tos = 0x10;
    let seen = scene.sends(false, &frame);
    assert_eq!(seen.to, (BACKENDS[1], 5061));
    assert_eq!(seen.macs[0], backend_mac(12));
    assert_eq!((seen.seq, seen.ack, seen.flags), (CLIENT_ISN, 0, flag::SYN));
    assert_eq!((seen.tos, seen.ttl, seen.window), (0, 63, 64_240));
    assert!(seen.options.is_empty());
    let load = scene.load();
    assert_eq!((load.slots[0].pending, load.slots[1].pending), (0, 1));
    assert_eq!(load.silences[..2], [1, 0]);
    assert_eq!(load.refusals[..2], [0, 0]);
    assert_eq!(
        scene.told(),
        [(EventKind::Redispatch, Some(Reason::Silent))]
    );
    // The first backend may be waiting for the end of a handshake.
    assert_eq!(scene.phase_back(&first), Some(Phase::Dead));
    scene.age(Duration::from_secs(63));
    scene.world.sweep().expect("a sweep");
    assert_eq!(scene.ports(&first).resting, 1);
    scene.age(SECOND * 2);
    scene.world.sweep().expect("a sweep");
    assert_eq!(scene.ports(&first).used, 0);
}

#[test]
#[ignore = "needs root"]
fn a_late_answer_of_the_first_backend_is_none() {
    let mut scene = Scene::new();
    let first = scene.syn(CLIENT);
    scene.age(SECOND);
    let second = first.moved(&again(&mut scene, &first));
    let late = first.back(flag::SYN | flag::ACK).numbers(9, CLIENT_ISN + 1);
    assert_eq!(scene.lan(&late).verdict, Verdict::HostSnat);
    scene.handshake(&second);
    assert_eq!(scene.held(), (0, 1));
    assert_eq!(scene.load().connections[..2], [0, 1]);
}

/// (name, seconds between SYNs, whether the backend answers another client
/// before each, retransmission that moves)
#[test]
#[ignore = "needs root"]
fn when_a_flow_moves() {
    let cases: [(&str, Duration, bool, Option<usize>); 4] = [
        ("after redispatch_after", SECOND, false, Some(1)),
        (
            "before it, thrice",
            Duration::from_millis(100),
            false,
            Some(3),
        ),
        ("the backend answers others", SECOND, true, Some(3)),
        (
            "it answers others, early",
            Duration::from_millis(100),
            true,
            Some(3),
        ),
    ];
    for (name, pause, answers, moves) in cases {
        let mut scene = Scene::of(&patient());
        let first = scene.syn(CLIENT);
        // Another client of the same backend.
        scene.syn(client(50));
        let other = scene.syn(client(51));
        assert_eq!(other.backend, first.backend, "{name}");
        let answer = other.back(flag::SYN | flag::ACK);
        let answer = answer.numbers(SERVER_ISN, CLIENT_ISN + 1);
        if answers {
            scene.age(pause / 2);
            scene.forwards(true, &answer);
            scene.age(pause / 2);
        } else {
            scene.age(pause);
        }
        let mut moved = None;
        for n in 1..=3 {
            if again(&mut scene, &first).to != first.backend {
                moved = Some(n);
                break;
            }
            scene.age(pause);
        }
        assert_eq!(moved, moves, "{name}");
    }
}

/// An answer from before the SYN says nothing about now.
#[test]
#[ignore = "needs root"]
fn an_old_answer_does_not_hold_a_flow() {
    let mut scene = Scene::of(&patient());
    let before = scene.open(client(51));
    scene.age(SECOND);
    scene.syn(client(50));
    let first = scene.syn(CLIENT);
    assert_eq!(first.backend, before.backend);
    scene.age(SECOND);
    assert_ne!(again(&mut scene, &first).to, first.backend);
}

#[test]
#[ignore = "needs root"]
fn what_stays_in_silence() {
    type Opening = fn(&mut Scene) -> Connection;
    let plain: Opening = |scene| scene.syn(CLIENT);
    let answered: Opening = |scene| {
        let connection = scene.syn(CLIENT);
        let answer = connection.back(flag::SYN | flag::ACK);
        scene.forwards(true, &answer.numbers(SERVER_ISN, CLIENT_ISN + 1));
        connection
    };
    for (name, opening, alone) in [
        ("no other backend", plain, true),
        ("after a SYN-ACK", answered, false),
    ] {
        let mut plan = patient();
        if alone {
            plan.cluster.slots[1] = Slot::default();
            plan.reweigh();
        }
        let mut scene = Scene::of(&plan);
        let first = opening(&mut scene);
        for _ in 0..4 {
            scene.age(SECOND);
            let seen = again(&mut scene, &first);
            assert_eq!((seen.from, seen.to), (first.snat, first.backend), "{name}");
        }
        assert_eq!(scene.held(), (1, 0), "{name}");
        assert_eq!(scene.load().silences[..2], [0, 0], "{name}");
        assert_eq!(scene.told(), [], "{name}");
        assert_eq!(scene.entries(), 2, "{name}");
    }
}

/// Both backends are silent: the flow goes to each once, and stays.
#[test]
#[ignore = "needs root"]
fn each_backend_has_one_try() {
    let mut scene = Scene::of(&patient());
    let first = scene.syn(CLIENT);
    let mut met = vec![first.backend];
    for _ in 0..4 {
        scene.age(SECOND);
        met.push(again(&mut scene, &first).to);
    }
    let (a, b) = (met[0], met[1]);
    assert_ne!(a, b);
    assert_eq!(met, [a, b, b, b, b]);
    assert_eq!(scene.load().silences[..2], [1, 0]);
    assert_eq!(scene.held(), (1, 0));
}

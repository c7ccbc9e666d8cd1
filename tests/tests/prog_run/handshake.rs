//! From the first SYN to an established flow: what promotes, what gives up,
//! and a SYN that comes again.

use std::time::Duration;

use ocs_lb_common::abi::{EventKind, Reason};
use ocs_lb_common::track::Phase;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::packet::{dump, flag};
use ocs_lb_tests::plan::{CLIENT, Plan};

use crate::scene::{CLIENT_ISN, Connection, SERVER_ISN, Scene, client, port_of};

/// A half-open flow whose server has answered.
fn answered(scene: &mut Scene) -> Connection {
    let connection = scene.syn(CLIENT);
    let answer = connection.back(flag::SYN | flag::ACK);
    scene.forwards(true, &answer.numbers(SERVER_ISN, CLIENT_ISN + 1));
    connection
}

/// Only who has seen the SYN-ACK can acknowledge it.
#[test]
#[ignore = "needs root"]
fn what_promotes() {
    let first = SERVER_ISN + 1;
    // (name, acknowledgment, whether the flow is established)
    let cases = [
        ("ISN + 1", first, true),
        ("data after it", first + 1000, true),
        ("64 KiB after it", first + 65_535, true),
        ("more than that", first + 65_536, false),
        ("the ISN itself", SERVER_ISN, false),
        ("zero", 0, false),
        ("half the circle away", first.wrapping_add(1 << 31), false),
    ];
    for (name, ack, promotes) in cases {
        for flags in [flag::ACK, flag::ACK | flag::PSH] {
            let mut scene = Scene::new();
            let connection = answered(&mut scene);
            let frame = connection.there(flags).numbers(CLIENT_ISN + 1, ack);
            scene.forwards(false, &frame.data(vec![7; usize::from(flags & flag::PSH)]));
            let held = if promotes { (0, 1) } else { (1, 0) };
            assert_eq!(scene.held(), held, "{name}");
            let opened = scene.events(EventKind::Open).len();
            assert_eq!(opened, usize::from(promotes), "{name}");
            assert_eq!(
                scene.world.sticky(CLIENT.0).is_some(),
                promotes,
                "{name}: only a client that exists becomes sticky"
            );
        }
    }
}

/// An ACK with a number that fits, but before any answer.
#[test]
#[ignore = "needs root"]
fn nothing_promotes_before_the_answer() {
    let mut scene = Scene::new();
    let connection = scene.syn(CLIENT);
    for ack in [0, 1, SERVER_ISN + 1] {
        let blind = connection.there(flag::ACK).numbers(CLIENT_ISN + 1, ack);
        scene.forwards(false, &blind);
        assert_eq!(scene.held(), (1, 0));
    }
    scene.handshake(&connection);
    assert_eq!(scene.held(), (0, 1), "they did no harm");
}

/// A FIN that acknowledges the SYN-ACK opens and half-closes.
#[test]
#[ignore = "needs root"]
fn a_fin_with_the_last_ack() {
    let mut scene = Scene::new();
    let connection = answered(&mut scene);
    scene.forwards(false, &connection.there(flag::FIN | flag::ACK));
    assert_eq!(scene.held(), (0, 1));
    let last = connection.back(flag::FIN | flag::ACK);
    scene.forwards(true, &last.numbers(SERVER_ISN + 1, CLIENT_ISN + 2));
    assert_eq!(
        (scene.held(), scene.phase(CLIENT)),
        ((0, 0), Some(Phase::Closed))
    );
}

#[test]
#[ignore = "needs root"]
fn a_client_that_gives_up() {
    type Begin = fn(&mut Scene) -> Connection;
    let begins: [(&str, Begin); 2] = [
        ("unanswered", |scene| scene.syn(CLIENT)),
        ("answered", answered),
    ];
    // (name, flags, numbers, whether it is believed)
    let cases = [
        ("RST", flag::RST, (CLIENT_ISN + 1, 0), true),
        ("RST, the ISN", flag::RST, (CLIENT_ISN, 0), true),
        (
            "blind RST",
            flag::RST,
            (CLIENT_ISN.wrapping_sub(1), 0),
            false,
        ),
        (
            "blind RST after",
            flag::RST,
            (CLIENT_ISN + 65_536, 0),
            false,
        ),
        ("FIN", flag::FIN | flag::ACK, (CLIENT_ISN + 1, 0), true),
    ];
    for (begin, opening) in begins {
        for (name, flags, (seq, ack), believed) in cases {
            let name = format!("{name}, {begin}");
            let mut scene = Scene::new();
            let connection = opening(&mut scene);
            scene.forwards(false, &connection.there(flags).numbers(seq, ack));
            assert_eq!(scene.held(), (u32::from(!believed), 0), "{name}");
            let phase = if believed {
                Phase::Reset
            } else {
                Phase::HalfOpen
            };
            assert_eq!(scene.phase(CLIENT), Some(phase), "{name}");
            let told: &[_] = if believed {
                &[(EventKind::Close, Some(Reason::ClientReset))]
            } else {
                &[]
            };
            assert_eq!(scene.told(), told, "{name}");
            assert_eq!(scene.world.sticky(CLIENT.0), None, "{name}");
            assert_eq!(
                scene.ports(&connection).resting,
                u32::from(believed),
                "{name}"
            );
        }
    }
}

#[test]
#[ignore = "needs root"]
fn the_same_syn_again_is_forwarded_as_it_is() {
    for begin in [answered, |scene: &mut Scene| scene.syn(CLIENT)] {
        let mut scene = Scene::new();
        let connection = begin(&mut scene);
        let mut again = connection.opening().tcp_options([2, 4, 1, 0]);
        again.identification = 0x4321;
        again.tos = 4;
        let seen = scene.sends(false, &again);
        assert_eq!((seen.from, seen.to), (connection.snat, connection.backend));
        assert_eq!((seen.seq, seen.tos), (CLIENT_ISN, 4));
        assert_eq!(seen.options, [2, 4, 1, 0]);
        assert_eq!((scene.held(), scene.entries()), ((1, 0), 2));
        assert_eq!(scene.told(), []);
    }
}

/// A client that gave up and began again with the same port.
#[test]
#[ignore = "needs root"]
fn another_syn_replaces_a_half_open_flow() {
    for begin in [answered, |scene: &mut Scene| scene.syn(CLIENT)] {
        let mut scene = Scene::new();
        let old = begin(&mut scene);
        let other = old.opening().numbers(CLIENT_ISN + 500_000, 0);
        let seen = scene.sends(false, &other);
        let new = old.moved(&seen);
        assert_eq!(new.backend, old.backend, "its client is bound already");
        assert_ne!(new.snat, old.snat, "the server may know the old one");
        assert_eq!(seen.seq, CLIENT_ISN + 500_000);
        assert_eq!((scene.held(), scene.entries()), ((1, 0), 3));
        assert_eq!((scene.ports(&new).used, scene.ports(&new).resting), (2, 1));
        assert_eq!(scene.phase_back(&old), Some(Phase::Dead));
        let [close] = scene.events(EventKind::Close)[..] else {
            panic!("not one event");
        };
        assert_eq!(close.reason, Reason::Replaced as u8);
        assert_eq!(port_of(&close), old.snat.1);
        let late = old.back(flag::SYN | flag::ACK);
        assert_eq!(scene.lan(&late).verdict, Verdict::HostSnat);
        // The server of the old one was told nothing.
        scene.age(Duration::from_secs(63));
        scene.world.sweep().expect("a sweep");
        assert_eq!(scene.ports(&new).resting, 2, "and by then the new one too");
        scene.age(Duration::from_secs(2));
        scene.world.sweep().expect("a sweep");
        assert_eq!(scene.ports(&new).used, 1);
    }
}

/// Time ends a half-open flow also where no sweep runs.
#[test]
#[ignore = "needs root"]
fn an_expired_half_open_flow_without_a_sweep() {
    for syn in [true, false] {
        let mut scene = Scene::new();
        let old = scene.syn(CLIENT);
        scene.age(Duration::from_secs(5));
        if syn {
            let new = scene.syn(CLIENT);
            assert_ne!(new.backend, old.backend, "the first one did not answer");
            assert_eq!((scene.held(), scene.entries()), ((1, 0), 3));
        } else {
            let outcome = scene.wan(&old.there(flag::ACK));
            assert_eq!(outcome.verdict, Verdict::Answered);
            assert_eq!((scene.held(), scene.entries()), ((0, 0), 2));
        }
        assert_eq!(
            scene.told(),
            [(EventKind::Close, Some(Reason::ConnectTimeout))]
        );
        assert_eq!(scene.ports(&old).resting, 1);
        let late = old.back(flag::SYN | flag::ACK);
        let outcome = scene.lan(&late.numbers(SERVER_ISN, CLIENT_ISN + 1));
        assert_eq!(
            outcome.verdict,
            Verdict::HostSnat,
            "{}",
            dump(&outcome.bytes)
        );
    }
}

/// Half-open flows are let in while they are few; at the limit none becomes
/// live.
#[test]
#[ignore = "needs root"]
fn a_full_cluster_promotes_none() {
    let mut plan = Plan::default();
    plan.cluster.max_connections = 3;
    let mut scene = Scene::of(&plan);
    let half: Vec<_> = (0..5).map(|n| scene.wan(&opening(n)).verdict).collect();
    // 3 count, more than 2 are no credible ones: a flood keeps nobody out.
    assert_eq!(half[..3], [Verdict::Redirect; 3]);
    assert_eq!(scene.load().refused_limit, 0);
    assert_eq!(half[3..], [Verdict::Redirect; 2]);
    for n in 10..13 {
        scene.open(client(n));
    }
    assert_eq!(scene.held(), (5, 3));
    assert_eq!(scene.wan(&opening(20)).verdict, Verdict::Limit);
    let connection = scene.connection(client(0));
    let answer = connection.back(flag::SYN | flag::ACK);
    scene.forwards(true, &answer.numbers(SERVER_ISN, CLIENT_ISN + 1));
    let last = scene.wan(&connection.there(flag::ACK));
    assert_eq!(last.verdict, Verdict::Limit);
    assert_eq!(scene.held(), (5, 3));
    assert_eq!(scene.load().refused_limit, 2);
}

fn opening(n: u8) -> ocs_lb_tests::packet::Frame {
    use ocs_lb_tests::{packet::Frame, plan::SERVICE};
    Frame::tcp(client(n), SERVICE, flag::SYN).numbers(CLIENT_ISN, 0)
}

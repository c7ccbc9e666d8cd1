//! A flow table without room: what rests goes first, oldest first; only where
//! all that is left lives is a new flow refused.

use std::time::Duration;

use ocs_lb_common::abi::RESTING;
use ocs_lb_common::track::Phase;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::packet::{End, Frame, flag};
use ocs_lb_tests::plan::{CLIENT, Plan, SERVICE};
use ocs_lb_tests::prog::{CURSOR_RECLAIMED, CURSOR_RESTING};

use crate::scene::{CLIENT_ISN, Connection, Scene, client};

/// Room for eight flows.
const ENTRIES: u32 = 16;

fn tiny() -> Scene {
    Scene::of(&Plan {
        flows: ENTRIES,
        ..Plan::default()
    })
}

/// The client gives up; its flow rests.
fn end(scene: &mut Scene, connection: &Connection) {
    scene.forwards(false, &connection.there(flag::RST));
    assert_eq!(scene.phase(connection.client), Some(Phase::Reset));
}

fn cursor(scene: &Scene, at: u32) -> u32 {
    scene
        .world
        .loaded
        .maps
        .cursors
        .get(&at, 0)
        .expect("a cursor")
}

fn ports_in_use(scene: &Scene) -> u32 {
    let backends = ocs_lb_tests::plan::BACKENDS;
    let used = |address: &[u8; 4]| scene.ports_towards((*address, SERVICE.1)).used;
    backends.iter().map(used).sum()
}

#[test]
#[ignore = "needs root"]
fn the_oldest_that_rests_makes_room() {
    let mut scene = tiny();
    let live = scene.open(CLIENT);
    for n in 10..17 {
        let connection = scene.open(client(n));
        end(&mut scene, &connection);
    }
    assert_eq!(scene.entries(), ENTRIES as usize);
    assert_eq!(scene.load().resting, 7);
    // Every new one takes the place of the one that rests longest.
    for n in 17..60 {
        let connection = scene.open(client(n));
        assert_eq!(scene.phase(client(n - 7)), None, "the oldest, {}", n - 7);
        assert_eq!(scene.phase(client(n - 6)), Some(Phase::Reset), "the next");
        assert_eq!(scene.held(), (0, 2), "{n}");
        end(&mut scene, &connection);
        assert_eq!(scene.load().resting, 7, "{n}");
        assert_eq!(ports_in_use(&scene), 8, "{n}");
    }
    scene.forwards(true, &live.back(flag::ACK).data(*b"still here"));
    assert_eq!(scene.held(), (0, 1));
}

/// What is left of a flow whose client has gone on is one entry: two make room.
#[test]
#[ignore = "needs root"]
fn records_of_rest_make_room() {
    let mut scene = tiny();
    let live = scene.open(CLIENT);
    for round in 0..60 {
        // The same client and port again, at once.
        let connection = scene.syn(client(9));
        assert_eq!(scene.held(), (1, 1), "{round}");
        scene.forwards(
            false,
            &connection.there(flag::RST).numbers(CLIENT_ISN + 1, 0),
        );
    }
    assert!(scene.entries() >= ENTRIES as usize - 1);
    assert!(scene.load().resting >= 12, "{}", scene.load().resting);
    scene.forwards(true, &live.back(flag::ACK).data(*b"still here"));
}

/// A table of flows that live refuses the next one, and gives back what that
/// one had; it serves again as soon as one of them rests.
#[test]
#[ignore = "needs root"]
fn flows_that_live_are_never_taken() {
    let mut scene = tiny();
    let flows: Vec<Connection> = (10..18).map(|n| scene.open(client(n))).collect();
    assert_eq!(scene.held(), (0, 8));
    let syn = |client: End| Frame::tcp(client, SERVICE, flag::SYN).numbers(CLIENT_ISN, 0);
    for n in 20..24 {
        let outcome = scene.wan(&syn(client(n)));
        assert_eq!(outcome.verdict, Verdict::FlowTableFull);
        assert_eq!(scene.held(), (0, 8));
        assert_eq!(ports_in_use(&scene), 8);
    }
    end(&mut scene, &flows[3]);
    scene.open(client(20));
    assert_eq!(scene.phase(flows[3].client), None);
    let outcome = scene.wan(&syn(client(21)));
    assert_eq!(outcome.verdict, Verdict::FlowTableFull);
    for (n, flow) in flows.iter().enumerate().filter(|(n, _)| *n != 3) {
        scene.forwards(true, &flow.back(flag::ACK).data(*b"still here"));
        assert_eq!(scene.phase(flow.client), Some(Phase::Established), "{n}");
    }
}

/// Places of the ring whose flows are gone are passed over: by the sweep, and
/// by a packet that needs room where none runs.
#[test]
#[ignore = "needs root"]
fn places_of_flows_that_are_gone_are_passed_over() {
    let mut scene = tiny();
    for n in 10..15 {
        let connection = scene.open(client(n));
        end(&mut scene, &connection);
    }
    scene.world.sweep().expect("a sweep");
    let cursors = |scene: &Scene| {
        (
            cursor(scene, CURSOR_RECLAIMED),
            cursor(scene, CURSOR_RESTING),
        )
    };
    assert_eq!(cursors(&scene), (0, 5), "they rest");
    for _ in 0..2 {
        scene.age(Duration::from_secs(100));
        scene.world.sweep().expect("a sweep");
    }
    assert_eq!(scene.entries(), 0);
    assert_eq!(cursors(&scene), (5, 5), "none of them does");

    // As after long without a sweep: the ring came round, and the newest rest.
    let maps = &mut scene.world.loaded.maps;
    maps.cursors
        .set(CURSOR_RESTING, RESTING + 300, 0)
        .expect("set");
    for n in 20..28 {
        let connection = scene.open(client(n));
        end(&mut scene, &connection);
    }
    let mut refused = 0;
    let syn = Frame::tcp(client(30), SERVICE, flag::SYN).numbers(CLIENT_ISN, 0);
    while scene.wan(&syn).verdict == Verdict::FlowTableFull {
        refused += 1;
        assert!(refused < 1000);
    }
    // 256 places a packet, of which four make room at most.
    assert!((100..=RESTING / 256 + 1).contains(&refused), "{refused}");
    assert_eq!(
        scene.phase(client(20)),
        None,
        "the oldest of those that rest"
    );
    assert_eq!(scene.phase(client(21)), Some(Phase::Reset));
}

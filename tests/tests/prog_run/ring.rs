//! The ring of half-open flows: a flood pushes out other half-open flows, and
//! nothing else.

use std::time::Duration;

use ocs_lb_common::abi::{EventKind, Pending, Reason};
use ocs_lb_common::track::{Phase, StateWord};
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::packet::flag;
use ocs_lb_tests::plan::{BACKENDS, CLIENT, Plan};

use crate::scene::{CLIENT_ISN, SERVER_ISN, Scene, client, port_of};

fn small() -> Plan {
    let mut plan = Plan::default();
    plan.settings.half_open = 4;
    plan
}

#[test]
#[ignore = "needs root"]
fn the_fifth_pushes_out_the_first() {
    let mut scene = Scene::of(&small());
    let first: Vec<_> = (1..=4).map(|n| scene.syn(client(n))).collect();
    assert_eq!((scene.held(), scene.entries()), ((4, 0), 8));
    scene.syn(client(5));
    assert_eq!(scene.held(), (4, 0));
    assert_eq!(scene.phase(client(1)), Some(Phase::Dead));
    assert_eq!(scene.phase_back(&first[0]), Some(Phase::Dead));
    for n in 2..=5 {
        assert_eq!(scene.phase(client(n)), Some(Phase::HalfOpen), "client {n}");
    }
    let load = scene.load();
    assert_eq!((load.pushed_out, load.resting), (1, 1));
    let pending: Vec<_> = load.slots[..2].iter().map(|slot| slot.pending).collect();
    assert_eq!(pending.iter().sum::<u32>(), 4);
    assert_eq!(scene.ports(&first[0]).resting, 1);
    let [close] = scene.events(EventKind::Close)[..] else {
        panic!("not one event");
    };
    assert_eq!(close.reason, Reason::PushedOut as u8);
    assert_eq!(close.client.source.0, client(1).0);
    assert_eq!(port_of(&close), first[0].snat.1);

    // Its server's answer finds nobody, and its client may come again.
    let late = first[0].back(flag::SYN | flag::ACK);
    assert_eq!(scene.lan(&late).verdict, Verdict::HostSnat);
    let again = scene.syn(client(1));
    assert_ne!(again.snat, first[0].snat);
    assert_eq!(
        scene.phase(client(2)),
        Some(Phase::Dead),
        "the next in turn"
    );
    assert_eq!((scene.held(), scene.load().pushed_out), ((4, 0), 2));
}

/// The place of a client's last flow pushes its next one out neither, where
/// both happen to have the same generation.
#[test]
#[ignore = "needs root"]
fn a_place_is_one_flows_only() {
    let mut scene = Scene::of(&small());
    let first = scene.syn(client(1));
    scene.forwards(false, &first.there(flag::RST));
    scene.age(Duration::from_secs(3));
    scene.world.sweep().expect("a sweep");
    let again = scene.syn(client(1));
    let maps = &mut scene.world.loaded.maps;
    let born = maps.half_open.get(&0, 0).expect("the first place").born;
    let generation = |word: u32| word & 0xffff | born & 0xffff_0000;
    let place = maps.half_open.get(&1, 0).expect("the second place");
    let there = place.key;
    let mut forward = maps.flows.get(&there, 0).expect("its entry");
    let back = forward.peer_key();
    let mut reverse = maps.flows.get(&back, 0).expect("its entry");
    for (key, entry) in [(there, &mut forward), (back, &mut reverse)] {
        entry.state = StateWord(generation(entry.state.0));
        maps.flows.insert(key, *entry, 0).expect("written");
    }
    let place = Pending {
        born: generation(place.born),
        ..place
    };
    maps.half_open.set(1, place, 0).expect("written");
    // The third and fourth place, and the first again.
    for n in 2..=4 {
        scene.syn(client(n));
    }
    assert_eq!(scene.phase(client(1)), Some(Phase::HalfOpen));
    assert_eq!(scene.load().pushed_out, 0);
    scene.handshake(&again);
    assert_eq!(scene.phase(client(1)), Some(Phase::Established));
}

/// Where a cluster keeps no resting flows, nothing of it is left at once.
#[test]
#[ignore = "needs root"]
fn a_flood_leaves_nothing_behind() {
    let mut plan = small();
    plan.cluster.resting = 8;
    let mut scene = Scene::of(&plan);
    for n in 0..200 {
        scene.syn(client(n));
        let load = scene.load();
        assert!(load.resting <= 3, "{} rest after client {n}", load.resting);
        assert!(scene.entries() <= 2 * (4 + 3), "after client {n}");
    }
    assert_eq!(scene.held(), (4, 0));
    assert_eq!(scene.load().pushed_out, 196);
    let used: u32 = BACKENDS
        .iter()
        .map(|backend| scene.ports_towards((*backend, 5061)).used)
        .sum();
    assert_eq!(used, 4 + scene.load().resting);
    assert_eq!(scene.events(EventKind::Close).len(), 196);
}

#[test]
#[ignore = "needs root"]
fn an_established_flow_is_never_pushed_out() {
    let mut scene = Scene::of(&small());
    let kept = scene.open(CLIENT);
    for n in 100..120 {
        scene.syn(client(n));
    }
    assert_eq!(scene.held(), (4, 1));
    assert_eq!(scene.phase(CLIENT), Some(Phase::Established));
    assert_eq!(scene.load().pushed_out, 16);
    scene.forwards(true, &kept.back(flag::ACK).data(*b"still here"));
}

/// A place that another flow of the same client took over is that one's.
#[test]
#[ignore = "needs root"]
fn a_replaced_flow_is_not_pushed_out_twice() {
    let mut scene = Scene::of(&small());
    let old = scene.syn(CLIENT);
    scene.sends(false, &old.opening().numbers(CLIENT_ISN + 99_999, 0));
    scene.syn(client(101));
    scene.syn(client(102));
    // The fifth SYN comes to the place of the flow that is over.
    scene.syn(client(103));
    assert_eq!((scene.held(), scene.load().pushed_out), ((4, 0), 0));
    assert_eq!(scene.phase(CLIENT), Some(Phase::HalfOpen));
    scene.syn(client(104));
    assert_eq!((scene.held(), scene.load().pushed_out), ((4, 0), 1));
    assert_eq!(scene.phase(CLIENT), Some(Phase::Dead));
}

/// A flow that moves keeps its place.
#[test]
#[ignore = "needs root"]
fn a_moved_flow_is_pushed_out_in_its_turn() {
    let mut scene = Scene::of(&small());
    let first = scene.syn(CLIENT);
    let second = first.moved(&scene.refuse(&first));
    for n in 101..=103 {
        scene.syn(client(n));
    }
    assert_eq!((scene.held(), scene.load().pushed_out), ((4, 0), 0));
    scene.syn(client(104));
    assert_eq!((scene.held(), scene.load().pushed_out), ((4, 0), 1));
    assert_eq!(scene.phase_back(&second), Some(Phase::Dead));
    let answer = second.back(flag::SYN | flag::ACK);
    let late = scene.lan(&answer.numbers(SERVER_ISN, CLIENT_ISN + 1));
    assert_eq!(late.verdict, Verdict::HostSnat);
}

/// A flow that lost its place is forwarded, but has no second try.
#[test]
#[ignore = "needs root"]
fn a_flow_without_a_place() {
    let mut plan = Plan::default();
    plan.settings.half_open = 0;
    let mut scene = Scene::of(&plan);
    let connection = scene.syn(CLIENT);
    scene.age(Duration::from_secs(1));
    let again = scene.sends(false, &connection.opening());
    assert_eq!(again.to, connection.backend);
    scene.refuse(&connection);
    assert_eq!(scene.held(), (0, 0));
    assert_eq!(scene.load().refusals[0], 1);
}

//! A client keeps its backend: from its first established connection on.

use std::time::Duration;

use ocs_lb_common::abi::{EventKind, Slot, StickyKey, StickyValue};
use ocs_lb_common::address::V4;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::packet::{Frame, flag};
use ocs_lb_tests::plan::{BACKENDS, CLIENT, Plan, SERVICE};

use crate::scene::{CLIENT_ISN, Scene, client};

const KEY: StickyKey<V4> = StickyKey {
    address: V4(CLIENT.0),
    cluster: 0,
    pad: 0,
};

fn backend(scene: &Scene) -> Option<u16> {
    scene.world.sticky(CLIENT.0).map(|entry| entry.backend)
}

/// Overwrites the client's entry.
fn bind(scene: &mut Scene, backend: u16, last_used_ns: u64) {
    let value = StickyValue {
        last_used_ns,
        backend,
        pad: 0,
        pad2: 0,
    };
    let table = &mut scene.world.loaded.maps.sticky[0];
    table.insert(KEY, value, 0).expect("a write");
}

fn now_ns() -> u64 {
    let now = nix_now();
    now.as_nanos() as u64
}

fn nix_now() -> Duration {
    let uptime = std::fs::read_to_string("/proc/uptime").expect("a file");
    let seconds = uptime.split(' ').next().and_then(|s| s.parse().ok());
    Duration::from_secs_f64(seconds.expect("a number"))
}

#[test]
#[ignore = "needs root"]
fn two_first_connections_meet_one_backend() {
    let mut scene = Scene::new();
    let first = scene.syn(CLIENT);
    // The algorithm would give the second to the other backend.
    let second = scene.syn((CLIENT.0, 41_000));
    assert_eq!(second.backend, first.backend);
    assert_eq!(backend(&scene), None, "no connection is established yet");
    let pending = &scene.world.loaded.maps.pending_sticky;
    let slot = usize::from(pending.get(&KEY, 0).expect("a proposal").backend);
    assert_eq!(BACKENDS[slot], first.backend.0);
    scene.handshake(&second);
    assert_eq!(backend(&scene), Some(slot as u16));
    let [event] = scene.events(EventKind::Sticky)[..] else {
        panic!("not one event");
    };
    assert_eq!(event.client.source.0, CLIENT.0);
    assert_eq!((event.backend, event.before), (slot as u16, u16::MAX));
    scene.handshake(&first);
    assert_eq!(scene.events(EventKind::Sticky), [], "nothing new");
}

#[test]
#[ignore = "needs root"]
fn spoofed_syns_leave_no_entry() {
    let mut scene = Scene::new();
    for n in 0..100 {
        let flow = scene.syn(client(n));
        let answer = flow.back(flag::SYN | flag::ACK);
        scene.forwards(true, &answer.numbers(5, CLIENT_ISN + 1));
        // A blind ACK does not make it one either.
        scene.forwards(
            false,
            &flow.there(flag::ACK).numbers(CLIENT_ISN + 1, 90_000),
        );
    }
    assert_eq!(scene.world.loaded.maps.sticky[0].keys().count(), 0);
    assert_eq!(scene.events(EventKind::Sticky), []);
}

/// Traffic keeps an entry alive, with one write a second at most.
#[test]
#[ignore = "needs root"]
fn traffic_refreshes_once_a_second() {
    let mut scene = Scene::new();
    let flow = scene.open(CLIENT);
    for from_lan in [false, true] {
        let frame = if from_lan {
            flow.back(flag::ACK)
        } else {
            flow.there(flag::ACK)
        };
        let entry = |scene: &Scene| {
            let entry = if from_lan {
                scene.world.flow(flow.backend, flow.snat)
            } else {
                scene.flow(CLIENT)
            };
            entry.expect("an entry").last_seen
        };
        let (mut refreshed, mut kept) = (0, 0);
        for n in 0..6 {
            if n % 3 == 2 {
                scene.age(Duration::from_secs(2));
            }
            bind(&mut scene, 0, 1);
            let before = entry(&scene);
            scene.forwards(from_lan, &frame);
            // The seconds of the datapath's clock.
            let other = (entry(&scene).0 ^ before.0) >> 10 != 0;
            let used = scene.world.sticky(CLIENT.0).expect("an entry").last_used_ns;
            assert_eq!(used != 1, other, "from_lan {from_lan}, packet {n}");
            if other {
                refreshed += 1;
            } else {
                kept += 1;
            }
        }
        assert!(refreshed >= 2 && kept >= 1, "{refreshed} and {kept}");
    }
}

/// The end of a connection is a use.
#[test]
#[ignore = "needs root"]
fn the_end_refreshes() {
    let mut scene = Scene::new();
    let flow = scene.open(CLIENT);
    bind(&mut scene, 0, 1);
    scene.forwards(false, &flow.there(flag::RST));
    let used = scene.world.sticky(CLIENT.0).expect("an entry").last_used_ns;
    assert!(used > 1);
}

/// What an operator cleared is not written again by traffic, but by the next
/// connection.
#[test]
#[ignore = "needs root"]
fn a_cleared_entry_stays_cleared() {
    let mut scene = Scene::new();
    let flow = scene.open(CLIENT);
    let maps = &mut scene.world.loaded.maps;
    maps.sticky[0].remove(&KEY).expect("an entry");
    maps.pending_sticky.remove(&KEY).expect("an entry");
    for _ in 0..3 {
        scene.age(Duration::from_secs(2));
        scene.forwards(false, &flow.there(flag::ACK));
        scene.forwards(true, &flow.back(flag::ACK));
        assert_eq!(backend(&scene), None);
    }
    let other = scene.open((CLIENT.0, 41_000));
    let slot = usize::from(backend(&scene).expect("an entry"));
    assert_eq!(BACKENDS[slot], other.backend.0);
    // The old flow is of another backend: it does not speak for this one.
    bind(&mut scene, 1, 1);
    scene.age(Duration::ZERO);
    scene.forwards(false, &scene.connection(CLIENT).there(flag::RST));
    assert_eq!(
        scene.world.sticky(CLIENT.0).map(|e| e.last_used_ns),
        Some(1)
    );
}

#[test]
#[ignore = "needs root"]
fn a_strict_slot_refuses_its_clients() {
    let mut plan = Plan::default();
    plan.cluster.slots[0] = Slot {
        weight: 0,
        flags: Slot::STRICT,
    };
    plan.reweigh();
    let mut scene = Scene::of(&plan);
    bind(&mut scene, 0, now_ns());
    let frame = Frame::tcp(CLIENT, SERVICE, flag::SYN).numbers(CLIENT_ISN, 0);
    assert_eq!(scene.wan(&frame).verdict, Verdict::Answered);
    assert_eq!((scene.load().refused_no_backend, scene.entries()), (1, 0));
    assert_eq!(backend(&scene), Some(0), "it waits for its backend");
    assert_eq!(scene.syn(client(9)).backend.0, BACKENDS[1], "others do not");
}

/// An entry for a backend that drains, and one for a backend that is gone.
#[test]
#[ignore = "needs root"]
fn whom_an_entry_leads_where() {
    // (name, flags of the first slot, weight, backend met)
    let cases = [
        ("drain", Slot::STICKY, 0, 0),
        ("maint", 0, 0, 1),
        ("up", Slot::STICKY, 1, 0),
    ];
    for (name, flags, weight, met) in cases {
        let mut plan = Plan::default();
        plan.cluster.slots[0] = Slot { weight, flags };
        plan.reweigh();
        let mut scene = Scene::of(&plan);
        bind(&mut scene, 0, now_ns());
        let flow = scene.open(CLIENT);
        assert_eq!(flow.backend.0, BACKENDS[met], "{name}");
        assert_eq!(backend(&scene), Some(met as u16), "{name}");
        let changes = scene.events(EventKind::Sticky);
        assert_eq!(changes.len(), usize::from(met == 1), "{name}");
        if let [change] = changes[..] {
            assert_eq!((change.before, change.backend), (0, 1), "{name}");
        }
        let load = scene.load();
        let hit = u64::from(met == 0);
        assert_eq!(
            (load.sticky_hits, load.sticky_misses),
            (hit, 1 - hit),
            "{name}"
        );
    }
}

#[test]
#[ignore = "needs root"]
fn an_old_entry_binds_nobody() {
    let mut plan = Plan::default();
    plan.cluster.sticky_expire = 2_000;
    let mut scene = Scene::of(&plan);
    scene.open(CLIENT);
    scene.age(Duration::from_secs(3));
    scene.syn((CLIENT.0, 41_000));
    let load = scene.load();
    assert_eq!((load.sticky_hits, load.sticky_misses), (0, 2));
}

/// The backend refused a client's first connection: the next one goes where
/// that one went.
#[test]
#[ignore = "needs root"]
fn a_moved_client_is_bound_to_where_it_went() {
    let mut scene = Scene::new();
    let first = scene.syn(CLIENT);
    let second = first.moved(&scene.refuse(&first));
    assert_eq!(scene.syn((CLIENT.0, 41_000)).backend, second.backend);
    scene.handshake(&second);
    assert_eq!(backend(&scene), Some(1));
}

//! What the controller is told, and what a walk counts.

use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions};
use ocs_lb::datapath::load::xdp;
use ocs_lb_common::abi::{Correction, Event, EventKind, Load, Reason, RefuseAction, Slot};
use ocs_lb_common::address::V4;
use ocs_lb_common::ticks;
use ocs_lb_tests::packet::{Frame, flag};
use ocs_lb_tests::plan::{CLIENT, Plan, SERVICE};
use ocs_lb_tests::prog::key;

use crate::scene::{CLIENT_ISN, Connection, SERVER_ISN, Scene, client, port_of};

const SECOND: Duration = Duration::from_secs(1);

/// A span of the datapath's clock, which is exact to some jiffies.
fn about(age: u32, wanted: Duration) -> bool {
    let wanted = ticks::duration(wanted);
    (wanted..wanted + 500).contains(&age)
}

fn only(events: &[Event<V4>]) -> Event<V4> {
    assert_eq!(events.len(), 1, "{events:?}");
    events[0]
}

#[test]
#[ignore = "needs root"]
fn a_flow_from_birth_to_death() {
    let mut scene = Scene::new();
    let flow = scene.syn(CLIENT);
    assert_eq!(scene.told(), [], "a SYN is none");
    scene.age(SECOND);
    scene.handshake(&flow);
    let open = only(&scene.events(EventKind::Open));
    assert_eq!((open.reason, open.cluster), (0, 0));
    assert_eq!((open.backend, open.before), (0, 0));
    assert_eq!(open.client, key(CLIENT, SERVICE));
    assert_eq!((open.snat.0, port_of(&open)), flow.snat);
    assert!(about(open.age, SECOND), "{} ticks", open.age);
    scene.age(SECOND * 2);
    scene.forwards(false, &flow.there(flag::ACK).data(*b"hello"));
    scene.forwards(false, &flow.there(flag::RST).numbers(CLIENT_ISN + 6, 0));
    let close = only(&scene.events(EventKind::Close));
    assert_eq!(close.reason, Reason::ClientReset as u8);
    assert_eq!(close.client, open.client);
    assert_eq!((close.snat, close.snat_port), (open.snat, open.snat_port));
    assert!(about(close.age, SECOND * 3), "{} ticks", close.age);
}

/// The age of a flow that moved is that of its client's first SYN.
#[test]
#[ignore = "needs root"]
fn a_moved_flow_keeps_its_birth() {
    let mut scene = Scene::new();
    let first = scene.syn(CLIENT);
    scene.age(SECOND);
    let second = first.moved(&scene.refuse(&first));
    scene.age(SECOND);
    scene.handshake(&second);
    let open = only(&scene.events(EventKind::Open));
    assert!(about(open.age, SECOND * 2), "{} ticks", open.age);
    assert_eq!(port_of(&open), second.snat.1);
}

#[test]
#[ignore = "needs root"]
fn every_end_has_its_reason() {
    type End = fn(&mut Scene, &Connection);
    // (name, whether it is established, how it ends, reason)
    let cases: [(&str, bool, End, Reason); 9] = [
        (
            "client closed",
            true,
            |scene, c| {
                scene.forwards(false, &c.there(flag::FIN | flag::ACK));
                let last = c.back(flag::FIN | flag::ACK);
                scene.forwards(true, &last.numbers(SERVER_ISN + 1, CLIENT_ISN + 2));
            },
            Reason::ClientClosed,
        ),
        (
            "server closed",
            true,
            |scene, c| {
                scene.forwards(true, &c.back(flag::FIN | flag::ACK));
                scene.forwards(false, &c.there(flag::FIN | flag::ACK));
            },
            Reason::ServerClosed,
        ),
        (
            "at the same time",
            true,
            |scene, c| {
                scene.forwards(false, &c.there(flag::FIN | flag::ACK));
                scene.forwards(true, &c.back(flag::FIN | flag::ACK));
            },
            Reason::ServerClosed,
        ),
        (
            "client's RST",
            true,
            |scene, c| {
                scene.forwards(false, &c.there(flag::RST));
            },
            Reason::ClientReset,
        ),
        (
            "server's RST",
            true,
            |scene, c| {
                scene.forwards(true, &c.back(flag::RST));
            },
            Reason::ServerReset,
        ),
        (
            "idle",
            true,
            |scene, _| {
                scene.age(Duration::from_secs(1801));
                scene.world.sweep().expect("a sweep");
            },
            Reason::Idle,
        ),
        (
            "connect timeout",
            false,
            |scene, _| {
                scene.age(Duration::from_secs(5));
                scene.world.sweep().expect("a sweep");
            },
            Reason::ConnectTimeout,
        ),
        (
            "client gave up",
            false,
            |scene, c| {
                scene.forwards(false, &c.there(flag::RST));
            },
            Reason::ClientReset,
        ),
        (
            "replaced",
            false,
            |scene, c| {
                scene.forwards(false, &c.opening().numbers(7, 0));
            },
            Reason::Replaced,
        ),
    ];
    for (name, established, end, reason) in cases {
        let mut scene = Scene::new();
        let flow = scene.syn(CLIENT);
        if established {
            scene.handshake(&flow);
        }
        scene.world.events();
        end(&mut scene, &flow);
        let close = only(&scene.world.events());
        assert_eq!(close.kind, EventKind::Close as u8, "{name}");
        assert_eq!(close.reason, reason as u8, "{name}");
        assert_eq!(close.client, key(CLIENT, SERVICE), "{name}");
        let resets = u64::from(reason == Reason::ServerReset);
        assert_eq!(scene.load().resets[0], resets, "{name}");
        // The sweeps that follow have nothing to add.
        for _ in 0..3 {
            scene.age(Duration::from_secs(70));
            scene.world.sweep().expect("a sweep");
        }
        let ends = scene.events(EventKind::Close);
        let expected = usize::from(reason == Reason::Replaced);
        assert_eq!(ends.len(), expected, "{name}: the new flow's at most");
        assert_eq!((scene.held(), scene.load().resting), ((0, 0), 0), "{name}");
    }
}

#[test]
#[ignore = "needs root"]
fn refusals_are_told() {
    type Change = fn(&mut Plan);
    let cases: [(&str, Change, Reason); 3] = [
        (
            "limit",
            |plan| plan.cluster.max_connections = 0,
            Reason::Limit,
        ),
        (
            "no backend",
            |plan| plan.cluster.slots = [Slot::default(); 256],
            Reason::NoBackend,
        ),
        (
            // Served ports of the same address are no SNAT ports.
            "no SNAT port",
            |plan| {
                plan.snat = SERVICE.0;
                plan.range = (SERVICE.1, SERVICE.1);
            },
            Reason::Snat,
        ),
    ];
    for (name, change, reason) in cases {
        let mut plan = Plan::default();
        change(&mut plan);
        plan.reweigh();
        let mut scene = Scene::of(&plan);
        scene.wan(&Frame::tcp(CLIENT, SERVICE, flag::SYN).numbers(CLIENT_ISN, 0));
        let refused = only(&scene.world.events());
        assert_eq!(refused.kind, EventKind::Refused as u8, "{name}");
        assert_eq!(refused.reason, reason as u8, "{name}");
        assert_eq!(refused.client, key(CLIENT, SERVICE), "{name}");
    }
}

/// Kinds that nobody wants are not sent.
#[test]
#[ignore = "needs root"]
fn unwanted_kinds_are_silent() {
    for kind in [EventKind::Open, EventKind::Close, EventKind::Sticky] {
        let mut plan = Plan::default();
        plan.settings.events = kind.bit();
        let mut scene = Scene::of(&plan);
        let flow = scene.open(CLIENT);
        scene.forwards(false, &flow.there(flag::RST));
        assert_eq!(only(&scene.world.events()).kind, kind as u8);
    }
}

#[test]
#[ignore = "needs root"]
fn lost_events_are_counted() {
    const MANY: u32 = 20_000;
    let mut plan = Plan::default();
    plan.cluster.slots = [Slot::default(); 256];
    plan.cluster.refuse_no_backend = RefuseAction::Drop as u8;
    let mut scene = Scene::of(&plan);
    let frame = Frame::tcp(CLIENT, SERVICE, flag::SYN).numbers(CLIENT_ISN, 0);
    let (bytes, net) = (frame.bytes(), scene.world.net);
    let context: Vec<u8> = [0, bytes.len() as u32, 0, net.wan, 0, 0]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let run = |scene: &mut Scene, repeat| {
        let program = xdp(&mut scene.world.loaded.ebpf).expect("the program");
        let result = program.test_run(TestRunOptions {
            data_in: Some(&bytes),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        });
        assert_eq!(result.expect("a run").return_value, 1, "dropped");
    };
    run(&mut scene, MANY);
    let told = scene.world.events().len() as u64;
    let lost = scene.world.events_lost().expect("a count");
    assert!(lost > 0, "{told} found room");
    assert_eq!(told + lost, u64::from(MANY));
    assert_eq!(scene.load().refused_no_backend, u64::from(MANY));
    // The reader has made room.
    run(&mut scene, 1);
    assert_eq!(scene.world.events().len(), 1);
    assert_eq!(scene.world.events_lost().expect("a count"), lost);
}

/// A walk counts what the packets counted.
#[test]
#[ignore = "needs root"]
fn a_walk_counts_the_same() {
    let mut scene = Scene::new();
    let mut flows: Vec<_> = (1..=9).map(|n| scene.open(client(n))).collect();
    flows.extend((10..=15).map(|n| scene.syn(client(n))));
    scene.forwards(false, &flows[0].there(flag::RST));
    scene.forwards(true, &flows[1].back(flag::FIN | flag::ACK));
    scene.refuse(&flows[9]);
    scene.sends(false, &flows[10].opening().numbers(9, 0));
    let recount = scene.world.recount().expect("a walk");
    assert_eq!(recount.slots, scene.load().slots);
    let live: u32 = recount.slots.iter().map(|slot| slot.live).sum();
    let pending: u32 = recount.slots.iter().map(|slot| slot.pending).sum();
    assert_eq!((pending, live), (6, 8));
    assert_eq!(scene.held(), (6, 8));
    let report = scene.world.sweep().expect("a sweep");
    assert_eq!((report.half_open, report.established), (6, 8));
    assert_eq!((report.resting, report.records), (1, 2));
    assert_eq!(report.entries, 2 * (6 + 8 + 1) + 2);
    assert_eq!((report.ended, report.deleted, report.orphans), (0, 0, 0));
    assert_eq!(scene.load().resting, 3);
}

#[test]
#[ignore = "needs root"]
fn a_correction_adds() {
    let mut scene = Scene::new();
    scene.open(client(1));
    scene.open(client(2));
    scene.syn(client(3));
    let before = scene.load();
    scene
        .world
        .correct(Correction {
            cluster: 0,
            backend: 1,
            live: 1u32.wrapping_neg(),
            pending: 3,
        })
        .expect("a run");
    let after = scene.load();
    let slot = |slot: Load, live: i32, pending: i32| Load {
        live: slot.live.wrapping_add_signed(live),
        pending: slot.pending.wrapping_add_signed(pending),
    };
    assert_eq!(after.slots[0], before.slots[0]);
    assert_eq!(after.slots[1], slot(before.slots[1], -1, 3));
    assert_eq!(
        (after.live, after.pending),
        (before.live - 1, before.pending + 3)
    );
    assert_eq!(scene.held(), (4, 1), "the sums hold");
}

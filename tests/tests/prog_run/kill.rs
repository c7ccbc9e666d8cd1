//! Flows that we end: by request or for idleness; both sides are told, and
//! whoever still sends is answered.

use std::time::Duration;

use ocs_lb_common::abi::{ANY, EventKind, KillReason, KillReport, KillRequest, Reason};
use ocs_lb_common::ticks::Ticks;
use ocs_lb_common::track::Phase;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::net::{GATEWAY_MAC, LAN_MAC, WAN_MAC, backend_mac};
use ocs_lb_tests::packet::{dump, flag, hex, verify};
use ocs_lb_tests::plan::{CLIENT, FIRST_HOP, SERVICE};
use ocs_lb_tests::prog::{Action, key};

use crate::scene::{CLIENT_ISN, Connection, SERVER_ISN, Scene, client};

/// Everything, by an operator.
fn all() -> KillRequest {
    KillRequest {
        cluster: ANY,
        backend: ANY,
        reason: KillReason::Operator as u8,
        limit: 1000,
        ..KillRequest::default()
    }
}

fn kill(scene: &mut Scene, request: KillRequest) -> KillReport {
    scene.world.kill(request).expect("a walk")
}

/// A flow that carried data both ways, and was killed.
fn killed(scene: &mut Scene) -> Connection {
    let flow = scene.open(CLIENT);
    scene.forwards(false, &flow.there(flag::ACK).data(*b"question"));
    let answer = flow.back(flag::ACK).data(*b"answer");
    scene.forwards(true, &answer);
    scene.world.events();
    assert_eq!(kill(scene, all()).killed, 1);
    flow
}

#[test]
#[ignore = "needs root"]
fn both_sides_are_told() {
    let mut scene = Scene::new();
    let flow = killed(&mut scene);
    assert_eq!(scene.phase(CLIENT), Some(Phase::Killed));
    assert_eq!(scene.held(), (0, 0));
    assert_eq!(
        (scene.ports(&flow).used, scene.ports(&flow).resting),
        (1, 1)
    );
    let [told] = scene.world.kills()[..] else {
        panic!("not one record");
    };
    assert_eq!(told.client, key(CLIENT, SERVICE));
    assert_eq!(told.backend, key(flow.snat, flow.backend));
    assert_eq!(told.client_seq, CLIENT_ISN + 9);
    assert_eq!(told.backend_seq, SERVER_ISN + 7);
    assert_eq!(told.backend_hop, FIRST_HOP);
    let hops = &scene.world.loaded.maps.next_hops;
    let back = hops.get(&u32::from(told.client_hop), 0).expect("a hop");
    assert_eq!((back.destination, back.source), (GATEWAY_MAC, WAN_MAC));
    assert_eq!((told.cluster, told.slot), (0, 0));
    assert_eq!(told.reason, KillReason::Operator as u8);
    let [close] = scene.events(EventKind::Close)[..] else {
        panic!("not one event");
    };
    assert_eq!(close.reason, Reason::Operator as u8);
    assert_eq!((close.bytes_in, close.bytes_out), (40 + 40 + 48, 40 + 46));
    assert_eq!(kill(&mut scene, all()), KillReport::default(), "once");
    assert_eq!(scene.world.kills(), []);
}

/// Literal bytes of the answers to either side's data.
#[test]
#[ignore = "needs root"]
fn who_sends_on_is_answered() {
    let mut scene = Scene::new();
    let flow = killed(&mut scene);
    let there = flow
        .there(flag::ACK | flag::PSH)
        .numbers(CLIENT_ISN + 9, SERVER_ISN + 7)
        .data(*b"more");
    let back = flow
        .back(flag::ACK)
        .numbers(SERVER_ISN + 7, CLIENT_ISN + 9)
        .data(*b"more");
    let cases = [
        (
            false,
            there,
            "0200000001fe0200000000010800
             450000280000400040063cc7c0000201cb007107
             13c59c40200000070000000050040000e1ca0000",
        ),
        (
            true,
            back,
            "02000000020b0200000000020800
             45000028000040004006e65cc6336401c633640b
             4e2013c5100000090000000050040000e97e0000",
        ),
    ];
    for (from_lan, frame, expected) in cases {
        let outcome = if from_lan {
            scene.lan(&frame)
        } else {
            scene.wan(&frame)
        };
        assert_eq!(
            (outcome.verdict, outcome.action),
            (Verdict::Answered, Action::Tx)
        );
        assert_eq!(dump(&outcome.bytes), dump(&hex(expected)));
        assert_eq!(verify(&outcome.bytes), Ok(()));
    }
    // Whatever it is, its own acknowledgment makes the answer exact.
    for (from_lan, frame) in [
        (false, flow.there(flag::ACK).numbers(5, 77)),
        (false, flow.there(flag::FIN | flag::ACK).numbers(5, 78)),
        (true, flow.back(flag::FIN | flag::ACK).numbers(5, 79)),
        (true, flow.back(flag::SYN | flag::ACK).numbers(5, 80)),
    ] {
        let seen = scene.answered(from_lan, &frame);
        assert_eq!((seen.seq, seen.flags), (frame.ack, flag::RST));
        let to = if from_lan {
            [backend_mac(11), LAN_MAC]
        } else {
            [GATEWAY_MAC, WAN_MAC]
        };
        assert_eq!(seen.macs, to);
    }
    let once = [(EventKind::Close, Some(Reason::Operator))];
    assert_eq!(scene.told(), once);
}

/// A RST is never answered with a RST.
#[test]
#[ignore = "needs root"]
fn a_reset_is_not_answered() {
    let mut scene = Scene::new();
    let flow = killed(&mut scene);
    scene.forwards(false, &flow.there(flag::RST));
    scene.forwards(true, &flow.back(flag::RST));
    assert_eq!(scene.phase(CLIENT), Some(Phase::Killed));
}

#[test]
#[ignore = "needs root"]
fn a_killed_flow_is_gone_after_a_while() {
    let mut scene = Scene::new();
    let flow = killed(&mut scene);
    scene.age(Duration::from_secs(9));
    scene.answered(false, &flow.there(flag::ACK));
    assert_eq!(scene.world.sweep().expect("a sweep").ended, 0);
    scene.age(Duration::from_secs(2));
    assert_eq!(scene.world.sweep().expect("a sweep").ended, 1);
    assert_eq!(scene.phase(CLIENT), Some(Phase::Dead));
    scene.age(Duration::from_millis(200));
    assert_eq!(scene.world.sweep().expect("a sweep").deleted, 1);
    assert_eq!((scene.entries(), scene.held()), (0, (0, 0)));
    assert_eq!((scene.ports(&flow).used, scene.load().resting), (0, 0));
    let once = [(EventKind::Close, Some(Reason::Operator))];
    assert_eq!(scene.told(), once);
    let load = scene.load();
    assert_eq!((load.bytes_in[0], load.bytes_out[0]), (128, 86));
}

#[test]
#[ignore = "needs root"]
fn a_syn_on_a_killed_flow_opens_another() {
    let mut scene = Scene::new();
    let old = killed(&mut scene);
    let new = scene.syn(CLIENT);
    assert_ne!(new.snat, old.snat);
    assert_eq!((scene.held(), scene.entries()), ((1, 0), 3));
    assert_eq!(scene.phase_back(&old), Some(Phase::Dead));
    scene.handshake(&new);
    let late = scene.lan(&old.back(flag::ACK).data(*b"late"));
    assert_eq!(late.verdict, Verdict::HostSnat);
    assert_eq!(scene.held(), (0, 1));
}

/// (client, whether it is established) in the scenes of requests.
fn crowd(scene: &mut Scene) -> Vec<Connection> {
    let mut flows: Vec<_> = (1..=4).map(|n| scene.open(client(n))).collect();
    flows.push(scene.syn(client(5)));
    flows.push(scene.syn(client(6)));
    flows
}

#[test]
#[ignore = "needs root"]
fn which_flows_a_request_means() {
    let down = KillRequest {
        reason: KillReason::BackendDown as u8,
        ..all()
    };
    let of = |client| KillRequest {
        client: KillRequest::v4(ocs_lb_common::address::V4(client)),
        ..all()
    };
    // (name, request, clients whose flow ends)
    let cases: [(&str, KillRequest, &[u8]); 7] = [
        ("all", all(), &[1, 2, 3, 4, 5, 6]),
        (
            "cluster",
            KillRequest {
                cluster: 0,
                ..all()
            },
            &[1, 2, 3, 4, 5, 6],
        ),
        (
            "another cluster",
            KillRequest {
                cluster: 1,
                ..all()
            },
            &[],
        ),
        (
            "first backend",
            KillRequest { backend: 0, ..down },
            &[1, 3, 5],
        ),
        (
            "second backend",
            KillRequest { backend: 1, ..down },
            &[2, 4, 6],
        ),
        ("client", of(client(4).0), &[4]),
        ("another client", of([203, 0, 113, 99]), &[]),
    ];
    for (name, request, meant) in cases {
        let mut scene = Scene::new();
        let flows = crowd(&mut scene);
        scene.world.events();
        let report = kill(&mut scene, request);
        let wanted = KillReport {
            killed: meant.len() as u32,
            ..KillReport::default()
        };
        assert_eq!(report, wanted, "{name}");
        for flow in &flows {
            let n = flow.client.0[3];
            let dead = scene.phase(flow.client) == Some(Phase::Killed);
            assert_eq!(dead, meant.contains(&n), "{name}: client {n}");
        }
        let live = meant.iter().filter(|n| **n <= 4).count() as u32;
        let pending = meant.len() as u32 - live;
        assert_eq!(scene.held(), (2 - pending, 4 - live), "{name}");
        let mut told: Vec<_> = scene
            .world
            .kills()
            .iter()
            .map(|k| k.client.source.0[3])
            .collect();
        told.sort_unstable();
        assert_eq!(told, meant, "{name}");
        let reason = if request.reason == KillReason::BackendDown as u8 {
            Reason::BackendDown
        } else {
            Reason::Operator
        };
        assert_eq!(
            scene.told(),
            vec![(EventKind::Close, Some(reason)); meant.len()],
            "{name}"
        );
    }
}

#[test]
#[ignore = "needs root"]
fn a_walk_stops_at_its_limit() {
    let mut scene = Scene::new();
    crowd(&mut scene);
    let request = KillRequest { limit: 4, ..all() };
    let report = kill(&mut scene, request);
    assert_eq!((report.killed, report.more), (4, 1));
    let report = kill(&mut scene, request);
    assert_eq!((report.killed, report.more), (2, 0));
    assert_eq!(kill(&mut scene, request), KillReport::default());
    assert_eq!((scene.held(), scene.world.kills().len()), ((0, 0), 6));
}

/// A backend that has sent something since the first failed check is alive for
/// that flow.
#[test]
#[ignore = "needs root"]
fn the_guard_keeps_what_lives() {
    let mut scene = Scene::new();
    let flows: Vec<_> = (1..=4).map(|n| scene.open(client(n))).collect();
    let failed = Duration::from_secs(3);
    scene.age(Duration::from_secs(4));
    // The first failed check lies here: `failed` ago in the end.
    scene.age(failed / 2);
    scene.forwards(true, &flows[0].back(flag::ACK).data(*b"x"));
    scene.forwards(false, &flows[1].there(flag::ACK).data(*b"x"));
    scene.age(failed / 2);
    let now = scene.flow(client(1)).expect("a flow");
    let spoke = scene
        .world
        .flow(flows[0].backend, flows[0].snat)
        .expect("a flow");
    assert!(now.last_seen != spoke.last_seen);
    let since = Ticks(spoke.last_seen.0.wrapping_sub(1_000));
    let request = KillRequest {
        guard: 1,
        since,
        ..all()
    };
    let report = kill(&mut scene, request);
    assert_eq!((report.killed, report.kept, report.more), (3, 1, 0));
    assert_eq!(scene.phase(client(1)), Some(Phase::Established));
    assert_eq!(
        scene.phase(client(2)),
        Some(Phase::Killed),
        "the client's word is none"
    );
    let report = kill(
        &mut scene,
        KillRequest {
            guard: 0,
            ..request
        },
    );
    assert_eq!((report.killed, report.kept), (1, 0));
}

//! Which flows a request to kill means.

use std::time::Duration;

use ocs_lb_common::abi::{EventKind, KillReason, KillReport, KillRequest, Reason};
use ocs_lb_common::ticks::Ticks;
use ocs_lb_common::track::Phase;
use ocs_lb_tests::packet::flag;

use crate::kill::{all, kill};
use crate::scene::{Connection, Scene, client};

/// Four established and two half-open flows, in turn at either backend.
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

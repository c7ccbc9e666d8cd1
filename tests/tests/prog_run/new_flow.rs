//! SYNs: whom they meet, which source they get, and who is refused.

use std::collections::HashSet;

use ocs_lb_common::abi::{EventKind, RefuseAction, Slot};
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::net::SILENT_GATEWAY;
use ocs_lb_tests::packet::{End, Frame, flag, verify};
use ocs_lb_tests::plan::{BACKENDS, CLIENT, LOW, Plan, SERVICE, VIP};
use ocs_lb_tests::prog::{Action, Outcome, Program};

use crate::scene::{BACKEND_A, CLIENT_ISN, Scene, client, ends};

fn syn(client: End) -> Frame {
    Frame::tcp(client, SERVICE, flag::SYN).numbers(CLIENT_ISN, 0)
}

fn is_reset(outcome: &Outcome) -> bool {
    verify(&outcome.bytes).is_ok() && outcome.bytes[47] == flag::RST | flag::ACK
}

#[test]
#[ignore = "needs root"]
fn a_retransmission_keeps_its_port() {
    let mut scene = Scene::new();
    let first = scene.forwards(false, &syn(CLIENT));
    let again = scene.forwards(false, &syn(CLIENT));
    assert_eq!(first, again);
    assert_eq!(scene.entries(), 2);
    assert_eq!(scene.held(), (1, 0));
    let entry = scene.world.flow(CLIENT, SERVICE).expect("an entry");
    assert_eq!(entry.packets, 2);
}

#[test]
#[ignore = "needs root"]
fn one_source_port_of_200_clients_becomes_200() {
    let mut scene = Scene::new();
    let mut tuples = HashSet::new();
    let mut met = [0; 2];
    for n in 0..200 {
        let connection = scene.syn(client(n));
        assert!(
            tuples.insert((connection.snat, connection.backend)),
            "client {n}"
        );
        met[usize::from(connection.backend.0 == BACKENDS[1])] += 1;
    }
    assert_eq!(met, [100, 100], "leastconn, serial arrivals");
    assert_eq!(scene.held(), (200, 0));
    assert_eq!(scene.entries(), 400);
}

#[test]
#[ignore = "needs root"]
fn one_client_meets_one_backend_on_all_ports() {
    let mut scene = Scene::new();
    scene.syn(client(1));
    let first = scene.syn(client(2));
    let other = scene.syn_to((client(2).0, 41_000), (VIP, 443));
    assert_eq!(
        other.backend,
        (first.backend.0, 4443),
        "the target port is its own"
    );
    let load = scene.world.load().expect("counts");
    assert_eq!((load.sticky_misses, load.sticky_hits), (2, 1));
}

#[test]
#[ignore = "needs root"]
fn a_backend_without_sticky_loses_its_clients() {
    let mut plan = Plan::default();
    let mut scene = Scene::of(&plan);
    let first = scene.syn(CLIENT);
    assert_eq!(first.backend.0, BACKEND_A);
    plan.cluster.slots[0] = Slot {
        weight: 0,
        flags: 0,
    };
    plan.reweigh();
    scene
        .world
        .loaded
        .maps
        .clusters
        .set(0, plan.cluster, 0)
        .expect("a write");
    let second = scene.syn((CLIENT.0, 41_000));
    assert_eq!(second.backend.0, BACKENDS[1]);
    scene.handshake(&second);
    assert_eq!(
        scene.world.sticky(CLIENT.0).map(|entry| entry.backend),
        Some(1)
    );
    // A flow that is there stays where it is.
    let old = scene.forwards(false, &syn(CLIENT));
    assert_eq!(ends(&old).1.0, BACKEND_A);
}

#[test]
#[ignore = "needs root"]
fn refusals() {
    type Change = fn(&mut Plan);
    type Refused = fn(&Scene) -> u64;
    let limit: Refused = |scene| scene.world.load().expect("counts").refused_limit;
    let backend: Refused = |scene| scene.world.load().expect("counts").refused_no_backend;
    let snat: Refused = |scene| scene.world.load().expect("counts").refused_snat;
    let drop = RefuseAction::Drop as u8;
    // (name, change, connections that succeed before, verdict, counter)
    let cases: [(&str, Change, u8, Verdict, Refused); 6] = [
        (
            "limit",
            |p| p.cluster.max_connections = 3,
            3,
            Verdict::Limit,
            limit,
        ),
        (
            "limit, reset",
            |p| {
                p.cluster.max_connections = 3;
                p.cluster.refuse_limit = RefuseAction::Reset as u8;
            },
            3,
            Verdict::Answered,
            limit,
        ),
        (
            "no backend",
            |p| p.cluster.slots = [Slot::default(); 256],
            0,
            Verdict::Answered,
            backend,
        ),
        (
            "no backend, drop",
            |p| {
                p.cluster.slots = [Slot::default(); 256];
                p.cluster.refuse_no_backend = RefuseAction::Drop as u8;
            },
            0,
            Verdict::NoBackend,
            backend,
        ),
        // Two backends, three ports each.
        (
            "no SNAT port",
            |p| p.range = (LOW, LOW + 2),
            6,
            Verdict::Answered,
            snat,
        ),
        (
            "no SNAT port, drop",
            |p| {
                p.range = (65_535, 65_535);
                p.cluster.refuse_snat = RefuseAction::Drop as u8;
            },
            2,
            Verdict::SnatExhausted,
            snat,
        ),
    ];
    assert_eq!(drop, 0, "silence is what a zeroed map means");
    for (name, change, before, wanted, refused) in cases {
        let mut plan = Plan::default();
        change(&mut plan);
        plan.reweigh();
        let mut scene = Scene::of(&plan);
        for n in 0..before {
            scene.open(client(n));
        }
        let outcome = scene.wan(&syn(client(200)));
        assert_eq!(outcome.verdict, wanted, "{name}");
        let answered = wanted == Verdict::Answered;
        assert_eq!(
            outcome.action,
            if answered { Action::Tx } else { Action::Drop },
            "{name}"
        );
        assert_eq!(is_reset(&outcome), answered, "{name}");
        assert_eq!(refused(&scene), 1, "{name}");
        assert_eq!(scene.held(), (0, u32::from(before)), "{name}");
        assert_eq!(scene.entries(), 2 * usize::from(before), "{name}");
    }
}

/// Where backends see the VIP, an answer to a served port would look like a
/// client's packet.
#[test]
#[ignore = "needs root"]
fn served_ports_are_no_snat_ports() {
    let plan = Plan {
        snat: VIP,
        range: (5060, 5063),
        ports: vec![(5061, 5061), (5062, 5062)],
        ..Plan::default()
    };
    let mut scene = Scene::of(&plan);
    let mut ports: Vec<_> = (0..4).map(|n| scene.syn(client(n)).snat).collect();
    ports.sort_unstable();
    assert_eq!(ports, [(VIP, 5060), (VIP, 5060), (VIP, 5063), (VIP, 5063)]);
    assert!(
        is_reset(&scene.wan(&syn(client(9)))),
        "two of four are served"
    );
}

#[test]
#[ignore = "needs root"]
fn answers_to_a_vip_that_is_the_snat_address() {
    let plan = Plan {
        snat: VIP,
        ..Plan::default()
    };
    let mut scene = Scene::of(&plan);
    let connection = scene.open(CLIENT);
    let bytes = scene.forwards(true, &connection.back(flag::ACK).data(*b"x"));
    assert_eq!(ends(&bytes), (SERVICE, CLIENT));
}

/// A backend is a client of its own pool.
#[test]
#[ignore = "needs root"]
fn hairpin() {
    let mut scene = Scene::new();
    let own = (BACKEND_A, 40_000);
    let outcome = scene.lan(&syn(own));
    assert_eq!((outcome.verdict, outcome.action), (Verdict::Tx, Action::Tx));
    assert_eq!(verify(&outcome.bytes), Ok(()));
    let (snat, backend) = ends(&outcome.bytes);
    assert_eq!(backend, (BACKEND_A, 5061));
    let answer = Frame::tcp(backend, snat, flag::SYN | flag::ACK).numbers(5, CLIENT_ISN + 1);
    let outcome = scene.lan(&answer);
    assert_eq!((outcome.verdict, outcome.action), (Verdict::Tx, Action::Tx));
    assert_eq!(ends(&outcome.bytes), (SERVICE, own));
    assert_eq!(outcome.bytes[..6], [0x02, 0, 0, 0, 0x02, 11]);
}

#[test]
#[ignore = "needs root"]
fn an_unknown_neighbour_is_asked_for() {
    let backend_unknown = Plan {
        hops_valid: false,
        ..Plan::default()
    };
    // (name, plan, client, whom the controller is to find)
    let cases = [
        (
            "a router",
            Plan::default(),
            ([10, 99, 0, 1], 40_000),
            SILENT_GATEWAY,
        ),
        ("a backend", backend_unknown, CLIENT, BACKEND_A),
    ];
    for (name, plan, client, wanted) in cases {
        let mut scene = Scene::of(&plan);
        let outcome = scene.wan(&syn(client));
        assert_eq!(
            (outcome.verdict, outcome.action),
            (Verdict::NoNeighbor, Action::Drop),
            "{name}"
        );
        let event = scene.world.event().expect("an event");
        assert_eq!(event.kind, EventKind::NeighborNeeded as u8, "{name}");
        assert_eq!(event.client.source.0, wanted, "{name}");
        assert_eq!(scene.world.event(), None, "{name}");
        assert_eq!((scene.entries(), scene.held()), (0, (0, 0)), "{name}");
    }
}

/// A client on our own link is its own next hop; its frame tells its MAC.
#[test]
#[ignore = "needs root"]
fn a_client_on_the_link_is_learned() {
    let mut scene = Scene::new();
    let mut frame = syn(([192, 0, 2, 77], 40_000));
    frame.mac_source = [0x02, 0, 0, 0, 0x03, 77];
    let bytes = scene.forwards(false, &frame);
    let (snat, backend) = ends(&bytes);
    let answer = Frame::tcp(backend, snat, flag::SYN | flag::ACK).numbers(5, CLIENT_ISN + 1);
    let back = scene.forwards(true, &answer);
    assert_eq!(
        back[..12],
        [frame.mac_source, frame.mac_destination].concat()
    );
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_takes_no_redirects() {
    let plan = Plan {
        redirects: false,
        ..Plan::default()
    };
    let mut scene = Scene::of(&plan);
    let outcome = scene.wan(&syn(CLIENT));
    let wanted = match scene.world.program {
        Program::Xdp => (Verdict::NoEgress, Action::Drop),
        // A socket buffer may leave by any interface.
        Program::Tc => (Verdict::Redirect, Action::Redirect),
    };
    assert_eq!((outcome.verdict, outcome.action), wanted);
}

#[test]
#[ignore = "needs root"]
fn a_full_flow_table_leaves_nothing_behind() {
    let plan = Plan {
        flows: 64,
        ..Plan::default()
    };
    let mut scene = Scene::of(&plan);
    let mut refused = 0;
    for n in 0..100 {
        let outcome = scene.wan(&syn(client(n)));
        if outcome.verdict == Verdict::FlowTableFull {
            refused += 1;
        } else {
            assert_eq!(outcome.verdict, Verdict::Redirect, "client {n}");
        }
    }
    assert!(refused >= 68, "{refused} of 100 with room for 32 flows");
    let opened = 100 - refused;
    assert_eq!(scene.held(), (opened, 0));
    assert_eq!(scene.entries(), 2 * opened as usize);
    let used: u32 = BACKENDS
        .iter()
        .filter_map(|backend| {
            scene
                .world
                .port_map(ocs_lb_tests::plan::SNAT, (*backend, 5061))
                .ok()
        })
        .map(|map| map.used)
        .sum();
    assert_eq!(used, opened, "a refused connection keeps no port");
}

//! Where SNAT ports run out: the oldest that rests, the next backend, or a
//! refusal; and what a flow that moves finds.

use std::time::Duration;

use ocs_lb_common::abi::{Balance, RefuseAction};
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::net::backend_mac;
use ocs_lb_tests::packet::{End, flag, hex};
use ocs_lb_tests::plan::{BACKENDS, CLIENT, LOW, Plan, SNAT};

use crate::reuse::{END, closed_by_server, connection, narrow, syn};
use crate::scene::{BACKEND_A, CLIENT_ISN, Scene, client};

const A: End = (BACKEND_A, 5061);
const B: End = (BACKENDS[1], 5061);

/// Nothing is sure: the one that rests longest.
#[test]
#[ignore = "needs root"]
fn the_oldest_where_nothing_is_left() {
    let mut scene = Scene::of(&narrow(3));
    let flows: Vec<_> = (1..=3).map(|n| scene.open(client(n))).collect();
    // The second ends first, then the third; the first lives on.
    for n in [1, 2] {
        scene.forwards(false, &flows[n].there(flag::RST));
        scene.age(Duration::from_millis(300));
    }
    let seen = scene.syn(client(50));
    assert_eq!(seen.snat, flows[1].snat);
    let seen = scene.syn(client(51));
    assert_eq!(seen.snat, flows[2].snat);
    // A live port is never taken.
    let outcome = scene.wan(&syn(client(52), 1, None));
    assert_eq!(outcome.verdict, Verdict::Answered);
    let load = scene.load();
    assert_eq!((load.refused_snat, load.reused_early), (1, 2));
    assert_eq!(scene.ports_towards(A).failures, 1);
    assert_eq!(scene.held(), (2, 1));
    scene.forwards(true, &flows[0].back(flag::ACK).data(*b"still here"));
    assert_eq!(scene.phase(client(2)), None);
}

/// What is half-open or killed holds its port as well.
#[test]
#[ignore = "needs root"]
fn only_what_is_over_gives_its_port() {
    let mut plan = narrow(1);
    plan.cluster.idle_timeout = 1000;
    let mut scene = Scene::of(&plan);
    let old = scene.open(client(1));
    scene.age(Duration::from_secs(2));
    assert_eq!(scene.world.sweep().expect("a sweep").killed, 1);
    let refused = |scene: &mut Scene| scene.wan(&syn(CLIENT, 1, None)).verdict;
    assert_eq!(refused(&mut scene), Verdict::Answered, "killed");
    scene.age(Duration::from_secs(11));
    scene.world.sweep().expect("a sweep");
    scene.age(Duration::from_secs(1));
    scene.world.sweep().expect("a sweep");
    let new = scene.syn(client(2));
    assert_eq!(new.snat, old.snat);
    assert_eq!(refused(&mut scene), Verdict::Answered, "half-open");
    scene.handshake(&new);
    assert_eq!(refused(&mut scene), Verdict::Answered, "established");
}

/// A backend without a free port is passed over; where none has one, the
/// connection is refused as configured.
#[test]
#[ignore = "needs root"]
fn exhausted_backends() {
    let mut plan = first_comes_first();
    plan.cluster.refuse_snat = RefuseAction::Drop as u8;
    let mut scene = Scene::of(&plan);
    assert_eq!(scene.open(client(1)).backend, A);
    let second = scene.open(client(2));
    assert_eq!((second.backend, second.snat), (B, (SNAT, LOW)));
    assert_eq!(
        scene.world.sticky(client(2).0).map(|entry| entry.backend),
        Some(1)
    );
    assert_eq!(scene.ports_towards(A).failures, 1);
    let outcome = scene.wan(&syn(client(3), 1, None));
    assert_eq!(outcome.verdict, Verdict::SnatExhausted);
    assert_eq!(scene.ports_towards(A).failures, 2);
    assert_eq!(scene.ports_towards(B).failures, 1);
    assert_eq!((scene.load().refused_snat, scene.held()), (1, (0, 2)));
    let pending = scene.world.loaded.maps.pending_sticky.keys().flatten();
    assert!(
        pending.into_iter().all(|key| key.address.0 != client(3).0),
        "a refused client is not bound to a backend that cannot take it"
    );
    // With a free port again, the first comes first again.
    scene.forwards(false, &scene.connection(client(1)).there(flag::RST));
    assert_eq!(scene.syn(client(3)).backend, A);
}

/// A RST to a SYN may be about the flow that had the port before: another
/// port of the same backend is tried first.
#[test]
#[ignore = "needs root"]
fn a_refused_early_port_blames_nobody() {
    let mut scene = Scene::of(&narrow(2));
    let kept = scene.open(client(100));
    let old = closed_by_server(&mut scene, client(101), true);
    scene.age(Duration::from_secs(1));
    let early = scene.forwards(false, &syn(CLIENT, CLIENT_ISN, Some(2000)));
    let early = connection(CLIENT, &early);
    assert_eq!(early.snat, old.snat);
    scene.forwards(false, &kept.there(flag::RST));
    scene.age(Duration::from_millis(2_100));
    let seen = scene.refuse(&early);
    assert_eq!((seen.from, seen.to), (kept.snat, A));
    assert_eq!(seen.seq, CLIENT_ISN);
    assert_eq!(scene.load().refusals[0], 0);
    assert_eq!(scene.held(), (1, 0));
}

/// One port towards each backend, and all clients to the first where it can.
fn first_comes_first() -> Plan {
    let mut plan = Plan {
        range: (LOW, LOW),
        ..Plan::default()
    };
    plan.cluster.balance = Balance::RoundRobin as u8;
    plan.cluster.slots[0].weight = 1000;
    plan.reweigh();
    plan
}

/// A flow that moves finds a port that its server lets in only without the
/// timestamp; wherever that stood in the client's frame.
#[test]
#[ignore = "needs root"]
fn a_moved_syn_without_its_timestamp() {
    for ip_options in [vec![], vec![1; 8]] {
        let mut scene = Scene::of(&first_comes_first());
        // The second backend's only port rests after a flow that it closed.
        let busy = scene.open(client(100));
        let old = closed_by_server(&mut scene, client(101), true);
        assert_eq!((busy.backend, old.backend), (A, B));
        scene.forwards(false, &busy.there(flag::RST));
        scene.age(Duration::from_secs(3));
        scene.world.sweep().expect("a sweep");
        scene.age(Duration::from_secs(1));
        scene.world.sweep().expect("a sweep");

        let frame = syn(CLIENT, END + 1, Some(999)).ip_options(ip_options);
        let first = connection(CLIENT, &scene.forwards(false, &frame));
        assert_eq!((first.backend, scene.load().reused_early), (A, 0));
        let reset = first.back(flag::RST | flag::ACK);
        let seen = scene.sends(true, &reset.numbers(0, END + 2));
        assert_eq!((seen.from, seen.to), (old.snat, B));
        assert_eq!(seen.macs[0], backend_mac(12));
        assert_eq!((seen.seq, seen.flags), (END + 1, flag::SYN));
        assert_eq!(
            seen.options,
            hex("020405b4 0402 01010101010101010101 01030307")
        );
        assert_eq!(scene.load().reused_early, 1);
        assert_eq!((scene.held(), scene.load().refusals[0]), ((1, 0), 1));
    }
}

/// A flow that finds no room to move is over; nothing is left of it but the
/// record of its first port.
#[test]
#[ignore = "needs root"]
fn a_move_into_a_full_table() {
    let plan = Plan {
        flows: 64,
        ..Plan::default()
    };
    let mut scene = Scene::of(&plan);
    let mut flows = Vec::new();
    for n in 0..200 {
        let outcome = scene.wan(&syn(client(n), CLIENT_ISN, None));
        if outcome.verdict == Verdict::Redirect {
            flows.push(connection(client(n), &outcome.bytes));
        }
    }
    let count = flows.len() as u32;
    assert_eq!(
        (scene.held(), scene.entries()),
        ((count, 0), 2 * flows.len())
    );
    let mut failed = 0;
    for flow in &flows {
        match scene.lan(&flow.refusal()).verdict {
            Verdict::FlowTableFull => failed += 1,
            verdict => assert_eq!(verdict, Verdict::Tx),
        }
    }
    assert!(failed > 0, "all of {count} found room");
    assert_eq!(scene.held(), (count - failed, 0));
    scene.age(Duration::from_secs(3));
    scene.world.sweep().expect("a sweep");
    assert_eq!(scene.entries() as u32, 2 * (count - failed));
    let used = [A, B].map(|backend| scene.ports_towards(backend).used);
    assert_eq!(used.iter().sum::<u32>(), count - failed);
    assert_eq!(scene.load().resting, 0);
}

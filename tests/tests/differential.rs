//! The same random frames to the host's model and to the loaded program:
//! verdict, action and bytes must be equal, and so must all that is left.

mod traffic;

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use ocs_lb::datapath::load::Clock;
use ocs_lb_common::abi::{ClusterState, Flow, FlowKey, NextHop};
use ocs_lb_common::address::V4;
use ocs_lb_common::track::StateWord;
use ocs_lb_common::verdict::{Kind, Verdict};
use ocs_lb_tests::host::Datapath;
use ocs_lb_tests::kmsg::KernelLog;
use ocs_lb_tests::net::{GATEWAY, GATEWAY_MAC, LAN_MAC, Net, WAN_MAC, backend_mac};
use ocs_lb_tests::packet::{dump, verify};
use ocs_lb_tests::plan::{BACKENDS, Plan};
use ocs_lb_tests::prog::World;
use traffic::Traffic;

/// Frames of one run; `OCS_LB_FRAMES` asks for another number.
const FRAMES: usize = 200_000;
/// Time between two frames, in nanoseconds: what happens to flows by time
/// happens too.
const STEP: u64 = 7_000_000;
/// Frames from one sweep to the next.
const SWEEP_EVERY: u64 = 200;
/// Frames from one state of the cluster to the next: each fifth is `pass`.
const STATE_EVERY: u64 = 2_000;
/// Frames from one look at the counters to the next.
const LOOK_EVERY: u64 = 100;
/// MTUs of the ways out: some packets are too long for either.
const MTUS: (u16, u16) = (570, 580);
/// `OCS_LB_SEED` asks for another one.
const SEED: u64 = 5061;

/// The routing table of [`ocs_lb_tests::net`], as far as the traffic needs it.
fn route(net: Net, to: V4) -> Result<NextHop, Verdict> {
    let (ifindex, destination, source) = match to.0 {
        [203, 0, 113, _] | [100, 64..=127, _, _] => (net.wan, GATEWAY_MAC, WAN_MAC),
        [10, 99, _, _] => return Err(Verdict::NoNeighbor),
        own if BACKENDS.contains(&own) => (net.lan, backend_mac(own[3]), LAN_MAC),
        GATEWAY => (net.wan, GATEWAY_MAC, WAN_MAC),
        // Our own and the broadcast address; the network's own is a host's
        // since Linux 5.14.
        [198, 51, 100, host] | [192, 0, 2, host] if !matches!(host, 2 | 255) => {
            return Err(Verdict::NoNeighbor);
        }
        _ => return Err(Verdict::NoRoute),
    };
    Ok(NextHop {
        destination,
        valid: 1,
        source,
        mtu: if ifindex == net.wan { MTUS.0 } else { MTUS.1 },
        ifindex,
        generation: 0,
        tags: Default::default(),
    })
}

/// Without what two runs cannot share: the generation is random, and learned
/// next hops are numbered in order of appearance.
fn comparable(flows: HashMap<FlowKey<V4>, Flow<V4>>) -> HashMap<FlowKey<V4>, Flow<V4>> {
    let mask = |flow: Flow<V4>| Flow {
        state: StateWord(flow.state.0 & 0xffff),
        next_hop: 0,
        ..flow
    };
    flows
        .into_iter()
        .map(|(key, flow)| (key, mask(flow)))
        .collect()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
#[ignore = "needs root"]
fn host_and_kernel_agree() {
    let seed = number("OCS_LB_SEED", SEED);
    let frames = number("OCS_LB_FRAMES", FRAMES as u64);
    println!("OCS_LB_SEED={seed} OCS_LB_FRAMES={frames}");
    // Small enough that limits and exhausted ports are met.
    let mut plan = Plan {
        range: (20_000, 20_149),
        ..Plan::default()
    };
    plan.mtus = MTUS;
    plan.cluster.max_connections = 30;
    plan.settings.half_open = 40;
    plan.cluster.resting = 100;
    plan.cluster.slots[0].weight = 3;
    plan.reweigh();
    let mut world = World::at(&plan, Clock::Test).expect("a world");
    let net = world.net;
    let mut host = Datapath::new(&plan, net, route);
    let mut now: u64 = 1 << 40;
    let mut traffic = Traffic::new(seed);
    let mut met: HashMap<Verdict, u64> = HashMap::new();
    let mut tally: [BTreeMap<Verdict, u64>; 2] = Default::default();
    let mut kernel = KernelLog::listen().expect("the kernel's log");
    let start = Instant::now();
    for at in 0..frames {
        if at % STATE_EVERY == 0 {
            let state = match at / STATE_EVERY % 5 {
                4 => ClusterState::Pass,
                _ => ClusterState::Ready,
            };
            host.cluster.state = state as u8;
            let clusters = &mut world.loaded.maps.clusters;
            clusters.set(0, host.cluster, 0).expect("a write");
        }
        let (from_lan, frame) = traffic.next(&host.flows);
        let ifindex = if from_lan { net.lan } else { net.wan };
        now += STEP;
        world.set_time(now).expect("the time is set");
        let expected = host.run(ifindex, &frame, now);
        let (action, bytes) = world.run_uncounted(ifindex, &frame).expect("a run");
        let verdict = expected.verdict;
        assert!(
            (action, &bytes) == (expected.action, &expected.bytes),
            "frame {at} of seed {seed}, {verdict:?}:\n{}kernel {action:?}\n{}host {:?}\n{}",
            dump(&frame),
            dump(&bytes),
            expected.action,
            dump(&expected.bytes)
        );
        match verdict.kind() {
            Kind::Pass => assert_eq!(bytes, frame, "frame {at}: passed, but changed"),
            Kind::Forward if verify(&frame).is_ok() => {
                assert_eq!(verify(&bytes), Ok(()), "frame {at} of seed {seed}");
            }
            _ => {}
        }
        *met.entry(verdict).or_default() += 1;
        *tally[world.slot(ifindex) as usize]
            .entry(verdict)
            .or_default() += 1;
        if at % LOOK_EVERY == 0 || at == frames - 1 {
            for (slot, tally) in tally.iter_mut().enumerate() {
                let counted = world.counted(slot as u32).expect("counters");
                let expected: Vec<_> = std::mem::take(tally).into_iter().collect();
                assert_eq!(counted, expected, "counted up to frame {at} of seed {seed}");
            }
            kernel.check().expect("no warning");
        }
        if at % SWEEP_EVERY == 0 {
            host.sweep(now);
            world.sweep().expect("a sweep");
        }
    }
    let mut rows: Vec<_> = met.iter().collect();
    rows.sort_by_key(|(verdict, _)| **verdict as u8);
    println!("{:.1} s; {rows:?}", start.elapsed().as_secs_f64());
    assert_eq!(
        comparable(world.flows().expect("flows")),
        comparable(host.flows)
    );
    assert_eq!(world.load().expect("counts"), host.load);
    world.held().expect("consistent counts");
    if (seed, frames) == (SEED, FRAMES as u64) {
        for verdict in EXPECTED {
            assert!(met.contains_key(&verdict), "{verdict:?} was never met");
        }
    }
}

/// What the traffic is mixed to meet.
const EXPECTED: [Verdict; 25] = [
    Verdict::Tx,
    Verdict::Redirect,
    Verdict::Answered,
    Verdict::AnsweredEcho,
    Verdict::AnsweredExpired,
    Verdict::AnsweredTooBig,
    Verdict::TooBig,
    Verdict::NotIp,
    Verdict::FamilyNotWired,
    Verdict::NotOurs,
    Verdict::NotTcp,
    Verdict::Unserved,
    Verdict::HostSnat,
    Verdict::Vlan,
    Verdict::ClusterPass,
    Verdict::Malformed,
    Verdict::Fragment,
    Verdict::TtlExceeded,
    Verdict::UnknownFlow,
    Verdict::NoNeighbor,
    Verdict::NoRoute,
    Verdict::Limit,
    Verdict::Martian,
    Verdict::OwnSource,
    Verdict::BadLength,
];

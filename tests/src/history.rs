//! Random histories of a small pool: clients and servers that speak TCP after
//! a fashion, a network that loses, repeats and reorders, backends that die,
//! and time. What the datapath sees of one is a list of [`Step`]s, which can be
//! played again, on the host or in the kernel.

mod check;
mod peers;

use std::time::Duration;

use ocs_lb_common::abi::{Flow, FlowKey, NextHop};
use ocs_lb_common::address::V4;
use ocs_lb_common::ticks::duration;
use ocs_lb_common::verdict::Verdict;

use crate::host::Datapath;
use crate::net::{GATEWAY_MAC, LAN_MAC, Net, WAN_MAC, backend_mac};
use crate::plan::{BACKENDS, LOW, Plan};
use crate::prog::Outcome;
use crate::random::Random;
pub use check::Checker;
use peers::Peers;

/// SNAT ports towards each backend: few, so that they run out.
const PORTS: u16 = 4;

/// Start of every history, in nanoseconds.
const START: u64 = 1 << 40;

/// What happens to the datapath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A frame comes in, from the backends' side or the clients'.
    Frame {
        /// When, in nanoseconds.
        at: u64,
        /// From the backends' side.
        from_lan: bool,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// A sweep runs.
    Sweep {
        /// When, in nanoseconds.
        at: u64,
    },
}

/// The pool of all histories.
pub fn plan() -> Plan {
    let mut plan = Plan {
        range: (LOW, LOW + PORTS - 1),
        ports: vec![(5061, 5061)],
        flows: 256,
        ..Plan::default()
    };
    plan.settings.half_open = 5;
    plan.settings.port_maps = 4;
    plan.cluster.max_connections = 6;
    plan.cluster.resting = 6;
    plan.cluster.idle_timeout = duration(Duration::from_secs(30));
    plan.cluster.half_closed_timeout = duration(Duration::from_secs(15));
    plan.cluster.sticky_expire = duration(Duration::from_secs(20));
    plan
}

/// The routing table of [`crate::net`], as far as histories need it.
///
/// # Errors
/// The verdict that a packet without a way meets.
pub fn route(net: Net, to: V4) -> Result<NextHop, Verdict> {
    let (ifindex, destination, source) = match to.0 {
        [203, 0, 113, _] => (net.wan, GATEWAY_MAC, WAN_MAC),
        own if BACKENDS.contains(&own) => (net.lan, backend_mac(own[3]), LAN_MAC),
        _ => return Err(Verdict::NoRoute),
    };
    Ok(NextHop {
        destination,
        valid: 1,
        source,
        mtu: 0,
        ifindex,
        generation: 0,
        tags: Default::default(),
    })
}

/// One history as it was lived.
pub struct History {
    /// What happened.
    pub steps: Vec<Step>,
    /// What the datapath made of each frame; none for a sweep.
    pub outcomes: Vec<Option<Outcome>>,
    /// What it held at the end.
    pub host: Datapath,
}

/// Lives a history of about `length` events, and its end: no packet any more,
/// and time until nothing may be left.
///
/// # Errors
/// What must not have happened, and the steps up to there.
pub fn live(seed: u64, length: usize, net: Net) -> Result<History, (String, Vec<Step>)> {
    let plan = plan();
    let mut random = Random::new(seed);
    let mut peers = Peers::new(&mut random);
    let mut checker = Checker::new(&plan, net);
    let mut now = START;
    let mut steps = Vec::new();
    let mut outcomes = Vec::new();
    let mut push = |checker: &mut Checker, peers: &mut Peers, step: Step| {
        let outcome = checker.step(&step);
        steps.push(step);
        match outcome {
            Ok(outcome) => {
                if let Some(outcome) = &outcome {
                    peers.deliver(outcome, now_of(steps.last()));
                }
                outcomes.push(outcome);
                Ok(())
            }
            Err(error) => Err((error, steps.clone())),
        }
    };
    for _ in 0..length {
        match random.below(20) {
            0 => now += time(&mut random),
            1..=2 => now += 1_000_000 * random.below(300) as u64,
            3 => push(&mut checker, &mut peers, Step::Sweep { at: now })?,
            4 => peers.weather(&mut random),
            5..=9 => peers.act(&mut random, now),
            _ => {}
        }
        if let Some((from_lan, bytes)) = peers.next(&mut random) {
            let step = Step::Frame {
                at: now,
                from_lan,
                bytes,
            };
            push(&mut checker, &mut peers, step)?;
        }
    }
    // Idle, closing and resting times are over three times.
    for _ in 0..6 {
        now += 70_000_000_000;
        push(&mut checker, &mut peers, Step::Sweep { at: now })?;
    }
    if let Err(error) = checker.is_empty() {
        return Err((error, steps));
    }
    Ok(History {
        steps,
        outcomes,
        host: checker.into_host(),
    })
}

fn now_of(step: Option<&Step>) -> u64 {
    match step {
        Some(Step::Frame { at, .. } | Step::Sweep { at }) => *at,
        None => START,
    }
}

/// Seconds, or a minute and more.
fn time(random: &mut Random) -> u64 {
    let millis = match random.below(4) {
        0 => 50_000 + random.below(30_000),
        1 => 8_000 + random.below(8_000),
        _ => 400 + random.below(4_000),
    };
    millis as u64 * 1_000_000
}

/// Plays steps on a fresh model.
///
/// # Errors
/// What must not have happened.
pub fn replay(steps: &[Step], net: Net) -> Result<(), String> {
    let mut checker = Checker::new(&plan(), net);
    for step in steps {
        checker.step(step)?;
    }
    Ok(())
}

/// The fewest steps that still fail, found by leaving out one after the other.
pub fn shrink(mut steps: Vec<Step>, net: Net) -> Vec<Step> {
    let mut at = 0;
    while at < steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        if replay(&fewer, net).is_err() {
            steps = fewer;
        } else {
            at += 1;
        }
    }
    steps
}

/// Entries of two datapaths, made comparable: generations are drawn, and next
/// hops are numbered as they appear.
pub fn comparable(flows: &std::collections::HashMap<FlowKey<V4>, Flow<V4>>) -> Vec<String> {
    let mut rows: Vec<String> = flows
        .iter()
        .map(|(key, flow)| {
            let mut flow = *flow;
            flow.state.0 &= 0xffff;
            flow.next_hop = 0;
            format!("{key:?} {flow:?}")
        })
        .collect();
    rows.sort_unstable();
    rows
}

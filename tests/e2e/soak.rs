//! The long versions, with `OCS_LB_SOAK=1` only: `cargo xtask soak`.

use std::time::{Duration, Instant};

use ocs_lb_test_support::topology::vip;

use crate::churn::{Churn, both_ways, churn, http_config, nginx};
use crate::flood::{Wanted, under_flood};
use crate::load::Load;
use crate::outlive::killed;
use crate::peers::has;
use crate::reload::reloads;
use crate::tuple::reconnects;
use crate::unattended::stopped;
use crate::world::{Scratch, World, clients, config};

/// Short connections of the long run.
const CONNECTIONS: usize = 1_000_000;
/// How many a second.
const RATE: f64 = 3000.0;

/// How long each long test may take, where the soak is wanted.
fn minutes() -> Option<u64> {
    if std::env::var("OCS_LB_SOAK").is_ok_and(|soak| soak == "1") {
        let minutes = std::env::var("OCS_LB_SOAK_MINUTES");
        return Some(
            minutes
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or(10),
        );
    }
    println!("SKIPPED: OCS_LB_SOAK is not 1");
    None
}

#[test]
#[ignore = "needs root"]
fn a_million_connections_leave_nothing() {
    let Some(minutes) = minutes() else { return };
    if !has("nginx") {
        return;
    }
    let world = World::new(&http_config("1024-65535"));
    let scratch = Scratch::new();
    let _servers = nginx(&world.topology, &scratch);
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let maps = || world.metric("ocs_lb_map_bytes", "");
    let (mut sum, mut early) = (Churn::default(), None);
    let wanted = (60.0 * RATE) as usize * minutes as usize;
    let wanted = wanted.min(CONNECTIONS);
    while sum.ok < wanted && Instant::now() < end {
        let time = Duration::from_secs(10);
        let part = churn(
            &world.topology.clients,
            &clients(),
            vip(80),
            time,
            Some(RATE),
        );
        sum.ok += part.ok;
        sum.slow += part.slow;
        sum.slowest = sum.slowest.max(part.slowest);
        sum.elapsed += part.elapsed;
        sum.failed.extend(part.failed);
        if sum.ok >= wanted / 10 {
            early.get_or_insert_with(|| (world.memory(), maps()));
        }
    }
    sum.say("in all");
    let (memory, map_bytes) = early.expect("a tenth of them");
    println!(
        "memory of the controller {memory} and {}, of the maps {map_bytes} and {}",
        world.memory(),
        maps()
    );
    assert!(sum.failed.is_empty(), "{:?}", sum.failed);
    assert!(
        world.memory() <= memory * 1.05 + 1e6,
        "the controller grows"
    );
    assert_eq!(maps(), map_bytes, "the maps grow");
    let rest = Instant::now() + Duration::from_secs(75);
    while world.metric("ocs_lb_snat_ports_used", "") > 0.0 && Instant::now() < rest {
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(world.metric("ocs_lb_snat_ports_used", ""), 0.0, "ports");
    assert_eq!(world.flow_entries(), 0, "entries");
    assert_eq!(world.counts(), (0, 0, vec![0, 0]));
}

#[test]
#[ignore = "needs root"]
fn minutes_without_a_controller() {
    if let Some(minutes) = minutes() {
        stopped(Duration::from_secs(60 * minutes));
    }
}

/// The controller stands still for a minute; held connections and new ones do
/// not notice.
#[test]
#[ignore = "needs root"]
fn a_minute_of_a_suspended_controller() {
    use nix::sys::signal::Signal;

    if minutes().is_none() {
        return;
    }
    let world = World::pinned(&config([1, 1], "    check: {port: 5061, interval: 500ms}"));
    let load = Load::start(&world.topology.clients, 443, 1000);
    let process = &world.balancer.process;
    process.signal(Signal::SIGSTOP).expect("it runs");
    std::thread::sleep(Duration::from_secs(60));
    process.signal(Signal::SIGCONT).expect("it is there");
    std::thread::sleep(Duration::from_secs(3));
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
    assert!(met.opened > 60 * 45, "{} opened", met.opened);
    assert_eq!(world.metric("ocs_lb_refused_total", ""), 0.0);
    let log = world.balancer.process.log();
    assert!(!log.contains("is down"), "{log}");
}

#[test]
#[ignore = "needs root"]
fn a_minute_of_churn() {
    if minutes().is_some() {
        both_ways(Duration::from_secs(60), "1024-32767");
    }
}

#[test]
#[ignore = "needs root"]
fn ten_thousand_reconnects_of_each_kind() {
    if minutes().is_some() {
        reconnects(10_000);
    }
}

#[test]
#[ignore = "needs root"]
fn two_hundred_kills() {
    if minutes().is_some() {
        killed(200);
    }
}

#[test]
#[ignore = "needs root"]
fn five_hundred_reloads() {
    if minutes().is_some() {
        reloads(500);
    }
}

#[test]
#[ignore = "needs root"]
fn half_a_minute_of_flood() {
    if minutes().is_some() {
        let wanted = Wanted {
            rate: f64::INFINITY,
            served: 0.99,
            echo: Duration::from_secs(2),
            beside: true,
        };
        under_flood(Duration::from_secs(30), &wanted);
    }
}

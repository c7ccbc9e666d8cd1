//! The configuration changes under load: reloads by command and by signal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::load::Load;
use crate::outlive::pins;
use crate::world::World;

/// Held connections under every change.
const HELD: usize = 1000;

/// The pool with backends as given: name, address, weight.
pub fn pool(ports: &str, backends: &[(&str, &str, u16)], more: &str) -> String {
    let mut text = format!(
        "version: 1
clusters:
  - name: ocs
    vips: [192.0.2.1]
    ports: [{ports}]
    slow_start: 0s
    sticky: off
    on_backend_down: {{action: keep}}
    check: {{port: 5061, interval: 500ms}}
    backends:
"
    );
    for (name, address, weight) in backends {
        let _ = writeln!(
            text,
            "      - {{name: {name}, address: {address}, weight: {weight}}}"
        );
    }
    text + more
}

pub const ONE: (&str, &str, u16) = ("OCS_Node1", "198.51.100.10", 1);
pub const TWO: (&str, &str, u16) = ("OCS_Node2", "198.51.100.11", 1);
pub const THREE: (&str, &str, u16) = ("third", "198.51.100.12", 1);

pub fn reload(world: &World) -> Result<String, String> {
    let output = world.balancer.client(&["reload"]).expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

pub fn apply(world: &World, config: &str) -> String {
    world.balancer.configure(config).expect("a file");
    reload(world).expect("a valid configuration")
}

/// Weights and live flows by name, as `show backends` has them.
fn backends(world: &World) -> BTreeMap<String, (u64, u64)> {
    let shown = world.balancer.show("backends").expect("show backends");
    let rows = shown["clusters"][0]["backends"].as_array().expect("rows");
    let number = |row: &Value, key: &str| row[key].as_u64().expect("a number");
    rows.iter()
        .map(|row| {
            let name = row["name"].as_str().expect("a name").to_owned();
            (name, (number(row, "weight"), number(row, "live")))
        })
        .collect()
}

/// Served ports, read from the pinned map.
fn served(world: &World) -> Vec<u16> {
    use aya::maps::{HashMap, Map, MapData};
    use ocs_lb_common::abi::{Service, ServiceKey};
    use ocs_lb_common::address::V4;

    let path = pins(&world.topology.lb).join("maps/SERVICES4");
    let data = MapData::from_pin(path).expect("it is pinned");
    let map: HashMap<_, ServiceKey<V4>, Service> =
        Map::HashMap(data).try_into().expect("its types");
    let mut ports: Vec<u16> = map.keys().flatten().map(|key| key.port.get()).collect();
    ports.sort_unstable();
    ports
}

/// So many reloads, each of which changes something.
pub fn reloads(times: usize) {
    let plain = pool("443, 5061", &[ONE, TWO], "");
    let other = "  - name: other
    vips: [192.0.2.1]
    ports: [8404]
    backends: [{name: OCS_Node1, address: 198.51.100.10}]
";
    let steps: [(String, &str); 6] = [
        (
            pool("443, 5061", &[ONE, TWO, THREE], ""),
            "backend third added",
        ),
        // In another order, and with another weight.
        (
            pool("443, 5061", &[THREE, (TWO.0, TWO.1, 3), ONE], ""),
            "weight 1 -> 3",
        ),
        (
            pool("443, 5061", &[THREE, TWO], ""),
            "backend OCS_Node1 removed",
        ),
        (pool("443", &[ONE, TWO], ""), "backend third removed"),
        (pool("443", &[ONE, TWO], other), "cluster other added"),
        (plain.clone(), "cluster other removed"),
    ];
    let world = World::pinned(&plain);
    let load = Load::start(&world.topology.clients, 443, HELD);
    let mut slowest = Duration::ZERO;
    for time in 0..times {
        let (config, expected) = &steps[time % steps.len()];
        let start = Instant::now();
        let said = apply(&world, config);
        slowest = slowest.max(start.elapsed());
        assert!(said.contains(expected), "{expected}: {said}");
    }
    apply(&world, &plain);
    let of_backends = backends(&world);
    let weights: Vec<_> = of_backends
        .iter()
        .filter(|(name, _)| name.starts_with("OCS"))
        .map(|(name, (weight, _))| (name.as_str(), *weight))
        .collect();
    assert_eq!(weights, [("OCS_Node1", 1), ("OCS_Node2", 1)]);
    let held: u64 = of_backends.values().map(|(_, live)| live).sum();
    assert!(held >= HELD as u64, "{of_backends:?}");
    assert_eq!(served(&world), [443, 5061]);
    let met = load.stop();
    println!("{times} reloads, slowest {slowest:?}");
    assert!(met.failed.is_empty(), "{:?}", met.failed);
    assert_eq!(world.metric("ocs_lb_refused_total", ""), 0.0);
    let applied = world.metric("ocs_lb_reloads_total", "result=\"applied\"");
    assert_eq!(applied, times as f64 + 1.0);
}

#[test]
#[ignore = "needs root"]
fn two_hundred_reloads_break_nothing() {
    reloads(200);
}

#[test]
#[ignore = "needs root"]
fn an_invalid_file_changes_nothing_and_says_where() {
    let plain = pool("443", &[ONE, TWO], "");
    let world = World::pinned(&plain);
    let load = Load::start(&world.topology.clients, 443, 20);
    for (config, expected) in [
        (pool("443, http", &[ONE, TWO], ""), "ports"),
        (pool("443", &[ONE, (TWO.0, TWO.1, 300)], ""), "weight"),
        (pool("443", &[ONE, (ONE.0, TWO.1, 1)], ""), "OCS_Node1"),
        (
            pool("443", &[ONE, ("far", "203.0.113.99", 1)], ""),
            "backend ocs/far",
        ),
        (
            pool("443", &[ONE, TWO], "    max_connections: 4000000\n"),
            "FLOWS4",
        ),
        ("version: 1\nclusters: {".to_owned(), "config.yaml"),
    ] {
        world.balancer.configure(&config).expect("a file");
        let error = reload(&world).expect_err("not valid");
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(served(&world), [443]);
        let weights: Vec<_> = backends(&world).into_values().map(|(w, _)| w).collect();
        assert_eq!(weights, [1, 1]);
    }
    let failed = world.metric("ocs_lb_reloads_total", "result=\"failed\"");
    assert_eq!(failed, 6.0);
    assert_eq!(
        world.metric("ocs_lb_config_last_reload_successful", ""),
        0.0
    );
    apply(&world, &plain);
    assert_eq!(
        world.metric("ocs_lb_config_last_reload_successful", ""),
        1.0
    );
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
}

/// A hang-up does the same as the command; the log has what it changed.
#[test]
#[ignore = "needs root"]
fn a_hangup_reloads() {
    let mut world = World::pinned(&pool("443", &[ONE, TWO], ""));
    let new = pool("443", &[ONE, (TWO.0, TWO.1, 7)], "");
    world.balancer.configure(&new).expect("a file");
    world
        .balancer
        .process
        .signal(Signal::SIGHUP)
        .expect("it runs");
    let process = &mut world.balancer.process;
    process
        .wait_until(Duration::from_secs(5), |process| {
            process.log().contains("weight 1 -> 7")
        })
        .expect("it is told");
    assert_eq!(backends(&world)["OCS_Node2"].0, 7);
}

/// A removed backend keeps its flows, or resets them where that is wanted;
/// over a restart too.
#[test]
#[ignore = "needs root"]
fn removed_backends_drain_or_are_reset() {
    let both = pool("443", &[ONE, TWO], "");
    let mut world = World::pinned(&both);
    let load = Load::start(&world.topology.clients, 443, 100);
    let before = backends(&world)["OCS_Node2"].1;
    assert!(before >= 40, "{before} flows");
    apply(&world, &pool("443", &[ONE], ""));
    std::thread::sleep(Duration::from_millis(1500));
    let after = backends(&world)["OCS_Node2"].1;
    assert!(after >= 40, "{after} of {before} flows");
    // Another controller knows whose they are.
    world.balancer.process.stop().expect("it ends");
    world
        .balancer
        .relaunch(&crate::world::binary())
        .expect("starts");
    world.balancer.wait_ready().expect("ready");
    assert!(backends(&world)["OCS_Node2"].1 >= 40);
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);

    apply(&world, &both);
    let load = Load::start(&world.topology.clients, 443, 100);
    let one = pool("443", &[ONE], "");
    let resets = one.replace(
        "    sticky: off\n",
        "    sticky: off\n    on_backend_removed: reset\n",
    );
    apply(&world, &resets);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!backends(&world).contains_key("OCS_Node2"));
    let met = load.stop();
    let held = met.failed.iter().filter(|text| text.starts_with("held"));
    let held = held.count();
    assert!((40..=60).contains(&held), "{held} of 100 were on it");
}

/// What is known to be dead stays so over a reload and over a restart: no
/// client is sent there until the checks find out again.
#[test]
#[ignore = "needs root"]
fn a_dead_backend_stays_dead() {
    let plain = pool("443", &[ONE, TWO], "");
    let mut world = World::pinned(&plain);
    let state = |world: &World| {
        let shown = world.balancer.show("backends").expect("show backends");
        let state = &shown["clusters"][0]["backends"][1]["state"];
        state.as_str().expect("a state").to_owned()
    };
    world.stop_server(1);
    let end = Instant::now() + Duration::from_secs(10);
    while state(&world) != "down" {
        assert!(Instant::now() < end, "it is found out");
        std::thread::sleep(Duration::from_millis(100));
    }
    // A check that will not come within this test.
    let slow = plain.replace("interval: 500ms", "interval: 60s");
    apply(&world, &slow);
    assert_eq!(state(&world), "down");
    world.balancer.process.kill();
    world
        .balancer
        .relaunch(&crate::world::binary())
        .expect("starts");
    world.balancer.wait_ready().expect("ready");
    assert_eq!(state(&world), "down");
    let load = Load::start(&world.topology.clients, 443, 50);
    std::thread::sleep(Duration::from_secs(1));
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
    assert_eq!(world.metric("ocs_lb_redispatches_total", ""), 0.0);
}

/// Pools as large as they come.
#[test]
#[ignore = "needs root"]
fn a_thousand_backends_reload_in_a_second() {
    let large = |weight: usize| {
        let mut text = "version: 1\nclusters:\n".to_owned();
        for cluster in 0..100 {
            let _ = write!(
                text,
                "  - name: c{cluster}
    vips: [192.0.2.1]
    ports: [{}]
    check: off
    max_connections: 1000
    sticky: {{size: 1024}}
    backends:
",
                2000 + cluster
            );
            for backend in 0..10 {
                let _ = writeln!(
                    text,
                    "      - {{name: b{backend}, address: 198.51.100.{}, weight: {weight}}}",
                    20 + (cluster * 10 + backend) % 200
                );
            }
        }
        text
    };
    let world = World::pinned(&large(1));
    world.balancer.configure(&large(2)).expect("a file");
    let start = Instant::now();
    let said = reload(&world).expect("valid");
    let took = start.elapsed();
    assert_eq!(said.lines().count(), 1000);
    println!("1,000 backends in 100 clusters: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let wrong = large(2).replace("name: c99", "name: c98");
    world.balancer.configure(&wrong).expect("a file");
    let error = reload(&world).expect_err("a name twice");
    assert!(error.contains("c98"), "{error}");
}

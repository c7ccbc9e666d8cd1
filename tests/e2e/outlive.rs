//! The datapath outlives its controller: killed, stopped, replaced, detached.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData};
use aya::programs::{SchedClassifier, TcAttachType};
use nix::sys::signal::Signal;
use ocs_lb_common::abi::{Flow, FlowKey, REVERSE};
use ocs_lb_common::address::V4;
use ocs_lb_common::ticks::{Ticks, duration};
use ocs_lb_common::track::{Phase, StateWord};
use ocs_lb_common::translate::pair;
use ocs_lb_test_support::link;
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_tests::prog::key;

use crate::load::Load;
use crate::world::{World, binary, config};

/// Held connections under every change.
const HELD: usize = 1000;
const CHECK: &str = "    check: {port: 5061, interval: 500ms}";

/// Where a namespace's datapath is pinned.
pub fn pins(namespace: &Namespace) -> PathBuf {
    use std::os::unix::fs::MetadataExt as _;

    let inode = std::fs::metadata(namespace.path())
        .expect("it is there")
        .ino();
    let version = format!("v{}", ocs_lb_common::abi::ABI_VERSION);
    Path::new("/sys/fs/bpf/ocs-lb")
        .join(version)
        .join(format!("netns-{inode}"))
}

/// Whether a program is attached to an interface, at XDP or traffic control.
async fn serves(name: &str) -> anyhow::Result<bool> {
    let (_, at_tc) = SchedClassifier::query_tcx(name, TcAttachType::Ingress)?;
    Ok(!at_tc.is_empty() || link::has_xdp(name).await?)
}

pub fn attached(namespace: &Namespace) -> [bool; 2] {
    namespace
        .block_on(|| async { Ok([serves("eth0").await?, serves("eth1").await?]) })
        .expect("links")
}

/// After everything: what is counted is what is there.
fn consistent(world: &World) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let (live, pending, each) = world.counts();
        let recount: usize = world.recount().values().sum();
        if (live, pending, recount) == (0, 0, 0) && each.iter().sum::<u64>() == 0 {
            return;
        }
        assert!(
            Instant::now() < end,
            "{live} live, {pending} half-open, {each:?}, and {recount} flows"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Kills the controller so often, at random moments of its life.
pub fn killed(times: u32) {
    let mut world = World::pinned(&config([1, 1], CHECK));
    let load = Load::start(&world.topology.clients, 443, HELD);
    let mut seed = 7u64;
    for _ in 0..times {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Mostly within its start, which takes a few hundred milliseconds.
        let moment = [(seed >> 33) % 300, (seed >> 33) % 1500][(seed >> 63) as usize];
        std::thread::sleep(Duration::from_millis(moment));
        world.balancer.process.kill();
        assert_eq!(attached(&world.topology.lb), [true, true]);
        world.balancer.relaunch(&binary()).expect("starts again");
    }
    world.balancer.wait_ready().expect("the last one");
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
    assert_eq!(world.metric("ocs_lb_refused_total", ""), 0.0);
    consistent(&world);
    let log = world.balancer.process.log();
    assert!(log.contains("taken on"), "{log}");
}

/// 60 s.
#[test]
#[ignore = "needs root"]
fn killed_controllers_break_nothing() {
    killed(50);
}

/// The end of a controller is not the end of the datapath; `detach` is.
#[test]
#[ignore = "needs root"]
fn an_end_leaves_it_forwarding_and_detach_leaves_nothing() {
    let mut world = World::pinned(&config([1, 1], CHECK));
    let directory = pins(&world.topology.lb);
    let load = Load::start(&world.topology.clients, 443, 50);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        world.balancer.process.signal(signal).expect("it runs");
        let status = world.balancer.process.wait(Duration::from_secs(10));
        assert!(status.expect("it ends").success());
        assert!(!world.balancer.socket.exists());
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(attached(&world.topology.lb), [true, true], "{signal}");
        world.balancer.relaunch(&binary()).expect("starts");
        world.balancer.wait_ready().expect("ready");
    }
    // While one runs, neither a second one nor detach has a say.
    let second = world
        .topology
        .lb
        .command(binary())
        .args(["run", "--config"])
        .arg(&world.balancer.config)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(
        said.contains("another ocs-lb controls the datapath"),
        "{said}"
    );
    let refused = world
        .balancer
        .client(&["detach", "--yes"])
        .expect("it runs");
    assert_eq!(refused.status.code(), Some(1));
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);

    world.balancer.process.stop().expect("it ends");
    assert!(directory.is_dir(), "{}", directory.display());
    let unasked = world.balancer.client(&["detach"]).expect("it runs");
    assert_eq!(unasked.status.code(), Some(2), "it ends flows: it asks");
    let done = world
        .balancer
        .client(&["detach", "--yes"])
        .expect("it runs");
    assert!(done.status.success(), "{done:?}");
    assert!(!directory.exists());
    assert_eq!(attached(&world.topology.lb), [false, false]);
    let path = "/proc/sys/net/ipv4/conf/lo/forwarding";
    let forwarding = world.topology.lb.run(|| std::fs::read_to_string(path));
    assert_eq!(
        forwarding.expect("namespace").expect("the sysctl").trim(),
        "0"
    );
    let again = world
        .balancer
        .client(&["detach", "--yes"])
        .expect("it runs");
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(
        again.status.success() && said.contains("nothing was attached"),
        "{said}"
    );
}

/// Another program over the same maps, back and forth: the most detailed log
/// is compiled into the program, so its instructions differ.
#[test]
#[ignore = "needs root"]
fn programs_are_replaced_under_load() {
    let configs = ["info", "trace"].map(|level| {
        let text = config([1, 1], CHECK);
        format!("{text}log: {{level: {level}}}\n")
    });
    let mut world = World::pinned(&configs[0]);
    let load = Load::start(&world.topology.clients, 443, HELD);
    let mut sizes = std::collections::BTreeSet::new();
    for turn in 1..=20 {
        world.balancer.process.stop().expect("it ends");
        world
            .balancer
            .configure(&configs[turn % 2])
            .expect("a file");
        world.balancer.relaunch(&binary()).expect("starts");
        world.balancer.wait_ready().expect("ready");
        let pinned = pins(&world.topology.lb).join("programs/ocs_lb_xdp");
        let info = aya::programs::ProgramInfo::from_pin(pinned).expect("the program");
        sizes.insert(info.size_jitted());
    }
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
    assert_eq!(sizes.len(), 2, "two programs took turns");
    consistent(&world);
}

/// Another controller takes a full table on as fast as an empty one.
#[test]
#[ignore = "needs root"]
fn a_hundred_thousand_flows_are_taken_on_in_a_second() {
    let text = config([1, 1], &format!("{CHECK}\n    max_connections: 150000"));
    let mut world = World::pinned(&text);
    world.balancer.process.stop().expect("it ends");
    let written = write_flows(&world, 100_000);
    // And one that a crash has left by half.
    write_half_a_flow(&world);
    let start = Instant::now();
    world.balancer.relaunch(&binary()).expect("starts");
    world
        .balancer
        .process
        .wait_until(Duration::from_secs(10), |process| {
            process.log().contains("forwarding")
        })
        .expect("ready");
    let took = start.elapsed();
    println!("taken on with {written} flows in {took:?}, the process' start included");
    assert!(took < Duration::from_secs(1), "{took:?}");
    // What is counted is repaired to what is there.
    let end = Instant::now() + Duration::from_secs(15);
    while world.counts().0 != written as u64 {
        assert!(Instant::now() < end, "{:?} of {written}", world.counts());
        std::thread::sleep(Duration::from_millis(200));
    }
    let log = world.balancer.process.log();
    assert!(log.contains("counts repaired"), "{log}");
    assert!(log.contains("half-written flows"), "{log}");
    assert_eq!(world.flow_entries(), 2 * written as usize);
}

/// The pinned flow table.
fn flows(world: &World) -> HashMap<MapData, FlowKey<V4>, Flow<V4>> {
    let path = pins(&world.topology.lb).join("maps/FLOWS4");
    let data = MapData::from_pin(path).expect("it is pinned");
    Map::HashMap(data).try_into().expect("its types")
}

/// The datapath's time.
fn now() -> Ticks {
    let uptime = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    Ticks(duration(uptime.into()))
}

fn write_half_a_flow(world: &World) {
    let client = key(([203, 0, 113, 250], 1023), ([192, 0, 2, 1], 443));
    let backend = key(([198, 51, 100, 1], 1023), ([198, 51, 100, 10], 443));
    let (mut there, _) = pair(&client, &backend);
    there.state = StateWord::born(1).with_phase(Phase::Established);
    there.last_seen = now();
    flows(world).insert(client, there, 0).expect("room");
}

/// Writes established flows into the pinned table, as the datapath would; how
/// many there are.
fn write_flows(world: &World, count: u32) -> u32 {
    let (mut map, now) = (flows(world), now());
    for n in 0..count {
        let [_, a, b, c] = n.to_be_bytes();
        let client = ([203, 0, 113, b], 1024 + u16::from_be_bytes([a, c]));
        let client = key(client, ([192, 0, 2, 1], 443));
        let snat = ([198, 51, 100, 1], 1024 + (n / 2) as u16);
        let server = [[198, 51, 100, 10], [198, 51, 100, 11]][n as usize % 2];
        let backend = key(snat, (server, 443));
        let (mut there, mut reply) = pair(&client, &backend);
        for entry in [&mut there, &mut reply] {
            entry.state = StateWord::born(n as u16)
                .with_phase(Phase::Established)
                .with(StateWord::SYN_ACK);
            entry.last_seen = now;
            entry.backend = n as u16 % 2;
        }
        reply.flags = REVERSE;
        for (key, entry) in [(client, there), (backend.reversed(), reply)] {
            map.insert(key, entry, 0).expect("room");
        }
    }
    count
}

/// A datapath of another layout is not taken on, and not ended either.
#[test]
#[ignore = "needs root"]
fn tables_that_do_not_fit_are_refused() {
    let text = config([1, 1], &format!("{CHECK}\n    max_connections: 1000"));
    let mut world = World::pinned(&text);
    let load = Load::start(&world.topology.clients, 443, 20);
    world.balancer.process.stop().expect("it ends");
    let larger = config([1, 1], &format!("{CHECK}\n    max_connections: 1000000"));
    world.balancer.configure(&larger).expect("a file");
    world.balancer.relaunch(&binary()).expect("starts");
    let status = world.balancer.process.wait(Duration::from_secs(20));
    assert_eq!(status.expect("it ends").code(), Some(1));
    let log = world.balancer.process.log();
    assert!(log.contains("FLOWS4 has room for"), "{log}");
    assert!(log.contains("ocs-lb detach"), "{log}");
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
}

/// A datapath of another layout is neither taken on nor ended, until someone
/// says so.
#[test]
#[ignore = "needs root"]
fn another_layout_is_refused() {
    let mut world = World::pinned(&config([1, 1], CHECK));
    let load = Load::start(&world.topology.clients, 443, 20);
    world.balancer.process.stop().expect("it ends");
    let own = pins(&world.topology.lb);
    let version = own.parent().expect("the version's").with_file_name("v1");
    std::fs::create_dir_all(&version).expect("a directory of bpffs");
    let other = version.join(own.file_name().expect("a name"));
    std::fs::rename(&own, &other).expect("the same file system");

    world.balancer.relaunch(&binary()).expect("starts");
    let status = world.balancer.process.wait(Duration::from_secs(20));
    assert_eq!(status.expect("it ends").code(), Some(1));
    let log = world.balancer.process.log();
    assert!(log.contains("a datapath of layout 1 forwards"), "{log}");
    assert!(log.contains("ocs-lb detach"), "{log}");
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
    assert_eq!(attached(&world.topology.lb), [true, true]);

    let done = world
        .balancer
        .client(&["detach", "--yes"])
        .expect("it runs");
    assert!(done.status.success(), "{done:?}");
    assert!(!other.exists() && !version.exists());
    assert_eq!(attached(&world.topology.lb), [false, false]);
}

/// What a namespace left that is gone, the next start removes.
#[test]
#[ignore = "needs root"]
fn pins_of_lost_namespaces_are_removed() {
    let mut world = World::pinned(&config([1, 1], CHECK));
    let directory = pins(&world.topology.lb);
    world.balancer.process.kill();
    world.balancer.detaches = false;
    assert!(directory.is_dir());
    drop(world);
    let end = Instant::now() + Duration::from_secs(10);
    while directory.exists() {
        assert!(
            Instant::now() < end,
            "{} is still there",
            directory.display()
        );
        // Namespaces are taken down in the background.
        std::thread::sleep(Duration::from_millis(500));
        drop(World::new(&config([1, 1], CHECK)));
    }
}

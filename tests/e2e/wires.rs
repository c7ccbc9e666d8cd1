//! Offloads and MTUs that others change under way, at our ends of the wires and
//! at the far ones.

use std::time::Duration;

use ocs_lb_test_support::link::{self, Offload};

use crate::load::{Load, Met};
use crate::world::{World, config};

const HELD: usize = 100;
const CHECK: &str = "    check: {port: 5061, interval: 500ms}";

/// Waits until the log has the words once more than so often.
fn wait_for_log(world: &mut World, words: &str, before: usize) {
    let process = &mut world.balancer.process;
    process
        .wait_until(Duration::from_secs(10), |process| {
            process.log().matches(words).count() > before
        })
        .expect("it is told");
}

/// No held connection broke, and nobody fails afterwards.
fn goes_on(world: &World, met: &Met) {
    let broken: Vec<_> = met
        .failed
        .iter()
        .filter(|text| text.starts_with("held"))
        .collect();
    assert!(broken.is_empty(), "{broken:?}");
    let after = Load::start(&world.topology.clients, 443, 20);
    std::thread::sleep(Duration::from_secs(2));
    let met = after.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
}

/// At our own ends no offload matters to the program, and each change is told.
#[test]
#[ignore = "needs root"]
fn offloads_are_switched_under_load() {
    let mut world = World::new(&config([1, 1], CHECK));
    let load = Load::start(&world.topology.clients, 443, HELD);
    let lb = world.topology.lb.clone();
    for name in ["eth0", "eth1"] {
        for (offload, word, was) in [
            (Offload::Gro, "gro", true),
            (Offload::TxChecksum, "tx", false),
        ] {
            for on in [!was, was] {
                let set = lb.run(|| link::set_offload(name, offload, on));
                set.expect("namespace").expect("the offload");
                let words = |on| if on { "on" } else { "off" };
                let told = format!("{name}: {word} {} -> {}", words(!on), words(on));
                wait_for_log(&mut world, &told, 0);
                std::thread::sleep(Duration::from_millis(300));
            }
        }
    }
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
    let log = world.balancer.process.log();
    assert!(!log.contains("lost"), "{log}");
}

/// Where the other end of a pair no longer takes frames of XDP, that is told
/// with the remedy, and what was held goes on after it.
#[test]
#[ignore = "needs root"]
fn gro_of_the_other_end_is_switched_off() {
    let mut world = World::new(&config([1, 1], CHECK));
    let load = Load::start(&world.topology.clients, 443, HELD);
    let switch = world.topology.switch.clone();
    let gro = |on| {
        let set = switch.run(|| link::set_offload("lb", Offload::Gro, on));
        set.expect("namespace").expect("the offload");
    };
    gro(false);
    let problem = "eth1: it takes no frames of XDP";
    wait_for_log(&mut world, problem, 0);
    let log = world.balancer.process.log();
    assert!(log.contains("`ethtool -K PEER gro on`"), "{log}");
    std::thread::sleep(Duration::from_secs(2));
    gro(true);
    wait_for_log(&mut world, &format!("no longer: {problem}"), 0);
    std::thread::sleep(Duration::from_secs(2));
    let met = load.stop();
    goes_on(&world, &met);
}

/// A shorter MTU is told with the remedy; packets that fit it go on.
#[test]
#[ignore = "needs root"]
fn the_mtu_changes_under_load() {
    let mut world = World::new(&config([1, 1], CHECK));
    let load = Load::start(&world.topology.clients, 443, HELD);
    let lb = world.topology.lb.clone();
    let set = |name: &'static str, mtu| {
        lb.block_on(|| link::set_mtu(name, mtu)).expect("the MTU");
    };
    for name in ["eth1", "eth0"] {
        set(name, 1400);
        wait_for_log(&mut world, &format!("{name}: MTU 1500 -> 1400"), 0);
        let remedy = format!("`ip link set dev {name} mtu 1500`");
        wait_for_log(&mut world, &remedy, 0);
        std::thread::sleep(Duration::from_secs(1));
        set(name, 1500);
        wait_for_log(&mut world, &format!("{name}: MTU 1400 -> 1500"), 0);
        wait_for_log(
            &mut world,
            &format!("no longer: {name}: its MTU is 1400"),
            0,
        );
    }
    // Longer than a page, at both ends: the program takes frames in parts.
    let switch = world.topology.switch.clone();
    set("eth1", 9000);
    wait_for_log(&mut world, "`ip link set dev eth0 mtu 9000`", 0);
    let far = switch.block_on(|| link::set_mtu("lb", 9000));
    far.expect("the MTU of the other end");
    std::thread::sleep(Duration::from_secs(1));
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
    goes_on(&world, &met);
}

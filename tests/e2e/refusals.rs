//! The kernel refuses a write to a map in the middle of a change: it is busy,
//! or has no memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData, MapInfo};
use nix::errno::Errno;
use ocs_lb_common::abi::{AddressFlags, Cluster, Service, ServiceKey, backend_index};
use ocs_lb_common::address::V4;
use ocs_lb_test_support::supervise::supervise;

use crate::load::Load;
use crate::outlive::{attached, pins};
use crate::reload::{ONE, THREE, TWO, apply, pool, reload};
use crate::world::{World, binary};

/// Held connections under every change.
const HELD: usize = 100;

/// Which write meets an error: the `nth` (from 1) to a map, so many times.
#[derive(Debug, Clone, Copy)]
struct Fault {
    map: &'static str,
    nth: usize,
    times: usize,
    errno: Errno,
}

/// The faults that are to come.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<Option<Fault>>>);

impl Faults {
    fn expect(&self, fault: Fault) {
        *self.0.lock().expect("no panic") = Some(fault);
    }

    /// Whether the fault has been met as often as it was to be.
    fn are_met(&self) -> bool {
        self.0.lock().expect("no panic").is_none()
    }

    /// What a write to the map meets.
    fn answer(&self, map: u32) -> Option<Errno> {
        let mut next = self.0.lock().expect("no panic");
        let fault = next.as_mut()?;
        if MapInfo::from_id(map).ok()?.name_as_str() != Some(fault.map) {
            return None;
        }
        fault.nth = fault.nth.saturating_sub(1);
        if fault.nth > 0 {
            return None;
        }
        let errno = fault.errno;
        fault.times -= 1;
        if fault.times == 0 {
            *next = None;
        }
        Some(errno)
    }
}

/// Starts a controller whose writes meet the faults.
fn relaunch(world: &mut World, faults: &Faults) {
    let faults = faults.clone();
    world
        .balancer
        .relaunch_as(&binary(), |command| {
            supervise(command, move |map| faults.answer(map))
        })
        .expect("starts");
}

/// A datapath that forwards, and a controller whose writes can fail.
fn world(config: &str, faults: &Faults) -> World {
    let mut world = World::pinned(config);
    world.balancer.process.stop().expect("it ends");
    relaunch(&mut world, faults);
    world.balancer.wait_ready().expect("ready");
    world
}

fn table<T>(directory: &Path, name: &str, make: impl Fn(MapData) -> T) -> T {
    make(MapData::from_pin(directory.join("maps").join(name)).expect("it is pinned"))
}

/// What the tables say of services, addresses, policy and backends of so many
/// places of the first cluster, and of who has which id.
fn tables(world: &World, places: u16) -> BTreeMap<String, String> {
    let directory = pins(&world.topology.lb);
    let mut found = BTreeMap::new();
    let services: HashMap<_, ServiceKey<V4>, Service> = table(&directory, "SERVICES4", |data| {
        Map::HashMap(data).try_into().expect("its types")
    });
    for entry in services.iter() {
        let (key, service) = entry.expect("readable");
        found.insert(format!("service {key:?}"), format!("{service:?}"));
    }
    let addresses: HashMap<_, V4, AddressFlags> = table(&directory, "ADDRESSES4", |data| {
        Map::HashMap(data).try_into().expect("its types")
    });
    for entry in addresses.iter() {
        let (address, flags) = entry.expect("readable");
        found.insert(format!("address {address:?}"), format!("{flags:?}"));
    }
    let identity: HashMap<_, u32, [u8; ocs_lb::datapath::identity::SIZE]> =
        table(&directory, "IDENTITY", |data| {
            Map::HashMap(data).try_into().expect("its types")
        });
    for entry in identity.iter() {
        let (key, bytes) = entry.expect("readable");
        found.insert(format!("identity {key:x}"), format!("{bytes:?}"));
    }
    let clusters: Array<_, Cluster> = table(&directory, "CLUSTERS", |data| {
        Map::Array(data).try_into().expect("its types")
    });
    let policy = clusters.get(&0, 0).expect("readable");
    found.insert("policy".into(), format!("{policy:?}"));
    let backends: Array<_, ocs_lb_common::abi::Backend<V4>> =
        table(&directory, "BACKENDS4", |data| {
            Map::Array(data).try_into().expect("its types")
        });
    for slot in 0..places {
        let record = backends.get(&backend_index(0, slot), 0).expect("readable");
        found.insert(format!("backend {slot}"), format!("{record:?}"));
    }
    found
}

/// Without memory in the middle of a reload, the datapath is what it was, and
/// forwards all the time; later the same reload is done.
#[test]
#[ignore = "needs root"]
fn a_reload_without_memory_is_set_back() {
    let faults = Faults::default();
    let before = pool("443, 5061", &[ONE, TWO], "");
    let world = world(&before, &faults);
    // A port of the first cluster, a backend, a weight, another cluster.
    let more = "  - name: other
    vips: [192.0.2.1]
    ports: [8404, 8405]
    backends: [{name: OCS_Node1, address: 198.51.100.10}]
";
    let after = pool("443, 5062", &[ONE, (TWO.0, TWO.1, 3), THREE], more);
    let had = tables(&world, 2);
    let load = Load::start(&world.topology.clients, 443, HELD);
    world.balancer.configure(&after).expect("a file");
    for (map, nth) in [
        ("IDENTITY", 2),
        ("BACKENDS4", 3),
        ("CLUSTERS", 2),
        ("SERVICES4", 1),
        ("SERVICES4", 3),
        ("ADDRESSES4", 1),
    ] {
        faults.expect(Fault {
            map,
            nth,
            times: 1,
            errno: Errno::ENOMEM,
        });
        let output = world.balancer.client(&["reload"]).expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{map}: {error}");
        assert!(faults.are_met(), "{map}");
        for words in [
            &*format!("map {map}"),
            "Cannot allocate memory",
            "raise the memory limit",
            "is set back",
        ] {
            assert!(error.contains(words), "{map}: no {words:?} in {error}");
        }
        assert_eq!(tables(&world, 2), had, "{map}, write {nth}");
        std::thread::sleep(Duration::from_millis(500));
    }
    let failed = world.metric("ocs_lb_reloads_total", "result=\"failed\"");
    assert_eq!(failed, 6.0);
    let said = reload(&world).expect("with memory it is done");
    assert!(said.contains("weight 1 -> 3"), "{said}");
    assert_ne!(tables(&world, 2), had);
    std::thread::sleep(Duration::from_secs(1));
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
    assert_eq!(world.metric("ocs_lb_refused_total", ""), 0.0);
}

/// Where even the way back has no memory, it is told, and gone again later.
#[test]
#[ignore = "needs root"]
fn a_way_back_without_memory_is_tried_again() {
    let faults = Faults::default();
    let before = pool("443, 5061", &[ONE, TWO], "");
    let mut world = world(&before, &faults);
    let had = tables(&world, 2);
    let load = Load::start(&world.topology.clients, 443, HELD);
    let after = pool("443, 5062", &[ONE, (TWO.0, TWO.1, 3)], "");
    world.balancer.configure(&after).expect("a file");
    faults.expect(Fault {
        map: "SERVICES4",
        nth: 2,
        times: 3,
        errno: Errno::ENOMEM,
    });
    let error = reload(&world).expect_err("no memory");
    assert!(error.contains("could not be set back whole"), "{error}");
    assert!(error.contains("tried again every second"), "{error}");
    let process = &mut world.balancer.process;
    process
        .wait_until(Duration::from_secs(10), |process| {
            process.log().contains("the datapath follows")
        })
        .expect("it is done later");
    assert!(faults.are_met());
    assert_eq!(tables(&world, 2), had);
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
}

/// A kernel that is busy for a moment is asked again; for too long, it is told.
#[test]
#[ignore = "needs root"]
fn a_busy_kernel_is_asked_again() {
    let faults = Faults::default();
    let before = pool("443, 5061", &[ONE, TWO], "");
    let world = world(&before, &faults);
    let load = Load::start(&world.topology.clients, 443, HELD);
    let busy = |map, times| {
        faults.expect(Fault {
            map,
            nth: 1,
            times,
            errno: Errno::EBUSY,
        });
    };
    let weights = [3, 5, 7, 9];
    for (map, weight) in ["SERVICES4", "CLUSTERS", "BACKENDS4", "ADDRESSES4"]
        .into_iter()
        .zip(weights)
    {
        busy(map, 3);
        let said = apply(
            &world,
            &pool("443, 5061", &[ONE, (TWO.0, TWO.1, weight)], ""),
        );
        assert!(said.contains(&format!("-> {weight}")), "{said}");
        assert!(faults.are_met(), "{map}");
    }
    let had = tables(&world, 2);
    busy("SERVICES4", 10);
    world.balancer.configure(&before).expect("a file");
    let error = reload(&world).expect_err("busy for too long");
    assert!(
        error.contains("busy") && error.contains("is set back"),
        "{error}"
    );
    assert_eq!(tables(&world, 2), had);
    reload(&world).expect("no longer busy");
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
}

/// A first start without memory says so and leaves nothing; one that meets a
/// datapath leaves that alone.
#[test]
#[ignore = "needs root"]
fn a_start_without_memory_leaves_nothing() {
    let faults = Faults::default();
    let plain = pool("443, 5061", &[ONE, TWO], "");
    let mut world = World::pinned(&plain);
    let fails = |world: &mut World, map| {
        faults.expect(Fault {
            map,
            nth: 1,
            times: 1,
            errno: Errno::ENOMEM,
        });
        relaunch(world, &faults);
        let status = world.balancer.process.wait(Duration::from_secs(20));
        let log = world.balancer.process.log();
        assert_eq!(status.expect("it ends").code(), Some(1), "{log}");
        assert!(faults.are_met(), "{map}");
        for words in [map, "Cannot allocate memory", "raise the memory limit"] {
            assert!(log.contains(words), "no {words:?} in {log}");
        }
    };
    let load = Load::start(&world.topology.clients, 443, HELD);
    world.balancer.process.stop().expect("it ends");
    // Of a datapath that forwards.
    for map in ["SERVICES4", "CLUSTERS"] {
        fails(&mut world, map);
        assert_eq!(attached(&world.topology.lb), [true, true], "{map}");
        std::thread::sleep(Duration::from_millis(500));
    }
    relaunch(&mut world, &faults);
    world.balancer.wait_ready().expect("with memory it starts");
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);

    world.balancer.process.stop().expect("it ends");
    let done = world.balancer.client(&["detach", "--yes"]);
    assert!(done.expect("it runs").status.success());
    let directory = pins(&world.topology.lb);
    for map in ["IDENTITY", "SERVICES4"] {
        fails(&mut world, map);
        assert_eq!(attached(&world.topology.lb), [false, false], "{map}");
        assert!(!directory.exists(), "{map}");
    }
    relaunch(&mut world, &faults);
    world.balancer.wait_ready().expect("with memory it starts");
    assert_eq!(attached(&world.topology.lb), [true, true]);
}

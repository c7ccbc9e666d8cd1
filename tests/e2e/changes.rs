//! The host changes under way: links down, links gone, addresses that move, a
//! controller that stands still.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ocs_lb_test_support::client::connect;
use ocs_lb_test_support::link;
use ocs_lb_test_support::topology::{LB, VIP, client, vip};

use crate::load::Load;
use crate::world::{World, config};

const HELD: usize = 100;
/// The balancer's own address towards the clients.
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 250);
const CHECK: &str = "    check: {port: 5061, interval: 500ms}";

fn wait_for_log(world: &mut World, words: &str) {
    let process = &mut world.balancer.process;
    process
        .wait_until(Duration::from_secs(10), |process| {
            process.log().contains(words)
        })
        .expect("it is told");
}

/// The servers' link of the balancer is off for two seconds.
#[test]
#[ignore = "needs root"]
fn a_link_that_was_off_serves_on() {
    let mut world = World::new(&config([1, 1], CHECK));
    let held = Load::start(&world.topology.clients, 443, HELD);
    let lb = world.topology.lb.clone();
    lb.block_on(|| link::down("eth1")).expect("down");
    std::thread::sleep(Duration::from_secs(2));
    lb.block_on(|| link::up("eth1")).expect("up");
    wait_for_log(&mut world, "the datapath follows");
    std::thread::sleep(Duration::from_secs(2));
    let met = held.stop();
    // What was sent meanwhile came late, and nothing broke.
    let broken: Vec<_> = met
        .failed
        .iter()
        .filter(|text| text.starts_with("held"))
        .collect();
    assert!(broken.is_empty(), "{broken:?}");
    let after = Load::start(&world.topology.clients, 443, 10);
    std::thread::sleep(Duration::from_secs(1));
    let met = after.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
}

/// The servers' link is deleted and made anew, with the address it had.
#[test]
#[ignore = "needs root"]
fn a_link_that_was_deleted_is_attached_again() {
    deleted_and_back("native");
}

#[test]
#[ignore = "needs root"]
fn a_link_that_was_deleted_is_attached_again_by_traffic_control() {
    deleted_and_back("tc");
}

fn deleted_and_back(mode: &str) {
    let mut world = World::new(&format!(
        "{}interfaces: [{{name: eth0, mode: {mode}}}, {{name: eth1, mode: {mode}}}]\n",
        config([1, 1], CHECK)
    ));
    let (lb, switch) = (world.topology.lb.clone(), world.topology.switch.clone());
    let mac = lb.block_on(|| link::mac("eth1")).expect("a MAC");
    let clients = world.topology.clients.clone();
    let (gone, is_gone) = std::sync::mpsc::channel::<()>();
    let (open, is_open) = std::sync::mpsc::channel();
    let session = clients.spawn(move || async move {
        let mut session = connect(client(0), 0, vip(443)).await?;
        session.echo(b"before").await?;
        open.send(())?;
        // Echoes wait for the link, as a call would.
        let _ = is_gone.recv();
        session
            .echo_within(b"during", Duration::from_secs(15))
            .await
    });
    is_open.recv().expect("a session");
    lb.block_on(|| link::delete("eth1")).expect("deleted");
    drop(gone);
    wait_for_log(&mut world, "its program is gone");
    let far = lb.raw_fd();
    switch
        .block_on(|| async move {
            link::veth("lb", "eth1", far).await?;
            link::enslave("lb", "switch").await?;
            link::up("lb").await
        })
        .expect("a new wire");
    for (namespace, name) in [(&switch, "lb"), (&lb, "eth1")] {
        let set = namespace.run(|| link::wire_like(name));
        set.expect("namespace").expect("offloads");
    }
    wait_for_log(&mut world, "attached again");
    lb.block_on(|| async {
        link::set_mac("eth1", mac).await?;
        link::addresses("eth1", [LB]).await?;
        link::up("eth1").await
    })
    .expect("the link is back");
    wait_for_log(&mut world, "the datapath follows");
    session
        .join()
        .expect("no panic")
        .expect("the session from before");
    for (_, found) in crate::modes::modes(&world.balancer) {
        assert_eq!(found, mode);
    }
    let after = Load::start(&world.topology.clients, 443, 10);
    std::thread::sleep(Duration::from_secs(1));
    let met = after.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
}

/// A controller that stands still loses events and nothing else, and says so.
#[test]
#[ignore = "needs root"]
fn a_suspended_controller_loses_events_only() {
    use crate::churn::{churn, http_config, nginx};
    use crate::peers::has;
    use crate::world::{Scratch, clients};

    if !has("nginx") {
        return;
    }
    let mut world = World::new(&http_config("1024-65535"));
    let scratch = Scratch::new();
    let _servers = nginx(&world.topology, &scratch);
    let namespace = world.topology.clients.clone();
    let signal = |world: &World, signal| world.balancer.process.signal(signal).expect("it runs");
    // Two events a connection of 64 bytes and more fill a ring of 1 MiB.
    signal(&world, Signal::SIGSTOP);
    let mut events = 0;
    while events < 30_000 {
        let part = churn(
            &namespace,
            &clients(),
            vip(80),
            Duration::from_secs(2),
            None,
        );
        assert!(part.failed.is_empty(), "{:?}", part.failed);
        events += 2 * part.ok;
    }
    signal(&world, Signal::SIGCONT);
    wait_for_log(&mut world, "events found their ring full");
    assert!(world.metric("ocs_lb_events_lost_total", "") > 0.0);
    let part = churn(
        &namespace,
        &clients(),
        vip(80),
        Duration::from_secs(1),
        None,
    );
    assert!(part.failed.is_empty(), "{:?}", part.failed);
}

/// keepalived takes the VIP away and gives it back; what is served stays
/// served, and unserved ports are the host's only while the address is.
#[test]
#[ignore = "needs root"]
fn a_vip_that_comes_and_goes() {
    let world = World::new(&config([1, 1], CHECK));
    let lb = world.topology.lb.clone();
    // As on a real pair: an address of the host's own carries the network.
    lb.block_on(|| async {
        link::remove_address("eth0", VIP).await?;
        link::addresses("eth0", [OWN, VIP]).await
    })
    .expect("addresses");
    std::thread::sleep(Duration::from_millis(1500));
    let load = Load::start(&world.topology.clients, 443, HELD);
    let flags = |world: &World| {
        use aya::maps::{HashMap, Map, MapData};
        use ocs_lb_common::abi::AddressFlags;
        use ocs_lb_common::address::V4;

        let path = crate::outlive::pins(&world.topology.lb).join("maps/ADDRESSES4");
        let data = MapData::from_pin(path).expect("it is pinned");
        let map: HashMap<_, V4, AddressFlags> = Map::HashMap(data).try_into().expect("its types");
        let flags = map.get(&V4(VIP.octets()), 0).expect("the VIP");
        flags.any(AddressFlags::HOST)
    };
    assert!(flags(&world));
    // Its neighbours keep the MAC they know for a while.
    lb.block_on(|| link::remove_address("eth0", VIP))
        .expect("removed");
    let end = Instant::now() + Duration::from_secs(5);
    while flags(&world) {
        assert!(Instant::now() < end, "the VIP is no longer this host's");
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(1));
    lb.block_on(|| link::addresses("eth0", [VIP]))
        .expect("added");
    let end = Instant::now() + Duration::from_secs(5);
    while !flags(&world) {
        assert!(Instant::now() < end, "the VIP is this host's again");
        std::thread::sleep(Duration::from_millis(100));
    }
    let met = load.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
}

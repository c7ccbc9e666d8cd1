//! Neighbours that change under live flows, and the way back.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ocs_lb_test_support::client::{Session, connect};
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::topology::{SERVERS, client, vip};
use ocs_lb_test_support::{kinds, link};
use tokio::sync::oneshot;

use crate::world::{World, config};

const SEED: &str = "    check: {port: 5061}";
/// Flows under every change.
const FLOWS: u8 = 100;
/// Longest pause of any flow after a change.
const PAUSE: Duration = Duration::from_secs(1);
/// A network behind a gateway.
const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 0);

/// An address in the network behind the gateway.
fn far(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 10 + number)
}

/// Gives the clients' namespace addresses behind one of its own, which is their
/// gateway then.
fn behind_a_gateway(clients: &Namespace) {
    let added = clients.block_on(|| link::addresses("lo", (0..FLOWS).map(far)));
    added.expect("addresses");
}

/// Flows from addresses, each echoed once before `change` and once after it;
/// the longest that one waited after it.
fn change_under(
    clients: &Namespace,
    source: fn(u8) -> Ipv4Addr,
    change: impl FnOnce(),
) -> Duration {
    let (open, is_open) = std::sync::mpsc::channel();
    let (go, changed) = oneshot::channel::<()>();
    let load = clients.spawn(move || async move {
        let mut sessions: Vec<Session> = Vec::new();
        for number in 0..FLOWS {
            let mut session = connect(source(number), 0, vip(443)).await?;
            session.echo(b"before").await?;
            sessions.push(session);
        }
        open.send(())?;
        changed.await?;
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for mut session in sessions {
            tasks.spawn(async move {
                session.echo_within(b"after", PAUSE * 5).await?;
                let waited = start.elapsed();
                // It goes on as before.
                session.echo(b"on and on").await?;
                session.close().await?;
                Ok::<_, anyhow::Error>(waited)
            });
        }
        let mut longest = Duration::ZERO;
        while let Some(waited) = tasks.join_next().await {
            longest = longest.max(waited??);
        }
        Ok(longest)
    });
    if is_open.recv().is_err() {
        panic!("{:?}", load.join().expect("no panic").err());
    }
    change();
    go.send(()).expect("the flows wait");
    load.join().expect("no panic").expect("no flow breaks")
}

/// A neighbour tells its new MAC by gratuitous ARP, as a router that takes over
/// does.
fn announces(namespace: &Namespace) {
    let path = "/proc/sys/net/ipv4/conf/eth0/arp_notify";
    let set = namespace.run(|| std::fs::write(path, "1"));
    set.expect("namespace").expect("the sysctl");
}

#[test]
#[ignore = "needs root"]
fn a_gateways_mac_changes() {
    let world = World::new(&config([1, 1], SEED));
    let (clients, lb) = (&world.topology.clients, &world.topology.lb);
    behind_a_gateway(clients);
    announces(clients);
    lb.block_on(|| link::route(FAR, client(0)))
        .expect("a route by the gateway");
    let longest = change_under(clients, far, || {
        clients
            .block_on(|| link::set_mac("eth0", [2, 0, 0, 0, 0x77, 1]))
            .expect("another MAC");
    });
    println!("longest pause: {longest:?}");
    assert!(longest < PAUSE, "{longest:?}");
}

/// A client on our own link, and a server.
#[test]
#[ignore = "needs root"]
fn a_neighbours_mac_changes() {
    let world = World::new(&config([1, 0], SEED));
    let (clients, server) = (&world.topology.clients, &world.topology.servers[0]);
    announces(clients);
    announces(server);
    for namespace in [clients, server] {
        let longest = change_under(clients, client, || {
            namespace
                .block_on(|| link::set_mac("eth0", [2, 0, 0, 0, 0x77, 2]))
                .expect("another MAC");
        });
        println!("longest pause: {longest:?}");
        assert!(longest < PAUSE, "{longest:?}");
    }
}

/// The kernel has no entry any more, and the MAC is another: nobody tells but
/// who is asked.
#[test]
#[ignore = "needs root"]
fn a_deleted_entry_is_asked_for_again() {
    let world = World::new(&config([1, 0], SEED));
    let (clients, lb) = (&world.topology.clients, &world.topology.lb);
    let server = &world.topology.servers[0];
    for (namespace, interface, address) in
        [(server, "eth1", SERVERS[0].1), (clients, "eth0", client(0))]
    {
        let source = |_| client(0);
        let longest = change_under(clients, source, || {
            namespace
                .block_on(|| link::set_mac("eth0", [2, 0, 0, 0, 0x77, 3]))
                .expect("another MAC");
            lb.block_on(|| kinds::forget_neighbor(interface, address))
                .expect("there is an entry");
        });
        println!("{interface}: longest pause: {longest:?}");
        assert!(longest < PAUSE, "{interface}: {longest:?}");
    }
}

/// Without a route to the clients their connections are refused a way; with
/// `auto_last_hop` they go back where they came from.
#[test]
#[ignore = "needs root"]
fn the_way_back_is_the_routes_or_the_last_hop() {
    for auto_last_hop in [false, true] {
        let text = format!("{}auto_last_hop: {auto_last_hop}\n", config([1, 1], SEED));
        let world = World::new(&text);
        let clients = &world.topology.clients;
        behind_a_gateway(clients);
        let met = clients.block_on(|| async {
            let mut session = connect(far(1), 0, vip(443)).await?;
            session.echo(b"hello").await?;
            session.close().await
        });
        let unrouted = world.metric("ocs_lb_drops_total", "no_route");
        if auto_last_hop {
            met.expect("it is served");
            assert_eq!(unrouted, 0.0);
        } else {
            met.expect_err("there is no way back");
            assert!(unrouted > 0.0, "{unrouted}");
        }
        // Those that have a route are served in any case.
        clients
            .block_on(|| async { connect(client(3), 0, vip(443)).await?.close().await })
            .expect("it is served");
    }
}

/// The host does not become a router: `forwarding` is on for the loopback alone,
/// where no packet comes in.
#[test]
#[ignore = "needs root"]
fn no_real_interface_forwards() {
    let world = World::new(&config([1, 1], SEED));
    let lb = &world.topology.lb;
    let read = lb.run(|| {
        let word = |path: &std::path::Path| {
            std::fs::read_to_string(path).map(|text| text.trim().to_owned())
        };
        let directory = std::fs::read_dir("/proc/sys/net/ipv4/conf")?;
        directory
            .map(|entry| {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok((name, word(&entry.path().join("forwarding"))?))
            })
            .chain([word(std::path::Path::new("/proc/sys/net/ipv4/ip_forward"))
                .map(|word| ("ip_forward".to_owned(), word))])
            .collect::<std::io::Result<std::collections::BTreeMap<_, _>>>()
    });
    let found = read.expect("namespace").expect("sysctls");
    assert!(found.contains_key("eth0") && found.contains_key("eth1"));
    for (name, word) in found {
        let expected = if name == "lo" { "1" } else { "0" };
        assert_eq!(word, expected, "{name}");
    }
}

/// The datapath knows how long a packet each way takes, and follows a change.
#[test]
#[ignore = "needs root"]
fn the_mtu_of_a_way_follows_its_link() {
    let world = World::new(&config([1, 1], SEED));
    let lb = &world.topology.lb;
    let longest = |expected: u16| {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let hops = world.next_hops();
            let inner = hops.iter().filter(|hop| hop.valid != 0 && hop.mtu != 1500);
            let found: Vec<u16> = inner.map(|hop| hop.mtu).collect();
            if expected == 1500 && found.is_empty() || found.contains(&expected) {
                return;
            }
            assert!(Instant::now() < end, "{expected}: {hops:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    assert!(!world.next_hops().is_empty());
    longest(1500);
    lb.block_on(|| link::set_mtu("eth1", 1400)).expect("an MTU");
    longest(1400);
    lb.block_on(|| link::set_mtu("eth1", 1500)).expect("an MTU");
    longest(1500);
}

//! What flows carry, and that nothing of them stays.

use std::time::{Duration, Instant};

use ocs_lb_test_support::client::{connect, short_connections};
use ocs_lb_test_support::topology::{client, vip};

use crate::world::{World, clients, config, vips};

const SEED: &str = "    check: {port: 5061}";

#[test]
#[ignore = "needs root"]
fn sixty_four_mebibytes_each_way_and_a_late_answer() {
    let world = World::new(&config([1, 1], SEED));
    world
        .topology
        .clients
        .block_on(|| async {
            let mut session = connect(client(0), 0, vip(443)).await?;
            let (sent, received) = session.bulk(64 << 20).await?;
            assert_eq!(sent, received, "hashes of both ways");
            // The server's answer after the half-close.
            session.close().await
        })
        .expect("a session");
    let flow = world
        .flows()
        .into_iter()
        .find(|flow| flow["vip_port"] == 443 && flow["bytes_in"].as_u64() > Some(64 << 20))
        .expect("the flow is listed");
    assert!(flow["bytes_out"].as_u64() > Some(64 << 20), "{flow}");
}

#[test]
#[ignore = "needs root"]
fn nothing_leaks() {
    let world = World::new(&config([1, 1], SEED));
    let start = Instant::now();
    let report = world
        .topology
        .clients
        .block_on(|| async { Ok(short_connections(100_000, 16, &clients(), &vips()).await) })
        .expect("namespace");
    println!(
        "100000 connections in {:?}, median {:?}, p99 {:?}",
        start.elapsed(),
        report.quantile(0.5),
        report.quantile(0.99)
    );
    assert_eq!(report.failed, Vec::<String>::new());
    // Two sweeps, one second apart, and the time to run them.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(world.counts(), (0, 0, vec![0, 0, 0]));
    assert!(world.recount().is_empty(), "{:?}", world.recount());
    // Closed flows rest for ten seconds; then no entry and no port is left.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(world.flows().len(), 0);
    assert_eq!(world.metric("ocs_lb_snat_ports_used", ""), 0.0);
    assert_eq!(
        world.metric("ocs_lb_backend_connections_total", ""),
        100_000.0
    );
}

#[test]
#[ignore = "needs root"]
fn half_open_and_idle_flows_end() {
    let world = World::new(&config(
        [1, 1],
        "    check: {port: 5061}
    timeouts: {connect: 1s, client: 3s, server: 3s, half_closed: 3s}",
    ));
    let clients = world.topology.clients.clone();
    let live = clients
        .block_on(|| async {
            let idle = connect(client(0), 0, vip(443)).await?;
            let mut busy = connect(client(1), 0, vip(443)).await?;
            for _ in 0..12 {
                busy.echo(b"x").await?;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let live = world.counts();
            drop(idle);
            busy.close().await?;
            Ok(live)
        })
        .expect("the busy flow lives on");
    assert_eq!(live.0, 1, "only the busy flow is live");
}

//! Servers that come and go.

use std::time::{Duration, Instant};

use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::client::{connect, short_connections};
use ocs_lb_test_support::topology::{client, vip};

use crate::world::{World, clients, config, vips};

const FAST: &str = "    check: {port: 5061, interval: 200ms, timeout: 200ms, rise: 2, fall: 3}";

/// Which server a client meets, asked until one answers.
fn server_of(world: &World, number: u8) -> String {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let met = world.topology.clients.block_on(|| async move {
            let session = connect(client(number), 0, vip(PORTS[0])).await?;
            let server = session.server.clone();
            session.close().await?;
            Ok(server)
        });
        match met {
            Ok(server) => return server,
            Err(error) => assert!(Instant::now() < end, "{error:#}"),
        }
    }
}

fn wait_for(world: &World, number: u8, wanted: &[&str]) -> Duration {
    let start = Instant::now();
    while !wanted.contains(&server_of(world, number).as_str()) {
        assert!(start.elapsed() < Duration::from_secs(10), "not within 10 s");
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

#[test]
#[ignore = "needs root"]
fn a_stopped_server_is_out_and_its_clients_move() {
    let mut world = World::new(&config([1, 1], FAST));
    let first = (0..20)
        .find(|number| server_of(&world, *number) == "OCS_Node1")
        .expect("a client of the first server");
    world.stop_server(0);
    let moved = wait_for(&world, first, &["OCS_Node2"]);
    // fall x interval, and as much again for a slow machine.
    assert!(moved < Duration::from_millis(1800), "moved after {moved:?}");
    world.stop_server(1);
    wait_for(&world, first, &["backup"]);
    world.start_server(0);
    wait_for(&world, first, &["OCS_Node1", "OCS_Node2"]);
}

#[test]
#[ignore = "needs root"]
fn the_other_servers_connections_notice_nothing() {
    let mut world = World::new(&config([1, 1], FAST));
    let other = (0..20)
        .find(|number| server_of(&world, *number) == "OCS_Node2")
        .expect("a client of the second server");
    let clients = world.topology.clients.clone();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let held = clients.spawn(move || async move {
        let mut session = connect(client(other), 0, vip(443)).await?;
        ready.send(())?;
        let mut slowest = Duration::ZERO;
        for _ in 0..100 {
            let start = Instant::now();
            session.echo(b"still there?").await?;
            slowest = slowest.max(start.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        session.close().await?;
        Ok(slowest)
    });
    is_ready.recv().expect("the held connection");
    world.stop_server(0);
    let slowest = held.join().expect("no panic").expect("every echo came");
    println!("slowest echo {slowest:?}");
    assert!(
        slowest < Duration::from_millis(500),
        "slowest echo {slowest:?}"
    );
}

#[test]
#[ignore = "needs root"]
fn no_backend_is_answered_with_a_reset() {
    let mut world =
        World::new(&config([1, 1], FAST).replace("check: off", "weight: 0, check: off"));
    world.stop_server(0);
    world.stop_server(1);
    let end = Instant::now() + Duration::from_secs(10);
    while world.metric("ocs_lb_backend_up", "OCS_Node") > 0.0 {
        assert!(Instant::now() < end, "still up");
        std::thread::sleep(Duration::from_millis(50));
    }
    let start = Instant::now();
    let refused = world
        .topology
        .clients
        .block_on(|| connect(client(0), 0, vip(443)))
        .err()
        .expect("nobody serves");
    assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
    assert!(start.elapsed() < Duration::from_millis(500), "at once");
    assert!(world.metric("ocs_lb_refused_total", "no_backend") >= 1.0);
}

/// 10,000 health checks beside 10,000 flows. Checks of twelve clusters, each
/// on another port, run every 10 ms.
#[test]
#[ignore = "needs root"]
fn checks_and_flows_do_not_cross() {
    let mut text = String::from("version: 1\nclusters:\n");
    for port in PORTS {
        text.push_str(&format!(
            "  - name: c{port}
    vips: [192.0.2.1]
    ports: [{port}]
    slow_start: 0s
    on_backend_down: {{action: keep}}
    check: {{port: {port}, interval: 10ms, timeout: 1s}}
    backends:
      - {{name: OCS_Node1, address: 198.51.100.10}}
      - {{name: OCS_Node2, address: 198.51.100.11}}
"
        ));
    }
    let world = World::new(&text);
    let checks = || world.metric("ocs_lb_health_checks_total", "");
    let before = checks();
    let report = world
        .topology
        .clients
        .block_on(|| async { Ok(short_connections(10_000, 8, &clients(), &vips()).await) })
        .expect("namespace");
    assert_eq!(report.failed, Vec::<String>::new());
    let end = Instant::now() + Duration::from_secs(60);
    while checks() - before < 10_000.0 {
        assert!(Instant::now() < end, "{} checks", checks() - before);
        std::thread::sleep(Duration::from_millis(100));
    }
    let good = world.metric("ocs_lb_health_checks_total", "result=\"ok\"");
    let all = checks();
    // Between the two readings more checks end.
    assert!(all - good <= 500.0, "{good} of {all} checks are good");
    assert_eq!(
        world.metric("ocs_lb_health_checks_total", "result=\"refused\""),
        0.0
    );
    assert_eq!(
        world.metric("ocs_lb_health_checks_total", "result=\"timeout\""),
        0.0
    );
    assert_eq!(world.metric("ocs_lb_drops_total", ""), 0.0);
}

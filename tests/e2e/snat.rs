//! A small range of SNAT ports, used whole. About 2 s a test.

use std::time::{Duration, Instant};

use ocs_lb_test_support::client::connect;
use ocs_lb_test_support::tcp;
use ocs_lb_test_support::topology::{client, vip};

use crate::world::{World, config};

/// A range of 100 ports, two servers: 200 flows to one port of the pool, each
/// with its own token; the next one is refused.
fn two_hundred(refuse: &str) -> (World, std::io::Error, Duration) {
    let world = World::new(&config(
        [1, 1],
        &format!(
            "    check: {{port: 5061}}
    sticky: off
    snat: {{addresses: [198.51.100.1], ports: 20000-20099}}
    refuse: {{snat: {refuse}}}"
        ),
    ));
    let clients = world.topology.clients.clone();
    let (error, took) = clients
        .block_on(|| async {
            let mut sessions = Vec::new();
            for number in 0..200u8 {
                sessions.push(connect(client(number), 0, vip(443)).await?);
            }
            for _ in 0..3 {
                for (number, session) in sessions.iter_mut().enumerate() {
                    let token = format!("token {number} of {}", session.local);
                    session.echo(token.as_bytes()).await?;
                }
            }
            let counts = world.counts();
            assert_eq!((counts.0, &counts.2[..2]), (200, &[100, 100][..]));
            let start = Instant::now();
            let refused = world.topology.clients.run(|| {
                std::net::TcpStream::connect_timeout(&vip(443), Duration::from_millis(1500))
            })?;
            let took = start.elapsed();
            for session in &mut sessions {
                session.echo(b"I notice nothing").await?;
            }
            Ok((refused.expect_err("no port is free"), took))
        })
        .expect("200 sessions");
    (world, error, took)
}

#[test]
#[ignore = "needs root"]
fn two_hundred_flows_on_a_hundred_ports_and_a_reset() {
    let (world, error, took) = two_hundred("reset");
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::ConnectionRefused,
        "{error}"
    );
    println!("refused after {took:?}");
    assert!(took < Duration::from_millis(200), "at once: {took:?}");
    assert_eq!(world.metric("ocs_lb_refused_total", "snat"), 1.0);
    // Another port of the servers is another scope.
    world
        .topology
        .clients
        .run(|| tcp::connect((client(0), 0), vip(444)))
        .expect("namespace")
        .expect("served");
}

#[test]
#[ignore = "needs root"]
fn two_hundred_flows_on_a_hundred_ports_and_silence() {
    let (world, error, _) = two_hundred("drop");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
    // The SYN and its retransmission.
    assert!(world.metric("ocs_lb_refused_total", "snat") >= 1.0);
}

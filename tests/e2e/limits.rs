//! What does not fit.

use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::client::connect;
use ocs_lb_test_support::topology::{client, vip};

use crate::world::{World, config};

#[test]
#[ignore = "needs root"]
fn the_hundred_and_first_is_refused() {
    let world = World::new(&config(
        [1, 1],
        "    check: {port: 5061}
    max_connections: 100
    refuse: {limit: reset}",
    ));
    let clients = world.topology.clients.clone();
    clients
        .block_on(|| async {
            let mut sessions = Vec::new();
            for number in 0..100 {
                let port = PORTS[number % PORTS.len()];
                sessions.push(connect(client(number as u8), 0, vip(port)).await?);
            }
            let refused = connect(client(150), 0, vip(443)).await;
            let refused = refused.err().expect("the 101st does not fit");
            assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
            for session in &mut sessions {
                session.echo(b"I notice nothing").await?;
            }
            assert_eq!(world.counts().0, 100);
            sessions.pop().expect("one").close().await?;
            let mut fits = connect(client(150), 0, vip(443)).await?;
            fits.echo(b"now I fit").await?;
            for session in &mut sessions {
                session.echo(b"still nothing").await?;
            }
            Ok(())
        })
        .expect("sessions");
    assert_eq!(world.metric("ocs_lb_refused_total", "limit"), 1.0);
}

/// The default is silence: the client's SYN is dropped and comes again.
#[test]
#[ignore = "needs root"]
fn a_dropped_connection_fits_when_one_ends() {
    let world = World::new(&config(
        [1, 1],
        "    check: {port: 5061}\n    max_connections: 1",
    ));
    world
        .topology
        .clients
        .block_on(|| async {
            let first = connect(client(0), 0, vip(443)).await?;
            let second = tokio::spawn(connect(client(1), 0, vip(443)));
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            assert!(!second.is_finished(), "it waits");
            first.close().await?;
            let mut second = second.await??;
            second.echo(b"the SYN came again").await
        })
        .expect("sessions");
}

#[test]
#[ignore = "needs root"]
fn a_small_snat_range_is_used_whole() {
    let world = World::new(&config(
        [1, 1],
        "    check: {port: 5061}
    sticky: off
    snat: {addresses: [198.51.100.1], ports: 20000-20009}",
    ));
    world
        .topology
        .clients
        .block_on(|| async {
            let mut sessions = Vec::new();
            // Two servers, one port of theirs: twice ten flows.
            for number in 0..20 {
                sessions.push(connect(client(number), 0, vip(443)).await?);
            }
            let refused = connect(client(30), 0, vip(443)).await;
            let refused = refused.err().expect("no port is free");
            assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
            // Another port of the servers is another scope.
            connect(client(30), 0, vip(444)).await?.close().await?;
            for session in &mut sessions {
                session
                    .echo(&session.local.to_string().into_bytes())
                    .await?;
            }
            Ok(())
        })
        .expect("sessions");
    assert_eq!(world.metric("ocs_lb_refused_total", "snat"), 1.0);
}

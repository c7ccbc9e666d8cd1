//! Who meets whom.

use std::collections::BTreeSet;

use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::client::{Session, connect, short_connections};
use ocs_lb_test_support::topology::{Arms, LB, client, vip};

use crate::world::{World, clients, config, vips};

const STICKY_OFF: &str = "    sticky: off\n    check: {port: 5061}";
const SEED: &str = "    check: {port: 5061}";

fn six_thousand(arms: Arms) {
    let world = World::with(arms, &config([1, 1], SEED));
    let report = world
        .topology
        .clients
        .block_on(|| async { Ok(short_connections(6000, 4, &clients(), &vips()).await) })
        .expect("namespace");
    assert_eq!(report.failed, Vec::<String>::new());
    assert_eq!(report.ok, 6000);
    // 200 sticky clients over two servers of equal weight.
    for name in ["OCS_Node1", "OCS_Node2"] {
        let share = report.by_server.get(name).copied().unwrap_or(0);
        assert!((1200..=4800).contains(&share), "{:?}", report.by_server);
    }
    println!(
        "6000 connections, median {:?}, p99 {:?}",
        report.quantile(0.5),
        report.quantile(0.99)
    );
}

#[test]
#[ignore = "needs root"]
fn short_connections_on_all_ports() {
    six_thousand(Arms::Two);
}

#[test]
#[ignore = "needs root"]
fn short_connections_with_one_arm() {
    six_thousand(Arms::One);
}

#[test]
#[ignore = "needs root"]
fn one_client_meets_one_server_on_all_ports() {
    let world = World::new(&config([1, 1], SEED));
    let met = world
        .topology
        .clients
        .block_on(|| async {
            let mut met = Vec::new();
            for number in 0..10 {
                let mut servers = BTreeSet::new();
                for port in PORTS {
                    let session = connect(client(number), 0, vip(port)).await?;
                    assert_eq!(session.seen.ip(), LB, "servers see the SNAT address");
                    servers.insert(session.server.clone());
                    session.close().await?;
                }
                met.push(servers);
            }
            Ok(met)
        })
        .expect("sessions");
    assert!(met.iter().all(|servers| servers.len() == 1), "{met:?}");
    let all: BTreeSet<_> = met.iter().flatten().collect();
    assert_eq!(all.len(), 2, "{met:?}");
}

/// Opens and holds connections, each from a client of its own turn.
async fn hold(count: usize, at_once: bool) -> anyhow::Result<Vec<Session>> {
    let mut tasks = tokio::task::JoinSet::new();
    let mut sessions = Vec::new();
    for number in 0..count {
        let port = PORTS[number % PORTS.len()];
        let connecting = connect(client((number % 200) as u8), 0, vip(port));
        if at_once {
            tasks.spawn(connecting);
        } else {
            sessions.push(connecting.await?);
        }
    }
    while let Some(session) = tasks.join_next().await {
        sessions.push(session??);
    }
    Ok(sessions)
}

fn on_first(sessions: &[Session]) -> usize {
    sessions
        .iter()
        .filter(|session| session.server == "OCS_Node1")
        .count()
}

#[test]
#[ignore = "needs root"]
fn held_connections_follow_the_weights() {
    let world = World::new(&config([1, 3], STICKY_OFF));
    let first = world
        .topology
        .clients
        .block_on(|| async { Ok(on_first(&hold(40, false).await?)) })
        .expect("sessions");
    assert_eq!(first, 10, "40 connections, weights 1:3");
}

#[test]
#[ignore = "needs root"]
fn four_hundred_at_once_are_even() {
    let world = World::new(&config([1, 1], STICKY_OFF));
    let first = world
        .topology
        .clients
        .block_on(|| async { Ok(on_first(&hold(400, true).await?)) })
        .expect("sessions");
    assert!(
        (180..=220).contains(&first),
        "{first} of 400 on the first server"
    );
}

#[test]
#[ignore = "needs root"]
fn round_robin_follows_the_weights() {
    let world = World::new(&config(
        [1, 3],
        "    sticky: off\n    balance: roundrobin\n    check: {port: 5061}",
    ));
    let first = world
        .topology
        .clients
        .block_on(|| async { Ok(on_first(&hold(40, false).await?)) })
        .expect("sessions");
    assert_eq!(first, 10, "40 connections, weights 1:3");
}

#[test]
#[ignore = "needs root"]
fn one_source_port_for_two_hundred_clients() {
    let world = World::new(&config([1, 1], STICKY_OFF));
    let port = PORTS[1];
    let clients = world.topology.clients.clone();
    let (held, wait) = std::sync::mpsc::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let task = clients.spawn(move || async move {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..200 {
            tasks.spawn(connect(client(number), 40_000, vip(port)));
        }
        let mut sessions = Vec::new();
        while let Some(session) = tasks.join_next().await {
            sessions.push(session??);
        }
        ready.send(sessions.len())?;
        // Ends when the sender is dropped.
        while wait.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        for session in &mut sessions {
            session
                .echo(&session.local.to_string().into_bytes())
                .await?;
        }
        Ok(())
    });
    let count = is_ready.recv();
    if count.is_err() {
        task.join().expect("no panic").expect("200 sessions");
        unreachable!("the task ended well without a word");
    }
    assert_eq!(count, Ok(200));
    assert_eq!(world.counts().0, 200, "live flows");
    let mut all = 0;
    for server in world.servers.iter().flatten() {
        let peers = server.connected(port);
        let distinct: BTreeSet<_> = peers.iter().collect();
        assert_eq!(
            distinct.len(),
            peers.len(),
            "{}: a SNAT port twice",
            server.name()
        );
        all += peers.len();
    }
    assert_eq!(all, 200);
    drop(held);
    task.join()
        .expect("no panic")
        .expect("every echo is its own");
}

//! Servers that are dead before a check says so. About 2 s a test.

use std::time::{Duration, Instant};

use ocs_lb_test_support::client::{Session, connect};
use ocs_lb_test_support::link;
use ocs_lb_test_support::topology::{LB, client, vip};

use crate::world::{World, config};

/// Nobody is ever marked down.
const UNCHECKED: &str = "    check: off\n    sticky: off";

/// Connects; who served, and after how long.
async fn timed(number: u8) -> anyhow::Result<(Session, Duration)> {
    let start = Instant::now();
    let session = connect(client(number), 0, vip(443)).await?;
    Ok((session, start.elapsed()))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The process is gone, its machine answers with RST.
#[test]
#[ignore = "needs root"]
fn a_refusing_server_is_never_met() {
    let mut world = World::new(&config([1, 1], UNCHECKED));
    let clients = world.topology.clients.clone();
    let connects = || {
        clients.block_on(|| async {
            let (mut times, mut servers) = (Vec::new(), std::collections::BTreeMap::new());
            // One that stays, so that the other server has less.
            let mut held = Vec::new();
            for number in 0..100 {
                let (session, took) = timed(number).await?;
                times.push(took);
                *servers.entry(session.server.clone()).or_insert(0) += 1;
                held.push(session);
            }
            for session in &mut held {
                session.echo(b"whoever you are").await?;
            }
            Ok((times, servers))
        })
    };
    let (mut healthy, servers) = connects().expect("both serve");
    assert_eq!(servers.len(), 2, "{servers:?}");
    world.stop_server(0);
    let (mut times, servers) = connects().expect("the other one serves");
    let (before, after) = (median(&mut healthy), median(&mut times));
    let slowest = times.last().copied().unwrap_or_default();
    println!("median {before:?} healthy, {after:?} with a dead server, slowest {slowest:?}");
    assert_eq!(servers.get("OCS_Node2"), Some(&100), "{servers:?}");
    assert!(
        slowest <= before + Duration::from_millis(50),
        "{slowest:?} against {before:?}"
    );
    let moved = world.metric("ocs_lb_redispatches_total", "refused");
    assert!(moved >= 99.0, "{moved} moved");
}

/// Nothing comes back; the client's own retransmission moves the connection.
#[test]
#[ignore = "needs root"]
fn a_silent_server_costs_one_retransmission() {
    let world = World::new(&config([1, 1], UNCHECKED));
    world.topology.servers[0]
        .block_on(|| link::silence(LB, 32, true))
        .expect("a silent server");
    let results = world
        .topology
        .clients
        .block_on(|| async {
            let tasks: Vec<_> = (0..40).map(|number| tokio::spawn(timed(number))).collect();
            let mut results = Vec::new();
            for task in tasks {
                let (mut session, took) = task.await??;
                session.echo(b"hello").await?;
                results.push((session.server.clone(), took));
            }
            Ok(results)
        })
        .expect("every connection is served");
    let late: Vec<_> = results
        .iter()
        .map(|(_, took)| *took)
        .filter(|took| *took > Duration::from_millis(500))
        .collect();
    let slowest = late.iter().max().copied().unwrap_or_default();
    println!(
        "{} of 40 met the silent server, slowest {slowest:?}",
        late.len()
    );
    assert!(results.iter().all(|(server, _)| server == "OCS_Node2"));
    assert!(!late.is_empty(), "none met the silent one");
    assert!(slowest <= Duration::from_millis(1200), "{slowest:?}");
    assert_eq!(
        world.metric("ocs_lb_redispatches_total", "silent"),
        late.len() as f64
    );
}

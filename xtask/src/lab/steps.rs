//! What the lab shows, each step with what it must prove.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::client::{Session, connect};
use ocs_lb_test_support::topology::{LB, SERVERS, VIP, client, vip};

use super::world::World;

/// Clients that the lab shows.
const SHOWN: u8 = 6;

/// Longest time for a change of health to reach new connections: three failed
/// checks or two good ones, two seconds apart, with room for a slow machine.
const CHANGE: Duration = Duration::from_secs(20);

/// One line for a connection.
pub fn show(session: &Session, port: u16) {
    println!(
        "  {:<21} -> {VIP}:{port:<5}  served by {:<9}  which sees {}",
        session.local, session.server, session.seen
    );
}

/// Every step in turn; whether all passed. Later steps need the earlier ones,
/// so the first failure ends the row.
///
/// # Errors
/// Where the lab itself breaks.
pub fn all(world: &mut World) -> anyhow::Result<bool> {
    type Step = fn(&mut World) -> anyhow::Result<()>;
    let steps: [(&str, Step); 4] = [
        ("every client meets one server on all twelve ports", spread),
        (
            "a server stops: its clients move, the other's notice nothing",
            stop_one,
        ),
        ("both primaries are gone: the backup takes over", stop_both),
        ("the primaries return: the backup gives back", start_both),
    ];
    for (number, (name, step)) in steps.iter().enumerate() {
        println!();
        println!("{}. {name}", number + 1);
        let start = Instant::now();
        if let Err(error) = step(world) {
            super::signals::yield_to_signal();
            println!("   FAIL: {error:#}");
            println!("   the balancer says:\n{}", world.balancer.process.log());
            return Ok(false);
        }
        println!("   PASS ({:.1} s)", start.elapsed().as_secs_f64());
    }
    Ok(true)
}

fn spread(world: &mut World) -> anyhow::Result<()> {
    let met = world.topology.clients.block_on(|| async {
        let mut met: BTreeMap<u8, BTreeSet<String>> = BTreeMap::new();
        for number in 0..SHOWN {
            for port in PORTS {
                let mut session = connect(client(number), 0, vip(port)).await?;
                show(&session, port);
                ensure!(
                    session.seen.ip() == LB,
                    "the server sees {}, not {LB}",
                    session.seen
                );
                session.echo(b"hello\n").await?;
                met.entry(number)
                    .or_default()
                    .insert(session.server.clone());
                session.close().await?;
            }
        }
        Ok(met)
    })?;
    for (number, servers) in &met {
        ensure!(servers.len() == 1, "{} met {servers:?}", client(*number));
    }
    let all: BTreeSet<&String> = met.values().flatten().collect();
    ensure!(all.len() == 2, "all clients met {all:?}");
    Ok(())
}

fn stop_one(world: &mut World) -> anyhow::Result<()> {
    let (moving, staying) = (served_by(world, 0)?, served_by(world, 1)?);
    let clients = world.topology.clients.clone();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    // Connections to the other server, which go on talking all the while.
    let held = clients.spawn(move || async move {
        let mut sessions = Vec::new();
        for port in PORTS {
            sessions.push(connect(client(staying), 0, vip(port)).await?);
        }
        // The receiver waits for this.
        let _ = ready.send(());
        let mut rounds = 0;
        while is_done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            for session in &mut sessions {
                session.echo(b"still there?\n").await?;
            }
            rounds += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for session in sessions {
            session.close().await?;
        }
        Ok(rounds)
    });
    is_ready.recv().context("the held connections")?;
    println!("  {} stops; {} is its client", SERVERS[0].0, client(moving));
    world.stop_server(0)?;
    let moved = wait_for(world, moving, |server| server == SERVERS[1].0);
    drop(done);
    let rounds = match held.join() {
        Ok(result) => result.context("a held connection to the other server")?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    println!(
        "  {} connections to {} went on: {rounds} rounds of echoes",
        PORTS.len(),
        SERVERS[1].0
    );
    moved
}

fn stop_both(world: &mut World) -> anyhow::Result<()> {
    let moving = served_by(world, 1)?;
    println!("  {} stops as well", SERVERS[1].0);
    world.stop_server(1)?;
    wait_for(world, moving, |server| server == SERVERS[2].0)
}

fn start_both(world: &mut World) -> anyhow::Result<()> {
    println!("  {} and {} start again", SERVERS[0].0, SERVERS[1].0);
    world.start_server(0)?;
    world.start_server(1)?;
    wait_for(world, 0, |server| server != SERVERS[2].0)
}

/// A client that a server serves now.
fn served_by(world: &World, server: usize) -> anyhow::Result<u8> {
    let name = SERVERS[server].0;
    world.topology.clients.block_on(|| async move {
        for number in 0..SHOWN {
            let session = connect(client(number), 0, vip(PORTS[0])).await?;
            let found = session.server == name;
            session.close().await?;
            if found {
                return Ok(number);
            }
        }
        bail!("no client is served by {name}")
    })
}

/// Connects again and again until the right server answers on every port.
fn wait_for(
    world: &World,
    number: u8,
    right: impl Fn(&str) -> bool + Send + Sync,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let right = &right;
    loop {
        let met = world.topology.clients.block_on(|| async move {
            let mut sessions = Vec::new();
            for port in PORTS {
                // A refused connection is what a client meets until the
                // checks have found out.
                match connect(client(number), 0, vip(port)).await {
                    Ok(session) if right(&session.server) => sessions.push((session, port)),
                    Ok(_) | Err(_) => return Ok(None),
                }
            }
            for (session, port) in &sessions {
                show(session, *port);
            }
            for (session, _) in sessions {
                session.close().await?;
            }
            Ok(Some(()))
        })?;
        if met.is_some() {
            println!("  after {:.1} s", start.elapsed().as_secs_f64());
            return Ok(());
        }
        ensure!(start.elapsed() < CHANGE, "not within {CHANGE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

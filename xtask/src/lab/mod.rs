//! The lab: clients, the balancer and three servers in namespaces, on the
//! embedded default configuration.

mod signals;
mod steps;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::client::connect;
use ocs_lb_test_support::relay::relay;
use ocs_lb_test_support::topology::{client, vip};

use crate::{clean, host, run};
use world::World;

/// Runs the lab. With `once` it ends after the steps.
pub fn lab(once: bool) -> ExitCode {
    let result = try_lab(once);
    signals::yield_to_signal();
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_lab(once: bool) -> anyhow::Result<bool> {
    host::check()?;
    clean::clean()?;
    run::build()?;
    let scratch = clean::Scratch::new()?;
    signals::watch(scratch.path())?;
    let mut world = World::start(scratch.path())?;
    let passed = steps::all(&mut world)?;
    if !once && passed {
        stay(&world)?;
    }
    world.balancer.process.stop()?;
    Ok(passed)
}

/// Keeps the lab up, with a connection every two seconds, until a signal ends
/// the process.
fn stay(world: &World) -> anyhow::Result<()> {
    let metrics = relay(
        &world.topology.lb,
        ([127, 0, 0, 1], 7778).into(),
        ([127, 0, 0, 1], 7778).into(),
    )?;
    println!();
    println!("The lab stays up; Ctrl-C ends it and leaves nothing behind.");
    println!("  metrics, health    http://{metrics}/metrics  /healthz  /readyz");
    println!(
        "  the balancer       nsenter --net={}",
        world.topology.lb.path()
    );
    println!(
        "  the clients        nsenter --net={}",
        world.topology.clients.path()
    );
    println!(
        "  what it says       {} --socket {} show backends",
        run::binary().display(),
        world.balancer.socket.display()
    );
    println!();
    let mut number = 0u8;
    loop {
        let (source, port) = (client(number), PORTS[usize::from(number) % PORTS.len()]);
        world.topology.clients.block_on(|| async move {
            match connect(source, 0, vip(port)).await {
                Ok(session) => {
                    steps::show(&session, port);
                    session.close().await
                }
                Err(error) => {
                    println!("{error:#}");
                    Ok(())
                }
            }
        })?;
        number = (number + 1) % 200;
        std::thread::sleep(Duration::from_secs(2));
    }
}

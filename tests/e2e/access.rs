//! Who is let in, who serves whom, and how fast, with real sockets.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ocs_lb_test_support::client::connect;
use ocs_lb_test_support::topology::{client, vip};

use crate::load::Load;
use crate::reload::reload;
use crate::world::{World, config};

const CHECK: &str = "    check: {port: 5061}\n";

/// Tries for so long; whether it connected, and if not, why.
async fn try_for(source: u8, port: u16, patience: Duration) -> Result<(), String> {
    match tokio::time::timeout(patience, connect(client(source), 0, vip(port))).await {
        Ok(Ok(session)) => session.close().await.map_err(|error| format!("{error:#}")),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err("silence".to_owned()),
    }
}

#[test]
#[ignore = "needs root"]
fn denied_by_silence_and_by_reset() {
    let (kept_out, let_in) = (client(1), client(2));
    let text = |action: &str| {
        let lines = format!(
            "{CHECK}    deny: [{kept_out}]\n    refuse: {{deny: {action}}}\n    \
             new_connections: {{total: 100000}}"
        );
        config([1, 1], &lines)
    };
    let world = World::new(&text("drop"));
    let short = Duration::from_millis(300);
    let clients = world.topology.clients.clone();
    let tries = |wanted: &'static str| {
        clients
            .block_on(|| async {
                let met = try_for(1, 443, short).await.expect_err("kept out");
                assert!(met.contains(wanted), "{met}");
                try_for(2, 443, short).await.expect("let in");
                Ok(())
            })
            .expect("tries");
    };
    tries("silence");
    assert!(world.metric("ocs_lb_drops_total", "\"deny\"") >= 1.0);
    world.balancer.configure(&text("reset")).expect("a file");
    reload(&world).expect("applied");
    tries("refused");
    let refused = world.metric("ocs_lb_refused_total", "\"deny\"");
    assert!(refused >= 2.0, "{refused}: {let_in} was let in");
}

/// Lists change all the time under clients that each of them lets in: nobody is
/// refused.
#[test]
#[ignore = "needs root"]
fn lists_change_under_load() {
    let text = |more: &str| {
        let lines =
            format!("{CHECK}    allow: [192.0.2.0/24{more}]\n    deny: [203.0.113.0/24{more}]");
        config([1, 1], &lines)
    };
    let world = World::new(&text(""));
    let load = Load::start(&world.topology.clients, 443, 20);
    for round in 0..10 {
        let more = [", 10.0.0.0/8, 172.16.0.0/12", ", 10.1.0.0/16", ""][round % 3];
        world.balancer.configure(&text(more)).expect("a file");
        reload(&world).expect("applied");
    }
    let met = load.stop();
    assert_eq!(
        met.failed,
        Vec::<String>::new(),
        "of {} new ones",
        met.opened
    );
    assert_eq!(world.metric("ocs_lb_refused_total", "\"deny\""), 0.0);
}

/// Two clusters on one VIP and port: one for a single client, one for the rest.
#[test]
#[ignore = "needs root"]
fn the_source_chooses_the_cluster() {
    let special = client(7);
    let second = format!(
        "  - name: special
    vips: [192.0.2.1]
    ports: [443]
    from: [{special}]
    sticky: off
    check: off
    slow_start: 0s
    backends: [{{name: backup, address: 198.51.100.12}}]
"
    );
    let world = World::new(&format!("{}{second}", config([1, 1], CHECK)));
    world
        .topology
        .clients
        .block_on(|| async {
            let mut own = connect(special, 0, vip(443)).await?;
            own.echo(b"mine").await?;
            let mut other = connect(client(8), 0, vip(443)).await?;
            other.echo(b"theirs").await?;
            let flows = world.flows();
            let cluster = |of: Ipv4Addr| {
                let mut flows = flows.iter();
                let found = flows.find(|flow| flow["client"] == of.to_string());
                found.map(|flow| flow["cluster"].clone())
            };
            assert_eq!(cluster(special), Some("special".into()), "{flows:?}");
            assert_eq!(cluster(client(8)), Some("ocs".into()), "{flows:?}");
            Ok(())
        })
        .expect("sessions");
}

/// One client at its pace, another one beside it.
#[test]
#[ignore = "needs root"]
fn one_source_at_its_pace() {
    let world = World::new(&config(
        [1, 1],
        &format!("{CHECK}    new_connections: {{per_source: 20}}\n    refuse: {{limit: reset}}"),
    ));
    let (admitted, seconds) = world
        .topology
        .clients
        .block_on(|| async {
            let start = Instant::now();
            let mut admitted = 0;
            while start.elapsed() < Duration::from_secs(3) {
                if let Ok(session) = connect(client(1), 0, vip(443)).await {
                    admitted += 1;
                    session.close().await?;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let seconds = start.elapsed().as_secs_f64();
            // Its pace is its own.
            connect(client(2), 0, vip(443)).await?.close().await?;
            Ok((f64::from(admitted), seconds))
        })
        .expect("sessions");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    assert!(
        admitted <= 20.0 * seconds * 1.05 + 1.0 + cpus,
        "{admitted} in {seconds} s"
    );
    assert!(
        admitted >= 20.0 * seconds * 0.8,
        "{admitted} in {seconds} s"
    );
    assert!(world.metric("ocs_lb_refused_total", "rate_source") > 0.0);
}

//! The host around: what is not served, and what is left behind.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::balancer::Balancer;
use ocs_lb_test_support::client::connect;
use ocs_lb_test_support::link;
use ocs_lb_test_support::server::Server;
use ocs_lb_test_support::topology::{Arms, SERVERS, Topology, VIP, client, vip};

use crate::world::{Scratch, World, binary, config};

const SEED: &str = "    check: {port: 5061}";

/// Like SSH on the balancer: a connection to an unserved port of the VIP,
/// open before the program is attached, and another one after.
#[test]
#[ignore = "needs root"]
fn the_hosts_own_traffic_survives_attach() {
    let topology = Topology::new(Arms::Two).expect("namespaces");
    let servers: Vec<_> = (0..2)
        .map(|number| {
            let (name, address) = SERVERS[number];
            Server::start(&topology.servers[number], name, address, &PORTS).expect("a server")
        })
        .collect();
    let mut ssh = Server::start(&topology.lb, "ssh", VIP, &[22]).expect("a server");
    let scratch = Scratch::new();
    let config = config([1, 1], SEED);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (attached, is_attached) = std::sync::mpsc::channel::<()>();
    let session = topology.clients.spawn(move || async move {
        let mut session = connect(client(0), 0, vip(22)).await?;
        ready.send(())?;
        while is_attached.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            session.echo(b"typing").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        session.echo(b"typing on").await?;
        session.close().await?;
        connect(client(1), 0, vip(22)).await?.close().await?;
        Ok(connect(client(1), 0, vip(443)).await?.server)
    });
    is_ready.recv().expect("the session before");
    let mut balancer =
        Balancer::start(&topology.lb, &binary(), &config, &scratch.0).expect("the balancer");
    drop(attached);
    let served = session.join().expect("no panic").expect("both sessions");
    assert!(served.starts_with("OCS_Node"), "{served}");
    ssh.stop().expect("it ran well");
    balancer.process.stop().expect("it ends");
    drop(servers);
}

#[test]
#[ignore = "needs root"]
fn an_end_leaves_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut world = World::new(&config([1, 1], SEED));
        let programs = || {
            world
                .topology
                .lb
                .block_on(|| async {
                    Ok([link::has_xdp("eth0").await?, link::has_xdp("eth1").await?])
                })
                .expect("links")
        };
        assert_eq!(programs(), [true, true]);
        world.balancer.process.signal(signal).expect("it runs");
        let status = world
            .balancer
            .process
            .wait(Duration::from_secs(10))
            .expect("it ends");
        assert!(status.success(), "{signal}: {status}");
        let programs = world
            .topology
            .lb
            .block_on(|| async { Ok([link::has_xdp("eth0").await?, link::has_xdp("eth1").await?]) })
            .expect("links");
        assert_eq!(programs, [false, false], "{signal}");
        assert!(
            !world.balancer.socket.exists(),
            "{signal}: the socket is gone"
        );
        // Read by a thread inside: this part of /proc/sys is its namespace's.
        let path = "/proc/sys/net/ipv4/conf/lo/forwarding";
        let forwarding = world.topology.lb.run(|| std::fs::read_to_string(path));
        let forwarding = forwarding.expect("namespace").expect("the sysctl");
        assert_eq!(forwarding.trim(), "0", "{signal}: as before the start");
    }
}

#[test]
#[ignore = "needs root"]
fn generic_mode_serves() {
    let text = format!(
        "{}interfaces:\n  - {{name: eth0, mode: generic}}\n  - {{name: eth1, mode: generic}}\n",
        config([1, 1], SEED)
    );
    let world = World::new(&text);
    world
        .topology
        .clients
        .block_on(|| async {
            for number in 0..20 {
                let mut session = connect(client(number), 0, vip(5061)).await?;
                session.echo(b"hello").await?;
                session.close().await?;
            }
            Ok(())
        })
        .expect("sessions");
}

/// A packet of no flow gets a RST, so that its sender reconnects at once.
#[test]
#[ignore = "needs root"]
fn connections_from_before_are_reset() {
    let mut world = World::new(&config([1, 1], SEED));
    let clients = world.topology.clients.clone();
    let mut stream = clients
        .run(|| {
            let stream = TcpStream::connect(vip(443)).expect("served");
            stream
                .set_read_timeout(Some(Duration::from_secs(3)))
                .expect("a timeout");
            stream
        })
        .expect("namespace");
    let mut greeting = [0; 64];
    assert!(stream.read(&mut greeting).expect("a greeting") > 0);
    world.balancer.process.stop().expect("it ends");
    let scratch = Scratch::new();
    let _again = Balancer::start(
        &world.topology.lb,
        &binary(),
        &config([1, 1], SEED),
        &scratch.0,
    )
    .expect("a fresh balancer, which knows no flow");
    stream.write_all(b"anyone?").expect("sent");
    let error = stream.read(&mut greeting).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}

/// A listener on a served port of the VIP is named at start.
#[test]
#[ignore = "needs root"]
fn a_listener_on_a_served_port_is_an_error() {
    let topology = Topology::new(Arms::Two).expect("namespaces");
    let _listener = topology
        .lb
        .run(|| TcpListener::bind((VIP, 443)).expect("the port is free"))
        .expect("namespace");
    let scratch = Scratch::new();
    let mut balancer = Balancer::launch(&topology.lb, &binary(), &config([1, 1], SEED), &scratch.0)
        .expect("starts");
    let status = balancer
        .process
        .wait(Duration::from_secs(10))
        .expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", balancer.process.log());
    assert!(
        balancer.process.log().contains("192.0.2.1:443"),
        "{}",
        balancer.process.log()
    );
}

/// Another balancer's sessions on the VIP go on; new connections are ours.
#[test]
#[ignore = "needs root"]
fn taking_over_keeps_the_others_sessions() {
    let topology = Topology::new(Arms::Two).expect("namespaces");
    let (name, address) = SERVERS[0];
    let _server = Server::start(&topology.servers[0], name, address, &PORTS).expect("a server");
    let mut before = Server::start(&topology.lb, "before", VIP, &[443]).expect("a server");
    let scratch = Scratch::new();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (attached, is_attached) = std::sync::mpsc::channel::<()>();
    let session = topology.clients.spawn(move || async move {
        let mut session = connect(client(0), 0, vip(443)).await?;
        ready.send(session.server.clone())?;
        while is_attached.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            session.echo(b"still here").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let new = connect(client(1), 0, vip(443)).await?;
        session.echo(b"still here, beside new ones").await?;
        session.close().await?;
        let server = new.server.clone();
        new.close().await?;
        Ok(server)
    });
    assert_eq!(is_ready.recv().as_deref(), Ok("before"));
    let mut balancer = Balancer::launch_with(
        &topology.lb,
        &binary(),
        &config([1, 1], SEED),
        &scratch.0,
        &["--take-over", "--detach-on-exit"],
    )
    .expect("starts");
    balancer.wait_ready().expect("the balancer");
    drop(attached);
    let server = session.join().expect("no panic").expect("both sessions");
    assert!(server.starts_with("OCS_Node"), "{server}");
    before.stop().expect("it ran well");
    balancer
        .process
        .wait_until(Duration::from_secs(10), |process| {
            process.log().contains("taken over: nobody else")
        })
        .expect("it notices");
}

/// The way back to another balancer on the same VIP, and the way in from it.
#[test]
#[ignore = "needs root"]
fn a_cluster_in_pass_leaves_new_clients_to_the_host() {
    let world = World::new(&config([1, 1], &format!("{SEED}\n    unknown: pass")));
    let mut host = Server::start(&world.topology.lb, "host", VIP, &[443]).expect("a server");
    let balancer = &world.balancer;
    let set = |state: &str| -> anyhow::Result<()> {
        let output = balancer.client(&["set", "cluster", "ocs", "state", state])?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{state}: {said}");
        let shown = balancer.show("backends")?;
        anyhow::ensure!(shown["clusters"][0]["state"] == state, "{shown}");
        Ok(())
    };
    world
        .topology
        .clients
        .block_on(|| async {
            let mut ours = connect(client(0), 0, vip(443)).await?;
            anyhow::ensure!(ours.server.starts_with("OCS_Node"), "{}", ours.server);
            set("pass")?;
            ours.echo(b"still ours").await?;
            // Another client, and another connection of the same one.
            let mut theirs = connect(client(1), 0, vip(443)).await?;
            connect(client(0), 0, vip(443)).await?.close().await?;
            anyhow::ensure!(theirs.server == "host", "{}", theirs.server);
            theirs.echo(b"the host's").await?;
            set("ready")?;
            for number in 0..3 {
                let mut new = connect(client(number), 0, vip(443)).await?;
                anyhow::ensure!(new.server.starts_with("OCS_Node"), "{}", new.server);
                new.echo(b"ours again").await?;
                new.close().await?;
            }
            theirs.echo(b"still the host's").await?;
            theirs.close().await?;
            ours.echo(b"ours all the time").await?;
            ours.close().await
        })
        .expect("sessions");
    assert!(world.metric("ocs_lb_passes_total", "cluster_pass") > 0.0);
    let pass = "cluster=\"ocs\",state=\"pass\"";
    assert!(world.metric("ocs_lb_cluster_state", pass) < 0.5);
    host.stop().expect("it ran well");
}

/// At the most detailed level the datapath says one line for a new flow.
#[test]
#[ignore = "needs root"]
fn the_datapath_logs_when_asked() {
    let mut world = World::new(&format!("{}log: {{level: trace}}\n", config([1, 1], SEED)));
    world
        .topology
        .clients
        .block_on(|| async { connect(client(7), 0, vip(443)).await?.close().await })
        .expect("a session");
    world
        .balancer
        .process
        .wait_until(Duration::from_secs(5), |process| {
            process.log().contains("flow 192.0.2.17:")
        })
        .expect("a line");
}

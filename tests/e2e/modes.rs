//! The modes in which interfaces are served: what `auto` chooses, what goes
//! together, and who else is there.

use std::time::{Duration, Instant};

use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::balancer::Balancer;
use ocs_lb_test_support::client::connect;
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::server::Server;
use ocs_lb_test_support::topology::{Arms, LB, SERVERS, Topology, client, vip};
use ocs_lb_test_support::{link, others};

use crate::load::Load;
use crate::world::{Scratch, World, binary, config};

pub const SEED: &str = "    check: {port: 5061}";

/// Network and servers, with a balancer still to come.
pub struct Ground {
    pub topology: Topology,
    _servers: Vec<Server>,
    scratch: Scratch,
}

impl Ground {
    pub fn new() -> Self {
        let topology = Topology::new(Arms::Two).expect("namespaces");
        let servers = SERVERS[..2]
            .iter()
            .zip(&topology.servers)
            .map(|((name, address), namespace)| {
                Server::start(namespace, name, *address, &PORTS).expect("a server")
            })
            .collect();
        Self {
            topology,
            _servers: servers,
            scratch: Scratch::new(),
        }
    }

    pub fn start(&self, text: &str) -> Balancer {
        let (lb, scratch) = (&self.topology.lb, &self.scratch.0);
        let mut balancer = Balancer::launch(lb, &binary(), text, scratch).expect("it starts");
        balancer.wait_ready().expect("it is ready");
        balancer
    }

    /// The log of a start that fails.
    pub fn refused(&self, text: &str) -> String {
        let (lb, scratch) = (&self.topology.lb, &self.scratch.0);
        let mut balancer = Balancer::launch(lb, &binary(), text, scratch).expect("it starts");
        let status = balancer.process.wait(Duration::from_secs(20));
        assert!(!status.expect("it ends").success());
        // Its last words come by a pipe.
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let log = balancer.process.log();
            if log.contains("ocs-lb: ") || Instant::now() > end {
                return log;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Moves the balancer's address towards the servers to another interface.
    pub fn move_address(&self, to: &str) {
        let moved = self.topology.lb.block_on(|| async move {
            link::remove_address("eth1", LB).await?;
            link::addresses(to, [LB]).await
        });
        moved.expect("the address");
    }
}

/// Interface, mode and reason of everything that is attached.
pub fn status(balancer: &Balancer) -> Vec<(String, String, String)> {
    let status = balancer.show("status").expect("show status");
    let word = |one: &serde_json::Value, key: &str| one[key].as_str().expect("text").to_owned();
    let interfaces = status["interfaces"].as_array().expect("a list").iter();
    interfaces
        .map(|one| (word(one, "name"), word(one, "mode"), word(one, "reason")))
        .collect()
}

pub fn modes(balancer: &Balancer) -> Vec<(String, String)> {
    let all = status(balancer).into_iter();
    all.map(|(name, mode, _)| (name, mode)).collect()
}

/// Sessions through the balancer, with more data than fits a packet.
pub fn serves(clients: &Namespace) {
    clients
        .block_on(|| async {
            let mut met = std::collections::BTreeSet::new();
            for number in 0..10 {
                let mut session = connect(client(number), 0, vip(5061)).await?;
                session.echo(b"hello").await?;
                let (sent, received) = session.bulk(300_000).await?;
                assert_eq!(sent, received);
                met.insert(session.server.clone());
                session.close().await?;
            }
            assert!(!met.is_empty());
            Ok(())
        })
        .expect("sessions");
}

pub fn with(interfaces: &str) -> String {
    format!("{}interfaces: [{interfaces}]\n", config([1, 1], SEED))
}

pub fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    pairs.iter().map(owned).collect()
}

/// Between wires without offloads, whose far ends take redirected frames, XDP
/// runs in the drivers; `auto` says why.
#[test]
#[ignore = "needs root"]
fn plain_wires_are_native() {
    let ground = Ground::new();
    let balancer = ground.start(&config([1, 1], SEED));
    let reason = "the driver runs XDP and takes redirected frames";
    for (name, mode, why) in status(&balancer) {
        assert_eq!((mode.as_str(), why.as_str()), ("native", reason), "{name}");
    }
    serves(&ground.topology.clients);
    let log = balancer.process.log();
    assert!(log.contains(reason), "{log}");
}

/// A veth as it is by default leaves checksums out: `auto` serves it by traffic
/// control, and XDP is refused with the remedy.
#[test]
#[ignore = "needs root"]
fn checksums_that_are_not_there_need_traffic_control() {
    let ground = Ground::new();
    let offloads = ground.topology.clients.run(|| link::card_like("eth0"));
    offloads.expect("namespace").expect("offloads");
    for mode in ["native", "generic"] {
        let log = ground.refused(&with(&format!(
            "{{name: eth0, mode: {mode}}}, {{name: eth1, mode: {mode}}}"
        )));
        let text = "eth0: packets come in with checksums that are not there yet, which XDP cannot \
                    pass on; switch that off at its peer (`ethtool -K eth0 tx off`), or use `mode: \
                    tc`";
        assert!(log.contains(text), "{log}");
    }
    let balancer = ground.start(&config([1, 1], SEED));
    let found = status(&balancer);
    assert_eq!(modes(&balancer), pairs(&[("eth0", "tc"), ("eth1", "tc")]));
    assert_eq!(
        found[0].2,
        "packets come in with checksums that are not there yet"
    );
    serves(&ground.topology.clients);
}

/// One mode by name, on both.
#[test]
#[ignore = "needs root"]
fn every_mode_serves_by_name() {
    for mode in ["native", "generic", "tc"] {
        let ground = Ground::new();
        let balancer = ground.start(&with(&format!(
            "{{name: eth0, mode: {mode}}}, {{name: eth1, mode: {mode}}}"
        )));
        assert_eq!(modes(&balancer), pairs(&[("eth0", mode), ("eth1", mode)]));
        serves(&ground.topology.clients);
        let text = balancer.metrics().expect("metrics");
        let metric = format!("ocs_lb_datapath_attached{{interface=\"eth0\",mode=\"{mode}\"}} 1");
        assert!(text.contains(&metric), "{text}");
    }
}

/// Traffic control on one side, XDP in the driver on the other.
#[test]
#[ignore = "needs root"]
fn modes_mix_where_frames_arrive() {
    let ground = Ground::new();
    let balancer = ground.start(&with("{name: eth0, mode: native}, {name: eth1, mode: tc}"));
    assert_eq!(
        modes(&balancer),
        pairs(&[("eth0", "native"), ("eth1", "tc")])
    );
    serves(&ground.topology.clients);
}

/// What native XDP redirects would be lost at a veth whose peer has no GRO.
#[test]
#[ignore = "needs root"]
fn a_way_out_that_takes_no_frames_decides() {
    let ground = Ground::new();
    let switch = ground.topology.switch.run(|| link::set_gro("lb", false));
    switch.expect("namespace").expect("offloads");
    let log = ground.refused(&with("{name: eth0, mode: native}, {name: eth1, mode: tc}"));
    let text = "eth0: mode native sends frames by XDP, and eth1 does not take them (its peer has \
                neither an XDP program nor GRO (`ethtool -K PEER gro on`)); use `mode: tc` for \
                both";
    assert!(log.contains(text), "{log}");
    let balancer = ground.start(&config([1, 1], SEED));
    assert_eq!(modes(&balancer), pairs(&[("eth0", "tc"), ("eth1", "tc")]));
    let reason = &status(&balancer)[0].2;
    assert!(reason.starts_with("packets leave by "), "{reason}");
    serves(&ground.topology.clients);
}

/// Another's XDP program is named, and `auto` serves behind it.
#[test]
#[ignore = "needs root"]
fn the_xdp_program_of_others_is_named() {
    let ground = Ground::new();
    let lb = &ground.topology.lb;
    let other = lb.run(|| others::xdp_pass("eth0")).expect("namespace");
    let other = other.expect("a program");
    let text = format!(
        "eth0: XDP program {} (lets_pass) is attached there",
        other.id
    );
    for mode in ["native", "generic"] {
        let log = ground.refused(&with(&format!(
            "{{name: eth0, mode: {mode}}}, {{name: eth1, mode: {mode}}}"
        )));
        assert!(log.contains(&text), "{log}");
        assert!(log.contains("ip link set dev eth0 xdp off"), "{log}");
    }
    let balancer = ground.start(&config([1, 1], SEED));
    assert_eq!(modes(&balancer), pairs(&[("eth0", "tc"), ("eth1", "tc")]));
    let reason = format!("XDP program {} (lets_pass) is attached there", other.id);
    assert_eq!(status(&balancer)[0].2, reason);
    serves(&ground.topology.clients);
}

/// Another's program at traffic control is named in the log, and sees what is
/// not served.
#[test]
#[ignore = "needs root"]
fn the_tcx_program_of_others_is_named() {
    let ground = Ground::new();
    let lb = &ground.topology.lb;
    let other = lb.run(|| others::tcx_pass("eth0")).expect("namespace");
    let other = other.expect("a program");
    let balancer = ground.start(&with("{name: eth0, mode: tc}, {name: eth1, mode: tc}"));
    serves(&ground.topology.clients);
    let log = balancer.process.log();
    let text = format!("tcx program {} (lets_pass)", other.id);
    assert!(log.contains(&text), "{log}");
}

/// A tcx link is pinned: connections go on without a controller, the next one
/// replaces the program under them, and `detach` leaves nothing.
#[test]
#[ignore = "needs root"]
fn a_tcx_link_outlives_its_controller() {
    let mut world = World::pinned(&with("{name: eth0, mode: tc}, {name: eth1, mode: tc}"));
    let held = Load::start(&world.topology.clients, 443, 100);
    for _ in 0..3 {
        world.balancer.process.kill();
        std::thread::sleep(Duration::from_millis(300));
        world.balancer.relaunch(&binary()).expect("starts again");
        world.balancer.wait_ready().expect("it is ready");
        let found = status(&world.balancer);
        for (name, mode, reason) in &found {
            assert_eq!(
                (&**mode, &**reason),
                ("tc", "it forwards already"),
                "{name}"
            );
        }
        assert_eq!(found.len(), 2);
    }
    let met = held.stop();
    assert!(met.failed.is_empty(), "{:?}", met.failed);
    let log = world.balancer.process.log();
    assert!(log.contains("taken on"), "{log}");
    world.balancer.process.stop().expect("it ends");
    let said = world
        .balancer
        .client(&["detach", "--yes"])
        .expect("it runs");
    assert!(said.status.success(), "{said:?}");
    let clients = &world.topology.clients;
    clients
        .block_on(|| connect(client(0), 0, vip(443)))
        .map(|session| session.server)
        .expect_err("nobody serves any more");
}

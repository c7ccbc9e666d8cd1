//! Kinds of interfaces: those that serve, with real sockets, and those that are
//! refused, with the message. The table of docs/operations.md.

use std::net::Ipv4Addr;

use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::balancer::Balancer;
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::server::Server;
use ocs_lb_test_support::topology::{Arms, LB, SERVERS, Topology};
use ocs_lb_test_support::{kinds, link};

use crate::modes::{Ground, SEED, modes, pairs, serves, status, with};
use crate::world::{Scratch, binary, config};

#[test]
#[ignore = "needs root"]
fn a_bridge_serves_and_its_port_is_refused() {
    let ground = Ground::new();
    let lb = &ground.topology.lb;
    lb.block_on(|| kinds::bridge_over("br0", "eth1"))
        .expect("a bridge");
    ground.move_address("br0");
    let log = ground.refused(&with("eth0, eth1"));
    let text = "eth1: it is a port of the bridge br0, which has the addresses; name br0 instead";
    assert!(log.contains(text), "{log}");
    let balancer = ground.start(&config([1, 1], SEED));
    assert_eq!(modes(&balancer), pairs(&[("eth0", "tc"), ("br0", "tc")]));
    assert_eq!(status(&balancer)[1].2, "it is a bridge");
    serves(&ground.topology.clients);
}

#[test]
#[ignore = "needs root"]
fn a_macvlan_serves() {
    let ground = Ground::new();
    let made = ground
        .topology
        .lb
        .block_on(|| kinds::macvlan("mv0", "eth1"));
    if !made.expect("a macvlan") {
        println!("this kernel has no macvlan");
        return;
    }
    ground.move_address("mv0");
    let balancer = ground.start(&config([1, 1], SEED));
    assert_eq!(modes(&balancer), pairs(&[("eth0", "tc"), ("mv0", "tc")]));
    serves(&ground.topology.clients);
}

#[test]
#[ignore = "needs root"]
fn a_bond_serves_and_its_port_is_refused() {
    let ground = Ground::new();
    let made = ground.topology.lb.block_on(|| kinds::bond("bond0", "eth1"));
    if !made.expect("a bond") {
        println!("this kernel has no bonds");
        return;
    }
    ground.move_address("bond0");
    let log = ground.refused(&with("eth0, eth1"));
    let text = "eth1: it is a port of the bond bond0, which has the addresses; name bond0 instead";
    assert!(log.contains(text), "{log}");
    let balancer = ground.start(&config([1, 1], SEED));
    assert_eq!(modes(&balancer), pairs(&[("eth0", "tc"), ("bond0", "tc")]));
    serves(&ground.topology.clients);
}

/// The sub-interface by traffic control, and its parent alone, whose frames the
/// datapath tags itself.
#[test]
#[ignore = "needs root"]
fn a_vlan_serves_by_itself_and_by_its_parent() {
    for (interfaces, attached) in [
        ("eth0, eth1.7", "eth1.7"),
        ("eth0, {name: eth1, mode: tc}", "eth1"),
        ("eth0, {name: eth1, mode: native}", "eth1"),
    ] {
        let ground = Ground::new();
        let tagged = |namespace: &Namespace, parent: &'static str, address: Ipv4Addr| {
            namespace.block_on(|| async move {
                let made = kinds::vlan(&format!("{parent}.7"), parent, 7).await?;
                if made {
                    link::remove_address(parent, address).await?;
                    link::addresses(&format!("{parent}.7"), [address]).await?;
                }
                Ok(made)
            })
        };
        if !tagged(&ground.topology.lb, "eth1", LB).expect("a VLAN") {
            println!("this kernel has no VLANs");
            return;
        }
        for (namespace, (_, address)) in ground.topology.servers.iter().zip(SERVERS) {
            assert!(tagged(namespace, "eth0", address).expect("a VLAN"));
        }
        let balancer = ground.start(&with(interfaces));
        assert_eq!(modes(&balancer)[1].0, attached);
        serves(&ground.topology.clients);
    }
}

/// A tunnel that carries Ethernet, to one server.
#[test]
#[ignore = "needs root"]
fn a_vxlan_serves() {
    const INNER: [Ipv4Addr; 2] = [
        Ipv4Addr::new(203, 0, 113, 1),
        Ipv4Addr::new(203, 0, 113, 10),
    ];
    let topology = Topology::new(Arms::Two).expect("namespaces");
    let far = SERVERS[0].1;
    let near = topology
        .lb
        .block_on(|| kinds::vxlan("vx0", LB, far))
        .expect("a VXLAN");
    if !near {
        println!("this kernel has no VXLAN");
        return;
    }
    let inner = topology.lb.block_on(|| link::addresses("vx0", [INNER[0]]));
    inner.expect("an address");
    let there = topology.servers[0].block_on(|| async move {
        kinds::vxlan("vx0", far, LB).await?;
        link::addresses("vx0", [INNER[1]]).await
    });
    there.expect("the far end");
    let _server =
        Server::start(&topology.servers[0], "tunnelled", INNER[1], &PORTS).expect("a server");
    let text = format!(
        "version: 1
clusters:
  - name: ocs
    vips: [192.0.2.1]
    ports: [5061]
    backends:
      - {{name: tunnelled, address: {}}}
",
        INNER[1]
    );
    let scratch = Scratch::new();
    let mut balancer =
        Balancer::launch(&topology.lb, &binary(), &text, &scratch.0).expect("it starts");
    balancer.wait_ready().expect("it is ready");
    assert_eq!(modes(&balancer), pairs(&[("eth0", "tc"), ("vx0", "tc")]));
    assert_eq!(status(&balancer)[1].2, "it is a vxlan");
    serves(&topology.clients);
}

/// What no mode serves says what to do.
#[test]
#[ignore = "needs root"]
fn what_is_not_served_is_refused_with_the_remedy() {
    let ground = Ground::new();
    let lb = &ground.topology.lb;
    let tun = lb.run(|| kinds::tun("tun0")).expect("namespace");
    let _tun = tun.expect("a tun");
    let cases = [
        (
            "lo",
            "lo: the loopback carries nothing of others; name the interface that clients come in \
             by (the VIP may stay on lo)",
        ),
        (
            "tun0",
            "tun0: a tap without Ethernet header is not served; let clients and backends come by \
             an Ethernet interface (for a tunnel: gretap, vxlan or geneve)",
        ),
    ];
    for (name, text) in cases {
        for mode in ["auto", "native", "generic", "tc"] {
            let log = ground.refused(&with(&format!("eth1, {{name: {name}, mode: {mode}}}")));
            assert!(log.contains(text), "{mode}: {log}");
        }
    }
    if lb.block_on(|| kinds::dummy("vips")).expect("a dummy") {
        let log = ground.refused(&with("eth0, vips"));
        assert!(
            log.contains("vips: nothing ever comes in on a dummy"),
            "{log}"
        );
    }
}

//! `auto_last_hop`: answers go to the MAC address that a SYN came from.

use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::net::{GATEWAY_MAC, WAN_MAC};
use ocs_lb_tests::packet::{End, Frame, flag};
use ocs_lb_tests::plan::{CLIENT, Plan, SERVICE};
use ocs_lb_tests::prog::Program;

use crate::scene::{CLIENT_ISN, Connection, SERVER_ISN, Scene, ends};

/// A router that no routing table has.
const SENDER: [u8; 6] = [0x02, 0, 0, 0, 0x77, 0x01];
/// Nobody has a route there.
const FAR: [u8; 4] = [172, 16, 0, 9];

fn scene(auto_last_hop: u32) -> Scene {
    let mut plan = Plan::default();
    plan.settings.auto_last_hop = auto_last_hop;
    Scene::of(&plan)
}

fn syn(client: End, sender: [u8; 6]) -> Frame {
    Frame {
        mac_source: sender,
        ..Frame::tcp(client, SERVICE, flag::SYN).numbers(CLIENT_ISN, 0)
    }
}

fn opened(scene: &mut Scene, frame: &Frame) -> Connection {
    let (snat, backend) = ends(&scene.forwards(false, frame));
    Connection {
        client: frame.source,
        service: SERVICE,
        snat,
        backend,
    }
}

fn answer(connection: &Connection) -> Frame {
    connection
        .back(flag::SYN | flag::ACK)
        .numbers(SERVER_ISN, CLIENT_ISN + 1)
}

/// The next hop of a connection's way back.
fn way_back(scene: &Scene, connection: &Connection) -> u16 {
    let flow = scene.world.flow(connection.backend, connection.snat);
    flow.expect("the reverse entry").next_hop
}

#[test]
#[ignore = "needs root"]
fn the_sender_is_the_way_back() {
    let mut scene = scene(1);
    for (client, sender) in [((FAR, 40_000), SENDER), (CLIENT, [0x02, 0, 0, 0, 0x77, 2])] {
        let connection = opened(&mut scene, &syn(client, sender));
        let bytes = scene.forwards(true, &answer(&connection));
        assert_eq!(bytes[..6], sender);
        assert_eq!(bytes[6..12], WAN_MAC);
        assert_eq!(ends(&bytes), (SERVICE, client));
    }
}

#[test]
#[ignore = "needs root"]
fn without_it_the_routing_table_is_asked() {
    let mut scene = scene(0);
    let outcome = scene.wan(&syn((FAR, 40_000), SENDER));
    assert_eq!(outcome.verdict, Verdict::NoRoute);
    assert_eq!(scene.entries(), 0);
    let connection = opened(&mut scene, &syn(CLIENT, SENDER));
    let bytes = scene.forwards(true, &answer(&connection));
    assert_eq!(bytes[..6], GATEWAY_MAC, "whoever sent the frame");
}

/// One sender is one next hop, and a flow keeps that of its SYN.
#[test]
#[ignore = "needs root"]
fn a_sender_has_one_slot() {
    let mut scene = scene(1);
    let first = opened(&mut scene, &syn((FAR, 40_000), SENDER));
    let second = opened(&mut scene, &syn((FAR, 40_001), SENDER));
    let other = opened(&mut scene, &syn((FAR, 40_002), GATEWAY_MAC));
    let hop = way_back(&scene, &first);
    assert_eq!(way_back(&scene, &second), hop);
    assert_ne!(way_back(&scene, &other), hop);
    scene.forwards(true, &answer(&first));
    let mut ack = first
        .there(flag::ACK)
        .numbers(CLIENT_ISN + 1, SERVER_ISN + 1);
    ack.mac_source = GATEWAY_MAC;
    scene.forwards(false, &ack);
    assert_eq!(way_back(&scene, &first), hop);
}

/// Senders in two VLANs may have one MAC address; answers have the tag.
#[test]
#[ignore = "needs root"]
fn a_vlan_is_part_of_the_way_back() {
    let mut scene = scene(1);
    let mut hops = Vec::new();
    for (port, vlan) in [(40_000, Some(7)), (40_001, Some(8)), (40_002, None)] {
        let frame = Frame {
            vlan,
            ..syn((FAR, port), SENDER)
        };
        let connection = opened(&mut scene, &frame);
        hops.push(way_back(&scene, &connection));
        let outcome = scene.lan(&answer(&connection));
        assert_eq!(outcome.verdict, Verdict::Redirect, "{vlan:?}");
        assert_eq!(outcome.bytes[..6], SENDER, "{vlan:?}");
        // A socket buffer has its tag beside the data.
        let in_data = vlan.filter(|_| scene.world.program == Program::Xdp);
        let wanted = match in_data {
            Some(id) => [&[0x81, 0x00][..], &u16::to_be_bytes(id), &[0x08, 0x00]].concat(),
            None => vec![0x08, 0x00],
        };
        assert_eq!(outcome.bytes[12..12 + wanted.len()], wanted, "{vlan:?}");
    }
    hops.sort_unstable();
    hops.dedup();
    assert_eq!(hops.len(), 3);
}

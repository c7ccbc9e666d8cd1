//! VLAN tags (IEEE 802.1Q): taken off on the way in, put on for the next hop.

use ocs_lb_common::abi::{NextHop, Tag, Tags};
use ocs_lb_common::address::Be16;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::packet::{End, Frame, dump, flag, verify};
use ocs_lb_tests::plan::{CLIENT, FIRST_HOP, SERVICE, VIP};
use ocs_lb_tests::prog::{Outcome, Program};

use crate::scene::{CLIENT_ISN, SERVER_ISN, Scene, client, ends};

/// Priority 5, VLAN 7.
const URGENT: u16 = 5 << 13 | 7;

fn tag(protocol: u16, control: u16) -> Tag {
    Tag {
        protocol: Be16::new(protocol),
        control: Be16::new(control),
    }
}

/// The frame with tags around it, the outer first.
fn tagged(frame: &Frame, tags: &[Tag]) -> Vec<u8> {
    let mut bytes = frame.bytes();
    for tag in tags.iter().rev() {
        let header = [tag.protocol.0, tag.control.0].concat();
        bytes.splice(12..12, header);
    }
    bytes
}

impl Scene {
    /// Gives the next hop of every backend tags.
    fn tag_backends(&mut self, tags: Tags) {
        let hops = &mut self.world.loaded.maps.next_hops;
        for id in [FIRST_HOP, FIRST_HOP + 1] {
            let hop = hops.get(&id.into(), 0).expect("a next hop");
            let hop = NextHop { tags, ..hop };
            hops.set(id.into(), hop, 0).expect("a next hop");
        }
    }

    /// Runs a frame from the clients that must be forwarded with `tags`, and
    /// gives it back without them.
    fn sends_with(&mut self, name: &str, frame: &[u8], tags: &[Tag]) -> Vec<u8> {
        let outcome = self.world.run(self.world.net.wan, frame).expect("a run");
        assert_eq!(
            outcome.verdict,
            Verdict::Redirect,
            "{name}: {}",
            dump(frame)
        );
        self.without(name, outcome, tags)
    }

    fn without(&self, name: &str, outcome: Outcome, tags: &[Tag]) -> Vec<u8> {
        // A socket buffer has its outer tag beside the data.
        let in_data = match self.world.program {
            Program::Xdp => tags,
            Program::Tc => tags.get(1..).unwrap_or_default(),
        };
        let wanted: Vec<u8> = in_data
            .iter()
            .flat_map(|tag| [tag.protocol.0, tag.control.0].concat())
            .collect();
        let mut bytes = outcome.bytes;
        let found: Vec<u8> = bytes.drain(12..12 + wanted.len()).collect();
        assert_eq!(found, wanted, "{name}");
        assert_eq!(bytes[12..14], [0x08, 0x00], "{name}: {}", dump(&bytes));
        assert_eq!(verify(&bytes), Ok(()), "{name}");
        bytes
    }
}

/// Whatever a packet came with, it leaves with its next hop's tags; one that
/// stays in its VLAN keeps its priority.
#[test]
#[ignore = "needs root"]
fn a_packet_leaves_with_the_tags_of_its_next_hop() {
    let none = Tags::default();
    let seven = [tag(0x8100, 7), Tag::default()];
    let urgent = tag(0x8100, URGENT);
    let both = [tag(0x88a8, 100), tag(0x8100, 7)];
    let cases: [(&str, &[Tag], Tags, &[Tag]); 8] = [
        ("none to none", &[], none, &[]),
        ("one to none", &[urgent], none, &[]),
        ("two to none", &[both[0], urgent], none, &[]),
        ("none to one", &[], seven, &seven[..1]),
        ("one to the same", &[urgent], seven, &[urgent]),
        ("one to another", &[tag(0x8100, 8)], seven, &seven[..1]),
        ("none to two", &[], both, &both),
        (
            "two to the same",
            &[both[0], urgent],
            both,
            &[both[0], urgent],
        ),
    ];
    for (at, (name, came_with, hop, wanted)) in cases.into_iter().enumerate() {
        let mut scene = Scene::new();
        scene.tag_backends(hop);
        let syn = syn(client(at as u8 + 1), SERVICE);
        let bytes = scene.sends_with(name, &tagged(&syn, came_with), wanted);
        assert_eq!(bytes.len(), syn.bytes().len(), "{name}");
        // The same again, by the fast way.
        scene.sends_with(name, &tagged(&syn, came_with), wanted);
    }
}

fn syn(from: End, to: End) -> Frame {
    Frame::tcp(from, to, flag::SYN).numbers(CLIENT_ISN, 0)
}

/// Answers from a tagged link go to a client without tags, and data both ways.
#[test]
#[ignore = "needs root"]
fn a_connection_across_a_tagged_link() {
    let mut scene = Scene::new();
    let seven = [tag(0x8100, 7), Tag::default()];
    scene.tag_backends(seven);
    let opening = scene.sends_with("SYN", &syn(CLIENT, SERVICE).bytes(), &seven[..1]);
    let (snat, backend) = ends(&opening);
    let answer =
        Frame::tcp(backend, snat, flag::SYN | flag::ACK).numbers(SERVER_ISN, CLIENT_ISN + 1);
    let lan = scene.world.net.lan;
    let outcome = scene
        .world
        .run(lan, &tagged(&answer, &[tag(0x8100, URGENT)]))
        .expect("a run");
    assert_eq!(outcome.verdict, Verdict::Redirect);
    let answer = scene.without("SYN-ACK", outcome, &[]);
    assert_eq!(ends(&answer), (SERVICE, CLIENT));
    let data = Frame::tcp(CLIENT, SERVICE, flag::ACK)
        .numbers(CLIENT_ISN + 1, SERVER_ISN + 1)
        .data(*b"tagged");
    scene.sends_with("data", &data.bytes(), &seven[..1]);
    assert_eq!(scene.held(), (0, 1));
}

/// The host gets what is not ours as it was.
#[test]
#[ignore = "needs root"]
fn what_the_host_gets_keeps_its_tags() {
    let mut scene = Scene::new();
    let tags = [tag(0x88a8, 100), tag(0x8100, URGENT), tag(0x8100, 9)];
    let cases = [
        (
            "elsewhere",
            syn(CLIENT, ([192, 0, 2, 77], 80)),
            2,
            Verdict::Vlan,
        ),
        (
            "unserved port, one",
            syn(CLIENT, (VIP, 22)),
            1,
            Verdict::Unserved,
        ),
        (
            "unserved port, two",
            syn(CLIENT, (VIP, 22)),
            2,
            Verdict::Unserved,
        ),
        ("served port, three", syn(CLIENT, SERVICE), 3, Verdict::Vlan),
    ];
    for (name, frame, count, wanted) in cases {
        let bytes = tagged(&frame, &tags[..count]);
        let outcome = scene.world.run(scene.world.net.wan, &bytes).expect("a run");
        assert_eq!(outcome.verdict, wanted, "{name}");
        let wanted = match scene.world.program {
            // Its outer tag lies beside the data by now.
            Program::Tc if wanted == Verdict::Unserved => tagged(&frame, &tags[1..count]),
            _ => bytes,
        };
        assert_eq!(outcome.bytes, wanted, "{name}");
        assert_eq!(scene.entries(), 0, "{name}");
    }
}

//! What the cases share: a world with shorthands for a connection's segments.

use std::time::Duration;

use ocs_lb_common::abi::{ClusterLoad, Event, EventKind, Flow, PortMap, Reason};
use ocs_lb_common::address::V4;
use ocs_lb_common::ticks;
use ocs_lb_common::track::Phase;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::net::backend_mac;
use ocs_lb_tests::packet::{End, Frame, dump, flag, verify};
use ocs_lb_tests::plan::{BACKENDS, CLIENT, Plan, SERVICE, SNAT};
use ocs_lb_tests::prog::{Action, Outcome, World};

/// First sequence number of clients.
pub const CLIENT_ISN: u32 = 0x1000_0000;
/// First sequence number of backends.
pub const SERVER_ISN: u32 = 0x2000_0000;

/// A world under test.
pub struct Scene {
    pub world: World,
}

/// One connection, as both ends see it.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    pub client: End,
    pub service: End,
    pub snat: End,
    pub backend: End,
}

impl Scene {
    pub fn new() -> Self {
        Self::of(&Plan::default())
    }

    pub fn of(plan: &Plan) -> Self {
        Self {
            world: World::new(plan).expect("a world"),
        }
    }

    /// Runs a frame from the clients' side.
    pub fn wan(&mut self, frame: &Frame) -> Outcome {
        self.world
            .run(self.world.net.wan, &frame.bytes())
            .expect("a run")
    }

    /// Runs a frame from the backends' side.
    pub fn lan(&mut self, frame: &Frame) -> Outcome {
        self.world
            .run(self.world.net.lan, &frame.bytes())
            .expect("a run")
    }

    /// The same frame must be forwarded, with valid checksums.
    pub fn forwards(&mut self, from_lan: bool, frame: &Frame) -> Vec<u8> {
        let outcome = if from_lan {
            self.lan(frame)
        } else {
            self.wan(frame)
        };
        assert_eq!(
            outcome.verdict,
            Verdict::Redirect,
            "{}",
            dump(&frame.bytes())
        );
        assert_eq!(outcome.action, Action::Redirect);
        assert_eq!(verify(&outcome.bytes), Ok(()));
        outcome.bytes
    }

    /// A client's SYN, and whom it met.
    pub fn syn(&mut self, client: End) -> Connection {
        self.syn_to(client, SERVICE)
    }

    pub fn syn_to(&mut self, client: End, service: End) -> Connection {
        let frame = Frame::tcp(client, service, flag::SYN).numbers(CLIENT_ISN, 0);
        let bytes = self.forwards(false, &frame);
        let (snat, backend) = ends(&bytes);
        Connection {
            client,
            service,
            snat,
            backend,
        }
    }

    /// A whole handshake.
    pub fn open(&mut self, client: End) -> Connection {
        let connection = self.syn(client);
        self.handshake(&connection);
        connection
    }

    /// The rest of a handshake.
    pub fn handshake(&mut self, connection: &Connection) {
        self.forwards(
            true,
            &connection
                .back(flag::SYN | flag::ACK)
                .numbers(SERVER_ISN, CLIENT_ISN + 1),
        );
        self.forwards(
            false,
            &connection
                .there(flag::ACK)
                .numbers(CLIENT_ISN + 1, SERVER_ISN + 1),
        );
    }

    pub fn held(&self) -> (u32, u32) {
        self.world.held().expect("counts")
    }

    pub fn load(&self) -> ClusterLoad {
        self.world.load().expect("counts")
    }

    /// The ports towards a connection's backend.
    pub fn ports(&self, connection: &Connection) -> PortMap {
        self.ports_towards(connection.backend)
    }

    pub fn ports_towards(&self, backend: End) -> PortMap {
        let map = self.world.port_map(SNAT, backend).expect("a port map");
        let count = |words: &[u64]| -> u32 { words.iter().map(|word| word.count_ones()).sum() };
        assert_eq!(count(&map.leaves), map.used, "the bitmap and its counter");
        assert_eq!(count(&map.rest), map.resting, "those that rest");
        for (used, rest) in map.leaves.iter().zip(&map.rest) {
            assert_eq!(rest & !used, 0, "what rests is in use");
        }
        map
    }

    /// Ports in use towards a connection's backend, resting ones included.
    pub fn ports_used(&self, connection: &Connection) -> u32 {
        let map = self.world.port_map(connection.snat.0, connection.backend);
        map.expect("a port map").used
    }

    pub fn entries(&self) -> usize {
        self.world.flows().expect("flows").len()
    }

    /// The forward entry of a client's flow.
    pub fn flow(&self, client: End) -> Option<Flow<V4>> {
        self.world.flow(client, SERVICE)
    }

    /// A client's flow as it is recorded.
    pub fn connection(&self, client: End) -> Connection {
        let flow = self.flow(client).expect("a flow");
        Connection {
            client,
            service: SERVICE,
            snat: (flow.source.0, flow.source_port.get()),
            backend: (flow.destination.0, flow.destination_port.get()),
        }
    }

    pub fn phase(&self, client: End) -> Option<Phase> {
        self.flow(client).map(|flow| flow.state.phase())
    }

    /// The phase of the backend's side: what is left where a client has gone on.
    pub fn phase_back(&self, connection: &Connection) -> Option<Phase> {
        let flow = self.world.flow(connection.backend, connection.snat);
        flow.map(|flow| flow.state.phase())
    }

    /// Lets time pass for all that is recorded.
    pub fn age(&mut self, time: Duration) {
        self.world.age(ticks::duration(time)).expect("older");
    }

    /// Whatever side the frame comes from, it is sent, by whichever way out.
    pub fn sends(&mut self, from_lan: bool, frame: &Frame) -> Seen {
        let outcome = if from_lan {
            self.lan(frame)
        } else {
            self.wan(frame)
        };
        let sent = matches!(outcome.verdict, Verdict::Redirect | Verdict::Tx);
        assert!(sent, "{:?} for {}", outcome.verdict, dump(&frame.bytes()));
        assert_eq!(verify(&outcome.bytes), Ok(()));
        Seen::of(&outcome.bytes)
    }

    /// The frame is answered with a RST, which is returned.
    pub fn answered(&mut self, from_lan: bool, frame: &Frame) -> Seen {
        let outcome = if from_lan {
            self.lan(frame)
        } else {
            self.wan(frame)
        };
        assert_eq!(
            outcome.verdict,
            Verdict::Answered,
            "{}",
            dump(&frame.bytes())
        );
        assert_eq!(verify(&outcome.bytes), Ok(()));
        let seen = Seen::of(&outcome.bytes);
        assert_eq!((seen.from, seen.to), (frame.destination, frame.source));
        assert!(seen.flags & flag::RST != 0);
        seen
    }

    /// The backend's RST to a connection's SYN.
    pub fn refuse(&mut self, connection: &Connection) -> Seen {
        self.sends(true, &connection.refusal())
    }

    /// Kinds and reasons of the events since the last look, without the sticky
    /// ones.
    pub fn told(&mut self) -> Vec<(EventKind, Option<Reason>)> {
        let events = self.world.events();
        let kinds = events.iter().map(|event| {
            let kind = EventKind::from_number(event.kind).expect("a kind");
            (kind, Reason::from_number(event.reason))
        });
        kinds
            .filter(|(kind, _)| *kind != EventKind::Sticky)
            .collect()
    }

    /// The events of one kind since the last look; all others are forgotten.
    pub fn events(&mut self, kind: EventKind) -> Vec<Event<V4>> {
        let mut events = self.world.events();
        events.retain(|event| event.kind == kind as u8);
        events
    }
}

impl Connection {
    /// A segment of the client after its handshake.
    pub fn there(&self, flags: u8) -> Frame {
        Frame::tcp(self.client, self.service, flags).numbers(CLIENT_ISN + 1, SERVER_ISN + 1)
    }

    /// A segment of the backend after its handshake.
    pub fn back(&self, flags: u8) -> Frame {
        let mut frame =
            Frame::tcp(self.backend, self.snat, flags).numbers(SERVER_ISN + 1, CLIENT_ISN + 1);
        frame.mac_destination = ocs_lb_tests::net::LAN_MAC;
        frame.mac_source = backend_mac(self.backend.0[3]);
        frame
    }

    /// The backend's RST to the SYN.
    pub fn refusal(&self) -> Frame {
        self.back(flag::RST | flag::ACK)
            .numbers(0, CLIENT_ISN.wrapping_add(1))
    }

    /// The client's SYN, as it is sent first.
    pub fn opening(&self) -> Frame {
        Frame::tcp(self.client, self.service, flag::SYN).numbers(CLIENT_ISN, 0)
    }

    /// The same flow as its backend sees it after a SYN was `seen` elsewhere.
    pub fn moved(&self, seen: &Seen) -> Self {
        Self {
            snat: seen.from,
            backend: seen.to,
            ..*self
        }
    }
}

/// What a sent frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Destination, then source.
    pub macs: [[u8; 6]; 2],
    pub tos: u8,
    pub ttl: u8,
    pub from: End,
    pub to: End,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Seen {
    pub fn of(frame: &[u8]) -> Self {
        let (from, to) = ends(frame);
        let tcp = 14 + usize::from(frame[14] & 15) * 4;
        let data = tcp + usize::from(frame[tcp + 12] >> 4) * 4;
        let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        let word = |at: usize| frame[at..at + 4].try_into().map(u32::from_be_bytes);
        let mac = |at: usize| frame[at..at + 6].try_into().expect("a MAC");
        Self {
            macs: [mac(0), mac(6)],
            tos: frame[15],
            ttl: frame[22],
            from,
            to,
            seq: word(tcp + 4).expect("a number"),
            ack: word(tcp + 8).expect("a number"),
            flags: frame[tcp + 13],
            window: u16::from_be_bytes([frame[tcp + 14], frame[tcp + 15]]),
            options: frame[tcp + 20..data].to_vec(),
            payload: frame[data..end].to_vec(),
        }
    }
}

/// The SNAT port of an event's flow.
pub fn port_of(event: &Event<V4>) -> u16 {
    u16::from_be(event.snat_port as u16)
}

/// Source and destination of a frame.
pub fn ends(frame: &[u8]) -> (End, End) {
    let tcp = 14 + usize::from(frame[14] & 15) * 4;
    let address = |at: usize| [frame[at], frame[at + 1], frame[at + 2], frame[at + 3]];
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    ((address(26), port(tcp)), (address(30), port(tcp + 2)))
}

/// Client number `n`, all with one source port.
pub const fn client(n: u8) -> End {
    ([203, 0, 113, n], CLIENT.1)
}

pub const BACKEND_A: [u8; 4] = BACKENDS[0];

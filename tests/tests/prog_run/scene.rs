//! What the cases share: a world with shorthands for a connection's segments.

use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::net::backend_mac;
use ocs_lb_tests::packet::{End, Frame, dump, flag, verify};
use ocs_lb_tests::plan::{BACKENDS, CLIENT, Plan, SERVICE};
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

    /// Ports in use towards a connection's backend.
    pub fn ports_used(&self, connection: &Connection) -> u32 {
        let map = self
            .world
            .port_map(connection.snat.0, connection.backend)
            .expect("a port map");
        let bits: u32 = map.leaves.iter().map(|leaf| leaf.count_ones()).sum();
        assert_eq!(bits, map.used, "the bitmap and its counter");
        map.used
    }

    pub fn entries(&self) -> usize {
        self.world.flows().expect("flows").len()
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

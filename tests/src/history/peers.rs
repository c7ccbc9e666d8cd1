//! Clients, servers and the network between them: sloppy on purpose.

use std::collections::HashMap;

use ocs_lb_common::abi::FlowKey;
use ocs_lb_common::address::V4;
use ocs_lb_common::parse::{Packet, parse_ipv4};
use ocs_lb_common::verdict::Verdict;
use ocs_lb_common::wire::{Flags, SliceFrame};

use crate::packet::{End, Frame, flag};
use crate::plan::{BACKENDS, SERVICE};
use crate::prog::{Action, Outcome};
use crate::random::Random;

/// Frames under way at most.
const UNDER_WAY: usize = 24;

/// One end of a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Talk {
    /// Next number to send.
    seq: u32,
    /// Next number expected.
    ack: u32,
    /// Speaks: the handshake is done as far as this end knows.
    open: bool,
    /// A client's SYN was sent.
    syn: bool,
    /// First number.
    isn: u32,
    /// Sends timestamps.
    stamps: bool,
}

/// How a backend is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Serves,
    Refuses,
    Silent,
}

/// Everybody but the datapath.
pub struct Peers {
    clients: Vec<(End, Talk)>,
    servers: HashMap<FlowKey<V4>, Talk>,
    moods: [Mood; 2],
    under_way: Vec<(bool, Vec<u8>)>,
    clock: u32,
}

impl Peers {
    /// Some clients at rest.
    pub fn new(random: &mut Random) -> Self {
        let client = |at: usize| {
            let address = [203, 0, 113, 7 + (at % 3) as u8];
            ((address, 40_000 + (at / 3) as u16), Talk::default())
        };
        Self {
            clients: (0..2 + random.below(6)).map(client).collect(),
            servers: HashMap::new(),
            moods: [Mood::Serves; 2],
            under_way: Vec::new(),
            clock: random.next() as u32,
        }
    }

    /// Somebody's mood changes.
    pub fn weather(&mut self, random: &mut Random) {
        let mood = [Mood::Serves, Mood::Serves, Mood::Refuses, Mood::Silent];
        self.moods[random.below(2)] = mood[random.below(4)];
    }

    /// A client or a server does something of its own.
    pub fn act(&mut self, random: &mut Random, now: u64) {
        self.clock = self.clock.wrapping_add((now >> 20) as u32 & 7);
        if random.one_in(3) && !self.servers.is_empty() {
            self.serve(random);
            return;
        }
        let at = random.below(self.clients.len());
        let stamp = self.clock;
        let (end, client) = &mut self.clients[at];
        if !client.syn || !client.open && random.one_in(12) {
            *client = Talk {
                seq: random.next() as u32,
                syn: true,
                stamps: random.one_in(2),
                ..Talk::default()
            };
            client.isn = client.seq;
        }
        let mut frame = Frame::tcp(*end, SERVICE, flag::SYN).numbers(client.isn, 0);
        if client.open {
            frame.flags = flag::ACK;
            frame = frame.numbers(client.seq, client.ack);
            match random.below(12) {
                0 => frame.flags = flag::RST,
                1 => frame.flags = flag::RST | flag::ACK,
                2..=4 => frame.flags = flag::FIN | flag::ACK,
                5 => frame.flags = flag::SYN,
                _ => frame.payload = vec![7; random.below(3)],
            }
        } else if random.one_in(14) {
            frame.flags = [flag::RST, flag::FIN | flag::ACK, flag::ACK][random.below(3)];
            frame.seq = client.isn.wrapping_add(1);
        } else if random.one_in(20) {
            frame.payload = vec![1];
        }
        if client.stamps {
            let [a, b, c, d] = stamp.to_be_bytes();
            let mut options = vec![1, 1, 8, 10, a, b, c, d, 0, 0, 0, 0];
            if frame.flags & flag::SYN != 0 {
                options.extend([2, 4, 5, 0xb4, 1, 3, 3, 7]);
            }
            frame.tcp_options = options;
        }
        advance(client, &frame);
        if frame.flags & flag::RST != 0 {
            *client = Talk::default();
        }
        self.send(false, &frame);
    }

    fn serve(&mut self, random: &mut Random) {
        // A map's order is not repeatable; the key of the lowest port is.
        let mut keys: Vec<_> = self.servers.keys().copied().collect();
        keys.sort_by_key(|key| (key.destination, key.source_port));
        let key = keys[random.below(keys.len())];
        if self.moods[slot(&key)] == Mood::Silent {
            return;
        }
        let Some(server) = self.servers.get_mut(&key) else {
            return;
        };
        let mut frame = reply(&key, flag::ACK).numbers(server.seq, server.ack);
        match random.below(10) {
            0 => frame.flags = flag::RST | flag::ACK,
            1..=4 => frame.flags = flag::FIN | flag::ACK,
            5 if !server.open => {
                frame.flags = flag::SYN | flag::ACK;
                frame.seq = server.isn;
            }
            _ => frame.payload = vec![9; random.below(3)],
        }
        advance(server, &frame);
        if frame.flags & flag::RST != 0 {
            self.servers.remove(&key);
        }
        self.send(true, &frame);
    }

    /// A frame that reaches the datapath now: mostly the oldest, sometimes
    /// another one, sometimes none, sometimes twice.
    pub fn next(&mut self, random: &mut Random) -> Option<(bool, Vec<u8>)> {
        if self.under_way.is_empty() {
            return None;
        }
        let at = if random.one_in(4) {
            random.below(self.under_way.len())
        } else {
            0
        };
        match random.below(16) {
            0 => {
                self.under_way.remove(at);
                None
            }
            1 => Some(self.under_way[at].clone()),
            _ => Some(self.under_way.remove(at)),
        }
    }

    /// What the datapath sent reaches its receiver.
    pub fn deliver(&mut self, outcome: &Outcome, _now: u64) {
        let mut bytes = outcome.bytes.clone();
        let Ok(packet) = parse_ipv4(&SliceFrame(&mut bytes)) else {
            return;
        };
        if outcome.verdict == Verdict::HostSnat {
            // The host has no such connection and says so; its own packets do
            // not come by here.
            self.servers.remove(&packet.key.reversed());
            return;
        }
        if !matches!(outcome.action, Action::Tx | Action::Redirect) {
            return;
        }
        if BACKENDS.contains(&packet.key.destination.0) {
            self.at_server(&packet);
        } else {
            self.at_client(&packet);
        }
    }

    fn at_client(&mut self, packet: &Packet<V4>) {
        let to = (packet.key.destination.0, packet.key.destination_port.get());
        let Some((end, client)) = self.clients.iter_mut().find(|(end, _)| *end == to) else {
            return;
        };
        let (end, segment) = (*end, &packet.segment);
        if segment.flags.any(Flags::RST) {
            *client = Talk::default();
            return;
        }
        if segment.flags.any(Flags::SYN) && !client.open && client.syn {
            client.open = true;
            client.seq = client.isn.wrapping_add(1);
        }
        if !client.open {
            return;
        }
        client.ack = segment.end();
        let ack = Frame::tcp(end, SERVICE, flag::ACK).numbers(client.seq, client.ack);
        let answer = segment.end() != segment.seq;
        if answer {
            self.send(false, &ack);
        }
    }

    fn at_server(&mut self, packet: &Packet<V4>) {
        let (key, segment) = (packet.key, &packet.segment);
        match self.moods[slot(&key)] {
            Mood::Silent => return,
            Mood::Refuses if segment.flags.is_open() => {
                let refusal = reply(&key, flag::RST | flag::ACK).numbers(0, segment.end());
                self.send(true, &refusal);
                return;
            }
            _ => {}
        }
        if segment.flags.any(Flags::RST) {
            self.servers.remove(&key);
            return;
        }
        if segment.flags.is_open() {
            let server = Talk {
                isn: segment.seq ^ 0x5555_5555,
                seq: (segment.seq ^ 0x5555_5555).wrapping_add(1),
                ack: segment.seq.wrapping_add(1),
                ..Talk::default()
            };
            self.servers.insert(key, server);
            let answer = reply(&key, flag::SYN | flag::ACK).numbers(server.isn, server.ack);
            self.send(true, &answer);
            return;
        }
        let Some(server) = self.servers.get_mut(&key) else {
            return;
        };
        server.open = true;
        server.ack = segment.end();
        if segment.end() != segment.seq {
            let answer = reply(&key, flag::ACK).numbers(server.seq, server.ack);
            self.send(true, &answer);
        }
    }

    fn send(&mut self, from_lan: bool, frame: &Frame) {
        if self.under_way.len() < UNDER_WAY {
            self.under_way.push((from_lan, frame.bytes()));
        }
    }
}

fn advance(end: &mut Talk, frame: &Frame) {
    if frame.flags & flag::SYN != 0 {
        return;
    }
    let fin = u32::from(frame.flags & flag::FIN != 0);
    end.seq = frame.seq.wrapping_add(frame.payload.len() as u32 + fin);
}

fn slot(key: &FlowKey<V4>) -> usize {
    usize::from(key.destination.0 == BACKENDS[1])
}

/// From the backend, to whoever sent `key`.
fn reply(key: &FlowKey<V4>, flags: u8) -> Frame {
    Frame::tcp(
        (key.destination.0, key.destination_port.get()),
        (key.source.0, key.source_port.get()),
        flags,
    )
}

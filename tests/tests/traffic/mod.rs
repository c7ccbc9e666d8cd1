//! Random frames that look like traffic: connections at every stage, and
//! frames that are broken on purpose.

use std::collections::HashMap;

use ocs_lb_common::abi::{Flow, FlowKey};
use ocs_lb_common::address::V4;
use ocs_lb_tests::icmp::Icmp;
use ocs_lb_tests::packet::{End, Frame, MORE_FRAGMENTS, flag};
use ocs_lb_tests::plan::{BACKENDS, SNAT, VIP};
use ocs_lb_tests::random::Random;

const SYN_OPTIONS: [u8; 20] = [
    2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7,
];

/// A flow's forward key and entry, then those of the other direction.
type Entries<'a> = (FlowKey<V4>, &'a Flow<V4>, FlowKey<V4>, &'a Flow<V4>);

/// A source of frames.
pub struct Traffic {
    random: Random,
    /// Forward keys in order of appearance: a map's order is not repeatable.
    known: Vec<FlowKey<V4>>,
}

impl Traffic {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            known: Vec::new(),
        }
    }

    /// The next frame and whether it comes from the backends' side. `flows`
    /// tells sequence numbers and tuples that fit.
    pub fn next(&mut self, flows: &HashMap<FlowKey<V4>, Flow<V4>>) -> (bool, Vec<u8>) {
        let (from_lan, mut bytes) = match self.random.below(40) {
            0..=9 => (false, self.opening().bytes()),
            10..=11 => (self.random.one_in(2), self.stray().bytes()),
            12..=13 => self.icmp(flows),
            _ => {
                let (from_lan, frame) = self.of_a_flow(flows);
                (from_lan, frame.bytes())
            }
        };
        if self.random.one_in(6) {
            self.damage(&mut bytes);
        }
        (from_lan, bytes)
    }

    fn client(&mut self) -> End {
        let host = self.random.below(60) as u8;
        let port = 40_000 + self.random.below(12) as u16;
        match self.random.below(40) {
            0 => ([10, 99, 0, host], port),
            1 => (BACKENDS[usize::from(host) % 2], port),
            2 => ([127, 0, 0, 1], port),
            3 => ([8, 8, 8, host], port),
            _ => ([203, 0, 113, host], port),
        }
    }

    fn opening(&mut self) -> Frame {
        let port = [5061, 5061, 5061, 443, 80][self.random.below(5)];
        let client = self.client();
        let mut frame = Frame::tcp(client, (VIP, port), flag::SYN);
        frame.seq = self.random.next() as u32;
        if self.random.one_in(2) {
            frame.tcp_options = SYN_OPTIONS.to_vec();
        }
        let key = ocs_lb_tests::prog::key(frame.source, frame.destination);
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.vary(frame)
    }

    /// To somewhere, with anything.
    fn stray(&mut self) -> Frame {
        let port = self.random.next() as u16;
        let to = [VIP, SNAT, [192, 0, 2, 77]][self.random.below(3)];
        let destination = (to, [port, 5061][self.random.below(2)]);
        let flags = self.random.next() as u8;
        let client = self.client();
        let mut frame = Frame::tcp(client, destination, flags).numbers(7, 9);
        if self.random.one_in(8) {
            frame.vlan = Some(7);
        }
        if self.random.one_in(8) {
            frame.protocol = 17;
        }
        if self.random.one_in(16) {
            frame.source.0 = [VIP, SNAT][self.random.below(2)];
        }
        self.vary(frame)
    }

    /// A segment of a flow, either way, mostly of the right numbers.
    fn of_a_flow(&mut self, flows: &HashMap<FlowKey<V4>, Flow<V4>>) -> (bool, Frame) {
        if self.known.is_empty() {
            return (false, self.opening());
        }
        let Some((key, forward, reverse_key, reverse)) = self.flow(flows) else {
            return (false, self.stray());
        };
        let from_lan = self.random.one_in(2);
        let (key, own, peer) = if from_lan {
            (reverse_key, reverse, forward)
        } else {
            (key, forward, reverse)
        };
        // Handshakes are carried on more often than broken off.
        let answers = from_lan && reverse.seq_end == 0;
        let flags = match self.random.below(24) {
            0 => flag::SYN,
            1 => flag::RST,
            2 => flag::RST | flag::ACK,
            3..=5 => flag::FIN | flag::ACK,
            6 => flag::SYN | flag::ACK,
            _ if answers => flag::SYN | flag::ACK,
            _ => flag::ACK,
        };
        let mut frame = Frame::tcp(
            (key.source.0, key.source_port.get()),
            (key.destination.0, key.destination_port.get()),
            flags,
        );
        frame.seq = match (answers, self.random.below(12)) {
            (true, _) | (_, 0) => self.random.next() as u32,
            (_, 1) => own.seq_end.wrapping_sub(100),
            _ => own.seq_end,
        };
        frame.ack = peer.seq_end;
        frame.window = self.random.next() as u16;
        if flags == flag::ACK {
            let len = [0, 1, 2, 33, 536][self.random.below(5)];
            frame.payload = vec![self.random.next() as u8; len];
        }
        if self.random.one_in(3) {
            frame.tcp_options = vec![1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4];
        }
        (from_lan, self.vary(frame))
    }

    /// A flow's two entries with their keys. Most connections met so far are
    /// over: a few tries find one that is not.
    fn flow<'a>(&mut self, flows: &'a HashMap<FlowKey<V4>, Flow<V4>>) -> Option<Entries<'a>> {
        let mut key = *self.known.get(self.random.below(self.known.len().max(1)))?;
        for _ in 0..8 {
            if flows.contains_key(&key) {
                break;
            }
            key = self.known[self.random.below(self.known.len())];
        }
        let forward = flows.get(&key)?;
        let reverse_key = forward.peer_key();
        Some((key, forward, reverse_key, flows.get(&reverse_key)?))
    }

    /// An echo request, or an error about a flow's packet, either way.
    fn icmp(&mut self, flows: &HashMap<FlowKey<V4>, Flow<V4>>) -> (bool, Vec<u8>) {
        let from_lan = self.random.one_in(2);
        let found = self.flow(flows);
        let router = [198, 51, 100, 254];
        let mut message = match found {
            Some((key, forward, reverse_key, reverse)) if !self.random.one_in(5) => {
                // The packet as its receiver gets it.
                let (sent, own) = if from_lan {
                    (reverse_key.reversed(), forward)
                } else {
                    (key.reversed(), reverse)
                };
                let mut about = Frame::tcp(
                    (sent.source.0, sent.source_port.get()),
                    (sent.destination.0, sent.destination_port.get()),
                    flag::ACK,
                );
                about.seq = own.seq_end.wrapping_sub(self.random.below(3) as u32);
                about.ip_options = vec![1; 4 * self.random.below(2)];
                let from = [sent.destination.0, router][self.random.below(2)];
                let (kind, code) = [(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)][self.random.below(5)];
                let len = [8, 17, 18, 20, 40][self.random.below(5)];
                Icmp::error(from, kind, code, &about.bytes(), len).mtu(1280)
            }
            _ => {
                let client = self.client().0;
                let to = [VIP, SNAT][self.random.below(2)];
                let kind = [8, 8, 0, 3, 5, 13][self.random.below(6)];
                let mut echo = Icmp::new(client, to, kind, 0);
                echo.body = vec![7; self.random.below(600)];
                echo
            }
        };
        if self.random.one_in(20) {
            message.ttl = 1;
        }
        if self.random.one_in(20) {
            message.ip_options = vec![1; 4 * self.random.below(11)];
        }
        (from_lan, message.bytes())
    }

    fn vary(&mut self, mut frame: Frame) -> Frame {
        frame.identification = self.random.next() as u16;
        match self.random.below(60) {
            0 => frame.ttl = 1,
            1 => frame.ttl = 0,
            2 => frame.ip_options = vec![1; 4 * self.random.below(11)],
            3 => frame.fragment = MORE_FRAGMENTS,
            4 => frame.padding = self.random.below(20),
            5 => frame.tcp_options = vec![1; 4 * self.random.below(11)],
            _ => {}
        }
        frame
    }

    /// Cuts or overwrites; at least an Ethernet header stays, as the kernel
    /// runs nothing shorter.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        if self.random.one_in(20) {
            // IPv6, says the EtherType.
            bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
            return;
        }
        if self.random.one_in(3) {
            let len = 14 + self.random.below(bytes.len() - 13);
            bytes.truncate(len);
            return;
        }
        for _ in 0..=self.random.below(3) {
            let at = 12 + self.random.below(bytes.len().min(80) - 12);
            bytes[at] = if self.random.one_in(2) {
                self.random.next() as u8
            } else {
                bytes[at] ^ 1 << self.random.below(8)
            };
        }
    }
}

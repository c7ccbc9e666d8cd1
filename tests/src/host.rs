//! The datapath on the host: the programs' composition of the pure core, over
//! ordinary maps. Whatever `ocs-lb-ebpf` does with a packet, this does too.

mod open;
mod ports;

use std::collections::{HashMap, HashSet};

use ocs_lb_common::abi::{
    AddressFlags, Backend, Cluster, ClusterLoad, Flow, FlowKey, NextHop, Service, ServiceKey,
    Settings, SnatKey, StickyKey, StickyValue,
};
use ocs_lb_common::address::V4;
use ocs_lb_common::classify::is_client;
use ocs_lb_common::parse::{Odd, Packet, parse_ether_type, parse_ipv4};
use ocs_lb_common::rate::Budget;
use ocs_lb_common::sweep::held;
use ocs_lb_common::ticks::Ticks;
use ocs_lb_common::track::{
    Count, Direction, Phase, StateWord, Step, establish, is_plain, start, step, touch,
};
use ocs_lb_common::translate::Translate as _;
use ocs_lb_common::verdict::{Kind, Verdict};
use ocs_lb_common::wire::{
    EtherType, Ethernet, EthernetMut, Frame as _, SliceFrame, timestamp_value, window_scale,
};
use ocs_lb_common::{reset, snat};

use crate::net::Net;
use crate::plan::{FIRST_HOP, Plan};
use crate::prog::{Action, Outcome};
use ports::Ports;

/// One model of the whole datapath.
pub struct Datapath {
    /// Flows, both directions.
    pub flows: HashMap<FlowKey<V4>, Flow<V4>>,
    /// Counts of the cluster.
    pub load: ClusterLoad,
    addresses: HashMap<V4, AddressFlags>,
    services: HashMap<ServiceKey<V4>, Service>,
    backends: Vec<Backend<V4>>,
    cluster: Cluster,
    sticky: HashMap<StickyKey<V4>, StickyValue>,
    ports: HashMap<SnatKey<V4>, Ports>,
    next_hops: HashMap<u16, NextHop>,
    devices: HashSet<u32>,
    settings: Settings,
    budget: Budget,
    route: Box<dyn Fn(V4) -> Result<NextHop, Verdict>>,
}

enum Stop {
    Verdict(Verdict),
    Reset,
}

impl From<Verdict> for Stop {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

impl Datapath {
    /// A model of a plan, with `route` in place of the routing table.
    pub fn new(
        plan: &Plan,
        net: Net,
        route: impl Fn(V4) -> Result<NextHop, Verdict> + 'static,
    ) -> Self {
        let hops = plan.next_hops(net).into_iter().enumerate();
        Self {
            flows: HashMap::new(),
            load: ClusterLoad::ZERO,
            addresses: plan.addresses().into_iter().collect(),
            services: plan.services().into_iter().collect(),
            backends: plan.backends(),
            cluster: plan.cluster,
            sticky: HashMap::new(),
            ports: HashMap::new(),
            next_hops: hops
                .map(|(slot, hop)| (FIRST_HOP + slot as u16, hop))
                .collect(),
            devices: plan
                .redirects
                .then_some([net.wan, net.lan])
                .into_iter()
                .flatten()
                .collect(),
            settings: plan.settings,
            budget: Budget::default(),
            route: Box::new(route),
        }
    }

    /// Runs a frame that comes in on an interface, at a time in nanoseconds.
    pub fn run(&mut self, ifindex: u32, frame: &[u8], now_ns: u64) -> Outcome {
        let mut bytes = frame.to_vec();
        let now = Ticks::from_ns(now_ns);
        let parsed = match parse_ether_type(&SliceFrame(&mut bytes)) {
            Ok(EtherType::IPV4) => parse_ipv4(&SliceFrame(&mut bytes)).map_err(|odd| match odd {
                Odd::IfOurs {
                    destination,
                    verdict,
                } if self.addresses.contains_key(&destination) => verdict,
                Odd::IfOurs { .. } => Verdict::NotOurs,
                Odd::Pass(verdict) => verdict,
            }),
            Ok(_) => Err(Verdict::FamilyNotWired),
            Err(verdict) => Err(verdict),
        };
        let verdict = parsed
            .and_then(|packet| self.walk(&mut bytes, &packet, ifindex, now, now_ns))
            .unwrap_or_else(|verdict| verdict);
        let action = match (verdict.kind(), verdict) {
            (Kind::Pass, _) => Action::Pass,
            (Kind::Drop, _) => Action::Drop,
            (_, Verdict::Redirect) => Action::Redirect,
            (_, Verdict::Tx) => Action::Tx,
            // An answer goes back where its cause came from.
            _ if self.back(ifindex, &bytes) => Action::Tx,
            _ => Action::Redirect,
        };
        Outcome {
            action,
            verdict,
            bytes,
        }
    }

    fn back(&self, ifindex: u32, bytes: &[u8]) -> bool {
        bytes
            .get(30..34)
            .and_then(|to| to.try_into().ok())
            .and_then(|to| (self.route)(V4(to)).ok())
            .is_some_and(|hop| hop.ifindex == ifindex)
    }

    fn walk(
        &mut self,
        bytes: &mut Vec<u8>,
        packet: &Packet<V4>,
        ifindex: u32,
        now: Ticks,
        now_ns: u64,
    ) -> Result<Verdict, Verdict> {
        let mut entry = match self.track(bytes, packet, now)? {
            Some(entry) => entry,
            None => match self.open(bytes, packet, now, now_ns) {
                // As the program: the entry was counted at its birth, and the
                // sending works on a copy.
                Ok(entry) => return self.send(bytes, packet, ifindex, now, &mut entry.clone()),
                Err(Stop::Verdict(verdict)) => return Err(verdict),
                Err(Stop::Reset) => return self.answer(bytes, packet, ifindex, now),
            },
        };
        let verdict = self.send(bytes, packet, ifindex, now, &mut entry);
        self.flows.insert(packet.key, entry);
        verdict
    }

    fn send(
        &self,
        bytes: &mut [u8],
        packet: &Packet<V4>,
        ifindex: u32,
        now: Ticks,
        entry: &mut Flow<V4>,
    ) -> Result<Verdict, Verdict> {
        if packet.ttl <= 1 {
            return Err(Verdict::TtlExceeded);
        }
        let mut frame = SliceFrame(bytes);
        let timestamp = timestamp_value(&frame, packet.tcp_offset, packet.tcp_header_len);
        touch(entry, now, &packet.segment, packet.ip_len, timestamp);
        V4::translate(&mut frame, packet, entry).ok_or(Verdict::Malformed)?;
        self.forward(bytes, ifindex, entry.next_hop)
    }

    fn forward(&self, bytes: &mut [u8], ifindex: u32, id: u16) -> Result<Verdict, Verdict> {
        let hop = self.next_hops.get(&id).copied().unwrap_or_default();
        if hop.valid == 0 {
            return Err(Verdict::NoNeighbor);
        }
        let mut frame = SliceFrame(bytes);
        let header = frame
            .at_mut::<{ Ethernet::LEN }>(0)
            .ok_or(Verdict::Malformed)?;
        EthernetMut(header).set_addresses(&hop.destination, &hop.source);
        if hop.ifindex == ifindex {
            Ok(Verdict::Tx)
        } else if self.devices.contains(&hop.ifindex) {
            Ok(Verdict::Redirect)
        } else {
            Err(Verdict::NoEgress)
        }
    }

    /// The packet's entry after what the packet does to its state.
    fn track(
        &mut self,
        bytes: &mut [u8],
        packet: &Packet<V4>,
        now: Ticks,
    ) -> Result<Option<Flow<V4>>, Verdict> {
        let Some(mut entry) = self.flows.get(&packet.key).copied() else {
            return Ok(None);
        };
        if is_plain(entry.state, packet.segment.flags) {
            return Ok(Some(entry));
        }
        if packet.ttl <= 1 {
            return Err(Verdict::TtlExceeded);
        }
        let other_key = entry.peer_key();
        let mut other = *self.flows.get(&other_key).ok_or(Verdict::Race)?;
        let (word, direction) = if entry.is_reverse() {
            (other.state, Direction::Reverse)
        } else {
            (entry.state, Direction::Forward)
        };
        match step(word, direction, &packet.segment, entry.side(), other.side()) {
            Step::Keep => entry.state = word,
            Step::Swap(next, count) => {
                if entry.is_reverse() {
                    if !word.has(StateWord::SYN_ACK) && next.has(StateWord::SYN_ACK) {
                        let frame = SliceFrame(bytes);
                        let scale = window_scale(&frame, packet.tcp_offset, packet.tcp_header_len);
                        start(&mut entry, &packet.segment, scale);
                    }
                } else if matches!(count, Count::Promote) {
                    establish(&mut entry, now, &packet.segment);
                }
                (entry.state, other.state) = (next, next);
                self.flows.insert(other_key, other);
                self.apply(entry.backend, count);
            }
            Step::Replace => {
                self.apply(entry.backend, held(word.phase()));
                debug_assert!(matches!(
                    word.phase(),
                    Phase::Closed | Phase::Reset | Phase::Dead | Phase::Deleting
                ));
                self.delete(&packet.key, &entry);
                return Ok(None);
            }
            Step::Gone => return Ok(None),
        }
        Ok(Some(entry))
    }

    fn delete(&mut self, forward_key: &FlowKey<V4>, forward: &Flow<V4>) {
        self.flows.remove(forward_key);
        let reverse_key = forward.peer_key();
        let out = self.flows.remove(&reverse_key).map_or(0, |flow| flow.bytes);
        let seen = reverse_key.reversed();
        if let Some(ports) = self.ports.get(&snat_key(&seen)) {
            snat::release(ports, seen.source_port.get());
        }
        self.load.bytes_in[usize::from(forward.backend)] += forward.bytes;
        self.load.bytes_out[usize::from(forward.backend)] += out;
    }

    fn apply(&mut self, backend: u16, count: Count) {
        let load = &mut self.load;
        let slot = &mut load.slots[usize::from(backend)];
        let (pending, live) = match count {
            Count::None => (0, 0),
            Count::Promote => (-1, 1),
            Count::DropPending => (-1, 0),
            Count::DropLive => (0, -1),
            Count::Revive => (0, 1),
        };
        slot.pending = slot.pending.wrapping_add_signed(pending);
        load.pending = load.pending.wrapping_add_signed(pending);
        slot.live = slot.live.wrapping_add_signed(live);
        load.live = load.live.wrapping_add_signed(live);
        if matches!(count, Count::Promote) {
            load.connections[usize::from(backend)] += 1;
        }
    }

    fn answer(
        &mut self,
        bytes: &mut Vec<u8>,
        packet: &Packet<V4>,
        ifindex: u32,
        now: Ticks,
    ) -> Result<Verdict, Verdict> {
        let source = &packet.key.source;
        if !is_client(source, self.addresses.get(source).copied()) {
            return Err(Verdict::IllegalSource);
        }
        if !self.budget.take(now, self.settings.resets_per_cpu) {
            return Err(Verdict::ResetLimited);
        }
        let id = self.next_hop(packet.key.source)?;
        reset::write_ipv4(&mut SliceFrame(bytes), packet).ok_or(Verdict::Malformed)?;
        bytes.truncate(reset::IPV4_LEN);
        self.forward(bytes, ifindex, id)?;
        Ok(Verdict::Answered)
    }
}

const fn snat_key(tuple: &FlowKey<V4>) -> SnatKey<V4> {
    SnatKey {
        snat: tuple.source,
        backend: tuple.destination,
        port: tuple.destination_port,
        proto: tuple.proto,
        pad: 0,
    }
}

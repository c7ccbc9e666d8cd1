//! The datapath on the host: the programs' composition of the pure core, over
//! ordinary maps. Whatever `ocs-lb-ebpf` does with a packet, this does too.

mod access;
mod change;
mod icmp;
mod open;
mod place;
mod ports;
mod relocate;
mod walk;

use std::collections::{HashMap, HashSet};

use ocs_lb_common::abi::{
    AddressFlags, Backend, Cluster, ClusterLoad, Flow, FlowKey, MAX_BACKENDS, NextHop, Pending,
    STRIPPED, Service, ServiceKey, Settings, SnatKey, SourceKey, StickyKey, StickyValue,
};
use ocs_lb_common::access::Cell;
use ocs_lb_common::address::V4;
use ocs_lb_common::classify;
use ocs_lb_common::icmp::Obstacle;
use ocs_lb_common::parse::{Odd, Packet, behind_tags, parse_ether_type, parse_ipv4};
use ocs_lb_common::rate::Budget;
use ocs_lb_common::reset;
use ocs_lb_common::ticks::Ticks;
use ocs_lb_common::track::{Count, is_plain, touch};
use ocs_lb_common::translate::Translate as _;
use ocs_lb_common::verdict::{Kind, Verdict};
use ocs_lb_common::wire::{
    EtherType, Ethernet, EthernetMut, Flags, Frame as _, MacAddress, SliceFrame, strip_timestamp,
    syn_options, timestamp_value,
};

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
    /// Clients and their backends.
    pub sticky: HashMap<StickyKey<V4>, StickyValue>,
    /// Policy; a test may change it under way, as a controller does.
    pub cluster: Cluster,
    addresses: HashMap<V4, AddressFlags>,
    services: HashMap<ServiceKey<V4>, Service>,
    lists: Vec<Vec<Cell<V4>>>,
    /// When each source's next new connection would come at its pace.
    sources: HashMap<SourceKey<V4>, u64>,
    backends: Vec<Backend<V4>>,
    pending_sticky: HashMap<StickyKey<V4>, StickyValue>,
    ring: Vec<Option<Pending<V4>>>,
    ring_cursor: u32,
    ports: HashMap<SnatKey<V4>, Ports>,
    next_hops: HashMap<u16, NextHop>,
    devices: HashSet<u32>,
    settings: Settings,
    budget: Budget,
    icmp_budget: Budget,
    route: fn(Net, V4) -> Result<NextHop, Verdict>,
    net: Net,
    /// Clients on a link of ours, from their frames.
    neighbors: HashMap<V4, NextHop>,
    /// How the frame under way came.
    arrival: Arrival,
}

/// How a frame came in.
#[derive(Debug, Clone, Copy, Default)]
struct Arrival {
    ifindex: u32,
    destination: MacAddress,
    source: MacAddress,
    tagged: bool,
}

/// The time, as the programs read it.
#[derive(Clone, Copy)]
struct Now {
    ns: u64,
    ticks: Ticks,
}

/// What the slow way comes to.
enum Next {
    Exit(Verdict),
    Send,
    Open,
    Answer(u16),
    Tell(Obstacle, u16),
    Stay,
    Move(Box<relocate::Moving>),
    Again,
}

impl From<Verdict> for Next {
    fn from(verdict: Verdict) -> Self {
        Self::Exit(verdict)
    }
}

/// A packet that does not become a flow.
enum Stop {
    Verdict(Verdict),
    Reset,
    Expired(u16),
}

/// A packet that is not sent.
enum Halt {
    Verdict(Verdict),
    Obstacle(Obstacle),
}

impl From<Verdict> for Halt {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

impl From<Verdict> for Stop {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

impl Datapath {
    /// A model of a plan, with `route` in place of the routing table.
    pub fn new(plan: &Plan, net: Net, route: fn(Net, V4) -> Result<NextHop, Verdict>) -> Self {
        let hops = plan.next_hops(net).into_iter().enumerate();
        Self {
            flows: HashMap::new(),
            load: ClusterLoad::ZERO,
            sticky: HashMap::new(),
            cluster: plan.cluster,
            addresses: plan.addresses().into_iter().collect(),
            services: plan.services().into_iter().collect(),
            lists: plan.lists.clone(),
            sources: HashMap::new(),
            backends: plan.backends(),
            pending_sticky: HashMap::new(),
            ring: vec![None; plan.settings.half_open as usize],
            ring_cursor: 0,
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
            icmp_budget: Budget::default(),
            route,
            net,
            neighbors: HashMap::new(),
            arrival: Arrival::default(),
        }
    }

    /// Runs a frame that comes in on an interface, at a time in nanoseconds.
    pub fn run(&mut self, ifindex: u32, frame: &[u8], now_ns: u64) -> Outcome {
        let mut bytes = frame.to_vec();
        let now = Now {
            ns: now_ns,
            ticks: Ticks::from_ns(now_ns),
        };
        let tags = self.untag(&mut bytes);
        self.arrival = match SliceFrame(&mut bytes).at(0) {
            Some(header) => Arrival {
                ifindex,
                destination: Ethernet(header).destination(),
                source: Ethernet(header).source(),
                tagged: !tags.is_empty(),
            },
            None => Arrival::default(),
        };
        let parsed = match parse_ether_type(&SliceFrame(&mut bytes)) {
            Ok(EtherType::IPV4) => parse_ipv4(&SliceFrame(&mut bytes)),
            Ok(_) => Err(Odd::Pass(Verdict::FamilyNotWired)),
            Err(verdict) => Err(Odd::Pass(verdict)),
        };
        let verdict = match parsed {
            Ok(packet) => self.walk(&mut bytes, &packet, ifindex, now),
            Err(Odd::Pass(verdict)) => Err(verdict),
            Err(Odd::IfOurs {
                source,
                destination,
                verdict,
            }) => match (self.addresses.get(&destination), self.source(&source)) {
                (None, _) => Err(Verdict::NotOurs),
                (_, Err(verdict)) => Err(verdict),
                (_, Ok(())) if verdict == Verdict::NotTcp => self.icmp(&mut bytes, ifindex, now),
                (Some(address), Ok(())) => Err(classify::odd(verdict, *address)),
            },
        };
        let verdict = verdict.unwrap_or_else(|verdict| verdict);
        if verdict.kind() == Kind::Pass {
            bytes.splice(12..12, tags);
        }
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

    /// Takes the VLAN tags off a packet to one of our addresses: they are gone
    /// unless the host gets it.
    fn untag(&self, bytes: &mut Vec<u8>) -> Vec<u8> {
        let Some((EtherType::IPV4, len)) = behind_tags(&SliceFrame(bytes)) else {
            return Vec::new();
        };
        let at = Ethernet::LEN + len + 16;
        // A whole header, or it is not looked at.
        let destination = bytes.get(at..at + 4).and_then(|part| part.try_into().ok());
        if destination.is_some_and(|part| self.addresses.contains_key(&V4(part))) {
            bytes.drain(12..12 + len).collect()
        } else {
            Vec::new()
        }
    }

    fn source(&self, address: &V4) -> Result<(), Verdict> {
        classify::source(address, self.addresses.get(address).copied())
    }

    fn back(&self, ifindex: u32, bytes: &[u8]) -> bool {
        bytes
            .get(30..34)
            .and_then(|to| to.try_into().ok())
            .map(V4)
            .and_then(|to| {
                let routed = (self.route)(self.net, to).ok();
                routed.or_else(|| self.neighbors.get(&to).copied())
            })
            .is_some_and(|hop| hop.ifindex == ifindex)
    }

    fn walk(
        &mut self,
        bytes: &mut Vec<u8>,
        packet: &Packet<V4>,
        ifindex: u32,
        now: Now,
    ) -> Result<Verdict, Verdict> {
        if let Some(entry) = self.flows.get(&packet.key) {
            let pause = now.ticks.since(entry.last_seen);
            if is_plain(entry.state, packet.segment.flags) && pause < change::PAUSE {
                match self.send(bytes, packet, ifindex, now) {
                    Ok(verdict) => return Ok(verdict),
                    Err(Halt::Verdict(verdict)) => return Err(verdict),
                    // Its sender is told on the slow way.
                    Err(Halt::Obstacle(_)) => {}
                }
            }
        }
        let mut next = Next::Again;
        for _ in 0..3 {
            next = self.change(bytes, packet, now);
            if !matches!(next, Next::Again) {
                break;
            }
        }
        if let Next::Open = next {
            next = match self.open(bytes, packet, now) {
                Ok(()) => Next::Send,
                Err(Stop::Verdict(verdict)) => Next::Exit(verdict),
                Err(Stop::Reset) => return self.answer(bytes, packet, ifindex, now),
                Err(Stop::Expired(back)) => Next::Tell(Obstacle::EXPIRED, back),
            };
        }
        if let Next::Move(moving) = next {
            next = self.relocate(bytes, &moving, now);
        }
        match next {
            Next::Exit(verdict) => Err(verdict),
            Next::Answer(hop) => self.reset(bytes, packet, ifindex, hop),
            Next::Tell(obstacle, hop) => self.tell(bytes, packet, obstacle, (ifindex, hop), now),
            Next::Again => Err(Verdict::Race),
            _ => self.send_anew(bytes, ifindex, now),
        }
    }

    /// Sends a packet that may be another one now.
    fn send_anew(
        &mut self,
        bytes: &mut Vec<u8>,
        ifindex: u32,
        now: Now,
    ) -> Result<Verdict, Verdict> {
        let packet = parse_ipv4(&SliceFrame(bytes)).map_err(|_| Verdict::Malformed)?;
        self.strip_again(bytes, &packet);
        match self.send(bytes, &packet, ifindex, now) {
            Ok(verdict) => Ok(verdict),
            Err(Halt::Verdict(verdict)) => Err(verdict),
            Err(Halt::Obstacle(obstacle)) => {
                let other = self.flows.get(&packet.key).map(Flow::peer_key);
                let back = other.and_then(|key| self.flows.get(&key));
                let back = back.ok_or(Verdict::Inconsistent)?.next_hop;
                self.tell(bytes, &packet, obstacle, (ifindex, back), now)
            }
        }
    }

    /// Takes the timestamp from a SYN that comes again.
    fn strip_again(&self, bytes: &mut [u8], packet: &Packet<V4>) {
        let stripped = |flow: &Flow<V4>| flow.flags & STRIPPED != 0;
        if !packet.segment.flags.any(Flags::SYN)
            || !self.flows.get(&packet.key).is_some_and(stripped)
        {
            return;
        }
        let mut frame = SliceFrame(bytes);
        let options = syn_options(&frame, packet.tcp_offset, packet.tcp_header_len);
        if options.timestamp.is_some() {
            let _ = strip_timestamp(&mut frame, packet.tcp_offset, options.timestamp_at);
        }
    }

    fn send(
        &mut self,
        bytes: &mut [u8],
        packet: &Packet<V4>,
        ifindex: u32,
        now: Now,
    ) -> Result<Verdict, Halt> {
        let entry = self.flows.get(&packet.key).ok_or(Verdict::Race)?;
        let hop = self.valid_hop(entry.next_hop)?;
        if let Some(obstacle) = obstacle(packet, &hop) {
            return Err(Halt::Obstacle(obstacle));
        }
        let entry = self.flows.get_mut(&packet.key).ok_or(Verdict::Race)?;
        if (now.ticks.0 ^ entry.last_seen.0) >> 10 != 0 {
            let client = if entry.is_reverse() {
                entry.destination
            } else {
                packet.key.source
            };
            let key = sticky_key(client);
            if let Some(known) = self.sticky.get_mut(&key)
                && known.backend == entry.backend
            {
                known.last_used_ns = now.ns;
            }
        }
        let mut frame = SliceFrame(bytes);
        let timestamp = timestamp_value(&frame, packet.tcp_offset, packet.tcp_header_len);
        touch(entry, now.ticks, &packet.segment, packet.ip_len, timestamp);
        V4::translate(&mut frame, packet, entry).ok_or(Verdict::Malformed)?;
        Ok(self.forward(bytes, ifindex, &hop)?)
    }

    fn hop(&self, id: u16) -> NextHop {
        self.next_hops.get(&id).copied().unwrap_or_default()
    }

    /// A next hop that can be sent to.
    fn valid_hop(&self, id: u16) -> Result<NextHop, Verdict> {
        let hop = self.hop(id);
        if hop.valid == 0 {
            return Err(Verdict::NoNeighbor);
        }
        Ok(hop)
    }

    fn forward(&self, bytes: &mut [u8], ifindex: u32, hop: &NextHop) -> Result<Verdict, Verdict> {
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

    fn apply(&mut self, backend: u16, count: Count) {
        let load = &mut self.load;
        let slot = &mut load.slots[usize::from(backend) & (MAX_BACKENDS - 1)];
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
        now: Now,
    ) -> Result<Verdict, Verdict> {
        if !self.budget.take(now.ticks, self.settings.resets_per_cpu) {
            return Err(Verdict::ResetLimited);
        }
        let id = self.next_hop(packet.key.source)?;
        self.reset(bytes, packet, ifindex, id)
    }

    fn reset(
        &mut self,
        bytes: &mut Vec<u8>,
        packet: &Packet<V4>,
        ifindex: u32,
        hop: u16,
    ) -> Result<Verdict, Verdict> {
        let hop = self.valid_hop(hop)?;
        reset::write_ipv4(&mut SliceFrame(bytes), packet).ok_or(Verdict::Malformed)?;
        bytes.resize(reset::IPV4_LEN, 0);
        self.forward(bytes, ifindex, &hop)?;
        Ok(Verdict::Answered)
    }
}

/// What keeps a packet from its next hop.
fn obstacle(packet: &Packet<V4>, hop: &NextHop) -> Option<Obstacle> {
    if packet.ttl <= 1 {
        return Some(Obstacle::EXPIRED);
    }
    if packet.ip_len > hop.mtu {
        return Obstacle::too_big(hop.mtu);
    }
    None
}

fn sticky_key(address: V4) -> StickyKey<V4> {
    StickyKey {
        address,
        cluster: 0,
        pad: 0,
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

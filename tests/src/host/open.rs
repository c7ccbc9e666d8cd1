//! New flows on the host, as `open.rs` of the programs.

use ocs_lb_common::abi::{
    Backend, FIRST_LEARNED, Flow, FlowKey, Load, REVERSE, RefuseAction, Service, ServiceKey,
    StickyKey, StickyValue,
};
use ocs_lb_common::address::{Address as _, Be16, V4};
use ocs_lb_common::classify::{Class, NoFlow, classify, is_client, without_flow};
use ocs_lb_common::parse::Packet;
use ocs_lb_common::ticks::Ticks;
use ocs_lb_common::track::{StateWord, start};
use ocs_lb_common::translate::pair;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_common::wire::{SliceFrame, window_scale};
use ocs_lb_common::{select, snat};

use super::{Datapath, Stop, snat_key};

/// First number given to next hops of clients.
const LEARNED: u16 = FIRST_LEARNED as u16;

impl Datapath {
    /// A new flow's forward entry.
    pub(super) fn open(
        &mut self,
        bytes: &mut [u8],
        packet: &Packet<V4>,
        now: Ticks,
        now_ns: u64,
    ) -> Result<Flow<V4>, Stop> {
        let key = &packet.key;
        let address = self.addresses.get(&key.destination).copied();
        let service_key = ServiceKey::tcp(key.destination, key.destination_port);
        let service = address.and_then(|_| self.services.get(&service_key).copied());
        let service = match classify(address, service, packet.segment.flags) {
            Class::Served(service) => service,
            Class::Ends(verdict) => return Err(verdict.into()),
            Class::Reset => return Err(Stop::Reset),
        };
        match without_flow(packet.segment.flags, self.cluster.unknown) {
            NoFlow::Open => {}
            NoFlow::Ends(verdict) => return Err(verdict.into()),
            NoFlow::Reset => return Err(Stop::Reset),
        }
        if !is_client(&key.source, self.addresses.get(&key.source).copied()) {
            return Err(Verdict::IllegalSource.into());
        }
        if packet.ttl <= 1 {
            return Err(Verdict::TtlExceeded.into());
        }
        let policy = &self.cluster;
        let held = Load {
            live: self.load.live,
            pending: self.load.pending,
        };
        if !select::admits(held, policy.max_connections) {
            let action = policy.refuse_limit;
            self.load.refused_limit += 1;
            return Err(refuse(action, Verdict::Limit));
        }
        let Some((slot, is_new)) = self.choose(key.source, now_ns) else {
            self.load.refused_no_backend += 1;
            return Err(refuse(self.cluster.refuse_no_backend, Verdict::NoBackend));
        };
        let carried = self.carry(bytes, packet, now, service, slot);
        if carried.is_err() && is_new {
            self.sticky.remove(&StickyKey {
                address: key.source,
                cluster: 0,
                pad: 0,
            });
        }
        carried
    }

    fn carry(
        &mut self,
        bytes: &mut [u8],
        packet: &Packet<V4>,
        now: Ticks,
        service: Service,
        slot: u16,
    ) -> Result<Flow<V4>, Stop> {
        let key = &packet.key;
        let backend = self
            .backends
            .get(usize::from(slot))
            .copied()
            .ok_or(Verdict::Inconsistent)?;
        let back = self.next_hop(key.source)?;
        let hop = self.next_hops.get(&backend.next_hop);
        if hop.is_none_or(|hop| hop.valid == 0) {
            return Err(Verdict::NoNeighbor.into());
        }
        let target = select::target_port(backend.port, service.target_port);
        let source = backend
            .snat_for(key.source.hash())
            .ok_or(Verdict::Inconsistent)?;
        let mut tuple = FlowKey::tcp(source, Be16::default(), backend.address, target);
        let number = self.claim(&tuple, &backend)?;
        tuple.source_port = Be16::new(number);

        let (mut there, mut reply) = pair(key, &tuple);
        for entry in [&mut there, &mut reply] {
            entry.backend = slot;
            entry.cluster = service.cluster;
            entry.state = StateWord::born(0);
            entry.last_seen = now;
        }
        there.next_hop = backend.next_hop;
        reply.next_hop = back;
        reply.flags = REVERSE;
        let frame = SliceFrame(bytes);
        let scale = window_scale(&frame, packet.tcp_offset, packet.tcp_header_len);
        start(&mut there, &packet.segment, scale);
        there.bytes = u64::from(packet.ip_len);
        there.packets = 1;
        there.window = packet.segment.window;
        self.load.pending += 1;
        self.load.slots[usize::from(slot)].pending += 1;
        self.flows.insert(there.peer_key(), reply);
        self.flows.insert(*key, there);
        Ok(there)
    }

    fn claim(&mut self, tuple: &FlowKey<V4>, backend: &Backend<V4>) -> Result<u16, Stop> {
        let services = &self.services;
        let served = |port| services.contains_key(&ServiceKey::tcp(tuple.source, Be16::new(port)));
        let ports = self.ports.entry(snat_key(tuple)).or_default();
        let (low, high) = (backend.port_low, backend.port_high);
        let Some(number) = snat::claim(ports, low, high, ports.cursor.get(), served) else {
            self.load.refused_snat += 1;
            return Err(refuse(self.cluster.refuse_snat, Verdict::SnatExhausted));
        };
        ports.cursor.set(number.wrapping_add(1));
        Ok(number)
    }

    fn choose(&mut self, client: V4, now_ns: u64) -> Option<(u16, bool)> {
        let key = StickyKey {
            address: client,
            cluster: 0,
            pad: 0,
        };
        let mut entry = StickyValue {
            last_used_ns: now_ns,
            ..StickyValue::default()
        };
        let known = self.sticky.get(&key);
        if self.cluster.sticky != 0
            && let Some(slot) = select::sticky(&self.cluster, known, now_ns)
        {
            self.load.sticky_hits += 1;
            entry.backend = slot;
            self.sticky.insert(key, entry);
            return Some((slot, false));
        }
        let cursor = self.load.cursor;
        self.load.cursor = cursor.wrapping_add(1);
        let slot = select::select(&self.cluster, cursor, |at| self.load.slots[at])?;
        if self.cluster.sticky != 0 {
            self.load.sticky_misses += 1;
            entry.backend = slot;
            self.sticky.insert(key, entry);
        }
        Some((slot, self.cluster.sticky != 0))
    }

    /// Number of the next hop towards a client.
    pub(super) fn next_hop(&mut self, to: V4) -> Result<u16, Verdict> {
        let hop = (self.route)(to)?;
        let known = self.next_hops.iter().find(|(_, known)| **known == hop);
        if let Some((id, _)) = known {
            return Ok(*id);
        }
        let id = LEARNED + self.next_hops.len() as u16;
        self.next_hops.insert(id, hop);
        Ok(id)
    }
}

const fn refuse(action: u8, verdict: Verdict) -> Stop {
    if action == RefuseAction::Reset as u8 {
        Stop::Reset
    } else {
        Stop::Verdict(verdict)
    }
}

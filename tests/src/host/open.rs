//! New flows on the host, as `open.rs` and `ring.rs` of the programs.

use ocs_lb_common::abi::{
    AddressFlags, FIRST_LEARNED, OPTIONS, Pending, REVERSE, RefuseAction, STRIPPED, ServiceKey,
};
use ocs_lb_common::abi::{NextHop, Reason, TRIED};
use ocs_lb_common::access::ALLOWED;
use ocs_lb_common::address::V4;
use ocs_lb_common::classify::{Class, NoFlow, classify, kept_out, service, without_flow};
use ocs_lb_common::parse::Packet;
use ocs_lb_common::redispatch::{opening, save};
use ocs_lb_common::select;
use ocs_lb_common::track::{Count, Phase, StateWord, start};
use ocs_lb_common::translate::pair;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_common::wire::{SliceFrame, SynOptions, Tcp, strip_timestamp, syn_options};

use crate::net::GATEWAY;
use crate::plan::BACKENDS;

use super::change::Pair;
use super::place::{Place, Refusal, Wanted};
use super::{Datapath, Now, Stop};

/// First number given to next hops of clients.
const LEARNED: u16 = FIRST_LEARNED as u16;

impl Datapath {
    /// A packet that no flow knows.
    pub(super) fn open(
        &mut self,
        bytes: &mut [u8],
        packet: &Packet<V4>,
        now: Now,
    ) -> Result<(), Stop> {
        let key = &packet.key;
        let address = self.addresses.get(&key.destination).copied();
        if address.is_some() {
            self.source(&key.source)?;
        }
        let service_key = ServiceKey::tcp(key.destination, key.destination_port);
        let service = address.and_then(|address| {
            service(
                service_key,
                address.any(AddressFlags::ANY),
                &key.source,
                |key| self.services.get(key).copied(),
                |list, source| self.listed(list, source),
            )
        });
        let (service, address) = match classify(address, service, packet.segment.flags) {
            Class::Served(service, address) => (service, address),
            Class::Ends(verdict) => return Err(verdict.into()),
            Class::Reset => return Err(Stop::Reset),
        };
        let flags = packet.segment.flags;
        let allowed = service.access == 0 || self.listed(service.access, &key.source) == ALLOWED;
        match without_flow(flags, &self.cluster, address, allowed) {
            NoFlow::Open => {}
            NoFlow::Denied => {
                self.load.refused_deny += u64::from(flags.is_open());
                let action = kept_out(flags, &self.cluster);
                return Err(refuse(action as u8, Verdict::Denied));
            }
            NoFlow::Ends(verdict) => return Err(verdict.into()),
            NoFlow::Reset => return Err(Stop::Reset),
        }
        if packet.ttl <= 1 {
            return Err(Stop::Expired(self.next_hop(key.source)?));
        }
        if !select::admits(self.held(), self.cluster.max_connections) {
            self.load.refused_limit += 1;
            return Err(refuse(self.cluster.refuse_limit, Verdict::Limit));
        }
        let back = self.next_hop(key.source)?;
        self.paced(key.source, now)
            .map_err(|verdict| refuse(self.cluster.refuse_limit, verdict))?;
        let at = self.take_place(now);
        let options = {
            let frame = SliceFrame(bytes);
            syn_options(&frame, packet.tcp_offset, packet.tcp_header_len)
        };
        let mut wanted = Wanted {
            key: *key,
            tried: [0; TRIED],
            opening: opening(packet.segment.seq, &options),
            target_port: service.target(key.destination_port),
        };
        let found = match self.find(&mut wanted, now) {
            Ok(found) => found,
            Err(refusal) => return Err(self.count_refusal(&refusal)),
        };
        let mut pending = NO_PENDING;
        save(&mut pending, packet, &options, now.ticks);
        let len = packet.tcp_header_len - Tcp::LEN;
        let start = packet.tcp_offset + Tcp::LEN;
        if let Some(raw) = bytes.get(start..start + len) {
            pending.options[..len].copy_from_slice(raw);
        }
        pending.early = u8::from(found.early);
        if found.strip {
            let frame = &mut SliceFrame(bytes);
            strip_timestamp(frame, packet.tcp_offset, options.timestamp_at)
                .ok_or(Verdict::Malformed)?;
        }
        self.write(packet, &options, &wanted, &found, (back, at), pending, now);
        Ok(())
    }

    fn count_refusal(&mut self, refusal: &Refusal) -> Stop {
        match refusal {
            Refusal::NoBackend => {
                self.load.refused_no_backend += 1;
                refuse(self.cluster.refuse_no_backend, Verdict::NoBackend)
            }
            Refusal::Snat => {
                self.load.refused_snat += 1;
                refuse(self.cluster.refuse_snat, Verdict::SnatExhausted)
            }
            Refusal::Verdict(verdict) => Stop::Verdict(*verdict),
        }
    }

    /// Writes both entries and the place in the ring. `(back, at)`: next hop
    /// to the client, place in the ring plus one.
    #[expect(
        clippy::too_many_arguments,
        reason = "the programs pass them in a room"
    )]
    pub(super) fn write(
        &mut self,
        packet: &Packet<V4>,
        options: &SynOptions,
        wanted: &Wanted,
        found: &Place,
        (back, at): (u16, u32),
        mut pending: Pending<V4>,
        now: Now,
    ) {
        let (mut there, mut reply) = pair(&wanted.key, &found.tuple);
        // The programs draw it; here it tells apart what a ring may confuse.
        let state = StateWord::born(self.ring_cursor as u16);
        for entry in [&mut there, &mut reply] {
            entry.backend = found.slot;
            entry.state = state;
            entry.last_seen = now.ticks;
        }
        there.next_hop = found.next_hop;
        there.cold = at;
        start(&mut there, &packet.segment, options.scale);
        there.window = packet.segment.window;
        if found.strip {
            there.flags = STRIPPED;
        } else {
            there.timestamp = options.timestamp.unwrap_or(0);
        }
        reply.next_hop = back;
        reply.flags = REVERSE;
        reply.cold = now.ticks.0;
        pending.key = wanted.key;
        pending.born = state.0;
        self.load.pending += 1;
        self.load.slots[usize::from(found.slot)].pending += 1;
        self.flows.insert(there.peer_key(), reply);
        self.flows.insert(wanted.key, there);
        if let Some(place) = at
            .checked_sub(1)
            .and_then(|at| self.ring.get_mut(at as usize))
        {
            *place = Some(pending);
        }
    }

    /// The next place in the ring plus one; its flow is pushed out.
    fn take_place(&mut self, now: Now) -> u32 {
        let len = self.settings.half_open;
        if len == 0 {
            return 0;
        }
        let at = self.ring_cursor % len;
        self.ring_cursor = self.ring_cursor.wrapping_add(1);
        if let Some(old) = self.ring[at as usize] {
            self.push_out(&old, now);
        }
        at + 1
    }

    fn push_out(&mut self, old: &Pending<V4>, now: Now) {
        let Some(forward) = self.flows.get(&old.key).copied() else {
            return;
        };
        let word = forward.state;
        if word.phase() != Phase::HalfOpen || !word.is_same_flow(StateWord(old.born)) {
            return;
        }
        let reverse_key = forward.peer_key();
        let Some(reverse) = self.flows.get(&reverse_key).copied() else {
            return;
        };
        let mut pair = Pair {
            key: old.key,
            reverse_key,
            forward,
            reverse,
        };
        pair.set(word.with_phase(Phase::Dead));
        self.load.pushed_out += 1;
        if self.load.resting <= self.cluster.resting / 4 {
            pair.forward.last_seen = now.ticks;
            self.put(&pair);
            self.close(&pair, Count::DropPending, Reason::PushedOut, now);
            return;
        }
        self.put(&pair);
        self.apply(forward.backend, Count::DropPending);
        self.delete(&old.key, false);
    }

    /// The way to a client. One on a link of ours whose MAC nobody knows is
    /// where its frame came from, if it came by that link and without tags.
    fn way(&mut self, to: V4) -> Result<NextHop, Verdict> {
        let silent = match (self.route)(self.net, to) {
            Err(Verdict::NoNeighbor) => Verdict::NoNeighbor,
            found => return found,
        };
        let (ifindex, other) = match to.0 {
            [192, 0, 2, _] => (self.net.wan, GATEWAY),
            [198, 51, 100, _] => (self.net.lan, BACKENDS[0]),
            _ => return Err(silent),
        };
        if let Some(known) = self.neighbors.get(&to) {
            return Ok(*known);
        }
        let arrival = self.arrival;
        if arrival.ifindex != ifindex || arrival.tagged {
            return Err(silent);
        }
        let hop = NextHop {
            destination: arrival.source,
            source: arrival.destination,
            ..(self.route)(self.net, V4(other))?
        };
        self.neighbors.insert(to, hop);
        Ok(hop)
    }

    /// Number of the next hop towards a client.
    pub(super) fn next_hop(&mut self, to: V4) -> Result<u16, Verdict> {
        let hop = self.way(to)?;
        let known = self.next_hops.iter().find(|(_, known)| **known == hop);
        if let Some((id, _)) = known {
            return Ok(*id);
        }
        let id = LEARNED + self.next_hops.len() as u16;
        self.next_hops.insert(id, hop);
        Ok(id)
    }
}

/// A place in the ring that is nobody's.
const NO_PENDING: Pending<V4> = Pending {
    key: ocs_lb_common::abi::FlowKey {
        source: V4([0; 4]),
        destination: V4([0; 4]),
        source_port: ocs_lb_common::address::Be16([0; 2]),
        destination_port: ocs_lb_common::address::Be16([0; 2]),
        proto: 0,
        pad: 0,
        pad2: 0,
    },
    born: 0,
    sent: ocs_lb_common::ticks::Ticks(0),
    birth: ocs_lb_common::ticks::Ticks(0),
    isn: 0,
    window: 0,
    tos: 0,
    flags: 0,
    options_len: 0,
    retries: 0,
    early: 0,
    has_data: 0,
    moves: 0,
    scale: 0,
    timestamp_at: 0,
    pad: [0; 5],
    tried: [0; TRIED],
    options: [0; OPTIONS],
};

const fn refuse(action: u8, verdict: Verdict) -> Stop {
    if action == RefuseAction::Reset as u8 {
        Stop::Reset
    } else {
        Stop::Verdict(verdict)
    }
}

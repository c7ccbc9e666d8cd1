//! A backend and a SNAT port, as `place.rs` and `reuse.rs` of the programs.

use ocs_lb_common::abi::{Backend, FlowKey, Load, ServiceKey, Slot, StickyValue, TRIED};
use ocs_lb_common::address::{Address as _, Be16, V4};
use ocs_lb_common::redispatch::{add, has};
use ocs_lb_common::rest::{CANDIDATES, Opening, Record, Reuse, reuse};
use ocs_lb_common::resting::{RestSearch, Resting};
use ocs_lb_common::select::{self, Sticky};
use ocs_lb_common::snat;
use ocs_lb_common::track::{Phase, StateWord};
use ocs_lb_common::verdict::Verdict;

use super::{Datapath, Now, snat_key, sticky_key};

/// What a new flow wants.
pub(super) struct Wanted {
    pub key: FlowKey<V4>,
    pub tried: [u64; TRIED],
    pub opening: Opening,
    pub target_port: Be16,
}

/// What it gets.
pub(super) struct Place {
    pub tuple: FlowKey<V4>,
    pub slot: u16,
    pub next_hop: u16,
    pub early: bool,
    pub strip: bool,
}

/// Why there is none.
#[derive(PartialEq, Eq)]
pub(super) enum Refusal {
    NoBackend,
    Snat,
    Verdict(Verdict),
}

impl Datapath {
    /// Flows that the cluster holds now.
    pub(super) fn held(&self) -> Load {
        Load {
            live: self.load.live,
            pending: self.load.pending,
        }
    }

    /// Finds a place and claims its port. On failure the proposed sticky entry
    /// is gone.
    pub(super) fn find(&mut self, wanted: &mut Wanted, now: Now) -> Result<Place, Refusal> {
        let mut proposed = false;
        let found = self.attempts(wanted, now, &mut proposed);
        if found.is_err() && proposed {
            self.pending_sticky.remove(&sticky_key(wanted.key.source));
        }
        found
    }

    fn attempts(
        &mut self,
        wanted: &mut Wanted,
        now: Now,
        proposed: &mut bool,
    ) -> Result<Place, Refusal> {
        let mut refusal = Refusal::NoBackend;
        for _ in 0..4 {
            let slot = match self.choose(wanted, now, proposed) {
                Err(Refusal::NoBackend) => return Err(refusal),
                other => other?,
            };
            let backend = self
                .backends
                .get(usize::from(slot))
                .copied()
                .ok_or(Refusal::Verdict(Verdict::Inconsistent))?;
            let hop = self.next_hops.get(&backend.next_hop);
            if hop.is_none_or(|hop| hop.valid == 0) {
                return Err(Refusal::Verdict(Verdict::NoNeighbor));
            }
            let target = select::target_port(backend.port, wanted.target_port);
            let source = backend
                .snat_for(wanted.key.source.hash())
                .ok_or(Refusal::Verdict(Verdict::Inconsistent))?;
            let mut tuple = FlowKey::tcp(source, Be16::default(), backend.address, target);
            if let Some((port, early, strip)) = self.allocate(&tuple, &backend, wanted, now) {
                tuple.source_port = Be16::new(port);
                return Ok(Place {
                    tuple,
                    slot,
                    next_hop: backend.next_hop,
                    early,
                    strip,
                });
            }
            refusal = Refusal::Snat;
            if *proposed {
                self.pending_sticky.remove(&sticky_key(wanted.key.source));
                *proposed = false;
            }
            add(&mut wanted.tried, slot);
        }
        Err(refusal)
    }

    fn choose(&mut self, wanted: &Wanted, now: Now, proposed: &mut bool) -> Result<u16, Refusal> {
        let key = sticky_key(wanted.key.source);
        let is_sticky = self.cluster.sticky != 0;
        if is_sticky {
            for table in [&self.sticky, &self.pending_sticky] {
                let known = table.get(&key);
                match select::sticky(&self.cluster, known, now.ns, &wanted.tried) {
                    Sticky::Slot(slot) => {
                        self.load.sticky_hits += 1;
                        return Ok(slot);
                    }
                    Sticky::Refused => return Err(Refusal::NoBackend),
                    Sticky::None => {}
                }
            }
        }
        let cursor = self.load.cursor;
        self.load.cursor = cursor.wrapping_add(1);
        let mut cluster = self.cluster;
        for (at, slot) in cluster.slots.iter_mut().enumerate() {
            if has(&wanted.tried, at) {
                *slot = Slot::default();
            }
        }
        let slot =
            select::select(&cluster, cursor, |at| self.load.slots[at]).ok_or(Refusal::NoBackend)?;
        if is_sticky {
            self.load.sticky_misses += 1;
            *proposed = true;
            self.pending_sticky.insert(key, value(slot, now));
        }
        Ok(slot)
    }

    fn allocate(
        &mut self,
        tuple: &FlowKey<V4>,
        backend: &Backend<V4>,
        wanted: &Wanted,
        now: Now,
    ) -> Option<(u16, bool, bool)> {
        self.ports.entry(snat_key(tuple)).or_default();
        let crowded = self.load.resting >= self.cluster.resting;
        if !crowded && let Some(port) = self.claim(tuple, backend) {
            return Some((port, false, false));
        }
        if let Some((port, strip)) = self.reuse(tuple, backend, &wanted.opening, now, !crowded) {
            self.load.reused_early += 1;
            return Some((port, true, strip));
        }
        if !crowded {
            return None;
        }
        self.claim(tuple, backend).map(|port| (port, false, false))
    }

    fn claim(&self, tuple: &FlowKey<V4>, backend: &Backend<V4>) -> Option<u16> {
        let services = &self.services;
        let served = |port| services.contains_key(&ServiceKey::tcp(tuple.source, Be16::new(port)));
        let ports = &self.ports[&snat_key(tuple)];
        let (low, high) = (backend.port_low, backend.port_high);
        let number = snat::claim(ports, low, high, ports.cursor.get(), served)?;
        ports.cursor.set(number.wrapping_add(1));
        Some(number)
    }

    fn reuse(
        &mut self,
        tuple: &FlowKey<V4>,
        backend: &Backend<V4>,
        opening: &Opening,
        now: Now,
        any: bool,
    ) -> Option<(u16, bool)> {
        let ports = &self.ports[&snat_key(tuple)];
        if ports.resting.get() == 0 {
            return None;
        }
        let (low, high) = (backend.port_low, backend.port_high);
        let mut search = RestSearch::new(low, high, ports.rest_cursor.get());
        let (mut left, mut found, mut oldest) = (CANDIDATES, None, None);
        for _ in 0..4 * CANDIDATES {
            let port = match search.next(ports) {
                Resting::Port(port) => port,
                Resting::Next => continue,
                Resting::End => break,
            };
            if left == 0 {
                break;
            }
            left -= 1;
            let Some(record) = self.record(&with_port(tuple, port), now) else {
                continue;
            };
            match reuse(&record, opening) {
                Reuse::Rested | Reuse::Early => found = Some((port, false)),
                Reuse::EarlyStripped => found = Some((port, true)),
                Reuse::No => {
                    if rests(record.word)
                        && oldest.is_none_or(|(_, age): (u16, u32)| record.age > age)
                    {
                        oldest = Some((port, record.age));
                    }
                    continue;
                }
            }
            break;
        }
        ports.rest_cursor.set(search.cursor() as u16);
        let (port, strip) = match (found, oldest) {
            (Some(found), _) => found,
            (None, Some((port, _))) if any => (port, false),
            _ => return None,
        };
        self.evict(&with_port(tuple, port)).then_some((port, strip))
    }

    /// What is left of the flow with a tuple.
    pub(super) fn record(&self, tuple: &FlowKey<V4>, now: Now) -> Option<Record> {
        let key = tuple.reversed();
        let reverse = self.flows.get(&key)?;
        Some(match self.flows.get(&reverse.peer_key()) {
            Some(forward) if forward.peer_key() == key => Record::of(forward, reverse, now.ticks),
            _ => Record::of_retired(reverse, now.ticks),
        })
    }

    fn evict(&mut self, tuple: &FlowKey<V4>) -> bool {
        let key = tuple.reversed();
        let Some(reverse) = self.flows.get(&key).copied() else {
            return false;
        };
        let forward_key = reverse.peer_key();
        match self.flows.get(&forward_key).copied() {
            Some(forward) if forward.peer_key() == key => {
                let rests = rests(forward.state);
                if rests {
                    self.delete(&forward_key, true);
                }
                rests
            }
            _ => {
                let rests = rests(reverse.state);
                if rests {
                    self.flows.remove(&key);
                    self.unrest(tuple);
                }
                rests
            }
        }
    }

    /// A connection was established: its backend is the client's.
    pub(super) fn promote(&mut self, client: V4, slot: u16, now: Now) {
        self.sticky.insert(sticky_key(client), value(slot, now));
    }
}

fn with_port(tuple: &FlowKey<V4>, port: u16) -> FlowKey<V4> {
    FlowKey {
        source_port: Be16::new(port),
        ..*tuple
    }
}

fn rests(word: StateWord) -> bool {
    matches!(word.phase(), Phase::Closed | Phase::Reset | Phase::Dead)
}

fn value(slot: u16, now: Now) -> StickyValue {
    StickyValue {
        last_used_ns: now.ns,
        backend: slot,
        pad: 0,
        pad2: 0,
    }
}

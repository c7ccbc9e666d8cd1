//! A backend and a SNAT port for a new flow: by the sticky entry, or else by
//! the cluster's algorithm, and the next backend where one's ports are used up.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use ocs_lb_common::{
    abi::{
        Backend, Cluster, ClusterLoad, FlowKey, NextHopKey, Reason, Slot, StickyKey, TRIED,
        backend_index,
    },
    address::Be16,
    redispatch::{add, has},
    rest::Opening,
    select::{self, Scan, Sticky},
    verdict::Verdict,
};

use crate::{
    atomic::{add_u32, add_u64},
    count,
    maps::{CLUSTERS, Family, NEXT_HOPS, Room},
    neighbor,
    port::{self, Ports},
    reuse::{Found, Reused},
    sticky,
    time::Now,
};

/// Backends tried for one packet at most.
const ATTEMPTS: u32 = 16;

/// What a new flow wants.
#[repr(C)]
pub struct Wanted<A> {
    /// Tuple of the client's packets.
    pub key: FlowKey<A>,
    /// Backends that had their try.
    pub tried: [u64; TRIED],
    /// Its SYN.
    pub opening: Opening,
    /// Now.
    pub now: Now,
    /// Id of the cluster.
    pub cluster: u16,
    /// Port on the backend, unless that has its own.
    pub target_port: Be16,
}

/// What it gets.
#[repr(C)]
pub struct Place<A> {
    /// Tuple of its packets as the backend sees them.
    pub tuple: FlowKey<A>,
    /// Index of the ports it has one of.
    pub ports: u32,
    /// Slot of the backend.
    pub slot: u16,
    /// Index of the next hop to it.
    pub next_hop: u16,
    /// Its first SNAT port, host order.
    pub low: u16,
    /// Its last SNAT port.
    pub high: u16,
    /// 1: the port was another flow's a short while ago.
    pub early: u8,
    /// 1: the SYN's timestamp must go.
    pub strip: u8,
    /// 1: the client's sticky entry is only proposed.
    pub proposed: u8,
    /// Among ports that rest.
    pub found: Found,
}

impl<A: Family> Place<A> {
    /// Forgets what was here before.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.tuple.source_port = Be16::default();
        self.proposed = 0;
    }

    /// Gives it back.
    #[inline(always)]
    pub fn abandon(&self, wanted: &Wanted<A>) {
        if let Some(ports) = Ports::at(self.ports) {
            port::unclaim(ports, self.tuple.source_port.get());
        }
        self.withdraw(wanted);
    }

    /// Forgets the proposed sticky entry: a client must not be bound to a
    /// backend that could not take it.
    #[inline(always)]
    pub fn withdraw(&self, wanted: &Wanted<A>) {
        if self.proposed != 0 {
            sticky::withdraw(&sticky::key(wanted.key.source, wanted.cluster));
        }
    }
}

/// Why there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No backend is ready.
    NoBackend,
    /// Every SNAT port is in use.
    Snat,
    /// Something else; the packet is dropped.
    Verdict(Verdict),
}

impl Refusal {
    /// The maps contradict each other.
    pub const INCONSISTENT: Self = Self::Verdict(Verdict::Inconsistent);

    /// From what [`Refusal::code`] made of it.
    ///
    /// # Errors
    /// The refusal, where it is one.
    #[inline(always)]
    pub const fn from_code(code: u32) -> Result<(), Self> {
        Err(match code {
            0 => return Ok(()),
            1 => Self::NoBackend,
            2 => Self::Snat,
            // The only ones that a search meets.
            3 => Self::Verdict(Verdict::NoNeighbor),
            4 => Self::Verdict(Verdict::SnatTableFull),
            _ => Self::INCONSISTENT,
        })
    }

    /// As a number, for the way out of a global function; 0 is none.
    #[inline(always)]
    pub const fn code(result: Result<(), Self>) -> u32 {
        match result {
            Ok(()) => 0,
            Err(Self::NoBackend) => 1,
            Err(Self::Snat) => 2,
            Err(Self::Verdict(Verdict::NoNeighbor)) => 3,
            Err(Self::Verdict(Verdict::SnatTableFull)) => 4,
            Err(Self::Verdict(_)) => 5,
        }
    }

    /// The reason for the event, where the operator is told one.
    #[inline(always)]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::NoBackend => Some(Reason::NoBackend),
            Self::Snat => Some(Reason::Snat),
            Self::Verdict(_) => None,
        }
    }
}

/// What an attempt needs of the maps.
#[inline(always)]
fn policy<A: Family>(room: &Room<A>) -> Result<(&'static Cluster, *mut ClusterLoad), Refusal> {
    let id = room.wanted.cluster;
    match (CLUSTERS.get(id as u32), count::load(id)) {
        (Some(cluster), Some(load)) => Ok((cluster, load)),
        _ => Err(Refusal::INCONSISTENT),
    }
}

/// Finds a place for what is wanted in a CPU's room, and claims its port.
#[inline(always)]
pub fn find<A: Family>(room: &mut Room<A>) -> Result<(), Refusal> {
    room.place.clear();
    let mut refusal = Refusal::NoBackend;
    for _ in 0..ATTEMPTS {
        match A::choose_backend() {
            Ok(()) => {}
            // Where an attempt found no port, that is why the last one fails.
            Err(Refusal::NoBackend) => return Err(refusal),
            Err(other) => return Err(other),
        }
        if A::allocate_port() {
            return Ok(());
        }
        refusal = Refusal::Snat;
        if let Some(ports) = Ports::at(room.place.ports) {
            port::failed(ports);
        }
        room.place.withdraw(&room.wanted);
        room.place.proposed = 0;
        add(&mut room.wanted.tried, room.place.slot);
    }
    Err(refusal)
}

/// The backend of the next attempt, and everything about it but the port.
#[inline(always)]
pub fn backend<A: Family>(room: &mut Room<A>) -> Result<(), Refusal> {
    let (cluster, load) = policy(room)?;
    let (wanted, place) = (&room.wanted, &mut room.place);
    let client = sticky::key(wanted.key.source, wanted.cluster);
    let slot = choose(&client, wanted, place, cluster, load)?.ok_or(Refusal::NoBackend)?;
    let backend = A::backends()
        .get(backend_index(wanted.cluster, slot))
        .ok_or(Refusal::INCONSISTENT)?;
    reachable(backend).map_err(Refusal::Verdict)?;
    let snat = backend
        .snat_for(wanted.key.source.hash())
        .ok_or(Refusal::INCONSISTENT)?;
    let target = select::target_port(backend.port, wanted.target_port);
    place.tuple = FlowKey::tcp(snat, Be16::default(), backend.address, target);
    place.ports = port::towards(snat, &place.tuple).map_err(Refusal::Verdict)?;
    place.slot = slot;
    place.next_hop = backend.next_hop;
    place.low = backend.port_low;
    place.high = backend.port_high;
    Ok(())
}

/// A port for the place; whether there is one.
#[inline(always)]
pub fn port<A: Family>(room: &mut Room<A>) -> bool {
    let Ok((cluster, load)) = policy(room) else {
        return false;
    };
    let place = &mut room.place;
    place.early = 0;
    place.strip = 0;
    // SAFETY: a value within the cluster's counts.
    let crowded = unsafe { (*load).resting } >= cluster.resting;
    let mut port = if crowded { 0 } else { A::claim_port() };
    if port == 0 {
        port = reused(place, load, A::reuse_port(!crowded));
    }
    if port == 0 && crowded {
        port = A::claim_port();
        if port == 0 {
            port = reused(place, load, A::reuse_port(true));
        }
    }
    place.tuple.source_port = Be16::new(port);
    port != 0
}

/// The backend of the next attempt.
#[inline(always)]
fn choose<A: Family>(
    client: &StickyKey<A>,
    wanted: &Wanted<A>,
    place: &mut Place<A>,
    cluster: &Cluster,
    load: *mut ClusterLoad,
) -> Result<Option<u16>, Refusal> {
    let is_sticky = cluster.sticky != 0;
    if is_sticky {
        match sticky::known(client, cluster, wanted.now, &wanted.tried) {
            Sticky::Slot(slot) => {
                // SAFETY: a value within the cluster's counts.
                unsafe { add_u64(&raw mut (*load).sticky_hits, 1) };
                return Ok(Some(slot));
            }
            Sticky::Refused => return Err(Refusal::NoBackend),
            Sticky::None => {}
        }
    }
    // SAFETY: as above.
    let cursor = unsafe { add_u32(&raw mut (*load).cursor, 1) };
    let Some(slot) = scan(cluster, load, cursor, &wanted.tried) else {
        return Ok(None);
    };
    if !is_sticky {
        return Ok(Some(slot));
    }
    // SAFETY: as above.
    unsafe { add_u64(&raw mut (*load).sticky_misses, 1) };
    place.proposed = 1;
    Ok(Some(sticky::propose(
        client,
        cluster,
        slot,
        wanted.now,
        &wanted.tried,
    )))
}

/// Notes how a port comes to be used again; the port, or 0.
#[inline(always)]
fn reused<A>(place: &mut Place<A>, load: *mut ClusterLoad, reused: Option<Reused>) -> u16 {
    let Some(reused) = reused else {
        return 0;
    };
    // SAFETY: a counter within the cluster's counts.
    unsafe { add_u64(&raw mut (*load).reused_early, reused.early as u64) };
    place.early = reused.early;
    place.strip = reused.strip;
    reused.port
}

/// What the scan's callback works on.
#[repr(C)]
struct Choice<'a> {
    cluster: &'a Cluster,
    load: *mut ClusterLoad,
    tried: &'a [u64; TRIED],
    scan: Scan,
}

/// The backend by the cluster's algorithm.
#[inline(always)]
fn scan(
    cluster: &Cluster,
    load: *mut ClusterLoad,
    cursor: u32,
    tried: &[u64; TRIED],
) -> Option<u16> {
    let mut choice = Choice {
        cluster,
        load,
        tried,
        scan: Scan::new(cluster, cursor),
    };
    let step: extern "C" fn(u32, *mut Choice<'_>) -> i64 = scan_step;
    // SAFETY: the callback has the helper's signature, and `choice` outlives
    // the call. A helper's loop is verified once, a plain one slot by slot.
    unsafe {
        bpf_loop(
            choice.scan.steps(),
            step as *mut c_void,
            (&raw mut choice).cast(),
            0,
        )
    };
    choice.scan.slot()
}

/// One step of the scan; 1 ends it.
extern "C" fn scan_step(step: u32, choice: *mut Choice<'_>) -> i64 {
    // SAFETY: the helper passes our own context.
    let choice = unsafe { &mut *choice };
    let at = choice.scan.index(step);
    // SAFETY: within the cluster's policy and counts; plain integers.
    let (mut slot, load) = unsafe { (choice.cluster.slots[at], (*choice.load).slots[at]) };
    if has(choice.tried, at) {
        slot = Slot::default();
    }
    i64::from(choice.scan.step(at, slot, load))
}

/// Whether the way to a backend is known; asks for it otherwise.
#[inline(always)]
fn reachable<A: Family>(backend: &Backend<A>) -> Result<(), Verdict> {
    let hop = NEXT_HOPS
        .get(backend.next_hop as u32)
        .ok_or(Verdict::Inconsistent)?;
    if hop.valid != 0 {
        return Ok(());
    }
    neighbor::ask(&NextHopKey {
        ifindex: hop.ifindex,
        address: backend.address,
    });
    Err(Verdict::NoNeighbor)
}

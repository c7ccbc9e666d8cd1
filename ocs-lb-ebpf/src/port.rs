//! SNAT ports in the slab.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use ocs_lb_common::{
    abi::{BPF_NOEXIST, FlowKey, PortMap, ServiceKey, SnatKey},
    address::Be16,
    resting,
    snat::{self, PortWords, STEPS, Search, WORDS},
    verdict::Verdict,
};

use crate::{
    atomic::{add_u32, add_u64, and_u64, or_u64, sub_u32},
    count,
    maps::{CURSOR_PORT_MAPS, CURSORS, Family, PORT_MAPS, SETTINGS},
    reclaim,
};

/// A bitmap of the slab.
#[derive(Clone, Copy)]
pub struct Ports(pub *mut PortMap);

impl Ports {
    /// Those of an index.
    #[inline(always)]
    pub fn at(index: u32) -> Option<Self> {
        PORT_MAPS.get_ptr_mut(index).map(Self)
    }
}

/// Hides a value's origin from the compiler, which would prove the bounds
/// checks below superfluous and drop them; the verifier cannot follow it.
#[inline(always)]
fn opaque(word: usize) -> usize {
    // SAFETY: a reference is readable.
    unsafe { core::ptr::read_volatile(&raw const word) }
}

impl PortWords for Ports {
    #[inline(always)]
    fn load(&self, word: usize) -> u64 {
        let word = opaque(word);
        if word >= WORDS {
            return u64::MAX;
        }
        // SAFETY: within the three levels, which lie one after the other.
        unsafe { core::ptr::read_volatile(self.0.cast::<u64>().add(word)) }
    }

    #[inline(always)]
    fn fetch_or(&self, word: usize, bits: u64) -> u64 {
        let word = opaque(word);
        if word >= WORDS {
            return u64::MAX;
        }
        // SAFETY: as above.
        unsafe { or_u64(self.0.cast::<u64>().add(word), bits) }
    }

    #[inline(always)]
    fn fetch_and(&self, word: usize, bits: u64) -> u64 {
        let word = opaque(word);
        if word >= WORDS {
            return u64::MAX;
        }
        // SAFETY: as above.
        unsafe { and_u64(self.0.cast::<u64>().add(word), bits) }
    }
}

/// What the search's callback works on.
#[repr(C)]
struct Claim<A> {
    ports: Ports,
    search: Search,
    snat: A,
}

/// Claims a port of `low..=high` towards a destination. `None`: none is free.
#[inline(always)]
pub fn claim<A: Family>(ports: Ports, low: u16, high: u16, snat: A) -> Option<u16> {
    // SAFETY: the cursor of the slab's value; a lost update costs one step.
    let cursor = unsafe { (*ports.0).cursor } as u16;
    let mut claim = Claim {
        search: Search::new(low, high, cursor),
        ports,
        snat,
    };
    let step: extern "C" fn(u32, *mut Claim<A>) -> i64 = step::<A>;
    // SAFETY: the callback has the helper's signature, and `claim` outlives
    // the call. A helper's loop is verified once, a plain one step by step.
    unsafe { bpf_loop(STEPS, step as *mut c_void, (&raw mut claim).cast(), 0) };
    let port = claim.search.claimed()?;
    // SAFETY: as above.
    unsafe {
        (*ports.0).cursor = port as u32 + 1;
        add_u32(&raw mut (*ports.0).used, 1);
    }
    Some(port)
}

/// One step of the search; 1 ends it.
extern "C" fn step<A: Family>(_index: u32, claim: *mut Claim<A>) -> i64 {
    // SAFETY: the helper passes our own context.
    let claim = unsafe { &mut *claim };
    let (ports, snat) = (claim.ports, claim.snat);
    // The answer to a flow from a served port would look like a client's
    // packet to that service.
    let served = |port| {
        A::services()
            .get_ptr(&ServiceKey::tcp(snat, Be16::new(port)))
            .is_some()
    };
    i64::from(claim.search.step(&ports, served))
}

/// Gives back a port that never came to a flow.
#[inline(always)]
pub fn unclaim(ports: Ports, port: u16) {
    snat::release(&ports, port);
    // SAFETY: the counter of the slab's value.
    unsafe { sub_u32(&raw mut (*ports.0).used, 1) };
}

/// A new flow found neither a free nor a resting port.
#[inline(always)]
pub fn failed(ports: Ports) {
    // SAFETY: as above.
    unsafe { add_u64(&raw mut (*ports.0).failures, 1) };
}

/// Frees the port of a flow whose packets the backend sees as `tuple`.
#[inline(always)]
pub fn release<A: Family>(tuple: &FlowKey<A>, cluster: u16) {
    if let Some(ports) = known(tuple) {
        end_rest(ports, tuple, cluster);
        unclaim(ports, tuple.source_port.get());
    }
}

/// Lets the port of a flow that is over rest, by the key of its reverse entry.
#[inline(always)]
pub fn rest<A: Family>(reverse: &FlowKey<A>, cluster: u16) {
    let tuple = &reverse.reversed();
    let Some(ports) = known(tuple) else {
        return;
    };
    if resting::rest(&ports, tuple.source_port.get()) {
        // SAFETY: the counter of the slab's value.
        unsafe { add_u32(&raw mut (*ports.0).resting, 1) };
        count::rest(cluster, 1);
        reclaim::note(reverse);
    }
}

/// Takes that back: the flow lives again, or another one has its port.
#[inline(always)]
pub fn unrest<A: Family>(tuple: &FlowKey<A>, cluster: u16) {
    if let Some(ports) = known(tuple) {
        end_rest(ports, tuple, cluster);
    }
}

#[inline(always)]
fn end_rest<A: Family>(ports: Ports, tuple: &FlowKey<A>, cluster: u16) {
    if resting::unrest(&ports, tuple.source_port.get()) {
        // SAFETY: as above.
        unsafe { sub_u32(&raw mut (*ports.0).resting, 1) };
        count::rest(cluster, 1u32.wrapping_neg());
    }
}

/// The ports of a destination that has some in use.
#[inline(always)]
fn known<A: Family>(tuple: &FlowKey<A>) -> Option<Ports> {
    let index = A::destinations().get_ptr(&destination_key(tuple.source, tuple))?;
    // SAFETY: a value of the map, written once.
    let index = unsafe { *index };
    Ports::at(index)
}

#[inline(always)]
fn destination_key<A: Family>(snat: A, tuple: &FlowKey<A>) -> SnatKey<A> {
    SnatKey {
        snat,
        backend: tuple.destination,
        port: tuple.destination_port,
        proto: tuple.proto,
        pad: 0,
    }
}

/// Index of the ports towards a destination, created at first use.
#[inline(always)]
pub fn towards<A: Family>(snat: A, tuple: &FlowKey<A>) -> Result<u32, Verdict> {
    let key = destination_key(snat, tuple);
    match A::destinations().get_ptr(&key) {
        // SAFETY: a value of the map, written once.
        Some(index) => Ok(unsafe { *index }),
        None => create(&key),
    }
}

/// Takes a slot of the slab. Where two CPUs create one destination at once,
/// the loser's slot stays empty; that costs 16 KiB and happens once.
#[inline(always)]
fn create<A: Family>(key: &SnatKey<A>) -> Result<u32, Verdict> {
    let limit = SETTINGS.get(0).map_or(0, |settings| settings.port_maps);
    let cursor = CURSORS
        .get_ptr_mut(CURSOR_PORT_MAPS)
        .ok_or(Verdict::Inconsistent)?;
    // SAFETY: a value of the map.
    let taken = unsafe { core::ptr::read_volatile(cursor) };
    if taken >= limit {
        return Err(Verdict::SnatTableFull);
    }
    // SAFETY: as above.
    let index = unsafe { add_u32(cursor, 1) };
    if index >= limit {
        return Err(Verdict::SnatTableFull);
    }
    if A::destinations().insert(key, &index, BPF_NOEXIST).is_ok() {
        return Ok(index);
    }
    match A::destinations().get_ptr(key) {
        // SAFETY: a value of the map, written once.
        Some(index) => Ok(unsafe { *index }),
        None => Err(Verdict::SnatTableFull),
    }
}

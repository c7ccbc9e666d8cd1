//! Ports that rest, used again: where no other is free, or where a cluster has
//! as many resting flows as it may keep.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use ocs_lb_common::{
    abi::{Flow, FlowKey},
    address::Be16,
    rest::{CANDIDATES, Record, Reuse, reuse},
    resting::{RestSearch, Resting},
    ticks::Ticks,
    track::{Phase, StateWord},
};

use crate::{
    entries, flow,
    maps::{Family, Room},
    place::{Place, Wanted},
    port::Ports,
};

/// Steps of one walk at most: candidates, and leaps between them.
const STEPS: u32 = 4 * CANDIDATES;

/// A port that another flow had.
#[derive(Clone, Copy)]
pub struct Reused {
    /// The port.
    pub port: u16,
    /// 1: its rest was not over.
    pub early: u8,
    /// 1: the SYN's timestamp must go.
    pub strip: u8,
}

impl Reused {
    const STRIP: u32 = 1 << 16;
    const EARLY: u32 = 1 << 17;

    /// From what [`find`] gives, the way out of a global function. Bits stay
    /// bits: the verifier would follow each branch to the program's end.
    #[inline(always)]
    pub const fn from_code(code: u32) -> Option<Self> {
        if code == 0 {
            return None;
        }
        Some(Self {
            port: code as u16,
            early: (code >> 17 & 1) as u8,
            strip: (code >> 16 & 1) as u8,
        })
    }
}

/// What a walk has found so far. It lies in the CPU's room, not on the stack:
/// the verifier would follow each of its values through every step.
#[repr(C)]
pub struct Found {
    /// The code of a port that may be used, or 0.
    code: u32,
    /// The port that rests longest, or 0, and for how long.
    oldest: u32,
    oldest_age: u32,
}

/// What the walk's callback works on.
#[repr(C)]
struct Walk<A: 'static> {
    search: RestSearch,
    left: u32,
    ports: Ports,
    wanted: *const Wanted<A>,
    place: *mut Place<A>,
}

/// Finds a resting port for the place in a CPU's room, for [`evict`] to take
/// it. With `any`, the one that rests longest where none is sure to be
/// accepted. The code of a [`Reused`], or 0.
#[inline(always)]
pub fn find<A: Family>(room: &mut Room<A>, any: bool) -> u32 {
    let place = &mut room.place;
    let Some(ports) = Ports::at(place.ports) else {
        return 0;
    };
    // SAFETY: counters of the slab's value; a lost update costs a few steps.
    let (resting, cursor) = unsafe { ((*ports.0).resting, (*ports.0).rest_cursor as u16) };
    if resting == 0 {
        return 0;
    }
    place.found = Found {
        code: 0,
        oldest: 0,
        oldest_age: 0,
    };
    let mut walk = Walk {
        search: RestSearch::new(place.low, place.high, cursor),
        left: CANDIDATES,
        ports,
        wanted: &raw const room.wanted,
        place: &raw mut room.place,
    };
    let step: extern "C" fn(u32, *mut Walk<A>) -> i64 = step::<A>;
    // SAFETY: the callback has the helper's signature, and `walk` outlives the
    // call.
    unsafe { bpf_loop(STEPS, step as *mut c_void, (&raw mut walk).cast(), 0) };
    // SAFETY: as above.
    unsafe { (*ports.0).rest_cursor = walk.search.cursor() };
    let found = &room.place.found;
    if found.code != 0 {
        found.code
    } else if any && found.oldest != 0 {
        found.oldest | Reused::EARLY
    } else {
        0
    }
}

/// One step of the walk; 1 ends it.
extern "C" fn step<A: Family>(_index: u32, walk: *mut Walk<A>) -> i64 {
    // SAFETY: the helper passes our own context.
    let walk = unsafe { &mut *walk };
    let ports = walk.ports;
    let port = match walk.search.next(&ports) {
        Resting::Port(port) => port,
        Resting::Next => return 0,
        Resting::End => return 1,
    };
    if walk.left == 0 {
        return 1;
    }
    walk.left -= 1;
    // SAFETY: both lie in the room, which outlives the walk.
    let (wanted, place) = unsafe { (&*walk.wanted, &mut *walk.place) };
    let Some(record) = look(&place.tuple, port, wanted.now.ticks) else {
        return 0;
    };
    let found = &mut place.found;
    found.code = match reuse(&record, &wanted.opening) {
        Reuse::Rested => port as u32,
        Reuse::Early => port as u32 | Reused::EARLY,
        Reuse::EarlyStripped => port as u32 | Reused::EARLY | Reused::STRIP,
        Reuse::No => 0,
    };
    if found.code != 0 {
        return 1;
    }
    if rests(record.word) && (found.oldest == 0 || record.age > found.oldest_age) {
        found.oldest = port as u32;
        found.oldest_age = record.age;
    }
    0
}

/// Key of the answers to the flow that has `port`.
#[inline(always)]
fn reverse_key<A: Family>(tuple: &FlowKey<A>, port: u16) -> FlowKey<A> {
    FlowKey {
        source_port: Be16::new(port),
        ..*tuple
    }
    .reversed()
}

/// What is left of the flow that has `port`.
#[inline(always)]
fn look<A: Family>(tuple: &FlowKey<A>, port: u16, now: Ticks) -> Option<Record> {
    let key = reverse_key(tuple, port);
    let reverse = A::flows().get_ptr(&key)?;
    // SAFETY: values of the map, read only.
    let reverse: &Flow<A> = unsafe { &*reverse };
    let forward = A::flows().get_ptr(&reverse.peer_key());
    // SAFETY: as above.
    match forward.map(|forward| unsafe { &*forward }) {
        Some(forward) if forward.peer_key() == key => Some(Record::of(forward, reverse, now)),
        _ => Some(Record::of_retired(reverse, now)),
    }
}

/// Deletes what is left of the flow that has `port`; the port stays claimed.
/// Whether it was still there.
#[inline(always)]
pub fn evict<A: Family>(tuple: &FlowKey<A>, port: u16) -> bool {
    delete(&reverse_key(tuple, port), true)
}

/// The same by the key of its reverse entry, and its port is free.
#[inline(always)]
pub fn clear<A: Family>(key: &FlowKey<A>) -> bool {
    delete(key, false)
}

#[inline(always)]
fn delete<A: Family>(key: &FlowKey<A>, keep_port: bool) -> bool {
    let Some(reverse) = A::flows().get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: a value of the map; its state is changed by swaps only.
    let reverse = unsafe { &mut *reverse };
    let forward_key = reverse.peer_key();
    if let Some(forward) = A::flows().get_ptr_mut(&forward_key) {
        // SAFETY: as above.
        let forward = unsafe { &mut *forward };
        if forward.peer_key() == *key {
            let word = flow::state_of(forward);
            return is_over(word)
                && entries::delete(&forward_key, forward, word, keep_port).is_ok();
        }
    }
    let word = flow::state_of(reverse);
    is_over(word) && entries::delete_record(key, reverse, word, keep_port).is_ok()
}

/// Whether a flow only rests, by the key of its reverse entry: one that was
/// killed may still have to tell its peers.
#[inline(always)]
pub fn is_resting<A: Family>(key: &FlowKey<A>) -> bool {
    let Some(reverse) = A::flows().get_ptr(key) else {
        return false;
    };
    // SAFETY: values of the map, read only.
    let reverse: &Flow<A> = unsafe { &*reverse };
    let forward = A::flows().get_ptr(&reverse.peer_key());
    // SAFETY: as above.
    match forward.map(|forward| unsafe { &*forward }) {
        Some(forward) if forward.peer_key() == *key => rests(flow::state_of(forward)),
        _ => rests(flow::state_of(reverse)),
    }
}

#[inline(always)]
fn rests(word: StateWord) -> bool {
    matches!(word.phase(), Phase::Closed | Phase::Reset | Phase::Dead)
}

/// The same, or killed: then it has answered long enough.
#[inline(always)]
fn is_over(word: StateWord) -> bool {
    rests(word) || matches!(word.phase(), Phase::Killed)
}

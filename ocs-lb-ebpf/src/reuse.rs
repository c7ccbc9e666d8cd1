//! Ports that rest, used again: where no other is free, or where a cluster has
//! as many resting flows as it may keep.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use ocs_lb_common::{
    abi::{Flow, FlowKey},
    address::Be16,
    rest::{CANDIDATES, Opening, Record, Reuse, reuse},
    resting::{RestSearch, Resting},
    ticks::Ticks,
    track::{Phase, StateWord},
};

use crate::{flow, maps::Family, port::Ports};

/// Steps of one walk at most: candidates, and leaps between them.
const STEPS: u32 = 4 * CANDIDATES;

/// A port that another flow had.
#[derive(Clone, Copy)]
pub struct Reused {
    /// The port.
    pub port: u16,
    /// Whether the SYN's timestamp must go.
    pub strip: bool,
    /// Whether its rest was not over.
    pub early: bool,
}

impl Reused {
    /// As a number, for the way out of a global function.
    #[inline(always)]
    pub const fn code(reused: Option<Self>) -> u32 {
        match reused {
            Some(reused) => {
                (reused.early as u32) << 17 | (reused.strip as u32) << 16 | reused.port as u32
            }
            None => 0,
        }
    }

    /// From that number.
    #[inline(always)]
    pub const fn from_code(code: u32) -> Option<Self> {
        if code == 0 {
            return None;
        }
        Some(Self {
            port: code as u16,
            strip: code >> 16 & 1 != 0,
            early: code >> 17 != 0,
        })
    }
}

/// What the walk's callback works on.
#[repr(C)]
struct Walk<A> {
    search: RestSearch,
    left: u32,
    /// What the new flow's packets will look like; the port is each
    /// candidate's.
    tuple: FlowKey<A>,
    isn: u32,
    timestamp: u32,
    has_timestamp: u32,
    now: Ticks,
    ports: Ports,
    /// The port found, or 0.
    found: u32,
    strip: u32,
    early: u32,
    /// The one that rests longest, or 0, and for how long.
    oldest: u32,
    oldest_age: u32,
}

/// Takes a resting port of `low..=high` from its flow, whose entries go. With
/// `any`, the one that rests longest where none is sure to be accepted.
#[inline(always)]
pub fn take<A: Family>(
    ports: Ports,
    (low, high): (u16, u16),
    tuple: &FlowKey<A>,
    opening: &Opening,
    now: Ticks,
    any: bool,
) -> Option<Reused> {
    // SAFETY: counters of the slab's value; a lost update costs a few steps.
    let (resting, cursor) = unsafe { ((*ports.0).resting, (*ports.0).rest_cursor as u16) };
    if resting == 0 {
        return None;
    }
    let mut walk = Walk {
        search: RestSearch::new(low, high, cursor),
        left: CANDIDATES,
        tuple: *tuple,
        isn: opening.isn,
        timestamp: opening.timestamp.unwrap_or(0),
        has_timestamp: u32::from(opening.timestamp.is_some()),
        now,
        ports,
        found: 0,
        strip: 0,
        early: 1,
        oldest: 0,
        oldest_age: 0,
    };
    let step: extern "C" fn(u32, *mut Walk<A>) -> i64 = step::<A>;
    // SAFETY: the callback has the helper's signature, and `walk` outlives the
    // call.
    unsafe { bpf_loop(STEPS, step as *mut c_void, (&raw mut walk).cast(), 0) };
    // SAFETY: as above.
    unsafe { (*ports.0).rest_cursor = walk.search.cursor() };
    let (port, strip) = if walk.found != 0 {
        (walk.found as u16, walk.strip != 0)
    } else if any && walk.oldest != 0 {
        (walk.oldest as u16, false)
    } else {
        return None;
    };
    let early = walk.early != 0;
    evict(tuple, port).then_some(Reused { port, strip, early })
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
    let Some(record) = look(&walk.tuple, port, walk.now) else {
        return 0;
    };
    let opening = Opening {
        isn: walk.isn,
        timestamp: (walk.has_timestamp != 0).then_some(walk.timestamp),
    };
    match reuse(&record, &opening) {
        Reuse::No => {}
        usable => {
            walk.found = port as u32;
            walk.strip = matches!(usable, Reuse::EarlyStripped) as u32;
            walk.early = !matches!(usable, Reuse::Rested) as u32;
            return 1;
        }
    }
    if is_over(record.word)
        && !matches!(record.word.phase(), Phase::Killed)
        && (walk.oldest == 0 || record.age > walk.oldest_age)
    {
        walk.oldest = port as u32;
        walk.oldest_age = record.age;
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
#[inline(always)]
fn evict<A: Family>(tuple: &FlowKey<A>, port: u16) -> bool {
    let key = reverse_key(tuple, port);
    let Some(reverse) = A::flows().get_ptr_mut(&key) else {
        return false;
    };
    // SAFETY: a value of the map; its state is changed by swaps only.
    let reverse = unsafe { &mut *reverse };
    let forward_key = reverse.peer_key();
    if let Some(forward) = A::flows().get_ptr_mut(&forward_key) {
        // SAFETY: as above.
        let forward = unsafe { &mut *forward };
        if forward.peer_key() == key {
            let word = flow::state_of(forward);
            return is_over(word) && flow::delete(&forward_key, forward, word, true).is_ok();
        }
    }
    let word = flow::state_of(reverse);
    is_over(word) && flow::delete_record(&key, reverse, word, true).is_ok()
}

/// Whether a flow is over, and nobody deletes it yet.
#[inline(always)]
fn is_over(word: StateWord) -> bool {
    matches!(
        word.phase(),
        Phase::Closed | Phase::Reset | Phase::Dead | Phase::Killed
    )
}

//! The order in which flows came to rest: where the flow table is full, the one
//! that rests longest makes room.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use ocs_lb_common::abi::{FlowKey, RESTING};

use crate::{
    atomic::{add_u32, swap_u32},
    maps::{CURSOR_RECLAIMED, CURSOR_RESTING, CURSORS, Family},
    reuse,
};

/// Places that are looked at for one packet at most. What they hold may rest no
/// longer; each place is passed once.
const TRIES: u32 = 256;

/// What a walk does, and has done.
#[repr(C)]
struct Walk {
    /// 1: entries are deleted.
    takes: u32,
    /// 1: one was.
    freed: u32,
}

/// Notes that a flow rests from now on, by the key of its reverse entry.
#[inline(always)]
pub fn note<A: Family>(reverse: &FlowKey<A>) {
    let Some(cursor) = CURSORS.get_ptr_mut(CURSOR_RESTING) else {
        return;
    };
    // SAFETY: a value of the map.
    let at = unsafe { add_u32(cursor, 1) };
    if let Some(place) = A::resting().get_ptr_mut(at & (RESTING - 1)) {
        // SAFETY: a value of the map; a key that is read half written is
        // nobody's, or that of another flow, which is looked at like any.
        unsafe { *place = *reverse };
    }
}

/// Deletes what is left of the flow that rests longest, and frees its port;
/// whether there was one.
#[inline(always)]
pub fn oldest<A: Family>() -> bool {
    walk::<A>(TRIES, 1)
}

/// Passes over the places of flows that rest no longer, up to the first that
/// does, so that the next packet that needs room finds it at once.
#[inline(always)]
pub fn catch_up<A: Family>() {
    walk::<A>(RESTING, 0);
}

#[inline(always)]
fn walk<A: Family>(steps: u32, takes: u32) -> bool {
    let mut walk = Walk { takes, freed: 0 };
    let step: extern "C" fn(u32, *mut Walk) -> i64 = step::<A>;
    // SAFETY: the callback has the helper's signature, and `walk` outlives the
    // call.
    unsafe { bpf_loop(steps, step as *mut c_void, (&raw mut walk).cast(), 0) };
    walk.freed != 0
}

/// One place; 1 ends the walk.
extern "C" fn step<A: Family>(_index: u32, walk: *mut Walk) -> i64 {
    // SAFETY: the helper passes our own context.
    let walk = unsafe { &mut *walk };
    let (Some(noted), Some(passed)) = (
        CURSORS.get_ptr_mut(CURSOR_RESTING),
        CURSORS.get_ptr_mut(CURSOR_RECLAIMED),
    ) else {
        return 1;
    };
    // SAFETY: values of the map; volatile, as other CPUs change them.
    let (end, at) = unsafe {
        (
            core::ptr::read_volatile(noted),
            core::ptr::read_volatile(passed),
        )
    };
    let left = end.wrapping_sub(at);
    if left == 0 {
        return 1;
    }
    if left > RESTING {
        // Newer ones lie in these places.
        // SAFETY: a value of the map.
        unsafe { swap_u32(passed, at, end.wrapping_sub(RESTING)) };
        return 0;
    }
    let Some(place) = A::resting().get_ptr(at & (RESTING - 1)) else {
        return 1;
    };
    // SAFETY: a value of the map, copied.
    let key = unsafe { *place };
    let rests = reuse::is_resting(&key);
    if rests && walk.takes == 0 {
        return 1;
    }
    // SAFETY: a value of the map. Whoever swaps has the place.
    let mine = unsafe { swap_u32(passed, at, at.wrapping_add(1)) };
    if rests && mine && reuse::clear(&key) {
        walk.freed = 1;
        return 1;
    }
    0
}

//! Counters: verdicts by interface, and flows by backend.

use ocs_lb_common::{
    abi::{
        ClusterLoad, Correction, INTERFACE_INDEX_MASK, INTERFACE_NO_TX, INTERFACE_SLOTS, Load,
        MAX_BACKENDS,
    },
    ticks::Ticks,
    track::Count,
    verdict::SLOTS,
};

use crate::{
    atomic::{add_u32, add_u64, sub_u32},
    maps::{COUNTERS, INTERFACES, LOADS},
};

/// Slot of an interface plus one, and [`INTERFACE_NO_TX`]; 0 without a slot.
#[inline(always)]
fn interface(ifindex: u32) -> u32 {
    INTERFACES
        .get(ifindex & INTERFACE_INDEX_MASK)
        .copied()
        .unwrap_or(0)
}

/// Whether packets that leave where they came in go by `XDP_TX`.
#[inline(always)]
pub fn may_transmit(ifindex: u32) -> bool {
    interface(ifindex) & INTERFACE_NO_TX == 0
}

/// Counts the end of a packet's way, by its verdict's number.
#[inline(always)]
pub fn verdict(ifindex: u32, verdict: u32) {
    // The last slot is for packets of interfaces without one: 0 less 1.
    let slot = interface(ifindex).wrapping_sub(1) & (INTERFACE_SLOTS - 1);
    if let Some(counter) = COUNTERS.get_ptr_mut(slot * SLOTS + (verdict & (SLOTS - 1))) {
        // SAFETY: a per-CPU value, and programs do not interrupt each other
        // on one CPU within XDP.
        unsafe { *counter += 1 };
    }
}

/// The counts of a cluster.
#[inline(always)]
pub fn load(cluster: u16) -> Option<*mut ClusterLoad> {
    LOADS.get_ptr_mut(cluster as u32)
}

/// Does what a swap's winner owes to the counts.
#[inline(always)]
pub fn apply(cluster: u16, backend: u16, count: Count) {
    let Some(load) = load(cluster) else {
        return;
    };
    let at = backend as usize & (MAX_BACKENDS - 1);
    // SAFETY: the pointers lie within the cluster's value.
    unsafe {
        let slot = &raw mut (*load).slots[at];
        match count {
            Count::None => {}
            Count::Promote => {
                add_u32(&raw mut (*slot).live, 1);
                sub_u32(&raw mut (*slot).pending, 1);
                add_u32(&raw mut (*load).live, 1);
                sub_u32(&raw mut (*load).pending, 1);
                add_u64(&raw mut (*load).connections[at], 1);
            }
            Count::DropPending => {
                sub_u32(&raw mut (*slot).pending, 1);
                sub_u32(&raw mut (*load).pending, 1);
            }
            Count::DropLive => {
                sub_u32(&raw mut (*slot).live, 1);
                sub_u32(&raw mut (*load).live, 1);
            }
            Count::Revive => {
                add_u32(&raw mut (*slot).live, 1);
                add_u32(&raw mut (*load).live, 1);
            }
        }
    }
}

/// One half-open flow more.
#[inline(always)]
pub fn add_pending(load: *mut ClusterLoad, backend: u16) {
    let at = backend as usize & (MAX_BACKENDS - 1);
    // SAFETY: the pointers lie within the cluster's value.
    unsafe {
        add_u32(&raw mut (*load).slots[at].pending, 1);
        add_u32(&raw mut (*load).pending, 1);
    }
}

/// One resting flow more or less.
#[inline(always)]
pub fn rest(cluster: u16, change: u32) {
    if let Some(load) = load(cluster) {
        // SAFETY: the pointer lies within the cluster's value.
        unsafe { add_u32(&raw mut (*load).resting, change) };
    }
}

/// Flows that a cluster holds now.
#[inline(always)]
pub fn held(load: *mut ClusterLoad) -> Load {
    // SAFETY: values within the cluster's counts.
    unsafe {
        Load {
            live: core::ptr::read_volatile(&raw const (*load).live),
            pending: core::ptr::read_volatile(&raw const (*load).pending),
        }
    }
}

/// A backend answered a SYN with a RST.
#[inline(always)]
pub fn refusal(cluster: u16, backend: u16) {
    if let Some(load) = load(cluster) {
        // SAFETY: the pointer lies within the cluster's value.
        unsafe {
            add_u64(
                &raw mut (*load).refusals[backend as usize & (MAX_BACKENDS - 1)],
                1,
            )
        };
    }
}

/// A half-open flow went to another backend, whose RST or silence made it.
#[inline(always)]
pub fn moved(cluster: u16, refused: bool) {
    if let Some(load) = load(cluster) {
        // SAFETY: the pointers lie within the cluster's value.
        unsafe {
            if refused {
                add_u64(&raw mut (*load).moved_refused, 1);
            } else {
                add_u64(&raw mut (*load).moved_silent, 1);
            }
        }
    }
}

/// A flow left a backend that did not answer its SYN.
#[inline(always)]
pub fn silence(cluster: u16, backend: u16) {
    if let Some(load) = load(cluster) {
        // SAFETY: as above.
        unsafe {
            add_u64(
                &raw mut (*load).silences[backend as usize & (MAX_BACKENDS - 1)],
                1,
            )
        };
    }
}

/// A backend reset an established flow.
#[inline(always)]
pub fn reset_by_backend(cluster: u16, backend: u16) {
    if let Some(load) = load(cluster) {
        // SAFETY: as above.
        unsafe {
            add_u64(
                &raw mut (*load).resets[backend as usize & (MAX_BACKENDS - 1)],
                1,
            )
        };
    }
}

/// A backend answered a SYN.
#[inline(always)]
pub fn answered(cluster: u16, backend: u16, now: Ticks) {
    if let Some(load) = load(cluster) {
        let at = backend as usize & (MAX_BACKENDS - 1);
        // SAFETY: as above; a plain word, of which the last writer's counts.
        unsafe { (*load).answered[at] = now };
    }
}

/// When a backend last answered a SYN.
#[inline(always)]
pub fn last_answer(cluster: u16, backend: u16) -> Ticks {
    let at = backend as usize & (MAX_BACKENDS - 1);
    // SAFETY: the pointer lies within the cluster's value.
    load(cluster).map_or(Ticks(0), |load| unsafe { (*load).answered[at] })
}

/// Adds the differences of a repair.
#[inline(always)]
pub fn correct(correction: &Correction) {
    if let Some(load) = load(correction.cluster) {
        let at = correction.backend as usize & (MAX_BACKENDS - 1);
        // SAFETY: the pointers lie within the cluster's value.
        unsafe {
            add_u32(&raw mut (*load).slots[at].live, correction.live);
            add_u32(&raw mut (*load).slots[at].pending, correction.pending);
            add_u32(&raw mut (*load).live, correction.live);
            add_u32(&raw mut (*load).pending, correction.pending);
        }
    }
}

/// Adds what an ended flow carried.
#[inline(always)]
pub fn add_bytes(cluster: u16, backend: u16, bytes_in: u64, bytes_out: u64) {
    if let Some(load) = load(cluster) {
        let at = backend as usize & (MAX_BACKENDS - 1);
        // SAFETY: the pointers lie within the cluster's value.
        unsafe {
            add_u64(&raw mut (*load).bytes_in[at], bytes_in);
            add_u64(&raw mut (*load).bytes_out[at], bytes_out);
        }
    }
}

//! Counters: verdicts by interface, and flows by backend.

use ocs_lb_common::{
    abi::{ClusterLoad, INTERFACE_INDEX_MASK, INTERFACE_NO_TX, INTERFACE_SLOTS, MAX_BACKENDS},
    track::Count,
    verdict::{SLOTS, Verdict},
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

/// Counts the end of a packet's way.
#[inline(always)]
pub fn verdict(ifindex: u32, verdict: Verdict) {
    // The last slot is for packets of interfaces without one: 0 less 1.
    let slot = interface(ifindex).wrapping_sub(1) & (INTERFACE_SLOTS - 1);
    if let Some(counter) = COUNTERS.get_ptr_mut(slot * SLOTS + verdict as u32) {
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

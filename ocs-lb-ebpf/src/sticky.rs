//! A client and its backend: pending while its first connection is under way,
//! in the cluster's table once one was established.

use ocs_lb_common::{
    abi::{BPF_NOEXIST, Cluster, StickyKey, StickyValue, TRIED},
    select::{self, Sticky},
};

use crate::{event, maps::Family, time::Now};

/// What is known of a client whose flow tried the backends in `tried`.
#[inline(always)]
pub fn known<A: Family>(
    client: &StickyKey<A>,
    cluster: &Cluster,
    now: Now,
    tried: &[u64; TRIED],
) -> Sticky {
    if let Some(table) = A::sticky().get(client.cluster as u32)
        && let Some(entry) = table.get_ptr(client)
    {
        // SAFETY: a value of the map; plain integers.
        let sticky = select::sticky(cluster, Some(unsafe { &*entry }), now.ns, tried);
        if !matches!(sticky, Sticky::None) {
            return sticky;
        }
    }
    match A::pending_sticky().get_ptr(client) {
        // SAFETY: as above.
        Some(entry) => select::sticky(cluster, Some(unsafe { &*entry }), now.ns, tried),
        None => Sticky::None,
    }
}

/// Notes the backend that a client's first connection goes to; the one that
/// counts. Of two first connections at once, both meet one backend.
#[inline(always)]
pub fn propose<A: Family>(
    client: &StickyKey<A>,
    cluster: &Cluster,
    slot: u16,
    now: Now,
    tried: &[u64; TRIED],
) -> u16 {
    let entry = value(slot, now);
    if A::pending_sticky()
        .insert(client, &entry, BPF_NOEXIST)
        .is_ok()
    {
        return slot;
    }
    if let Some(other) = A::pending_sticky().get_ptr(client)
        // SAFETY: as above.
        && let Sticky::Slot(other) = select::sticky(cluster, Some(unsafe { &*other }), now.ns, tried)
    {
        return other;
    }
    // There was one, but a stale one. A failure (no memory) costs the client
    // its stickiness, not its connection.
    let _ = A::pending_sticky().insert(client, &entry, 0);
    slot
}

/// Forgets a proposal that led to nothing. A failure means that it is gone
/// already.
#[inline(always)]
pub fn withdraw<A: Family>(client: &StickyKey<A>) {
    let _ = A::pending_sticky().remove(client);
}

/// A client's connection was established: its backend is its own from now on.
#[inline(always)]
pub fn promote<A: Family>(client: &StickyKey<A>, slot: u16, now: Now) {
    let Some(table) = A::sticky().get(client.cluster as u32) else {
        return;
    };
    let mut before = u16::MAX;
    if let Some(entry) = table.get_ptr_mut(client) {
        // SAFETY: as above.
        unsafe {
            before = (*entry).backend;
            if before == slot {
                (*entry).last_used_ns = now.ns;
                return;
            }
        }
    }
    // A failure (no memory) costs the client its stickiness.
    let _ = table.insert(client, &value(slot, now), 0);
    event::sticky(client.cluster, client.address, slot, before, now.ticks);
}

/// A client's flow has traffic, or ends: its entry is used now. One that was
/// forgotten meanwhile stays so.
#[inline(always)]
pub fn refresh<A: Family>(client: &StickyKey<A>, slot: u16, now: Now) {
    if let Some(table) = A::sticky().get(client.cluster as u32)
        && let Some(entry) = table.get_ptr_mut(client)
    {
        // SAFETY: as above.
        unsafe {
            if (*entry).backend == slot {
                (*entry).last_used_ns = now.ns;
            }
        }
    }
}

#[inline(always)]
fn value(slot: u16, now: Now) -> StickyValue {
    StickyValue {
        last_used_ns: now.ns,
        backend: slot,
        pad: 0,
        pad2: 0,
    }
}

/// The key of a client.
#[inline(always)]
pub fn key<A: Family>(address: A, cluster: u16) -> StickyKey<A> {
    StickyKey {
        address,
        cluster,
        pad: 0,
    }
}

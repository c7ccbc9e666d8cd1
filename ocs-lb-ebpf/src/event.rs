//! Events for the controller.

use aya_ebpf::helpers::generated::bpf_ringbuf_query;
use ocs_lb_common::{
    abi::{Event, EventKind, Flow, FlowKey, Reason},
    ticks::Ticks,
};

use crate::maps::{EVENTS_BYTES, EVENTS_LOST, Family, SETTINGS};

/// `bpf_ringbuf_submit`: let the reader sleep (`include/uapi/linux/bpf.h`).
const BPF_RB_NO_WAKEUP: u64 = 1;
/// `bpf_ringbuf_query`: how much is to be read.
const BPF_RB_AVAIL_DATA: u64 = 0;

/// Sends an event of a kind that is wanted. `fill` writes its fields one by one
/// into the record, which is zero before: on the stack there is no room for it.
#[inline(always)]
fn emit<A: Family>(kind: EventKind, fill: impl FnOnce(&mut Event<A>)) {
    let wanted = SETTINGS.get(0).map_or(0, |settings| settings.events);
    if wanted & kind.bit() == 0 {
        return;
    }
    let urgent = matches!(kind, EventKind::NeighborNeeded);
    let waiting = waiting::<A>();
    // The last quarter is for what makes the controller act: a flood of others
    // must not hide it.
    if !urgent && waiting >= EVENTS_BYTES as u64 / 4 * 3 {
        return lost();
    }
    let Some(mut entry) = A::events().reserve(0) else {
        return lost();
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the record is large enough, and all zero is an event.
    // Volatile: else the compiler calls `memset`, which does not exist.
    let event = unsafe {
        for word in 0..size_of::<Event<A>>() / 8 {
            event.cast::<u64>().add(word).write_volatile(0);
        }
        &mut *event
    };
    event.kind = kind as u8;
    fill(event);
    // The controller looks by itself ten times a second; to wake it for every
    // connection would cost more than the connection.
    entry.submit(if urgent { 0 } else { BPF_RB_NO_WAKEUP });
}

/// An event that finds no room.
#[inline(always)]
fn lost() {
    if let Some(lost) = EVENTS_LOST.get_ptr_mut(0) {
        // SAFETY: a per-CPU value.
        unsafe { *lost += 1 };
    }
}

/// Bytes of the ring that nobody has read yet.
#[inline(always)]
fn waiting<A: Family>() -> u64 {
    let ring = (A::events() as *const crate::maps::Events<A>)
        .cast_mut()
        .cast();
    // SAFETY: a ring buffer, as the helper wants.
    unsafe { bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) }
}

/// A neighbour's MAC is missing: the controller is to resolve it.
#[inline(always)]
pub fn neighbor<A: Family>(ifindex: u32, address: A) {
    emit::<A>(EventKind::NeighborNeeded, |event| {
        event.ifindex = ifindex;
        event.client.source = address;
    });
}

/// Something happened to a flow: `forward` is its entry under `client`.
#[inline(always)]
pub fn flow<A: Family>(
    kind: EventKind,
    reason: u8,
    client: &FlowKey<A>,
    forward: &Flow<A>,
    reverse: &Flow<A>,
    now: Ticks,
) {
    emit::<A>(kind, |event| {
        describe(event, client, forward, now);
        event.reason = reason;
        event.before = forward.backend;
        // A reverse entry holds its flow's birth here.
        event.age = now.since(Ticks(reverse.cold));
        event.bytes_in = forward.bytes;
        event.bytes_out = reverse.bytes;
    });
}

/// A half-open flow left the backend `before` for that of `forward`.
#[inline(always)]
pub fn moved<A: Family>(
    reason: Reason,
    client: &FlowKey<A>,
    forward: &Flow<A>,
    before: u16,
    now: Ticks,
) {
    emit::<A>(EventKind::Redispatch, |event| {
        describe(event, client, forward, now);
        event.reason = reason as u8;
        event.before = before;
    });
}

#[inline(always)]
fn describe<A: Family>(event: &mut Event<A>, client: &FlowKey<A>, forward: &Flow<A>, now: Ticks) {
    event.cluster = forward.cluster;
    event.backend = forward.backend;
    event.at = now;
    event.client = *client;
    event.snat = forward.source;
    event.snat_port = u16::from_ne_bytes(forward.source_port.0) as u32;
}

/// A new connection was refused.
#[inline(always)]
pub fn refused<A: Family>(reason: Reason, cluster: u16, client: &FlowKey<A>, now: Ticks) {
    emit::<A>(EventKind::Refused, |event| {
        event.reason = reason as u8;
        event.cluster = cluster;
        event.at = now;
        event.client = *client;
    });
}

/// A client's sticky entry says another backend than before, or is new.
#[inline(always)]
pub fn sticky<A: Family>(cluster: u16, client: A, backend: u16, before: u16, now: Ticks) {
    emit::<A>(EventKind::Sticky, |event| {
        event.cluster = cluster;
        event.backend = backend;
        event.before = before;
        event.at = now;
        event.client.source = client;
    });
}

//! The walk over the flow map.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use ocs_lb_common::{
    abi::{Flow, FlowKey},
    sweep::{Due, Report, due, held, is_orphan},
    track::Phase,
};

use crate::{
    count, flow,
    maps::{CLUSTERS, Family, SWEEP_REPORT},
    time::{self, Now},
};

/// What the callback works on. The report lies in its map, not here: the
/// verifier would follow counters on the stack through every iteration.
struct Walk {
    now: Now,
    report: *mut Report,
}

impl Walk {
    #[inline(always)]
    fn count(&self, counter: fn(&mut Report) -> &mut u64) {
        // SAFETY: the report of this walk; sweeps do not run side by side.
        *counter(unsafe { &mut *self.report }) += 1;
    }
}

/// Walks all flows of a family: ends what is due, deletes what is dead, and
/// leaves a report.
#[inline(always)]
pub fn sweep<A: Family>() -> i32 {
    let Some(report) = SWEEP_REPORT.get_ptr_mut(0) else {
        return 1;
    };
    // SAFETY: as in `count`.
    unsafe { *report = Report::default() };
    let mut walk = Walk {
        now: time::exact(),
        report,
    };
    let visit: extern "C" fn(*mut c_void, *const FlowKey<A>, *mut Flow<A>, *mut Walk) -> i64 =
        visit::<A>;
    // SAFETY: the callback has the signature that the helper calls for this
    // map, and `walk` outlives the call.
    unsafe {
        bpf_for_each_map_elem(
            (A::flows() as *const crate::maps::Flows<A>)
                .cast_mut()
                .cast(),
            visit as *mut c_void,
            (&raw mut walk).cast(),
            0,
        )
    };
    0
}

/// Looks at one entry; 0 goes on.
extern "C" fn visit<A: Family>(
    _map: *mut c_void,
    key: *const FlowKey<A>,
    entry: *mut Flow<A>,
    walk: *mut Walk,
) -> i64 {
    // SAFETY: the helper passes an element of the map and our own context.
    let (key, entry, walk) = unsafe { (&*key, &mut *entry, &mut *walk) };
    walk.count(|report| &mut report.entries);
    if entry.is_reverse() {
        reverse(key, entry, walk);
    } else {
        forward(key, entry, walk);
    }
    0
}

#[inline(always)]
fn forward<A: Family>(key: &FlowKey<A>, entry: &mut Flow<A>, walk: &mut Walk) {
    // The element may be deleted below: work on a copy of its key.
    let key = *key;
    let Some(other) = A::flows().get_ptr_mut(&entry.peer_key()) else {
        // Written after its reverse entry and deleted after it: this one is
        // being deleted right now, or was left half-way.
        let word = entry.state;
        if is_orphan(entry.last_seen, walk.now.ticks, false)
            && flow::swap(&mut entry.state, word, word.with_phase(Phase::Deleting))
        {
            count::apply(entry.cluster, entry.backend, held(word.phase()));
            walk.count(|report| &mut report.orphans);
            if A::flows().remove(&key).is_err() {
                walk.count(|report| &mut report.errors);
            }
        }
        return;
    };
    // SAFETY: a value of the map.
    let other = unsafe { &mut *other };
    let word = entry.state;
    match word.phase() {
        Phase::HalfOpen => walk.count(|report| &mut report.half_open),
        Phase::Established => walk.count(|report| &mut report.established),
        Phase::Closed | Phase::Reset | Phase::Dead | Phase::Deleting => {
            walk.count(|report| &mut report.resting)
        }
    }
    let Some(cluster) = CLUSTERS.get(entry.cluster as u32) else {
        return;
    };
    match due(
        word,
        entry.last_seen,
        other.last_seen,
        walk.now.ticks,
        cluster,
    ) {
        Due::Nothing => {}
        Due::End(_) => {
            let (cluster, backend) = (entry.cluster, entry.backend);
            if flow::end(&mut entry.state, &mut other.state, word, cluster, backend) {
                walk.count(|report| &mut report.ended);
                // From here on this is the time of death.
                entry.last_seen = walk.now.ticks;
            }
        }
        Due::Delete => match flow::delete(&key, entry, word) {
            Ok(()) => walk.count(|report| &mut report.deleted),
            Err(()) => walk.count(|report| &mut report.errors),
        },
    }
}

/// A reverse entry whose owner is gone: a crash of the machine's memory
/// accounting between two inserts, or a failed roll-back.
#[inline(always)]
fn reverse<A: Family>(key: &FlowKey<A>, entry: &Flow<A>, walk: &mut Walk) {
    let key = *key;
    // SAFETY: a value of the map, read only.
    let owned = A::flows()
        .get_ptr(&entry.peer_key())
        .is_some_and(|owner| unsafe { (*owner).peer_key() } == key);
    if !is_orphan(entry.last_seen, walk.now.ticks, owned) {
        return;
    }
    walk.count(|report| &mut report.orphans);
    match A::flows().remove(&key) {
        Ok(()) => crate::port::release(&key.reversed()),
        Err(_) => walk.count(|report| &mut report.errors),
    }
}

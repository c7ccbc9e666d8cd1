//! The walk over the flow map.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use ocs_lb_common::{
    abi::{Flow, FlowKey, MAX_BACKENDS, Reason},
    sweep::{Due, Report, due, held, is_orphan, is_rested},
    track::{Phase, StateWord},
};

use crate::{
    count, entries,
    flow::{self, Pair},
    kill,
    maps::{CLUSTERS, CORRECTION, Family, RECOUNT, SWEEP_REPORT},
    reclaim,
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
    reclaim::catch_up::<A>();
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

/// Makes the repair that the controller asks for: differences, added to counts
/// that packets change meanwhile.
#[inline(always)]
pub fn correct() -> i32 {
    let Some(correction) = CORRECTION.get(0) else {
        return 1;
    };
    count::correct(correction);
    0
}

#[inline(always)]
fn forward<A: Family>(key: &FlowKey<A>, entry: &'static mut Flow<A>, walk: &mut Walk) {
    // The element may be deleted below: work on a copy of its key.
    let key = *key;
    let word = flow::state_of(entry);
    let Some(other) = A::flows().get_ptr_mut(&entry.peer_key()) else {
        // Written after its reverse entry and deleted after it: this one is
        // being deleted right now, or was left half-way.
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
    recount(entry, word, walk);
    let Some(cluster) = CLUSTERS.get(entry.cluster as u32) else {
        return;
    };
    // SAFETY: a value of the map.
    let other = unsafe { &mut *other };
    let mut pair = Pair {
        forward: entry,
        reverse: other,
        key,
        room: flow::WALKS,
    };
    let now = walk.now;
    let (seen, answered) = (pair.forward.last_seen, pair.reverse.last_seen);
    match due(word, seen, answered, now.ticks, cluster) {
        Due::Nothing => {}
        Due::End(count) => {
            if pair.swap(word, word.with_phase(Phase::Dead)) {
                walk.count(|report| &mut report.ended);
                // From here on this is the time of death.
                pair.forward.last_seen = now.ticks;
                if count.is_end() {
                    pair.close(count, Reason::ConnectTimeout, now);
                }
            }
        }
        Due::Kill => {
            if let Some(told) = kill::kill(&mut pair, word, Reason::Idle, now) {
                walk.count(|report| &mut report.ended);
                walk.count(|report| &mut report.killed);
                if !told {
                    walk.count(|report| &mut report.untold);
                }
            }
        }
        Due::Delete => match entries::delete(&key, pair.forward, word, false) {
            Ok(()) => walk.count(|report| &mut report.deleted),
            Err(()) => walk.count(|report| &mut report.errors),
        },
    }
}

/// Counts a flow, in the report and for its backend.
#[inline(always)]
fn recount<A: Family>(entry: &Flow<A>, word: StateWord, walk: &Walk) {
    let phase = word.phase();
    match phase {
        Phase::HalfOpen => walk.count(|report| &mut report.half_open),
        Phase::Established => walk.count(|report| &mut report.established),
        _ => return walk.count(|report| &mut report.resting),
    }
    let Some(recount) = RECOUNT.get_ptr_mut(entry.cluster as u32) else {
        return;
    };
    let at = entry.backend as usize & (MAX_BACKENDS - 1);
    // SAFETY: within the value; sweeps do not run side by side.
    unsafe {
        if matches!(phase, Phase::HalfOpen) {
            (*recount).slots[at].pending += 1;
        } else {
            (*recount).slots[at].live += 1;
        }
    }
}

/// A reverse entry without an owner: the record of a port's rest, or what a
/// failed roll-back left.
#[inline(always)]
fn reverse<A: Family>(key: &FlowKey<A>, entry: &mut Flow<A>, walk: &mut Walk) {
    let key = *key;
    // SAFETY: a value of the map, read only.
    let owned = A::flows()
        .get_ptr(&entry.peer_key())
        .is_some_and(|owner| unsafe { (*owner).peer_key() } == key);
    if owned {
        return;
    }
    let word = flow::state_of(entry);
    let now = walk.now.ticks;
    if matches!(word.phase(), Phase::Dead) {
        walk.count(|report| &mut report.records);
        if is_rested(word, entry.last_seen, now) {
            match entries::delete_record(&key, entry, word, false) {
                Ok(()) => walk.count(|report| &mut report.deleted),
                Err(()) => walk.count(|report| &mut report.errors),
            }
        }
        return;
    }
    if !is_orphan(entry.last_seen, now, false) {
        return;
    }
    walk.count(|report| &mut report.orphans);
    let cluster = entry.cluster;
    match A::flows().remove(&key) {
        Ok(()) => crate::port::release(&key.reversed(), cluster),
        Err(_) => walk.count(|report| &mut report.errors),
    }
}

//! Flows ended by us: both sides are told, and every packet is answered.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use ocs_lb_common::{
    abi::{ANY, Flow, FlowKey, Kill, KillReason, KillReport, KillRequest, Reason, kills_client},
    sweep::held,
    ticks::Ticks,
    track::{Phase, StateWord},
};

use crate::{
    flow::{self, Pair},
    maps::{Family, KILL_REPORT, KILL_REQUEST},
    time::{self, Now},
};

/// Ends a flow. Whether the controller was told to tell both sides; `None`
/// where another CPU changed the flow's state first.
#[inline(always)]
pub fn kill<A: Family>(
    pair: &mut Pair<A>,
    word: StateWord,
    reason: Reason,
    now: Now,
) -> Option<bool> {
    let held_before = held(word.phase());
    let killed = word.with_phase(Phase::Killed);
    // Reserved before the end, as it says whether the server will be told.
    let told = match A::kills().reserve(0) {
        Some(mut record) => {
            if !pair.swap(word, killed.with(StateWord::TOLD)) {
                record.discard(0);
                return None;
            }
            // SAFETY: the record is large enough, and every field is written.
            let kill: &mut Kill<A> = unsafe { &mut *record.as_mut_ptr() };
            kill.client = pair.key;
            kill.backend = pair.tuple();
            kill.client_seq = pair.forward.seq_end;
            kill.backend_seq = pair.reverse.seq_end;
            kill.backend_hop = pair.forward.next_hop;
            kill.client_hop = pair.reverse.next_hop;
            kill.cluster = pair.forward.cluster;
            kill.slot = pair.forward.backend;
            kill.reason = number(reason);
            kill.pad = [0; 7];
            record.submit(0);
            true
        }
        None if pair.swap(word, killed) => false,
        None => return None,
    };
    // From here on this is the time of the end.
    pair.forward.last_seen = now.ticks;
    pair.close(held_before, reason, now);
    Some(told)
}

#[inline(always)]
const fn number(reason: Reason) -> u8 {
    match reason {
        Reason::BackendDown => KillReason::BackendDown as u8,
        Reason::Operator => KillReason::Operator as u8,
        _ => KillReason::Idle as u8,
    }
}

/// What the walk's callback works on.
struct Walk {
    now: Now,
    request: *const KillRequest,
    report: *mut KillReport,
}

/// Walks all flows of a family and ends those that are meant.
#[inline(always)]
pub fn walk<A: Family>() -> i32 {
    let (Some(request), Some(report)) = (KILL_REQUEST.get_ptr(0), KILL_REPORT.get_ptr_mut(0))
    else {
        return 1;
    };
    // SAFETY: walks do not run side by side; the controller reads afterwards.
    unsafe { *report = KillReport::default() };
    let mut walk = Walk {
        now: time::exact(),
        request,
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

/// Looks at one entry; 1 ends the walk.
extern "C" fn visit<A: Family>(
    _map: *mut c_void,
    key: *const FlowKey<A>,
    entry: *mut Flow<A>,
    walk: *mut Walk,
) -> i64 {
    // SAFETY: the helper passes an element of the map and our own context.
    let (key, forward, walk) = unsafe { (&*key, &mut *entry, &mut *walk) };
    // SAFETY: the request does not change during the walk, and no other writes
    // the report.
    let (request, report) = unsafe { (&*walk.request, &mut *walk.report) };
    let word = flow::state_of(forward);
    if forward.is_reverse()
        || !matches!(word.phase(), Phase::HalfOpen | Phase::Established)
        || !is_meant(request, key, forward)
    {
        return 0;
    }
    if report.killed >= request.limit {
        report.more = 1;
        return 1;
    }
    let Some(reverse) = A::flows().get_ptr_mut(&forward.peer_key()) else {
        return 0;
    };
    // SAFETY: a value of the map.
    let reverse = unsafe { &mut *reverse };
    if request.guard != 0 && spoke_since(reverse.last_seen, request.since, walk.now.ticks) {
        report.kept += 1;
        return 0;
    }
    let reason = match request.reason {
        reason if reason == KillReason::BackendDown as u8 => Reason::BackendDown,
        _ => Reason::Operator,
    };
    let mut pair = Pair {
        forward,
        reverse,
        key: *key,
        room: flow::WALKS,
    };
    match kill(&mut pair, word, reason, walk.now) {
        Some(told) => {
            report.killed += 1;
            report.untold += u32::from(!told);
        }
        // It moved under our eyes: the next walk looks again.
        None => report.more = 1,
    }
    0
}

#[inline(always)]
fn is_meant<A: Family>(request: &KillRequest, key: &FlowKey<A>, forward: &Flow<A>) -> bool {
    (request.cluster == ANY || request.cluster == forward.cluster)
        && (request.backend == ANY || request.backend == forward.backend)
        && kills_client(request, &key.source)
}

/// Whether something came after `since`.
#[inline(always)]
fn spoke_since(last_seen: Ticks, since: Ticks, now: Ticks) -> bool {
    now.since(last_seen) < now.since(since)
}

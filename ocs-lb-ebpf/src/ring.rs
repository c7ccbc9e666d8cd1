//! The ring of half-open flows: the newest push the oldest out.

use ocs_lb_common::{
    abi::{EventKind, Flow, Pending, Reason},
    redispatch::is_of,
    track::{Count, Phase, StateWord},
};

use crate::{
    atomic::{add_u32, add_u64},
    count, entries, event,
    flow::{self, Pair},
    maps::{CLUSTERS, CURSOR_HALF_OPEN, CURSORS, Family, SETTINGS},
    time::Now,
};

/// Takes the next place: its index plus one, 0 where there is no ring. Whoever
/// has it and is still half-open is pushed out.
#[inline(always)]
pub fn take<A: Family>(now: Now) -> u32 {
    let len = SETTINGS.get(0).map_or(0, |settings| settings.half_open);
    let Some(cursor) = CURSORS.get_ptr_mut(CURSOR_HALF_OPEN) else {
        return 0;
    };
    if len == 0 {
        return 0;
    }
    // SAFETY: a value of the map.
    let at = unsafe { add_u32(cursor, 1) } % len;
    if let Some(place) = A::half_open().get_ptr(at) {
        // SAFETY: a value of the map, copied; two flows take one place a whole
        // round apart.
        let (key, born) = unsafe { ((*place).key, StateWord((*place).born)) };
        push_out::<A>(&key, born, at + 1, now);
    }
    at + 1
}

/// Ends a flow that is still half-open and still has this place: a client's
/// next flow of the same tuple has another one, and once in 65,536 times the
/// generation of the one before. Its port rests where the cluster has
/// room for that; in a flood there is none, and it is free at once.
#[inline(always)]
fn push_out<A: Family>(
    key: &ocs_lb_common::abi::FlowKey<A>,
    born: StateWord,
    place: u32,
    now: Now,
) {
    let Some(forward) = A::flows().get_ptr_mut(key) else {
        return;
    };
    // SAFETY: a value of the map; its state is changed by swaps only.
    let forward: &'static mut Flow<A> = unsafe { &mut *forward };
    let word = flow::state_of(forward);
    if !matches!(word.phase(), Phase::HalfOpen) || !word.is_same_flow(born) || forward.cold != place
    {
        return;
    }
    let Some(reverse) = A::flows().get_ptr_mut(&forward.peer_key()) else {
        return;
    };
    // SAFETY: as above.
    let reverse = unsafe { &mut *reverse };
    let Some(load) = count::load(forward.cluster) else {
        return;
    };
    // SAFETY: a counter within the cluster's counts.
    let resting = unsafe { (*load).resting };
    let room = CLUSTERS
        .get(forward.cluster as u32)
        .map_or(0, |cluster| cluster.resting / 4);
    let mut pair = Pair {
        forward,
        reverse,
        key: *key,
        room: flow::PACKETS,
    };
    let dead = word.with_phase(Phase::Dead);
    if !pair.swap(word, dead) {
        return;
    }
    // SAFETY: as above.
    unsafe { add_u64(&raw mut (*load).pushed_out, 1) };
    if resting <= room {
        pair.forward.last_seen = now.ticks;
        pair.close(Count::DropPending, Reason::PushedOut, now);
        return;
    }
    // In a flood nothing rests, and what is pushed out must cost little.
    count::apply(
        pair.forward.cluster,
        pair.forward.backend,
        Count::DropPending,
    );
    event::flow(
        EventKind::Close,
        Reason::PushedOut as u8,
        &pair.key,
        pair.forward,
        pair.reverse,
        now.ticks,
    );
    let _ = entries::delete(&pair.key, pair.forward, dead, false);
}

/// A flow's place, if it still has it.
#[inline(always)]
pub fn place<A: Family>(pair: &Pair<A>, word: StateWord) -> Option<&'static mut Pending<A>> {
    let at = pair.forward.cold.checked_sub(1)?;
    let place = A::half_open().get_ptr_mut(at)?;
    // SAFETY: a value of the map; plain integers.
    let place = unsafe { &mut *place };
    is_of(place, &pair.key, word).then_some(place)
}

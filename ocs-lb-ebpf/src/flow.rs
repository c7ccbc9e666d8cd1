//! Flows in the map: lookup, change of state, birth, end and deletion of pairs.

use ocs_lb_common::{
    abi::{Cluster, EventKind, Flow, FlowKey, Reason, RefuseAction},
    parse::Packet,
    rest::retire,
    select,
    sweep::{Due, due, held},
    ticks::Ticks,
    track::{Count, Direction, Phase, StateWord, Step, establish, is_plain, start, step},
    verdict::Verdict,
};

use crate::{
    atomic::{add_u64, swap_u32},
    count, event, forward, kill,
    maps::{CLUSTERS, Family, NEXT_HOPS, Room},
    open::{room, room_at},
    packet::Way,
    port, redispatch,
    slow::Next,
    sticky,
    time::Now,
};

/// Ticks without a packet after which one is looked at more closely: its flow
/// may have been idle for too long. The controller sets it, before the programs
/// are loaded, to the shortest of its timeouts.
#[unsafe(no_mangle)]
static PAUSE_TICKS: u32 = DEFAULT_PAUSE;

/// The same where nobody set it (1.07 s).
const DEFAULT_PAUSE: u32 = 1024;

#[inline(always)]
fn pause_ticks() -> u32 {
    // SAFETY: a static is readable; volatile, as the loader changes it.
    unsafe { core::ptr::read_volatile(&raw const PAUSE_TICKS) }
}

/// The entry of a packet.
#[inline(always)]
pub fn entry<A: Family>(packet: &Packet<A>) -> Option<&'static mut Flow<A>> {
    let entry = A::flows().get_ptr_mut(&packet.key)?;
    // SAFETY: a value of the map. Others may write it at the same time; every
    // field is a plain integer, and the state is changed by swaps only.
    Some(unsafe { &mut *entry })
}

/// The same where the packet changes nothing but counters, and its state.
#[inline(always)]
pub fn plain<A: Family>(packet: &Packet<A>, now: Now) -> Option<(&'static mut Flow<A>, StateWord)> {
    let entry = entry(packet)?;
    let word = state_of(entry);
    let pause = now.ticks.since(entry.last_seen);
    (is_plain(word, packet.segment.flags) && pause < pause_ticks()).then_some((entry, word))
}

/// Both entries of a flow, and the key of the first.
pub struct Pair<A: 'static> {
    /// Client to backend; owns the state.
    pub forward: &'static mut Flow<A>,
    /// Backend to client.
    pub reverse: &'static mut Flow<A>,
    /// Tuple of the client's packets.
    pub key: FlowKey<A>,
    /// The room that this program works in: [`PACKETS`] or [`WALKS`].
    pub room: u32,
}

/// The room of programs that run for packets.
pub const PACKETS: u32 = 0;
/// The room of programs that walk the map: packets interrupt them.
pub const WALKS: u32 = 1;

impl<A: Family> Pair<A> {
    /// Tuple of the client's packets as the backend sees them.
    #[inline(always)]
    pub fn tuple(&self) -> FlowKey<A> {
        self.forward.peer_key().reversed()
    }

    /// Swaps the state, in the owner first; whether it was `word`.
    #[inline(always)]
    pub fn swap(&mut self, word: StateWord, next: StateWord) -> bool {
        if !swap(&raw mut self.forward.state, word, next) {
            return false;
        }
        // A hint only: who needs the state asks the owner. Another swap may have
        // come between the two, and its hint before this one.
        self.reverse.state = next;
        let now = state_of(self.forward);
        if now != next {
            self.reverse.state = now;
        }
        true
    }

    /// What the winner of a swap that ends the flow owes: [`close`].
    #[inline(always)]
    pub fn close(&self, count: Count, reason: Reason, now: Now) {
        if let Some(room) = room_at::<A>(self.room) {
            room.closing = self.key;
            room.count = count;
            room.reason = reason as u8;
            room.closed = now;
            A::close(self.room);
        }
    }
}

/// Has the port of a flow that ends rest. The room says which flow, by its
/// forward key.
#[inline(always)]
pub fn rest<A: Family>(room: &Room<A>) {
    if let Some(forward) = A::flows().get_ptr(&room.closing) {
        // SAFETY: a value of the map, read only.
        let forward: &Flow<A> = unsafe { &*forward };
        port::rest(&forward.peer_key(), forward.cluster);
    }
}

/// Pays what else the end of a flow owes: counts and the event. The room says
/// which flow, by its forward key.
#[inline(always)]
pub fn close<A: Family>(room: &Room<A>) {
    let Some(forward) = A::flows().get_ptr(&room.closing) else {
        return;
    };
    // SAFETY: values of the map, read only.
    let forward: &Flow<A> = unsafe { &*forward };
    let Some(reverse) = A::flows().get_ptr(&forward.peer_key()) else {
        return;
    };
    // SAFETY: as above.
    let reverse = unsafe { &*reverse };
    let (cluster, backend, now) = (forward.cluster, forward.backend, room.closed);
    count::apply(cluster, backend, room.count);
    let client = sticky::key(room.closing.source, cluster);
    if matches!(room.count, Count::DropLive) {
        if room.reason == Reason::ServerReset as u8 {
            count::reset_by_backend(cluster, backend);
        }
        // An end that a peer made is traffic, one that we made is not.
        if room.reason <= Reason::ServerReset as u8 {
            sticky::refresh(&client, backend, now);
        }
    } else if room.reason == Reason::ConnectTimeout as u8 {
        // The next try may go elsewhere.
        sticky::withdraw(&client);
        if !state_of(forward).has(StateWord::SYN_ACK) {
            count::silence(cluster, backend);
        }
    }
    event::flow(
        EventKind::Close,
        room.reason,
        &room.closing,
        forward,
        reverse,
        now.ticks,
    );
}

/// Pays what a flow owes that is established: counts, the client's backend, the
/// event. The room says which flow, by its forward key.
#[inline(always)]
pub fn promoted<A: Family>(room: &Room<A>) {
    let Some(forward) = A::flows().get_ptr(&room.closing) else {
        return;
    };
    // SAFETY: values of the map, read only.
    let forward: &Flow<A> = unsafe { &*forward };
    let Some(reverse) = A::flows().get_ptr(&forward.peer_key()) else {
        return;
    };
    // SAFETY: as above.
    let reverse = unsafe { &*reverse };
    let (cluster, backend, now) = (forward.cluster, forward.backend, room.closed);
    count::apply(cluster, backend, Count::Promote);
    if CLUSTERS
        .get(cluster as u32)
        .is_some_and(|policy| policy.sticky != 0)
    {
        let client = sticky::key(room.closing.source, cluster);
        sticky::promote(&client, backend, now);
    }
    event::flow(
        EventKind::Open,
        0,
        &room.closing,
        forward,
        reverse,
        now.ticks,
    );
}

/// The first step of a packet that may change its flow's state, came late, or
/// has no flow.
#[inline(always)]
pub fn change<M: Way<A>, A: Family>(frame: &mut M, packet: &Packet<A>, now: Now) -> Next {
    let Some(entry) = entry(packet) else {
        return Next::Open;
    };
    let is_reverse = entry.is_reverse();
    if is_reverse && matches!(state_of(entry).phase(), Phase::Dead) {
        // All that is left is the record of its port's rest.
        return Next::Open;
    }
    // It goes no further, so its receiver never learns what it says.
    let hop = NEXT_HOPS.get(entry.next_hop as u32);
    if hop.is_some_and(|hop| forward::obstacle(frame, packet, hop).is_some()) {
        return Next::Tell;
    }
    let peer_key = entry.peer_key();
    let Some(other) = A::flows().get_ptr_mut(&peer_key) else {
        // Its other half is being deleted.
        return Verdict::Race.into();
    };
    // SAFETY: as in `entry`.
    let other = unsafe { &mut *other };
    let (direction, mut pair) = if is_reverse {
        let pair = Pair {
            forward: other,
            reverse: entry,
            key: peer_key,
            room: PACKETS,
        };
        (Direction::Reverse, pair)
    } else {
        let pair = Pair {
            forward: entry,
            reverse: other,
            key: packet.key,
            room: PACKETS,
        };
        (Direction::Forward, pair)
    };
    let Some(cluster) = CLUSTERS.get(pair.forward.cluster as u32) else {
        return Verdict::Inconsistent.into();
    };
    turn(frame, packet, &mut pair, direction, cluster, now).unwrap_or(Next::Again)
}

/// One try. `None`: another CPU changed the state first, or time did.
#[inline(always)]
fn turn<M: Way<A>, A: Family>(
    frame: &mut M,
    packet: &Packet<A>,
    pair: &mut Pair<A>,
    direction: Direction,
    cluster: &Cluster,
    now: Now,
) -> Option<Next> {
    let word = state_of(pair.forward);
    let (seen, answered) = (pair.forward.last_seen, pair.reverse.last_seen);
    match due(word, seen, answered, now.ticks, cluster) {
        // The sweep ends flows by time; where none runs, their packets do.
        Due::Kill => {
            kill::kill(pair, word, Reason::Idle, now)?;
            return Some(answer(pair, direction));
        }
        Due::End(count) => {
            if pair.swap(word, word.with_phase(Phase::Dead)) {
                pair.forward.last_seen = now.ticks;
                if count.is_end() {
                    pair.close(count, Reason::ConnectTimeout, now);
                }
            }
            return None;
        }
        _ => {}
    }
    let (own, peer) = match direction {
        Direction::Reverse => (pair.reverse.side(), pair.forward.side()),
        Direction::Forward => (pair.forward.side(), pair.reverse.side()),
    };
    let (next, what) = match step(word, direction, &packet.segment, own, peer) {
        Step::Keep => {
            pair.reverse.state = word;
            return Some(Next::Send);
        }
        Step::Retry => return Some(redispatch::retry(pair, word, cluster, now)),
        Step::Refused(next, what) => {
            if let Some(next) = redispatch::refused(packet, pair, word, now) {
                return Some(next);
            }
            (next, what)
        }
        Step::Swap(next, what) => (next, what),
        Step::Replace => return replace(pair, word, now).then_some(Next::Open),
        Step::Answer => return Some(answer(pair, direction)),
        Step::Gone => return Some(Next::Open),
    };
    if matches!(what, Count::Promote)
        && let Some(next) = over_limit(pair, cluster, now)
    {
        return Some(next);
    }
    if !pair.swap(word, next) {
        return None;
    }
    changed(frame, packet, pair, (word, next), what, now);
    Some(Next::Send)
}

/// A flow that would become live where the cluster is full: its client waits
/// or is refused.
#[inline(always)]
fn over_limit<A: Family>(pair: &Pair<A>, cluster: &Cluster, now: Now) -> Option<Next> {
    let id = pair.forward.cluster;
    let load = count::load(id)?;
    if select::promotes(count::held(load), cluster.max_connections) {
        return None;
    }
    // SAFETY: a counter within the cluster's counts.
    unsafe { add_u64(&raw mut (*load).refused_limit, 1) };
    event::refused(Reason::Limit, id, &pair.key, now.ticks);
    if cluster.refuse_limit == RefuseAction::Reset as u8 {
        return Some(answer(pair, Direction::Forward));
    }
    Some(Verdict::Limit.into())
}

/// What the winner of a swap by a packet owes.
#[inline(always)]
fn changed<M: Way<A>, A: Family>(
    frame: &M,
    packet: &Packet<A>,
    pair: &mut Pair<A>,
    (word, next): (StateWord, StateWord),
    what: Count,
    now: Now,
) {
    let (cluster, backend) = (pair.forward.cluster, pair.forward.backend);
    match what {
        Count::None => {
            if !word.has(StateWord::SYN_ACK) && next.has(StateWord::SYN_ACK) {
                frame.read_options();
                let scale = room::<A>().map_or(0, |room| room.options.scale);
                start(pair.reverse, &packet.segment, scale);
                count::answered(cluster, backend, now.ticks);
            }
        }
        Count::Promote => {
            establish(pair.forward, now.ticks, &packet.segment);
            if let Some(room) = room::<A>() {
                room.closing = pair.key;
                room.closed = now;
                A::promoted();
            }
        }
        Count::Revive => {
            count::apply(cluster, backend, what);
            port::unrest(&pair.tuple(), cluster);
        }
        Count::DropPending | Count::DropLive => {
            if !word.has(StateWord::SYN_ACK) && next.has(StateWord::SERVER_RESET) {
                count::refusal(cluster, backend);
            }
            pair.close(what, Reason::of_end(next), now);
        }
    }
}

/// Answers a packet of a flow that is over with a RST, on the way it came.
#[inline(always)]
fn answer<A: Family>(pair: &Pair<A>, direction: Direction) -> Next {
    let Some(room) = room::<A>() else {
        return Verdict::Inconsistent.into();
    };
    room.back = match direction {
        Direction::Forward => pair.reverse.next_hop,
        Direction::Reverse => pair.forward.next_hop,
    };
    Next::Answer
}

/// Makes room for a new flow of the same client tuple: what is left of this
/// one is the record of its port's rest.
#[inline(always)]
fn replace<A: Family>(pair: &mut Pair<A>, word: StateWord, now: Now) -> bool {
    if !swap(
        &raw mut pair.forward.state,
        word,
        word.with_phase(Phase::Deleting),
    ) {
        return false;
    }
    let what = held(word.phase());
    if what.is_end() {
        pair.close(what, Reason::Replaced, now);
    }
    let (cluster, backend) = (pair.forward.cluster, pair.forward.backend);
    count::add_bytes(cluster, backend, pair.forward.bytes, pair.reverse.bytes);
    retire(pair.reverse, pair.forward, word, now.ticks);
    // A failure leaves an entry without its other half, which the sweep finds.
    let _ = A::flows().remove(&pair.key);
    true
}

/// A flow's state, as its owner has it now.
#[inline(always)]
pub fn state_of<A: Family>(entry: &Flow<A>) -> StateWord {
    // SAFETY: a reference is readable; volatile, as another CPU may swap it.
    unsafe { core::ptr::read_volatile(&raw const entry.state) }
}

/// Swaps a flow's state; whether it was `old`.
#[inline(always)]
pub fn swap(at: *mut StateWord, old: StateWord, new: StateWord) -> bool {
    // SAFETY: the state of a map's value; StateWord is a transparent u32.
    unsafe { swap_u32(at.cast(), old.0, new.0) }
}

/// Whether two times of the clock lie in different seconds (of 1.07 s).
#[inline(always)]
pub const fn is_new_second(now: Ticks, before: Ticks) -> bool {
    (now.0 ^ before.0) >> 10 != 0
}

//! The second try of a half-open flow, at another backend.

use ocs_lb_common::{
    abi::{Cluster, Flow, FlowKey, Pending, Reason, ServiceKey},
    address::V4,
    classify::service_of,
    icmp::Error,
    parse::Packet,
    redispatch::{self, Retry, add, is_of, is_unanswered, may_retry, may_retry_unreachable},
    rest::{Opening, retire},
    track::{Count, Phase, StateWord},
    verdict::Verdict,
    wire::strip_timestamp,
};

use crate::{
    count, event,
    flow::{self, Pair},
    maps::Family,
    open::{self, Unwritten, give_up, insert, put_together, room},
    packet::Medium,
    port, ring,
    slow::Next,
    time::Now,
};

/// The client's SYN again, and no answer yet.
#[inline(always)]
pub fn retry<A: Family>(pair: &mut Pair<A>, word: StateWord, cluster: &Cluster, now: Now) -> Next {
    let Some(pending) = ring::place(pair, word) else {
        return Next::Send;
    };
    let answered = count::last_answer(pair.forward.cluster, pair.forward.backend);
    match redispatch::retry(pending, now.ticks, answered, cluster.redispatch_after) {
        Retry::Stay => Next::Send,
        Retry::Move => describe(pair, word, pending, Reason::Silent, now).unwrap_or(Next::Send),
    }
}

/// The backend's RST to the SYN. `None`: the client is to have it.
#[inline(always)]
pub fn refused<A: Family>(
    packet: &Packet<A>,
    pair: &mut Pair<A>,
    word: StateWord,
    now: Now,
) -> Option<Next> {
    let pending = ring::place(pair, word)?;
    if !may_retry(pending, &packet.segment) {
        return None;
    }
    describe(pair, word, pending, Reason::Refused, now)
}

/// Word that the backend cannot be reached, found under a reverse `entry`.
/// `None`: its client is to have it.
#[inline(always)]
pub fn unreachable(error: &Error, entry: &Flow<V4>, now: Now) -> Option<Next> {
    if !entry.is_reverse() || !error.is_unreachable() {
        return None;
    }
    let pair = pair_of(&entry.peer_key())?;
    let word = flow::state_of(pair.forward);
    let pending = ring::place(&pair, word)?;
    if !is_unanswered(word) || !may_retry_unreachable(pending, error.seq) {
        return None;
    }
    describe(&pair, word, pending, Reason::Unreachable, now)
}

/// Describes in this CPU's room what the flow wants now.
#[inline(always)]
fn describe<A: Family>(
    pair: &Pair<A>,
    word: StateWord,
    pending: &Pending<A>,
    reason: Reason,
    now: Now,
) -> Option<Next> {
    use crate::place::Wanted;

    let forward = &*pair.forward;
    let service = ServiceKey::tcp(pair.key.destination, pair.key.destination_port);
    let service = service_of(service, forward.cluster, open::service)?;
    // A RST may be about the flow that had the port before.
    let blamed = !matches!(reason, Reason::Refused) || pending.early == 0;
    let room = room::<A>()?;
    room.wanted = Wanted {
        key: pair.key,
        tried: pending.tried,
        opening: Opening {
            isn: pending.isn,
            timestamp: (forward.timestamp != 0).then_some(forward.timestamp),
        },
        now,
        cluster: forward.cluster,
        target_port: service.target(pair.key.destination_port),
    };
    if blamed {
        add(&mut room.wanted.tried, forward.backend);
    }
    room.pending = *pending;
    room.word = word;
    room.reason = reason as u8;
    room.blamed = blamed as u8;
    room.at = forward.cold;
    room.back = pair.reverse.next_hop;
    Some(Next::Move)
}

/// The flow of a client's tuple.
#[inline(always)]
fn pair_of<A: Family>(key: &FlowKey<A>) -> Option<Pair<A>> {
    let forward = A::flows().get_ptr_mut(key)?;
    // SAFETY: a value of the map; its state is changed by swaps only.
    let forward: &'static mut Flow<A> = unsafe { &mut *forward };
    let reverse = A::flows().get_ptr_mut(&forward.peer_key())?;
    // SAFETY: as above.
    let reverse = unsafe { &mut *reverse };
    Some(Pair {
        forward,
        reverse,
        key: *key,
        room: flow::PACKETS,
    })
}

/// No other place was found: the flow stays, and a refusal goes to the client.
#[inline(always)]
pub fn stay<M: Medium, A: Family>(_frame: &mut M, packet: &Packet<A>, now: Now) -> Next {
    let Some(room) = room::<A>() else {
        return Verdict::Inconsistent.into();
    };
    room.place.withdraw(&room.wanted);
    if room.reason != Reason::Refused as u8 {
        return Next::Send;
    }
    let Some(mut pair) = pair_of(&room.wanted.key) else {
        return Verdict::Race.into();
    };
    let next = room
        .word
        .with_phase(Phase::Reset)
        .with(StateWord::SERVER_RESET);
    if !is_of(&room.pending, &pair.key, flow::state_of(pair.forward))
        || !pair.swap(room.word, next)
        || packet.key != pair.forward.peer_key()
    {
        return Verdict::Race.into();
    }
    if room.blamed != 0 {
        count::refusal(pair.forward.cluster, pair.forward.backend);
    }
    pair.close(Count::DropPending, Reason::ServerReset, now);
    Next::Send
}

/// Takes the flow from its backend, writes it anew at the place that was found
/// and turns the packet into its SYN.
#[inline(always)]
pub fn relocate<M: Medium, A: Family>(frame: &mut M) -> Next {
    let Some(room) = room::<A>() else {
        return Verdict::Inconsistent.into();
    };
    let now = room.wanted.now;
    let Some(mut pair) = pair_of(&room.wanted.key) else {
        room.place.abandon(&room.wanted);
        return Verdict::Race.into();
    };
    let (cluster, before) = (pair.forward.cluster, pair.forward.backend);
    let deleting = room.word.with_phase(Phase::Deleting);
    if !pair.swap(room.word, deleting) {
        room.place.abandon(&room.wanted);
        return Verdict::Race.into();
    }
    count::apply(cluster, before, Count::DropPending);
    let refused = room.reason == Reason::Refused as u8;
    count::moved(cluster, refused);
    if !refused {
        count::silence(cluster, before);
    } else if room.blamed != 0 {
        count::refusal(cluster, before);
    }
    let told = if refused { StateWord::SERVER_RESET } else { 0 };
    let (reverse_key, birth) = (pair.forward.peer_key(), room.pending.birth);
    let timestamp = pair.forward.timestamp;
    retire(pair.reverse, pair.forward, room.word.with(told), now.ticks);
    port::rest(&reverse_key, cluster);

    let packet = A::syn_packet(&room.pending);
    let written =
        frame.renew(A::syn_len(&room.pending)) && A::write_syn(frame, &room.pending).is_some();
    room.options = A::syn_options(&room.pending, timestamp);
    let written = written
        && (room.place.strip == 0
            || strip_timestamp(frame, packet.tcp_offset, room.options.timestamp_at).is_some());
    if !written {
        room.place.abandon(&room.wanted);
        // A failure leaves an entry without its other half, which the sweep
        // finds; so below.
        let _ = A::flows().remove(&room.wanted.key);
        return Verdict::Malformed.into();
    }
    put_together(room, &packet);
    room.reverse.cold = birth.0;
    // Moves do not prolong the handshake.
    room.forward.last_seen = birth;
    room.pending.tried = room.wanted.tried;
    room.pending.sent = now.ticks;
    room.pending.retries = 0;
    room.pending.moves = room.pending.moves.saturating_add(1);
    // The new entry takes the place of the old one at once: no packet of the
    // flow finds none.
    if let Err(unwritten) = insert(room, 0) {
        let _ = A::flows().remove(&room.wanted.key);
        return match unwritten {
            Unwritten::Full => {
                give_up(room);
                Verdict::FlowTableFull.into()
            }
            Unwritten::Verdict(verdict) => verdict.into(),
        };
    }
    let reason = match room.reason {
        reason if reason == Reason::Refused as u8 => Reason::Refused,
        reason if reason == Reason::Unreachable as u8 => Reason::Unreachable,
        _ => Reason::Silent,
    };
    event::moved(reason, &packet.key, &room.forward, before, now.ticks);
    Next::Send
}

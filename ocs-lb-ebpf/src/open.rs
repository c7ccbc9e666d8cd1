//! New flows: classify, find a place, write the pair.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_log_ebpf::debug;
use ocs_lb_common::{
    abi::{
        AddressFlags, BPF_NOEXIST, Cluster, ClusterLoad, REVERSE, Reason, RefuseAction, STRIPPED,
        Service, ServiceKey,
    },
    access::ALLOWED,
    classify::{self, Class, NoFlow, classify, kept_out, without_flow},
    parse::Packet,
    redispatch::{opening, save},
    select,
    track::{Count, StateWord, start},
    translate::pair,
    verdict::Verdict,
    wire::{Tcp, strip_timestamp},
};

use crate::{
    access::Fast,
    atomic::add_u64,
    count, entries, event,
    flow::PACKETS,
    maps::{CLUSTERS, Family, Room},
    packet::{Logged, Medium, Way},
    place::{Refusal, Wanted},
    reset,
    slow::Next,
    time::Now,
};

/// A packet that no flow knows: whether it may open one, which this CPU's room
/// then describes.
#[inline(always)]
pub fn admit<M: Way<A>, A: Family>(frame: &mut M, packet: &Packet<A>, now: Now) -> Next {
    match try_admit(frame, packet, now) {
        Ok(()) => Next::Find,
        Err(stop) => stopped(frame, packet, now, stop),
    }
}

#[inline(always)]
fn stopped<M: Way<A>, A: Family>(frame: &mut M, packet: &Packet<A>, now: Now, stop: Stop) -> Next {
    match stop {
        Stop::Verdict(verdict) => verdict.into(),
        Stop::Reset => Next::Exit(reset::answer(frame, packet, now)),
        Stop::Expired => Next::Tell,
    }
}

/// A packet that no flow knows does not become one.
enum Stop {
    Verdict(Verdict),
    Reset,
    /// Its time to live is over.
    Expired,
}

impl From<Verdict> for Stop {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

#[inline(always)]
fn try_admit<M: Way<A>, A: Family>(
    frame: &mut M,
    packet: &Packet<A>,
    now: Now,
) -> Result<(), Stop> {
    let key = &packet.key;
    // SAFETY: values of maps that only the controller writes.
    let address = unsafe { A::addresses().get(&key.destination) }.copied();
    let service = match address {
        None => None,
        Some(address) => {
            source(&key.source)?;
            let any = address.any(AddressFlags::ANY);
            A::service(&key.destination, key.destination_port, any, &key.source)
        }
    };
    let (service, address) = match classify(address, service, packet.segment.flags) {
        Class::Served(service, address) => (service, address),
        Class::Ends(verdict) => return Err(verdict.into()),
        Class::Reset => return Err(Stop::Reset),
    };
    let id = service.cluster;
    let cluster = CLUSTERS.get(id as u32).ok_or(Verdict::Inconsistent)?;
    let load = count::load(id).ok_or(Verdict::Inconsistent)?;
    let allowed = service.access == 0 || A::listed(service.access, &key.source) == ALLOWED;
    match without_flow(packet.segment.flags, cluster, address, allowed) {
        NoFlow::Open => {}
        NoFlow::Denied => return Err(deny(packet, id, (cluster, load), now)),
        NoFlow::Ends(verdict) => return Err(verdict.into()),
        NoFlow::Reset => return Err(Stop::Reset),
    }
    if packet.ttl <= 1 {
        return Err(Stop::Expired);
    }
    if !select::admits(count::held(load), cluster.max_connections) {
        // SAFETY: a counter within the cluster's counts.
        unsafe { add_u64(&raw mut (*load).refused_limit, 1) };
        event::refused(Reason::Limit, id, key, now.ticks);
        return Err(look(cluster.refuse_limit, Verdict::Limit));
    }
    let back = frame.route(key.destination, key.source)?;
    frame.read_options();
    let room = room::<A>().ok_or(Verdict::Inconsistent)?;
    room.wanted = Wanted {
        key: *key,
        tried: Default::default(),
        opening: opening(packet.segment.seq, &room.options),
        now,
        cluster: id,
        target_port: service.target(key.destination_port),
    };
    room.back = back;
    if cluster.rate_total | cluster.rate_source != 0
        && let Some(fast) = A::paced()
    {
        // SAFETY: counters within the cluster's counts.
        unsafe {
            let counter = match fast {
                Fast::Total => &raw mut (*load).refused_rate_total,
                Fast::Source => &raw mut (*load).refused_rate_source,
            };
            add_u64(counter, 1);
        }
        event::refused(fast.reason(), id, key, now.ticks);
        return Err(look(cluster.refuse_limit, fast.verdict()));
    }
    Ok(())
}

/// A service of the map.
#[inline(always)]
pub fn service<A: Family>(key: &ServiceKey<A>) -> Option<Service> {
    // SAFETY: a value of a map that only the controller writes.
    unsafe { A::services().get(key) }.copied()
}

/// What a packet of no flow meets whose source is kept out; a SYN counts as a
/// refused connection.
#[inline(always)]
fn deny<A: Family>(
    packet: &Packet<A>,
    id: u16,
    (cluster, load): (&Cluster, *mut ClusterLoad),
    now: Now,
) -> Stop {
    let flags = packet.segment.flags;
    if flags.is_open() {
        // SAFETY: a counter within the cluster's counts.
        unsafe { add_u64(&raw mut (*load).refused_deny, 1) };
        event::refused(Reason::Deny, id, &packet.key, now.ticks);
    }
    look(kept_out(flags, cluster) as u8, Verdict::Denied)
}

/// Whether a packet to one of our addresses may come from `address`.
#[inline(always)]
pub fn source<A: Family>(address: &A) -> Result<(), Verdict> {
    // SAFETY: a value of a map that only the controller writes.
    let known = unsafe { A::addresses().get(address) }.copied();
    classify::source(address, known)
}

/// Writes the flow that the room describes.
#[inline(always)]
pub fn write<M: Way<A>, A: Family>(frame: &mut M, packet: &Packet<A>, now: Now) -> Next {
    let Some(room) = room::<A>() else {
        return Verdict::Inconsistent.into();
    };
    put_together(room, packet);
    save_syn(frame, packet, room, now);
    if room.place.strip != 0
        && strip_timestamp(frame, packet.tcp_offset, room.options.timestamp_at).is_none()
    {
        room.place.abandon(&room.wanted);
        return Verdict::Malformed.into();
    }
    match insert(room, BPF_NOEXIST) {
        Ok(()) => {}
        Err(Unwritten::Full) => return Next::Full,
        Err(Unwritten::Verdict(verdict)) => return verdict.into(),
    }
    debug!(
        &Logged(frame.context().cast()),
        "flow {:i}:{} -> port {}: cluster {}, backend {}, SNAT port {}",
        packet.key.source.log_word(),
        packet.key.source_port.get(),
        packet.key.destination_port.get(),
        room.wanted.cluster,
        room.place.slot,
        room.place.tuple.source_port.get()
    );
    Next::Send
}

/// This CPU's room for packets.
#[inline(always)]
pub fn room<A: Family>() -> Option<&'static mut Room<A>> {
    room_at(PACKETS)
}

/// This CPU's room of programs of one kind.
#[inline(always)]
pub fn room_at<A: Family>(kind: u32) -> Option<&'static mut Room<A>> {
    // SAFETY: a per-CPU value, and programs of one kind do not interrupt each
    // other on one CPU.
    A::room()
        .get_ptr_mut(kind)
        .map(|room| unsafe { &mut *room })
}

/// Fills in both entries of a flow and its place in the ring, the SYN itself
/// excepted.
#[inline(always)]
pub fn put_together<A: Family>(room: &mut Room<A>, packet: &Packet<A>) {
    let (wanted, place) = (&room.wanted, &room.place);
    (room.forward, room.reverse) = pair(&wanted.key, &place.tuple);
    // SAFETY: the helper takes nothing.
    let state = StateWord::born(unsafe { bpf_get_prandom_u32() } as u16);
    for entry in [&mut room.forward, &mut room.reverse] {
        entry.cluster = wanted.cluster;
        entry.backend = place.slot;
        entry.state = state;
        entry.last_seen = wanted.now.ticks;
    }
    let there = &mut room.forward;
    there.next_hop = place.next_hop;
    there.cold = room.at;
    start(there, &packet.segment, room.options.scale);
    there.window = packet.segment.window;
    if place.strip == 0 {
        there.timestamp = room.options.timestamp.unwrap_or(0);
    } else {
        there.flags = STRIPPED;
    }
    room.reverse.next_hop = room.back;
    room.reverse.flags = REVERSE;
    room.reverse.cold = wanted.now.ticks.0;
    room.pending.key = wanted.key;
    room.pending.born = state.0;
    room.pending.early = place.early;
}

/// Takes the timestamp from a SYN that comes again; one without has none.
#[inline(always)]
pub fn strip_again<M: Way<A>, A: Family>(frame: &mut M, packet: &Packet<A>) {
    frame.read_options();
    if let Some(room) = room::<A>()
        && room.options.timestamp.is_some()
    {
        strip_timestamp(frame, packet.tcp_offset, room.options.timestamp_at);
    }
}

/// Keeps the SYN for a second try.
#[inline(always)]
fn save_syn<M: Medium, A: Family>(frame: &M, packet: &Packet<A>, room: &mut Room<A>, now: Now) {
    let pending = &mut room.pending;
    save(pending, packet, &room.options, now.ticks);
    let len = packet.tcp_header_len - Tcp::LEN;
    for (at, word) in pending.options.chunks_exact_mut(4).enumerate() {
        if at * 4 >= len {
            break;
        }
        let Some(bytes) = frame.at::<4>(packet.tcp_offset + Tcp::LEN + at * 4) else {
            break;
        };
        word.copy_from_slice(bytes);
    }
}

/// Why a flow is not in the map.
pub enum Unwritten {
    /// The map took no more entries. The flow still has its place, to be tried
    /// again or [given up](give_up).
    Full,
    /// Anything else; nothing is left of it.
    Verdict(Verdict),
}

/// Puts the flow into the map. `flags` is for its forward entry.
#[inline(always)]
pub fn insert<A: Family>(room: &mut Room<A>, flags: u64) -> Result<(), Unwritten> {
    let (wanted, place) = (&room.wanted, &room.place);
    let Some(load) = count::load(wanted.cluster) else {
        return Err(Unwritten::Verdict(Verdict::Inconsistent));
    };
    count::add_pending(load, place.slot);
    if let Err(failure) = entries::insert(&wanted.key, &room.forward, &room.reverse, flags) {
        count::apply(wanted.cluster, place.slot, Count::DropPending);
        if failure.keeps_port {
            place.withdraw(wanted);
        } else if matches!(failure.verdict, Verdict::FlowTableFull) {
            return Err(Unwritten::Full);
        } else {
            place.abandon(wanted);
        }
        return Err(Unwritten::Verdict(failure.verdict));
    }
    if let Some(at) = room.forward.cold.checked_sub(1)
        && let Some(slot) = A::half_open().get_ptr_mut(at)
    {
        // SAFETY: a value of the map, this flow's for a round of the ring.
        unsafe { *slot = room.pending };
    }
    Ok(())
}

/// Gives back what a flow has that found the map full.
#[inline(always)]
pub fn give_up<A: Family>(room: &Room<A>) {
    room.place.abandon(&room.wanted);
}

/// Counts a refusal, and answers as the cluster says.
#[inline(always)]
pub fn refuse<M: Way<A>, A: Family>(
    frame: &mut M,
    packet: &Packet<A>,
    now: Now,
    refusal: Refusal,
) -> Next {
    let Some(room) = room::<A>() else {
        return Verdict::Inconsistent.into();
    };
    let wanted = &room.wanted;
    room.place.withdraw(wanted);
    let id = wanted.cluster;
    let (Some(cluster), Some(load)) = (CLUSTERS.get(id as u32), count::load(id)) else {
        return Verdict::Inconsistent.into();
    };
    if let Some(reason) = refusal.reason() {
        event::refused(reason, id, &wanted.key, now.ticks);
    }
    // SAFETY: counters within the cluster's counts.
    let stop = unsafe {
        match refusal {
            Refusal::NoBackend => {
                add_u64(&raw mut (*load).refused_no_backend, 1);
                look(cluster.refuse_no_backend, Verdict::NoBackend)
            }
            Refusal::Snat => {
                add_u64(&raw mut (*load).refused_snat, 1);
                look(cluster.refuse_snat, Verdict::SnatExhausted)
            }
            Refusal::Verdict(verdict) => Stop::Verdict(verdict),
        }
    };
    stopped(frame, packet, now, stop)
}

/// How a refusal looks.
#[inline(always)]
fn look(action: u8, verdict: Verdict) -> Stop {
    if action == RefuseAction::Reset as u8 {
        Stop::Reset
    } else {
        Stop::Verdict(verdict)
    }
}

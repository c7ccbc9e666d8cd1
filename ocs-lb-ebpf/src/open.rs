//! New flows: classify, select, allocate, write the pair.

use ocs_lb_common::{
    abi::{
        BPF_NOEXIST, Backend, Cluster, ClusterLoad, Flow, FlowKey, Load, NextHopKey, REVERSE,
        RefuseAction, Service, ServiceKey, StickyKey, StickyValue, backend_index,
    },
    address::Be16,
    classify::{Class, NoFlow, classify, is_client, without_flow},
    parse::Packet,
    select::{self, Scan},
    track::{Count, StateWord, start},
    translate::pair,
    verdict::Verdict,
    wire::window_scale,
};

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_prandom_u32, generated::bpf_loop};
use aya_log_ebpf::debug;

use crate::{
    atomic::{add_u32, add_u64},
    count, flow,
    forward::Exit,
    maps::{CLUSTERS, Family, NEXT_HOPS},
    neighbor,
    packet::XdpFrame,
    port, reset,
    time::Now,
};

/// A packet that no flow knows does not become one.
enum Stop {
    Verdict(Verdict),
    Reset,
}

impl From<Verdict> for Stop {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

/// The way of a packet that no flow knows.
#[inline(always)]
pub fn open<A: Family>(frame: &mut XdpFrame<'_>, packet: &Packet<A>, now: Now) -> Exit {
    let mut forward = Flow::default();
    match try_open(frame, packet, now, &mut forward) {
        Ok(()) => crate::send(frame, packet, &mut forward, now),
        Err(Stop::Verdict(verdict)) => Exit::of(verdict),
        Err(Stop::Reset) => reset::answer(frame, packet, now),
    }
}

#[inline(always)]
fn try_open<A: Family>(
    frame: &mut XdpFrame<'_>,
    packet: &Packet<A>,
    now: Now,
    forward: &mut Flow<A>,
) -> Result<(), Stop> {
    let key = &packet.key;
    // SAFETY: values of maps that only the controller writes.
    let address = unsafe { A::addresses().get(&key.destination) }.copied();
    let target = ServiceKey::tcp(key.destination, key.destination_port);
    let service = match address {
        None => None,
        // SAFETY: as above.
        Some(_) => unsafe { A::services().get(&target) }.copied(),
    };
    let service = match classify(address, service, packet.segment.flags) {
        Class::Served(service) => service,
        Class::Ends(verdict) => return Err(verdict.into()),
        Class::Reset => return Err(Stop::Reset),
    };
    let cluster = CLUSTERS
        .get(service.cluster as u32)
        .ok_or(Verdict::Inconsistent)?;
    match without_flow(packet.segment.flags, cluster.unknown) {
        NoFlow::Open => {}
        NoFlow::Ends(verdict) => return Err(verdict.into()),
        NoFlow::Reset => return Err(Stop::Reset),
    }
    // SAFETY: as above.
    let source = unsafe { A::addresses().get(&key.source) }.copied();
    if !is_client(&key.source, source) {
        return Err(Verdict::IllegalSource.into());
    }
    if packet.ttl <= 1 {
        return Err(Verdict::TtlExceeded.into());
    }
    let load = count::load(service.cluster).ok_or(Verdict::Inconsistent)?;
    // SAFETY: values within the cluster's counts.
    let held = unsafe {
        Load {
            live: core::ptr::read_volatile(&raw const (*load).live),
            pending: core::ptr::read_volatile(&raw const (*load).pending),
        }
    };
    if !select::admits(held, cluster.max_connections) {
        // SAFETY: as above.
        unsafe { add_u64(&raw mut (*load).refused_limit, 1) };
        return Err(refuse(cluster.refuse_limit, Verdict::Limit));
    }
    let client = StickyKey {
        address: key.source,
        cluster: service.cluster,
        pad: 0,
    };
    let Some(choice) = choose(&client, cluster, load, now) else {
        // SAFETY: as above.
        unsafe { add_u64(&raw mut (*load).refused_no_backend, 1) };
        return Err(refuse(cluster.refuse_no_backend, Verdict::NoBackend));
    };
    let carried = carry(frame, packet, now, service, load, choice.slot, forward);
    if carried.is_err() && choice.is_new {
        // A client must not be bound to a backend that could not take it. A
        // failure means that the entry is gone already.
        let _ = A::sticky().remove(&client);
    }
    carried
}

/// Writes the flow towards the chosen backend.
#[inline(always)]
fn carry<A: Family>(
    frame: &XdpFrame<'_>,
    packet: &Packet<A>,
    now: Now,
    service: Service,
    load: *mut ClusterLoad,
    slot: u16,
    forward: &mut Flow<A>,
) -> Result<(), Stop> {
    let key = &packet.key;
    let backend = A::backends()
        .get(backend_index(service.cluster, slot))
        .ok_or(Verdict::Inconsistent)?;
    let back = neighbor::next_hop_towards(frame, key.destination, key.source)?;
    reachable(backend)?;

    let target = select::target_port(backend.port, service.target_port);
    let snat = backend
        .snat_for(key.source.hash())
        .ok_or(Verdict::Inconsistent)?;
    let mut tuple = FlowKey::tcp(snat, Be16::default(), backend.address, target);
    let ports = port::towards(snat, &tuple)?;
    let Some(number) = port::claim(ports, backend.port_low, backend.port_high, snat) else {
        // SAFETY: as above.
        unsafe { add_u64(&raw mut (*load).refused_snat, 1) };
        let action = CLUSTERS
            .get(service.cluster as u32)
            .map_or(0, |cluster| cluster.refuse_snat);
        return Err(refuse(action, Verdict::SnatExhausted));
    };
    tuple.source_port = Be16::new(number);

    let (mut there, mut reply) = pair(key, &tuple);
    // SAFETY: the helper takes nothing.
    let state = StateWord::born(unsafe { bpf_get_prandom_u32() } as u16);
    for entry in [&mut there, &mut reply] {
        entry.cluster = service.cluster;
        entry.backend = slot;
        entry.state = state;
        entry.last_seen = now.ticks;
    }
    there.next_hop = backend.next_hop;
    reply.next_hop = back;
    reply.flags = REVERSE;
    let scale = window_scale(frame, packet.tcp_offset, packet.tcp_header_len);
    start(&mut there, &packet.segment, scale);
    // The first packet is counted before the entry exists.
    there.bytes = packet.ip_len as u64;
    there.packets = 1;
    there.window = packet.segment.window;

    count::add_pending(load, slot);
    if let Err(failure) = flow::insert(key, &there, &reply) {
        count::apply(service.cluster, slot, Count::DropPending);
        if !failure.keeps_port {
            port::unclaim(ports, number);
        }
        return Err(failure.verdict.into());
    }
    debug!(
        frame.ctx(),
        "flow {:i}:{} -> port {}: cluster {}, backend {}, SNAT port {}",
        key.source.log_word(),
        key.source_port.get(),
        key.destination_port.get(),
        service.cluster,
        slot,
        number
    );
    *forward = there;
    Ok(())
}

#[inline(always)]
fn refuse(action: u8, verdict: Verdict) -> Stop {
    if action == RefuseAction::Reset as u8 {
        Stop::Reset
    } else {
        Stop::Verdict(verdict)
    }
}

/// A chosen backend.
struct Chosen {
    slot: u16,
    /// Whether the client's sticky entry was written for this choice.
    is_new: bool,
}

impl Chosen {
    #[inline(always)]
    const fn known(slot: u16) -> Self {
        Self {
            slot,
            is_new: false,
        }
    }
}

/// The backend: by the sticky entry, or else by the cluster's algorithm.
#[inline(always)]
fn choose<A: Family>(
    client: &StickyKey<A>,
    cluster: &Cluster,
    load: *mut ClusterLoad,
    now: Now,
) -> Option<Chosen> {
    if cluster.sticky != 0
        && let Some(slot) = known(client, cluster, now)
    {
        // SAFETY: a value within the cluster's counts.
        unsafe { add_u64(&raw mut (*load).sticky_hits, 1) };
        return Some(Chosen::known(slot));
    }
    // SAFETY: as above.
    let cursor = unsafe { add_u32(&raw mut (*load).cursor, 1) };
    let slot = scan(cluster, load, cursor)?;
    if cluster.sticky == 0 {
        return Some(Chosen::known(slot));
    }
    // SAFETY: as above.
    unsafe { add_u64(&raw mut (*load).sticky_misses, 1) };
    let entry = StickyValue {
        last_used_ns: now.ns,
        backend: slot,
        pad: 0,
        pad2: 0,
    };
    // Absent only: of two first connections at once, both meet one backend.
    if A::sticky().insert(client, &entry, BPF_NOEXIST).is_err() {
        if let Some(slot) = known(client, cluster, now) {
            return Some(Chosen::known(slot));
        }
        // There was an entry, but a stale one. A failure (no memory) costs the
        // client its stickiness, not its connection.
        let _ = A::sticky().insert(client, &entry, 0);
    }
    Some(Chosen { slot, is_new: true })
}

/// What the scan's callback works on.
#[repr(C)]
struct Choice<'a> {
    cluster: &'a Cluster,
    load: *mut ClusterLoad,
    scan: Scan,
}

/// The backend by the cluster's algorithm.
#[inline(always)]
fn scan(cluster: &Cluster, load: *mut ClusterLoad, cursor: u32) -> Option<u16> {
    let mut choice = Choice {
        cluster,
        load,
        scan: Scan::new(cluster, cursor),
    };
    let step: extern "C" fn(u32, *mut Choice<'_>) -> i64 = scan_step;
    // SAFETY: the callback has the helper's signature, and `choice` outlives
    // the call. A helper's loop is verified once, a plain one slot by slot.
    unsafe {
        bpf_loop(
            choice.scan.steps(),
            step as *mut c_void,
            (&raw mut choice).cast(),
            0,
        )
    };
    choice.scan.slot()
}

/// One step of the scan; 1 ends it.
extern "C" fn scan_step(step: u32, choice: *mut Choice<'_>) -> i64 {
    // SAFETY: the helper passes our own context.
    let choice = unsafe { &mut *choice };
    let at = choice.scan.index(step);
    // SAFETY: within the cluster's policy and counts; plain integers.
    let (slot, load) = unsafe { (choice.cluster.slots[at], (*choice.load).slots[at]) };
    i64::from(choice.scan.step(at, slot, load))
}

/// The backend of a usable sticky entry, which counts as used now.
#[inline(always)]
fn known<A: Family>(client: &StickyKey<A>, cluster: &Cluster, now: Now) -> Option<u16> {
    let entry = A::sticky().get_ptr_mut(client)?;
    // SAFETY: a value of the map; plain integers.
    let slot = select::sticky(cluster, Some(unsafe { &*entry }), now.ns)?;
    // SAFETY: as above.
    unsafe { (*entry).last_used_ns = now.ns };
    Some(slot)
}

/// Whether the way to a backend is known; asks for it otherwise.
#[inline(always)]
fn reachable<A: Family>(backend: &Backend<A>) -> Result<(), Verdict> {
    let hop = NEXT_HOPS
        .get(backend.next_hop as u32)
        .ok_or(Verdict::Inconsistent)?;
    if hop.valid != 0 {
        return Ok(());
    }
    neighbor::ask(&NextHopKey {
        ifindex: hop.ifindex,
        address: backend.address,
    });
    Err(Verdict::NoNeighbor)
}

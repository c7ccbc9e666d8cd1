//! The way to a client: one lookup in the kernel's routing table at a flow's
//! birth; after that the flow holds an index.

use aya_ebpf::{bindings::bpf_fib_lookup as FibLookup, helpers::generated::bpf_fib_lookup};
use ocs_lb_common::{
    abi::{BPF_NOEXIST, FIRST_LEARNED, LastHopKey, LinkInfo, NextHop, NextHopKey},
    verdict::Verdict,
    wire::{Ethernet, MacAddress},
};

use crate::{
    atomic::add_u32,
    event,
    maps::{CURSOR_NEXT_HOPS, CURSORS, Family, LAST_HOPS, LINKS, NEXT_HOPS, SETTINGS},
    packet::Medium,
    vlan,
};

/// The loopback interface. The lookup is made as if the packet had come in
/// there: its `forwarding` sysctl alone is on, so the kernel answers fully
/// while the host does not become a router (design 3.4).
const LOOPBACK: u32 = 1;

/// Next hops at most: a flow's index has 16 bits.
const LIMIT: u32 = 65_536;

/// `BPF_FIB_LKUP_RET_NO_NEIGH` (`include/uapi/linux/bpf.h`).
const NO_NEIGHBOR: i64 = 7;

/// Index of the next hop towards `to`, for packets from `from`.
#[inline(always)]
pub fn next_hop_towards<M: Medium, A: Family>(frame: &M, from: A, to: A) -> Result<u16, Verdict> {
    if SETTINGS
        .get(0)
        .is_some_and(|settings| settings.auto_last_hop != 0)
    {
        return last_hop(frame);
    }
    // SAFETY: plain integers; zero is what the helper wants in what is unused.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    fib.family = A::AF;
    fib.l4_protocol = 6;
    fib.ifindex = LOOPBACK;
    fib.__bindgen_anon_3.ipv6_src = from.to_fib();
    fib.__bindgen_anon_4.ipv6_dst = to.to_fib();
    // SAFETY: context and parameters are valid for the call.
    let result = unsafe {
        bpf_fib_lookup(
            frame.context().cast(),
            &mut fib,
            size_of::<FibLookup>() as i32,
            0,
        )
    };
    // SAFETY: the helper leaves the next hop's address here; any bytes are one.
    let next_hop = unsafe { &fib.__bindgen_anon_4.ipv6_dst };
    let key = NextHopKey {
        ifindex: fib.ifindex,
        address: A::from_fib(next_hop),
    };
    match result {
        0 => {}
        NO_NEIGHBOR => return unresolved(frame, &key, to),
        _ => return Err(Verdict::NoRoute),
    }
    let hop = neighbor(fib.ifindex, fib.dmac, fib.smac);
    match A::next_hop_ids().get_ptr(&key) {
        // SAFETY: a value of the map, written once.
        Some(id) => refresh(unsafe { *id }, hop),
        None => learn(&key, hop),
    }
}

/// The way back to where a frame came from. The sender is believed; nobody is
/// asked.
#[inline(always)]
fn last_hop<M: Medium>(frame: &M) -> Result<u16, Verdict> {
    let Some(bytes) = frame.at::<{ Ethernet::LEN }>(0) else {
        return Err(Verdict::Malformed);
    };
    let header = Ethernet(bytes);
    let key = LastHopKey {
        tags: vlan::current(),
        ifindex: frame.ingress(),
        sender: header.source(),
        pad: [0; 3],
    };
    if let Some(id) = LAST_HOPS.get_ptr(&key) {
        // SAFETY: a value of the map, written once.
        return Ok(unsafe { *id } as u16);
    }
    let id = place(NextHop {
        destination: key.sender,
        valid: 1,
        source: header.destination(),
        mtu: link(key.ifindex).mtu,
        ifindex: key.ifindex,
        generation: 0,
        tags: key.tags,
    })?;
    if LAST_HOPS.insert(&key, &id, BPF_NOEXIST).is_ok() {
        return Ok(id as u16);
    }
    // Another CPU was first; this slot stays unused.
    match LAST_HOPS.get_ptr(&key) {
        // SAFETY: a value of the map, written once.
        Some(id) => Ok(unsafe { *id } as u16),
        None => Err(Verdict::NextHopTableFull),
    }
}

/// The kernel has a route, but does not know the neighbour's MAC (any more).
///
/// A sender on our own link that the route reaches directly *is* that
/// neighbour, so its frame tells the MAC; the kernel is asked all the same,
/// and what it finds replaces this. A gateway's MAC is never taken from a
/// frame: routers may send from another one than they receive on.
#[inline(always)]
fn unresolved<M: Medium, A: Family>(frame: &M, key: &NextHopKey<A>, to: A) -> Result<u16, Verdict> {
    ask(key);
    if let Some(id) = A::next_hop_ids().get_ptr(key) {
        // SAFETY: a value of the map, written once.
        let id = unsafe { *id };
        if NEXT_HOPS.get(id).is_some_and(|hop| hop.valid != 0) {
            return Ok(id as u16);
        }
    }
    let link = link(key.ifindex);
    let came_with = vlan::current();
    let on_link = key.address == to
        && link.send_on == frame.ingress()
        && link.tags[0].same_vlan(&came_with[0])
        && link.tags[1].same_vlan(&came_with[1]);
    let Some(bytes) = frame.at::<{ Ethernet::LEN }>(0) else {
        return Err(Verdict::Malformed);
    };
    if !on_link {
        return Err(Verdict::NoNeighbor);
    }
    let header = Ethernet(bytes);
    let hop = neighbor(key.ifindex, header.source(), header.destination());
    match A::next_hop_ids().get_ptr(key) {
        // SAFETY: a value of the map, written once.
        Some(id) if unsafe { *id } >= FIRST_LEARNED => refresh(unsafe { *id }, hop),
        // A backend or gateway: netlink alone tells its MAC.
        Some(_) => Err(Verdict::NoNeighbor),
        None => learn(key, hop),
    }
}

/// How frames leave by an interface that a route names.
#[inline(always)]
fn link(ifindex: u32) -> LinkInfo {
    // SAFETY: a value of a map that only the controller writes, copied.
    unsafe { LINKS.get(&ifindex) }.copied().unwrap_or(LinkInfo {
        send_on: ifindex,
        ..LinkInfo::default()
    })
}

/// A neighbour behind an interface, whose MAC address and ours are known.
#[inline(always)]
fn neighbor(ifindex: u32, destination: MacAddress, source: MacAddress) -> NextHop {
    let link = link(ifindex);
    NextHop {
        destination,
        valid: 1,
        source,
        mtu: link.mtu,
        ifindex: link.send_on,
        generation: 0,
        tags: link.tags,
    }
}

/// Corrects a known next hop whose addresses changed.
#[inline(always)]
fn refresh(id: u32, hop: NextHop) -> Result<u16, Verdict> {
    let Some(known) = NEXT_HOPS.get(id) else {
        return Err(Verdict::Inconsistent);
    };
    let known_so = NextHop {
        generation: known.generation,
        ..hop
    };
    if *known != known_so {
        let hop = NextHop {
            generation: known.generation.wrapping_add(1),
            ..hop
        };
        if NEXT_HOPS.set(id, &hop, 0).is_err() {
            return Err(Verdict::Inconsistent);
        }
    }
    Ok(id as u16)
}

/// Gives a new neighbour a slot.
#[inline(always)]
fn learn<A: Family>(key: &NextHopKey<A>, hop: NextHop) -> Result<u16, Verdict> {
    let id = place(hop)?;
    if A::next_hop_ids().insert(key, &id, BPF_NOEXIST).is_ok() {
        return Ok(id as u16);
    }
    // Another CPU was first; this slot stays unused.
    match A::next_hop_ids().get_ptr(key) {
        // SAFETY: a value of the map, written once.
        Some(id) => Ok(unsafe { *id } as u16),
        None => Err(Verdict::NextHopTableFull),
    }
}

/// A slot of its own for a next hop.
#[inline(always)]
fn place(hop: NextHop) -> Result<u32, Verdict> {
    let Some(cursor) = CURSORS.get_ptr_mut(CURSOR_NEXT_HOPS) else {
        return Err(Verdict::Inconsistent);
    };
    // SAFETY: a value of the map.
    if unsafe { core::ptr::read_volatile(cursor) } >= LIMIT - FIRST_LEARNED {
        return Err(Verdict::NextHopTableFull);
    }
    // SAFETY: as above.
    let id = FIRST_LEARNED + unsafe { add_u32(cursor, 1) };
    if id >= LIMIT || NEXT_HOPS.set(id, &hop, 0).is_err() {
        return Err(Verdict::NextHopTableFull);
    }
    Ok(id)
}

/// Asks the controller to resolve a neighbour.
#[inline(always)]
pub fn ask<A: Family>(key: &NextHopKey<A>) {
    event::neighbor(key.ifindex, key.address);
}

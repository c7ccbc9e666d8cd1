//! ICMP over IPv4: messages to our addresses, and errors about packets that go
//! no further. What is decided about them is in [`ocs_lb_common::icmp`].

use ocs_lb_common::{
    abi::{AddressFlags, Flow},
    address::V4,
    classify,
    icmp::{
        ERRORS_PER_CPU, Echo, Error, Message, Obstacle, ROOM, answers_echo, is_known, may_tell,
        parse_ipv4, quote_len, translate, without_flow, write_error, write_reply,
    },
    parse::{IP_OFFSET, Packet},
    verdict::Verdict,
    wire::{Tcp, TcpMut},
};

use crate::{
    flow,
    forward::{self, Exit, forward, next_hop},
    maps::{BUDGETS, Family as _, NEXT_HOPS},
    open::room,
    packet::{Medium, Way},
    redispatch,
    slow::Next,
    time::Now,
};

/// Index of [`BUDGETS`] for errors of our own.
const BUDGET: u32 = 1;

/// What is known of an address; nothing where it is not ours.
#[inline(always)]
fn flags(address: V4) -> Option<AddressFlags> {
    // SAFETY: a value of a map that only the controller writes.
    unsafe { V4::addresses().get(&address) }.copied()
}

/// A packet that is not TCP to one of our addresses, from a source that is
/// none of ours.
#[inline(always)]
pub fn receive<M: Medium>(frame: &mut M, now: Now) -> Next {
    match parse_ipv4(frame) {
        Ok(Message::Error(error)) => about_a_flow(frame, &error, now).unwrap_or_else(Next::from),
        Ok(Message::Foreign(destination)) => unknown(destination).into(),
        Ok(Message::Echo(_)) => Next::Echo,
        Ok(Message::Other(destination)) => other(destination).into(),
        Err(verdict) => verdict.into(),
    }
}

/// Where an error ends that is about no flow of ours.
#[inline(always)]
fn unknown(destination: V4) -> Verdict {
    flags(destination).map_or(Verdict::NotOurs, without_flow)
}

/// Where anything else ends.
#[inline(always)]
fn other(destination: V4) -> Verdict {
    flags(destination).map_or(Verdict::NotOurs, |address| {
        classify::odd(Verdict::NotTcp, address)
    })
}

/// Answers an echo request.
#[inline(always)]
pub fn echo<M: Way<V4>>(frame: &mut M) -> Next {
    match parse_ipv4(frame) {
        Ok(Message::Echo(echo)) => answer(frame, &echo).map_or_else(Next::from, Next::Exit),
        _ => Verdict::Malformed.into(),
    }
}

/// The same, by the kernel's way to who asks.
#[inline(always)]
fn answer<M: Way<V4>>(frame: &mut M, echo: &Echo) -> Result<Exit, Verdict> {
    if !flags(echo.destination).is_some_and(answers_echo) {
        return Err(Verdict::NotTcp);
    }
    let hop = next_hop(frame.route(echo.destination, echo.source)?)?;
    if hop.mtu != 0 && echo.ip_len > hop.mtu {
        return Err(Verdict::TooBig);
    }
    write_reply(frame, echo).ok_or(Verdict::Malformed)?;
    Ok(forward(frame, hop).as_answer(Verdict::AnsweredEcho))
}

/// An error about a TCP packet: it may move the flow whose SYN that was, and is
/// otherwise for who sent the packet.
#[inline(always)]
fn about_a_flow<M: Medium>(frame: &mut M, error: &Error, now: Now) -> Result<Next, Verdict> {
    let entry = entry(error)?;
    // Of an error nobody is told anything.
    if error.ttl <= 1 {
        return Err(Verdict::TtlExceeded);
    }
    if let Some(next) = redispatch::unreachable(error, entry, now) {
        return Ok(next);
    }
    send(frame, error, entry).map(Next::Exit)
}

/// The entry that an error's quote is found under.
#[inline(always)]
fn entry(error: &Error) -> Result<&'static mut Flow<V4>, Verdict> {
    let found = V4::flows().get_ptr_mut(&error.quoted.reversed());
    // SAFETY: a value of the map; its state is changed by swaps only.
    let known = found
        .map(|entry| unsafe { &mut *entry })
        .filter(|entry| is_known(flow::state_of(entry)));
    known.ok_or_else(|| unknown(error.quoted.source))
}

/// Translates an error and sends it on.
#[inline(always)]
fn send<M: Medium>(frame: &mut M, error: &Error, entry: &Flow<V4>) -> Result<Exit, Verdict> {
    let word = flow::state_of(entry);
    let hop = next_hop(entry.next_hop)?;
    translate(frame, error, entry).ok_or(Verdict::Malformed)?;
    // The element may have become another flow under our eyes.
    if !flow::state_of(entry).is_same_flow(word) {
        return Err(Verdict::Race);
    }
    Ok(forward(frame, hop))
}

/// The flow that an error was to move stays, as no other backend takes it: its
/// client has the error.
#[inline(always)]
pub fn stay<M: Medium>(frame: &mut M) -> Next {
    if let Some(room) = room::<V4>() {
        room.place.withdraw(&room.wanted);
    }
    let Ok(Message::Error(error)) = parse_ipv4(frame) else {
        return Verdict::Malformed.into();
    };
    match entry(&error).and_then(|entry| send(frame, &error, entry)) {
        Ok(exit) => Next::Exit(exit),
        Err(verdict) => verdict.into(),
    }
}

/// What keeps a packet from going on.
#[inline(always)]
fn obstacle<M: Medium>(frame: &M, packet: &Packet<V4>) -> Option<Obstacle> {
    // Only what might open a flow is looked at without one.
    let Some(entry) = flow::entry(packet) else {
        return Some(Obstacle::EXPIRED);
    };
    let hop = NEXT_HOPS.get(entry.next_hop as u32)?;
    forward::obstacle(frame, packet, hop)
}

/// Index of the next hop to a packet's sender: its flow's, or the kernel's.
#[inline(always)]
fn way_back<M: Way<V4>>(frame: &M, packet: &Packet<V4>) -> Result<u16, Verdict> {
    let Some(entry) = flow::entry(packet) else {
        return frame.route(packet.key.destination, packet.key.source);
    };
    match V4::flows().get_ptr(&entry.peer_key()) {
        // SAFETY: a value of the map, read only.
        Some(other) => Ok(unsafe { (*other).next_hop }),
        None => Err(Verdict::Race),
    }
}

/// Tells the sender of a packet why that goes no further.
#[inline(always)]
pub fn tell<M: Way<V4>>(frame: &mut M, packet: &Packet<V4>, now: Now) -> Result<Exit, Verdict> {
    let obstacle = obstacle(frame, packet).ok_or(Verdict::Race)?;
    let silent = obstacle.silent();
    if !may_tell(frame) {
        return Err(silent);
    }
    let budget = BUDGETS.get_ptr_mut(BUDGET).ok_or(Verdict::Inconsistent)?;
    // SAFETY: a per-CPU value.
    if !unsafe { (*budget).take(now.ticks, ERRORS_PER_CPU) } {
        return Err(Verdict::IcmpLimited);
    }
    let hop = next_hop(way_back(frame, packet)?)?;
    let header = frame.at::<{ Tcp::LEN }>(packet.tcp_offset).ok_or(silent)?;
    let checksum = Tcp(header).checksum();
    // First cut: a longer packet than the link takes cannot grow.
    if !frame.resize(IP_OFFSET + quote_len(packet)) || !frame.make_room(ROOM) {
        return Err(silent);
    }
    let tcp_offset = packet.tcp_offset + ROOM;
    let partial = frame.is_partial(tcp_offset);
    // The question left nothing of it.
    TcpMut(frame.at_mut(tcp_offset).ok_or(silent)?).set_checksum(checksum);
    write_error(frame, packet, obstacle, partial).ok_or(silent)?;
    Ok(forward(frame, hop).as_answer(obstacle.told()))
}

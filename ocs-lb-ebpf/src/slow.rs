//! The way of packets that open, end or move a flow.
//!
//! Its steps are functions that the verifier looks at once, whatever state
//! their callers are in ("global functions", `kernel/bpf/verifier.c`): each
//! begins with the context alone and finds what the one before left in this
//! CPU's room. They are siblings, so their stacks do not add up.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use ocs_lb_common::{
    abi::STRIPPED,
    address::V4,
    parse::{Packet, parse_ipv4},
    verdict::Verdict,
    wire::{Flags, syn_options},
};

use crate::{
    flow,
    forward::Exit,
    neighbor::next_hop_towards,
    open,
    packet::XdpFrame,
    place::{self, Refusal},
    port::{self, Ports},
    redispatch, reset, reuse, ring,
    time::{self, Now},
};

/// What comes next.
#[derive(Clone, Copy)]
pub enum Next {
    /// The packet's way ends.
    Exit(Exit),
    /// It is sent by its flow's entry.
    Send,
    /// It may open a flow.
    Open,
    /// A flow wants a place.
    Find,
    /// Its flow wants another place; without one, the packet is sent as it is.
    Move,
    /// Its flow is over, and it is answered with a RST.
    Answer,
    /// Another CPU changed its flow first.
    Again,
}

impl Next {
    const SEND: u32 = 1 << 16;
    const OPEN: u32 = 2 << 16;
    const FIND: u32 = 3 << 16;
    const MOVE: u32 = 4 << 16;
    const ANSWER: u32 = 5 << 16;
    const AGAIN: u32 = 6 << 16;

    /// As a number, for the way out of a global function.
    #[inline(always)]
    pub const fn code(self) -> u32 {
        match self {
            Self::Exit(exit) => exit.code(),
            Self::Send => Self::SEND,
            Self::Open => Self::OPEN,
            Self::Find => Self::FIND,
            Self::Move => Self::MOVE,
            Self::Answer => Self::ANSWER,
            Self::Again => Self::AGAIN,
        }
    }
}

impl From<Verdict> for Next {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self::Exit(Exit::of(verdict))
    }
}

/// Tries to change a flow's state: one is lost only to another change of the
/// same flow, of which there are few in a life.
const TRIES: usize = 3;

/// All steps in their order. Not a function of its own: its frame would count
/// against the stack of every step (32 bytes on Linux 6.1).
#[inline(always)]
pub fn ocs_lb_slow4(ctx: *mut xdp_md) -> u32 {
    let mut code = Next::AGAIN;
    for _ in 0..TRIES {
        code = ocs_lb_change4(ctx);
        if code != Next::AGAIN {
            break;
        }
    }
    if code == Next::OPEN {
        code = ocs_lb_admit4(ctx);
        if code == Next::FIND {
            ocs_lb_ring4();
            let refusal = ocs_lb_find4();
            code = if refusal == 0 {
                ocs_lb_write4(ctx)
            } else {
                ocs_lb_refuse4(ctx, refusal)
            };
        }
    } else if code == Next::MOVE {
        code = if ocs_lb_find4() == 0 {
            ocs_lb_move4(ctx)
        } else {
            ocs_lb_stay4(ctx)
        };
    }
    match code {
        Next::SEND => {
            ocs_lb_strip4(ctx);
            ocs_lb_send4(ctx)
        }
        Next::ANSWER => ocs_lb_answer4(ctx),
        Next::AGAIN => Next::from(Verdict::Race).code(),
        code => code,
    }
}

/// Calls a step with a packet parsed anew.
#[inline(always)]
fn with_packet(
    ctx: *mut xdp_md,
    step: impl FnOnce(&mut XdpFrame<'_>, &Packet<V4>, Now) -> Next,
) -> u32 {
    let ctx = XdpContext::new(ctx);
    let mut frame = XdpFrame::new(&ctx);
    let next = match parse_ipv4(&frame) {
        Ok(packet) => step(&mut frame, &packet, time::now()),
        Err(_) => Verdict::Malformed.into(),
    };
    next.code()
}

/// [`flow::change`] for IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_change4(ctx: *mut xdp_md) -> u32 {
    with_packet(ctx, flow::change)
}

/// [`flow::close`] for IPv4, by a number of this CPU's rooms; 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_close4(room: u32) -> u32 {
    if let Some(room) = open::room_at::<V4>(room) {
        flow::close(room);
    }
    0
}

/// What the number from [`ocs_lb_route4`] says.
#[inline(always)]
pub const fn route(code: u32) -> Result<u16, Verdict> {
    // The only verdicts that a look for a way comes to.
    Err(match code {
        NO_ROUTE => Verdict::NoRoute,
        NO_NEIGHBOR => Verdict::NoNeighbor,
        NO_ROOM => Verdict::NextHopTableFull,
        index if index < NO_ROUTE => return Ok(index as u16),
        _ => Verdict::Inconsistent,
    })
}

const NO_ROUTE: u32 = 1 << 16;
const NO_NEIGHBOR: u32 = NO_ROUTE + 1;
const NO_ROOM: u32 = NO_ROUTE + 2;

/// [`next_hop_towards`] for IPv4 addresses as they lie in a packet: the index,
/// or a number for [`route`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_route4(ctx: *mut xdp_md, from: u32, to: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    let address = |word: u32| V4(word.to_ne_bytes());
    match next_hop_towards(&frame, address(from), address(to)) {
        Ok(index) => index as u32,
        Err(Verdict::NoRoute) => NO_ROUTE,
        Err(Verdict::NoNeighbor) => NO_NEIGHBOR,
        Err(Verdict::NextHopTableFull) => NO_ROOM,
        Err(_) => u32::MAX,
    }
}

/// [`flow::promoted`] for IPv4; 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_promoted4() -> u32 {
    if let Some(room) = open::room::<V4>() {
        flow::promoted(room);
    }
    0
}

/// Reads the options of an IPv4 packet into this CPU's room; 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_options4(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    if let (Ok(packet), Some(room)) = (parse_ipv4(&frame), open::room::<V4>()) {
        room.options = syn_options(&frame, packet.tcp_offset, packet.tcp_header_len);
    }
    0
}

/// [`crate::send`] for IPv4. The packet may be another one than before, of
/// another flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_send4(ctx: *mut xdp_md) -> u32 {
    with_packet(ctx, |frame, packet, now| match flow::entry(packet) {
        Some(entry) => {
            let word = flow::state_of(entry);
            Next::Exit(crate::send(frame, packet, entry, word, now))
        }
        None => Verdict::Race.into(),
    })
}

/// [`open::strip_again`] for IPv4, where the packet's flow wants it; 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_strip4(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let mut frame = XdpFrame::new(&ctx);
    if let Ok(packet) = parse_ipv4(&frame)
        && packet.segment.flags.any(Flags::SYN)
        && let Some(entry) = flow::entry(&packet)
        && entry.flags & STRIPPED != 0
    {
        open::strip_again(&mut frame, &packet);
    }
    0
}

/// [`reset::send`] for IPv4, by the next hop in this CPU's room.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_answer4(ctx: *mut xdp_md) -> u32 {
    with_packet(ctx, |frame, packet, _| match open::room::<V4>() {
        Some(room) => Next::Exit(reset::send(frame, packet, room.back)),
        None => Verdict::Inconsistent.into(),
    })
}

/// [`open::admit`] for IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_admit4(ctx: *mut xdp_md) -> u32 {
    with_packet(ctx, open::admit)
}

/// [`place::find`] for IPv4: the code of a [`Refusal`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_find4() -> u32 {
    match open::room::<V4>() {
        Some(room) => Refusal::code(place::find(room)),
        None => Refusal::code(Err(Refusal::INCONSISTENT)),
    }
}

/// [`place::backend`] for IPv4: the code of a [`Refusal`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_backend4() -> u32 {
    match open::room::<V4>() {
        Some(room) => Refusal::code(place::backend(room)),
        None => Refusal::code(Err(Refusal::INCONSISTENT)),
    }
}

/// [`place::port`] for IPv4: 1 where there is one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_port4() -> u32 {
    open::room::<V4>().is_some_and(place::port) as u32
}

/// [`port::claim`] for IPv4: the port, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_claim4() -> u32 {
    let Some(room) = open::room::<V4>() else {
        return 0;
    };
    let place = &room.place;
    let Some(ports) = Ports::at(place.ports) else {
        return 0;
    };
    port::claim(ports, place.low, place.high, place.tuple.source).unwrap_or(0) as u32
}

/// [`reuse::find`] for IPv4: the code of a [`Reused`](reuse::Reused), or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_reuse4(any: u32) -> u32 {
    open::room::<V4>().map_or(0, |room| reuse::find(room, any != 0))
}

/// [`reuse::evict`] for IPv4: 1 where this CPU's room has the port now.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_evict4(port: u32) -> u32 {
    open::room::<V4>().is_some_and(|room| reuse::evict(&room.place.tuple, port as u16)) as u32
}

/// [`ring::take`] for IPv4; 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_ring4() -> u32 {
    if let Some(room) = open::room::<V4>() {
        room.at = ring::take::<V4>(room.wanted.now);
    }
    0
}

/// [`open::refuse`] for IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_refuse4(ctx: *mut xdp_md, refusal: u32) -> u32 {
    with_packet(ctx, |frame, packet, now| {
        let refusal = Refusal::from_code(refusal).err();
        open::refuse(frame, packet, now, refusal.unwrap_or(Refusal::INCONSISTENT))
    })
}

/// [`open::write`] for IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_write4(ctx: *mut xdp_md) -> u32 {
    with_packet(ctx, open::write)
}

/// [`redispatch::relocate`] for IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_move4(ctx: *mut xdp_md) -> u32 {
    with_packet(ctx, |frame, _, _| redispatch::relocate::<V4>(frame))
}

/// [`redispatch::stay`] for IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_stay4(ctx: *mut xdp_md) -> u32 {
    with_packet(ctx, redispatch::stay)
}

//! The way of packets that open, end or move a flow.
//!
//! Its steps are functions that the verifier looks at once, whatever state
//! their callers are in ("global functions", `kernel/bpf/verifier.c`): each
//! finds what the one before left in this CPU's room. They are siblings, so
//! their stacks do not add up. Here are those that need no packet; the others
//! are in [`crate::steps`].

use ocs_lb_common::{
    abi::ServiceKey,
    address::{Be16, V4},
    verdict::Verdict,
};

use crate::{
    access::{self, Fast},
    flow,
    forward::Exit,
    open,
    place::{self, Refusal},
    port::{self, Ports},
    reclaim, reuse, ring,
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
    /// Something keeps it from going on; its sender is told.
    Tell,
    /// It asks whether we are there.
    Echo,
    /// Another CPU changed its flow first.
    Again,
    /// The map has no room for its flow.
    Full,
}

impl Next {
    /// Numbers beside those of an [`Exit`].
    pub const SEND: u32 = 1 << 16;
    /// See [`Next`].
    pub const OPEN: u32 = 2 << 16;
    /// See [`Next`].
    pub const FIND: u32 = 3 << 16;
    /// See [`Next`].
    pub const MOVE: u32 = 4 << 16;
    /// See [`Next`].
    pub const ANSWER: u32 = 5 << 16;
    /// A packet that may be ICMP.
    pub const ICMP: u32 = 14 << 16;
    /// A packet that is not plain.
    pub const SLOW: u32 = 15 << 16;
    /// See [`Next`].
    pub const AGAIN: u32 = 6 << 16;
    /// See [`Next`].
    pub const FULL: u32 = 7 << 16;
    /// See [`Next`].
    pub const TELL: u32 = 8 << 16;
    /// See [`Next`].
    pub const ECHO: u32 = 9 << 16;

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
            Self::Tell => Self::TELL,
            Self::Echo => Self::ECHO,
            Self::Again => Self::AGAIN,
            Self::Full => Self::FULL,
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
pub const TRIES: usize = 3;

/// Flows that make room for a new one at most: it needs two entries, and what
/// is left of a flow may be one. Another CPU may take what was freed.
pub const RECLAIMED: usize = 4;

/// What the number from [`route_code`] says.
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

/// A next hop's index as a number, for the way out of a global function.
#[inline(always)]
pub const fn route_code(found: Result<u16, Verdict>) -> u32 {
    match found {
        Ok(index) => index as u32,
        Err(Verdict::NoRoute) => NO_ROUTE,
        Err(Verdict::NoNeighbor) => NO_NEIGHBOR,
        Err(Verdict::NextHopTableFull) => NO_ROOM,
        Err(_) => u32::MAX,
    }
}

const NO_ROUTE: u32 = 1 << 16;
const NO_NEIGHBOR: u32 = NO_ROUTE + 1;
const NO_ROOM: u32 = NO_ROUTE + 2;

/// [`flow::close`] for IPv4, by a number of this CPU's rooms; 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_close4(room: u32) -> u32 {
    if let Some(room) = open::room_at::<V4>(room) {
        flow::close(room);
    }
    0
}

/// [`flow::rest`] for IPv4, by a number of this CPU's rooms; 0. Beside
/// [`ocs_lb_close4`], not within: so their stacks do not add up.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_rest4(room: u32) -> u32 {
    if let Some(room) = open::room_at::<V4>(room) {
        flow::rest(room);
    }
    0
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

/// [`access::listed`] for an IPv4 address as it lies in a packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_listed4(list: u32, source: u32) -> u32 {
    access::listed(list, &V4(source.to_ne_bytes()))
}

/// [`access::service`] for IPv4 addresses and a port as they lie in a packet:
/// the code of a [`Service`](ocs_lb_common::abi::Service).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_service4(to: u32, port: u32, any: u32, source: u32) -> u64 {
    let address = |word: u32| V4(word.to_ne_bytes());
    let to = ServiceKey::tcp(address(to), Be16((port as u16).to_ne_bytes()));
    access::service(to, any != 0, &address(source))
}

/// [`access::paced`] for IPv4: the code of a [`Fast`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_paced4() -> u32 {
    Fast::code(open::room::<V4>().and_then(|room| access::paced(room)))
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

/// [`reclaim::oldest`] for IPv4: 1 where a flow made room.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_reclaim4() -> u32 {
    reclaim::oldest::<V4>() as u32
}

/// [`open::give_up`] for IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ocs_lb_full4() -> u32 {
    if let Some(room) = open::room::<V4>() {
        open::give_up(room);
    }
    Next::from(Verdict::FlowTableFull).code()
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

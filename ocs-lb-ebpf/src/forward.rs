//! The last step: MAC addresses, and out.

use ocs_lb_common::{
    abi::NextHop,
    icmp::Obstacle,
    parse::Packet,
    verdict::Verdict,
    wire::{Ethernet, EthernetMut},
};

use crate::{
    maps::NEXT_HOPS,
    packet::{Action, Medium},
    vlan,
};

/// The end of a packet's way: what is counted, and what the kernel does.
#[derive(Clone, Copy)]
pub struct Exit {
    /// What is counted: a [`Verdict`]'s number.
    pub verdict: u32,
    /// An [`Action`]'s number.
    pub action: u32,
}

impl Exit {
    /// A packet that is not sent.
    #[inline(always)]
    pub const fn of(verdict: Verdict) -> Self {
        Self::with(verdict, Action::of(verdict))
    }

    /// A packet that is sent, by what the kernel does.
    #[inline(always)]
    pub const fn with(verdict: Verdict, action: Action) -> Self {
        Self {
            verdict: verdict as u32,
            action: action as u32,
        }
    }

    /// As a number, for the way out of a global function.
    #[inline(always)]
    pub const fn code(self) -> u32 {
        self.action << 8 | self.verdict
    }

    /// From that number.
    #[inline(always)]
    pub const fn from_code(code: u32) -> Self {
        Self {
            verdict: code & 0xff,
            action: code >> 8 & 0xff,
        }
    }

    /// The same, counted as this answer where it is sent.
    #[inline(always)]
    pub const fn as_answer(self, verdict: Verdict) -> Self {
        if self.verdict == Verdict::Tx as u32 || self.verdict == Verdict::Redirect as u32 {
            Self {
                verdict: verdict as u32,
                action: self.action,
            }
        } else {
            self
        }
    }
}

/// A next hop that can be sent to.
#[inline(always)]
pub fn next_hop(index: u16) -> Result<&'static NextHop, Verdict> {
    let hop = NEXT_HOPS.get(index as u32).ok_or(Verdict::Inconsistent)?;
    if hop.valid == 0 {
        return Err(Verdict::NoNeighbor);
    }
    Ok(hop)
}

/// What keeps a packet from its next hop.
#[inline(always)]
pub fn obstacle<M: Medium, A>(frame: &M, packet: &Packet<A>, hop: &NextHop) -> Option<Obstacle> {
    if packet.ttl <= 1 {
        return Some(Obstacle::EXPIRED);
    }
    if frame.sent_len(packet) > hop.mtu as usize {
        return Obstacle::too_big(hop.mtu);
    }
    None
}

/// Sends a translated packet to a next hop.
#[inline(always)]
pub fn forward<M: Medium>(frame: &mut M, hop: &NextHop) -> Exit {
    let Some(bytes) = frame.at_mut::<{ Ethernet::LEN }>(0) else {
        return Exit::of(Verdict::Malformed);
    };
    EthernetMut(bytes).set_addresses(&hop.destination, &hop.source);
    if hop.tags[0].is_some() && !vlan::tag(frame, &hop.tags) {
        return Exit::of(Verdict::NoTagRoom);
    }
    frame.send_on(hop.ifindex)
}

//! The last step: MAC addresses, and out.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX},
    helpers::generated::bpf_redirect_map,
};
use ocs_lb_common::{
    verdict::{Kind, Verdict},
    wire::{Ethernet, EthernetMut, Frame},
};

use crate::{
    count,
    maps::{DEVICES, NEXT_HOPS},
    packet::XdpFrame,
};

/// The end of a packet's way: what is counted, and what the kernel does.
#[derive(Clone, Copy)]
pub struct Exit {
    /// What is counted: a [`Verdict`]'s number.
    pub verdict: u32,
    /// An `xdp_action`.
    pub action: u32,
}

impl Exit {
    /// A packet that is not sent.
    #[inline(always)]
    pub fn of(verdict: Verdict) -> Self {
        let action = match verdict.kind() {
            Kind::Pass => XDP_PASS,
            Kind::Forward | Kind::Drop => XDP_DROP,
        };
        Self::with(verdict, action)
    }

    /// A packet that is sent, by what the kernel does.
    #[inline(always)]
    const fn with(verdict: Verdict, action: u32) -> Self {
        Self {
            verdict: verdict as u32,
            action,
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

    /// The same, counted as an answer where it is sent.
    #[inline(always)]
    pub const fn as_answer(self) -> Self {
        if self.verdict == Verdict::Tx as u32 || self.verdict == Verdict::Redirect as u32 {
            Self::with(Verdict::Answered, self.action)
        } else {
            self
        }
    }
}

/// Sends a translated packet to a next hop.
#[inline(always)]
pub fn forward(frame: &mut XdpFrame<'_>, next_hop: u16) -> Exit {
    let Some(hop) = NEXT_HOPS.get(next_hop as u32) else {
        return Exit::of(Verdict::Inconsistent);
    };
    if hop.valid == 0 {
        return Exit::of(Verdict::NoNeighbor);
    }
    let Some(bytes) = frame.at_mut::<{ Ethernet::LEN }>(0) else {
        return Exit::of(Verdict::Malformed);
    };
    EthernetMut(bytes).set_addresses(&hop.destination, &hop.source);
    let ingress = frame.ctx().ingress_ifindex() as u32;
    if hop.ifindex == ingress && count::may_transmit(ingress) {
        return Exit::with(Verdict::Tx, XDP_TX);
    }
    // SAFETY: a device map, as the helper wants; without an entry for the
    // interface it returns the flags, which say drop.
    let action = unsafe {
        bpf_redirect_map(
            (&raw const DEVICES).cast_mut().cast(),
            hop.ifindex as u64,
            XDP_DROP as u64,
        )
    } as u32;
    if action == XDP_REDIRECT {
        Exit::with(Verdict::Redirect, action)
    } else {
        Exit::of(Verdict::NoEgress)
    }
}

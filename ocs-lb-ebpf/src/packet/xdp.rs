//! The packet of an XDP program.

use aya_ebpf::{
    bindings::{xdp_action::XDP_DROP, xdp_action::XDP_REDIRECT, xdp_md},
    helpers::generated::{
        bpf_redirect_map, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
    },
};
use ocs_lb_common::{
    abi::Tag,
    parse::Packet,
    verdict::Verdict,
    wire::{Ethernet, Frame},
};

use super::{Action, Medium, ethernet, within};
use crate::{count, forward::Exit, maps::DEVICES};

/// A frame as the driver has it. Its first piece is what can be looked at; a
/// jumbo frame has more.
pub struct XdpFrame {
    context: *mut xdp_md,
}

impl XdpFrame {
    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context is that of this run.
        unsafe { (*self.context).data as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.context).data_end as usize }
    }

    /// Bytes by which the packet is shorter than `len`.
    #[inline(always)]
    fn missing(&self, len: usize) -> i32 {
        let now = self.whole_len();
        // SAFETY: a reference is readable; volatile, as the compiler would
        // subtract halves of pointers, which the verifier refuses.
        let now = unsafe { core::ptr::read_volatile(&raw const now) };
        (len as i64 - now as i64) as i32
    }

    /// Moves the packet's start by `delta` bytes; whether the kernel did.
    #[inline(always)]
    fn adjust_head(&mut self, delta: i32) -> bool {
        // SAFETY: the context is that of this run.
        unsafe { bpf_xdp_adjust_head(self.context, delta) == 0 }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        // SAFETY: the bytes lie between data and data_end.
        within(self.data(), self.data_end(), offset).map(|at| unsafe { &*at })
    }

    #[inline(always)]
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        // SAFETY: as above; `self` is borrowed mutably for as long.
        within(self.data(), self.data_end(), offset).map(|at| unsafe { &mut *at })
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.data_end() - self.data()
    }

    #[inline(always)]
    fn whole_len(&self) -> usize {
        // SAFETY: the context is that of this run.
        unsafe { bpf_xdp_get_buff_len(self.context) as usize }
    }
}

/// Bytes of a VLAN tag.
const TAG_LEN: usize = 4;

impl Medium for XdpFrame {
    type Context = xdp_md;

    #[inline(always)]
    fn of(context: *mut xdp_md) -> Self {
        Self { context }
    }

    #[inline(always)]
    fn context(&self) -> *mut xdp_md {
        self.context
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: the context is that of this run.
        unsafe { (*self.context).ingress_ifindex }
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> bool {
        let delta = self.missing(len);
        // SAFETY: the context is that of this run.
        unsafe { bpf_xdp_adjust_tail(self.context, delta) == 0 }
    }

    /// At the front, where every driver leaves room: behind a small packet,
    /// veth has none.
    #[inline(always)]
    fn renew(&mut self, len: usize) -> bool {
        let delta = self.missing(len);
        self.adjust_head(-delta)
    }

    #[inline(always)]
    fn make_room(&mut self, len: usize) -> bool {
        if !self.adjust_head(-(len as i32)) {
            return false;
        }
        let Some(header) = self.at::<{ Ethernet::LEN }>(len).copied() else {
            return false;
        };
        let Some(place) = self.at_mut(0) else {
            return false;
        };
        *place = header;
        true
    }

    #[inline(always)]
    fn cut_options(&mut self, _len: usize) -> bool {
        // What follows the header is written anew anyway.
        true
    }

    #[inline(always)]
    fn is_partial(&mut self, _tcp_offset: usize) -> bool {
        false
    }

    #[inline(always)]
    fn sent_len<A>(&self, packet: &Packet<A>) -> usize {
        packet.ip_len as usize
    }

    #[inline(always)]
    fn has_tag(&self) -> bool {
        ethernet::has_tag(self)
    }

    #[inline(always)]
    fn pop_tag(&mut self) -> Option<Tag> {
        let tag = ethernet::tag(self)?;
        let addresses = *self.at::<12>(0)?;
        if !self.adjust_head(TAG_LEN as i32) {
            return None;
        }
        *self.at_mut::<12>(0)? = addresses;
        Some(tag)
    }

    #[inline(always)]
    fn push_tag(&mut self, tag: Tag) -> bool {
        if !self.adjust_head(-(TAG_LEN as i32)) {
            return false;
        }
        let Some(addresses) = self.at::<12>(TAG_LEN).copied() else {
            return false;
        };
        let Some(header) = self.at_mut::<16>(0) else {
            return false;
        };
        let ([a, b], [c, d]) = (tag.protocol.0, tag.control.0);
        let [front @ .., e, f, g, h] = header;
        *front = addresses;
        (*e, *f, *g, *h) = (a, b, c, d);
        true
    }

    #[inline(always)]
    fn send_on(&mut self, ifindex: u32) -> Exit {
        let ingress = self.ingress();
        if ifindex == ingress && count::may_transmit(ingress) {
            return Exit::with(Verdict::Tx, Action::Transmit);
        }
        // SAFETY: a device map, as the helper wants; without an entry for the
        // interface it returns the flags, which say drop.
        let action = unsafe {
            bpf_redirect_map(
                (&raw const DEVICES).cast_mut().cast(),
                ifindex as u64,
                XDP_DROP as u64,
            )
        } as u32;
        if action == XDP_REDIRECT {
            Exit::with(Verdict::Redirect, Action::Redirect)
        } else {
            Exit::of(Verdict::NoEgress)
        }
    }
}

//! The one place with raw packet pointers.

use aya_ebpf::{
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use ocs_lb_common::wire::Frame;

/// The packet of an XDP program.
pub struct XdpFrame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    /// The packet of this run.
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Its context.
    #[inline(always)]
    pub fn ctx(&self) -> &'a XdpContext {
        self.ctx
    }

    /// Cuts or grows the packet to `len` bytes; whether the kernel did. Every
    /// reference into the packet is gone by then, as this borrows it whole.
    #[inline(always)]
    pub fn resize(&mut self, len: usize) -> bool {
        let delta = self.missing(len);
        // SAFETY: the context is that of this run.
        unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, delta) == 0 }
    }

    /// The same at the front, where every driver leaves room: behind a small
    /// packet, veth has none. What the packet held is no longer in its place.
    #[inline(always)]
    pub fn renew(&mut self, len: usize) -> bool {
        let delta = self.missing(len);
        // SAFETY: as above.
        unsafe { bpf_xdp_adjust_head(self.ctx.ctx, -delta) == 0 }
    }

    /// Bytes by which the packet is shorter than `len`.
    #[inline(always)]
    fn missing(&self, len: usize) -> i32 {
        let now = self.len();
        // SAFETY: a reference is readable; volatile, as the compiler would
        // subtract halves of pointers, which the verifier refuses.
        let now = unsafe { core::ptr::read_volatile(&raw const now) };
        (len as i64 - now as i64) as i32
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let start = self.ctx.data() + offset;
        if start + N > self.ctx.data_end() {
            return None;
        }
        // SAFETY: the bytes lie between data and data_end, as just checked.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let start = self.ctx.data() + offset;
        if start + N > self.ctx.data_end() {
            return None;
        }
        // SAFETY: as above; `self` is borrowed mutably for as long.
        Some(unsafe { &mut *(start as *mut [u8; N]) })
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
    }
}

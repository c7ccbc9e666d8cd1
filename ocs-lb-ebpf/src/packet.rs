//! What a program is given: the one place with raw packet pointers.
//!
//! XDP gives the bytes that came off the link, the traffic classifier a socket
//! buffer, which may hold many segments and a checksum that a device is still
//! to complete. Everything above this module is written once for both.

mod ethernet;
mod skb;
mod xdp;

use aya_ebpf::EbpfContext;
use ocs_lb_common::{
    abi::Tag,
    parse::Packet,
    verdict::{Kind, Verdict},
    wire::Frame,
};

pub use skb::SkbFrame;
pub use xdp::XdpFrame;

use crate::{forward::Exit, maps::Family};

/// The packet of a program's run.
///
/// Whatever changes its length or its tags moves its bytes: every reference
/// into it is gone by then, as these methods borrow it whole.
pub trait Medium: Frame {
    /// What the kernel calls the program with.
    type Context;

    /// The packet of this run.
    fn of(context: *mut Self::Context) -> Self;

    /// The context, for helpers.
    fn context(&self) -> *mut Self::Context;

    /// Index of the interface that it came in by.
    fn ingress(&self) -> u32;

    /// Cuts or grows the packet at its end to `len` bytes; whether the kernel
    /// did.
    fn resize(&mut self, len: usize) -> bool;

    /// Makes a packet of `len` bytes in its place, of which nothing is written.
    fn renew(&mut self, len: usize) -> bool;

    /// Makes room of `len` bytes behind the MAC addresses and the EtherType,
    /// which stay in front. A checksum that a device is to complete is where it
    /// was, `len` bytes further on.
    fn make_room(&mut self, len: usize) -> bool;

    /// Takes `len` bytes of options behind an IPv4 header of 20 bytes away, so
    /// that TCP follows it.
    fn cut_options(&mut self, len: usize) -> bool;

    /// Whether a device is still to complete TCP's checksum, which then holds
    /// the sum of the pseudo header alone. It is worthless after the question.
    fn is_partial(&mut self, tcp_offset: usize) -> bool;

    /// Length of the longest IP packet that leaves for this one: it may hold
    /// many segments that are sent each by itself.
    fn sent_len<A>(&self, packet: &Packet<A>) -> usize;

    /// Whether there is a VLAN tag.
    fn has_tag(&self) -> bool;

    /// Takes the outer VLAN tag off; `None` where there is none.
    fn pop_tag(&mut self) -> Option<Tag>;

    /// Puts a VLAN tag around the frame; whether there was room.
    fn push_tag(&mut self, tag: Tag) -> bool;

    /// Sends the packet out of an interface: what is counted, and what the
    /// kernel is told.
    fn send_on(&mut self, ifindex: u32) -> Exit;
}

/// `N` bytes from `offset`, where they lie between the two ends of what can be
/// looked at: the comparison that the verifier wants before every access.
#[inline(always)]
fn within<const N: usize>(data: usize, end: usize, offset: usize) -> Option<*mut [u8; N]> {
    let start = data + offset;
    (start + N <= end).then_some(start as *mut [u8; N])
}

/// A medium whose programs have the slow way of a family: global functions of
/// the verifier's take the medium's own context. See [`crate::slow`].
pub trait Way<A: Family>: Medium {
    /// [`crate::plain`].
    fn plain(&mut self) -> u32;
    /// The whole slow way of a packet.
    fn slow(&self) -> Exit;
    /// The way of a packet that is not TCP, to an address of ours.
    fn icmp(&self) -> Exit;
    /// Index of the next hop towards `to`, for answers from `from`; see
    /// [`crate::neighbor::next_hop_towards`].
    fn route(&self, from: A, to: A) -> Result<u16, Verdict>;
    /// Reads the packet's TCP options into this CPU's room.
    fn read_options(&self);
    /// [`crate::vlan::untag`].
    fn untag(&self) -> bool;
    /// [`crate::vlan::restore`].
    fn retag(&self) -> bool;
}

/// What becomes of a packet, whatever the medium.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// It goes nowhere.
    Drop = 1,
    /// The host's stack gets it.
    Pass = 2,
    /// It leaves by where it came in.
    Transmit = 3,
    /// It leaves by where it was sent on.
    Redirect = 4,
}

impl Action {
    /// Of a packet that is not sent.
    #[inline(always)]
    pub const fn of(verdict: Verdict) -> Self {
        match verdict.kind() {
            Kind::Pass => Self::Pass,
            Kind::Forward | Kind::Drop => Self::Drop,
        }
    }
}

/// The context of log lines: any that the kernel gave.
pub struct Logged(pub *mut core::ffi::c_void);

impl EbpfContext for Logged {
    fn as_ptr(&self) -> *mut core::ffi::c_void {
        self.0
    }
}

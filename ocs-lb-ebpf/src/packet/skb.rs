//! The packet of a traffic classifier, at the ingress of an interface.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{
        bpf_l4_csum_replace, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail,
        bpf_skb_pull_data, bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
};
use ocs_lb_common::{
    abi::Tag,
    address::Be16,
    checksum::{Delta, Sum},
    parse::{IP_OFFSET, Packet},
    verdict::Verdict,
    wire::{Frame, Tcp, TcpChange, TcpMut},
};

use super::{Action, Medium, ethernet, within};
use crate::forward::Exit;

/// Bytes that are pulled into the first piece: all headers that are ever read,
/// those in an ICMP error included.
const HEADERS: u32 = 192;

/// `bpf_l4_csum_replace`: the change lies in the pseudo header
/// (`include/uapi/linux/bpf.h`). A field of no size takes the change as it is.
const PSEUDO_HEADER: u64 = 1 << 4;

/// `bpf_skb_adjust_room`: behind the network header, behind the MAC's.
const BEHIND_NETWORK: u32 = 0;
const BEHIND_MAC: u32 = 1;

/// `TC_ACT_REDIRECT` (`include/uapi/linux/pkt_cls.h`).
const REDIRECT: i64 = 7;

/// A socket buffer, its data from the Ethernet header on. The outer VLAN tag
/// lies beside the data, not in it.
pub struct SkbFrame {
    context: *mut __sk_buff,
}

impl SkbFrame {
    /// Makes the headers readable in place; what fails now is too short later.
    #[inline(always)]
    pub fn pull(&mut self) {
        // SAFETY: the context is that of this run.
        let len = unsafe { (*self.context).len };
        let wanted = if len < HEADERS { len } else { HEADERS };
        if self.data() + wanted as usize > self.data_end() {
            // SAFETY: as above.
            let _ = unsafe { bpf_skb_pull_data(self.context, wanted) };
        }
    }

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

    /// The tag that lies beside the data.
    #[inline(always)]
    fn beside(&self) -> Option<Tag> {
        // SAFETY: the context is that of this run.
        let context = unsafe { &*self.context };
        (context.vlan_present != 0).then_some(Tag {
            // The kernel has this one in network order.
            protocol: Be16((context.vlan_proto as u16).to_ne_bytes()),
            control: Be16((context.vlan_tci as u16).to_be_bytes()),
        })
    }

    /// Tells the kernel of a change of TCP's checksum.
    #[inline(always)]
    fn checksum(&mut self, tcp_offset: usize, by: Delta, flags: u64) -> Option<()> {
        // The kernel sums words as they lie in memory.
        let by = by.0.to_be() as u64;
        let at = (tcp_offset + Tcp::CHECKSUM) as u32;
        // SAFETY: the context is that of this run.
        let result = unsafe { bpf_l4_csum_replace(self.context, at, 0, by, flags) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn adjust_room(&mut self, by: i32, mode: u32) -> bool {
        // SAFETY: the context is that of this run.
        let result = unsafe { bpf_skb_adjust_room(self.context, by, mode, 0) };
        if result != 0 {
            return false;
        }
        self.pull();
        true
    }
}

impl Frame for SkbFrame {
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
        unsafe { (*self.context).len as usize }
    }

    #[inline(always)]
    fn tcp_changed(&mut self, tcp_offset: usize, change: TcpChange) -> Option<()> {
        self.checksum(tcp_offset, change.addresses, PSEUDO_HEADER)?;
        self.checksum(tcp_offset, change.all.without(change.addresses), 0)
    }

    #[inline(always)]
    fn tcp_written(&mut self, tcp_offset: usize, pseudo: Sum, whole: Sum) -> Option<()> {
        let checksum = if self.is_partial(tcp_offset) {
            pseudo.fold()
        } else {
            whole.checksum()
        };
        TcpMut(self.at_mut(tcp_offset)?).set_checksum(checksum);
        Some(())
    }
}

impl Medium for SkbFrame {
    type Context = __sk_buff;

    #[inline(always)]
    fn of(context: *mut __sk_buff) -> Self {
        Self { context }
    }

    #[inline(always)]
    fn context(&self) -> *mut __sk_buff {
        self.context
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: the context is that of this run.
        unsafe { (*self.context).ifindex }
    }

    /// Many segments become one.
    #[inline(always)]
    fn resize(&mut self, len: usize) -> bool {
        // SAFETY: the context is that of this run.
        let result = unsafe { bpf_skb_change_tail(self.context, len as u32, 0) };
        if result != 0 {
            return false;
        }
        self.pull();
        true
    }

    #[inline(always)]
    fn renew(&mut self, len: usize) -> bool {
        self.resize(len)
    }

    #[inline(always)]
    fn make_room(&mut self, len: usize) -> bool {
        self.adjust_room(len as i32, BEHIND_MAC)
    }

    #[inline(always)]
    fn cut_options(&mut self, len: usize) -> bool {
        len == 0 || self.adjust_room(-(len as i32), BEHIND_NETWORK)
    }

    /// The kernel leaves such a checksum alone when something else than the
    /// pseudo header changes (`net/core/utils.c`,
    /// `inet_proto_csum_replace_by_diff`).
    #[inline(always)]
    fn is_partial(&mut self, tcp_offset: usize) -> bool {
        let read = |frame: &Self| {
            frame
                .at::<{ Tcp::LEN }>(tcp_offset)
                .map(|tcp| Tcp(tcp).checksum())
        };
        let Some(bytes) = self.at_mut::<{ Tcp::LEN }>(tcp_offset) else {
            return false;
        };
        TcpMut(bytes).set_checksum(PROBE);
        if self.checksum(tcp_offset, Delta(1), 0).is_none() {
            return false;
        }
        read(self) == Some(PROBE)
    }

    #[inline(always)]
    fn sent_len<A>(&self, packet: &Packet<A>) -> usize {
        // SAFETY: the context is that of this run.
        let segment = unsafe { (*self.context).gso_size } as usize;
        if segment == 0 {
            packet.ip_len as usize
        } else {
            packet.tcp_offset + packet.tcp_header_len - IP_OFFSET + segment
        }
    }

    #[inline(always)]
    fn has_tag(&self) -> bool {
        self.beside().is_some() || ethernet::has_tag(self)
    }

    #[inline(always)]
    fn pop_tag(&mut self) -> Option<Tag> {
        let tag = match self.beside() {
            Some(tag) => tag,
            None => ethernet::tag(self)?,
        };
        // SAFETY: the context is that of this run.
        let popped = unsafe { bpf_skb_vlan_pop(self.context) } == 0;
        popped.then_some(tag)
    }

    #[inline(always)]
    fn push_tag(&mut self, tag: Tag) -> bool {
        let protocol = u16::from_ne_bytes(tag.protocol.0);
        // SAFETY: the context is that of this run.
        unsafe { bpf_skb_vlan_push(self.context, protocol, tag.control.get()) == 0 }
    }

    #[inline(always)]
    fn send_on(&mut self, ifindex: u32) -> Exit {
        // SAFETY: the helper takes no pointer.
        if unsafe { bpf_redirect(ifindex, 0) } != REDIRECT {
            return Exit::of(Verdict::NoEgress);
        }
        let verdict = if ifindex == self.ingress() {
            Verdict::Tx
        } else {
            Verdict::Redirect
        };
        Exit::with(verdict, Action::Redirect)
    }
}

/// What a checksum is set to when the kernel is asked whether it leaves it alone.
const PROBE: u16 = 0x5a5a;

//! Views on packet bytes: offsets are named once, byte order stays inside.
//!
//! A view wraps an array that the frame has proved to be there, so a getter
//! cannot fail. No policy lives here.

mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod tcp;
mod tcp_options;

use crate::checksum::{Delta, Sum};

pub use ethernet::{EtherType, Ethernet, EthernetMut, MacAddress};
pub use icmp::{Icmp, IcmpMut, IcmpType, TcpStart};
pub use ipv4::{Ipv4, Ipv4Mut};
pub use ipv6::Ipv6;
pub use tcp::{Flags, Tcp, TcpMut};
pub use tcp_options::{SynOptions, strip_timestamp, syn_options, timestamp_value};

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IpProto(pub u8);

impl IpProto {
    /// Internet Control Message Protocol.
    pub const ICMP: Self = Self(1);
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
}

/// What a change of a packet changes in TCP's checksum.
///
/// Apart, because a checksum that a device is to complete holds the sum of the
/// pseudo header alone (`include/linux/skbuff.h`, `CHECKSUM_PARTIAL`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpChange {
    /// By everything.
    pub all: Delta,
    /// By what lies in the pseudo header: the addresses.
    pub addresses: Delta,
}

/// The bytes of one frame, with bounds proved on access.
///
/// In the kernel this is the packet between `data` and `data_end`; on the
/// host, a slice.
pub trait Frame {
    /// `N` bytes from `offset`, or `None` where the frame is shorter.
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// The same, to be written.
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]>;

    /// Bytes of the frame that can be looked at.
    fn len(&self) -> usize;

    /// Bytes of the frame: more than [`Self::len`] where it lies in pieces.
    #[inline(always)]
    fn whole_len(&self) -> usize {
        self.len()
    }

    /// Corrects TCP's checksum after a change. `None` where the frame is too
    /// short for a header at `tcp_offset`.
    #[inline(always)]
    fn tcp_changed(&mut self, tcp_offset: usize, change: TcpChange) -> Option<()> {
        TcpMut(self.at_mut(tcp_offset)?).adjust_checksum(change.all);
        Some(())
    }

    /// Sets TCP's checksum in a packet that was written anew: `whole` where it
    /// is to be sent as it is, `pseudo` where a device adds the rest. `None` as
    /// above.
    #[inline(always)]
    fn tcp_written(&mut self, tcp_offset: usize, pseudo: Sum, whole: Sum) -> Option<()> {
        let _ = pseudo;
        TcpMut(self.at_mut(tcp_offset)?).set_checksum(whole.checksum());
        Some(())
    }

    /// Whether there is no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A frame in a slice, for the host.
#[derive(Debug)]
pub struct SliceFrame<'a>(pub &'a mut [u8]);

impl Frame for SliceFrame<'_> {
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.0.get(offset..)?.first_chunk()
    }

    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.0.get_mut(offset..)?.first_chunk_mut()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

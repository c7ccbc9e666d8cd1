//! Next hops: a flow stores an index, so a gateway's new MAC is one write.

use crate::address::Be16;
use crate::wire::MacAddress;

/// Slots below this belong to the controller (backends and gateways it
/// knows); from here on the datapath takes them for clients as they appear.
pub const FIRST_LEARNED: u32 = 4096;

/// Where frames for one neighbour go.
///
/// Every MAC lies within one aligned 8-byte word, and the kernel copies values
/// word by word, so an address is never read half old and half new.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NextHop {
    /// The neighbour's address.
    pub destination: MacAddress,
    /// 1: usable.
    pub valid: u16,
    /// Our address on that link.
    pub source: MacAddress,
    /// Length of the longest IP packet that the way takes, in bytes; 0 is not
    /// known.
    pub mtu: u16,
    /// Interface to send on.
    pub ifindex: u32,
    /// Changes of this slot so far.
    pub generation: u32,
    /// VLAN tags to send with.
    pub tags: Tags,
}

/// A VLAN tag (IEEE 802.1Q 9.3), as it lies in a frame; all zero is none.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tag {
    /// Its EtherType: that of customers (0x8100) or of providers (0x88a8).
    pub protocol: Be16,
    /// Priority, drop eligibility and the VLAN's id.
    pub control: Be16,
}

/// The tags of a frame, the outer first.
pub type Tags = [Tag; 2];

impl Tag {
    /// The part of [`Self::control`] that is the VLAN's id.
    pub const ID: u16 = 0x0fff;

    /// Whether there is one.
    #[inline(always)]
    pub const fn is_some(&self) -> bool {
        self.protocol.get() != 0
    }

    /// Whether both name one VLAN, whatever their priorities.
    #[inline(always)]
    pub const fn same_vlan(&self, other: &Self) -> bool {
        self.protocol.get() == other.protocol.get()
            && (self.control.get() ^ other.control.get()) & Self::ID == 0
    }
}

/// How frames leave by one of the host's interfaces, by its index.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkInfo {
    /// Index of the interface that sends: where the programs look at the frames
    /// of a VLAN's parent, the parent.
    pub send_on: u32,
    /// Length of the longest IP packet it takes, in bytes; 0 is not known.
    pub mtu: u16,
    /// Zero.
    pub pad: u16,
    /// VLAN tags to send with.
    pub tags: Tags,
}

/// A neighbour by name: the interface and its IP address.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NextHopKey<A> {
    /// Interface index.
    pub ifindex: u32,
    /// The neighbour's IP address.
    pub address: A,
}

/// A sender by where its frames come from, for `auto_last_hop`.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LastHopKey {
    /// The VLAN tags they have.
    pub tags: Tags,
    /// The interface they come in by.
    pub ifindex: u32,
    /// Their source address.
    pub sender: MacAddress,
    /// Zero.
    pub pad: [u16; 3],
}

const _: () = assert!(size_of::<LastHopKey>() == 24);
const _: () = assert!(size_of::<NextHop>() == 32);
const _: () = assert!(size_of::<LinkInfo>() == 16);

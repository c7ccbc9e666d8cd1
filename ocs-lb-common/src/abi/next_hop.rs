//! Next hops: a flow stores an index, so a gateway's new MAC is one write.

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
    /// Zero.
    pub pad: u16,
    /// Interface to send on.
    pub ifindex: u32,
    /// Changes of this slot so far.
    pub generation: u32,
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

const _: () = assert!(size_of::<NextHop>() == 24);

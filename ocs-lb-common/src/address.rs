//! Addresses and ports in network byte order; the family as a type parameter.

use core::fmt::Debug;

use crate::checksum::Sum;

/// An IP address of one family, as its bytes lie on the wire.
///
/// The datapath is generic over this trait, so IPv4 and IPv6 share one body
/// and differ in their maps only.
pub trait Address: Copy + Eq + Debug + Default + 'static {
    /// Adds the address to an Internet checksum.
    fn add_to(&self, sum: Sum) -> Sum;

    /// Length of the address in bytes.
    const LEN: usize;
}

/// An IPv4 address in network byte order.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct V4(pub [u8; 4]);

/// An IPv6 address in network byte order.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct V6(pub [u8; 16]);

impl Address for V4 {
    #[inline(always)]
    fn add_to(&self, sum: Sum) -> Sum {
        sum.add_u32(u32::from_be_bytes(self.0))
    }

    const LEN: usize = 4;
}

impl Address for V6 {
    #[inline(always)]
    fn add_to(&self, sum: Sum) -> Sum {
        let a = &self.0;
        sum.add_u32(u32::from_be_bytes([a[0], a[1], a[2], a[3]]))
            .add_u32(u32::from_be_bytes([a[4], a[5], a[6], a[7]]))
            .add_u32(u32::from_be_bytes([a[8], a[9], a[10], a[11]]))
            .add_u32(u32::from_be_bytes([a[12], a[13], a[14], a[15]]))
    }

    const LEN: usize = 16;
}

/// A 16-bit number in network byte order, such as a port.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Be16(pub [u8; 2]);

impl Be16 {
    /// From host order.
    #[inline(always)]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be_bytes())
    }

    /// In host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be_bytes(self.0)
    }
}

//! SNAT ports in use towards one destination.

use crate::address::Be16;

/// Words of the leaf level: 64 ports each.
pub const LEAVES: usize = 1024;

/// One SNAT address towards one backend address and port: the scope in which
/// a SNAT port is unique.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SnatKey<A> {
    /// SNAT address.
    pub snat: A,
    /// Backend address.
    pub backend: A,
    /// Backend port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
}

/// A three-level bitmap of 65,536 ports; a set bit is a port in use.
///
/// All zero is "all free", so a slot of the slab needs no initialisation.
/// `full` and `top` are hints that let a search skip what has nothing free.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMap {
    /// One bit a port.
    pub leaves: [u64; LEAVES],
    /// One bit a leaf: all of its ports are in use.
    pub full: [u64; LEAVES / 64],
    /// One bit a word of `full`.
    pub top: u64,
    /// Where the next search starts, a port in host order.
    pub cursor: u32,
    /// Ports in use.
    pub used: u32,
}

impl PortMap {
    /// Nothing in use.
    pub const EMPTY: Self = Self {
        leaves: [0; LEAVES],
        full: [0; LEAVES / 64],
        top: 0,
        cursor: 0,
        used: 0,
    };
}

const _: () = assert!(size_of::<PortMap>() == 8 * (1024 + 16 + 1) + 8);

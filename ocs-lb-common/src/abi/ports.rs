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

/// Two three-level bitmaps of 65,536 ports: those in use, and of these the
/// ones whose flow is over and rests.
///
/// All zero is "all free", so a slot of the slab needs no initialisation. The
/// upper levels are hints that let a search skip what it need not look at.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMap {
    /// One bit a port: in use.
    pub leaves: [u64; LEAVES],
    /// One bit a leaf: all of its ports are in use.
    pub full: [u64; LEAVES / 64],
    /// One bit a word of `full`: all of its bits are set.
    pub top: u64,
    /// One bit a port: it rests.
    pub rest: [u64; LEAVES],
    /// One bit a word of `rest`: some port of it rests.
    pub some: [u64; LEAVES / 64],
    /// One bit a word of `some`: some bit of it is set.
    pub any: u64,
    /// Where the next search for a free port starts, in host order.
    pub cursor: u32,
    /// Where the next search for a resting port starts.
    pub rest_cursor: u32,
    /// Ports in use, resting ones included.
    pub used: u32,
    /// Ports that rest.
    pub resting: u32,
    /// New flows that found neither a free nor a resting port.
    pub failures: u64,
}

impl PortMap {
    /// Nothing in use.
    pub const EMPTY: Self = Self {
        leaves: [0; LEAVES],
        full: [0; LEAVES / 64],
        top: 0,
        rest: [0; LEAVES],
        some: [0; LEAVES / 64],
        any: 0,
        cursor: 0,
        rest_cursor: 0,
        used: 0,
        resting: 0,
        failures: 0,
    };
}

const _: () = assert!(size_of::<PortMap>() == 2 * 8 * (1024 + 16 + 1) + 24);

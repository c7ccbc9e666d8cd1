//! Source stickiness.

/// A client of a cluster. 8 bytes for IPv4.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StickyKey<A> {
    /// The client's address.
    pub address: A,
    /// Id of the cluster.
    pub cluster: u16,
    /// Zero.
    pub pad: u16,
}

/// Its backend.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StickyValue {
    /// Last use: nanoseconds of `CLOCK_MONOTONIC`. Not ticks: an entry may lie
    /// untouched for longer than those can tell.
    pub last_used_ns: u64,
    /// Slot of the backend.
    pub backend: u16,
    /// Zero.
    pub pad: u16,
    /// Zero.
    pub pad2: u32,
}

const _: () = assert!(size_of::<StickyValue>() == 16);

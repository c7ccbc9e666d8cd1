//! What the datapath tells the controller.

/// One event on the ring buffer.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Event {
    /// One of the constants below.
    pub kind: u32,
    /// Interface index.
    pub ifindex: u32,
    /// IP address in network byte order; IPv4 in the first four bytes.
    pub address: [u8; 16],
}

impl Event {
    /// A packet was dropped because this neighbour's MAC is not known.
    pub const NEIGHBOR_NEEDED: u32 = 1;
}

const _: () = assert!(size_of::<Event>() == 24);

/// What the controller tells every program.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Resets that one CPU may send in a second.
    pub resets_per_cpu: u32,
    /// Slots of the SNAT slab.
    pub port_maps: u32,
}

//! Backends: where flows go and which source they get.

use crate::address::{Address, Be16};
#[cfg(test)]
use crate::address::{V4, V6};

/// SNAT addresses of one backend at most.
pub const SNAT_ADDRESSES: usize = 8;

/// One backend of one cluster. Written by the controller.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backend<A> {
    /// Its address.
    pub address: A,
    /// Target port for every listen port; 0: the service's.
    pub port: Be16,
    /// Index of its next hop; 0 is none.
    pub next_hop: u16,
    /// First SNAT port, host order.
    pub port_low: u16,
    /// Last SNAT port, included, host order.
    pub port_high: u16,
    /// Number of SNAT addresses in use.
    pub snat_len: u16,
    /// Zero.
    pub pad: u16,
    /// SNAT addresses.
    pub snat: [A; SNAT_ADDRESSES],
}

impl<A: Address> Backend<A> {
    /// The SNAT address that a client with this hash keeps (design 3.2).
    #[inline(always)]
    pub fn snat_for(&self, client_hash: u32) -> Option<A> {
        let len = self.snat_len as u32;
        if len == 0 {
            return None;
        }
        let at = (client_hash % len) as usize;
        self.snat.get(at & (SNAT_ADDRESSES - 1)).copied()
    }
}

#[cfg(test)]
const _: () = {
    assert!(size_of::<Backend<V4>>() == 48);
    assert!(size_of::<Backend<V6>>() == 16 * 9 + 12);
};

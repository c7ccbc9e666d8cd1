//! What is served: addresses, and ports on them.

use crate::address::{Address, Be16};
use crate::wire::IpProto;

/// A served address and port.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ServiceKey<A> {
    /// The VIP.
    pub address: A,
    /// The port clients dial.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
}

impl<A: Address> ServiceKey<A> {
    /// A TCP service.
    #[inline(always)]
    pub fn tcp(address: A, port: Be16) -> Self {
        Self {
            address,
            port,
            proto: IpProto::TCP.0,
            pad: 0,
        }
    }
}

/// Who serves it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Service {
    /// Id of the cluster.
    pub cluster: u16,
    /// Port on the backend.
    pub target_port: Be16,
    /// Id of the list that says which sources are let in, or with
    /// [`Self::BY_SOURCE`] which cluster serves them; 0 is none: everyone.
    pub access: u16,
    /// Bits of the constants below.
    pub flags: u16,
}

impl Service {
    /// Its clients have no sticky entry.
    pub const UNSTICKY: u16 = 1;
    /// The cluster is found by the source's longest prefix.
    pub const BY_SOURCE: u16 = 2;

    /// Of a cluster, and for everyone.
    #[inline(always)]
    pub const fn of(cluster: u16, target_port: Be16) -> Self {
        Self {
            cluster,
            target_port,
            access: 0,
            flags: 0,
        }
    }
}

/// What one of our addresses is for.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressFlags {
    /// Bits of the constants below.
    pub bits: u16,
    /// An [`Unserved`](super::Unserved) for the ports no cluster serves.
    pub unserved: u8,
    /// Zero.
    pub pad: u8,
}

impl AddressFlags {
    /// Clients dial it.
    pub const VIP: u16 = 1;
    /// Backends see it as the source.
    pub const SNAT: u16 = 2;
    /// It is an address of this host.
    pub const HOST: u16 = 4;
    /// Fragments to it are for the host's stack, where it is not [`Self::HOST`].
    pub const FRAGMENTS: u16 = 8;

    /// Whether any of `bits` is set.
    #[inline(always)]
    pub const fn any(self, bits: u16) -> bool {
        self.bits & bits != 0
    }
}

const _: () = assert!(size_of::<Service>() == 8);
const _: () = assert!(size_of::<AddressFlags>() == 4);

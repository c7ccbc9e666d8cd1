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
    /// 0, or what the list of a service with [`Service::BY_SOURCE`] says of a
    /// source: [`choice`] of the cluster that serves it.
    pub choice: u8,
}

/// Stands for every port of a VIP that is not served by its number; on the
/// wire it is nobody's.
pub const ANY_PORT: Be16 = Be16::new(0);

/// What tells a cluster's service from those of other clusters on the same VIP
/// and port, where the source chooses; `None`: the last id has none.
pub const fn choice(cluster: u16) -> Option<u8> {
    if cluster < u8::MAX as u16 {
        Some(cluster as u8 + 1)
    } else {
        None
    }
}

impl<A: Address> ServiceKey<A> {
    /// A TCP service.
    #[inline(always)]
    pub fn tcp(address: A, port: Be16) -> Self {
        Self {
            address,
            port,
            proto: IpProto::TCP.0,
            choice: 0,
        }
    }

    /// The same service, for the sources that a list gave this value.
    #[inline(always)]
    pub fn chosen(self, value: u32) -> Self {
        Self {
            choice: value as u8,
            ..self
        }
    }
}

/// Who serves it. Of a service with [`Self::BY_SOURCE`] only `access` counts;
/// the others of the same VIP and port are those it chooses from.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Service {
    /// Id of the cluster.
    pub cluster: u16,
    /// Port on the backend; [`ANY_PORT`] is the one that the client dials.
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

    /// Whether any of `flags` is set.
    #[inline(always)]
    pub const fn is(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// The port on the backend for a client that dials `port`.
    #[inline(always)]
    pub fn target(&self, port: Be16) -> Be16 {
        if self.target_port == ANY_PORT {
            port
        } else {
            self.target_port
        }
    }

    /// As a number, for the way out of a global function; 0 is none. The bit of
    /// `flags` that says so is nothing else's.
    #[inline(always)]
    pub const fn code(self) -> u64 {
        self.cluster as u64
            | (u16::from_ne_bytes(self.target_port.0) as u64) << 16
            | (self.access as u64) << 32
            | ((self.flags | Self::IS_THERE) as u64) << 48
    }

    /// From what [`Service::code`] made of it.
    #[inline(always)]
    pub const fn from_code(code: u64) -> Option<Self> {
        if code == 0 {
            return None;
        }
        Some(Self {
            cluster: code as u16,
            target_port: Be16(((code >> 16) as u16).to_ne_bytes()),
            access: (code >> 32) as u16,
            flags: (code >> 48) as u16 & !Self::IS_THERE,
        })
    }

    const IS_THERE: u16 = 1 << 15;

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
    /// A cluster serves every port that is not served by its number.
    pub const ANY: u16 = 16;

    /// Whether any of `bits` is set.
    #[inline(always)]
    pub const fn any(self, bits: u16) -> bool {
        self.bits & bits != 0
    }
}

const _: () = assert!(size_of::<Service>() == 8);
const _: () = assert!(size_of::<AddressFlags>() == 4);

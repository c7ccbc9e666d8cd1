//! Whom a cluster serves and lets in, and how fast.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Addresses that begin alike; no bit is set beyond the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The first of them.
    pub address: IpAddr,
    /// Bits that are alike.
    pub len: u8,
}

impl Prefix {
    /// Every IPv4 address.
    pub const EVERYONE: Self = Self {
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        len: 0,
    };

    /// The prefix of that length which covers `address`.
    pub fn covering(address: IpAddr, len: u8) -> Self {
        let address = match address {
            IpAddr::V4(ip) => {
                let keep = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                Ipv4Addr::from_bits(ip.to_bits() & keep).into()
            }
            IpAddr::V6(ip) => {
                let keep = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & keep).into()
            }
        };
        Self { address, len }
    }

    /// Whether it covers an address.
    pub fn covers(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Self::covering(address, self.len) == *self
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// Sources of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Those that it serves, of all that dial its VIPs and ports; empty is
    /// everyone whom no other cluster serves.
    pub from: Vec<Prefix>,
    /// Those that it lets in; empty is all.
    pub allow: Vec<Prefix>,
    /// Those that it keeps out, whatever else says.
    pub deny: Vec<Prefix>,
    /// What stands in for `allow` on some ports: see
    /// [`Port::access`](super::Port::access).
    pub ports: Vec<Vec<Prefix>>,
}

impl Access {
    /// The `allow` that holds for a port.
    pub fn allow(&self, access: u16) -> &[Prefix] {
        let own = usize::from(access).checked_sub(1);
        match own {
            None => &self.allow,
            Some(own) => self.ports.get(own).map_or(&[], Vec::as_slice),
        }
    }
}

/// New connections in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewConnections {
    /// Of one source; 0 is unlimited.
    pub per_source: u32,
    /// Of all; 0 is unlimited.
    pub total: u32,
    /// How far ahead of that pace they may come.
    pub burst: Duration,
}

impl Default for NewConnections {
    fn default() -> Self {
        Self {
            per_source: 0,
            total: 0,
            burst: Duration::from_millis(50),
        }
    }
}

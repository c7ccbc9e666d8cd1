//! Flows: two entries each, one for either direction.

use crate::address::{Address, Be16};
#[cfg(test)]
use crate::address::{V4, V6};
use crate::checksum::Delta;
use crate::ticks::Ticks;
use crate::track::StateWord;
use crate::wire::IpProto;

/// Flag of [`Flow::flags`]: the entry translates backend to client.
pub const REVERSE: u16 = 1;

/// Flag of [`Flow::flags`]: the client's SYNs go without their timestamp, as the
/// server would not take it.
pub const STRIPPED: u16 = 2;

/// What a packet of a flow says of itself: its own five-tuple.
///
/// Forward entries are keyed by client to VIP, reverse entries by backend to
/// SNAT address. 16 bytes for IPv4, 40 for IPv6.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlowKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Zero; the kernel compares it.
    pub pad: u8,
    /// Zero, as well.
    pub pad2: u16,
}

impl<A: Address> FlowKey<A> {
    /// A TCP tuple.
    #[inline(always)]
    pub fn tcp(source: A, source_port: Be16, destination: A, destination_port: Be16) -> Self {
        Self {
            source,
            destination,
            source_port,
            destination_port,
            proto: IpProto::TCP.0,
            pad: 0,
            pad2: 0,
        }
    }

    /// The tuple of an answer.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            proto: self.proto,
            pad: self.pad,
            pad2: self.pad2,
        }
    }
}

/// One direction of a flow: all that a packet needs.
///
/// 64 bytes for IPv4: with the element header of 48 and the key of 16 the
/// value lies on one cache line. The address fields are written once, at
/// birth; a new tuple is a new element.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow<A> {
    /// Source address after translation.
    pub source: A,
    /// Destination address after translation.
    pub destination: A,
    /// Source port after translation.
    pub source_port: Be16,
    /// Destination port after translation.
    pub destination_port: Be16,
    /// Change of the IPv4 header checksum: addresses and one hop.
    pub l3_delta: Delta,
    /// Change of the TCP checksum: addresses (pseudo header) and ports.
    pub l4_delta: Delta,
    /// Index into the next hops.
    pub next_hop: u16,
    /// [`REVERSE`], [`STRIPPED`] or nothing.
    pub flags: u16,
    /// Id of the cluster.
    pub cluster: u16,
    /// Slot of the backend in the cluster.
    pub backend: u16,
    /// Last packet of this direction; birth before the first one.
    pub last_seen: Ticks,
    /// State; the forward entry's is the flow's, the reverse entry's says only
    /// whether the flow is dead.
    pub state: StateWord,
    /// Highest sequence number sent in this direction, plus one.
    pub seq_end: u32,
    /// Last acknowledgment number sent in this direction.
    pub last_ack: u32,
    /// Last receive window announced in this direction, not scaled.
    pub window: u16,
    /// Shift of that window (RFC 7323).
    pub scale: u8,
    /// Zero.
    pub pad: u8,
    /// Last timestamp sent in this direction (RFC 7323), 0 without.
    pub timestamp: u32,
    /// Bytes of IP packets, headers included.
    pub bytes: u64,
    /// Packets; wraps.
    pub packets: u32,
    /// Forward: place in the ring of half-open flows plus one, 0 is none.
    /// Reverse: the flow's birth, in ticks.
    pub cold: u32,
}

impl<A: Address> Flow<A> {
    /// Key of the other direction, seen from an entry with this translation.
    #[inline(always)]
    pub fn peer_key(&self) -> FlowKey<A> {
        FlowKey::tcp(
            self.destination,
            self.destination_port,
            self.source,
            self.source_port,
        )
    }

    /// Whether this entry translates backend to client.
    #[inline(always)]
    pub fn is_reverse(&self) -> bool {
        self.flags & REVERSE != 0
    }
}

#[cfg(test)]
const _: () = {
    assert!(size_of::<FlowKey<V4>>() == 16);
    assert!(size_of::<FlowKey<V6>>() == 40);
    assert!(size_of::<Flow<V4>>() == 64);
    assert!(size_of::<Flow<V6>>() == 88);
    assert!(core::mem::offset_of!(Flow<V4>, state) == 28);
    assert!(core::mem::offset_of!(Flow<V4>, bytes) == 48);
    assert!(core::mem::offset_of!(Flow<V6>, bytes) == 72);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_peer_is_the_same() {
        let key = FlowKey::tcp(
            V4([192, 0, 2, 10]),
            Be16::new(40000),
            V4([192, 0, 2, 1]),
            Be16::new(5061),
        );
        assert_eq!(key.reversed().reversed(), key);
        let reverse = Flow {
            source: key.destination,
            destination: key.source,
            source_port: key.destination_port,
            destination_port: key.source_port,
            ..Flow::default()
        };
        assert_eq!(reverse.peer_key(), key);
    }
}

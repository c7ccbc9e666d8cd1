//! Internet Protocol version 4 (RFC 791), the fixed part of its header.

use super::IpProto;
use crate::address::V4;
use crate::checksum::Delta;

mod field {
    pub const VERSION_IHL: usize = 0;
    pub const TOS: usize = 1;
    pub const TOTAL_LENGTH: usize = 2;
    pub const FRAGMENT: usize = 6;
    pub const TTL: usize = 8;
    pub const PROTOCOL: usize = 9;
    pub const CHECKSUM: usize = 10;
    pub const SOURCE: usize = 12;
    pub const DESTINATION: usize = 16;
}

/// More-fragments flag and fragment offset, without don't-fragment.
const FRAGMENT_MASK: u16 = 0x3fff;

/// Fragment offset alone.
const OFFSET_MASK: u16 = 0x1fff;

/// Length of the fixed header in bytes.
const LEN: usize = 20;

/// A view on an IPv4 header without options.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4<'a>(pub &'a [u8; LEN]);

impl Ipv4<'_> {
    /// Length of the fixed part in bytes.
    pub const LEN: usize = LEN;

    #[inline(always)]
    const fn u16_at(&self, offset: usize) -> u16 {
        u16::from_be_bytes([self.0[offset], self.0[offset + 1]])
    }

    #[inline(always)]
    const fn address_at(&self, offset: usize) -> V4 {
        V4([
            self.0[offset],
            self.0[offset + 1],
            self.0[offset + 2],
            self.0[offset + 3],
        ])
    }

    /// Version; 4 in a valid header.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.0[field::VERSION_IHL] >> 4
    }

    /// Length of the header with options, in bytes: 0 to 60, valid from 20.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        ((self.0[field::VERSION_IHL] & 0x0f) as usize) << 2
    }

    /// Differentiated services and ECN (RFC 2474, RFC 3168).
    #[inline(always)]
    pub const fn tos(&self) -> u8 {
        self.0[field::TOS]
    }

    /// Length of header and payload in bytes.
    #[inline(always)]
    pub const fn total_len(&self) -> usize {
        self.u16_at(field::TOTAL_LENGTH) as usize
    }

    /// Whether this is a fragment, the first one included.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.u16_at(field::FRAGMENT) & FRAGMENT_MASK != 0
    }

    /// Whether the payload's first bytes are in another fragment.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        self.u16_at(field::FRAGMENT) & OFFSET_MASK != 0
    }

    /// Time to live in hops.
    #[inline(always)]
    pub const fn ttl(&self) -> u8 {
        self.0[field::TTL]
    }

    /// Protocol of the payload.
    #[inline(always)]
    pub const fn protocol(&self) -> IpProto {
        IpProto(self.0[field::PROTOCOL])
    }

    /// Header checksum, host integer.
    #[inline(always)]
    pub const fn checksum(&self) -> u16 {
        self.u16_at(field::CHECKSUM)
    }

    /// Source address.
    #[inline(always)]
    pub const fn source(&self) -> V4 {
        self.address_at(field::SOURCE)
    }

    /// Destination address.
    #[inline(always)]
    pub const fn destination(&self) -> V4 {
        self.address_at(field::DESTINATION)
    }
}

/// A view on an IPv4 header, to be written.
#[derive(Debug)]
pub struct Ipv4Mut<'a>(pub &'a mut [u8; Ipv4::LEN]);

impl Ipv4Mut<'_> {
    /// What a hop changes in the checksum: the word of TTL and protocol falls by 0x0100.
    pub const HOP: u16 = !0x0100;

    /// Sets both addresses.
    #[inline(always)]
    pub fn set_addresses(&mut self, source: V4, destination: V4) {
        self.0[field::SOURCE..field::DESTINATION].copy_from_slice(&source.0);
        self.0[field::DESTINATION..Ipv4::LEN].copy_from_slice(&destination.0);
    }

    /// Sets the time to live.
    #[inline(always)]
    pub fn set_ttl(&mut self, ttl: u8) {
        self.0[field::TTL] = ttl;
    }

    /// Takes one hop off the time to live, which must not be 0.
    #[inline(always)]
    pub fn decrement_ttl(&mut self) {
        self.0[field::TTL] = self.0[field::TTL].wrapping_sub(1);
    }

    /// Changes the header checksum.
    #[inline(always)]
    pub fn adjust_checksum(&mut self, delta: Delta) {
        let checksum = delta.apply(Ipv4(self.0).checksum());
        self.set_checksum(checksum);
    }

    /// Sets the header checksum, host integer.
    #[inline(always)]
    pub fn set_checksum(&mut self, checksum: u16) {
        let [high, low] = checksum.to_be_bytes();
        self.0[field::CHECKSUM] = high;
        self.0[field::CHECKSUM + 1] = low;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum;

    /// 192.0.2.10 to 192.0.2.1, TCP, TTL 64, don't fragment, 40 bytes.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x28, 0x12, 0x34, 0x40, 0x00, 0x40, 0x06, 0xa4, 0x90, 192, 0, 2, 10, 192,
        0, 2, 1,
    ];

    #[test]
    fn deconstruct() {
        let header = Ipv4(&HEADER);
        assert_eq!(header.version(), 4);
        assert_eq!(header.header_len(), 20);
        assert_eq!(header.total_len(), 40);
        assert!(!header.is_fragment());
        assert_eq!(header.ttl(), 64);
        assert_eq!(header.protocol(), IpProto::TCP);
        assert_eq!(header.source(), V4([192, 0, 2, 10]));
        assert_eq!(header.destination(), V4([192, 0, 2, 1]));
        assert_eq!(
            Sum::ZERO.add_bytes(&HEADER).fold(),
            0xffff,
            "checksum is valid"
        );
    }

    #[test]
    fn fragments_by_flag_and_by_offset() {
        let mut bytes = HEADER;
        bytes[6] = 0x20;
        assert!(Ipv4(&bytes).is_fragment());
        assert!(!Ipv4(&bytes).is_later_fragment());
        bytes[6..8].copy_from_slice(&[0x00, 0x01]);
        assert!(Ipv4(&bytes).is_fragment());
        assert!(Ipv4(&bytes).is_later_fragment());
    }

    #[test]
    fn a_hop_keeps_the_checksum_valid() {
        for ttl in 1..=255u8 {
            let mut bytes = HEADER;
            bytes[8] = ttl;
            bytes[10..12].fill(0);
            let checksum = Sum::ZERO.add_bytes(&bytes).checksum();
            Ipv4Mut(&mut bytes).set_checksum(checksum);
            let mut header = Ipv4Mut(&mut bytes);
            header.decrement_ttl();
            header.adjust_checksum(Delta(Ipv4Mut::HOP));
            assert_eq!(bytes[8], ttl - 1);
            assert_eq!(Sum::ZERO.add_bytes(&bytes).fold(), 0xffff, "ttl {ttl}");
        }
    }
}

//! Internet Protocol version 6 (RFC 8200 section 3), the fixed header.

use super::IpProto;
use crate::address::V6;

mod field {
    pub const VERSION: usize = 0;
    pub const PAYLOAD_LENGTH: usize = 4;
    pub const NEXT_HEADER: usize = 6;
    pub const HOP_LIMIT: usize = 7;
    pub const SOURCE: usize = 8;
    pub const DESTINATION: usize = 24;
}

/// Length of the fixed header in bytes.
const LEN: usize = 40;

/// A view on an IPv6 header.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6<'a>(pub &'a [u8; LEN]);

impl Ipv6<'_> {
    /// Length of the header in bytes.
    pub const LEN: usize = LEN;

    /// Version; 6 in a valid header.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.0[field::VERSION] >> 4
    }

    /// Length of what follows the header, in bytes.
    #[inline(always)]
    pub const fn payload_len(&self) -> usize {
        u16::from_be_bytes([
            self.0[field::PAYLOAD_LENGTH],
            self.0[field::PAYLOAD_LENGTH + 1],
        ]) as usize
    }

    /// Protocol of what follows; extension headers are not skipped.
    #[inline(always)]
    pub const fn next_header(&self) -> IpProto {
        IpProto(self.0[field::NEXT_HEADER])
    }

    /// Traffic class: the eight bits after the version.
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        self.0[field::VERSION] << 4 | self.0[field::VERSION + 1] >> 4
    }

    /// Hop limit.
    #[inline(always)]
    pub const fn hop_limit(&self) -> u8 {
        self.0[field::HOP_LIMIT]
    }

    #[inline(always)]
    fn address_at(&self, offset: usize) -> V6 {
        let mut address = V6::default();
        address.0.copy_from_slice(&self.0[offset..offset + 16]);
        address
    }

    /// Source address.
    #[inline(always)]
    pub fn source(&self) -> V6 {
        self.address_at(field::SOURCE)
    }

    /// Destination address.
    #[inline(always)]
    pub fn destination(&self) -> V6 {
        self.address_at(field::DESTINATION)
    }

    /// Sets source, destination and hop limit of a header being translated.
    /// IPv6 has no header checksum.
    #[inline(always)]
    pub fn rewrite(header: &mut [u8; LEN], source: V6, destination: V6) {
        header[field::SOURCE..field::DESTINATION].copy_from_slice(&source.0);
        header[field::DESTINATION..LEN].copy_from_slice(&destination.0);
        header[field::HOP_LIMIT] = header[field::HOP_LIMIT].wrapping_sub(1);
    }
}

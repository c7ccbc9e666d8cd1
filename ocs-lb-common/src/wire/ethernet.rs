//! Ethernet II (IEEE 802.3 clause 3).

use core::ops::Range;

/// A MAC address.
pub type MacAddress = [u8; 6];

/// An EtherType in host order (IEEE 802 numbers).
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EtherType(pub u16);

impl EtherType {
    /// Internet Protocol version 4.
    pub const IPV4: Self = Self(0x0800);
    /// Internet Protocol version 6.
    pub const IPV6: Self = Self(0x86dd);
    /// IEEE 802.1Q tag.
    pub const VLAN: Self = Self(0x8100);
    /// IEEE 802.1ad service tag.
    pub const VLAN_SERVICE: Self = Self(0x88a8);

    /// Whether a VLAN tag begins here.
    #[inline(always)]
    pub const fn is_tag(self) -> bool {
        matches!(self, Self::VLAN | Self::VLAN_SERVICE)
    }
}

mod field {
    use super::Range;

    pub const DESTINATION: Range<usize> = 0..6;
    pub const SOURCE: Range<usize> = 6..12;
    pub const ETHER_TYPE: usize = 12;
}

/// Length of the fixed header in bytes.
const LEN: usize = 14;

/// A view on an Ethernet header.
#[derive(Debug, Clone, Copy)]
pub struct Ethernet<'a>(pub &'a [u8; LEN]);

impl Ethernet<'_> {
    /// Length of the header in bytes, without tags.
    pub const LEN: usize = LEN;

    #[inline(always)]
    const fn address_at(&self, at: usize) -> MacAddress {
        [
            self.0[at],
            self.0[at + 1],
            self.0[at + 2],
            self.0[at + 3],
            self.0[at + 4],
            self.0[at + 5],
        ]
    }

    /// Where the frame goes.
    #[inline(always)]
    pub const fn destination(&self) -> MacAddress {
        self.address_at(field::DESTINATION.start)
    }

    /// Who sent it on this link.
    #[inline(always)]
    pub const fn source(&self) -> MacAddress {
        self.address_at(field::SOURCE.start)
    }

    /// What the header carries.
    #[inline(always)]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(u16::from_be_bytes([
            self.0[field::ETHER_TYPE],
            self.0[field::ETHER_TYPE + 1],
        ]))
    }
}

/// A view on an Ethernet header, to be written.
#[derive(Debug)]
pub struct EthernetMut<'a>(pub &'a mut [u8; Ethernet::LEN]);

impl EthernetMut<'_> {
    /// Sets both addresses.
    #[inline(always)]
    pub fn set_addresses(&mut self, destination: &MacAddress, source: &MacAddress) {
        // Byte by byte, all read before any is written: so the eBPF compiler
        // joins them to words, while it copies a slice in single bytes.
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (*destination, *source);
        let [bytes @ .., _, _] = &mut *self.0;
        *bytes = [a, b, c, d, e, f, g, h, i, j, k, l];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 14] = [0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00];

    #[test]
    fn deconstruct() {
        let header = Ethernet(&HEADER);
        assert_eq!(header.ether_type(), EtherType::IPV4);
        assert_eq!(header.destination(), [2, 0, 0, 0, 0, 1]);
        assert_eq!(header.source(), [2, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn construct() {
        let mut bytes = [0xa5; 14];
        bytes[12..].copy_from_slice(&[0x08, 0x00]);
        EthernetMut(&mut bytes).set_addresses(&[2, 0, 0, 0, 0, 1], &[2, 0, 0, 0, 0, 2]);
        assert_eq!(bytes, HEADER);
    }
}

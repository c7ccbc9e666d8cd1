//! Addresses and ports in network byte order; the family as a type parameter.

use core::fmt::Debug;

use crate::checksum::Sum;

/// An IP address of one family, as its bytes lie on the wire.
///
/// The datapath is generic over this trait, so IPv4 and IPv6 share one body
/// and differ in their maps only.
pub trait Address: Copy + Eq + Debug + Default + 'static {
    /// Adds the address to an Internet checksum.
    fn add_to(&self, sum: Sum) -> Sum;

    /// A hash of the address; the same in every process and on every host.
    fn hash(&self) -> u32;

    /// Whether a client can have this address: not zero, loopback, multicast
    /// or broadcast (RFC 1122 section 3.2.1.3, RFC 4291 section 2.7).
    fn is_client(&self) -> bool;

    /// Its bytes; those of an IPv4 address come first, the rest is zero.
    fn to_bytes(self) -> [u8; 16];

    /// Its first 32 bits, host order.
    fn leading(&self) -> u32;

    /// 1 where it is `other` or beyond it, else 0; without a branch.
    fn reaches(&self, other: &Self) -> u32;

    /// Length of the address in bytes.
    const LEN: usize;
}

/// The finaliser of MurmurHash3 (public domain): every input bit reaches every
/// output bit.
#[inline(always)]
const fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}

/// An IPv4 address in network byte order. Aligned, so that the eBPF target
/// copies it as a word.
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct V4(pub [u8; 4]);

/// An IPv6 address in network byte order, aligned as [`V4`] is.
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct V6(pub [u8; 16]);

impl Address for V4 {
    #[inline(always)]
    fn add_to(&self, sum: Sum) -> Sum {
        sum.add_u32(u32::from_be_bytes(self.0))
    }

    #[inline(always)]
    fn hash(&self) -> u32 {
        mix(u32::from_be_bytes(self.0))
    }

    #[inline(always)]
    fn is_client(&self) -> bool {
        let first = self.0[0];
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn to_bytes(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    #[inline(always)]
    fn leading(&self) -> u32 {
        u32::from_be_bytes(self.0)
    }

    #[inline(always)]
    fn reaches(&self, other: &Self) -> u32 {
        let difference = u64::from(self.leading()).wrapping_sub(u64::from(other.leading()));
        1 - (difference >> 63) as u32
    }

    const LEN: usize = 4;
}

impl Address for V6 {
    #[inline(always)]
    fn add_to(&self, sum: Sum) -> Sum {
        let a = &self.0;
        sum.add_u32(u32::from_be_bytes([a[0], a[1], a[2], a[3]]))
            .add_u32(u32::from_be_bytes([a[4], a[5], a[6], a[7]]))
            .add_u32(u32::from_be_bytes([a[8], a[9], a[10], a[11]]))
            .add_u32(u32::from_be_bytes([a[12], a[13], a[14], a[15]]))
    }

    #[inline(always)]
    fn hash(&self) -> u32 {
        let a = &self.0;
        let mut h = 0;
        h = mix(h ^ u32::from_be_bytes([a[0], a[1], a[2], a[3]]));
        h = mix(h ^ u32::from_be_bytes([a[4], a[5], a[6], a[7]]));
        h = mix(h ^ u32::from_be_bytes([a[8], a[9], a[10], a[11]]));
        mix(h ^ u32::from_be_bytes([a[12], a[13], a[14], a[15]]))
    }

    #[inline(always)]
    fn is_client(&self) -> bool {
        let zero_or_loopback = self.0[..15] == [0; 15] && self.0[15] < 2;
        self.0[0] != 0xff && !zero_or_loopback
    }

    #[inline(always)]
    fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    #[inline(always)]
    fn leading(&self) -> u32 {
        let a = &self.0;
        u32::from_be_bytes([a[0], a[1], a[2], a[3]])
    }

    #[inline(always)]
    fn reaches(&self, other: &Self) -> u32 {
        // The borrow of a subtraction, word by word from the last.
        let mut borrow = 0;
        for at in [12, 8, 4, 0] {
            let word = |a: &[u8; 16]| {
                u64::from(u32::from_be_bytes([a[at], a[at + 1], a[at + 2], a[at + 3]]))
            };
            borrow = word(&self.0)
                .wrapping_sub(word(&other.0))
                .wrapping_sub(borrow)
                >> 63;
        }
        1 - borrow as u32
    }

    const LEN: usize = 16;
}

/// A 16-bit number in network byte order, such as a port.
#[repr(C, align(2))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Be16(pub [u8; 2]);

impl Be16 {
    /// From host order.
    #[inline(always)]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be_bytes())
    }

    /// In host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be_bytes(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_be_a_client() {
        for (address, can) in [
            ([0, 0, 0, 0], false),
            ([127, 0, 0, 1], false),
            ([224, 0, 0, 1], false),
            ([255, 255, 255, 255], false),
            ([192, 0, 2, 1], true),
            ([223, 255, 255, 255], true),
        ] {
            assert_eq!(V4(address).is_client(), can, "{address:?}");
        }
        let mut address = V6::default();
        assert!(!address.is_client(), "unspecified");
        address.0[15] = 1;
        assert!(!address.is_client(), "loopback");
        address.0[0] = 0x20;
        assert!(address.is_client());
        address.0[0] = 0xff;
        assert!(!address.is_client(), "multicast");
    }
}

//! Internet checksum arithmetic (RFC 1071, RFC 1624). Knows no header.
//!
//! A checksum is the ones' complement of the ones' complement sum of 16-bit
//! words. Words are taken in network order and summed as host integers; RFC
//! 1071 section 2 (B) shows that any consistent byte order gives the same sum
//! in that order, so nothing here is ever swapped.
//!
//! Translation uses the incremental form, RFC 1624 equation 3:
//! `HC' = ~(~HC + ~m + m')`. A flow stores `~m + m'` of everything it changes
//! as one folded [`Delta`], so a packet costs one addition and one fold. The
//! older equation of RFC 1141 is not used: it can yield 0xffff for a header
//! whose sum is zero.

/// A running ones' complement sum, not folded.
///
/// Holds up to 2^16 words before 32 bits overflow; headers stay far below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u32);

impl Sum {
    /// The empty sum.
    pub const ZERO: Self = Self(0);

    /// Adds one word, host integer of the network-order bytes.
    #[inline(always)]
    pub const fn add_u16(self, word: u16) -> Self {
        Self(self.0 + word as u32)
    }

    /// Adds two words.
    #[inline(always)]
    pub const fn add_u32(self, words: u32) -> Self {
        Self(self.0 + (words >> 16) + (words & 0xffff))
    }

    /// Takes one word away: adds its complement.
    #[inline(always)]
    pub const fn sub_u16(self, word: u16) -> Self {
        Self(self.0 + !word as u32)
    }

    /// Adds another sum.
    #[inline(always)]
    pub const fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Takes another sum away: adds the complement of its folded value.
    #[inline(always)]
    pub const fn sub(self, other: Self) -> Self {
        Self(self.0 + !other.fold() as u32)
    }

    /// Adds bytes; an odd last byte counts as the high byte of a word.
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self;
        let mut chunks = bytes.chunks_exact(2);
        for pair in &mut chunks {
            if let [high, low] = pair {
                sum = Self(sum.fold() as u32).add_u16(u16::from_be_bytes([*high, *low]));
            }
        }
        if let [last] = chunks.remainder() {
            sum = sum.add_u16(u16::from_be_bytes([*last, 0]));
        }
        sum
    }

    /// Folds the carries into 16 bits.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let once = (self.0 >> 16) + (self.0 & 0xffff);
        ((once >> 16) + (once & 0xffff)) as u16
    }

    /// The checksum field for this sum.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The sum as a change that can be stored.
    #[inline(always)]
    pub const fn delta(self) -> Delta {
        Delta(self.fold())
    }
}

/// What a rewrite changes in a checksum: folded `~m + m'`, host integer.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delta(pub u16);

impl Delta {
    /// What is left of this change without another that is part of it.
    #[inline(always)]
    pub const fn without(self, part: Self) -> Self {
        Self(Sum(self.0 as u32 + !part.0 as u32).fold())
    }

    /// The checksum field after the change (RFC 1624 equation 3).
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        !Sum(!checksum as u32 + self.0 as u32).fold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1071_example() {
        // RFC 1071 section 3: the sum of these words is 0xddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.add_bytes(&bytes).fold(), 0xddf2);
    }

    #[test]
    fn rfc_1624_example() {
        // RFC 1624 section 4: HC 0xdd2f, m 0x5555 becomes 0x3285, HC' is 0x0000.
        let delta = Sum::ZERO.sub_u16(0x5555).add_u16(0x3285).delta();
        assert_eq!(delta.apply(0xdd2f), 0x0000);
    }

    #[test]
    fn odd_length() {
        assert_eq!(Sum::ZERO.add_bytes(&[0x12, 0x34, 0x56]).fold(), 0x6834);
    }

    proptest! {
        /// Two changes one after the other are the change of both.
        #[test]
        fn a_change_has_parts(checksum in any::<u16>(), all in 1u16.., part in 1u16..) {
            let (all, part) = (Delta(all), Delta(part));
            let both = all.without(part).apply(part.apply(checksum));
            // A sum of zero has two spellings.
            prop_assert_eq!(both % 0xffff, all.apply(checksum) % 0xffff);
        }

        /// An incremental change gives the field that a full computation gives.
        #[test]
        fn incremental_equals_full(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..80),
            at in any::<proptest::sample::Index>(),
            word in any::<u16>(),
        ) {
            bytes.truncate(bytes.len() & !1);
            let at = at.index(bytes.len() / 2) * 2;
            // A sum of zero has two spellings; real headers are never all zero.
            bytes[0] |= 0x40;
            let before = Sum::ZERO.add_bytes(&bytes).checksum();
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            let word = if at == 0 { word | 0x4000 } else { word };
            bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
            let after = Sum::ZERO.add_bytes(&bytes).checksum();
            let delta = Sum::ZERO.sub_u16(old).add_u16(word).delta();
            prop_assert_eq!(delta.apply(before), after);
        }
    }
}

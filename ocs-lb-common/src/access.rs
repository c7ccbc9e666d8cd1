//! Lists of source prefixes: which value the longest prefix gives a source.
//!
//! A list is an array of [`Cell`]s that its author sorted and flattened, so
//! that one lookup is a few reads wherever the source lies:
//!
//! | cells | `start` | `word` |
//! |---|---|---|
//! | 0 | zero | number of index bits, `b` |
//! | 1 to 2^b + 1 | zero | index of the first range that starts beyond the part's start |
//! | then | first address of a range | its value |
//!
//! The ranges ascend and leave no gap; the first starts at zero. A part is
//! what the first `b` bits of an address say. Why not the kernel's trie: see
//! `docs/decisions.md`.

use crate::address::Address;

/// The value of what no prefix covers.
pub const NONE: u32 = 0;
/// The value of a source that is let in, in a list of `Service::access`.
pub const ALLOWED: u32 = 1;

/// Most bits of the index.
pub const INDEX_BITS: u32 = 16;

/// Halvings of a part at most: more ranges than that are not written.
pub const HALVINGS: u32 = 24;

/// One element of a list.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Cell<A> {
    /// First address of a range.
    pub start: A,
    /// A number or a value, host order.
    pub word: u32,
}

/// The value of a list for a source: that of its last range that starts at or
/// before it. `None`: the list contradicts itself.
///
/// Without a branch that depends on what is compared: the verifier would follow
/// both sides of each.
#[inline(always)]
pub fn find<A: Address>(source: &A, read: impl Fn(u32) -> Option<Cell<A>>) -> Option<u32> {
    let bits = read(0)?.word & (2 * INDEX_BITS - 1);
    // In two steps: a shift by 32 is none.
    let part = source.leading() >> 1 >> (31 - bits);
    let first = read(1 + part)?.word;
    let next = read(2 + part)?.word;
    // The range before goes on into the part, or starts with it.
    let mut at = first.checked_sub(1)?;
    let mut count = next.wrapping_sub(at);
    for _ in 0..HALVINGS {
        if count <= 1 {
            break;
        }
        let half = count >> 1;
        let middle = read(at.wrapping_add(half))?;
        at = at.wrapping_add(half * source.reaches(&middle.start));
        count -= half;
    }
    Some(read(at)?.word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{V4, V6};

    /// `b = 1`: ranges 0.0.0.0, 10.0.0.0, 11.0.0.0, 200.0.0.0.
    fn list() -> Vec<Cell<V4>> {
        let cell = |start, word| Cell {
            start: V4(start),
            word,
        };
        vec![
            cell([0; 4], 1),
            // Parts: from 0.0.0.0, from 128.0.0.0, the end.
            cell([0; 4], 5),
            cell([0; 4], 7),
            cell([0; 4], 8),
            cell([0; 4], 0),
            cell([10, 0, 0, 0], 7),
            cell([11, 0, 0, 0], 0),
            cell([200, 0, 0, 0], 9),
        ]
    }

    #[test]
    fn the_last_range_that_starts_before() {
        let list = list();
        let find = |source| find(&V4(source), |at| list.get(at as usize).copied());
        for (source, value) in [
            ([0, 0, 0, 0], 0),
            ([9, 255, 255, 255], 0),
            ([10, 0, 0, 0], 7),
            ([10, 255, 255, 255], 7),
            ([11, 0, 0, 0], 0),
            ([127, 255, 255, 255], 0),
            ([128, 0, 0, 0], 0),
            ([199, 255, 255, 255], 0),
            ([200, 0, 0, 0], 9),
            ([255, 255, 255, 255], 9),
        ] {
            assert_eq!(find(source), Some(value), "{source:?}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_no_list() {
        let source = V4([10, 0, 0, 1]);
        assert_eq!(find(&source, |_| None), None);
        assert_eq!(find(&source, |_| Some(Cell::default())), None);
        // Numbers without sense end, whatever they are.
        let wild = Cell {
            start: V4([0; 4]),
            word: u32::MAX,
        };
        assert_eq!(find(&source, |at| (at < 5).then_some(wild)), None);
        let _ = find(&source, |_| Some(wild));
    }

    #[test]
    fn order_of_addresses() {
        let v4 = |address: u32| V4(address.to_be_bytes());
        let v6 = |address: u128| V6(address.to_be_bytes());
        for (a, b) in [(0, 0), (0, 1), (1, 0), (5, 5), (u32::MAX, 0), (0x100, 0xff)] {
            assert_eq!(v4(a).reaches(&v4(b)), u32::from(a >= b), "{a} {b}");
            let (a, b) = (u128::from(a), u128::from(b));
            for (a, b) in [(a, b), (a << 96, b << 96), (a << 60, b << 60)] {
                assert_eq!(v6(a).reaches(&v6(b)), u32::from(a >= b), "{a} {b}");
            }
        }
        assert_eq!(v4(0x0102_0304).leading(), 0x0102_0304);
        assert_eq!(v6(1 << 127).leading(), 1 << 31);
    }
}

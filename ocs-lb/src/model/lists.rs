//! Prefixes made into the lists that the datapath looks sources up in: pure.
//! How such a list lies in its map: [`ocs_lb_common::access`].

use std::net::IpAddr;

use ocs_lb_common::access::{ALLOWED, Cell, INDEX_BITS, NONE};
use ocs_lb_common::address::V4;

use super::Prefix;
use super::edits::{PlanError, v4};

/// Ranges of addresses: where each begins, and its value up to the next. The
/// first begins at zero; neighbours differ.
pub type Ranges = Vec<(u32, u32)>;

/// What a prefix says of its sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Allow,
    Deny,
    Value(u32),
}

/// The same of a source, by all prefixes that cover it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// By no deny.
    Value(u32),
    /// By a deny, which no longer prefix takes back.
    Denied,
}

impl Said {
    fn and(self, word: Word) -> Self {
        match (self, word) {
            (Self::Denied, _) | (_, Word::Deny) => Self::Denied,
            (_, Word::Allow) => Self::Value(ALLOWED),
            (_, Word::Value(value)) => Self::Value(value),
        }
    }

    fn value(self) -> u32 {
        match self {
            Self::Value(value) => value,
            Self::Denied => NONE,
        }
    }
}

/// Who is let in: whoever `allow` covers (empty: everyone), without whoever
/// `deny` covers. `None` where that is everyone.
///
/// # Errors
/// A prefix of a family that is not wired.
pub fn allowed(allow: &[Prefix], deny: &[Prefix]) -> Result<Option<Ranges>, PlanError> {
    if allow.is_empty() && deny.is_empty() {
        return Ok(None);
    }
    let base = if allow.is_empty() { ALLOWED } else { NONE };
    let allow = allow.iter().map(|prefix| (*prefix, Word::Allow));
    let deny = deny.iter().map(|prefix| (*prefix, Word::Deny));
    Ok(Some(flatten(base, allow.chain(deny))?))
}

/// Which value the longest prefix gives each source, or [`NONE`].
///
/// # Errors
/// As [`allowed`].
pub fn chosen<'a>(prefixes: impl Iterator<Item = (&'a Prefix, u32)>) -> Result<Ranges, PlanError> {
    flatten(
        NONE,
        prefixes.map(|(prefix, value)| (*prefix, Word::Value(value))),
    )
}

/// Prefixes nest or are apart, so one pass over them in order of their starts
/// with a stack of those that are open gives the ranges.
fn flatten(base: u32, words: impl Iterator<Item = (Prefix, Word)>) -> Result<Ranges, PlanError> {
    let mut spans = Vec::new();
    for (prefix, word) in words {
        let start = u32::from_be_bytes(v4(prefix.address)?.0);
        let rest = u32::MAX.checked_shr(u32::from(prefix.len)).unwrap_or(0);
        spans.push((start, std::cmp::Reverse(start | rest), word));
    }
    spans.sort_unstable();
    let mut ranges: Ranges = vec![(0, base)];
    let mut open: Vec<(u32, Said)> = Vec::new();
    let around = |open: &[(u32, Said)]| open.last().map_or(Said::Value(base), |(_, said)| *said);
    for (start, std::cmp::Reverse(end), word) in spans {
        close(&mut ranges, &mut open, Some(start), around);
        let said = around(&open).and(word);
        set(&mut ranges, start, said.value());
        open.push((end, said));
    }
    close(&mut ranges, &mut open, None, around);
    Ok(ranges)
}

/// Ends what ends before `next`.
fn close(
    ranges: &mut Ranges,
    open: &mut Vec<(u32, Said)>,
    next: Option<u32>,
    around: impl Fn(&[(u32, Said)]) -> Said,
) {
    while let Some((end, _)) = open.pop_if(|(end, _)| next.is_none_or(|next| *end < next)) {
        if let Some(after) = end.checked_add(1) {
            set(ranges, after, around(open).value());
        }
    }
}

/// From `start` on, the value.
fn set(ranges: &mut Ranges, start: u32, value: u32) {
    if ranges.last().is_some_and(|(last, _)| *last == start) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|(_, last)| *last != value) {
        ranges.push((start, value));
    }
}

/// The list of some ranges.
pub fn cells(ranges: &[(u32, u32)]) -> Vec<Cell<V4>> {
    let cell = |start: u32, word| Cell {
        start: V4(start.to_be_bytes()),
        word,
    };
    // About as many parts as ranges: an index that is no larger than they are,
    // and a part with few of them.
    let bits = ranges.len().next_power_of_two().ilog2().min(INDEX_BITS);
    let parts = 1_u32 << bits;
    let first = 2 + parts;
    let mut cells = Vec::with_capacity(first as usize + ranges.len());
    cells.push(cell(0, bits));
    let mut before = 0;
    for part in 0..parts {
        let start = ((u64::from(part) << 32) >> bits) as u32;
        while ranges.get(before).is_some_and(|(from, _)| *from <= start) {
            before += 1;
        }
        cells.push(cell(0, first + before as u32));
    }
    cells.push(cell(0, first + ranges.len() as u32));
    cells.extend(ranges.iter().map(|(start, value)| cell(*start, *value)));
    cells
}

/// The first prefix that two clusters' `from` share; an empty one is everyone.
pub fn shared(a: &[Prefix], b: &[Prefix]) -> Option<Prefix> {
    let of = |from: &[Prefix]| match from {
        [] => vec![Prefix::EVERYONE],
        from => from.to_vec(),
    };
    let known: std::collections::HashSet<Prefix> = of(a).into_iter().collect();
    of(b).into_iter().find(|prefix| known.contains(prefix))
}

/// Whether `allow` and `deny` let a source in, prefix by prefix.
pub fn lets_in(allow: &[Prefix], deny: &[Prefix], source: IpAddr) -> bool {
    let covers = |list: &[Prefix]| list.iter().any(|prefix| prefix.covers(source));
    (allow.is_empty() || covers(allow)) && !covers(deny)
}

#[cfg(test)]
mod tests;

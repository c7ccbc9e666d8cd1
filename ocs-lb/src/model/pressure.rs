//! Which tables are nearly full, said once each: pure.

use std::collections::BTreeSet;

/// Use, in percent, from which a warning is due.
pub const WARN: u64 = 80;
/// Use, in percent, below which the next warning may come.
pub const CALM: u64 = 70;

/// What was warned of and is not over.
#[derive(Debug)]
pub struct Pressure<K> {
    warned: BTreeSet<K>,
}

impl<K> Default for Pressure<K> {
    fn default() -> Self {
        Self {
            warned: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Pressure<K> {
    /// Takes the use of `key`; whether it is to be warned of now.
    pub fn observe(&mut self, key: &K, used: u32, limit: u32) -> bool {
        let (used, limit) = (u64::from(used) * 100, u64::from(limit));
        if limit == 0 || used < CALM * limit {
            self.warned.remove(key);
            return false;
        }
        used >= WARN * limit && self.warned.insert(key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_once_until_it_was_calm() {
        let mut pressure = Pressure::default();
        let steps = [
            (79, false),
            (80, true),
            (99, false),
            (79, false),
            (80, false),
            (70, false),
            (100, false),
            (69, false),
            (79, false),
            (81, true),
        ];
        for (at, (used, expected)) in steps.into_iter().enumerate() {
            assert_eq!(pressure.observe(&"a", used, 100), expected, "step {at}");
        }
    }

    #[test]
    fn keys_are_apart_and_sizes_do_not_matter() {
        let mut pressure = Pressure::default();
        assert!(pressure.observe(&1, 51_610, 64_512));
        assert!(!pressure.observe(&2, 51_609, 64_512));
        assert!(pressure.observe(&3, u32::MAX, u32::MAX));
        assert!(!pressure.observe(&4, 0, 0));
        assert!(!pressure.observe(&1, 64_512, 64_512));
    }
}

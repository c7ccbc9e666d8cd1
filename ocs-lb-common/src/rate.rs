//! A rate limit without a division: so many in each window of 1024 ticks
//! (1.07 s).

use crate::ticks::Ticks;

/// What one CPU has used of its share.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Number of the window.
    pub window: u32,
    /// Used in it.
    pub used: u32,
}

impl Budget {
    /// Takes one if the window has one left of `limit`.
    #[inline(always)]
    pub fn take(&mut self, now: Ticks, limit: u32) -> bool {
        let window = now.0 >> 10;
        if window != self.window {
            self.window = window;
            self.used = 0;
        }
        if self.used >= limit {
            return false;
        }
        self.used += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_window() {
        let mut budget = Budget::default();
        let taken = (0..5000).filter(|_| budget.take(Ticks(1023), 100)).count();
        assert_eq!(taken, 100);
        assert!(budget.take(Ticks(1024), 100), "a new window");
        assert!(!budget.take(Ticks(2048), 0), "no limit is none at all");
    }
}

//! The datapath's clock: wrapping ticks of 2^20 ns.

use core::time::Duration;

/// A point in time, in units of 2^20 ns (1.049 ms) of `CLOCK_MONOTONIC`.
///
/// A shift makes it from nanoseconds, where milliseconds would need a
/// division on every packet. 32 bits wrap after 52 days; ages are exact up to
/// half of that, and every timeout is validated to be below it.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ticks(pub u32);

impl Ticks {
    /// From nanoseconds of `CLOCK_MONOTONIC`.
    #[inline(always)]
    pub const fn from_ns(ns: u64) -> Self {
        Self((ns >> 20) as u32)
    }

    /// Ticks passed since `earlier`; 0 if `earlier` is in the future, as two
    /// CPUs' coarse clocks may differ by one update.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u32 {
        let age = self.0.wrapping_sub(earlier.0);
        if age > u32::MAX / 2 { 0 } else { age }
    }

    /// The later of two points.
    #[inline(always)]
    pub const fn later(self, other: Self) -> Self {
        if self.0.wrapping_sub(other.0) > u32::MAX / 2 {
            other
        } else {
            self
        }
    }
}

/// A duration in ticks, rounded up; at most half the clock's range.
pub const fn duration(value: Duration) -> u32 {
    let ticks = value.as_nanos().div_ceil(1 << 20);
    if ticks > (u32::MAX / 2) as u128 {
        u32::MAX / 2
    } else {
        ticks as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_wrap() {
        assert_eq!(Ticks(5).since(Ticks(u32::MAX - 4)), 10);
        assert_eq!(Ticks(5).since(Ticks(6)), 0);
        assert_eq!(Ticks(3).later(Ticks(u32::MAX)), Ticks(3));
        assert_eq!(Ticks(u32::MAX).later(Ticks(3)), Ticks(3));
    }

    #[test]
    fn durations_round_up() {
        assert_eq!(duration(Duration::from_nanos(1)), 1);
        assert_eq!(duration(Duration::from_nanos(1 << 20)), 1);
        assert_eq!(duration(Duration::from_secs(1800)), 1_716_614);
        assert_eq!(duration(Duration::MAX), u32::MAX / 2);
    }
}

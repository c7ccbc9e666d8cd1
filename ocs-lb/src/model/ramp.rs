//! How a backend that was away gets its clients back: its weight grows over
//! `slow_start`. Pure.
//!
//! Away is down, or in maintenance. A drain is not: such a server kept running
//! and kept its clients; but one that went away during its drain starts slowly
//! when that is taken back (HAProxy: `slowstart`).

use std::time::Duration;

/// Parts that a full weight has: the steps of a ramp. Weights are multiplied by
/// it while a backend of their cluster ramps, and 256 times it fits a slot.
pub const FULL: u16 = 128;

/// Time between two looks at ramps.
pub const STEP: Duration = Duration::from_millis(250);

/// What is known of one backend's absence and return. Times are since a moment
/// that stays the same over a restart of the controller, such as the boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ramp {
    /// Whether it was away and has taken no new client since.
    away: bool,
    /// When it came back.
    pub since: Option<Duration>,
}

impl Ramp {
    /// Of a backend that takes its first clients from now on.
    pub const FROM_NOTHING: Self = Self {
        away: true,
        since: None,
    };

    /// Of a backend that was there before us, and may have come back then.
    pub const fn found(since: Option<Duration>) -> Self {
        Self { away: false, since }
    }

    /// Takes note of what a backend is now: `away`, or else whether it takes
    /// new clients.
    pub fn observe(&mut self, away: bool, takes: bool, now: Duration) {
        if away {
            *self = Self::FROM_NOTHING;
        } else if self.away && takes {
            *self = Self::found(Some(now));
        }
    }

    /// The share of its weight that it has now, in [`FULL`]ths, at least one;
    /// nothing where it has all of it.
    pub fn share(&self, slow_start: Duration, now: Duration) -> Option<u16> {
        let passed = now.saturating_sub(self.since?);
        if passed >= slow_start {
            return None;
        }
        let parts = passed.as_nanos() * u128::from(FULL) / slow_start.as_nanos();
        Some((parts as u16).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn grows_from_little_to_all() {
        let ramp = Ramp::found(Some(at(1000)));
        let share = |millis| ramp.share(at(4000), at(millis));
        assert_eq!(share(0), Some(1), "a clock that was set back");
        assert_eq!(share(1000), Some(1));
        assert_eq!(share(2000), Some(FULL / 4));
        assert_eq!(share(3000), Some(FULL / 2));
        assert_eq!(share(4999), Some(FULL - 1));
        assert_eq!(share(5000), None);
        assert_eq!(ramp.share(Duration::ZERO, at(1000)), None, "off");
        assert_eq!(Ramp::default().share(at(4000), at(5)), None);
    }

    #[test]
    fn only_who_was_away() {
        let mut ramp = Ramp::default();
        ramp.observe(false, true, at(1));
        assert_eq!(ramp.since, None, "it was there all the time");
        // A drain.
        ramp.observe(false, false, at(2));
        ramp.observe(false, true, at(3));
        assert_eq!(ramp.since, None);
        // Down, up.
        ramp.observe(true, false, at(4));
        assert_eq!(ramp.since, None);
        ramp.observe(false, true, at(5));
        ramp.observe(false, true, at(6));
        assert_eq!(ramp.since, Some(at(5)));
        // Down again while it ramps: from the beginning.
        ramp.observe(true, false, at(7));
        ramp.observe(false, true, at(8));
        assert_eq!(ramp.since, Some(at(8)));
        // Rebooted during a drain.
        ramp.observe(false, false, at(9));
        ramp.observe(true, false, at(10));
        ramp.observe(false, false, at(11));
        assert_eq!(ramp.since, None);
        ramp.observe(false, true, at(12));
        assert_eq!(ramp.since, Some(at(12)));
        let mut new = Ramp::FROM_NOTHING;
        new.observe(false, true, at(13));
        assert_eq!(new.since, Some(at(13)));
    }
}

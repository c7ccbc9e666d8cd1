//! How many new connections are let in in a second.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A): one number, the
//! time at which the next connection would come if all came at the pace. One
//! that comes earlier than that by more than the burst is refused and leaves
//! the number as it was. So in any `t` seconds at most
//! `rate x (t + burst) + 1` are let in.

/// A pace, and how far ahead of it connections may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time of one connection, in nanoseconds; 0 is no limit.
    pub interval: u32,
    /// In nanoseconds.
    pub burst: u32,
}

/// The time of one connection where there are so many in a second; 0 is no
/// limit.
pub const fn interval(per_second: u32) -> u32 {
    match per_second {
        0 => 0,
        rate => {
            let ns = 1_000_000_000 / rate;
            if ns == 0 { 1 } else { ns }
        }
    }
}

impl Pace {
    /// The next time after a connection at `now`, where the last one left
    /// `next`; `None` where it comes too early. Both in nanoseconds.
    #[inline(always)]
    pub const fn admit(self, next: u64, now: u64) -> Option<u64> {
        let from = if next > now { next } else { now };
        if from - now > self.burst as u64 {
            return None;
        }
        Some(from + self.interval as u64)
    }

    /// What [`Self::admit`] made, without the connection.
    #[inline(always)]
    pub const fn give_back(self) -> u64 {
        (self.interval as u64).wrapping_neg()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Times at which connections that come at `arrivals` are let in.
    fn admitted(pace: Pace, arrivals: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut next = 0;
        let admits = |now: &u64| match pace.admit(next, *now) {
            Some(then) => {
                next = then;
                true
            }
            None => false,
        };
        arrivals.into_iter().filter(admits).collect()
    }

    #[test]
    fn one_at_a_time_and_the_burst() {
        let pace = Pace {
            interval: interval(10),
            burst: 250_000_000,
        };
        // Ten at once: one, and a burst of 2.5 tenths of a second.
        let now = 5 * SECOND;
        assert_eq!(admitted(pace, [now; 10]).len(), 3);
        let none = Pace { burst: 0, ..pace };
        assert_eq!(admitted(none, [now, now, now + 99_999_999]).len(), 1);
        assert_eq!(admitted(none, [now, now + 100_000_000]).len(), 2);
    }

    #[test]
    fn intervals() {
        assert_eq!(interval(0), 0);
        assert_eq!(interval(1), 1_000_000_000);
        assert_eq!(interval(1_000_000), 1000);
        assert_eq!(interval(u32::MAX), 1);
    }

    #[test]
    fn what_is_given_back_was_never_taken() {
        let pace = Pace {
            interval: 1000,
            burst: 20,
        };
        let then = pace.admit(70, 50).expect("within the burst");
        assert!(pace.admit(then, 50).is_none());
        assert_eq!(then.wrapping_add(pace.give_back()), 70);
    }

    /// The long run is the rate, to 1 %, with a clock that stands still for
    /// 4 ms at a time.
    #[test]
    fn the_long_run() {
        for rate in [1, 7, 100, 3_333, 50_000, 1_000_000] {
            let pace = Pace {
                interval: interval(rate),
                burst: 50_000_000,
            };
            let seconds = if rate < 100 { 200 } else { 4 };
            let each = (u64::from(rate) * 3 / 250).max(1);
            let jiffies = (0..250 * seconds).map(|jiffy| 10 * SECOND + jiffy * 4_000_000);
            let all = jiffies.flat_map(|now| (0..each).map(move |_| now));
            let passed = admitted(pace, all).len() as f64;
            let wanted = f64::from(rate) * seconds as f64;
            let most = wanted + f64::from(rate) * 0.05 + 1.0;
            assert!(passed >= wanted * 0.99, "{rate}: {passed} of {wanted}");
            assert!(passed <= most * 1.002, "{rate}: {passed} of {most}");
        }
    }

    proptest! {
        #[test]
        fn no_window_has_more(
            rate in 1_u32..2_000,
            burst in 0_u32..1_000_000_000,
            gaps in prop::collection::vec(0_u64..30_000_000, 1..300),
        ) {
            let pace = Pace { interval: interval(rate), burst };
            let mut now = SECOND;
            let arrivals = gaps.into_iter().map(|gap| {
                now += gap;
                now
            });
            let times = admitted(pace, arrivals.collect::<Vec<_>>());
            for (at, from) in times.iter().enumerate() {
                for (further, to) in times[at..].iter().enumerate() {
                    // By the interval, which is rounded down from the rate's.
                    let window = to - from + u64::from(burst);
                    let most = window / u64::from(pace.interval) + 1;
                    prop_assert!((further as u64) < most, "{} in {}", further + 1, window);
                }
            }
        }

        #[test]
        fn the_pace_itself_is_never_refused(rate in 1_u32..100_000, burst in 0_u32..1_000_000) {
            let pace = Pace { interval: interval(rate), burst };
            let step = SECOND.div_ceil(u64::from(rate));
            let passed = admitted(pace, (0..500).map(|n| SECOND + n * step));
            prop_assert_eq!(passed.len(), 500);
        }
    }
}

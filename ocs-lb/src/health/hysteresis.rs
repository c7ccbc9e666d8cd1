//! When checks change a backend's state: HAProxy's arithmetic, as operators
//! know it from `rise` and `fall`.
//!
//! Pure: no clock, no socket. One counter, `health`, runs from 0 to
//! `rise + fall - 1`; from `rise` on the backend is up.

use std::fmt;
use std::time::Duration;

use crate::model::Check;

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// From down to up.
    Up,
    /// From up to down.
    Down,
}

/// The state of one backend as its checks see it.
///
/// Displays as HAProxy's status: `UP`, `UP 2/3` (failures left of `fall`),
/// `DOWN`, `DOWN 1/2` (successes of `rise`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    health: u32,
    rise: u32,
    fall: u32,
}

impl Health {
    /// Up, but on trial: the first failed check takes it down, the first
    /// success makes it fully up. `rise` and `fall` count checks, at least 1.
    pub fn new(rise: u32, fall: u32) -> Self {
        let rise = rise.max(1);
        Self {
            health: rise,
            rise,
            fall: fall.max(1),
        }
    }

    /// Fully up or fully down, as another controller left it.
    pub fn settled(rise: u32, fall: u32, up: bool) -> Self {
        let mut health = Self::new(rise, fall);
        health.health = if up { health.full() } else { 0 };
        health
    }

    /// Takes the result of one check; tells whether the state changed.
    pub fn observe(&mut self, ok: bool) -> Option<Transition> {
        let was_up = self.is_up();
        if ok {
            if self.health < self.full() {
                self.health += 1;
            }
            // Up is fully up at once: `fall` failures in a row are needed again.
            if self.health >= self.rise {
                self.health = self.full();
            }
        } else {
            self.health = self.health.saturating_sub(1);
            // Below `rise` is fully down at once: successes must be in a row.
            if self.health < self.rise {
                self.health = 0;
            }
        }
        match (was_up, self.is_up()) {
            (false, true) => Some(Transition::Up),
            (true, false) => Some(Transition::Down),
            _ => None,
        }
    }

    /// Whether the checks say that the backend serves.
    pub fn is_up(&self) -> bool {
        self.health >= self.rise
    }

    /// Time from the end of the last check to the start of the next: `interval`
    /// when fully up, `down_interval` when fully down, `fast_interval` between.
    pub fn next_interval(&self, check: &Check) -> Duration {
        let special = if self.health == self.full() {
            None
        } else if self.health == 0 {
            check.down_interval
        } else {
            check.fast_interval
        };
        special.unwrap_or(check.interval)
    }

    fn full(&self) -> u32 {
        self.rise.saturating_add(self.fall) - 1
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.health == self.full() {
            f.write_str("UP")
        } else if self.is_up() {
            write!(f, "UP {}/{}", self.health - self.rise + 1, self.fall)
        } else if self.health == 0 {
            f.write_str("DOWN")
        } else {
            write!(f, "DOWN {}/{}", self.health, self.rise)
        }
    }
}

/// How long the `index`th of `count` checks waits before its first run: its
/// share of its own interval, so that checks spread evenly and none waits
/// longer than it will wait for the second.
pub fn initial_delay(interval: Duration, index: usize, count: usize) -> Duration {
    if count == 0 {
        return Duration::ZERO;
    }
    interval.mul_f64(index as f64 / count as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::test_check;

    fn check() -> Check {
        Check {
            fast_interval: Some(Duration::from_millis(500)),
            down_interval: Some(Duration::from_secs(5)),
            ..test_check()
        }
    }

    #[test]
    fn follows_the_table() {
        use Transition::{Down, Up};
        type Step = (bool, Option<Transition>, &'static str);
        type Case<'a> = (&'a str, (u32, u32), &'a str, &'a [Step]);
        let cases: &[Case<'_>] = &[
            (
                "first check fails",
                (2, 3),
                "UP 1/3",
                &[(false, Some(Down), "DOWN")],
            ),
            (
                "first check succeeds",
                (2, 3),
                "UP 1/3",
                &[(true, None, "UP")],
            ),
            (
                "falls after three",
                (2, 3),
                "UP 1/3",
                &[
                    (true, None, "UP"),
                    (false, None, "UP 2/3"),
                    (false, None, "UP 1/3"),
                    (false, Some(Down), "DOWN"),
                    (false, None, "DOWN"),
                ],
            ),
            (
                "one success forgives all failures",
                (2, 3),
                "UP 1/3",
                &[
                    (true, None, "UP"),
                    (false, None, "UP 2/3"),
                    (false, None, "UP 1/3"),
                    (true, None, "UP"),
                    (false, None, "UP 2/3"),
                ],
            ),
            (
                "rises after two in a row",
                (2, 3),
                "UP 1/3",
                &[
                    (false, Some(Down), "DOWN"),
                    (true, None, "DOWN 1/2"),
                    (false, None, "DOWN"),
                    (true, None, "DOWN 1/2"),
                    (true, Some(Up), "UP"),
                ],
            ),
            (
                "rise 1, fall 1 follows every check",
                (1, 1),
                "UP",
                &[
                    (false, Some(Down), "DOWN"),
                    (true, Some(Up), "UP"),
                    (true, None, "UP"),
                ],
            ),
            (
                "zeros count as one",
                (0, 0),
                "UP",
                &[(false, Some(Down), "DOWN"), (true, Some(Up), "UP")],
            ),
        ];
        for (case, (rise, fall), initial, steps) in cases {
            let mut health = Health::new(*rise, *fall);
            assert!(health.is_up(), "{case}");
            assert_eq!(health.to_string(), *initial, "{case}");
            for (n, (ok, transition, text)) in steps.iter().enumerate() {
                assert_eq!(health.observe(*ok), *transition, "{case}, step {n}");
                assert_eq!(health.to_string(), *text, "{case}, step {n}");
            }
        }
    }

    #[test]
    fn the_interval_follows_the_state() {
        let check = check();
        let mut health = Health::new(2, 3);
        let mut seen = vec![health.next_interval(&check).as_millis()];
        for ok in [true, false, false, false, true, true] {
            health.observe(ok);
            seen.push(health.next_interval(&check).as_millis());
        }
        assert_eq!(seen, [500, 2000, 500, 500, 5000, 500, 2000]);

        let plain = Check {
            fast_interval: None,
            down_interval: None,
            ..check
        };
        health.observe(false);
        assert_eq!(health.next_interval(&plain), plain.interval);
    }

    #[test]
    fn the_first_checks_spread() {
        let delays: Vec<_> = (0..4)
            .map(|i| initial_delay(Duration::from_secs(2), i, 4).as_millis())
            .collect();
        assert_eq!(delays, [0, 500, 1000, 1500]);
        assert_eq!(initial_delay(Duration::from_secs(2), 0, 0), Duration::ZERO);
    }

    proptest! {
        /// The counter agrees with the rule in words: `fall` failures in a row
        /// take an up backend down, `rise` successes in a row bring it back.
        #[test]
        fn agrees_with_runs(rise in 1u32..6, fall in 1u32..6, results in prop::collection::vec(any::<bool>(), 0..200)) {
            let mut health = Health::new(rise, fall);
            let (mut up, mut run, mut on_trial) = (true, 0, true);
            for ok in results {
                let transition = health.observe(ok);
                let expected = if ok == up {
                    (run, on_trial) = (0, false);
                    None
                } else {
                    run += 1;
                    let limit = if up { if on_trial { 1 } else { fall } } else { rise };
                    (run >= limit).then(|| {
                        (up, run, on_trial) = (ok, 0, false);
                        if up { Transition::Up } else { Transition::Down }
                    })
                };
                prop_assert_eq!(transition, expected);
                prop_assert_eq!(health.is_up(), up);
                prop_assert!(health.health < rise + fall);
            }
        }
    }
}

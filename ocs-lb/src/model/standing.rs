//! What is known of a backend beside the file: health, the operator's word,
//! and its return from an absence. Pure.

use std::time::Duration;

use super::ramp::Ramp;
use super::{Backend, BackendWord};

/// Health and the operator's word are separate facts: a drain never fights the
/// checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What the checks say; without a check, true.
    pub healthy: bool,
    /// What an operator said.
    pub word: BackendWord,
    /// Its absence and return.
    pub ramp: Ramp,
}

impl Standing {
    /// Of a backend of which only its health is known.
    pub fn of(healthy: bool) -> Self {
        Self {
            healthy,
            word: BackendWord::default(),
            ramp: Ramp::default(),
        }
    }

    /// The weight that counts, before any slow start; 0 takes sticky clients
    /// only.
    pub fn weight(&self, backend: &Backend) -> u16 {
        self.word.weight_beside(backend.weight)
    }

    /// The share of that weight that it has at a time, in
    /// [`FULL`](super::ramp::FULL)ths; nothing where it has all of it.
    pub fn share(&self, backend: &Backend, now: Duration) -> Option<u16> {
        self.ramp.share(backend.slow_start, now)
    }

    /// Takes note of what the backend is at a time.
    pub fn observe(&mut self, backend: &Backend, now: Duration) {
        let away = !self.healthy || self.word.is_maint();
        let takes = self.weight(backend) > 0 && !backend.retired;
        self.ramp.observe(away, takes, now);
    }

    /// Forgets a return that is over at a time; whether it just was.
    pub fn settle(&mut self, backend: &Backend, now: Duration) -> bool {
        let over = self.ramp.since.is_some() && self.share(backend, now).is_none();
        if over {
            self.ramp.since = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BackendSetting, BackendState, test_cluster};

    #[test]
    fn a_return_begins_grows_and_ends() {
        let second = Duration::from_secs;
        let mut backend = test_cluster(&[(4, false)]).backends.remove(0);
        backend.slow_start = second(8);
        let mut standing = Standing::of(true);
        standing.observe(&backend, second(1));
        assert_eq!(standing.share(&backend, second(1)), None);
        standing.healthy = false;
        standing.observe(&backend, second(2));
        standing.healthy = true;
        standing.observe(&backend, second(3));
        assert_eq!(standing.share(&backend, second(5)), Some(32));
        assert!(!standing.settle(&backend, second(10)));
        assert!(standing.settle(&backend, second(11)));
        assert!(!standing.settle(&backend, second(12)));

        let maint = BackendSetting::State(Some(BackendState::Maint));
        standing.word = standing.word.with(maint);
        standing.observe(&backend, second(20));
        standing.word = BackendWord::default();
        standing.observe(&backend, second(21));
        assert_eq!(standing.share(&backend, second(23)), Some(32));
        backend.slow_start = Duration::ZERO;
        assert!(standing.settle(&backend, second(24)));
    }
}

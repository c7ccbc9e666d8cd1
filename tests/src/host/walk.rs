//! The sweep on the host, as `sweep.rs` of the programs.

use ocs_lb_common::abi::FlowKey;
use ocs_lb_common::address::V4;
use ocs_lb_common::sweep::{Due, due, is_rested};
use ocs_lb_common::ticks::Ticks;
use ocs_lb_common::track::Phase;
use ocs_lb_common::{abi::Reason, track::Count};

use super::change::Pair;
use super::{Datapath, Now};

impl Datapath {
    /// One walk over all flows at a time in nanoseconds.
    pub fn sweep(&mut self, now_ns: u64) {
        let now = Now {
            ns: now_ns,
            ticks: Ticks::from_ns(now_ns),
        };
        let keys: Vec<FlowKey<V4>> = self.flows.keys().copied().collect();
        for key in keys {
            let Some(entry) = self.flows.get(&key).copied() else {
                continue;
            };
            if !entry.is_reverse() {
                self.visit(key, now);
                continue;
            }
            let owner = self.flows.get(&entry.peer_key());
            let owned = owner.is_some_and(|owner| owner.peer_key() == key);
            if !owned && is_rested(entry.state, entry.last_seen, now.ticks) {
                self.flows.remove(&key);
                self.free(&key.reversed(), false);
            }
        }
    }

    fn visit(&mut self, key: FlowKey<V4>, now: Now) {
        let Some(forward) = self.flows.get(&key).copied() else {
            return;
        };
        let reverse_key = forward.peer_key();
        let Some(reverse) = self.flows.get(&reverse_key).copied() else {
            return;
        };
        let mut pair = Pair {
            key,
            reverse_key,
            forward,
            reverse,
        };
        let word = forward.state;
        let seen = (forward.last_seen, reverse.last_seen);
        match due(word, seen.0, seen.1, now.ticks, &self.cluster) {
            Due::Nothing => {}
            Due::Kill => self.kill(&mut pair, now),
            Due::End(count) => {
                pair.set(word.with_phase(Phase::Dead));
                pair.forward.last_seen = now.ticks;
                self.put(&pair);
                if count != Count::None {
                    self.close(&pair, count, Reason::ConnectTimeout, now);
                }
            }
            Due::Delete => self.delete(&key, false),
        }
    }
}

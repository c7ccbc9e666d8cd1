//! Who may open a flow on the host, as `access.rs` of the programs.

use ocs_lb_common::abi::SourceKey;
use ocs_lb_common::access::{NONE, find};
use ocs_lb_common::address::V4;
use ocs_lb_common::limit::Pace;
use ocs_lb_common::verdict::Verdict;

use super::{Datapath, Now};

impl Datapath {
    /// The value of a list for a source.
    pub(super) fn listed(&self, list: u16, source: &V4) -> u32 {
        let list = usize::from(list).checked_sub(1);
        let Some(list) = list.and_then(|list| self.lists.get(list)) else {
            return NONE;
        };
        find(source, |at| list.get(at as usize).copied()).unwrap_or(NONE)
    }

    /// Counts a new connection against the limits.
    ///
    /// # Errors
    /// Which of them it reached.
    pub(super) fn paced(&mut self, source: V4, now: Now) -> Result<(), Verdict> {
        let pace = |interval| Pace {
            interval,
            burst: self.cluster.rate_burst,
        };
        let (total, each) = (
            pace(self.cluster.rate_total),
            pace(self.cluster.rate_source),
        );
        let before = self.load.next_new_ns;
        if total.interval != 0 {
            let Some(next) = total.admit(before, now.ns) else {
                self.load.refused_rate_total += 1;
                return Err(Verdict::RateTotal);
            };
            self.load.next_new_ns = next;
        }
        if each.interval == 0 {
            return Ok(());
        }
        let key = SourceKey {
            address: source,
            cluster: 0,
            pad: 0,
        };
        let known = self.sources.get(&key).copied().unwrap_or(0);
        if let Some(next) = each.admit(known, now.ns) {
            self.sources.insert(key, next);
            return Ok(());
        }
        if total.interval != 0 {
            self.load.next_new_ns = self.load.next_new_ns.wrapping_add(total.give_back());
        }
        self.load.refused_rate_source += 1;
        Err(Verdict::RateSource)
    }
}

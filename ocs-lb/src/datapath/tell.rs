//! What the owner does with killed flows: tells both sides, and counts.

use ocs_lb_common::abi::{Kill, KillReason, KillRequest, Reason};
use ocs_lb_common::address::V4;

use super::owner::Owner;
use crate::resets;

impl Owner {
    /// Tells both sides of killed flows, and counts them.
    pub(super) fn tell(&mut self, kills: &[Kill<V4>]) {
        for kill in kills {
            self.count_kill(kill.cluster, kill.slot, kill.reason, 1);
        }
        let hops = &self.running.loaded.maps.next_hops;
        let hop = |index: u16| hops.get(&u32::from(index), 0).ok();
        let socket = &self.down.socket;
        let tally = resets::tell(kills, hop, |ifindex, frame| socket.send(ifindex, frame));
        self.down.resets.sent += tally.sent;
        self.down.resets.no_next_hop += tally.no_next_hop;
        self.down.resets.failed += tally.failed;
        self.down.burst.add(tally);
    }

    /// Says what could not be sent since it last did.
    pub(super) fn log_unsent(&mut self) {
        let burst = std::mem::take(&mut self.down.burst);
        if burst.unsent() > 0 {
            tracing::warn!(
                sent = burst.sent,
                no_next_hop = burst.no_next_hop,
                failed = burst.failed,
                errors = burst.reasons(),
                "resets not sent; the datapath answers when their side sends"
            );
        }
    }

    /// Counts flows that no record tells of.
    pub(super) fn count_untold(&mut self, request: &KillRequest, untold: u32) {
        self.count_kill(
            request.cluster,
            request.backend,
            request.reason,
            u64::from(untold),
        );
    }

    fn count_kill(&mut self, cluster: u16, slot: u16, number: u8, flows: u64) {
        let row = self.health.get_mut(usize::from(cluster));
        let health = row.and_then(|row| row.get_mut(usize::from(slot)));
        if let (Some(health), Some(reason)) = (health, reason(number))
            && flows > 0
        {
            *health.kills.entry(reason.label()).or_default() += flows;
        }
    }
}

/// The reason that logs and metrics give for a [`KillReason`]'s number.
pub(super) fn reason(number: u8) -> Option<Reason> {
    [
        (KillReason::Idle, Reason::Idle),
        (KillReason::BackendDown, Reason::BackendDown),
        (KillReason::Operator, Reason::Operator),
    ]
    .into_iter()
    .find_map(|(kill, reason)| (kill as u8 == number).then_some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name() {
        let names: Vec<_> = (0..5).map(|n| reason(n).map(Reason::label)).collect();
        let want = [
            None,
            Some("idle"),
            Some("backend_down"),
            Some("operator"),
            None,
        ];
        assert_eq!(names, want);
    }
}

//! Live traffic as a check: pure.

/// What the datapath has counted of a backend so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Flows established.
    pub established: u64,
    /// SYNs that it refused or did not answer.
    pub failed: u64,
}

/// Failed checks that the traffic between two looks amounts to, at most
/// `fall`: every failed connection is one, unless another was established
/// meanwhile.
pub fn failures(before: Traffic, now: Traffic, fall: u32) -> u32 {
    let failed = now.failed.saturating_sub(before.failed);
    if now.established > before.established {
        return 0;
    }
    u32::try_from(failed).unwrap_or(u32::MAX).min(fall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unmixed_failures_count() {
        let traffic = |established, failed| Traffic {
            established,
            failed,
        };
        let before = traffic(100, 50);
        for (now, expected) in [
            (traffic(100, 50), 0),
            (traffic(100, 52), 2),
            (traffic(100, 90), 3),
            (traffic(101, 90), 0),
            (traffic(101, 50), 0),
            // A datapath that began anew.
            (traffic(0, 0), 0),
        ] {
            assert_eq!(failures(before, now, 3), expected, "{now:?}");
        }
    }
}

//! Which source ports a SNAT address may give away.

/// First port that is ever used for SNAT; those below are for services.
pub const FIRST_PORT: u16 = 1024;

/// The largest part of 1024-65535 outside the host's ephemeral ports, for
/// `snat: auto`: first and last port, both included, host order.
///
/// `local` is `net.ipv4.ip_local_port_range`, both ends included. Of two equal
/// parts the lower one. `None` if the host's range leaves nothing: translated
/// flows and the host's own connections would then meet on one port.
pub fn auto_range(local: (u16, u16)) -> Option<(u16, u16)> {
    let (low, high) = (local.0.min(local.1), local.0.max(local.1));
    let below = (low > FIRST_PORT).then(|| (FIRST_PORT, low - 1));
    let first_above = high.checked_add(1).map(|p| p.max(FIRST_PORT));
    let above = first_above.map(|first| (first, u16::MAX));
    match (below, above) {
        (Some(below), Some(above)) if range_len(above) > range_len(below) => Some(above),
        (Some(below), _) => Some(below),
        (None, above) => above,
    }
}

/// Ports of a range, both ends included.
pub fn range_len(range: (u16, u16)) -> u32 {
    if range.0 > range.1 {
        0
    } else {
        u32::from(range.1) - u32::from(range.0) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_range_is_the_largest_part_outside() {
        for (case, local, want) in [
            ("Linux default", (32768, 60999), Some((1024, 32767))),
            ("low ephemeral ports", (1024, 20000), Some((20001, 65535))),
            ("all of it", (1024, 65535), None),
            ("more than all of it", (1, 65535), None),
            ("all but the first", (1025, 65535), Some((1024, 1024))),
            ("all but the last", (1024, 65534), Some((65535, 65535))),
            ("below 1024 only", (100, 200), Some((1024, 65535))),
            ("up to 1023", (100, 1023), Some((1024, 65535))),
            ("equal parts", (1025, 65534), Some((1024, 1024))),
            (
                "upper is larger by one",
                (1025, 65533),
                Some((65534, 65535)),
            ),
            ("up to the end", (40000, 65535), Some((1024, 39999))),
            ("reversed", (60999, 32768), Some((1024, 32767))),
            ("one port", (2000, 2000), Some((2001, 65535))),
            ("zero", (0, 0), Some((1024, 65535))),
        ] {
            assert_eq!(auto_range(local), want, "{case}");
        }
    }

    #[test]
    fn auto_range_never_meets_the_local_range() {
        for low in (0..=u16::MAX).step_by(257) {
            for high in (low..=u16::MAX).step_by(509) {
                if let Some((first, last)) = auto_range((low, high)) {
                    assert!(FIRST_PORT <= first && first <= last, "{low}-{high}");
                    assert!(last < low || first > high, "{low}-{high}");
                }
            }
        }
    }

    #[test]
    fn lengths() {
        assert_eq!(range_len((1024, 65535)), 64_512);
        assert_eq!(range_len((5, 5)), 1);
        assert_eq!(range_len((0, 65535)), 65_536);
        assert_eq!(range_len((2, 1)), 0);
    }
}

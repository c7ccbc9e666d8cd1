//! Where a packet's way ends, with a stable number for each end.
//!
//! A number is never reused: a retired reason leaves a gap (39 was
//! `illegal_source`, which is `martian` and `own_source` now). `docs/drops.md`
//! explains each to operators, and a test keeps the two in step.

/// Slots of one interface's counters: every [`Verdict`] number is below this.
pub const SLOTS: u32 = 64;

macro_rules! verdicts {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $kind:ident, $label:literal;)*) => {
        /// The end of a packet's way through the datapath.
        #[repr(u8)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Verdict {
            $($(#[$doc])* $name = $number,)*
        }

        impl Verdict {
            /// Every verdict, in order of its number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Whether the packet is forwarded, given to the host or dropped.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }

            /// The `reason` label of the metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Translated and sent, or answered.
    Forward,
    /// Left to the host's stack.
    Pass,
    /// Gone, and counted.
    Drop,
}

verdicts! {
    /// Translated, out of the interface it came in.
    Tx = 0, Forward, "tx";
    /// Translated, out of another interface.
    Redirect = 1, Forward, "redirect";
    /// Answered with a RST.
    Answered = 2, Forward, "answered_reset";
    /// An echo request, answered.
    AnsweredEcho = 4, Forward, "answered_echo";
    /// Its time to live ended here, and its sender was told.
    AnsweredExpired = 5, Forward, "answered_ttl_exceeded";
    /// Bigger than the output link takes, and its sender was told.
    AnsweredTooBig = 6, Forward, "answered_too_big";

    /// Not an IP packet: ARP and the like.
    NotIp = 8, Pass, "not_ip";
    /// Of a family that is not wired.
    FamilyNotWired = 9, Pass, "family_not_wired";
    /// Neither a VIP nor a SNAT address.
    NotOurs = 10, Pass, "not_ours";
    /// To one of our addresses, but not TCP.
    NotTcp = 11, Pass, "not_tcp";
    /// To a port of a VIP that no cluster serves.
    Unserved = 12, Pass, "unserved_port";
    /// To a SNAT address that is the host's own, of no flow.
    HostSnat = 13, Pass, "snat_no_flow";
    /// Of no known flow, and `unknown: pass`.
    UnknownPass = 14, Pass, "unknown_flow";
    /// With a VLAN tag.
    Vlan = 15, Pass, "vlan";
    /// Of no known flow, and its cluster's state is `pass`.
    ClusterPass = 16, Pass, "cluster_pass";
    /// A fragment to a VIP that is not the host's, and `fragments: kernel`.
    FragmentPass = 20, Pass, "fragment";

    /// Not IP version 4 where the frame says so; or it could not be rewritten.
    Malformed = 24, Drop, "malformed";
    /// A fragment to one of our addresses.
    Fragment = 25, Drop, "fragment";
    /// Its time to live ends here.
    TtlExceeded = 26, Drop, "ttl_exceeded";
    /// Of no known flow, and opening none.
    UnknownFlow = 27, Drop, "unknown_flow";
    /// No backend is ready.
    NoBackend = 28, Drop, "no_backend";
    /// The cluster is at its limit.
    Limit = 29, Drop, "limit";
    /// Every SNAT port towards the backend is in use.
    SnatExhausted = 30, Drop, "snat_exhausted";
    /// No room for another destination in the SNAT tables.
    SnatTableFull = 31, Drop, "snat_table_full";
    /// The flow map took no more entries.
    FlowTableFull = 32, Drop, "flow_table_full";
    /// The next hop's MAC address is not known yet.
    NoNeighbor = 33, Drop, "no_neighbor";
    /// There is no route.
    NoRoute = 34, Drop, "no_route";
    /// No room for another next hop.
    NextHopTableFull = 35, Drop, "next_hop_table_full";
    /// The output interface does not take redirected packets.
    NoEgress = 36, Drop, "no_egress";
    /// The maps contradict each other; a defect or a half-applied change.
    Inconsistent = 37, Drop, "inconsistent";
    /// Two CPUs opened the same flow at once; the client's retransmission is served.
    Race = 38, Drop, "race";
    /// A reset would have been due, but the rate is used up.
    ResetLimited = 40, Drop, "reset_limited";
    /// The unserved port of a VIP, and `unserved: drop`.
    UnservedDrop = 41, Drop, "unserved_port";
    /// No room in front of the frame for the VLAN tags of its next hop.
    NoTagRoom = 42, Drop, "no_tag_room";
    /// Longer than the next hop takes.
    TooBig = 43, Drop, "too_big";
    /// The cluster keeps its source out.
    Denied = 44, Drop, "deny";
    /// More new connections to the cluster than in its `new_connections`.
    RateTotal = 45, Drop, "rate_total";
    /// More new connections of one source than in `new_connections`.
    RateSource = 46, Drop, "rate_source";
    /// From a source that no host can have (RFC 1122 section 3.2.1.3).
    Martian = 50, Drop, "martian";
    /// From a VIP or a SNAT address: one of our own.
    OwnSource = 51, Drop, "own_source";
    /// A length that contradicts the frame's or another one.
    BadLength = 52, Drop, "bad_length";
    /// The host's, if the address were: it would send the packet on.
    NotLocal = 53, Drop, "not_local";
    /// A RST to a SNAT address that is not the host's, of no flow.
    SnatNoFlow = 54, Drop, "snat_no_flow";
    /// An ICMP error about no flow of ours.
    IcmpUnknown = 55, Drop, "icmp_unknown_flow";
    /// An ICMP error would have been due, but the rate is used up.
    IcmpLimited = 56, Drop, "icmp_limited";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_fit() {
        for pair in Verdict::ALL.windows(2) {
            assert!((pair[0] as u8) < (pair[1] as u8), "{pair:?}");
        }
        assert!(Verdict::ALL.iter().all(|v| (*v as u32) < SLOTS));
    }

    #[test]
    fn labels_are_unique_within_a_kind() {
        for a in Verdict::ALL {
            for b in Verdict::ALL {
                if a != b && a.kind() == b.kind() {
                    assert_ne!(a.label(), b.label());
                }
            }
        }
    }

    #[test]
    fn every_reason_is_documented() {
        let page = include_str!("../../docs/drops.md");
        for verdict in Verdict::ALL {
            let row = format!("| {} | `{}` |", *verdict as u8, verdict.label());
            assert!(page.contains(&row), "docs/drops.md lacks the row {row}");
        }
    }
}

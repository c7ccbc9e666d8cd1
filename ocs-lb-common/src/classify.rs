//! Step two, for packets of no flow: whose are they?

use crate::abi::{AddressFlags, Cluster, ClusterState, Service, Unknown, Unserved};
use crate::address::Address;
use crate::verdict::Verdict;
use crate::wire::Flags;

/// Where a packet of no flow belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// To a served port: it may open a flow.
    Served(Service),
    /// It ends here.
    Ends(Verdict),
    /// It is to be answered with a RST.
    Reset,
}

/// Classifies by the results of the address and the service lookup.
///
/// Where an address is a VIP and a SNAT address, an unserved port is the
/// host's or nobody's; the host answers for its own (design 3.5).
#[inline(always)]
pub fn classify(address: Option<AddressFlags>, service: Option<Service>, flags: Flags) -> Class {
    let Some(address) = address else {
        return Class::Ends(Verdict::NotOurs);
    };
    if let Some(service) = service {
        return Class::Served(service);
    }
    if !address.any(AddressFlags::VIP) {
        return Class::Ends(Verdict::HostSnat);
    }
    match address.unserved {
        // A RST is never answered (RFC 9293 3.5.2).
        u if u == Unserved::Reset as u8 && flags.any(Flags::RST) => {
            Class::Ends(Verdict::UnservedDrop)
        }
        u if u == Unserved::Reset as u8 => Class::Reset,
        u if u == Unserved::Drop as u8 => Class::Ends(Verdict::UnservedDrop),
        _ => Class::Ends(Verdict::Unserved),
    }
}

/// Whether a packet may come from `source`. `known` is what the address lookup
/// tells of it: no client has a VIP or a SNAT address, and an answer to one
/// would come back to ourselves.
#[inline(always)]
pub fn is_client<A: Address>(source: &A, known: Option<AddressFlags>) -> bool {
    let ours = AddressFlags::VIP | AddressFlags::SNAT;
    source.is_client() && !known.is_some_and(|flags| flags.any(ours))
}

/// What a packet to a served port means when no flow knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoFlow {
    /// It opens one.
    Open,
    /// It ends here.
    Ends(Verdict),
    /// It is to be answered with a RST, so that the client reconnects at once.
    Reset,
}

/// A live flow is never re-allocated: only a SYN opens one, everything else
/// follows the cluster's `unknown`. A RST is never answered (RFC 9293 3.5.2).
/// Where the cluster is in `pass`, both are another's connections.
#[inline(always)]
pub fn without_flow(flags: Flags, cluster: &Cluster) -> NoFlow {
    if cluster.state == ClusterState::Pass as u8 {
        return NoFlow::Ends(Verdict::ClusterPass);
    }
    if flags.is_open() {
        return NoFlow::Open;
    }
    match cluster.unknown {
        u if u == Unknown::Pass as u8 => NoFlow::Ends(Verdict::UnknownPass),
        u if u == Unknown::Drop as u8 => NoFlow::Ends(Verdict::UnknownFlow),
        _ if flags.any(Flags::RST) => NoFlow::Ends(Verdict::UnknownFlow),
        _ => NoFlow::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(bits: u16, unserved: Unserved) -> Option<AddressFlags> {
        Some(AddressFlags {
            bits,
            unserved: unserved as u8,
            pad: 0,
        })
    }

    #[test]
    fn classes() {
        let service = Service {
            cluster: 3,
            ..Service::default()
        };
        let vip = AddressFlags::VIP;
        let both = vip | AddressFlags::SNAT;
        let cases = [
            (None, None, Class::Ends(Verdict::NotOurs)),
            (
                flags(vip, Unserved::Pass),
                Some(service),
                Class::Served(service),
            ),
            (
                flags(vip, Unserved::Pass),
                None,
                Class::Ends(Verdict::Unserved),
            ),
            (flags(vip, Unserved::Reset), None, Class::Reset),
            (
                flags(vip, Unserved::Drop),
                None,
                Class::Ends(Verdict::UnservedDrop),
            ),
            (
                flags(both, Unserved::Pass),
                None,
                Class::Ends(Verdict::Unserved),
            ),
            (
                flags(AddressFlags::SNAT, Unserved::Reset),
                None,
                Class::Ends(Verdict::HostSnat),
            ),
        ];
        for (address, service, class) in cases {
            let is = classify(address, service, Flags(Flags::SYN));
            assert_eq!(is, class, "{address:?}");
        }
        assert_eq!(
            classify(flags(vip, Unserved::Reset), None, Flags(Flags::RST)),
            Class::Ends(Verdict::UnservedDrop)
        );
    }

    #[test]
    fn no_client_has_our_address() {
        let client = crate::address::V4([192, 0, 2, 10]);
        assert!(is_client(&client, None));
        assert!(is_client(
            &client,
            flags(AddressFlags::HOST, Unserved::Pass)
        ));
        assert!(!is_client(
            &client,
            flags(AddressFlags::VIP, Unserved::Pass)
        ));
        assert!(!is_client(
            &client,
            flags(AddressFlags::SNAT, Unserved::Pass)
        ));
        assert!(!is_client(&crate::address::V4([127, 0, 0, 1]), None));
    }

    #[test]
    fn only_a_syn_opens() {
        let (syn, ack, rst) = (Flags(Flags::SYN), Flags(Flags::ACK), Flags(Flags::RST));
        let by = |flags, unknown, state| {
            let cluster = Cluster {
                unknown: unknown as u8,
                state: state as u8,
                ..Cluster::default()
            };
            without_flow(flags, &cluster)
        };
        let ready = |flags, unknown| by(flags, unknown, ClusterState::Ready);
        assert_eq!(ready(syn, Unknown::Drop), NoFlow::Open);
        assert_eq!(ready(ack, Unknown::Reset), NoFlow::Reset);
        assert_eq!(
            ready(rst, Unknown::Reset),
            NoFlow::Ends(Verdict::UnknownFlow),
            "a reset is never answered with a reset"
        );
        assert_eq!(
            ready(ack, Unknown::Pass),
            NoFlow::Ends(Verdict::UnknownPass)
        );
        for flags in [syn, ack, rst] {
            assert_eq!(
                by(flags, Unknown::Reset, ClusterState::Pass),
                NoFlow::Ends(Verdict::ClusterPass)
            );
        }
    }
}

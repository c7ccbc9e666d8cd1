//! Step two, for packets of no flow: whose are they?
//!
//! What is the host's goes to its stack only where the address is one of its
//! own: it would route anything else, out again or back to us (design 3.5).

use crate::abi::{
    ANY_PORT, AddressFlags, Cluster, ClusterState, RefuseAction, Service, ServiceKey, Unknown,
    Unserved, choice,
};
use crate::access::NONE;
use crate::address::Address;
use crate::verdict::Verdict;
use crate::wire::Flags;

/// Where a packet of no flow belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// To a served port of that address: it may open a flow.
    Served(Service, AddressFlags),
    /// It ends here.
    Ends(Verdict),
    /// It is to be answered with a RST.
    Reset,
}

/// Who serves a packet from `source` to one of our addresses: the port's own
/// cluster, or of several the one that the source's longest prefix gives; where
/// none does, that of any port, if the address has such a one (`any`).
///
/// `get` looks a service up, `listed` a source's value in a list.
#[inline(always)]
pub fn service<A: Address>(
    to: ServiceKey<A>,
    any: bool,
    source: &A,
    get: impl Fn(&ServiceKey<A>) -> Option<Service>,
    listed: impl Fn(u16, &A) -> u32,
) -> Option<Service> {
    of_port(to, any, &get, |service| listed(service.access, source))
}

/// The same for a flow that a cluster has.
#[inline(always)]
pub fn service_of<A: Address>(
    to: ServiceKey<A>,
    cluster: u16,
    get: impl Fn(&ServiceKey<A>) -> Option<Service>,
) -> Option<Service> {
    of_port(to, true, &get, |_| choice(cluster).map_or(NONE, u32::from))
}

/// By numbers, as the verifier refuses a register that holds nothing.
#[inline(always)]
fn of_port<A: Address>(
    to: ServiceKey<A>,
    any: bool,
    get: &impl Fn(&ServiceKey<A>) -> Option<Service>,
    choose: impl Fn(Service) -> u32,
) -> Option<Service> {
    let code = |key: &ServiceKey<A>| get(key).map_or(0, Service::code);
    let of = |key: ServiceKey<A>| match Service::from_code(code(&key)) {
        Some(service) if service.is(Service::BY_SOURCE) => match choose(service) {
            NONE => 0,
            value => code(&key.chosen(value)),
        },
        Some(service) => service.code(),
        None => 0,
    };
    if to.port == ANY_PORT {
        return None;
    }
    let mut found = of(to);
    if found == 0 && any {
        found = of(ServiceKey {
            port: ANY_PORT,
            ..to
        });
    }
    Service::from_code(found)
}

/// Classifies by the results of the address and the service lookup.
///
/// Where an address is a VIP and a SNAT address, an unserved port is the
/// host's or nobody's; the host answers for its own (design 3.5). On a SNAT
/// address that is not the host's, we answer (design 3.2).
#[inline(always)]
pub fn classify(address: Option<AddressFlags>, service: Option<Service>, flags: Flags) -> Class {
    let Some(address) = address else {
        return Class::Ends(Verdict::NotOurs);
    };
    if let Some(service) = service {
        return Class::Served(service, address);
    }
    // A RST is never answered (RFC 9293 3.5.2).
    let is_reset = flags.any(Flags::RST);
    if !address.any(AddressFlags::VIP) {
        return if address.any(AddressFlags::HOST) {
            Class::Ends(Verdict::HostSnat)
        } else if is_reset {
            Class::Ends(Verdict::SnatNoFlow)
        } else {
            Class::Reset
        };
    }
    match address.unserved {
        u if u == Unserved::Reset as u8 && !is_reset => Class::Reset,
        u if u == Unserved::Pass as u8 => Class::Ends(to_host(address, Verdict::Unserved)),
        _ => Class::Ends(Verdict::UnservedDrop),
    }
}

/// The end of what is the host's: `verdict`, a pass, where `address` is.
#[inline(always)]
const fn to_host(address: AddressFlags, verdict: Verdict) -> Verdict {
    if address.any(AddressFlags::HOST) {
        verdict
    } else {
        Verdict::NotLocal
    }
}

/// Whether a packet to one of our addresses may come from `source`. `known` is
/// what the address lookup tells of it: no host has a VIP or a SNAT address,
/// and an answer to one would come back to ourselves. What a flow knows was
/// looked at when it opened the flow.
///
/// An address that ends in zero may be a host's: the lowest of a network is one
/// since Linux 5.14 (`net/ipv4/fib_frontend.c`).
///
/// # Errors
/// [`Verdict::Martian`] or [`Verdict::OwnSource`].
#[inline(always)]
pub fn source<A: Address>(source: &A, known: Option<AddressFlags>) -> Result<(), Verdict> {
    if !source.is_client() {
        return Err(Verdict::Martian);
    }
    match known {
        Some(flags) if flags.any(AddressFlags::VIP | AddressFlags::SNAT) => Err(Verdict::OwnSource),
        _ => Ok(()),
    }
}

/// The end of a packet that is not a whole TCP packet (see
/// [`Odd::IfOurs`](crate::parse::Odd::IfOurs)), to one of our addresses.
#[inline(always)]
pub const fn odd(verdict: Verdict, address: AddressFlags) -> Verdict {
    match verdict {
        Verdict::NotTcp => to_host(address, verdict),
        // With the address local, the host answers a fragment with a RST that
        // ends the call (design 3.4).
        Verdict::Fragment
            if address.any(AddressFlags::FRAGMENTS) && !address.any(AddressFlags::HOST) =>
        {
            Verdict::FragmentPass
        }
        _ => verdict,
    }
}

/// What a packet to a served port means when no flow knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoFlow {
    /// It opens one.
    Open,
    /// Its source is kept out: see [`kept_out`].
    Denied,
    /// It ends here.
    Ends(Verdict),
    /// It is to be answered with a RST, so that the client reconnects at once.
    Reset,
}

/// A live flow is never re-allocated: only a SYN opens one, everything else
/// follows the cluster's `unknown`. A RST is never answered (RFC 9293 3.5.2).
/// Where the cluster is in `pass`, both are another's connections. `address` is
/// what the destination is, `allowed` whether the source is let in.
#[inline(always)]
pub fn without_flow(
    flags: Flags,
    cluster: &Cluster,
    address: AddressFlags,
    allowed: bool,
) -> NoFlow {
    if cluster.state == ClusterState::Pass as u8 {
        return NoFlow::Ends(to_host(address, Verdict::ClusterPass));
    }
    if !allowed {
        return NoFlow::Denied;
    }
    if flags.is_open() {
        return NoFlow::Open;
    }
    match cluster.unknown {
        u if u == Unknown::Pass as u8 => NoFlow::Ends(to_host(address, Verdict::UnknownPass)),
        u if u == Unknown::Drop as u8 => NoFlow::Ends(Verdict::UnknownFlow),
        _ if flags.any(Flags::RST) => NoFlow::Ends(Verdict::UnknownFlow),
        _ => NoFlow::Reset,
    }
}

/// How the refusal of a source that is kept out looks.
#[inline(always)]
pub const fn kept_out(flags: Flags, cluster: &Cluster) -> RefuseAction {
    if cluster.refuse_deny == RefuseAction::Reset as u8 && !flags.any(Flags::RST) {
        RefuseAction::Reset
    } else {
        RefuseAction::Drop
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::address::{Be16, V4};

    const VIP: u16 = AddressFlags::VIP;
    const SNAT: u16 = AddressFlags::SNAT;
    const HOST: u16 = AddressFlags::HOST;
    const FRAGMENTS: u16 = AddressFlags::FRAGMENTS;

    fn flags(bits: u16, unserved: Unserved) -> AddressFlags {
        AddressFlags {
            bits,
            unserved: unserved as u8,
            pad: 0,
        }
    }

    fn bits(bits: u16) -> AddressFlags {
        flags(bits, Unserved::Pass)
    }

    #[test]
    fn classes() {
        use Class::{Ends, Reset};
        use Unserved::{Drop as Silent, Pass, Reset as Answer};

        // (bits, unserved, what a SYN meets, what a RST meets)
        let unserved = Ends(Verdict::Unserved);
        let dropped = Ends(Verdict::UnservedDrop);
        let not_local = Ends(Verdict::NotLocal);
        let snat = Ends(Verdict::HostSnat);
        let no_flow = Ends(Verdict::SnatNoFlow);
        let cases = [
            (VIP | HOST, Pass, unserved, unserved),
            (VIP | HOST, Answer, Reset, dropped),
            (VIP | HOST, Silent, dropped, dropped),
            (VIP, Pass, not_local, not_local),
            (VIP, Answer, Reset, dropped),
            (VIP, Silent, dropped, dropped),
            (VIP | SNAT | HOST, Pass, unserved, unserved),
            (VIP | SNAT, Pass, not_local, not_local),
            (SNAT | HOST, Pass, snat, snat),
            (SNAT | HOST, Answer, snat, snat),
            (SNAT, Pass, Reset, no_flow),
            (SNAT, Silent, Reset, no_flow),
        ];
        for (bits, unserved, syn, rst) in cases {
            let address = flags(bits, unserved);
            let by = |flags| classify(Some(address), None, Flags(flags));
            assert_eq!(by(Flags::SYN), syn, "{bits:#x}, {unserved:?}");
            assert_eq!(by(Flags::ACK), syn, "{bits:#x}, {unserved:?}");
            assert_eq!(by(Flags::RST), rst, "{bits:#x}, {unserved:?}");
            let service = Service {
                cluster: 3,
                ..Service::default()
            };
            let served = classify(Some(address), Some(service), Flags(Flags::SYN));
            assert_eq!(served, Class::Served(service, address));
        }
        assert_eq!(
            classify(None, None, Flags(Flags::SYN)),
            Ends(Verdict::NotOurs)
        );
    }

    #[test]
    fn sources() {
        let host = |last| V4([192, 0, 2, last]);
        let cases = [
            (host(10), None, Ok(())),
            (host(10), Some(bits(HOST)), Ok(())),
            (host(0), None, Ok(())),
            (V4([223, 255, 255, 255]), None, Ok(())),
            (host(1), Some(bits(VIP)), Err(Verdict::OwnSource)),
            (host(1), Some(bits(SNAT | HOST)), Err(Verdict::OwnSource)),
            (V4([0, 0, 0, 0]), None, Err(Verdict::Martian)),
            (V4([0, 1, 2, 3]), None, Err(Verdict::Martian)),
            (V4([127, 0, 0, 1]), None, Err(Verdict::Martian)),
            (V4([224, 0, 0, 5]), None, Err(Verdict::Martian)),
            (V4([240, 0, 0, 1]), None, Err(Verdict::Martian)),
            (V4([255; 4]), None, Err(Verdict::Martian)),
        ];
        for (address, known, wanted) in cases {
            assert_eq!(source(&address, known), wanted, "{address:?}");
        }
    }

    #[test]
    fn odd_packets() {
        let (fragment, pass) = (Verdict::Fragment, Verdict::FragmentPass);
        let cases = [
            (Verdict::NotTcp, VIP | HOST, Verdict::NotTcp),
            (Verdict::NotTcp, SNAT | HOST, Verdict::NotTcp),
            (Verdict::NotTcp, VIP, Verdict::NotLocal),
            (Verdict::NotTcp, SNAT | FRAGMENTS, Verdict::NotLocal),
            (fragment, VIP, fragment),
            (fragment, VIP | HOST, fragment),
            (fragment, VIP | HOST | FRAGMENTS, fragment),
            (fragment, VIP | FRAGMENTS, pass),
            (Verdict::BadLength, VIP | HOST, Verdict::BadLength),
            (Verdict::Malformed, VIP | FRAGMENTS, Verdict::Malformed),
        ];
        for (verdict, is, wanted) in cases {
            assert_eq!(odd(verdict, bits(is)), wanted, "{verdict:?} {is:#x}");
        }
    }

    #[test]
    fn only_a_syn_opens() {
        let (syn, ack, rst) = (Flags(Flags::SYN), Flags(Flags::ACK), Flags(Flags::RST));
        let by = |flags, unknown, state, address| {
            let cluster = Cluster {
                unknown: unknown as u8,
                state: state as u8,
                ..Cluster::default()
            };
            without_flow(flags, &cluster, bits(address), true)
        };
        let ready = |flags, unknown| by(flags, unknown, ClusterState::Ready, VIP | HOST);
        let away = |flags, unknown| by(flags, unknown, ClusterState::Ready, VIP);
        for unknown in [Unknown::Reset, Unknown::Drop, Unknown::Pass] {
            assert_eq!(ready(syn, unknown), NoFlow::Open, "{unknown:?}");
            assert_eq!(away(syn, unknown), NoFlow::Open, "{unknown:?}");
        }
        let unknown = NoFlow::Ends(Verdict::UnknownFlow);
        assert_eq!(ready(ack, Unknown::Reset), NoFlow::Reset);
        assert_eq!(ready(rst, Unknown::Reset), unknown, "never answered");
        assert_eq!(ready(ack, Unknown::Drop), unknown);
        assert_eq!(ready(rst, Unknown::Drop), unknown);
        let pass = NoFlow::Ends(Verdict::UnknownPass);
        let not_local = NoFlow::Ends(Verdict::NotLocal);
        for flags in [ack, rst] {
            assert_eq!(ready(flags, Unknown::Pass), pass);
            assert_eq!(away(flags, Unknown::Pass), not_local);
        }
        let pass = NoFlow::Ends(Verdict::ClusterPass);
        for flags in [syn, ack, rst] {
            let by = |address| by(flags, Unknown::Reset, ClusterState::Pass, address);
            assert_eq!(by(VIP | HOST), pass);
            assert_eq!(by(VIP), not_local);
        }
    }

    #[test]
    fn who_is_kept_out() {
        let (syn, ack, rst) = (Flags(Flags::SYN), Flags(Flags::ACK), Flags(Flags::RST));
        let mut cluster = Cluster {
            unknown: Unknown::Pass as u8,
            ..Cluster::default()
        };
        for flags in [syn, ack, rst] {
            let met = without_flow(flags, &cluster, bits(VIP | HOST), false);
            assert_eq!(met, NoFlow::Denied, "whatever it is");
            assert_eq!(kept_out(flags, &cluster), RefuseAction::Drop);
        }
        cluster.refuse_deny = RefuseAction::Reset as u8;
        assert_eq!(kept_out(syn, &cluster), RefuseAction::Reset);
        assert_eq!(kept_out(ack, &cluster), RefuseAction::Reset);
        assert_eq!(
            kept_out(rst, &cluster),
            RefuseAction::Drop,
            "never answered"
        );
        cluster.state = ClusterState::Pass as u8;
        let met = without_flow(syn, &cluster, bits(VIP | HOST), false);
        assert_eq!(met, NoFlow::Ends(Verdict::ClusterPass), "the host's to say");
    }

    #[test]
    fn who_serves_a_port() {
        let vip = V4([192, 0, 2, 1]);
        let key = |port| ServiceKey::tcp(vip, Be16::new(port));
        let of = |cluster, port| Service::of(cluster, Be16::new(port));
        let by_source = |access| Service {
            access,
            flags: Service::BY_SOURCE,
            ..Service::default()
        };
        let services = HashMap::from([
            (key(443), of(1, 4443)),
            // 5061: lists 7, clusters 2 and 3. Any other: list 8, cluster 3.
            (key(5061), by_source(7)),
            (key(5061).chosen(3), of(2, 5061)),
            (key(5061).chosen(4), of(3, 6061)),
            (key(0), by_source(8)),
            (key(0).chosen(4), of(3, 0)),
        ]);
        let listed = |list, source: &V4| match (list, source.0) {
            (7, [10, ..]) => 3,
            (7, [11, ..]) => 4,
            (8, [11 | 12, ..]) => 4,
            _ => NONE,
        };
        let get = |key: &ServiceKey<V4>| services.get(key).copied();
        let find = |port, any, first| {
            let found = service(key(port), any, &V4([first, 0, 0, 1]), get, listed);
            found.map(|found| (found.cluster, found.target(Be16::new(port)).get()))
        };
        for (port, any, first, wanted) in [
            (443, true, 99, Some((1, 4443))),
            (5061, false, 10, Some((2, 5061))),
            (5061, false, 11, Some((3, 6061))),
            (5061, false, 12, None),
            // The port's own clusters do not cover it; that of any port does.
            (5061, true, 12, Some((3, 5061))),
            (5061, true, 13, None),
            (80, true, 11, Some((3, 80))),
            (80, false, 11, None),
            (80, true, 10, None),
            (0, true, 11, None),
        ] {
            assert_eq!(find(port, any, first), wanted, "{port} from {first}");
        }
        let find = |port, cluster| {
            let found = service_of(key(port), cluster, get);
            found.map(|found| (found.cluster, found.target(Be16::new(port)).get()))
        };
        assert_eq!(find(5061, 3), Some((3, 6061)));
        assert_eq!(find(80, 3), Some((3, 80)));
        assert_eq!(find(80, 2), None);
    }
}

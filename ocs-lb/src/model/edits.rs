//! From a model and what the network says, to the datapath's maps: pure.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ocs_lb_common::abi::{
    self, ACCESS_LISTS, AddressFlags, SNAT_ADDRESSES, Service, ServiceKey, backend_index, choice,
};
use ocs_lb_common::access::Cell;
use ocs_lb_common::address::{Be16, V4};

use super::lists::{Ranges, allowed, cells, chosen};
use super::{Cluster, Fragments, Model, Port, Prefix, Unserved};

/// One write to a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapEdit {
    /// One of our addresses.
    Address(V4, AddressFlags),
    /// A list of sources: the number that services of the same edits have for
    /// it, from 1 on, and its cells.
    List(u16, Arc<[Cell<V4>]>),
    /// A served port.
    Service(ServiceKey<V4>, Service),
    /// A backend's record, by [`backend_index`].
    Backend(u32, abi::Backend<V4>),
}

/// What the network says of one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Source addresses for its flows.
    pub snat: Vec<Ipv4Addr>,
    /// First and last source port.
    pub ports: (u16, u16),
    /// Index of its next hop.
    pub next_hop: u16,
}

/// Why a model does not fit this host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// More addresses than a backend's record holds.
    #[error("cluster {cluster}: {count} SNAT addresses; allowed: at most {SNAT_ADDRESSES}")]
    SnatAddresses {
        /// The cluster.
        cluster: String,
        /// How many it has.
        count: usize,
    },
    /// More lists than the datapath has room for.
    #[error(
        "more than {} different lists of `from`, `allow` and `deny`; allowed: at most that many",
        ACCESS_LISTS - 1
    )]
    Lists,
    /// A cluster whose id cannot be chosen.
    #[error("cluster {0} is the 256th, which `from` cannot choose; allowed: the first 255")]
    Choice(String),
    /// Every port of an address is served, and it is to give SNAT ports too.
    #[error(
        "cluster {cluster} serves any port of {address}, which is also a SNAT address: \
         no port is left there; allowed: another SNAT address"
    )]
    AnyIsSnat {
        /// The cluster.
        cluster: String,
        /// The address.
        address: Ipv4Addr,
    },
    /// IPv6, which is not wired.
    #[error("{0} is IPv6, which this version does not serve")]
    Family(IpAddr),
}

/// Every write that makes empty maps serve the model. `reach` has a row for
/// each cluster and an entry for each of its backends.
///
/// # Errors
/// [`PlanError`]: nothing may be written then.
pub fn plan(
    model: &Model,
    reach: &[Vec<Reach>],
    host: &[Ipv4Addr],
) -> Result<Vec<MapEdit>, PlanError> {
    let mut addresses: BTreeMap<V4, AddressFlags> = BTreeMap::new();
    let mut edits = Vec::new();
    for (id, (cluster, reach)) in model.clusters.iter().zip(reach).enumerate() {
        for (slot, (backend, reach)) in cluster.backends.iter().zip(reach).enumerate() {
            let record = record(cluster, v4(backend.address)?, backend.port, reach)?;
            edits.push(MapEdit::Backend(
                backend_index(id as u16, slot as u16),
                record,
            ));
            for snat in &reach.snat {
                addresses.entry(V4(snat.octets())).or_default().bits |= AddressFlags::SNAT;
            }
        }
        for vip in &cluster.vips {
            let address = v4(vip.address)?;
            let flags = addresses.entry(address).or_default();
            flags.bits |= AddressFlags::VIP;
            if cluster.fragments == Fragments::Kernel {
                flags.bits |= AddressFlags::FRAGMENTS;
            }
            flags.unserved = unserved(cluster.unserved, is_host(address, host)) as u8;
            if cluster.ports.iter().any(|port| port.listen == Port::ANY) {
                flags.bits |= AddressFlags::ANY;
            }
        }
    }
    any_is_no_snat(model, &addresses)?;
    edits.extend(services(model)?);
    // Addresses last: a packet meets a service only once its address is ours.
    for (address, mut flags) in addresses {
        if is_host(address, host) {
            flags.bits |= AddressFlags::HOST;
            flags.bits &= !AddressFlags::FRAGMENTS;
        }
        edits.push(MapEdit::Address(address, flags));
    }
    Ok(edits)
}

fn any_is_no_snat(model: &Model, addresses: &BTreeMap<V4, AddressFlags>) -> Result<(), PlanError> {
    for cluster in &model.clusters {
        if !cluster.ports.iter().any(|port| port.listen == Port::ANY) {
            continue;
        }
        for vip in &cluster.vips {
            let address = v4(vip.address)?;
            let flags = addresses.get(&address).copied().unwrap_or_default();
            if flags.any(AddressFlags::SNAT) {
                return Err(PlanError::AnyIsSnat {
                    cluster: cluster.name.clone(),
                    address: Ipv4Addr::from(address.0),
                });
            }
        }
    }
    Ok(())
}

/// Lists that services share, each once.
#[derive(Default)]
struct Lists {
    edits: Vec<MapEdit>,
    numbers: HashMap<Ranges, u16>,
    /// By cluster id and [`Port::access`].
    allowed: HashMap<(usize, u16), u16>,
    /// By the ids of the clusters that are chosen from.
    chosen: HashMap<Vec<usize>, u16>,
}

impl Lists {
    fn number(&mut self, ranges: Ranges) -> Result<u16, PlanError> {
        if let Some(number) = self.numbers.get(&ranges) {
            return Ok(*number);
        }
        let number = self.numbers.len() as u32 + 1;
        if number >= ACCESS_LISTS {
            return Err(PlanError::Lists);
        }
        let number = number as u16;
        self.edits
            .push(MapEdit::List(number, cells(&ranges).into()));
        self.numbers.insert(ranges, number);
        Ok(number)
    }

    /// Who is let in on a port of a cluster; 0 is everyone.
    fn allowed(&mut self, id: usize, cluster: &Cluster, access: u16) -> Result<u16, PlanError> {
        if let Some(number) = self.allowed.get(&(id, access)) {
            return Ok(*number);
        }
        let number = match allowed(cluster.access.allow(access), &cluster.access.deny)? {
            Some(ranges) => self.number(ranges)?,
            None => 0,
        };
        self.allowed.insert((id, access), number);
        Ok(number)
    }

    /// Which of these clusters serves whom.
    fn chosen(&mut self, model: &Model, ids: Vec<usize>) -> Result<u16, PlanError> {
        if let Some(number) = self.chosen.get(&ids) {
            return Ok(*number);
        }
        let mut prefixes = Vec::new();
        for id in &ids {
            let cluster = &model.clusters[*id];
            let value =
                choice(*id as u16).ok_or_else(|| PlanError::Choice(cluster.name.clone()))?;
            let from = match cluster.access.from.as_slice() {
                [] => &[Prefix::EVERYONE][..],
                from => from,
            };
            prefixes.extend(from.iter().map(|prefix| (prefix, u32::from(value))));
        }
        let number = self.number(chosen(prefixes.into_iter())?)?;
        self.chosen.insert(ids, number);
        Ok(number)
    }
}

/// Lists and services: a port of a VIP that one cluster serves for everyone is
/// one service; otherwise one of each cluster, and one that chooses.
fn services(model: &Model) -> Result<Vec<MapEdit>, PlanError> {
    let mut ports: BTreeMap<ServiceKey<V4>, Vec<(usize, Port)>> = BTreeMap::new();
    for (id, cluster) in model.clusters.iter().enumerate() {
        for vip in &cluster.vips {
            let address = v4(vip.address)?;
            for port in &cluster.ports {
                let key = ServiceKey::tcp(address, Be16::new(port.listen));
                ports.entry(key).or_default().push((id, *port));
            }
        }
    }
    let mut lists = Lists::default();
    let mut edits = Vec::new();
    for (key, served) in ports {
        let mut of = |id: usize, port: Port| {
            Ok(Service {
                access: lists.allowed(id, &model.clusters[id], port.access)?,
                ..Service::of(id as u16, Be16::new(port.target))
            })
        };
        if let [(id, port)] = served[..]
            && model.clusters[id].access.from.is_empty()
        {
            edits.push(MapEdit::Service(key, of(id, port)?));
            continue;
        }
        let mut ids = Vec::new();
        for (id, port) in served {
            let name = || PlanError::Choice(model.clusters[id].name.clone());
            let value = choice(id as u16).ok_or_else(name)?;
            edits.push(MapEdit::Service(key.chosen(value.into()), of(id, port)?));
            ids.push(id);
        }
        let chooses = Service {
            access: lists.chosen(model, ids)?,
            flags: Service::BY_SOURCE,
            ..Service::default()
        };
        edits.push(MapEdit::Service(key, chooses));
    }
    // A service finds its list.
    lists.edits.extend(edits);
    Ok(lists.edits)
}

/// VIPs whose `fragments: kernel` has no effect on this host: with the address
/// local, its stack would answer a fragment of a flow with a RST.
pub fn fragments_not_passed<'a>(
    model: &'a Model,
    host: &'a [Ipv4Addr],
) -> impl Iterator<Item = (&'a str, IpAddr)> {
    let clusters = model.clusters.iter();
    clusters
        .filter(|cluster| cluster.fragments == Fragments::Kernel)
        .flat_map(|cluster| cluster.vips.iter().map(|vip| (&*cluster.name, vip.address)))
        .filter(|(_, vip)| host.iter().any(|ip| IpAddr::V4(*ip) == *vip))
}

fn record(
    cluster: &Cluster,
    address: V4,
    port: Option<u16>,
    reach: &Reach,
) -> Result<abi::Backend<V4>, PlanError> {
    if reach.snat.len() > SNAT_ADDRESSES {
        return Err(PlanError::SnatAddresses {
            cluster: cluster.name.clone(),
            count: reach.snat.len(),
        });
    }
    let mut snat = [V4::default(); SNAT_ADDRESSES];
    for (to, from) in snat.iter_mut().zip(&reach.snat) {
        *to = V4(from.octets());
    }
    Ok(abi::Backend {
        address,
        port: Be16::new(port.unwrap_or(0)),
        next_hop: reach.next_hop,
        port_low: reach.ports.0,
        port_high: reach.ports.1,
        snat_len: reach.snat.len() as u16,
        pad: 0,
        snat,
    })
}

fn unserved(unserved: Unserved, is_host: bool) -> abi::Unserved {
    match unserved {
        Unserved::Pass => abi::Unserved::Pass,
        Unserved::Reset => abi::Unserved::Reset,
        Unserved::Drop => abi::Unserved::Drop,
        Unserved::Auto if is_host => abi::Unserved::Pass,
        Unserved::Auto => abi::Unserved::Reset,
    }
}

fn is_host(address: V4, host: &[Ipv4Addr]) -> bool {
    host.contains(&Ipv4Addr::from(address.0))
}

/// The IPv4 address of an [`IpAddr`].
///
/// # Errors
/// [`PlanError::Family`].
pub fn v4(address: IpAddr) -> Result<V4, PlanError> {
    match address {
        IpAddr::V4(ip) => Ok(V4(ip.octets())),
        IpAddr::V6(_) => Err(PlanError::Family(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const SNAT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    fn model(policy: &str) -> Model {
        let text = format!(
            "version: 1
clusters:
  - name: a
    vips: [192.0.2.1]
    ports: [443]
    {policy}
    slow_start: 0s
    backends: [{{name: b, address: 198.51.100.10}}]
"
        );
        parse(&text, "t.yaml").expect("a model").model
    }

    /// What the VIP and the SNAT address are, on a host with these addresses.
    fn addresses(policy: &str, host: &[Ipv4Addr]) -> [AddressFlags; 2] {
        let reach = vec![vec![Reach {
            snat: vec![SNAT],
            ports: (1024, 2047),
            next_hop: 1,
        }]];
        let edits = plan(&model(policy), &reach, host).expect("a plan");
        [VIP, SNAT].map(|wanted| {
            let mut found = edits.iter().filter_map(|edit| match edit {
                MapEdit::Address(address, flags) if address.0 == wanted.octets() => Some(*flags),
                _ => None,
            });
            found.next().expect("one of our addresses")
        })
    }

    #[test]
    fn unserved_by_whose_the_vip_is() {
        use abi::Unserved::{Drop, Pass, Reset};

        for (word, here, away) in [
            ("auto", Pass, Reset),
            ("pass", Pass, Pass),
            ("reset", Reset, Reset),
            ("drop", Drop, Drop),
        ] {
            let policy = format!("unserved: {word}");
            for (host, wanted, bits) in [
                (&[VIP, SNAT][..], here, AddressFlags::HOST),
                (&[SNAT][..], away, 0),
            ] {
                let [vip, snat] = addresses(&policy, host);
                assert_eq!(vip.unserved, wanted as u8, "{word}");
                assert_eq!(vip.bits, AddressFlags::VIP | bits, "{word}");
                assert_eq!(snat.bits, AddressFlags::SNAT | AddressFlags::HOST);
            }
        }
        let [_, exclusive] = addresses("unserved: auto", &[VIP]);
        assert_eq!(exclusive.bits, AddressFlags::SNAT);
    }

    #[test]
    fn fragments_go_to_the_kernel_only_where_the_vip_is_not_local() {
        for (word, host, passed, said) in [
            ("drop", &[VIP][..], false, 0),
            ("drop", &[][..], false, 0),
            ("kernel", &[VIP][..], false, 1),
            ("kernel", &[][..], true, 0),
        ] {
            let policy = format!("fragments: {word}");
            let [vip, snat] = addresses(&policy, host);
            assert_eq!(vip.any(AddressFlags::FRAGMENTS), passed, "{word}");
            assert!(!snat.any(AddressFlags::FRAGMENTS), "{word}");
            let model = model(&policy);
            assert_eq!(fragments_not_passed(&model, host).count(), said, "{word}");
        }
    }
}

//! What a configuration costs and carries: memory of the datapath's tables and
//! SNAT capacity. Arithmetic only; nothing is created.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use serde::Serialize;

use ocs_lb_common::abi::{self, Backend, ClusterLoad, NextHop, Pending, PortMap, Recount};
use ocs_lb_common::address::V4;

use super::sizes::Sizes;
use super::snat::{auto_range, range_len};
use super::{Cluster, Model, Port, Snat};

/// Flows that rest after their end, beyond the live limit.
pub const RESTING: u64 = 65_536;

/// Memory and capacity of one configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bill {
    /// One row a table.
    pub maps: Vec<MapRow>,
    /// Sum of `maps`, bytes.
    pub bytes: u64,
    /// One row for each backend and port of a cluster, in the order of the file.
    pub snat: Vec<SnatRow>,
}

/// Memory of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MapRow {
    /// Name of the map.
    pub map: &'static str,
    /// Entries the map is created with.
    pub entries: u64,
    /// Kernel memory it locks, bytes.
    pub bytes: u64,
}

/// How many flows can exist at once towards one port of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnatRow {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the backend.
    pub backend: String,
    /// Port on the backend, host order.
    pub port: u16,
    /// SNAT addresses in use towards it; `snat: auto` has one.
    pub addresses: u32,
    /// Ports of the range, for each address.
    pub ports_each: u32,
    /// Flows: `addresses x ports_each` less the served ports of those
    /// addresses. Clusters that share a backend's port and a SNAT address
    /// share this number.
    pub flows: u64,
}

/// Bytes of a preallocated hash or LRU hash map: 16 for each bucket (entries
/// rounded up to a power of two), 48 for each element's header, key and value
/// each rounded up to 8 (`kernel/bpf/hashtab.c`). Bookkeeping per CPU is left out.
pub fn hash_bytes(entries: u64, key: u64, value: u64) -> u64 {
    let buckets = entries.checked_next_power_of_two().unwrap_or(u64::MAX);
    let element = 48_u64
        .saturating_add(round8(key))
        .saturating_add(round8(value));
    16_u64
        .saturating_mul(buckets)
        .saturating_add(entries.saturating_mul(element))
}

fn round8(bytes: u64) -> u64 {
    bytes.saturating_add(7) & !7
}

/// Entries of the flow table: two for each live, half-open and resting flow.
pub fn flow_entries(model: &Model) -> u64 {
    let clusters = model.clusters.iter().filter(|cluster| !cluster.retired);
    let limits = clusters.map(|cluster| u64::from(cluster.max_connections));
    let live = model.tables.flows.map_or_else(|| limits.sum(), u64::from);
    2 * (live + u64::from(model.tables.half_open) + RESTING)
}

/// Every table of more than a few pages. Keys and values are those of
/// `ocs_lb_common::abi`; what is fixed is fixed in the eBPF object.
fn maps(sizes: &Sizes) -> Vec<MapRow> {
    let hash = |map, entries: u32, key, value| MapRow {
        map,
        entries: entries.into(),
        bytes: hash_bytes(entries.into(), key, value),
    };
    let array = |map, entries: u32, value: usize| MapRow {
        map,
        entries: entries.into(),
        bytes: u64::from(entries) * round8(value as u64),
    };
    vec![
        hash("FLOWS4", sizes.flows, 16, 64),
        MapRow {
            map: "STICKY4",
            entries: sizes.sticky.iter().copied().map(u64::from).sum(),
            bytes: sizes
                .sticky
                .iter()
                .map(|entries| hash_bytes((*entries).into(), 8, 16))
                .sum(),
        },
        hash("PENDING_STICKY4", 65_536, 8, 16),
        array("HALF_OPEN4", sizes.half_open, size_of::<Pending<V4>>()),
        array("RESTING4", abi::RESTING, size_of::<abi::FlowKey<V4>>()),
        array("PORT_MAPS", sizes.port_maps, size_of::<PortMap>()),
        hash("DESTINATIONS4", sizes.port_maps, 12, 4),
        hash("SERVICES4", sizes.services, 8, 8),
        hash("SOURCES4", abi::SOURCES, 8, 8),
        hash("ADDRESSES4", sizes.addresses, 4, 4),
        hash("NEXT_HOP_IDS4", 65_536, 8, 4),
        array("NEXT_HOPS", 65_536, size_of::<NextHop>()),
        array("BACKENDS4", 65_536, size_of::<Backend<V4>>()),
        array("CLUSTERS", 256, size_of::<abi::Cluster>()),
        array("LOADS", 256, size_of::<ClusterLoad>()),
        array("RECOUNT", 256, size_of::<Recount>()),
        // Each page of a ring is mapped twice, but locked once.
        MapRow {
            map: "KILLS4",
            entries: 4 << 20,
            bytes: 4 << 20,
        },
        MapRow {
            map: "EVENTS4",
            entries: 1 << 20,
            bytes: 1 << 20,
        },
    ]
}

/// The bill of `model` on a host whose `ip_local_port_range` is `local`.
pub fn bill(model: &Model, local: (u16, u16)) -> Bill {
    let maps = maps(&Sizes::of(model).with_room());
    let served = served_ports(model);
    Bill {
        bytes: maps.iter().map(|m| m.bytes).sum(),
        maps,
        snat: model
            .clusters
            .iter()
            .flat_map(|c| snat_rows(c, local, &served))
            .collect(),
    }
}

/// Ports that each VIP serves, over all clusters.
fn served_ports(model: &Model) -> HashMap<IpAddr, BTreeSet<u16>> {
    let mut served: HashMap<IpAddr, BTreeSet<u16>> = HashMap::new();
    for cluster in &model.clusters {
        for vip in &cluster.vips {
            let ports = served.entry(vip.address).or_default();
            for port in &cluster.ports {
                match port.listen {
                    Port::ANY => ports.extend(1..=u16::MAX),
                    number => ports.extend([number]),
                }
            }
        }
    }
    served
}

fn snat_rows(
    cluster: &Cluster,
    local: (u16, u16),
    served: &HashMap<IpAddr, BTreeSet<u16>>,
) -> Vec<SnatRow> {
    let (addresses, ports_each, flows) = match &cluster.snat {
        Snat::Auto => {
            let ports = auto_range(local).map_or(0, range_len);
            (1, ports, u64::from(ports))
        }
        Snat::Pool { addresses, ports } => {
            let each = range_len(*ports);
            let flows = addresses.iter().map(|address| {
                let taken = served
                    .get(address)
                    .map_or(0, |s| s.range(ports.0..=ports.1).count());
                u64::from(each).saturating_sub(taken as u64)
            });
            let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
            (count, each, flows.sum())
        }
    };
    let mut rows = Vec::new();
    for backend in cluster.backends.iter().filter(|b| !b.retired) {
        let targets: BTreeSet<u16> = match backend.port {
            Some(port) => BTreeSet::from([port]),
            None => cluster.ports.iter().map(|p| p.target).collect(),
        };
        rows.extend(targets.into_iter().map(|port| SnatRow {
            cluster: cluster.name.clone(),
            backend: backend.name.clone(),
            port,
            addresses,
            ports_each,
            flows,
        }));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn model(text: &str) -> Model {
        match config::parse(text, "test.yaml") {
            Ok(loaded) => loaded.model,
            Err(problems) => panic!("{problems}"),
        }
    }

    #[test]
    fn a_sticky_table_costs_what_the_kernel_took() {
        // 10,485,760 entries of 8/16 bytes were seen to lock 1.02 GB.
        let bytes = hash_bytes(10_485_760, 8, 16);
        assert_eq!(bytes, 16 * 16_777_216 + 10_485_760 * 72);
        assert_eq!(bytes / 1_000_000, 1023);
        assert_eq!(hash_bytes(1, 13, 1), 16 + 48 + 16 + 8);
        assert_eq!(hash_bytes(0, 8, 8), 16);
    }

    #[test]
    fn the_default_configuration() {
        let bill = bill(&model(config::DEFAULT), (32768, 60999));
        // 2 x (40,000 + 65,536 + 65,536), and room up to the next power of two.
        let flows = 524_288;
        let row = |name| bill.maps.iter().find(|row| row.map == name).expect(name);
        assert_eq!(row("FLOWS4").entries, flows);
        assert_eq!(row("FLOWS4").bytes, 16 * 524_288 + flows * 128);
        assert_eq!(row("STICKY4").bytes, 1_023_410_176);
        assert_eq!(row("PORT_MAPS").bytes, 2 * (36 + 64) * 16_680);
        assert_eq!(
            bill.bytes,
            bill.maps.iter().map(|row| row.bytes).sum::<u64>()
        );
        assert_eq!(bill.snat.len(), 3 * 12);
        let first = &bill.snat[0];
        assert_eq!((first.port, first.addresses), (135, 1));
        assert_eq!((first.ports_each, first.flows), (31_744, 31_744));
    }

    #[test]
    fn pools_skip_served_ports_of_their_own_addresses() {
        let text = "
version: 1
tables: {flows: 1000, half_open: 10}
clusters:
  - name: a
    vips: [192.0.2.1]
    ports: [443, 5060, {listen: 5061, target: 5060}]
    sticky: off
    snat: {addresses: [192.0.2.1, 192.0.2.2], ports: 5000-5099}
    backends: [{name: b, address: 198.51.100.1}]
  - name: c
    vips: [192.0.2.1]
    ports: [5062, 5063]
    sticky: off
    backends: [{name: b, address: 198.51.100.1, port: 99}]
";
        let model = model(text);
        let bill = bill(&model, (1024, 65535));
        assert_eq!(flow_entries(&model), 2 * (1000 + 10 + RESTING));
        let rows: Vec<_> = bill
            .snat
            .iter()
            .map(|r| (&*r.cluster, r.port, r.addresses, r.ports_each, r.flows))
            .collect();
        assert_eq!(
            rows,
            [
                // 5060-5063 are served on the first address.
                ("a", 443, 2, 100, 196),
                ("a", 5060, 2, 100, 196),
                // The host's ephemeral ports leave nothing for `auto`.
                ("c", 99, 1, 0, 0),
            ]
        );
    }
}

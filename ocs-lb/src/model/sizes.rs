//! How large the datapath's tables are for a configuration.

use ocs_lb_common::ticks::duration;

use super::bill::flow_entries;
use super::{Cluster, Model, Port, Snat};

/// Slots of the SNAT slab beyond what the configuration needs: two CPUs that
/// create one destination at once waste one.
const SPARE_PORT_MAPS: u64 = 64;

/// Fewest VIPs and ports that there is room for.
const LEAST_SERVICES: u32 = 1024;
/// Fewest addresses that there is room for.
const LEAST_ADDRESSES: u32 = 256;
/// Most bitmaps of SNAT ports beyond those needed, at 16 KiB each.
const MOST_SPARE_PORT_MAPS: u32 = 1024;

/// Entries of the tables that depend on the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    /// `FLOWS4`: entries, two a flow.
    pub flows: u32,
    /// `STICKY4`: clients of each cluster, by its id.
    pub sticky: Vec<u32>,
    /// `SERVICES4`: VIPs and ports.
    pub services: u32,
    /// `ADDRESSES4`: VIPs and SNAT addresses.
    pub addresses: u32,
    /// `PORT_MAPS` and `DESTINATIONS4`: SNAT address, backend and port.
    pub port_maps: u32,
    /// `HALF_OPEN4`: places of half-open flows.
    pub half_open: u32,
    /// Shortest time after which a flow of any cluster ends for want of packets,
    /// in ticks: how long the datapath need not look.
    pub shortest_timeout: Option<u32>,
}

impl Sizes {
    /// For a model.
    pub fn of(model: &Model) -> Self {
        let sticky = |cluster: &Cluster| cluster.sticky.map_or(1, |sticky| sticky.size.max(1));
        let destinations: u64 = model
            .clusters
            .iter()
            .map(|cluster| {
                let addresses = match &cluster.snat {
                    Snat::Auto => 1,
                    Snat::Pool { addresses, .. } => addresses.len(),
                };
                (addresses * cluster.backends.len() * ports_used(cluster)) as u64
            })
            .sum();
        let services: u64 = model
            .clusters
            .iter()
            .map(|cluster| {
                // Where the source chooses, a service that does so, too.
                let each = 1 + usize::from(!cluster.access.from.is_empty());
                (cluster.vips.len() * cluster.ports.len() * each) as u64
            })
            .sum();
        let addresses: u64 = model
            .clusters
            .iter()
            .map(|cluster| {
                let snat = match &cluster.snat {
                    // One towards each backend at most.
                    Snat::Auto => cluster.backends.len(),
                    Snat::Pool { addresses, .. } => addresses.len(),
                };
                (cluster.vips.len() + snat) as u64
            })
            .sum();
        Self {
            flows: clamp(flow_entries(model)),
            sticky: model.clusters.iter().map(sticky).collect(),
            services: clamp(services),
            addresses: clamp(addresses),
            port_maps: clamp(destinations + SPARE_PORT_MAPS),
            half_open: model.tables.half_open.max(1),
            shortest_timeout: model.clusters.iter().map(shortest_timeout).min(),
        }
    }

    /// The same with room for what reloads may add: a map keeps its size for
    /// as long as flows are in it. The flow table fills its buckets, of which
    /// the kernel makes a power of two anyway.
    pub fn with_room(&self) -> Self {
        let twice = |entries: u32, least: u32| entries.saturating_mul(2).max(least);
        Self {
            flows: self.flows.checked_next_power_of_two().unwrap_or(self.flows),
            services: twice(self.services, LEAST_SERVICES),
            addresses: twice(self.addresses, LEAST_ADDRESSES),
            port_maps: self
                .port_maps
                .saturating_add(self.port_maps.min(MOST_SPARE_PORT_MAPS)),
            ..self.clone()
        }
    }

    /// The maps and their entries.
    pub fn overrides(&self) -> [(&'static str, u32); 6] {
        [
            ("FLOWS4", self.flows),
            ("HALF_OPEN4", self.half_open),
            ("SERVICES4", self.services),
            ("ADDRESSES4", self.addresses),
            ("PORT_MAPS", self.port_maps),
            ("DESTINATIONS4", self.port_maps),
        ]
    }
}

/// Ports of each backend that flows may go to.
fn ports_used(cluster: &Cluster) -> usize {
    let any = |port: &&Port| port.listen == Port::ANY;
    let any = cluster.ports.iter().find(any);
    cluster.ports.len() + any.map_or(0, |_| Port::ANY_USED)
}

fn shortest_timeout(cluster: &Cluster) -> u32 {
    let times = cluster.timeouts;
    duration(times.client.min(times.server).min(times.half_closed))
}

/// Fewest half-open flows that stay allowed where SNAT ports are few.
const LEAST_HALF_OPEN: u32 = 1024;

/// Places of the ring of half-open flows that are used: three quarters of the
/// SNAT ports that the clusters have towards one port at most (`ports`, by
/// cluster). With more places than ports, a flood of SYNs uses up the ports
/// before the ring comes round and pushes its oldest flows out.
pub fn ring(places: u32, ports: impl IntoIterator<Item = u64>) -> u32 {
    let least = ports.into_iter().min().unwrap_or(u64::MAX);
    clamp(least / 4 * 3).max(LEAST_HALF_OPEN).min(places)
}

/// A map has at least one entry; above 2^31 the kernel refuses it itself.
fn clamp(entries: u64) -> u32 {
    u32::try_from(entries.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn the_ring_comes_round_before_the_ports_are_used_up() {
        assert_eq!(ring(65_536, [2 * 31_744]), 47_616);
        assert_eq!(ring(65_536, [4 * 31_744, 2 * 64_512]), 65_536);
        assert_eq!(ring(65_536, [2 * 64_512, 8000]), 6000);
        assert_eq!(ring(65_536, [200]), 1024, "not none at all");
        assert_eq!(ring(100, [200]), 100);
        assert_eq!(ring(100, []), 100);
    }

    #[test]
    fn the_default_configuration() {
        let model = config::parse(config::DEFAULT, "default.yaml")
            .expect("valid")
            .model;
        let sizes = Sizes::of(&model);
        assert_eq!(sizes.flows, 2 * (40_000 + 65_536 + 65_536));
        assert_eq!(sizes.sticky, [10_485_760]);
        assert_eq!(sizes.services, 12);
        assert_eq!(sizes.addresses, 4);
        assert_eq!(sizes.port_maps, 12 * 3 + 64);
        assert_eq!(sizes.shortest_timeout, Some(1_716_614));
        let made = sizes.with_room();
        assert_eq!((made.flows, made.half_open), (524_288, sizes.half_open));
        assert_eq!((made.services, made.addresses), (1024, 256));
        assert_eq!(made.port_maps, 200);
    }
}

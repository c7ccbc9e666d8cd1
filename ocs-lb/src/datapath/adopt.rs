//! What a new controller finds of a datapath that forwards already.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use aya::maps::{Array, Map, MapData, MapError};
use ocs_lb_common::abi::ClusterLoad;

use super::identity::Entry;
use super::load::{LoadError, identity};
use super::pins::Pins;
use crate::model::align::{Ids, KnownBackend, KnownCluster};

/// Ids, and what was known of who has them.
#[derive(Debug, Default)]
pub struct Found {
    /// Names by id.
    pub ids: Ids,
    /// Everyone's entry.
    pub entries: BTreeMap<(u16, Option<u16>), Entry>,
    /// Clusters and backends that flows belong to.
    busy: BTreeSet<(u16, Option<u16>)>,
}

impl Found {
    /// Reads the pinned tables; nothing where nobody forwards.
    ///
    /// # Errors
    /// A map that is not what it should be.
    pub fn look(pins: &Pins) -> Result<Self, LoadError> {
        let entries = identity(Some(pins))?.entries();
        let map = |source| LoadError::Map {
            name: "LOADS",
            source,
        };
        let path = pins.map("LOADS");
        let busy = if path.exists() {
            let data = MapData::from_pin(path).map_err(map)?;
            let loads: Array<_, ClusterLoad> = Map::Array(data).try_into().map_err(map)?;
            busy(entries.keys(), |id| loads.get(&u32::from(id), 0)).map_err(map)?
        } else {
            BTreeSet::new()
        };
        Ok(Self {
            ids: ids(&entries),
            entries,
            busy,
        })
    }

    /// Whether flows have this id.
    pub fn is_busy(&self, cluster: u16, slot: Option<u16>) -> bool {
        self.busy.contains(&(cluster, slot))
    }

    /// Whether a backend was healthy; nothing where it was not known.
    pub fn was_healthy(&self, cluster: u16, slot: u16) -> Option<bool> {
        let entry = self.entries.get(&(cluster, Some(slot)))?;
        Some(entry.healthy)
    }
}

/// Who of these has live or half-open flows.
///
/// # Errors
/// The map's.
pub fn busy<'a>(
    known: impl Iterator<Item = &'a (u16, Option<u16>)>,
    load: impl Fn(u16) -> Result<ClusterLoad, MapError>,
) -> Result<BTreeSet<(u16, Option<u16>)>, MapError> {
    let mut found = BTreeSet::new();
    let mut loads: BTreeMap<u16, ClusterLoad> = BTreeMap::new();
    for (cluster, slot) in known {
        if !loads.contains_key(cluster) {
            loads.insert(*cluster, load(*cluster)?);
        }
        let load = &loads[cluster];
        let flows = match slot {
            Some(slot) => load.slots[usize::from(*slot)].flows(),
            None => load.slots.iter().map(|slot| slot.flows()).sum(),
        };
        if flows > 0 {
            found.insert((*cluster, *slot));
        }
    }
    Ok(found)
}

/// Names in the order of their ids; an id that nobody has gets an empty name.
fn ids(entries: &BTreeMap<(u16, Option<u16>), Entry>) -> Ids {
    let mut clusters: Vec<KnownCluster> = Vec::new();
    for ((cluster, slot), entry) in entries {
        let at = usize::from(*cluster);
        while clusters.len() <= at {
            clusters.push(KnownCluster {
                name: String::new(),
                backends: Vec::new(),
            });
        }
        let Some(slot) = slot else {
            clusters[at].name.clone_from(&entry.name);
            continue;
        };
        let backends = &mut clusters[at].backends;
        let nobody = KnownBackend {
            name: String::new(),
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        while backends.len() <= usize::from(*slot) {
            backends.push(nobody.clone());
        }
        backends[usize::from(*slot)] = KnownBackend {
            name: entry.name.clone(),
            address: entry.address.unwrap_or(nobody.address),
        };
    }
    Ids { clusters }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, address: Option<[u8; 4]>) -> Entry {
        Entry {
            address: address.map(IpAddr::from),
            ..Entry::named(name)
        }
    }

    #[test]
    fn names_by_id() {
        let entries = BTreeMap::from([
            ((1, None), entry("b", None)),
            ((1, Some(2)), entry("node", Some([198, 51, 100, 12]))),
        ]);
        let ids = ids(&entries);
        let names: Vec<_> = ids.clusters.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["", "b"]);
        let names: Vec<_> = ids.clusters[1]
            .backends
            .iter()
            .map(|b| (b.name.as_str(), b.address.to_string()))
            .collect();
        let nobody = || "0.0.0.0".to_owned();
        assert_eq!(
            names,
            [
                ("", nobody()),
                ("", nobody()),
                ("node", "198.51.100.12".to_owned())
            ]
        );
    }

    #[test]
    fn who_has_flows() {
        let mut load = ClusterLoad::ZERO;
        load.slots[1].live = 3;
        load.slots[2].pending = 1;
        let known = [(0, None), (0, Some(0)), (0, Some(1)), (0, Some(2))];
        let found = busy(known.iter(), |_| Ok(load)).expect("no map");
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [(0, None), (0, Some(1)), (0, Some(2))]
        );
    }
}

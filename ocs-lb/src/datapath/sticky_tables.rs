//! The clusters' sticky tables: made, taken on, copied where their size changes.

use aya::Ebpf;
use aya::maps::{ArrayOfMaps, MapData};
use ocs_lb_common::abi::{StickyKey, StickyValue};
use ocs_lb_common::address::V4;

use super::load::{LoadError, Loaded, MapBill, StickyTable, open_or_create, row};
use super::pins::Pins;
use super::write::patient;

/// Name of the map of sticky tables.
pub(super) const STICKY: &str = "STICKY4";

/// A table of `STICKY4`, until the maps are taken.
pub(super) struct Table {
    pub(super) map: StickyTable,
    pub(super) id: u32,
    pub(super) row: MapBill,
}

/// Puts a sticky table of each size into `STICKY4`: the one that is pinned, a
/// copy of it where its size is another one, or a new one.
pub(super) fn sticky_tables(
    ebpf: &mut Ebpf,
    sizes: &[u32],
    pins: Option<&Pins>,
) -> Result<Vec<Table>, LoadError> {
    let map = |source| LoadError::Map {
        name: STICKY,
        source,
    };
    let mut outer: ArrayOfMaps<_, MapData> = ebpf
        .map_mut(STICKY)
        .ok_or(LoadError::Mismatch(STICKY))?
        .try_into()
        .map_err(map)?;
    let mut tables = Vec::new();
    for (cluster, entries) in sizes.iter().enumerate() {
        let data = sticky_table(cluster, *entries, pins)?;
        outer.set(cluster as u32, &data, 0).map_err(map)?;
        tables.push(table(data)?);
    }
    Ok(tables)
}

/// Gives every cluster a sticky table of its size, in a datapath that runs.
///
/// # Errors
/// The kernel's.
pub fn sticky_for(loaded: &mut Loaded, pins: &Pins, sizes: &[u32]) -> Result<(), LoadError> {
    let map = |source| LoadError::Map {
        name: STICKY,
        source,
    };
    for (cluster, entries) in sizes.iter().enumerate() {
        let data = sticky_table(cluster, *entries, Some(pins))?;
        let id = data.info().map_err(map)?.id();
        if loaded.ids.sticky.get(cluster) == Some(&id) {
            continue;
        }
        patient(|| loaded.sticky.set(cluster as u32, &data, 0)).map_err(map)?;
        let table = table(data)?;
        let mut ids = loaded.ids.sticky.to_vec();
        if cluster < ids.len() {
            ids[cluster] = table.id;
            loaded.maps.sticky[cluster] = table.map;
        } else {
            ids.push(table.id);
            loaded.maps.sticky.push(table.map);
        }
        // At once: what comes after may be refused.
        loaded.ids.sticky = ids.into();
    }
    loaded.maps.sticky.truncate(sizes.len());
    loaded.ids.sticky = loaded
        .ids
        .sticky
        .iter()
        .take(sizes.len())
        .copied()
        .collect();
    Ok(())
}

fn table(data: MapData) -> Result<Table, LoadError> {
    use aya::maps::Map;

    let map = |source| LoadError::Map {
        name: STICKY,
        source,
    };
    Ok(Table {
        id: data.info().map_err(map)?.id(),
        row: row(STICKY, &data).ok_or(LoadError::Mismatch(STICKY))?,
        map: Map::LruHashMap(data).try_into().map_err(map)?,
    })
}

/// The table of one cluster.
fn sticky_table(cluster: usize, entries: u32, pins: Option<&Pins>) -> Result<MapData, LoadError> {
    let map = |source| LoadError::Map {
        name: STICKY,
        source,
    };
    let pattern = aya_obj::Map::new_from_params(
        aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_LRU_HASH as u32,
        size_of::<StickyKey<V4>>() as u32,
        size_of::<StickyValue>() as u32,
        entries,
        0,
    );
    let Some(path) = pins.map(|pins| pins.map(&format!("{STICKY}_{cluster}"))) else {
        return MapData::create(pattern, "STICKY4_TABLE", None).map_err(map);
    };
    if !path.exists() {
        return open_or_create(pattern, "STICKY4_TABLE", Some(&path));
    }
    let old = MapData::from_pin(&path).map_err(map)?;
    if old.info().map_err(map)?.max_entries() == entries {
        return Ok(old);
    }
    // Entries are a client's comfort, not a flow: what a packet writes to the
    // old table while it is copied is lost.
    let new = MapData::create(pattern, "STICKY4_TABLE", None).map_err(map)?;
    let (old, mut new) = (table(old)?.map, table(new)?.map);
    for entry in old.iter() {
        let (key, value) = entry.map_err(map)?;
        patient(|| new.insert(key, value, 0)).map_err(map)?;
    }
    let pinned = |source: Box<dyn std::error::Error + Send + Sync>| LoadError::Pinned {
        path: path.clone(),
        source,
    };
    std::fs::remove_file(&path).map_err(|error| pinned(Box::new(error)))?;
    new.pin(&path).map_err(|error| pinned(Box::new(error)))?;
    MapData::from_pin(&path).map_err(map)
}

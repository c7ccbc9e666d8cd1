//! Edits to maps.

use std::collections::BTreeSet;

use aya::maps::MapError;
use ocs_lb_common::abi::{Cluster, Settings};

use super::lists::Placed;
use super::load::Maps;
use super::write::{is_full, patient};
use crate::model::edits::MapEdit;

/// A write that a map refused.
#[derive(Debug, thiserror::Error)]
#[error("map {map}{hint}")]
pub struct ApplyError {
    map: &'static str,
    source: MapError,
    hint: &'static str,
}

pub(super) fn error(map: &'static str) -> impl Fn(MapError) -> ApplyError {
    move |source| ApplyError {
        map,
        hint: match (map, is_full(&source)) {
            ("SERVICES4" | "ADDRESSES4", true) => ": too many VIPs and ports for its size",
            ("ACCESS4", _) => ": the lists of `from`, `allow` and `deny`",
            ("NEXT_HOP_IDS4", true) => ": too many neighbours for its size",
            ("LINKS", true) => ": too many interfaces for its size",
            _ => "",
        },
        source,
    }
}

/// Writes one edit.
///
/// # Errors
/// The map's.
pub fn apply(maps: &mut Maps, edit: &MapEdit) -> Result<(), ApplyError> {
    match edit {
        MapEdit::Address(address, flags) => {
            patient(|| maps.addresses.insert(address, flags, 0)).map_err(error("ADDRESSES4"))
        }
        MapEdit::Service(key, service) => {
            patient(|| maps.services.insert(key, service, 0)).map_err(error("SERVICES4"))
        }
        // Lists have their numbers before anything is written: see `sync`.
        MapEdit::List(..) => Ok(()),
        MapEdit::Backend(index, backend) => {
            patient(|| maps.backends.set(*index, *backend, 0)).map_err(error("BACKENDS4"))
        }
    }
}

/// Writes the records of backends. They stay where nobody needs them any more:
/// flows may have their ids.
///
/// # Errors
/// The map's.
pub fn set_backends(maps: &mut Maps, edits: &[MapEdit]) -> Result<(), ApplyError> {
    let is_backend = |edit: &&MapEdit| matches!(edit, MapEdit::Backend(..));
    edits
        .iter()
        .filter(is_backend)
        .try_for_each(|edit| apply(maps, edit))
}

/// Makes the tables of a datapath that may forward already serve what the
/// edits say and nothing else; how many services and addresses were taken
/// away.
///
/// # Errors
/// The map's; what was written before holds then.
pub fn sync(maps: &mut Maps, edits: &[MapEdit]) -> Result<usize, ApplyError> {
    let before = numbers(maps)?;
    let edits = maps.placed.place(&mut maps.lists, edits, &before)?;
    let (mut services, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    let mut lists = BTreeSet::new();
    for edit in &edits {
        match edit {
            MapEdit::Service(key, service) => {
                services.insert(*key);
                lists.insert(service.access);
            }
            MapEdit::Address(address, _) => {
                addresses.insert(*address);
            }
            MapEdit::Backend(..) | MapEdit::List(..) => {}
        }
    }
    // What a list may choose is there before the service that has the list.
    let is_chosen = |edit: &MapEdit| matches!(edit, MapEdit::Service(key, _) if key.choice != 0);
    let (first, then): (Vec<_>, Vec<_>) = edits
        .iter()
        .filter(|edit| !matches!(edit, MapEdit::Backend(..)))
        .partition(|edit| is_chosen(edit));
    for edit in first.into_iter().chain(then) {
        apply(maps, edit)?;
    }
    if !before.is_empty() {
        Placed::wait(&mut maps.lists)?;
    }
    // A packet meets no address whose services are gone half-way.
    let gone = gone(maps.addresses.keys(), &addresses).map_err(error("ADDRESSES4"))?;
    let mut removed = gone.len();
    for address in gone {
        patient(|| maps.addresses.remove(&address)).map_err(error("ADDRESSES4"))?;
    }
    let stale = self::gone(maps.services.keys(), &services).map_err(error("SERVICES4"))?;
    removed += stale.len();
    for key in stale {
        patient(|| maps.services.remove(&key)).map_err(error("SERVICES4"))?;
    }
    maps.placed.release(&mut maps.lists, &lists, &before)?;
    Ok(removed)
}

/// Numbers of the lists that services have now.
fn numbers(maps: &Maps) -> Result<BTreeSet<u16>, ApplyError> {
    let mut found = BTreeSet::new();
    for entry in maps.services.iter() {
        let (_, service) = entry.map_err(error("SERVICES4"))?;
        if service.access != 0 {
            found.insert(service.access);
        }
    }
    Ok(found)
}

fn gone<K: Ord>(
    keys: impl Iterator<Item = Result<K, MapError>>,
    wanted: &BTreeSet<K>,
) -> Result<Vec<K>, MapError> {
    let keys: Vec<K> = keys.collect::<Result<_, _>>()?;
    Ok(keys
        .into_iter()
        .filter(|key| !wanted.contains(key))
        .collect())
}

/// Writes a cluster's policy.
///
/// # Errors
/// The map's.
pub fn set_cluster(maps: &mut Maps, id: u16, policy: &Cluster) -> Result<(), ApplyError> {
    patient(|| maps.clusters.set(u32::from(id), policy, 0)).map_err(error("CLUSTERS"))
}

/// Writes what every program is told.
///
/// # Errors
/// The map's.
pub fn set_settings(maps: &mut Maps, settings: Settings) -> Result<(), ApplyError> {
    patient(|| maps.settings.set(0, settings, 0)).map_err(error("SETTINGS"))
}

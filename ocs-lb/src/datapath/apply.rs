//! Edits to maps.

use std::net::Ipv4Addr;

use aya::maps::MapError;
use ocs_lb_common::abi::{Cluster, FIRST_LEARNED, NextHop, NextHopKey, Settings};
use ocs_lb_common::address::V4;

use super::load::Maps;
use crate::model::edits::MapEdit;

/// A write that a map refused.
#[derive(Debug, thiserror::Error)]
#[error("map {map}: {source}{hint}")]
pub struct ApplyError {
    map: &'static str,
    source: MapError,
    hint: &'static str,
}

fn error(map: &'static str) -> impl Fn(MapError) -> ApplyError {
    move |source| ApplyError {
        map,
        source,
        hint: match map {
            "SERVICES4" | "ADDRESSES4" => "; too many VIPs and ports for its size",
            "NEXT_HOP_IDS4" => "; too many neighbours for its size",
            _ => "",
        },
    }
}

/// Writes one edit.
///
/// # Errors
/// The map's.
pub fn apply(maps: &mut Maps, edit: &MapEdit) -> Result<(), ApplyError> {
    match edit {
        MapEdit::Address(address, flags) => maps
            .addresses
            .insert(address, flags, 0)
            .map_err(error("ADDRESSES4")),
        MapEdit::Service(key, service) => maps
            .services
            .insert(key, service, 0)
            .map_err(error("SERVICES4")),
        MapEdit::Backend(index, backend) => maps
            .backends
            .set(*index, *backend, 0)
            .map_err(error("BACKENDS4")),
    }
}

/// Writes a cluster's policy.
///
/// # Errors
/// The map's.
pub fn set_cluster(maps: &mut Maps, id: u16, policy: &Cluster) -> Result<(), ApplyError> {
    maps.clusters
        .set(u32::from(id), policy, 0)
        .map_err(error("CLUSTERS"))
}

/// Writes what every program is told.
///
/// # Errors
/// The map's.
pub fn set_settings(maps: &mut Maps, settings: Settings) -> Result<(), ApplyError> {
    maps.settings.set(0, settings, 0).map_err(error("SETTINGS"))
}

/// The controller's next hops: slots below [`FIRST_LEARNED`].
#[derive(Debug, Default)]
pub struct NextHops {
    used: u32,
}

impl NextHops {
    /// The slot of a neighbour; a new one is not valid until its MAC is known.
    /// `None`: no slot is left.
    ///
    /// # Errors
    /// A map's.
    pub fn slot(
        &mut self,
        maps: &mut Maps,
        ifindex: u32,
        address: Ipv4Addr,
    ) -> Result<Option<u16>, ApplyError> {
        let key = NextHopKey {
            ifindex,
            address: V4(address.octets()),
        };
        if let Some(id) = known(maps, &key)? {
            return Ok(Some(id as u16));
        }
        // Slot 0 means "none".
        let id = self.used + 1;
        if id >= FIRST_LEARNED {
            return Ok(None);
        }
        let hop = NextHop {
            ifindex,
            ..NextHop::default()
        };
        maps.next_hops.set(id, hop, 0).map_err(error("NEXT_HOPS"))?;
        maps.next_hop_ids
            .insert(key, id, 0)
            .map_err(error("NEXT_HOP_IDS4"))?;
        self.used = id;
        Ok(Some(id as u16))
    }
}

/// Writes a neighbour's MAC where a next hop has it, the controller's or one
/// that the datapath learned. Whether anything changed.
///
/// # Errors
/// A map's.
pub fn set_neighbor(
    maps: &mut Maps,
    ifindex: u32,
    address: Ipv4Addr,
    mac: [u8; 6],
    source: [u8; 6],
) -> Result<bool, ApplyError> {
    let key = NextHopKey {
        ifindex,
        address: V4(address.octets()),
    };
    let Some(id) = known(maps, &key)? else {
        return Ok(false);
    };
    let before = maps.next_hops.get(&id, 0).map_err(error("NEXT_HOPS"))?;
    let after = NextHop {
        destination: mac,
        valid: 1,
        source,
        pad: 0,
        ifindex,
        generation: before.generation,
    };
    if before == after {
        return Ok(false);
    }
    let after = NextHop {
        generation: before.generation.wrapping_add(1),
        ..after
    };
    maps.next_hops
        .set(id, after, 0)
        .map_err(error("NEXT_HOPS"))?;
    Ok(true)
}

fn known(maps: &Maps, key: &NextHopKey<V4>) -> Result<Option<u32>, ApplyError> {
    match maps.next_hop_ids.get(key, 0) {
        Ok(id) => Ok(Some(id)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(source) => Err(error("NEXT_HOP_IDS4")(source)),
    }
}

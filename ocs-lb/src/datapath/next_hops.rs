//! Next hops and the interfaces they lie behind, as the datapath has them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use aya::maps::MapError;
use ocs_lb_common::abi::{FIRST_LEARNED, LinkInfo, NextHop, NextHopKey};
use ocs_lb_common::address::V4;

use super::apply::{ApplyError, error};
use super::load::Maps;
use super::write::patient;
use crate::model::ways;

/// The controller's next hops: slots below [`FIRST_LEARNED`].
#[derive(Debug, Default)]
pub struct NextHops {
    used: u32,
    /// What routes say of the longest packet, by slot.
    mtus: BTreeMap<u32, u16>,
}

impl NextHops {
    /// Those that the maps hold already.
    ///
    /// # Errors
    /// The map's.
    pub fn of(maps: &Maps) -> Result<Self, ApplyError> {
        let mut used = 0;
        for entry in maps.next_hop_ids.iter() {
            let (_, id) = entry.map_err(error("NEXT_HOP_IDS4"))?;
            if id < FIRST_LEARNED {
                used = used.max(id);
            }
        }
        Ok(Self {
            used,
            mtus: BTreeMap::new(),
        })
    }

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
        mtu: Option<u32>,
    ) -> Result<Option<u16>, ApplyError> {
        let key = NextHopKey {
            ifindex,
            address: V4(address.octets()),
        };
        if let Some(id) = known(maps, &key)? {
            self.narrow(id, mtu);
            return Ok(Some(id as u16));
        }
        // Slot 0 means "none".
        let id = self.used + 1;
        if id >= FIRST_LEARNED {
            return Ok(None);
        }
        let hop = NextHop {
            ifindex: link(maps, ifindex)?.send_on,
            ..NextHop::default()
        };
        patient(|| maps.next_hops.set(id, hop, 0)).map_err(error("NEXT_HOPS"))?;
        patient(|| maps.next_hop_ids.insert(key, id, 0)).map_err(error("NEXT_HOP_IDS4"))?;
        self.used = id;
        self.narrow(id, mtu);
        Ok(Some(id as u16))
    }

    /// Forgets what routes said, before they are asked again.
    pub fn forget_mtus(&mut self) {
        self.mtus.clear();
    }

    /// A neighbour may be the way to several destinations: the shortest counts.
    fn narrow(&mut self, id: u32, mtu: Option<u32>) {
        if let Some(mtu) = mtu.map(ways::mtu) {
            let known = self.mtus.entry(id).or_insert(mtu);
            *known = mtu.min(*known);
        }
    }

    /// The longest packet towards a neighbour.
    fn mtu(&self, id: u32, link: &LinkInfo) -> u16 {
        let route = self.mtus.get(&id).copied().unwrap_or(u16::MAX);
        match link.mtu {
            0 if route == u16::MAX => 0,
            0 => route,
            mtu => route.min(mtu),
        }
    }

    /// Tells every known next hop what its interface is like now. How many
    /// changed.
    ///
    /// # Errors
    /// A map's.
    pub fn refresh(&self, maps: &mut Maps) -> Result<usize, ApplyError> {
        let entries: Vec<(NextHopKey<V4>, u32)> = maps
            .next_hop_ids
            .iter()
            .collect::<Result<_, _>>()
            .map_err(error("NEXT_HOP_IDS4"))?;
        let mut changed = 0;
        for (key, id) in entries {
            let link = link(maps, key.ifindex)?;
            let before = maps.next_hops.get(&id, 0).map_err(error("NEXT_HOPS"))?;
            let after = NextHop {
                mtu: self.mtu(id, &link),
                ifindex: link.send_on,
                tags: link.tags,
                ..before
            };
            if before != after {
                let generation = before.generation.wrapping_add(1);
                let after = NextHop {
                    generation,
                    ..after
                };
                patient(|| maps.next_hops.set(id, after, 0)).map_err(error("NEXT_HOPS"))?;
                changed += 1;
            }
        }
        Ok(changed)
    }
}

/// How frames leave by an interface that a route names.
///
/// # Errors
/// A map's.
fn link(maps: &Maps, ifindex: u32) -> Result<LinkInfo, ApplyError> {
    match maps.links.get(&ifindex, 0) {
        Ok(link) => Ok(link),
        Err(MapError::KeyNotFound) => Ok(LinkInfo {
            send_on: ifindex,
            ..LinkInfo::default()
        }),
        Err(source) => Err(error("LINKS")(source)),
    }
}

/// Writes a neighbour's MAC where a next hop has it, the controller's or one
/// that the datapath learned. Whether anything changed.
///
/// # Errors
/// A map's.
pub fn set_neighbor(
    maps: &mut Maps,
    next_hops: &NextHops,
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
    let link = link(maps, ifindex)?;
    let after = NextHop {
        destination: mac,
        valid: 1,
        source,
        mtu: next_hops.mtu(id, &link),
        ifindex: link.send_on,
        generation: before.generation,
        tags: link.tags,
    };
    if before == after {
        return Ok(false);
    }
    let after = NextHop {
        generation: before.generation.wrapping_add(1),
        ..after
    };
    patient(|| maps.next_hops.set(id, after, 0)).map_err(error("NEXT_HOPS"))?;
    Ok(true)
}

/// Makes the datapath send by every interface as these say; whether anything
/// changed.
///
/// # Errors
/// A map's; more interfaces than it has room for.
pub fn set_links(maps: &mut Maps, ways: &BTreeMap<u32, LinkInfo>) -> Result<bool, ApplyError> {
    let links = error("LINKS");
    let known: BTreeMap<u32, LinkInfo> = maps
        .links
        .iter()
        .collect::<Result<_, _>>()
        .map_err(&links)?;
    // First what is gone: it makes room.
    for ifindex in known.keys().filter(|ifindex| !ways.contains_key(ifindex)) {
        maps.links.remove(ifindex).map_err(&links)?;
    }
    for (ifindex, way) in ways {
        if known.get(ifindex) != Some(way) {
            patient(|| maps.links.insert(ifindex, way, 0)).map_err(&links)?;
        }
    }
    Ok(known != *ways)
}

/// Moves the next hops of an interface that came back with another index;
/// flows hold their ids and stay. How many moved.
///
/// # Errors
/// A map's.
pub fn renumber(maps: &mut Maps, old: u32, new: u32) -> Result<usize, ApplyError> {
    let ids = error("NEXT_HOP_IDS4");
    let entries: Vec<(NextHopKey<V4>, u32)> = maps
        .next_hop_ids
        .iter()
        .collect::<Result<_, _>>()
        .map_err(&ids)?;
    let mut moved = 0;
    for (key, id) in entries.into_iter().filter(|(key, _)| key.ifindex == old) {
        let before = maps.next_hops.get(&id, 0).map_err(error("NEXT_HOPS"))?;
        let hop = NextHop {
            ifindex: new,
            generation: before.generation.wrapping_add(1),
            ..before
        };
        patient(|| maps.next_hops.set(id, hop, 0)).map_err(error("NEXT_HOPS"))?;
        let key_now = NextHopKey {
            ifindex: new,
            ..key
        };
        patient(|| maps.next_hop_ids.insert(key_now, id, 0)).map_err(&ids)?;
        maps.next_hop_ids.remove(&key).map_err(&ids)?;
        moved += 1;
    }
    Ok(moved)
}

/// Whether flows go to a neighbour, or went.
///
/// # Errors
/// A map's.
pub fn is_next_hop(maps: &Maps, ifindex: u32, address: Ipv4Addr) -> Result<bool, ApplyError> {
    let key = NextHopKey {
        ifindex,
        address: V4(address.octets()),
    };
    Ok(known(maps, &key)?.is_some())
}

fn known(maps: &Maps, key: &NextHopKey<V4>) -> Result<Option<u32>, ApplyError> {
    match maps.next_hop_ids.get(key, 0) {
        Ok(id) => Ok(Some(id)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(source) => Err(error("NEXT_HOP_IDS4")(source)),
    }
}

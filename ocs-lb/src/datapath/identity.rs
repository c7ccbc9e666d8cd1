//! Which names the ids in the maps have: what a new controller must know of
//! the datapath that it finds, beside the datapath's own tables.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use aya::maps::{HashMap, MapData, MapError};

use super::apply::{ApplyError, error};
use super::write::patient;

/// Name of the map.
pub const MAP: &str = "IDENTITY";
/// Bytes of an entry.
pub const SIZE: usize = 96;
/// Longest name, in bytes (the configuration's limit).
const NAME: usize = 64;
const NAME_AT: usize = 24;
const WEIGHT_AT: usize = 20;
const SINCE_AT: usize = 88;
/// Slot of a cluster's own entry.
const CLUSTER: u16 = u16::MAX;
/// Key of what the host was before.
const HOST: u32 = u32::MAX;

/// Who has an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// A backend's address.
    pub address: Option<IpAddr>,
    /// Whether a backend was healthy.
    pub healthy: bool,
    /// A cluster's state, or what an operator said of a backend's: a number of
    /// the model's.
    pub state: u8,
    /// What an operator said of a backend's weight: a number of the model's.
    pub weight: u16,
    /// When a backend came back that starts slowly, since the boot.
    pub since: Option<Duration>,
}

impl Entry {
    /// Of a cluster, or of anything that has a name and nothing else.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            address: None,
            healthy: true,
            state: 0,
            weight: 0,
            since: None,
        }
    }
}

/// The table of them, by cluster id and slot; a cluster's own has no slot.
pub struct Identity {
    map: HashMap<MapData, u32, [u8; SIZE]>,
    written: BTreeMap<u32, [u8; SIZE]>,
}

fn key(cluster: u16, slot: Option<u16>) -> u32 {
    u32::from(cluster) << 16 | u32::from(slot.unwrap_or(CLUSTER))
}

impl Identity {
    /// Over its map.
    ///
    /// # Errors
    /// Where the map is another one, or cannot be read.
    pub fn new(map: HashMap<MapData, u32, [u8; SIZE]>) -> Result<Self, MapError> {
        let written = map.iter().collect::<Result<_, _>>()?;
        Ok(Self { map, written })
    }

    /// Everyone, by cluster and slot.
    pub fn entries(&self) -> BTreeMap<(u16, Option<u16>), Entry> {
        let named = self.written.iter().filter(|(key, _)| **key != HOST);
        named
            .filter_map(|(key, bytes)| {
                let slot = *key as u16;
                let slot = (slot != CLUSTER).then_some(slot);
                Some((((*key >> 16) as u16, slot), decode(bytes)?))
            })
            .collect()
    }

    /// Makes the table hold exactly these, and nothing else.
    ///
    /// # Errors
    /// The map's.
    pub fn set(&mut self, wanted: &BTreeMap<(u16, Option<u16>), Entry>) -> Result<(), ApplyError> {
        let wanted: BTreeMap<u32, [u8; SIZE]> = wanted
            .iter()
            .map(|((cluster, slot), entry)| (key(*cluster, *slot), encode(entry)))
            .collect();
        for (key, bytes) in &wanted {
            self.write(*key, *bytes)?;
        }
        let gone: Vec<u32> = self
            .written
            .keys()
            .filter(|key| **key != HOST && !wanted.contains_key(key))
            .copied()
            .collect();
        for key in gone {
            patient(|| self.map.remove(&key)).map_err(error(MAP))?;
            self.written.remove(&key);
        }
        Ok(())
    }

    /// What `lo.forwarding` was before the first attach, where it was told.
    pub fn forwarding_before(&self) -> Option<String> {
        Some(decode(self.written.get(&HOST)?)?.name)
    }

    /// Keeps that.
    ///
    /// # Errors
    /// The map's.
    pub fn set_forwarding_before(&mut self, value: &str) -> Result<(), ApplyError> {
        self.write(HOST, encode(&Entry::named(value)))
    }

    fn write(&mut self, key: u32, bytes: [u8; SIZE]) -> Result<(), ApplyError> {
        if self.written.get(&key) != Some(&bytes) {
            patient(|| self.map.insert(key, bytes, 0)).map_err(error(MAP))?;
            self.written.insert(key, bytes);
        }
        Ok(())
    }
}

fn encode(entry: &Entry) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let len = entry.name.len().min(NAME);
    bytes[0] = len as u8;
    bytes[1] = u8::from(entry.healthy);
    bytes[2] = entry.state;
    match entry.address {
        Some(IpAddr::V4(ip)) => {
            bytes[3] = 4;
            bytes[4..8].copy_from_slice(&ip.octets());
        }
        Some(IpAddr::V6(ip)) => {
            bytes[3] = 6;
            bytes[4..20].copy_from_slice(&ip.octets());
        }
        None => {}
    }
    bytes[WEIGHT_AT..WEIGHT_AT + 2].copy_from_slice(&entry.weight.to_ne_bytes());
    // 0 is never: nothing came back at the moment of the boot.
    let since = entry.since.map_or(0, |since| since.as_nanos() as u64);
    bytes[SINCE_AT..SINCE_AT + 8].copy_from_slice(&since.to_ne_bytes());
    bytes[NAME_AT..NAME_AT + len].copy_from_slice(&entry.name.as_bytes()[..len]);
    bytes
}

fn decode(bytes: &[u8; SIZE]) -> Option<Entry> {
    let len = usize::from(bytes[0]);
    if len > NAME {
        return None;
    }
    let name = &bytes[NAME_AT..NAME_AT + len];
    let [a, b, c, d] = [bytes[4], bytes[5], bytes[6], bytes[7]];
    let address = match bytes[3] {
        4 => Some(Ipv4Addr::new(a, b, c, d).into()),
        6 => {
            let octets: [u8; 16] = bytes[4..20].try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    };
    let weight = bytes[WEIGHT_AT..WEIGHT_AT + 2].try_into().ok()?;
    let since = u64::from_ne_bytes(bytes[SINCE_AT..SINCE_AT + 8].try_into().ok()?);
    Some(Entry {
        name: String::from_utf8(name.to_vec()).ok()?,
        address,
        healthy: bytes[1] != 0,
        state: bytes[2],
        weight: u16::from_ne_bytes(weight),
        since: (since > 0).then(|| Duration::from_nanos(since)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (name, address) in [
            ("ocs", None),
            ("OCS_Node1", Some("198.51.100.10")),
            (&"x".repeat(64), Some("2001:db8::7")),
        ] {
            for healthy in [false, true] {
                let entry = Entry {
                    name: name.to_owned(),
                    address: address.map(|text| text.parse().expect("an address")),
                    healthy,
                    state: 3,
                    weight: 257,
                    since: healthy.then_some(Duration::from_nanos(u64::MAX)),
                };
                assert_eq!(decode(&encode(&entry)), Some(entry));
            }
        }
        let mut broken = [0; SIZE];
        broken[0] = 90;
        assert_eq!(decode(&broken), None);
    }

    #[test]
    fn keys_do_not_meet() {
        assert_eq!(key(1, Some(2)), 0x1_0002);
        assert_eq!(key(1, None), 0x1_ffff);
        assert!(key(127, Some(255)) < HOST);
    }
}

//! Sticky entries that are to be forgotten.

use std::net::IpAddr;

use aya::maps::{HashMap, Map, MapData, MapError};
use ocs_lb_common::abi::{StickyKey, StickyValue};
use ocs_lb_common::address::V4;

use super::load::MapIds;
use super::read::second;

/// Which entries of a cluster are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Id of the cluster.
    pub cluster: u16,
    /// Only this client.
    pub client: Option<IpAddr>,
    /// Only those on this slot.
    pub backend: Option<u16>,
}

impl Wanted {
    fn key(&self, key: &StickyKey<V4>) -> bool {
        key.cluster == self.cluster
            && self
                .client
                .is_none_or(|client| client == IpAddr::from(key.address.0))
    }

    fn value(&self, value: &StickyValue) -> bool {
        self.backend.is_none_or(|slot| slot == value.backend)
    }
}

/// Deletes the entries that are meant; how many. A walk of its own beside the
/// owner: the datapath writes this table all the time, and an entry that
/// comes meanwhile may stay.
///
/// # Errors
/// The kernel's; what was deleted before stays deleted.
pub fn clear(ids: &MapIds, wanted: &Wanted) -> Result<u64, MapError> {
    let Some(table) = ids.sticky.get(usize::from(wanted.cluster)) else {
        return Ok(0);
    };
    // What a first connection under way proposes would come back at its end.
    clear_table(ids.pending_sticky, wanted)?;
    clear_table(*table, wanted)
}

fn clear_table(id: u32, wanted: &Wanted) -> Result<u64, MapError> {
    let mut map: HashMap<MapData, StickyKey<V4>, StickyValue> = second(id, Map::LruHashMap)?;
    // Keys first: a deletion during the walk would start it again.
    let keys: Vec<_> = map
        .keys()
        .filter(|key| key.as_ref().map_or(true, |key| wanted.key(key)))
        .collect::<Result<_, _>>()?;
    let mut cleared = 0;
    for key in keys {
        // Gone already, or another's by now.
        if wanted.backend.is_some() && !map.get(&key, 0).is_ok_and(|value| wanted.value(&value)) {
            continue;
        }
        match map.remove(&key) {
            Ok(()) => cleared += 1,
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(cleared)
}

fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(call) => call.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_must_hold() {
        let key = StickyKey {
            address: V4([203, 0, 113, 9]),
            cluster: 3,
            pad: 0,
        };
        let value = StickyValue {
            backend: 2,
            ..StickyValue::default()
        };
        let all = Wanted {
            cluster: 3,
            client: None,
            backend: None,
        };
        assert!(all.key(&key) && all.value(&value));
        assert!(!Wanted { cluster: 2, ..all }.key(&key));
        let client = |client: [u8; 4]| Wanted {
            client: Some(client.into()),
            ..all
        };
        assert!(client([203, 0, 113, 9]).key(&key));
        assert!(!client([203, 0, 113, 8]).key(&key));
        let on = |slot| Wanted {
            backend: Some(slot),
            ..all
        };
        assert!(on(2).value(&value) && !on(1).value(&value));
    }
}

//! Whether a map that is there already can be the one that is wanted: aya
//! takes what a path has without a look.

use std::collections::BTreeMap;

use aya::maps::{MapInfo, MapType};
use aya_obj::generated::bpf_map_type;

use super::load::LoadError;
use super::pins::Pins;
use crate::model::sizes::Sizes;

/// `BPF_F_RDONLY_PROG`, which the kernel adds to device maps by itself.
const ADDED_BY_THE_KERNEL: u32 = 1 << 7;

/// Tables that may be larger than a configuration needs.
const MAY_BE_LARGER: [&str; 6] = [
    "FLOWS4",
    "HALF_OPEN4",
    "SERVICES4",
    "ADDRESSES4",
    "PORT_MAPS",
    "DESTINATIONS4",
];

/// What two maps must have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Kind of map.
    pub kind: MapType,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// Flags it was made with.
    pub flags: u32,
    /// Entries at most.
    pub entries: u32,
}

/// Why a map cannot be reused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Misfit {
    /// It has too few entries.
    #[error("{map} has room for {found}, and the configuration needs {wanted}")]
    Small {
        /// The map.
        map: String,
        /// What it has.
        found: u32,
        /// What is needed.
        wanted: u32,
    },
    /// It is another map.
    #[error("{map} is {found:?}, and this binary needs {wanted:?}")]
    Other {
        /// The map.
        map: String,
        /// What it is.
        found: Shape,
        /// What is needed.
        wanted: Shape,
    },
}

/// Compares one map with what is wanted.
///
/// # Errors
/// [`Misfit`].
pub fn fits(map: &str, wanted: Shape, found: Shape) -> Result<(), Misfit> {
    let growing = MAY_BE_LARGER.contains(&map);
    let same = Shape {
        entries: if growing {
            wanted.entries
        } else {
            found.entries
        },
        flags: found.flags & !ADDED_BY_THE_KERNEL,
        ..found
    };
    let wanted = Shape {
        flags: wanted.flags & !ADDED_BY_THE_KERNEL,
        ..wanted
    };
    if same != wanted {
        return Err(Misfit::Other {
            map: map.to_owned(),
            found,
            wanted,
        });
    }
    if growing && found.entries < wanted.entries {
        return Err(Misfit::Small {
            map: map.to_owned(),
            found: found.entries,
            wanted: wanted.entries,
        });
    }
    Ok(())
}

/// The shape of a map in the kernel.
///
/// # Errors
/// Where its kind is unknown.
pub fn shape(info: &MapInfo) -> Result<Shape, aya::maps::MapError> {
    Ok(Shape {
        kind: info.map_type()?,
        key: info.key_size(),
        value: info.value_size(),
        flags: info.map_flags(),
        entries: info.max_entries(),
    })
}

/// The maps of an object that outlive the controller, with the sizes that a
/// configuration gives them.
///
/// # Errors
/// Where the object cannot be read.
pub fn wanted(object: &[u8], sizes: &Sizes) -> Result<BTreeMap<String, Shape>, LoadError> {
    let object = aya_obj::Object::parse(object)
        .map_err(|error| LoadError::Object(aya::EbpfError::ParseError(error)))?;
    let overrides = sizes.overrides();
    let mut shapes = BTreeMap::new();
    for (name, map) in object.maps {
        // Constants of the programs, and their own log.
        if name.starts_with('.') || name == "AYA_LOGS" {
            continue;
        }
        let kind = bpf_map_type::try_from(map.map_type())
            .ok()
            .and_then(|kind| MapType::try_from(kind).ok())
            .ok_or(LoadError::Mismatch("a map of a kind that is not known"))?;
        let size = overrides.iter().find(|(known, _)| *known == name);
        let shape = Shape {
            kind,
            key: map.key_size(),
            value: map.value_size(),
            flags: map.map_flags(),
            entries: size.map_or(map.max_entries(), |(_, entries)| *entries),
        };
        shapes.insert(name, shape);
    }
    Ok(shapes)
}

/// Compares every map that is pinned with what is wanted.
///
/// # Errors
/// [`LoadError::Misfit`] for the first that cannot be reused.
pub fn compare(pins: &Pins, wanted: &BTreeMap<String, Shape>) -> Result<(), LoadError> {
    for (name, wanted) in wanted {
        let path = pins.map(name);
        if !path.exists() {
            continue;
        }
        let map = |source| LoadError::Pinned {
            path: path.clone(),
            source: Box::new(source),
        };
        let info = MapInfo::from_pin(&path).map_err(map)?;
        fits(name, *wanted, shape(&info).map_err(map)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Shape = Shape {
        kind: MapType::Hash,
        key: 16,
        value: 64,
        flags: 0,
        entries: 1000,
    };

    #[test]
    fn tables_may_be_larger_and_nothing_else() {
        let larger = Shape {
            entries: 2000,
            ..TABLE
        };
        assert_eq!(fits("FLOWS4", TABLE, TABLE), Ok(()));
        assert_eq!(fits("FLOWS4", TABLE, larger), Ok(()));
        assert_eq!(
            fits("FLOWS4", larger, TABLE).map_err(|error| error.to_string()),
            Err("FLOWS4 has room for 1000, and the configuration needs 2000".to_owned())
        );
        for other in [
            Shape { key: 12, ..TABLE },
            Shape { value: 72, ..TABLE },
            Shape { flags: 1, ..TABLE },
            Shape {
                kind: MapType::Array,
                ..TABLE
            },
        ] {
            let misfit = fits("FLOWS4", TABLE, other);
            assert!(matches!(misfit, Err(Misfit::Other { .. })), "{other:?}");
        }
        assert!(fits("COUNTERS", TABLE, larger).is_err());
    }

    #[test]
    fn device_maps_gain_a_flag() {
        let found = Shape {
            flags: ADDED_BY_THE_KERNEL,
            ..TABLE
        };
        assert_eq!(fits("DEVICES", TABLE, found), Ok(()));
    }
}

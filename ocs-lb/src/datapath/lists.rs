//! Lists of sources in the kernel: each a map of its own within `ACCESS4`.
//!
//! A list is never changed: another one takes another number, services are
//! switched to it, and the old one goes when no packet reads it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aya::maps::{Array, ArrayOfMaps, Map, MapData, MapError};
use ocs_lb_common::abi::{ACCESS_LISTS, Service};
use ocs_lb_common::access::{Cell, NONE};
use ocs_lb_common::address::V4;

use super::apply::{ApplyError, error};
use super::write::patient;
use crate::model::edits::MapEdit;
use crate::model::lists::cells;

/// Name of the map of lists.
pub(super) const LISTS: &str = "ACCESS4";
/// `BPF_F_INNER_MAP`, as in the programs' pattern of a list.
const INNER_MAP: u32 = 1 << 12;

/// The map of lists.
pub type Outer = ArrayOfMaps<MapData, Array<MapData, Cell<V4>>>;

/// Which list has which number.
#[derive(Debug, Default)]
pub struct Placed(BTreeMap<u16, Arc<[Cell<V4>]>>);

/// Makes a list and puts it at its number.
///
/// # Errors
/// The kernel's.
pub fn write(outer: &mut Outer, number: u16, list: &[Cell<V4>]) -> Result<(), MapError> {
    let pattern = aya_obj::Map::new_from_params(
        aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        size_of::<u32>() as u32,
        size_of::<Cell<V4>>() as u32,
        list.len() as u32,
        INNER_MAP,
    );
    let mut array: Array<MapData, Cell<V4>> =
        Map::Array(MapData::create(pattern, "ACCESS4_LIST", None)?).try_into()?;
    for (at, cell) in (0..).zip(list) {
        array.set(at, *cell, 0)?;
    }
    patient(|| outer.set(u32::from(number), &array, 0))
}

impl Placed {
    /// Brings the lists that the edits name into the kernel, each once, and
    /// gives the edits their numbers there. `taken` are those that services have
    /// in the kernel now.
    ///
    /// # Errors
    /// The map's, or that there are too many.
    pub(super) fn place(
        &mut self,
        outer: &mut Outer,
        edits: &[MapEdit],
        taken: &BTreeSet<u16>,
    ) -> Result<Vec<MapEdit>, ApplyError> {
        let mut numbers = BTreeMap::new();
        let mut placed = Vec::with_capacity(edits.len());
        for edit in edits {
            match edit {
                MapEdit::List(local, list) => {
                    numbers.insert(*local, self.number(outer, list, taken)?);
                }
                MapEdit::Service(key, service) if service.access != 0 => {
                    let access = numbers.get(&service.access).copied().unwrap_or(0);
                    placed.push(MapEdit::Service(*key, Service { access, ..*service }));
                }
                other => placed.push(other.clone()),
            }
        }
        Ok(placed)
    }

    /// The number of a list.
    fn number(
        &mut self,
        outer: &mut Outer,
        list: &Arc<[Cell<V4>]>,
        taken: &BTreeSet<u16>,
    ) -> Result<u16, ApplyError> {
        if let Some((number, _)) = self.0.iter().find(|(_, known)| *known == list) {
            return Ok(*number);
        }
        let mut numbers = 1..ACCESS_LISTS as u16;
        let free = numbers.find(|number| !self.0.contains_key(number) && !taken.contains(number));
        let number = free.ok_or_else(|| {
            error(LISTS)(MapError::OutOfBounds {
                index: ACCESS_LISTS,
                max_entries: ACCESS_LISTS,
            })
        })?;
        write(outer, number, list).map_err(error(LISTS))?;
        self.0.insert(number, Arc::clone(list));
        Ok(number)
    }

    /// Frees every list but those that `wanted` names. `before` are those that
    /// services had.
    ///
    /// # Errors
    /// The map's.
    pub(super) fn release(
        &mut self,
        outer: &mut Outer,
        wanted: &BTreeSet<u16>,
        before: &BTreeSet<u16>,
    ) -> Result<(), ApplyError> {
        let known: BTreeSet<u16> = self.0.keys().chain(before).copied().collect();
        for number in known.difference(wanted) {
            write(outer, *number, &cells(&[(0, NONE)])).map_err(error(LISTS))?;
            self.0.remove(number);
        }
        Ok(())
    }

    /// Waits until no packet reads what services and lists were before: the
    /// kernel's update of a map of maps ends after the programs that run
    /// (`maybe_wait_bpf_programs`, `kernel/bpf/syscall.c`). Number 0 is nobody's.
    ///
    /// # Errors
    /// The map's.
    pub(super) fn wait(outer: &mut Outer) -> Result<(), ApplyError> {
        write(outer, 0, &cells(&[(0, NONE)])).map_err(error(LISTS))
    }
}

//! The eBPF object: sizes set, maps created, programs verified.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::maps::{Array, ArrayOfMaps, DevMapHash, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{Program, ProgramError, RawTracePoint, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use ocs_lb_common::abi::{
    AddressFlags, Backend, Cluster, ClusterLoad, Correction, Flow, FlowKey, KillReport,
    KillRequest, LinkInfo, NextHop, NextHopKey, Pending, PortMap, Recount, Service, ServiceKey,
    Settings, SnatKey, SourceKey, StickyKey, StickyValue,
};
use ocs_lb_common::address::V4;
use ocs_lb_common::sweep::Report;

use super::identity::{self, Identity};
use super::lists::{LISTS, Outer, Placed};
use super::pins::Pins;
use super::reuse;
use super::sticky_tables::{STICKY, Table, sticky_tables};
use crate::model::LogLevel;
use crate::model::sizes::Sizes;

static OBJECT: &[u8] = include_bytes_aligned!(env!("OCS_LB_EBPF_OBJECT"));

/// Name of the XDP program.
pub const XDP: &str = "ocs_lb_xdp";
/// Name of the same program for traffic control.
pub const TC: &str = "ocs_lb_tc";
/// Name of the sweep.
pub const SWEEP: &str = "ocs_lb_sweep";
/// Name of the program that ends chosen flows.
pub const KILL: &str = "ocs_lb_kill";
/// Name of the program that repairs counts.
pub const CORRECT: &str = "ocs_lb_correct";

/// One cluster's clients and their backends.
pub type StickyTable = HashMap<MapData, StickyKey<V4>, StickyValue>;

/// Why the datapath could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel refused the object or a map.
    #[error("the kernel took the eBPF object not: {0}")]
    Object(#[from] aya::EbpfError),
    /// The verifier refused a program.
    #[error("program {name}: {source}")]
    Program {
        /// The program.
        name: String,
        /// Why; with the end of the verifier's log.
        source: Box<ProgramError>,
    },
    /// The object lacks a map or program, or it is of another type.
    #[error("the eBPF object and this binary do not belong together: {0}")]
    Mismatch(&'static str),
    /// A map that is there already is not the one that is wanted.
    #[error("the datapath that forwards cannot be taken on: {0}; `ocs-lb detach` ends it")]
    Misfit(#[from] reuse::Misfit),
    /// A pinned map or program.
    #[error("{path}: {source}")]
    Pinned {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map is not what the binary takes it for.
    #[error("map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
}

/// Every map the controller uses.
#[expect(missing_docs, reason = "docs/maps.md describes each map once")]
pub struct Maps {
    pub flows: HashMap<MapData, FlowKey<V4>, Flow<V4>>,
    pub addresses: HashMap<MapData, V4, AddressFlags>,
    pub services: HashMap<MapData, ServiceKey<V4>, Service>,
    /// Lists of sources, by the number that services have.
    pub lists: Outer,
    pub placed: Placed,
    pub sources: HashMap<MapData, SourceKey<V4>, u64>,
    pub backends: Array<MapData, Backend<V4>>,
    /// By cluster id; the outer map holds them for the datapath.
    pub sticky: Vec<StickyTable>,
    pub pending_sticky: StickyTable,
    pub destinations: HashMap<MapData, SnatKey<V4>, u32>,
    pub next_hop_ids: HashMap<MapData, NextHopKey<V4>, u32>,
    pub clusters: Array<MapData, Cluster>,
    pub loads: Array<MapData, ClusterLoad>,
    pub port_maps: Array<MapData, PortMap>,
    pub next_hops: Array<MapData, NextHop>,
    pub devices: DevMapHash<MapData>,
    /// How frames leave by an interface that a route names, by its index.
    pub links: HashMap<MapData, u32, LinkInfo>,
    pub interfaces: Array<MapData, u32>,
    pub counters: PerCpuArray<MapData, u64>,
    pub settings: Array<MapData, Settings>,
    pub sweep_report: Array<MapData, Report>,
    pub recount: Array<MapData, Recount>,
    pub correction: Array<MapData, Correction>,
    pub cursors: Array<MapData, u32>,
    pub half_open: Array<MapData, Pending<V4>>,
    pub test_clock: Array<MapData, u64>,
    pub events_lost: PerCpuArray<MapData, u64>,
    pub kill_request: Array<MapData, KillRequest>,
    pub kill_report: Array<MapData, KillReport>,
}

/// A loaded datapath: programs verified, maps empty, nothing attached.
pub struct Loaded {
    /// Object with its programs.
    pub ebpf: Ebpf,
    /// Its maps.
    pub maps: Maps,
    /// Kernel ids of the maps that are walked beside their owner.
    pub ids: MapIds,
    /// Events from the datapath, until they are taken.
    pub events: Option<RingBuf<MapData>>,
    /// Flows that were killed, until they are taken.
    pub kills: Option<RingBuf<MapData>>,
    /// Names of the ids in the maps.
    pub identity: Identity,
    /// The clusters' sticky tables, as the programs find them.
    pub(super) sticky: ArrayOfMaps<MapData, MapData>,
    /// Name, entries and locked bytes of every map.
    pub bill: Vec<MapBill>,
}

/// Kernel ids of maps.
#[derive(Debug, Clone)]
pub struct MapIds {
    /// Of `FLOWS4`.
    pub flows: u32,
    /// Of the tables in `STICKY4`, by cluster id.
    pub sticky: Arc<[u32]>,
    /// Of `PENDING_STICKY4`.
    pub pending_sticky: u32,
}

impl Loaded {
    /// The ring of events, once.
    ///
    /// # Errors
    /// The second time.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        self.events.take().ok_or(LoadError::Mismatch("EVENTS4"))
    }

    /// The ring of killed flows, once.
    ///
    /// # Errors
    /// The second time.
    pub fn take_kills(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        self.kills.take().ok_or(LoadError::Mismatch("KILLS4"))
    }
}

/// What the kernel says a map takes.
#[derive(Debug, Clone)]
pub struct MapBill {
    /// Kernel name.
    pub name: String,
    /// Entries at most.
    pub capacity: u64,
    /// Locked bytes.
    pub bytes: u64,
}

/// The object with tables of the given sizes; no program is loaded yet. The
/// programs log only where the controller's own log is at its most detailed,
/// and then one line for each new flow.
///
/// # Errors
/// [`LoadError`]; nothing stays in the kernel then.
pub fn object(sizes: &Sizes, log: LogLevel) -> Result<Ebpf, LoadError> {
    object_at(sizes, log, Clock::Kernel, None)
}

/// Where the programs read the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The kernel's monotonic clock.
    Kernel,
    /// `TEST_CLOCK`, which only tests write.
    Test,
}

fn object_at(
    sizes: &Sizes,
    log: LogLevel,
    clock: Clock,
    pins: Option<&Pins>,
) -> Result<Ebpf, LoadError> {
    let wanted = reuse::wanted(OBJECT, sizes)?;
    let mut loader = EbpfLoader::new();
    if let Some(pins) = pins {
        reuse::compare(pins, &wanted)?;
        for name in wanted.keys() {
            loader.map_pin_path(name, pins.map(name));
        }
    }
    // Read-only and known before verification: with 0 no log call is left in
    // the programs.
    let level: u8 = if log == LogLevel::Trace {
        aya_log::Level::Debug as u8
    } else {
        0
    };
    loader.override_global(aya_log::LEVEL, &level, true);
    let test_clock = u8::from(clock == Clock::Test);
    loader.override_global("USE_TEST_CLOCK", &test_clock, true);
    if let Some(pause) = &sizes.shortest_timeout {
        loader.override_global("PAUSE_TICKS", pause, true);
    }
    for (name, entries) in sizes.with_room().overrides() {
        loader.map_max_entries(name, entries);
    }
    Ok(loader.load(OBJECT)?)
}

/// Gives a program to the verifier; every type that the object has.
///
/// # Errors
/// The verifier's, with the end of its log.
pub fn verify(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Loads the [`object`] and every program of it.
///
/// # Errors
/// [`LoadError`]; nothing stays in the kernel then.
pub fn load(sizes: &Sizes, log: LogLevel) -> Result<Loaded, LoadError> {
    load_at(sizes, log, Clock::Kernel)
}

/// The same over the maps that are pinned, where there are any; the others
/// are pinned too. Programs that forward by them go on.
///
/// # Errors
/// [`LoadError`]; maps that were pinned before are as they were.
pub fn load_pinned(sizes: &Sizes, log: LogLevel, pins: &Pins) -> Result<Loaded, LoadError> {
    load_with(sizes, log, Clock::Kernel, Some(pins))
}

/// The same as [`load`] with a clock of choice.
///
/// # Errors
/// [`LoadError`].
pub fn load_at(sizes: &Sizes, log: LogLevel, clock: Clock) -> Result<Loaded, LoadError> {
    load_with(sizes, log, clock, None)
}

fn load_with(
    sizes: &Sizes,
    log: LogLevel,
    clock: Clock,
    pins: Option<&Pins>,
) -> Result<Loaded, LoadError> {
    let mut ebpf = object_at(sizes, log, clock, pins)?;
    let identity = identity(pins)?;
    let tables = sticky_tables(&mut ebpf, &sizes.sticky, pins)?;
    let bill = bill(&ebpf, &tables);
    let ids = MapIds {
        flows: id(&ebpf, "FLOWS4")?,
        sticky: tables.iter().map(|table| table.id).collect(),
        pending_sticky: id(&ebpf, "PENDING_STICKY4")?,
    };
    let tables = tables.into_iter().map(|table| table.map).collect();
    let sticky = take(&mut ebpf, STICKY)?;
    let maps = take_maps(&mut ebpf, tables)?;
    let events = take(&mut ebpf, "EVENTS4")?;
    let kills = take(&mut ebpf, "KILLS4")?;
    for (name, program) in ebpf.programs_mut() {
        verify(program).map_err(|source| LoadError::Program {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
    }
    Ok(Loaded {
        ebpf,
        maps,
        ids,
        events: Some(events),
        kills: Some(kills),
        identity,
        sticky,
        bill,
    })
}

/// The table of names, made where there is none.
///
/// # Errors
/// The kernel's.
pub fn identity(pins: Option<&Pins>) -> Result<Identity, LoadError> {
    use aya::maps::Map;
    use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_HASH;

    const NAME: &str = identity::MAP;
    /// `BPF_F_NO_PREALLOC` (`include/uapi/linux/bpf.h`).
    const NO_PREALLOC: u32 = 1;
    let pattern = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_HASH as u32,
        size_of::<u32>() as u32,
        identity::SIZE as u32,
        65_536,
        NO_PREALLOC,
    );
    let map = |source| LoadError::Map { name: NAME, source };
    let data = open_or_create(pattern, NAME, pins.map(|pins| pins.map(NAME)).as_deref())?;
    Identity::new(Map::HashMap(data).try_into().map_err(map)?).map_err(map)
}

/// The map of a path, or a new one that is pinned there.
pub(super) fn open_or_create(
    pattern: aya_obj::Map,
    name: &'static str,
    path: Option<&Path>,
) -> Result<MapData, LoadError> {
    let map = |source| LoadError::Map { name, source };
    if let Some(path) = path.filter(|path| path.exists()) {
        return MapData::from_pin(path).map_err(map);
    }
    let data = MapData::create(pattern, name, None).map_err(map)?;
    if let Some(path) = path {
        data.pin(path).map_err(|source| LoadError::Pinned {
            path: path.to_path_buf(),
            source: Box::new(source),
        })?;
    }
    Ok(data)
}

/// The XDP program of an object.
///
/// # Errors
/// [`LoadError::Mismatch`].
pub fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, LoadError> {
    ebpf.program_mut(XDP)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::Mismatch(XDP))
}

/// The traffic control program of an object.
///
/// # Errors
/// [`LoadError::Mismatch`].
pub fn tc(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, LoadError> {
    ebpf.program_mut(TC)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::Mismatch(TC))
}

/// One of the programs that the controller runs by test-run.
///
/// # Errors
/// [`LoadError::Mismatch`].
pub fn raw_tracepoint<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut RawTracePoint, LoadError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::Mismatch(name))
}

fn take_maps(ebpf: &mut Ebpf, sticky: Vec<StickyTable>) -> Result<Maps, LoadError> {
    Ok(Maps {
        flows: take(ebpf, "FLOWS4")?,
        addresses: take(ebpf, "ADDRESSES4")?,
        services: take(ebpf, "SERVICES4")?,
        lists: take(ebpf, LISTS)?,
        placed: Placed::default(),
        sources: take(ebpf, "SOURCES4")?,
        backends: take(ebpf, "BACKENDS4")?,
        sticky,
        pending_sticky: take(ebpf, "PENDING_STICKY4")?,
        destinations: take(ebpf, "DESTINATIONS4")?,
        next_hop_ids: take(ebpf, "NEXT_HOP_IDS4")?,
        clusters: take(ebpf, "CLUSTERS")?,
        loads: take(ebpf, "LOADS")?,
        port_maps: take(ebpf, "PORT_MAPS")?,
        next_hops: take(ebpf, "NEXT_HOPS")?,
        devices: take(ebpf, "DEVICES")?,
        links: take(ebpf, "LINKS")?,
        interfaces: take(ebpf, "INTERFACES")?,
        counters: take(ebpf, "COUNTERS")?,
        settings: take(ebpf, "SETTINGS")?,
        sweep_report: take(ebpf, "SWEEP_REPORT")?,
        recount: take(ebpf, "RECOUNT")?,
        correction: take(ebpf, "CORRECTION")?,
        cursors: take(ebpf, "CURSORS")?,
        half_open: take(ebpf, "HALF_OPEN4")?,
        test_clock: take(ebpf, "TEST_CLOCK")?,
        events_lost: take(ebpf, "EVENTS_LOST")?,
        kill_request: take(ebpf, "KILL_REQUEST")?,
        kill_report: take(ebpf, "KILL_REPORT")?,
    })
}

fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).ok_or(LoadError::Mismatch(name))?;
    M::try_from(map).map_err(|source| LoadError::Map { name, source })
}

/// The kernel's id of a map.
fn id(ebpf: &Ebpf, name: &'static str) -> Result<u32, LoadError> {
    use aya::maps::Map;

    match ebpf.map(name) {
        Some(Map::HashMap(data) | Map::LruHashMap(data)) => data
            .info()
            .map(|info| info.id())
            .map_err(|source| LoadError::Map { name, source }),
        _ => Err(LoadError::Mismatch(name)),
    }
}

/// What the kernel says of every map; all sticky tables make one row.
fn bill(ebpf: &Ebpf, tables: &[Table]) -> Vec<MapBill> {
    use aya::maps::Map;

    let mut rows: Vec<MapBill> = ebpf
        .maps()
        .filter_map(|(name, map)| match map {
            Map::Array(data)
            | Map::DevMapHash(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::PerCpuArray(data)
            | Map::RingBuf(data) => row(name, data),
            _ => None,
        })
        .collect();
    if !tables.is_empty() {
        rows.push(MapBill {
            name: "STICKY4".to_owned(),
            capacity: tables.iter().map(|table| table.row.capacity).sum(),
            bytes: tables.iter().map(|table| table.row.bytes).sum(),
        });
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// Locked bytes as the kernel accounts them (`/proc/self/fdinfo`, `memlock`).
pub(super) fn row(name: &str, data: &MapData) -> Option<MapBill> {
    use std::os::fd::{AsFd as _, AsRawFd as _};

    let fd = data.fd().as_fd().as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let field = |key: &str| -> Option<u64> {
        info.lines()
            .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    };
    Some(MapBill {
        name: name.to_owned(),
        capacity: field("max_entries:")?,
        bytes: field("memlock:")?,
    })
}

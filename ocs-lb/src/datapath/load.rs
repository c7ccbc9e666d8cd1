//! The eBPF object: sizes set, maps created, programs verified.

use aya::maps::{Array, DevMapHash, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{RawTracePoint, Xdp};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use ocs_lb_common::abi::{
    AddressFlags, Backend, Cluster, ClusterLoad, Flow, FlowKey, KillReport, KillRequest, NextHop,
    NextHopKey, PortMap, Service, ServiceKey, Settings, SnatKey, StickyKey, StickyValue,
};
use ocs_lb_common::address::V4;
use ocs_lb_common::sweep::Report;

use crate::model::LogLevel;
use crate::model::sizes::Sizes;

static OBJECT: &[u8] = include_bytes_aligned!(env!("OCS_LB_EBPF_OBJECT"));

/// Name of the XDP program.
pub const XDP: &str = "ocs_lb_xdp";
/// Name of the sweep.
pub const SWEEP: &str = "ocs_lb_sweep";
/// Name of the walk that ends flows.
pub const KILL: &str = "ocs_lb_kill";

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
        name: &'static str,
        /// Why; with the end of the verifier's log.
        source: Box<aya::programs::ProgramError>,
    },
    /// The object lacks a map or program, or it is of another type.
    #[error("the eBPF object and this binary do not belong together: {0}")]
    Mismatch(&'static str),
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
    pub backends: Array<MapData, Backend<V4>>,
    pub sticky: HashMap<MapData, StickyKey<V4>, StickyValue>,
    pub destinations: HashMap<MapData, SnatKey<V4>, u32>,
    pub next_hop_ids: HashMap<MapData, NextHopKey<V4>, u32>,
    pub clusters: Array<MapData, Cluster>,
    pub loads: Array<MapData, ClusterLoad>,
    pub port_maps: Array<MapData, PortMap>,
    pub next_hops: Array<MapData, NextHop>,
    pub devices: DevMapHash<MapData>,
    pub interfaces: Array<MapData, u32>,
    pub counters: PerCpuArray<MapData, u64>,
    pub settings: Array<MapData, Settings>,
    pub sweep_report: Array<MapData, Report>,
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
    /// Name, entries and locked bytes of every map.
    pub bill: Vec<MapBill>,
}

/// Kernel ids of maps.
#[derive(Debug, Clone, Copy)]
pub struct MapIds {
    /// Of `FLOWS4`.
    pub flows: u32,
    /// Of `STICKY4`.
    pub sticky: u32,
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

/// Loads the object with tables of the given sizes. The programs log only
/// where the controller's own log is at its most detailed, and then one line
/// for each new flow.
///
/// # Errors
/// [`LoadError`]; nothing stays in the kernel then.
pub fn load(sizes: &Sizes, log: LogLevel) -> Result<Loaded, LoadError> {
    let mut loader = EbpfLoader::new();
    // Read-only and known before verification: with 0 no log call is left in
    // the programs.
    let level: u8 = if log == LogLevel::Trace {
        aya_log::Level::Debug as u8
    } else {
        0
    };
    loader.override_global(aya_log::LEVEL, &level, true);
    for (name, entries) in sizes.overrides() {
        loader.map_max_entries(name, entries);
    }
    let mut ebpf = loader.load(OBJECT)?;
    let bill = bill(&ebpf);
    let ids = MapIds {
        flows: id(&ebpf, "FLOWS4")?,
        sticky: id(&ebpf, "STICKY4")?,
    };
    let maps = take_maps(&mut ebpf)?;
    let events = take(&mut ebpf, "EVENTS4")?;
    let kills = take(&mut ebpf, "KILLS4")?;
    xdp(&mut ebpf)?
        .load()
        .map_err(|source| LoadError::Program {
            name: XDP,
            source: Box::new(source),
        })?;
    sweep(&mut ebpf)?
        .load()
        .map_err(|source| LoadError::Program {
            name: SWEEP,
            source: Box::new(source),
        })?;
    kill(&mut ebpf)?
        .load()
        .map_err(|source| LoadError::Program {
            name: KILL,
            source: Box::new(source),
        })?;
    Ok(Loaded {
        ebpf,
        maps,
        ids,
        events: Some(events),
        kills: Some(kills),
        bill,
    })
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

/// The sweep of an object.
///
/// # Errors
/// [`LoadError::Mismatch`].
pub fn sweep(ebpf: &mut Ebpf) -> Result<&mut RawTracePoint, LoadError> {
    ebpf.program_mut(SWEEP)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::Mismatch(SWEEP))
}

/// The walk that ends flows.
///
/// # Errors
/// [`LoadError::Mismatch`].
pub fn kill(ebpf: &mut Ebpf) -> Result<&mut RawTracePoint, LoadError> {
    ebpf.program_mut(KILL)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::Mismatch(KILL))
}

fn take_maps(ebpf: &mut Ebpf) -> Result<Maps, LoadError> {
    Ok(Maps {
        flows: take(ebpf, "FLOWS4")?,
        addresses: take(ebpf, "ADDRESSES4")?,
        services: take(ebpf, "SERVICES4")?,
        backends: take(ebpf, "BACKENDS4")?,
        sticky: take(ebpf, "STICKY4")?,
        destinations: take(ebpf, "DESTINATIONS4")?,
        next_hop_ids: take(ebpf, "NEXT_HOP_IDS4")?,
        clusters: take(ebpf, "CLUSTERS")?,
        loads: take(ebpf, "LOADS")?,
        port_maps: take(ebpf, "PORT_MAPS")?,
        next_hops: take(ebpf, "NEXT_HOPS")?,
        devices: take(ebpf, "DEVICES")?,
        interfaces: take(ebpf, "INTERFACES")?,
        counters: take(ebpf, "COUNTERS")?,
        settings: take(ebpf, "SETTINGS")?,
        sweep_report: take(ebpf, "SWEEP_REPORT")?,
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

/// Locked bytes as the kernel accounts them (`/proc/self/fdinfo`, `memlock`).
fn bill(ebpf: &Ebpf) -> Vec<MapBill> {
    use aya::maps::Map;
    use std::os::fd::{AsFd as _, AsRawFd as _};

    let mut rows: Vec<MapBill> = ebpf
        .maps()
        .filter_map(|(name, map)| {
            let data = match map {
                Map::Array(data)
                | Map::DevMapHash(data)
                | Map::HashMap(data)
                | Map::LruHashMap(data)
                | Map::PerCpuArray(data)
                | Map::RingBuf(data) => data,
                _ => return None,
            };
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
        })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

//! Maps to views.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData, MapError};
use ocs_lb_common::abi::{
    ClusterLoad, Flow, FlowKey, INTERFACE_SLOTS, SnatKey, StickyKey, StickyValue,
};
use ocs_lb_common::address::V4;
use ocs_lb_common::ticks::Ticks;
use ocs_lb_common::track::{Phase, StateWord};
use ocs_lb_common::verdict::{Kind, SLOTS, Verdict};

use super::attach::Attached;
use super::load::Maps;
use crate::model::edits::Reach;
use crate::model::snat::range_len;
use crate::model::{Backend, Cluster, Model, Port};
use crate::snapshot::{FlowView, InterfaceView, SnatView, StickyView};

/// The counts of a cluster.
///
/// # Errors
/// The map's.
pub fn load(maps: &Maps, cluster: u16) -> Result<ClusterLoad, MapError> {
    maps.loads.get(&u32::from(cluster), 0)
}

/// Packets of one interface by verdict.
///
/// # Errors
/// The map's.
pub fn interface(maps: &Maps, attached: &Attached) -> Result<InterfaceView, MapError> {
    let mut view = InterfaceView {
        name: attached.name.clone(),
        mode: attached.mode.label().to_owned(),
        reason: attached.reason.clone(),
        ..InterfaceView::default()
    };
    for verdict in Verdict::ALL {
        let count = counter(maps, attached.slot, *verdict)?;
        let counts = match verdict.kind() {
            Kind::Forward => &mut view.forwarded,
            Kind::Pass => &mut view.passed,
            Kind::Drop => &mut view.dropped,
        };
        counts.insert(verdict.label().to_owned(), count);
    }
    Ok(view)
}

/// Packets that ended so on one slot, over all CPUs.
///
/// # Errors
/// The map's.
pub fn counter(maps: &Maps, slot: u32, verdict: Verdict) -> Result<u64, MapError> {
    let index = (slot % INTERFACE_SLOTS) * SLOTS + verdict as u32;
    Ok(maps.counters.get(&index, 0)?.iter().sum())
}

/// Events that found the ring full.
///
/// # Errors
/// The map's.
pub fn events_lost(maps: &Maps) -> Result<u64, MapError> {
    Ok(maps.events_lost.get(&0, 0)?.iter().sum())
}

/// SNAT ports in use, by destination: a row for every cluster that uses it, for
/// a retired backend while it has flows there.
///
/// # Errors
/// A map's.
pub fn snat(maps: &Maps, model: &Model, reach: &[Vec<Reach>]) -> Result<Vec<SnatView>, MapError> {
    let mut rows = Vec::new();
    for entry in maps.destinations.iter() {
        let (key, index) = entry?;
        let ports = maps.port_maps.get(&index, 0)?;
        for (cluster, reach) in model.clusters.iter().zip(reach) {
            for (backend, reach) in cluster.backends.iter().zip(reach) {
                let is_over = backend.retired && ports.used <= ports.resting;
                if is_over || !uses(cluster, backend, reach, &key) {
                    continue;
                }
                rows.push(SnatView {
                    cluster: cluster.name.clone(),
                    address: Ipv4Addr::from(key.snat.0).to_string(),
                    backend: backend.name.clone(),
                    port: key.port.get(),
                    used: ports.used,
                    resting: ports.resting,
                    failures: ports.failures,
                    limit: range_len(reach.ports),
                });
            }
        }
    }
    rows.sort_by(|a, b| {
        (&a.cluster, &a.backend, a.port, &a.address)
            .cmp(&(&b.cluster, &b.backend, b.port, &b.address))
    });
    Ok(rows)
}

/// Whether a backend's flows may have this destination.
fn uses(cluster: &Cluster, backend: &Backend, reach: &Reach, key: &SnatKey<V4>) -> bool {
    let port = key.port.get();
    let dialled = match backend.port {
        Some(fixed) => fixed == port,
        // A retired cluster has no ports any more.
        None => {
            let is = |served: &Port| served.target == port || served.listen == Port::ANY;
            cluster.retired || cluster.ports.iter().any(is)
        }
    };
    dialled
        && backend.address == IpAddr::from(Ipv4Addr::from(key.backend.0))
        && reach.snat.contains(&Ipv4Addr::from(key.snat.0))
}

/// A second handle on a map, for a walk beside the task that owns the first.
///
/// # Errors
/// The kernel's.
pub(super) fn second<K: aya::Pod, V: aya::Pod>(
    id: u32,
    wrap: fn(MapData) -> Map,
) -> Result<HashMap<MapData, K, V>, MapError> {
    HashMap::try_from(wrap(MapData::from_id(id)?))
}

/// Calls `each` for every flow until it says stop, with a walk of its own.
/// Flows that come or go meanwhile may be missed.
///
/// # Errors
/// The kernel's.
pub fn flows(
    map_id: u32,
    model: &Model,
    mut each: impl FnMut(FlowView) -> bool,
) -> Result<(), MapError> {
    let map: HashMap<_, FlowKey<V4>, Flow<V4>> = second(map_id, Map::HashMap)?;
    let now = now();
    // Keys first: a deletion during a walk with values may restart it.
    let keys: Vec<_> = map.keys().filter_map(Result::ok).collect();
    for key in keys {
        let Ok(forward) = map.get(&key, 0) else {
            continue;
        };
        if forward.is_reverse() {
            continue;
        }
        let reverse = map.get(&forward.peer_key(), 0).unwrap_or_default();
        if !each(flow_view(model, &key, &forward, &reverse, now)) {
            return Ok(());
        }
    }
    Ok(())
}

fn flow_view(
    model: &Model,
    key: &FlowKey<V4>,
    forward: &Flow<V4>,
    reverse: &Flow<V4>,
    now: Ticks,
) -> FlowView {
    let cluster = model.clusters.get(forward.cluster as usize);
    let backend = cluster.and_then(|cluster| cluster.backends.get(forward.backend as usize));
    let ip = |address: V4| IpAddr::from(Ipv4Addr::from(address.0));
    let idle = now.since(forward.last_seen.later(reverse.last_seen));
    FlowView {
        cluster: cluster.map_or_else(String::new, |cluster| cluster.name.clone()),
        client: ip(key.source),
        client_port: key.source_port.get(),
        vip: ip(key.destination),
        vip_port: key.destination_port.get(),
        snat: ip(forward.source),
        snat_port: forward.source_port.get(),
        backend: backend.map_or_else(String::new, |backend| backend.name.clone()),
        backend_address: ip(forward.destination),
        backend_port: forward.destination_port.get(),
        state: state(forward.state).to_owned(),
        idle: f64::from(idle) * f64::from(1 << 20) / 1e9,
        bytes_in: forward.bytes,
        bytes_out: reverse.bytes,
        packets_in: forward.packets,
        packets_out: reverse.packets,
    }
}

fn state(word: StateWord) -> &'static str {
    match word.phase() {
        Phase::HalfOpen => "half-open",
        Phase::Established if word.has(StateWord::CLIENT_FIN | StateWord::SERVER_FIN) => {
            "half-closed"
        }
        Phase::Established => "established",
        Phase::Closed => "closed",
        Phase::Reset => "reset",
        Phase::Killed => "killed",
        Phase::Dead | Phase::Deleting => "dead",
    }
}

/// Calls `each` for every sticky entry until it says stop, but for those that
/// nobody follows: of retired clusters and backends. `map_ids` are those of the
/// tables, by cluster id.
///
/// # Errors
/// The kernel's.
pub fn sticky(
    map_ids: &[u32],
    model: &Model,
    mut each: impl FnMut(StickyView) -> bool,
) -> Result<(), MapError> {
    let now = monotonic_ns();
    let clusters = map_ids.iter().zip(&model.clusters);
    for (id, cluster) in clusters.filter(|(_, cluster)| !cluster.retired) {
        let map: HashMap<_, StickyKey<V4>, StickyValue> = second(*id, Map::LruHashMap)?;
        let keys: Vec<_> = map.keys().filter_map(Result::ok).collect();
        for key in keys {
            let Ok(value) = map.get(&key, 0) else {
                continue;
            };
            let backend = cluster.backends.get(usize::from(value.backend));
            if backend.is_some_and(|backend| backend.retired) {
                continue;
            }
            if !each(sticky_view(cluster, &key, &value, now)) {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn sticky_view(
    cluster: &Cluster,
    key: &StickyKey<V4>,
    value: &StickyValue,
    now: u64,
) -> StickyView {
    let backend = cluster.backends.get(value.backend as usize);
    let age = now.saturating_sub(value.last_used_ns) as f64 / 1e9;
    let expire = cluster
        .sticky
        .map_or(0.0, |sticky| sticky.expire.as_secs_f64());
    StickyView {
        cluster: cluster.name.clone(),
        client: Ipv4Addr::from(key.address.0).into(),
        backend: backend.map_or_else(String::new, |backend| backend.name.clone()),
        expires_in: expire - age,
    }
}

/// The datapath's clock, read here.
pub(super) fn now() -> Ticks {
    Ticks::from_ns(monotonic_ns())
}

/// Time since the boot, as the datapath's clock counts it: the same over
/// restarts of the controller.
pub fn uptime() -> Duration {
    Duration::from_nanos(monotonic_ns())
}

fn monotonic_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    })
}

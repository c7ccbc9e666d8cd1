//! The Prometheus view of a snapshot.

pub mod exposition;
pub mod process;
pub mod server;

use std::collections::BTreeMap;

use crate::model::ClusterState;
use crate::snapshot::{BackendView, ClusterView, ReloadView, Snapshot, SnatView};

use exposition::Exposition;
pub use process::Process;

/// States that every backend has a sample for, so that a series never ends
/// just because a state did.
const STATES: [&str; 5] = ["up", "slow-start", "drain", "maint", "down"];

/// All metrics as Prometheus text. Families without a sample are kept: their
/// help says what could be there.
pub fn render(snapshot: &Snapshot, process: &Process) -> String {
    let mut out = Exposition::default();
    out.gauge("ocs_lb_build_info", "The running build; always 1.")
        .count(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    datapath(&mut out, snapshot);
    clusters(&mut out, &snapshot.clusters);
    backends(&mut out, &snapshot.clusters);
    snat(&mut out, &snapshot.snat);
    tables(&mut out, snapshot);
    own_costs(&mut out, process);
    out.finish()
}

fn datapath(out: &mut Exposition, snapshot: &Snapshot) {
    out.gauge(
        "ocs_lb_datapath_attached",
        "Whether the program is attached to the interface.",
    );
    for interface in &snapshot.interfaces {
        let labels = [
            ("interface", interface.name.as_str()),
            ("mode", &interface.mode),
        ];
        out.count(&labels, 1);
    }
    out.counter(
        "ocs_lb_datapath_packets_total",
        "Packets by where their way ended: forwarded by kind, passed to the host, dropped.",
    );
    let (mut passes, mut drops) = (BTreeMap::new(), BTreeMap::new());
    for interface in &snapshot.interfaces {
        let name = interface.name.as_str();
        for (verdict, packets) in &interface.forwarded {
            out.count(&[("interface", name), ("verdict", verdict)], *packets);
        }
        for (verdict, reasons, sums) in [
            ("pass", &interface.passed, &mut passes),
            ("drop", &interface.dropped, &mut drops),
        ] {
            let packets = reasons.values().sum();
            out.count(&[("interface", name), ("verdict", verdict)], packets);
            for (reason, packets) in reasons {
                *sums.entry(reason.as_str()).or_insert(0u64) += packets;
            }
        }
    }
    out.counter(
        "ocs_lb_passes_total",
        "Packets left to the host's stack, by reason.",
    );
    for (reason, packets) in passes {
        out.count(&[("reason", reason)], packets);
    }
    out.counter("ocs_lb_drops_total", "Packets dropped, by reason.");
    for (reason, packets) in drops {
        out.count(&[("reason", reason)], packets);
    }
}

fn clusters(out: &mut Exposition, clusters: &[ClusterView]) {
    out.gauge(
        "ocs_lb_cluster_state",
        "1 for the state that the cluster is in, 0 for the others.",
    );
    for cluster in clusters {
        for state in ClusterState::ALL {
            let labels = [("cluster", cluster.name.as_str()), ("state", state.name())];
            out.count(&labels, (state == cluster.state).into());
        }
    }
    out.gauge(
        "ocs_lb_flows",
        "Flows by state; resting ones are over and only keep their SNAT port.",
    );
    for cluster in clusters {
        for (state, flows) in [
            ("established", cluster.live),
            ("half-open", cluster.pending),
            ("resting", cluster.resting),
        ] {
            out.count(
                &[("cluster", &cluster.name), ("state", state)],
                flows.into(),
            );
        }
    }
    type Family = (&'static str, &'static str, fn(&ClusterView) -> u64);
    const GAUGES: [Family; 1] = [(
        "ocs_lb_flows_limit",
        "Live flows the cluster may hold.",
        |c| c.max_connections.into(),
    )];
    const COUNTERS: [Family; 3] = [
        (
            "ocs_lb_snat_ports_reused_total",
            "New flows on a port whose rest was not over, where the server lets the SYN in.",
            |c| c.ports_reused,
        ),
        (
            "ocs_lb_sticky_hits_total",
            "New flows whose client had a usable sticky entry.",
            |c| c.sticky_hits,
        ),
        (
            "ocs_lb_sticky_misses_total",
            "New flows of a sticky cluster whose client had no usable entry.",
            |c| c.sticky_misses,
        ),
    ];
    for (name, help, value) in GAUGES {
        out.gauge(name, help);
        for cluster in clusters {
            out.count(&[("cluster", &cluster.name)], value(cluster));
        }
    }
    for (name, help, value) in COUNTERS {
        out.counter(name, help);
        for cluster in clusters {
            out.count(&[("cluster", &cluster.name)], value(cluster));
        }
    }
    out.counter(
        "ocs_lb_redispatches_total",
        "Half-open flows that moved to another backend, by what the first one did.",
    );
    for cluster in clusters {
        for (reason, moved) in &cluster.redispatches {
            out.count(&[("cluster", &cluster.name), ("reason", reason)], *moved);
        }
    }
    out.counter(
        "ocs_lb_refused_total",
        "New connections refused, by reason.",
    );
    for cluster in clusters {
        for (reason, refused) in &cluster.refused {
            out.count(&[("cluster", &cluster.name), ("reason", reason)], *refused);
        }
    }
}

fn backends(out: &mut Exposition, clusters: &[ClusterView]) {
    let all: Vec<(&str, &BackendView)> = clusters
        .iter()
        .flat_map(|cluster| cluster.backends.iter().map(|b| (cluster.name.as_str(), b)))
        .collect();
    fn labels<'a>(cluster: &'a str, backend: &'a BackendView) -> [(&'a str, &'a str); 2] {
        [("cluster", cluster), ("backend", &backend.name)]
    }
    type Family = (&'static str, &'static str, fn(&BackendView) -> u64);
    const GAUGES: [Family; 3] = [
        (
            "ocs_lb_backend_connections_current",
            "Established flows of the backend.",
            |b| b.live.into(),
        ),
        (
            "ocs_lb_backend_pending",
            "Half-open flows of the backend.",
            |b| b.pending.into(),
        ),
        (
            "ocs_lb_backend_up",
            "Whether the checks say that the backend serves; 1 without a check.",
            |b| u64::from(b.healthy),
        ),
    ];
    out.counter(
        "ocs_lb_backend_connections_total",
        "Flows ever established to the backend.",
    );
    for (cluster, backend) in &all {
        out.count(&labels(cluster, backend), backend.connections);
    }
    for (name, help, value) in GAUGES {
        out.gauge(name, help);
        for (cluster, backend) in &all {
            out.count(&labels(cluster, backend), value(backend));
        }
    }
    out.gauge(
        "ocs_lb_backend_weight",
        "Weight that the datapath uses now; it grows during a slow start.",
    );
    for (cluster, backend) in &all {
        out.real(&labels(cluster, backend), backend.weight_now());
    }
    out.gauge(
        "ocs_lb_backend_state",
        "1 for the state that the backend is in, 0 for the others.",
    );
    for (cluster, backend) in &all {
        let state = backend.state.as_str();
        let other = (!STATES.contains(&state)).then_some(state);
        for name in STATES.into_iter().chain(other) {
            let [cluster, backend] = labels(cluster, backend);
            out.count(&[cluster, backend, ("state", name)], (name == state).into());
        }
    }
    out.counter(
        "ocs_lb_backend_bytes_total",
        "Bytes of ended flows; in is client to backend.",
    );
    for (cluster, backend) in &all {
        for (direction, bytes) in [("in", backend.bytes_in), ("out", backend.bytes_out)] {
            let [cluster, backend] = labels(cluster, backend);
            out.count(&[cluster, backend, ("direction", direction)], bytes);
        }
    }
    out.counter(
        "ocs_lb_backend_resets_total",
        "Flows of the backend that were reset, by the server or by us, by reason.",
    );
    for (cluster, backend) in &all {
        for (reason, flows) in &backend.resets {
            let [cluster, backend] = labels(cluster, backend);
            out.count(&[cluster, backend, ("reason", reason)], *flows);
        }
    }
    out.counter("ocs_lb_health_checks_total", "Health checks by result.");
    for (cluster, backend) in &all {
        for (result, checks) in &backend.checks {
            let [cluster, backend] = labels(cluster, backend);
            out.count(&[cluster, backend, ("result", result)], *checks);
        }
    }
    out.histogram(
        "ocs_lb_health_check_duration_seconds",
        "How long health checks took, failed ones included.",
    );
    for (cluster, backend) in all.iter().filter(|(_, b)| !b.checks.is_empty()) {
        out.durations(&labels(cluster, backend), &backend.check_durations);
    }
}

fn snat(out: &mut Exposition, destinations: &[SnatView]) {
    fn labels<'a>(destination: &'a SnatView, port: &'a str) -> [(&'a str, &'a str); 4] {
        [
            ("cluster", destination.cluster.as_str()),
            ("address", &destination.address),
            ("backend", &destination.backend),
            ("port", port),
        ]
    }
    type Family = (&'static str, &'static str, fn(&SnatView) -> u32);
    const GAUGES: [Family; 2] = [
        (
            "ocs_lb_snat_ports_used",
            "SNAT ports in use towards the backend and port, resting ones included.",
            |s| s.used,
        ),
        (
            "ocs_lb_snat_ports_limit",
            "SNAT ports there are towards the backend and port.",
            |s| s.limit,
        ),
    ];
    for (name, help, value) in GAUGES {
        out.gauge(name, help);
        for destination in destinations {
            let port = destination.port.to_string();
            out.count(&labels(destination, &port), value(destination).into());
        }
    }
    out.counter(
        "ocs_lb_snat_failures_total",
        "New flows that found no SNAT port towards the backend and port.",
    );
    for destination in destinations {
        let port = destination.port.to_string();
        out.count(&labels(destination, &port), destination.failures);
    }
}

fn tables(out: &mut Exposition, snapshot: &Snapshot) {
    // Before the first sweep there is nothing true to say about it.
    if snapshot.sweep.timestamp > 0.0 {
        out.gauge(
            "ocs_lb_sweep_duration_seconds",
            "How long the last sweep of the flow table took.",
        )
        .real(&[], snapshot.sweep.duration);
        out.gauge(
            "ocs_lb_sweep_last_timestamp_seconds",
            "Wall clock of the end of the last sweep of the flow table.",
        )
        .real(&[], snapshot.sweep.timestamp);
    }
    reloads(out, &snapshot.reloads);
    out.counter(
        "ocs_lb_events_lost_total",
        "Events of the datapath that found their ring full.",
    );
    out.count(&[], snapshot.events_lost);
    out.counter(
        "ocs_lb_kill_resets_total",
        "Resets that the controller sends for killed flows, two a flow, by result; \
         untold counts flows. What is not sent is answered when its side sends.",
    );
    for (result, resets) in [
        ("sent", snapshot.resets.sent),
        ("no_next_hop", snapshot.resets.no_next_hop),
        ("failed", snapshot.resets.failed),
        ("untold", snapshot.resets.untold),
    ] {
        out.count(&[("result", result)], resets);
    }
    out.gauge(
        "ocs_lb_map_entries",
        "Entries in use, where it is known without a walk.",
    );
    for map in &snapshot.maps {
        if let Some(entries) = map.entries {
            out.count(&[("map", &map.name)], entries);
        }
    }
    out.gauge("ocs_lb_map_capacity", "Entries that the map can hold.");
    for map in &snapshot.maps {
        out.count(&[("map", &map.name)], map.capacity);
    }
    out.gauge("ocs_lb_map_bytes", "Kernel memory of the map.");
    for map in &snapshot.maps {
        out.count(&[("map", &map.name)], map.bytes);
    }
}

fn reloads(out: &mut Exposition, reloads: &ReloadView) {
    out.counter(
        "ocs_lb_reloads_total",
        "Times that the configuration was read again, by result.",
    );
    out.count(&[("result", "applied")], reloads.applied);
    out.count(&[("result", "failed")], reloads.failed);
    out.gauge(
        "ocs_lb_config_last_reload_successful",
        "Whether the last reload was applied; the start counts.",
    );
    out.count(&[], u64::from(reloads.last_successful));
    out.gauge(
        "ocs_lb_config_last_reload_success_timestamp_seconds",
        "Wall clock of the last reload that was applied, seconds since 1970.",
    );
    out.real(&[], reloads.last_success);
}

fn own_costs(out: &mut Exposition, process: &Process) {
    if let Some(seconds) = process.cpu_seconds {
        out.counter(
            "process_cpu_seconds_total",
            "User and system CPU time of the controller.",
        )
        .real(&[], seconds);
    }
    for (name, help, value) in [
        (
            "process_resident_memory_bytes",
            "Memory of the controller in RAM.",
            process.resident_bytes,
        ),
        (
            "process_virtual_memory_bytes",
            "Address space of the controller.",
            process.virtual_bytes,
        ),
        (
            "process_open_fds",
            "File descriptors the controller has open.",
            process.open_fds,
        ),
        (
            "process_max_fds",
            "File descriptors the controller may open.",
            process.max_fds,
        ),
    ] {
        if let Some(value) = value {
            out.gauge(name, help).count(&[], value);
        }
    }
    if let Some(seconds) = process.start_seconds {
        out.gauge(
            "process_start_time_seconds",
            "Wall clock of the controller's start.",
        )
        .real(&[], seconds);
    }
}

#[cfg(test)]
mod tests;

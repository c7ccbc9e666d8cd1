//! The rendered page, by line and by Prometheus' own linter.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::snapshot::{DurationsView, InterfaceView, MapView, ReloadView, ResetView, SweepView};

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()
}

/// Two interfaces, two clusters, one name that needs escaping.
fn sample() -> Snapshot {
    let mut check_durations = DurationsView::default();
    check_durations.observe(Duration::from_millis(2));
    let backend = BackendView {
        name: "OCS_Node1".into(),
        address: "198.51.100.10".into(),
        state: "up".into(),
        healthy: true,
        ready: true,
        weight: 1,
        effective_weight: 1,
        live: 7,
        pending: 2,
        connections: 90,
        bytes_in: 1000,
        bytes_out: 2000,
        resets: counts(&[("server_reset", 4), ("idle", 5)]),
        checks: counts(&[("ok", 1)]),
        check_durations,
        ..BackendView::default()
    };
    let cluster = ClusterView {
        name: "ocs".into(),
        removed: false,
        state: ClusterState::Drain,
        said: None,
        refused: BTreeMap::from([("limit".to_owned(), 3)]),
        max_connections: 40000,
        live: 7,
        pending: 2,
        resting: 11,
        redispatches: counts(&[("refused", 2), ("silent", 3)]),
        ports_reused: 4,
        sticky_hits: 5,
        sticky_misses: 6,
        backends: vec![
            backend.clone(),
            BackendView {
                name: "OCS_Node2".into(),
                state: "down".into(),
                checks: counts(&[("refused", 3)]),
                ..BackendView::default()
            },
            BackendView {
                name: "backup".into(),
                state: "up".into(),
                healthy: true,
                backup: true,
                ..BackendView::default()
            },
        ],
    };
    let interface = |name: &str, mode: &str| InterfaceView {
        name: name.into(),
        mode: mode.into(),
        reason: String::new(),
        forwarded: counts(&[("tx", 10), ("redirect", 20)]),
        passed: counts(&[("not_ip", 1), ("not_ours", 2)]),
        dropped: counts(&[("malformed", 3), ("limit", 4)]),
    };
    Snapshot {
        lost: Vec::new(),
        events_lost: 2,
        reloads: ReloadView {
            applied: 5,
            failed: 1,
            last_successful: false,
            last_success: 1_700_000_000.5,
        },
        resets: ResetView {
            sent: 8,
            failed: 1,
            ..ResetView::default()
        },
        interfaces: vec![interface("eth0", "native"), interface("eth1", "generic")],
        clusters: vec![
            cluster,
            ClusterView {
                name: "a \"b\" \\ c".into(),
                backends: vec![backend],
                ..ClusterView::default()
            },
        ],
        snat: vec![SnatView {
            cluster: "ocs".into(),
            address: "198.51.100.1".into(),
            backend: "OCS_Node1".into(),
            port: 443,
            used: 12,
            resting: 3,
            failures: 6,
            limit: 64512,
        }],
        maps: vec![
            MapView {
                name: "FLOWS_V4".into(),
                entries: Some(18),
                capacity: 1 << 18,
                bytes: 1 << 25,
            },
            MapView {
                name: "STICKY_V4".into(),
                entries: None,
                capacity: 1 << 18,
                bytes: 1 << 24,
            },
        ],
        sweep: SweepView {
            timestamp: 1_700_000_000.25,
            duration: 0.0125,
            ..SweepView::default()
        },
    }
}

#[test]
fn every_row_has_its_value() {
    let text = render(&sample(), &Process::read());
    let backend = "cluster=\"ocs\",backend=\"OCS_Node1\"";
    for line in [
        "ocs_lb_build_info{version=\"0.1.0\"} 1".to_owned(),
        "ocs_lb_datapath_attached{interface=\"eth0\",mode=\"native\"} 1".into(),
        "ocs_lb_datapath_packets_total{interface=\"eth0\",verdict=\"redirect\"} 20".into(),
        "ocs_lb_datapath_packets_total{interface=\"eth1\",verdict=\"pass\"} 3".into(),
        "ocs_lb_datapath_packets_total{interface=\"eth1\",verdict=\"drop\"} 7".into(),
        "ocs_lb_drops_total{reason=\"limit\"} 8".into(),
        "ocs_lb_passes_total{reason=\"not_ours\"} 4".into(),
        "ocs_lb_cluster_state{cluster=\"ocs\",state=\"drain\"} 1".into(),
        "ocs_lb_cluster_state{cluster=\"ocs\",state=\"ready\"} 0".into(),
        "ocs_lb_flows{cluster=\"ocs\",state=\"established\"} 7".into(),
        "ocs_lb_flows{cluster=\"ocs\",state=\"half-open\"} 2".into(),
        "ocs_lb_flows{cluster=\"ocs\",state=\"resting\"} 11".into(),
        "ocs_lb_redispatches_total{cluster=\"ocs\",reason=\"silent\"} 3".into(),
        format!("ocs_lb_backend_resets_total{{{backend},reason=\"server_reset\"}} 4"),
        "ocs_lb_snat_failures_total{cluster=\"ocs\",address=\"198.51.100.1\",backend=\"OCS_Node1\",port=\"443\"} 6".into(),
        "ocs_lb_reloads_total{result=\"applied\"} 5".into(),
        "ocs_lb_reloads_total{result=\"failed\"} 1".into(),
        "ocs_lb_config_last_reload_successful 0".into(),
        "ocs_lb_kill_resets_total{result=\"sent\"} 8".into(),
        "ocs_lb_kill_resets_total{result=\"failed\"} 1".into(),
        "ocs_lb_flows_limit{cluster=\"ocs\"} 40000".into(),
        format!("ocs_lb_backend_connections_total{{{backend}}} 90"),
        format!("ocs_lb_backend_connections_current{{{backend}}} 7"),
        format!("ocs_lb_backend_pending{{{backend}}} 2"),
        format!("ocs_lb_backend_up{{{backend}}} 1"),
        "ocs_lb_backend_up{cluster=\"ocs\",backend=\"OCS_Node2\"} 0".into(),
        "ocs_lb_backend_up{cluster=\"ocs\",backend=\"backup\"} 1".into(),
        format!("ocs_lb_backend_state{{{backend},state=\"up\"}} 1"),
        format!("ocs_lb_backend_state{{{backend},state=\"down\"}} 0"),
        "ocs_lb_backend_state{cluster=\"ocs\",backend=\"backup\",state=\"up\"} 1".into(),
        format!("ocs_lb_backend_weight{{{backend}}} 1"),
        format!("ocs_lb_backend_bytes_total{{{backend},direction=\"in\"}} 1000"),
        format!("ocs_lb_backend_bytes_total{{{backend},direction=\"out\"}} 2000"),
        "ocs_lb_snat_ports_reused_total{cluster=\"ocs\"} 4".into(),
        "ocs_lb_sticky_hits_total{cluster=\"ocs\"} 5".into(),
        "ocs_lb_sticky_misses_total{cluster=\"ocs\"} 6".into(),
        "ocs_lb_snat_ports_used{cluster=\"ocs\",address=\"198.51.100.1\",backend=\"OCS_Node1\",port=\"443\"} 12".into(),
        "ocs_lb_snat_ports_limit{cluster=\"ocs\",address=\"198.51.100.1\",backend=\"OCS_Node1\",port=\"443\"} 64512".into(),
        format!("ocs_lb_health_checks_total{{{backend},result=\"ok\"}} 1"),
        format!("ocs_lb_health_check_duration_seconds_count{{{backend}}} 1"),
        "ocs_lb_sweep_duration_seconds 0.0125".into(),
        "ocs_lb_sweep_last_timestamp_seconds 1700000000.25".into(),
        "ocs_lb_map_entries{map=\"FLOWS_V4\"} 18".into(),
        "ocs_lb_map_capacity{map=\"STICKY_V4\"} 262144".into(),
        "ocs_lb_map_bytes{map=\"FLOWS_V4\"} 33554432".into(),
        "ocs_lb_flows_limit{cluster=\"a \\\"b\\\" \\\\ c\"} 0".into(),
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    assert!(!text.contains("ocs_lb_map_entries{map=\"STICKY_V4\"}"));
    assert!(!text.contains("duration_seconds_count{cluster=\"ocs\",backend=\"backup\"}"));
}

#[test]
fn families_are_opened_once() {
    let text = render(&sample(), &Process::read());
    let mut names: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn promtool_finds_nothing_to_say() {
    for snapshot in [sample(), Snapshot::default()] {
        let spawned = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match spawned {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                println!("skipped: promtool is not installed (cargo xtask setup --tools)");
                return;
            }
            other => other.unwrap(),
        };
        let text = render(&snapshot, &Process::read());
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
    }
}

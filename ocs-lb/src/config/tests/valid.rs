//! What must be accepted, and what it means.

use std::net::IpAddr;
use std::time::Duration;

use super::super::{CheckReport, DEFAULT, render};
use super::{BASE, valid, with, with_cluster, with_top};
use crate::model::bill::bill;
use crate::model::{
    AttachMode, Balance, Cluster, DownAction, Fragments, Interfaces, LogLevel, OnBackendDown,
    Persist, Port, RefuseAction, RemovedAction, Snat, Unknown, Unserved,
};

/// Every key at its documented default, where there is one.
const WRITTEN_OUT: &str = r#"
version: 1
interfaces: auto
manage_addresses: false
defaults: {}
clusters:
  - name: a
    vips: [192.0.2.1]
    profile: none
    ports: [443, 5061]
    from: []
    allow: []
    deny: []
    balance: leastconn
    sticky: {by: source, size: 256k, expire: 30m, scope: cluster}
    persist: redispatch
    snat: auto
    max_connections: 40000
    new_connections: {per_source: 0, total: 0}
    refuse: {limit: drop, snat: reset, deny: drop, no_backend: reset}
    unserved: auto
    unknown: reset
    fragments: drop
    timeouts: {connect: 4s, client: 30m, server: 30m, half_closed: 30m, udp: 60s, keepalive_refreshes: true}
    redispatch_after: 800ms
    check: {type: tcp, port: 443, interval: 2s, fast_interval: null, down_interval: null, timeout: 2s, rise: 2, fall: 3, observe: false}
    on_backend_down: {action: reset, rate: 5000, guard: true}
    on_backend_removed: drain
    slow_start: 60s
    backends:
      - {name: b, address: 198.51.100.1, weight: 1}
tables: {flows: auto, half_open: 65536, memory_max: 50%}
resets: {unknown_per_second: 10000}
sweep: {interval: 1s}
admin:
  - {socket: /run/ocs-lb/admin.sock, mode: "0600", user: root, group: root, level: admin}
stats: off
metrics: {listen: 127.0.0.1:7778}
log: {target: stderr, level: info}
connection_log: off
"#;

#[test]
fn the_embedded_default() {
    let loaded = valid(DEFAULT);
    assert_eq!(loaded.warnings, []);
    let [cluster] = loaded.model.clusters.as_slice() else {
        panic!("one cluster");
    };
    let ports: Vec<u16> = cluster.ports.iter().map(|p| p.listen).collect();
    let want = [
        135, 443, 444, 5060, 5061, 5065, 5069, 5071, 5072, 5073, 5074, 8404,
    ];
    assert_eq!(ports, want);
    assert_eq!(cluster.sticky.unwrap().size, 10_485_760);
    let servers: Vec<_> = cluster
        .backends
        .iter()
        .map(|b| {
            (
                &*b.name,
                b.weight,
                b.backup,
                b.check.as_ref().map(|c| c.port),
            )
        })
        .collect();
    assert_eq!(
        servers,
        [
            ("OCS_Node1", 1, false, Some(5061)),
            ("OCS_Node2", 1, false, Some(5061)),
            ("backup", 1, true, None),
        ]
    );
}

#[test]
fn defaults_written_out_mean_the_same_as_absent() {
    let (absent, written) = (valid(BASE), valid(WRITTEN_OUT));
    assert_eq!(absent.model, written.model);
    assert_eq!(absent.warnings, []);
    assert_eq!(written.warnings, []);
    // `null` everywhere is absence everywhere.
    let nulls =
        with_cluster("sticky: null\ncheck: ~\ntimeouts:\nsnat: null\nrefuse: {limit: null}");
    assert_eq!(valid(&nulls).model, absent.model);
}

#[test]
fn a_cluster_without_weight_is_warned_of() {
    let text = BASE.replace("198.51.100.1}", "198.51.100.1, weight: 0}");
    let warnings = valid(&text).warnings;
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}");
    };
    assert_eq!(warning.key_path, "clusters[0].backends");
    assert!(
        warning.message.starts_with("every weight is 0"),
        "{warning}"
    );
}

#[test]
fn slow_start_is_inherited() {
    let text = r#"
version: 1
defaults: {slow_start: 30s}
clusters:
  - name: a
    vips: [192.0.2.1]
    ports: [443]
    backends:
      - {name: b, address: 198.51.100.1}
      - {name: c, address: 198.51.100.2, slow_start: 0s}
      - {name: d, address: 198.51.100.3, slow_start: null}
  - name: e
    vips: [192.0.2.2]
    ports: [443]
    slow_start: 2h
    backends:
      - {name: f, address: 198.51.100.1}
"#;
    let model = valid(text).model;
    let backends = model.clusters.iter().flat_map(|cluster| &cluster.backends);
    let starts: Vec<u64> = backends.map(|b| b.slow_start.as_secs()).collect();
    assert_eq!(starts, [30, 0, 60, 7200]);
}

#[test]
fn every_word_of_what_no_flow_knows() {
    let word = |key: &str, word: &str| {
        let model = valid(&with_cluster(&format!("{key}: {word}"))).model;
        model.clusters.into_iter().next().expect("a cluster")
    };
    for (text, wanted) in [
        ("auto", Unserved::Auto),
        ("pass", Unserved::Pass),
        ("reset", Unserved::Reset),
        ("drop", Unserved::Drop),
    ] {
        assert_eq!(word("unserved", text).unserved, wanted);
    }
    for (text, wanted) in [
        ("reset", Unknown::Reset),
        ("drop", Unknown::Drop),
        ("pass", Unknown::Pass),
    ] {
        assert_eq!(word("unknown", text).unknown, wanted);
    }
    for (text, wanted) in [("drop", Fragments::Drop), ("kernel", Fragments::Kernel)] {
        assert_eq!(word("fragments", text).fragments, wanted);
    }
}

#[test]
fn every_key_with_another_value() {
    let text = r#"
version: 1
interfaces: [{name: eth0, mode: native}, {name: eth1}, eth2, {name: eth3, mode: generic}, {name: eth4, mode: tc}]
clusters:
  - name: a
    vips: [{address: 192.0.2.1/32, interface: eth0}, 192.0.2.2]
    ports: [{listen: 443, target: 4443}, 5070-5072, "80/tcp", {listen: 6000-6001}]
    balance: roundrobin
    sticky: off
    snat: {addresses: [203.0.113.1, 203.0.113.2], ports: 2000-2999}
    max_connections: 7
    refuse: {limit: reset, snat: drop, deny: reset, no_backend: drop}
    unserved: pass
    unknown: drop
    fragments: kernel
    timeouts: {connect: 500ms, client: 2h, server: 1m, half_closed: 1s}
    check: {interval: 1s, fast_interval: 500ms, down_interval: 5s, timeout: 100ms, rise: 1, fall: 1, observe: true}
    redispatch_after: 2s
    persist: strict
    on_backend_down: {action: keep, rate: 7, guard: off}
    on_backend_removed: reset
    slow_start: 0
    backends:
      - {name: b, address: 198.51.100.1, weight: 256, check: {fall: 9, port: 99, down_interval: null}}
      - {name: c, address: 198.51.100.2, weight: 0, backup: yes_not}
tables: {flows: 1m, half_open: 1k}
resets: {unknown_per_second: 5}
sweep: {interval: 500ms}
admin:
  - {socket: /run/a, mode: 0660}
  - {socket: /run/b}
metrics: {listen: "[::1]:9000"}
log: {level: trace}
"#;
    let text = text.replace("yes_not", "true");
    let loaded = valid(&text);
    assert_eq!(loaded.warnings, []);
    let model = loaded.model;
    let Interfaces::Listed(interfaces) = &model.interfaces else {
        panic!("listed");
    };
    let modes: Vec<_> = interfaces.iter().map(|i| (&*i.name, i.mode)).collect();
    assert_eq!(
        modes,
        [
            ("eth0", AttachMode::Native),
            ("eth1", AttachMode::Auto),
            ("eth2", AttachMode::Auto),
            ("eth3", AttachMode::Generic),
            ("eth4", AttachMode::Tc)
        ]
    );
    let cluster = &model.clusters[0];
    assert_eq!(cluster.vips[0].prefix, Some(32));
    assert_eq!(cluster.vips[0].interface.as_deref(), Some("eth0"));
    let same = |p| Port {
        listen: p,
        target: p,
        access: 0,
    };
    let mapped = Port {
        listen: 443,
        target: 4443,
        access: 0,
    };
    let want = [
        same(80),
        mapped,
        same(5070),
        same(5071),
        same(5072),
        same(6000),
        same(6001),
    ];
    assert_eq!(cluster.ports, want);
    assert_eq!(cluster.balance, Balance::RoundRobin);
    assert_eq!(cluster.sticky, None);
    let pool = ["203.0.113.1", "203.0.113.2"].map(|a| a.parse::<IpAddr>().unwrap());
    assert_eq!(
        cluster.snat,
        Snat::Pool {
            addresses: pool.to_vec(),
            ports: (2000, 2999)
        }
    );
    assert_eq!(cluster.max_connections, 7);
    assert_eq!(cluster.refuse.limit, RefuseAction::Reset);
    assert_eq!(cluster.refuse.no_backend, RefuseAction::Drop);
    assert_eq!(cluster.unserved, Unserved::Pass);
    assert_eq!(cluster.unknown, Unknown::Drop);
    assert_eq!(cluster.fragments, Fragments::Kernel);
    assert_eq!(cluster.timeouts.connect, Duration::from_millis(500));
    assert_eq!(cluster.timeouts.client, Duration::from_secs(7200));
    assert_eq!(cluster.redispatch_after, Duration::from_secs(2));
    assert_eq!(cluster.persist, Persist::Strict);
    let down = OnBackendDown {
        action: DownAction::Keep,
        rate: 7,
        guard: false,
    };
    assert_eq!(cluster.on_backend_down, down);
    assert_eq!(cluster.on_backend_removed, RemovedAction::Reset);
    assert_eq!(model.unknown_resets, 5);
    let (first, second) = (
        cluster.backends[0].check.clone().unwrap(),
        cluster.backends[1].check.clone().unwrap(),
    );
    // The backend's keys lie over the cluster's, one by one.
    assert_eq!((first.port, first.fall, first.rise), (99, 9, 1));
    assert_eq!(first.interval, Duration::from_secs(1));
    assert_eq!(first.down_interval, None);
    assert!(first.observe && second.observe);
    // The first port of the file, as the backend sees it.
    assert_eq!((second.port, second.fall), (4443, 1));
    assert_eq!(second.down_interval, Some(Duration::from_secs(5)));
    assert_eq!(
        (model.tables.flows, model.tables.half_open),
        (Some(1 << 20), 1024)
    );
    assert_eq!(model.sweep_interval, Duration::from_millis(500));
    let modes: Vec<u32> = model.admin.iter().map(|a| a.mode).collect();
    assert_eq!(modes, [0o660, 0o600]);
    assert_eq!(model.metrics, "[::1]:9000".parse().ok());
    assert_eq!(model.log.level, LogLevel::Trace);
}

#[test]
fn inheritance() {
    let text = "\
version: 1
defaults:
  balance: roundrobin
  timeouts: {client: 1m, server: 2m}
  sticky: {size: 1k, expire: 1m}
  ports: [1, 2]
  check: {rise: 7, fall: 8}
  persist: haproxy
  redispatch_after: 1s
  on_backend_down: {action: keep, rate: 9}
  on_backend_removed: reset
clusters:
  - name: a
    vips: [192.0.2.1]
    timeouts: {server: 3m}
    on_backend_down: {rate: null, guard: false}
    on_backend_removed: null
    sticky: {size: null}
    ports: [3]
    backends:
      - {name: b, address: 198.51.100.1, check: {fall: 1}}
      - {name: c, address: 198.51.100.2, check: null}
      - {name: d, address: 198.51.100.3, check: off}
      - {name: e, address: 198.51.100.4, port: 77}
  - name: c
    vips: [192.0.2.2]
    balance: null
    persist: null
    redispatch_after: 3s
    timeouts: null
    sticky: off
    check: off
    backends:
      - {name: b, address: 198.51.100.1}
      - {name: c, address: 198.51.100.2, check: {}}
";
    let model = valid(text).model;
    let [a, c] = model.clusters.as_slice() else {
        panic!("two clusters");
    };
    assert_eq!(a.balance, Balance::RoundRobin);
    assert_eq!(a.timeouts.client, Duration::from_secs(60));
    assert_eq!(a.timeouts.server, Duration::from_secs(180));
    let (keep, second) = (DownAction::Keep, Duration::from_secs(1));
    let down = |c: &Cluster| {
        let down = c.on_backend_down;
        (down.action, down.rate, down.guard)
    };
    assert_eq!(down(a), (keep, 5000, false));
    assert_eq!(down(c), (keep, 9, true));
    let removed = (a.on_backend_removed, c.on_backend_removed);
    assert_eq!(removed, (RemovedAction::Drain, RemovedAction::Reset));
    assert_eq!((a.persist, a.redispatch_after), (Persist::Haproxy, second));
    let c_persist = (c.persist, c.redispatch_after);
    assert_eq!(c_persist, (Persist::Redispatch, 3 * second));
    let sticky = a.sticky.unwrap();
    assert_eq!(
        (sticky.size, sticky.expire),
        (262_144, Duration::from_secs(60))
    );
    assert_eq!(a.ports.len(), 1, "lists replace");
    let counts: Vec<_> = a
        .backends
        .iter()
        .map(|b| b.check.as_ref().map(|c| (c.port, c.rise, c.fall)))
        .collect();
    let want = [Some((3, 7, 1)), Some((3, 2, 3)), None, Some((77, 7, 8))];
    assert_eq!(counts, want);

    assert_eq!(c.balance, Balance::LeastConn);
    assert_eq!(c.timeouts.client, Duration::from_secs(1800));
    assert_eq!(c.sticky, None);
    assert_eq!(c.ports.len(), 2);
    assert!(c.backends[0].check.is_none());
    assert_eq!(
        c.backends[1].check.as_ref().map(|c| (c.port, c.rise)),
        Some((1, 2))
    );
}

#[test]
fn spellings() {
    for off in ["off", "false", "Off", "\"off\""] {
        let text = with_cluster(&format!("sticky: {off}\ncheck: {off}"));
        let cluster = &valid(&text).model.clusters[0];
        assert!(
            cluster.sticky.is_none() && cluster.backends[0].check.is_none(),
            "{off}"
        );
    }
    assert_eq!(valid(&with_top("metrics: off")).model.metrics, None);
    assert_eq!(valid(&with_top("admin: []")).model.admin, []);
    valid(&format!("\u{feff}{BASE}"));
    valid(&BASE.replace('\n', "\r\n"));
    valid(&format!("---\n{BASE}...\n"));
    valid(&with("ports: [443, 5061]", "ports: [1-65535]"));
    let anchors = with("ports: [443, 5061]", "ports: &p [443]").replace(
        "    backends:\n      - {name: b, address: 198.51.100.1}\n",
        "    backends: &b [{name: b, address: 198.51.100.1}]\n  - name: c\n    vips: [192.0.2.2]\n    ports: *p\n    backends: *b\n",
    );
    assert_eq!(valid(&anchors).model.clusters.len(), 2);
}

#[test]
fn the_same_vip_may_serve_other_ports_from_another_cluster() {
    let second = "  - name: c\n    vips: [192.0.2.1]\n    ports: [80]\n    backends: [{name: b, address: 198.51.100.1}]\n";
    assert_eq!(valid(&format!("{BASE}{second}")).model.clusters.len(), 2);
}

#[test]
fn the_rendered_bill() {
    let loaded = valid(DEFAULT);
    let owed = bill(&loaded.model, (32768, 60999));
    let text = render(&loaded, &owed);
    assert_eq!(text.lines().next(), Some("Memory"), "{text}");
    let has = |words: &[&str]| {
        text.lines()
            .any(|l| l.split_whitespace().collect::<Vec<_>>().join(" ") == words.join(" "))
    };
    assert!(has(&["STICKY4", "10485760", "976.0", "MiB"]), "{text}");
    assert!(
        has(&[
            "ocs",
            "OCS_Node1",
            "135, 443-444, 5060-5061, 5065, 5069, 5071-5074, 1 more",
            "1",
            "31744",
            "31744"
        ]),
        "{text}"
    );
    assert!(
        has(&["ocs", "redispatch", "800ms", "drain", "reset", "5000", "on"]),
        "{text}"
    );
    let keeps =
        with_cluster("on_backend_down: {action: keep}\non_backend_removed: reset\npersist: strict");
    let keeps = valid(&keeps);
    let keeps = render(&keeps, &bill(&keeps.model, (32768, 60999)));
    let line = keeps.lines().rfind(|line| line.starts_with(" a "));
    let words: Vec<_> = line.unwrap_or_default().split_whitespace().collect();
    assert_eq!(words, ["a", "strict", "800ms", "reset", "keep"], "{keeps}");
    let json = serde_json::to_value(CheckReport::new(&loaded, &owed)).unwrap();
    assert_eq!(json["bill"]["maps"][1]["bytes"], 1_023_410_176);
    assert_eq!(json["warnings"], serde_json::json!([]));

    let none_left = render(&loaded, &bill(&loaded.model, (1, 65535)));
    assert!(
        none_left.contains("no port is left for SNAT"),
        "{none_left}"
    );
}

#[test]
fn kinds_of_checks() {
    use crate::model::{CheckKind, HttpRequest, SipOptions, Statuses, Tls};

    let kind = |check: &str| {
        let loaded = valid(&with_cluster(&format!("check: {check}")));
        let check = loaded.model.clusters[0].backends[0].check.clone();
        check.expect("a check").kind
    };
    assert_eq!(kind("{}"), CheckKind::Tcp);
    assert_eq!(kind("{type: tls}"), CheckKind::Tls(Tls::default()));
    let named = Tls {
        sni: Some("pool.example.com".into()),
        verify: None,
    };
    assert_eq!(
        kind("{type: tls, sni: pool.example.com, verify: false}"),
        CheckKind::Tls(named.clone())
    );
    let sip = SipOptions {
        tls: None,
        from: None,
        to: None,
        expect: Statuses(vec![(200, 499), (600, 699)]),
    };
    assert_eq!(
        kind("{type: sip-options}"),
        CheckKind::SipOptions(sip.clone())
    );
    assert_eq!(
        kind(
            "{type: sip-options, transport: tls, from: \"sip:a@example.com\", \
             to: \"sip:example.com\", expect: [200, 400-499]}"
        ),
        CheckKind::SipOptions(SipOptions {
            tls: Some(Tls::default()),
            from: Some("sip:a@example.com".into()),
            to: Some("sip:example.com".into()),
            expect: Statuses(vec![(200, 200), (400, 499)]),
        })
    );
    let http = HttpRequest {
        tls: None,
        method: "GET".into(),
        path: "/".into(),
        host: None,
        expect: Statuses(vec![(200, 399)]),
    };
    assert_eq!(kind("{type: http}"), CheckKind::Http(http.clone()));
    // The name of the site is the name that TLS asks for.
    assert_eq!(
        kind(
            "{type: http, tls: true, method: HEAD, path: \"/a?b\", \
             host: \"pool.example.com:443\", expect: 200}"
        ),
        CheckKind::Http(HttpRequest {
            tls: Some(named),
            method: "HEAD".into(),
            path: "/a?b".into(),
            host: Some("pool.example.com:443".into()),
            expect: Statuses(vec![(200, 200)]),
        })
    );
}

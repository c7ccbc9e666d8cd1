//! What each edit of a file reads like.

use super::*;
use crate::config;

const FILE: &str = "\
version: 1
clusters:
  - name: ocs
    vips: [192.0.2.1]
    ports: [443, 5061]
    backends:
      - {name: Node1, address: 198.51.100.1}
      - {name: Node2, address: 198.51.100.2}
  - name: b
    vips: [192.0.2.2]
    ports: [80]
    check: off
    backends: [{name: x, address: 198.51.100.9}]
";

fn model(text: &str) -> Model {
    match config::parse(text, "t.yaml") {
        Ok(loaded) => loaded.model,
        Err(problems) => panic!("{problems}\nin\n{text}"),
    }
}

/// The file with a line of the first cluster.
fn with(line: &str) -> String {
    FILE.replacen(
        "    backends:\n",
        &format!("    {line}\n    backends:\n"),
        1,
    )
}

#[test]
fn keys_of_a_cluster() {
    let text = FILE.replace("    backends:\n", "    EXTRA\n    backends:\n");
    for (line, wanted) in [
        ("balance: roundrobin", "balance: leastconn -> roundrobin"),
        ("sticky: off", "sticky: size 262144, expire 30m -> off"),
        (
            "sticky: {size: 1k}",
            "sticky: size 262144, expire 30m -> size 1024, expire 30m",
        ),
        ("persist: haproxy", "persist: redispatch -> haproxy"),
        ("max_connections: 7", "max_connections: 40000 -> 7"),
        ("refuse: {limit: reset}", "refuse.limit: drop -> reset"),
        ("refuse: {snat: drop}", "refuse.snat: reset -> drop"),
        ("refuse: {deny: reset}", "refuse.deny: drop -> reset"),
        (
            "refuse: {no_backend: drop}",
            "refuse.no_backend: reset -> drop",
        ),
        ("unserved: pass", "unserved: auto -> pass"),
        ("unknown: drop", "unknown: reset -> drop"),
        ("fragments: kernel", "fragments: drop -> kernel"),
        (
            "timeouts: {connect: 900ms}",
            "timeouts.connect: 4s -> 900ms",
        ),
        ("timeouts: {client: 2h}", "timeouts.client: 30m -> 2h"),
        ("timeouts: {server: 90s}", "timeouts.server: 30m -> 90s"),
        (
            "timeouts: {half_closed: 1s}",
            "timeouts.half_closed: 30m -> 1s",
        ),
        ("redispatch_after: 2s", "redispatch_after: 800ms -> 2s"),
        (
            "on_backend_down: {action: keep}",
            "on_backend_down.action: reset -> keep",
        ),
        (
            "on_backend_down: {rate: 7}",
            "on_backend_down.rate: 5000 -> 7",
        ),
        (
            "on_backend_down: {guard: false}",
            "on_backend_down.guard: true -> false",
        ),
        (
            "on_backend_removed: reset",
            "on_backend_removed: drain -> reset",
        ),
        (
            "snat: {addresses: [203.0.113.1, 203.0.113.2], ports: 2000-2999}",
            "snat: auto -> 203.0.113.1, 203.0.113.2 ports 2000-2999",
        ),
    ] {
        let new = model(&text.replace("EXTRA", line));
        let wanted = [format!("cluster ocs: {wanted}")];
        assert_eq!(diff(&model(FILE), &new), wanted, "{line}");
    }
    for (from, to, wanted) in [
        ("[443, 5061]", "[443]", "ports: 443, 5061 -> 443"),
        (
            "[443, 5061]",
            "[5070-5072, 80, {listen: 81, target: 82}]",
            "ports: 443, 5061 -> 80, 81 to 82, 5070-5072",
        ),
        (
            "[192.0.2.1]",
            "[192.0.2.7, {address: 192.0.2.8/32, interface: eth0}]",
            "vips: 192.0.2.1 -> 192.0.2.7, 192.0.2.8/32 on eth0",
        ),
    ] {
        let new = model(&FILE.replacen(from, to, 1));
        let lines = diff(&model(FILE), &new);
        // A check without a port follows the first one.
        let keys: Vec<_> = lines.iter().filter(|l| !l.contains("backend")).collect();
        assert_eq!(keys, [&format!("cluster ocs: {wanted}")]);
    }
}

#[test]
fn backends() {
    let node1 = "{name: Node1, address: 198.51.100.1}";
    let check = "tcp, port 443, interval 2s, timeout 2s, rise 2, fall 3, observe false";
    for (to, wanted) in [
        (
            "{name: Node1, address: 198.51.100.1, weight: 3}",
            "Node1: weight 1 -> 3",
        ),
        (
            "{name: Node1, address: 198.51.100.1, backup: true}",
            "Node1: backup false -> true",
        ),
        (
            "{name: Node1, address: 198.51.100.1, check: off}",
            &format!("Node1: check {check} -> off"),
        ),
        (
            "{name: Node1, address: 198.51.100.1, check: {fall: 5, down_interval: 9s}}",
            &format!(
                "Node1: check {check} -> {}",
                "tcp, port 443, interval 2s, down_interval 9s, timeout 2s, rise 2, fall 5, observe false"
            ),
        ),
        (
            "{name: Node1, address: 198.51.100.1, port: 4443, check: {port: 443}}",
            "Node1: port none -> 4443",
        ),
        (
            &format!("{node1}\n      - {{name: Node3, address: 198.51.100.3}}"),
            "Node3 added",
        ),
    ] {
        let new = model(&FILE.replace(node1, to));
        let wanted = [format!("cluster ocs: backend {wanted}")];
        assert_eq!(diff(&model(FILE), &new), wanted, "{to}");
    }
    let gone = model(&FILE.replace(&format!("      - {node1}\n"), ""));
    let removed = ["cluster ocs: backend Node1 removed"];
    assert_eq!(diff(&model(FILE), &gone), removed);
    let moved = model(&FILE.replace("198.51.100.1}", "198.51.100.7}"));
    assert_eq!(
        diff(&model(FILE), &moved),
        [
            "cluster ocs: backend Node1 at 198.51.100.7 added",
            "cluster ocs: backend Node1 at 198.51.100.1 removed",
        ]
    );
}

#[test]
fn clusters() {
    let both = model(FILE);
    let mut one = both.clone();
    one.clusters.truncate(1);
    assert_eq!(diff(&both, &one), ["cluster b removed"]);
    assert_eq!(diff(&one, &both), ["cluster b added"]);
    let mut renamed = both.clone();
    renamed.clusters[1].name = "c".into();
    assert_eq!(
        diff(&both, &renamed),
        ["cluster c added", "cluster b removed"]
    );
}

#[test]
fn order_is_no_change() {
    let old = model(FILE);
    let mut new = old.clone();
    new.clusters.reverse();
    new.clusters[1].backends.reverse();
    assert_eq!(diff(&old, &new), Vec::<String>::new());
    assert_eq!(diff(&old, &old), Vec::<String>::new());
}

#[test]
fn what_is_retired_is_absent() {
    let old = model(FILE);
    let mut new = old.clone();
    new.clusters[0].backends[1].retired = true;
    new.clusters[1].retired = true;
    let gone = ["cluster ocs: backend Node2 removed", "cluster b removed"];
    assert_eq!(diff(&old, &new), gone);
    let back = ["cluster ocs: backend Node2 added", "cluster b added"];
    assert_eq!(diff(&new, &old), back);
    assert_eq!(diff(&new, &new), Vec::<String>::new());
}

#[test]
fn the_hosts_keys() {
    for (lines, wanted, restart) in [
        (
            "interfaces: [eth0, {name: eth1, mode: native}]",
            "interfaces: auto -> eth0 auto, eth1 native",
            None,
        ),
        ("tables: {flows: 5}", "tables.flows: auto -> 5", None),
        (
            "tables: {half_open: 5}",
            "tables.half_open: 65536 -> 5",
            None,
        ),
        (
            "resets: {unknown_per_second: 5}",
            "resets.unknown_per_second: 10000 -> 5",
            None,
        ),
        (
            "sweep: {interval: 200ms}",
            "sweep.interval: 1s -> 200ms",
            None,
        ),
        (
            "admin: [{socket: /run/a, mode: \"0660\"}]",
            "admin: /run/ocs-lb/admin.sock 0600 -> /run/a 0660",
            Some("admin"),
        ),
        (
            "admin: []",
            "admin: /run/ocs-lb/admin.sock 0600 -> none",
            Some("admin"),
        ),
        (
            "metrics: off",
            "metrics: 127.0.0.1:7778 -> off",
            Some("metrics"),
        ),
        (
            "log: {level: debug}",
            "log.level: info -> debug",
            Some("log"),
        ),
    ] {
        let (old, new) = (model(FILE), model(&format!("{FILE}{lines}\n")));
        assert_eq!(diff(&old, &new), [wanted], "{lines}");
        let keys: Vec<_> = restart.into_iter().collect();
        assert_eq!(needs_restart(&old, &new), keys, "{lines}");
    }
    let old = model(FILE);
    let mut new = model(&with("balance: roundrobin"));
    new.manage_addresses = true;
    assert_eq!(needs_restart(&old, &new), Vec::<&str>::new());
    assert_eq!(diff(&old, &new)[0], "manage_addresses: false -> true");
}

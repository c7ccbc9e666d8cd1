//! One mistake a case: its line, its key path and its words.

use super::{check, with, with_cluster, with_top};
use Edit::{Cluster, Replace, Top, Whole};

enum Edit {
    /// Instead of a part of the base.
    Replace(&'static str, &'static str),
    /// Lines added to the cluster, from line 8 on.
    Cluster(&'static str),
    /// Lines added at the top level, from line 8 on.
    Top(&'static str),
    /// The whole file.
    Whole(&'static str),
}

/// `(case, edit, line, key path, part of the message)`
type Case = (&'static str, Edit, usize, &'static str, &'static str);

#[track_caller]
fn all_refused(cases: Vec<Case>) {
    for (case, edit, line, path, message) in cases {
        let text = match edit {
            Replace(from, to) => with(from, to),
            Cluster(lines) => with_cluster(lines),
            Top(lines) => with_top(lines),
            Whole(text) => text.to_owned(),
        };
        let Err(problems) = check(&text) else {
            panic!("{case}: accepted\n{text}");
        };
        let [problem] = problems.0.as_slice() else {
            panic!("{case}: not one problem:\n{problems}");
        };
        let shown = problem.to_string();
        assert_eq!(problem.line, line, "{case}: {shown}");
        assert_eq!(problem.key_path, path, "{case}: {shown}");
        assert!(shown.contains(message), "{case}: {shown}");
    }
}

#[test]
fn shape_of_the_file() {
    all_refused(vec![
        (
            "not YAML",
            Replace("[192.0.2.1]", "[192.0.2.1"),
            5,
            "clusters[0].vips",
            "not YAML",
        ),
        ("tab", Whole("version: 1\n\tx: 1\n"), 1, "", "not YAML"),
        (
            "a word",
            Whole("hello"),
            1,
            "",
            "hello is not allowed; allowed: a mapping",
        ),
        (
            "a list",
            Whole("- version: 1"),
            1,
            "",
            "[...] is not allowed",
        ),
        ("NUL", Whole("version: 1\n\0"), 2, "", "NUL byte"),
        (
            "two documents",
            Top("---\nversion: 1"),
            8,
            "",
            "second document",
        ),
        (
            "tag",
            Replace("version: 1", "version: !!int 1"),
            1,
            "",
            "tags",
        ),
        ("list as key", Top("? [a]\n: 1"), 8, "", "plain word"),
        ("duplicate key", Top("version: 1"), 8, "version", "twice"),
        (
            "duplicate inner key",
            Cluster("name: b"),
            8,
            "clusters[0].name",
            "twice",
        ),
        (
            "unknown key",
            Top("klusters: 1"),
            8,
            "klusters",
            "did you mean `clusters`?",
        ),
        (
            "far key",
            Top("frobnicate: 1"),
            8,
            "frobnicate",
            "known here: version",
        ),
        (
            "merge key",
            Cluster("<<: {}"),
            8,
            "clusters[0].<<",
            "unknown key",
        ),
        (
            "unknown key of a backend",
            Replace("address:", "wieght: 1, address:"),
            7,
            "clusters[0].backends[0].wieght",
            "did you mean `weight`?",
        ),
        (
            "no version",
            Replace("version: 1\n", ""),
            1,
            "version",
            "required and missing",
        ),
        (
            "version null",
            Replace("version: 1", "version:"),
            1,
            "version",
            "required",
        ),
        (
            "version 2",
            Replace("version: 1", "version: 2"),
            1,
            "version",
            "2 is not allowed; allowed: 1",
        ),
        (
            "no clusters",
            Whole("version: 1\n"),
            1,
            "clusters",
            "required",
        ),
        (
            "empty clusters",
            Whole("version: 1\nclusters: []\n"),
            2,
            "clusters",
            "at least one",
        ),
        (
            "clusters a mapping",
            Whole("version: 1\nclusters: {}\n"),
            2,
            "clusters",
            "a list of clusters",
        ),
        (
            "cluster a word",
            Whole("version: 1\nclusters: [a]\n"),
            2,
            "clusters[0]",
            "a mapping",
        ),
    ]);
}

#[test]
fn clusters() {
    all_refused(vec![
        (
            "no name",
            Replace("- name: a\n    vips", "- vips"),
            3,
            "clusters[0].name",
            "required",
        ),
        (
            "blank in name",
            Replace("name: a", "name: a b"),
            3,
            "clusters[0].name",
            "\"a b\" is not allowed",
        ),
        (
            "empty name",
            Replace("name: a", "name: ''"),
            3,
            "clusters[0].name",
            "\"\" is not allowed",
        ),
        (
            "no vips",
            Replace("    vips: [192.0.2.1]\n", ""),
            3,
            "clusters[0].vips",
            "required",
        ),
        (
            "empty vips",
            Replace("[192.0.2.1]", "[]"),
            4,
            "clusters[0].vips",
            "at least one",
        ),
        (
            "vips a word",
            Replace("[192.0.2.1]", "192.0.2.1"),
            4,
            "clusters[0].vips",
            "a list of addresses",
        ),
        (
            "vip a name",
            Replace("[192.0.2.1]", "[pool.example]"),
            4,
            "clusters[0].vips[0]",
            "pool.example is not allowed",
        ),
        (
            "IPv6 vip",
            Replace("[192.0.2.1]", "['2001:db8::1']"),
            4,
            "clusters[0].vips[0]",
            "IPv6 is not wired in this version",
        ),
        (
            "multicast vip",
            Replace("192.0.2.1", "224.0.0.1"),
            4,
            "clusters[0].vips[0]",
            "multicast",
        ),
        (
            "loopback vip",
            Replace("192.0.2.1", "127.0.0.1"),
            4,
            "clusters[0].vips[0]",
            "loopback",
        ),
        (
            "unspecified vip",
            Replace("192.0.2.1", "0.0.0.0"),
            4,
            "clusters[0].vips[0]",
            "unspecified",
        ),
        (
            "broadcast vip",
            Replace("192.0.2.1", "255.255.255.255"),
            4,
            "clusters[0].vips[0]",
            "broadcast",
        ),
        (
            "prefix",
            Replace("192.0.2.1", "{address: 192.0.2.1/33}"),
            4,
            "clusters[0].vips[0].address",
            "1 to 32",
        ),
        (
            "vip interface",
            Replace(
                "192.0.2.1",
                "{address: 192.0.2.1, interface: a23456789012345x}",
            ),
            4,
            "clusters[0].vips[0].interface",
            "1 to 15 bytes",
        ),
        (
            "vip twice",
            Replace("[192.0.2.1]", "[192.0.2.1, 192.0.2.1]"),
            4,
            "clusters[0].vips[1]",
            "VIP 192.0.2.1 is used already, by clusters[0].vips[0] in line 4",
        ),
        (
            "vip is a backend",
            Replace("192.0.2.1", "198.51.100.1"),
            4,
            "clusters[0].vips[0]",
            "is a backend's address",
        ),
        (
            "balance",
            Cluster("balance: random"),
            8,
            "clusters[0].balance",
            "allowed: leastconn, roundrobin",
        ),
        (
            "balance source",
            Cluster("balance: source"),
            8,
            "clusters[0].balance",
            "source is known but not supported by this version; allowed now: leastconn",
        ),
        (
            "max_connections 0",
            Cluster("max_connections: 0"),
            8,
            "clusters[0].max_connections",
            "0 is not allowed; allowed: 1 to 4000000",
        ),
        (
            "max_connections large",
            Cluster("max_connections: 4000001"),
            8,
            "clusters[0].max_connections",
            "1 to 4000000",
        ),
        (
            "max_connections signed",
            Cluster("max_connections: -1"),
            8,
            "clusters[0].max_connections",
            "-1 is not allowed",
        ),
        (
            "max_connections huge",
            Cluster("max_connections: 99999999999999999999999"),
            8,
            "clusters[0].max_connections",
            "1 to 4000000",
        ),
        (
            "refuse",
            Cluster("refuse: {limit: pass}"),
            8,
            "clusters[0].refuse.limit",
            "drop, reset",
        ),
        (
            "refuse a word",
            Cluster("refuse: drop"),
            8,
            "clusters[0].refuse",
            "a mapping with the keys limit, snat",
        ),
        (
            "unserved",
            Cluster("unserved: maybe"),
            8,
            "clusters[0].unserved",
            "auto, pass, reset, drop",
        ),
        (
            "unknown",
            Cluster("unknown: auto"),
            8,
            "clusters[0].unknown",
            "reset, drop, pass",
        ),
        (
            "zero timeout",
            Cluster("timeouts:\n  client: 0s"),
            9,
            "clusters[0].timeouts.client",
            "0s is not allowed",
        ),
        (
            "timeout unit",
            Cluster("timeouts: {connect: 4}"),
            8,
            "clusters[0].timeouts.connect",
            "written as 500ms, 4s, 30m or 2h",
        ),
        (
            "timeout days",
            Cluster("timeouts: {server: 1day}"),
            8,
            "clusters[0].timeouts.server",
            "1day is not allowed",
        ),
        (
            "sticky size 0",
            Cluster("sticky: {size: 0}"),
            8,
            "clusters[0].sticky.size",
            "1 to 67108864",
        ),
        (
            "sticky too large",
            Cluster("sticky: {size: 65m}"),
            8,
            "clusters[0].sticky.size",
            "65m is not allowed",
        ),
        (
            "sticky by",
            Cluster("sticky: {by: cookie}"),
            8,
            "clusters[0].sticky.by",
            "source",
        ),
        (
            "sticky on",
            Cluster("sticky: true"),
            8,
            "clusters[0].sticky",
            "a mapping",
        ),
        (
            "snat word",
            Cluster("snat: none"),
            8,
            "clusters[0].snat",
            "auto, or",
        ),
        (
            "snat off",
            Cluster("snat: off"),
            8,
            "clusters[0].snat",
            "auto, or",
        ),
        (
            "snat without addresses",
            Cluster("snat: {ports: 1024-2000}"),
            8,
            "clusters[0].snat.addresses",
            "required",
        ),
        (
            "snat empty",
            Cluster("snat: {addresses: []}"),
            8,
            "clusters[0].snat.addresses",
            "at least one",
        ),
        (
            "snat low ports",
            Cluster("snat: {addresses: [192.0.2.9], ports: 1023-2000}"),
            8,
            "clusters[0].snat.ports",
            "from 1024 upwards",
        ),
        (
            "snat reversed",
            Cluster("snat: {addresses: [192.0.2.9], ports: 3000-2000}"),
            8,
            "clusters[0].snat.ports",
            "3000-2000 is not allowed",
        ),
        (
            "snat is a backend",
            Cluster("snat: {addresses: [198.51.100.1]}"),
            8,
            "clusters[0].snat.addresses[0]",
            "is a backend's",
        ),
        (
            "snat twice",
            Cluster("snat: {addresses: [192.0.2.9, 192.0.2.9]}"),
            8,
            "clusters[0].snat.addresses[1]",
            "twice",
        ),
        (
            "snat IPv6",
            Cluster("snat: {addresses: ['::1']}"),
            8,
            "clusters[0].snat.addresses[0]",
            "IPv6",
        ),
    ]);
}

#[test]
fn ports() {
    let ports = |to| Replace("[443, 5061]", to);
    all_refused(vec![
        (
            "no ports",
            Replace("    ports: [443, 5061]\n", ""),
            3,
            "clusters[0].ports",
            "required",
        ),
        ("empty", ports("[]"), 5, "clusters[0].ports", "at least one"),
        (
            "zero",
            ports("[0]"),
            5,
            "clusters[0].ports[0]",
            "0 is not allowed",
        ),
        (
            "too large",
            ports("[443, 65536]"),
            5,
            "clusters[0].ports[1]",
            "65536 is not allowed",
        ),
        (
            "not a number",
            ports("[https]"),
            5,
            "clusters[0].ports[0]",
            "1 to 65535",
        ),
        (
            "reversed",
            ports("[5080-5070]"),
            5,
            "clusters[0].ports[0]",
            "first port is the smaller",
        ),
        (
            "half a range",
            ports("['5080-']"),
            5,
            "clusters[0].ports[0]",
            "5070-5080",
        ),
        (
            "udp",
            ports("[443/udp]"),
            5,
            "clusters[0].ports[0]",
            "443/udp is known but not supported",
        ),
        (
            "sctp",
            ports("[443/sctp]"),
            5,
            "clusters[0].ports[0]",
            "443/sctp is not allowed",
        ),
        (
            "any",
            ports("[any]"),
            5,
            "clusters[0].ports[0]",
            "any is known but not supported",
        ),
        (
            "twice",
            ports("[443, 440-450]"),
            5,
            "clusters[0].ports[1]",
            "port 443 is listed already, by clusters[0].ports[0] in line 5",
        ),
        (
            "no listen",
            ports("[{target: 1}]"),
            5,
            "clusters[0].ports[0].listen",
            "required",
        ),
        (
            "target 0",
            ports("[{listen: 1, target: 0}]"),
            5,
            "clusters[0].ports[0].target",
            "1 to 65535",
        ),
        (
            "target of a range",
            ports("[{listen: 1-2, target: 1}]"),
            5,
            "clusters[0].ports[0].target",
            "single `listen`",
        ),
        (
            "allow",
            ports("[{listen: 1, allow: [10.0.0.0/8]}]"),
            5,
            "clusters[0].ports[0].allow",
            "not supported by this version; allowed now: []",
        ),
        (
            "sticky",
            ports("[{listen: 1, sticky: off}]"),
            5,
            "clusters[0].ports[0].sticky",
            "`sticky` is known but not supported",
        ),
    ]);
}

#[test]
fn backends() {
    let backend = |to| Replace("{name: b, address: 198.51.100.1}", to);
    all_refused(vec![
        (
            "none",
            Replace(
                "    backends:\n      - {name: b, address: 198.51.100.1}\n",
                "",
            ),
            3,
            "clusters[0].backends",
            "required",
        ),
        (
            "empty",
            Replace(
                "backends:\n      - {name: b, address: 198.51.100.1}",
                "backends: []",
            ),
            6,
            "clusters[0].backends",
            "at least one",
        ),
        (
            "no name",
            backend("{address: 198.51.100.1}"),
            7,
            "clusters[0].backends[0].name",
            "required",
        ),
        (
            "no address",
            backend("{name: b}"),
            7,
            "clusters[0].backends[0].address",
            "required",
        ),
        (
            "weight",
            backend("{name: b, address: 198.51.100.1, weight: 300}"),
            7,
            "clusters[0].backends[0].weight",
            "300 is not allowed; allowed: 0 to 256",
        ),
        (
            "backup",
            backend("{name: b, address: 198.51.100.1, backup: maybe}"),
            7,
            "clusters[0].backends[0].backup",
            "true, false",
        ),
        (
            "all backups",
            backend("{name: b, address: 198.51.100.1, backup: true}"),
            7,
            "clusters[0].backends",
            "every backend is a backup",
        ),
        (
            "port 0",
            backend("{name: b, address: 198.51.100.1, port: 0}"),
            7,
            "clusters[0].backends[0].port",
            "1 to 65535",
        ),
        (
            "max_connections",
            backend("{name: b, address: 198.51.100.1, max_connections: 5}"),
            7,
            "clusters[0].backends[0].max_connections",
            "not supported",
        ),
        (
            "addresses",
            backend("{name: b, address: 198.51.100.1, addresses: [192.0.2.7]}"),
            7,
            "clusters[0].backends[0].addresses",
            "not supported",
        ),
        (
            "IPv6",
            backend("{name: b, address: 2001:db8::1}"),
            7,
            "clusters[0].backends[0].address",
            "IPv6 is not wired",
        ),
        (
            "name twice",
            backend("{name: b, address: 198.51.100.1}\n      - {name: b, address: 198.51.100.2}"),
            8,
            "clusters[0].backends[1].name",
            "backend name b is used already, by clusters[0].backends[0].name in line 7",
        ),
        (
            "address twice",
            backend("{name: b, address: 198.51.100.1}\n      - {name: c, address: 198.51.100.1}"),
            8,
            "clusters[0].backends[1].address",
            "backend address 198.51.100.1 is used already",
        ),
        (
            "port mapped twice",
            Whole(
                "version: 1\nclusters:\n  - name: a\n    vips: [192.0.2.1]\n    ports: [{listen: 443, target: 4443}]\n    backends: [{name: b, address: 198.51.100.1, port: 8443}]\n",
            ),
            6,
            "clusters[0].backends[0].port",
            "contradicts the `target` given by clusters[0].ports[0] in line 5",
        ),
    ]);
}

#[test]
fn checks() {
    all_refused(vec![
        (
            "a word",
            Cluster("check: on"),
            8,
            "clusters[0].check",
            "a mapping",
        ),
        (
            "type",
            Cluster("check: {type: ping}"),
            8,
            "clusters[0].check.type",
            "ping is not allowed; allowed: tcp",
        ),
        (
            "tls",
            Cluster("check: {type: tls, sni: a.example}"),
            8,
            "clusters[0].check.type",
            "tls is known but not supported by this version; allowed now: tcp",
        ),
        (
            "sip-options",
            Cluster("check: {type: sip-options}"),
            8,
            "clusters[0].check.type",
            "not supported",
        ),
        (
            "http",
            Cluster("check: {type: http, path: /}"),
            8,
            "clusters[0].check.type",
            "not supported",
        ),
        (
            "key of another type",
            Cluster("check: {path: /}"),
            8,
            "clusters[0].check.path",
            "`path` is known but not supported",
        ),
        (
            "port",
            Cluster("check: {port: 70000}"),
            8,
            "clusters[0].check.port",
            "1 to 65535",
        ),
        (
            "interval",
            Cluster("check: {interval: 9ms}"),
            8,
            "clusters[0].check.interval",
            "9ms is not allowed; allowed: 10ms to 24h",
        ),
        (
            "fast_interval",
            Cluster("check: {fast_interval: 0}"),
            8,
            "clusters[0].check.fast_interval",
            "10ms to",
        ),
        (
            "down_interval",
            Cluster("check: {down_interval: x}"),
            8,
            "clusters[0].check.down_interval",
            "10ms to",
        ),
        (
            "timeout",
            Cluster("check: {timeout: 0s}"),
            8,
            "clusters[0].check.timeout",
            "1ms to 1h",
        ),
        (
            "rise",
            Cluster("check: {rise: 0}"),
            8,
            "clusters[0].check.rise",
            "1 to 65535",
        ),
        (
            "fall",
            Cluster("check: {fall: 0}"),
            8,
            "clusters[0].check.fall",
            "1 to 65535",
        ),
        (
            "observe",
            Cluster("check: {observe: true}"),
            8,
            "clusters[0].check.observe",
            "true is known but not supported by this version; allowed now: false",
        ),
        (
            "of a backend",
            Replace("198.51.100.1}", "198.51.100.1, check: {rise: none}}"),
            7,
            "clusters[0].backends[0].check.rise",
            "none is not allowed",
        ),
    ]);
}

#[test]
fn known_and_not_supported() {
    all_refused(vec![
        (
            "profile",
            Cluster("profile: ocs-2007-r2-consolidated"),
            8,
            "clusters[0].profile",
            "allowed now: none",
        ),
        (
            "from",
            Cluster("from: [10.0.0.0/8]"),
            8,
            "clusters[0].from",
            "allowed now: []",
        ),
        (
            "allow",
            Cluster("allow: [10.0.0.0/8]"),
            8,
            "clusters[0].allow",
            "allowed now: []",
        ),
        (
            "deny",
            Cluster("deny: [10.0.0.0/8]"),
            8,
            "clusters[0].deny",
            "allowed now: []",
        ),
        (
            "deny a word",
            Cluster("deny: all"),
            8,
            "clusters[0].deny",
            "all is not allowed",
        ),
        (
            "scope port",
            Cluster("sticky: {scope: port}"),
            8,
            "clusters[0].sticky.scope",
            "allowed now: cluster",
        ),
        (
            "scope group",
            Cluster("sticky: {scope: group web}"),
            8,
            "clusters[0].sticky.scope",
            "allowed now: cluster",
        ),
        (
            "persist haproxy",
            Cluster("persist: haproxy"),
            8,
            "clusters[0].persist",
            "allowed now: redispatch",
        ),
        (
            "persist strict",
            Cluster("persist: strict"),
            8,
            "clusters[0].persist",
            "allowed now: redispatch",
        ),
        (
            "persist other",
            Cluster("persist: never"),
            8,
            "clusters[0].persist",
            "never is not allowed",
        ),
        (
            "new_connections",
            Cluster("new_connections: {per_source: 10}"),
            8,
            "clusters[0].new_connections.per_source",
            "allowed now: 0",
        ),
        (
            "fragments",
            Cluster("fragments: kernel"),
            8,
            "clusters[0].fragments",
            "allowed now: drop",
        ),
        (
            "udp",
            Cluster("timeouts: {udp: 30s}"),
            8,
            "clusters[0].timeouts.udp",
            "allowed now: 1m",
        ),
        (
            "keepalives",
            Cluster("timeouts: {keepalive_refreshes: false}"),
            8,
            "clusters[0].timeouts.keepalive_refreshes",
            "allowed now: true",
        ),
        (
            "redispatch_after",
            Cluster("redispatch_after: 1s"),
            8,
            "clusters[0].redispatch_after",
            "allowed now: 800ms",
        ),
        (
            "slow_start",
            Cluster("slow_start: 10s"),
            8,
            "clusters[0].slow_start",
            "allowed now: 0s, 60s",
        ),
        (
            "reset rate",
            Cluster("on_backend_down: {rate: 1}"),
            8,
            "clusters[0].on_backend_down.rate",
            "allowed now: 5000",
        ),
        (
            "guard",
            Cluster("on_backend_down: {guard: off}"),
            8,
            "clusters[0].on_backend_down.guard",
            "allowed now: true",
        ),
        (
            "action",
            Cluster("on_backend_down: {action: drop}"),
            8,
            "clusters[0].on_backend_down.action",
            "keep, reset",
        ),
        (
            "manage_addresses",
            Top("manage_addresses: true"),
            8,
            "manage_addresses",
            "allowed now: false",
        ),
        (
            "stats",
            Top("stats: {listen: 127.0.0.1:7777}"),
            8,
            "stats",
            "{...} is known but not supported by this version; allowed now: off",
        ),
        (
            "stats a word",
            Top("stats: on"),
            8,
            "stats",
            "on is not allowed",
        ),
        (
            "connection_log",
            Top("connection_log: {format: json}"),
            8,
            "connection_log",
            "allowed now: off",
        ),
        (
            "memory_max",
            Top("tables: {memory_max: 20%}"),
            8,
            "tables.memory_max",
            "allowed now: 50%",
        ),
        (
            "resets",
            Top("resets: {unknown_per_second: 5}"),
            8,
            "resets.unknown_per_second",
            "allowed now: 10000",
        ),
        (
            "tc",
            Top("interfaces: [{name: eth0, mode: tc}]"),
            8,
            "interfaces[0].mode",
            "tc is known but not supported by this version; allowed now: auto, native, generic",
        ),
        (
            "journald",
            Top("log: {target: journald}"),
            8,
            "log.target",
            "allowed now: stderr",
        ),
        (
            "syslog",
            Top("log: {target: {syslog: {address: /dev/log}}}"),
            8,
            "log.target",
            "allowed now: stderr",
        ),
        (
            "admin level",
            Top("admin: [{socket: /a, level: user}]"),
            8,
            "admin[0].level",
            "allowed now: admin",
        ),
        (
            "admin group",
            Top("admin: [{socket: /a, group: adm}]"),
            8,
            "admin[0].group",
            "allowed now: root",
        ),
    ]);
}

#[test]
fn host() {
    all_refused(vec![
        (
            "interfaces word",
            Top("interfaces: eth0"),
            8,
            "interfaces",
            "auto, or a list",
        ),
        (
            "no interfaces",
            Top("interfaces: []"),
            8,
            "interfaces",
            "auto, or a list",
        ),
        (
            "long interface",
            Top("interfaces:\n  - {name: abcdefghijklmnop}"),
            9,
            "interfaces[0].name",
            "1 to 15 bytes",
        ),
        (
            "interface path",
            Top("interfaces: [a/b]"),
            8,
            "interfaces[0]",
            "an interface name",
        ),
        (
            "interface twice",
            Top("interfaces: [a, {name: a}]"),
            8,
            "interfaces[1]",
            "twice",
        ),
        (
            "mode",
            Top("interfaces: [{name: a, mode: fast}]"),
            8,
            "interfaces[0].mode",
            "fast is not allowed; allowed: auto, native, generic",
        ),
        (
            "half_open 0",
            Top("tables: {half_open: 0}"),
            8,
            "tables.half_open",
            "1 to 4194304",
        ),
        (
            "half_open large",
            Top("tables: {half_open: 5m}"),
            8,
            "tables.half_open",
            "1 to 4194304",
        ),
        (
            "flows",
            Top("tables: {flows: lots}"),
            8,
            "tables.flows",
            "lots is not allowed",
        ),
        (
            "sweep",
            Top("sweep: {interval: 1ms}"),
            8,
            "sweep.interval",
            "100ms to 1m",
        ),
        (
            "socket",
            Top("admin: [{socket: admin.sock}]"),
            8,
            "admin[0].socket",
            "an absolute path",
        ),
        (
            "socket missing",
            Top("admin: [{mode: 0600}]"),
            8,
            "admin[0].socket",
            "required",
        ),
        (
            "socket twice",
            Top("admin: [{socket: /a}, {socket: /a}]"),
            8,
            "admin[1]",
            "twice",
        ),
        (
            "mode 8",
            Top("admin: [{socket: /a, mode: '0680'}]"),
            8,
            "admin[0].mode",
            "an octal mode",
        ),
        (
            "mode decimal",
            Top("admin: [{socket: /a, mode: 0o600}]"),
            8,
            "admin[0].mode",
            "an octal mode",
        ),
        (
            "setuid mode",
            Top("admin: [{socket: /a, mode: '4755'}]"),
            8,
            "admin[0].mode",
            "an octal mode",
        ),
        (
            "metrics",
            Top("metrics: {listen: localhost:7778}"),
            8,
            "metrics.listen",
            "127.0.0.1:7778",
        ),
        (
            "metrics port",
            Top("metrics: {listen: '127.0.0.1:0'}"),
            8,
            "metrics.listen",
            "an address with a port",
        ),
        (
            "log level",
            Top("log: {level: loud}"),
            8,
            "log.level",
            "error, warn, info, debug, trace",
        ),
        (
            "log target",
            Top("log: {target: stdout}"),
            8,
            "log.target",
            "stdout is not allowed; allowed: stderr",
        ),
        (
            "defaults a word",
            Top("defaults: none"),
            8,
            "defaults",
            "a mapping",
        ),
        (
            "hidden in defaults",
            Top("defaults: {ports: [0]}"),
            8,
            "defaults.ports[0]",
            "0 is not allowed",
        ),
        (
            "once from defaults",
            Top("defaults: {balance: x}"),
            8,
            "defaults.balance",
            "x is not allowed",
        ),
        (
            "unknown key of defaults",
            Top("defaults: {tables: {}}"),
            8,
            "defaults.tables",
            "unknown key",
        ),
    ]);
}

#[test]
fn between_clusters() {
    let second = |vips: &str, ports: &str| {
        format!(
            "  - name: c\n    vips: {vips}\n    ports: {ports}\n    backends: [{{name: b, address: 198.51.100.1}}]\n"
        )
    };
    let text = format!("{}{}", super::BASE, second("[192.0.2.1]", "[5060-5070]"));
    let problems = check(&text).unwrap_err().to_string();
    assert_eq!(
        problems,
        "t.yaml:10: clusters[1].ports[0]: 192.0.2.1:5061 is served already, by clusters[0].ports[1] in line 5"
    );

    let text = format!("{}{}", super::BASE, second("[198.51.100.1]", "[80]"));
    let problems = check(&text).unwrap_err().to_string();
    assert_eq!(
        problems,
        "t.yaml:9: clusters[1].vips[0]: VIP 198.51.100.1 is a backend's address, by clusters[0].backends[0].address in line 7"
    );

    let twice = second("[192.0.2.2]", "[80]").replace("name: c", "name: a");
    let problems = check(&format!("{}{twice}", super::BASE)).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "t.yaml:8: clusters[1].name: cluster name a is used already, by clusters[0].name in line 3"
    );

    // Ports and VIPs that both inherit: only the names tell the clusters apart.
    let text = "\
version: 1
defaults:
  vips: [192.0.2.1]
  ports: [443]
  backends: [{name: b, address: 198.51.100.1}]
clusters:
  - name: a
  - name: c
";
    let problems = check(text).unwrap_err().to_string();
    assert_eq!(
        problems,
        "t.yaml:8: clusters[1].name: 192.0.2.1:443 is served already, by clusters[0].name in line 7"
    );
}

#[test]
fn too_many() {
    let backends: String = (0..257)
        .map(|i| {
            format!(
                "      - {{name: b{i}, address: 198.51.{}.{}}}\n",
                i / 250,
                i % 250
            )
        })
        .collect();
    let text = with("      - {name: b, address: 198.51.100.1}\n", &backends);
    let problems = check(&text).unwrap_err().to_string();
    assert_eq!(
        problems,
        "t.yaml:263: clusters[0].backends[256]: 257 backends; allowed: at most 256"
    );

    let clusters: String = (0..17)
        .map(|i| {
            format!(
                "  - {{name: a{i}, vips: [192.0.2.{i}], ports: [1], max_connections: 4000000, backends: [{{name: b, address: 198.51.100.1}}]}}\n"
            )
        })
        .collect();
    let text = format!("version: 1\nclusters:\n{clusters}");
    let problems = check(&text).unwrap_err().to_string();
    assert!(problems.contains("add up to 68000000 flows"), "{problems}");
    super::valid(&format!("{text}tables: {{flows: 1000000}}\n"));
}

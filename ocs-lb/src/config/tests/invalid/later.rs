//! What the contract knows and this version does not.

use super::Edit::{Cluster, Top};
use super::all_refused;

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

//! Health checks.

use super::Edit::{Cluster, Replace};
use super::all_refused;

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
            Cluster("check: {observe: maybe}"),
            8,
            "clusters[0].check.observe",
            "maybe is not allowed; allowed: true, false",
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

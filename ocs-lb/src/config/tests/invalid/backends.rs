//! Entries of `backends`.

use super::Edit::{Replace, Whole};
use super::all_refused;

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

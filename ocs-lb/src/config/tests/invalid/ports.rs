//! Entries of `ports`.

use super::Edit::Replace;
use super::all_refused;

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
            "range twice",
            ports("[5-9, 6-8]"),
            5,
            "clusters[0].ports[1]",
            "port 6 is listed already",
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

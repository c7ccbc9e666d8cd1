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
            ports("[any, 443]"),
            5,
            "clusters[0].ports[0]",
            "any port needs an `allow` that is not empty",
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
            "allow of a port",
            ports("[{listen: 1, allow: [10.0.0.1/8]}]"),
            5,
            "clusters[0].ports[0].allow[0]",
            "10.0.0.1/8 is not allowed; allowed: no bits beyond the length: 10.0.0.0/8",
        ),
        (
            "any to a port",
            ports("[443, {listen: any, target: 1, allow: [10.0.0.0/8]}]"),
            5,
            "clusters[0].ports[1].target",
            "any port keeps its number",
        ),
        (
            "any for everyone",
            ports("[443, {listen: any, allow: []}]"),
            5,
            "clusters[0].ports[1]",
            "any port needs an `allow`",
        ),
        (
            "any and a check without a port",
            ports("[{listen: any, allow: [10.0.0.0/8]}]"),
            7,
            "clusters[0].backends[0].name",
            "its check needs a `port`",
        ),
        (
            "any twice",
            ports("[443, {listen: any, allow: [10.0.0.0/8]}, {listen: any, allow: [10.0.0.0/8]}]"),
            5,
            "clusters[0].ports[2]",
            "port any is listed already, by clusters[0].ports[1] in line 5",
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

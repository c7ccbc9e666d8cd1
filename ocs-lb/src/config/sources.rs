//! Prefixes of sources, and how fast new connections may come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::access::Fields;
use super::problem::Report;
use super::tree::Node;
use super::value::{duration, invalid, number};
use crate::model::{Access, NewConnections, Prefix};

/// New connections in a second at most: more is no limit.
const RATES: RangeInclusive<u32> = 0..=1_000_000;
/// The datapath's clock is exact to two jiffies; the upper end is what its
/// numbers hold.
const BURSTS: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(4);

/// A list of prefixes.
pub(super) fn prefixes(node: &Node, report: &mut Report<'_>) -> Option<Vec<Prefix>> {
    let items = node.list("prefixes such as 192.0.2.0/24", report)?;
    Some(items.iter().filter_map(|n| prefix(n, report)).collect())
}

/// `192.0.2.0/24`, or an address alone.
fn prefix(node: &Node, report: &mut Report<'_>) -> Option<Prefix> {
    const ALLOWED: &str = "an IPv4 prefix such as 192.0.2.0/24, or an address";
    let text = node.text().unwrap_or_default();
    let (address, len) = text.split_once('/').unwrap_or((text, "32"));
    if address.parse::<Ipv6Addr>().is_ok() {
        let message = format!(
            "{} is an IPv6 prefix: IPv6 is not wired in this version",
            node.shown()
        );
        report.wrong(&node.place, message);
        return None;
    }
    let is_short = len.len() <= 2 && len.bytes().all(|b| b.is_ascii_digit());
    let (Ok(address), Ok(len @ 0..=32), true) =
        (address.parse::<Ipv4Addr>(), len.parse::<u8>(), is_short)
    else {
        return invalid(node, report, ALLOWED);
    };
    let prefix = Prefix::covering(IpAddr::V4(address), len);
    if prefix.address != IpAddr::V4(address) {
        return invalid(node, report, format!("no bits beyond the length: {prefix}"));
    }
    Some(prefix)
}

/// `from`, `allow` and `deny` of a cluster; `ports` is for those of its ports.
pub(super) fn access(
    fields: Fields<'_>,
    ports: Vec<Vec<Prefix>>,
    report: &mut Report<'_>,
) -> Access {
    let mut list = |key| fields.value(key, report, prefixes).unwrap_or_default();
    Access {
        from: list("from"),
        allow: list("allow"),
        deny: list("deny"),
        ports,
    }
}

/// `{per_source, total, burst}`.
pub(super) fn new_connections(node: Option<&Node>, report: &mut Report<'_>) -> NewConnections {
    let default = NewConnections::default();
    let keys = ["per_source", "total", "burst"];
    let Some(fields) = node.and_then(|n| n.fields(&keys, report)) else {
        return default;
    };
    let mut rate = |key| fields.value(key, report, |n, r| number(n, r, RATES));
    let (per_source, total) = (rate("per_source"), rate("total"));
    let burst = fields.value("burst", report, |n, r| duration(n, r, BURSTS));
    NewConnections {
        per_source: per_source.unwrap_or(0),
        total: total.unwrap_or(0),
        burst: burst.unwrap_or(default.burst),
    }
}

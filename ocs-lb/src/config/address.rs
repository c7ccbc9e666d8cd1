//! Addresses and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::problem::Report;
use super::tree::Node;
use super::value::{invalid, unsupported};
use crate::model::{Port, Prefix, Vip};

/// First port a SNAT pool may use.
pub(super) const FIRST_SNAT_PORT: u16 = 1024;

/// An IPv4 unicast address that can be on a wire.
pub(super) fn address(node: &Node, report: &mut Report<'_>) -> Option<IpAddr> {
    parse_address(node, node.text().unwrap_or_default(), report)
}

fn parse_address(node: &Node, text: &str, report: &mut Report<'_>) -> Option<IpAddr> {
    if text.parse::<Ipv6Addr>().is_ok() {
        let message = format!(
            "{} is an IPv6 address: IPv6 is not wired in this version",
            node.shown()
        );
        report.wrong(&node.place, message);
        return None;
    }
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        return invalid(node, report, "an IPv4 address such as 192.0.2.1 (no names)");
    };
    let kind = if address.octets()[0] == 0 {
        "an unspecified"
    } else if address.is_loopback() {
        "a loopback"
    } else if address.is_multicast() {
        "a multicast"
    } else if address.is_broadcast() {
        "the broadcast"
    } else {
        return Some(IpAddr::V4(address));
    };
    let message = format!("{address} is {kind} address; allowed: unicast addresses of hosts");
    report.wrong(&node.place, message);
    None
}

/// `192.0.2.1` or `{address: 192.0.2.1/32, interface: eth0}`.
pub(super) fn vip(node: &Node, report: &mut Report<'_>) -> Option<Vip> {
    if node.text().is_some() {
        let (address, prefix) = prefixed(node, report)?;
        return Some(Vip {
            address,
            prefix,
            interface: None,
        });
    }
    let fields = node.fields(&["address", "interface"], report)?;
    let interface = fields.value("interface", report, super::value::interface_name);
    let (address, prefix) = fields.required("address", "an IPv4 address", report, prefixed)?;
    Some(Vip {
        address,
        prefix,
        interface,
    })
}

fn prefixed(node: &Node, report: &mut Report<'_>) -> Option<(IpAddr, Option<u8>)> {
    let text = node.text().unwrap_or_default();
    let Some((text, length)) = text.split_once('/') else {
        return Some((parse_address(node, text, report)?, None));
    };
    let address = parse_address(node, text, report)?;
    let is_short = length.len() <= 2 && length.bytes().all(|b| b.is_ascii_digit());
    match length.parse::<u8>() {
        Ok(length @ 1..=32) if is_short => Some((address, Some(length))),
        _ => invalid(node, report, "a prefix length of 1 to 32"),
    }
}

/// A port number, 1 to 65535.
pub(super) fn port(node: &Node, report: &mut Report<'_>) -> Option<u16> {
    super::value::number(node, report, 1..=u16::MAX)
}

fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|p| is_number && *p > 0)
}

/// First and last port of `443` or `5070-5080`, either with `/tcp`.
fn listen(node: &Node, report: &mut Report<'_>) -> Option<(u16, u16)> {
    const ALLOWED: &str =
        "a port of 1 to 65535 or a range such as 5070-5080, optionally with /tcp, or any";
    let text = node.text().unwrap_or_default();
    let text = match text.split_once('/') {
        None if text == "any" => return Some((Port::ANY, Port::ANY)),
        None => text,
        Some((text, "tcp")) => text,
        Some((_, "udp")) => return unsupported(node, report, "TCP ports"),
        Some(_) => return invalid(node, report, ALLOWED),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (parse_port(first), parse_port(last)) {
        (Some(first), Some(last)) if first <= last => Some((first, last)),
        (Some(_), Some(_)) => invalid(node, report, "a range whose first port is the smaller"),
        _ => invalid(node, report, ALLOWED),
    }
}

/// One entry of `ports`.
#[derive(Debug, Clone)]
pub(super) struct PortEntry {
    first: u16,
    last: u16,
    target: Option<u16>,
    /// Stands in for the cluster's `allow`.
    pub allow: Option<Vec<Prefix>>,
}

impl PortEntry {
    /// Whether it is every port that is not served by its number.
    pub fn is_any(&self) -> bool {
        self.first == Port::ANY
    }

    /// Every port of the entry, ascending; `access` says who is let in.
    pub fn expand(&self, access: u16) -> impl Iterator<Item = Port> {
        let target = self.target;
        (self.first..=self.last).map(move |listen| Port {
            listen,
            target: target.unwrap_or(listen),
            access,
        })
    }
}

/// `443`, `443/tcp`, `5070-5080` or `{listen, target}`.
pub(super) fn ports(node: &Node, report: &mut Report<'_>) -> Option<PortEntry> {
    if node.text().is_some() {
        let (first, last) = listen(node, report)?;
        return Some(PortEntry {
            first,
            last,
            target: None,
            allow: None,
        });
    }
    let fields = node.fields(&["listen", "target", "allow", "sticky"], report)?;
    let allow = fields.value("allow", report, super::sources::prefixes);
    fields.refuse_keys(&["sticky"], report);
    let target = fields.value("target", report, port);
    let (first, last) = fields.required("listen", "a port of 1 to 65535", report, listen)?;
    if let (Some(node), true) = (fields.get("target"), first != last) {
        let message = "a range keeps its ports: `target` needs a single `listen` port";
        report.wrong(&node.place, message);
        return None;
    }
    if let (Some(node), true) = (fields.get("target"), first == Port::ANY) {
        let message = "any port keeps its number: `target` needs a single `listen` port";
        report.wrong(&node.place, message);
        return None;
    }
    Some(PortEntry {
        first,
        last,
        target,
        allow,
    })
}

/// `1024-65535`: the ports of a SNAT pool.
pub(super) fn snat_ports(node: &Node, report: &mut Report<'_>) -> Option<(u16, u16)> {
    let range = node.text().and_then(|t| t.split_once('-'));
    let range = range.map(|(first, last)| (parse_port(first), parse_port(last)));
    match range {
        Some((Some(first), Some(last))) if FIRST_SNAT_PORT <= first && first <= last => {
            Some((first, last))
        }
        _ => invalid(
            node,
            report,
            "a range such as 1024-65535, from 1024 upwards",
        ),
    }
}

/// `127.0.0.1:7778`: where a socket listens.
pub(super) fn socket_address(node: &Node, report: &mut Report<'_>) -> Option<std::net::SocketAddr> {
    let parsed = node
        .text()
        .and_then(|t| t.parse::<std::net::SocketAddr>().ok());
    match parsed {
        Some(address) if address.port() > 0 && !address.ip().is_multicast() => Some(address),
        _ => invalid(
            node,
            report,
            "an address with a port such as 127.0.0.1:7778",
        ),
    }
}

/// Absolute path of a UNIX socket; `sun_path` holds 107 bytes and a NUL.
pub(super) fn socket_path(node: &Node, report: &mut Report<'_>) -> Option<PathBuf> {
    match node.text() {
        Some(text) if text.starts_with('/') && text.len() <= 107 && !text.ends_with('/') => {
            Some(PathBuf::from(text))
        }
        _ => invalid(node, report, "an absolute path of at most 107 bytes"),
    }
}

//! The keys outside clusters: interfaces, tables, sockets, log.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::address::{socket_address, socket_path};
use super::problem::Report;
use super::tree::{Data, Node};
use super::value::{duration, interface_name, invalid, number, only, size, word};
use crate::model::{AdminSocket, AttachMode, Interface, Interfaces, Log, LogLevel, Tables};

/// Most live or half-open flows of the host.
pub(super) const MAX_FLOWS: u32 = 64_000_000;
const MAX_HALF_OPEN: u32 = 4_194_304;
const HALF_OPEN: u32 = 65_536;
/// Most RSTs a second for packets of no flow.
const MAX_RESETS: u32 = 10_000_000;

/// `auto` or a list of names and `{name, mode}`.
pub(super) fn interfaces(node: &Node, report: &mut Report<'_>) -> Option<Interfaces> {
    if node.text() == Some("auto") {
        return Some(Interfaces::Auto);
    }
    let Data::List(items) = &node.data else {
        return invalid(node, report, "auto, or a list of {name, mode}");
    };
    if items.is_empty() {
        return invalid(node, report, "auto, or a list of {name, mode}");
    }
    let mut listed: Vec<Interface> = Vec::new();
    let mut seen = HashSet::new();
    for item in items {
        if let Some(interface) = interface(item, report) {
            if !seen.insert(interface.name.clone()) {
                let message = format!("interface {} is listed twice", interface.name);
                report.wrong(&item.place, message);
            }
            listed.push(interface);
        }
    }
    Some(Interfaces::Listed(listed))
}

fn interface(node: &Node, report: &mut Report<'_>) -> Option<Interface> {
    if node.text().is_some() {
        return Some(Interface {
            name: interface_name(node, report)?,
            mode: AttachMode::Auto,
        });
    }
    let fields = node.fields(&["name", "mode"], report)?;
    let modes = [
        ("auto", AttachMode::Auto),
        ("native", AttachMode::Native),
        ("generic", AttachMode::Generic),
        ("tc", AttachMode::Tc),
    ];
    let mode = fields.value("mode", report, |n, r| word(n, r, &modes, &[]));
    let name = fields.required("name", "an interface name", report, interface_name);
    Some(Interface {
        name: name?,
        mode: mode.unwrap_or(AttachMode::Auto),
    })
}

/// `{flows, half_open, memory_max}`.
pub(super) fn tables(node: Option<&Node>, report: &mut Report<'_>) -> Tables {
    let mut tables = Tables {
        flows: None,
        half_open: HALF_OPEN,
    };
    let keys = ["flows", "half_open", "memory_max"];
    let Some(fields) = node.and_then(|n| n.fields(&keys, report)) else {
        return tables;
    };
    if let Some(node) = fields.get("flows")
        && node.text() != Some("auto")
    {
        tables.flows = size(node, report, 1..=MAX_FLOWS);
    }
    let half_open = fields.value("half_open", report, |n, r| size(n, r, 1..=MAX_HALF_OPEN));
    tables.half_open = half_open.unwrap_or(HALF_OPEN);
    if let Some(node) = fields.get("memory_max") {
        let is_percent = node.text().is_some_and(|t| t.ends_with('%'));
        let is_size = node.text().and_then(super::value::parse_size).is_some();
        only(node, report, "50%", is_percent || is_size);
    }
    tables
}

/// `{unknown_per_second}`: RSTs a second for packets of no flow.
pub(super) fn resets(node: Option<&Node>, report: &mut Report<'_>) -> u32 {
    let range = 1..=MAX_RESETS;
    node.and_then(|n| n.fields(&["unknown_per_second"], report))
        .and_then(|f| f.value("unknown_per_second", report, |n, r| number(n, r, range)))
        .unwrap_or(10_000)
}

/// `{interval}`.
pub(super) fn sweep(node: Option<&Node>, report: &mut Report<'_>) -> Duration {
    let range = Duration::from_millis(100)..=Duration::from_secs(60);
    node.and_then(|n| n.fields(&["interval"], report))
        .and_then(|f| f.value("interval", report, |n, r| duration(n, r, range)))
        .unwrap_or(Duration::from_secs(1))
}

/// A list of `{socket, mode, user, group, level}`.
pub(super) fn admin(node: Option<&Node>, report: &mut Report<'_>) -> Vec<AdminSocket> {
    let Some(items) = node.and_then(|n| n.list("sockets", report)) else {
        return vec![AdminSocket {
            path: PathBuf::from("/run/ocs-lb/admin.sock"),
            mode: 0o600,
        }];
    };
    let mut seen = HashSet::new();
    let mut sockets: Vec<AdminSocket> = Vec::new();
    for item in items {
        if let Some(socket) = admin_socket(item, report) {
            if !seen.insert(socket.path.clone()) {
                let message = format!("socket {} is listed twice", socket.path.display());
                report.wrong(&item.place, message);
            }
            sockets.push(socket);
        }
    }
    sockets
}

fn admin_socket(node: &Node, report: &mut Report<'_>) -> Option<AdminSocket> {
    let fields = node.fields(&["socket", "mode", "user", "group", "level"], report)?;
    for key in ["user", "group"] {
        if let Some(node) = fields.get(key) {
            only(node, report, "root", node.text().is_some());
        }
    }
    fields.value("level", report, |n, r| {
        word(n, r, &[("admin", ())], &["user", "operator"])
    });
    let mode = fields.value("mode", report, file_mode);
    let path = fields.required("socket", "an absolute path", report, socket_path);
    Some(AdminSocket {
        path: path?,
        mode: mode.unwrap_or(0o600),
    })
}

/// Three or four octal digits: `"0600"`, with or without quotes.
fn file_mode(node: &Node, report: &mut Report<'_>) -> Option<u32> {
    let text = node
        .text()
        .filter(|t| matches!(t.len(), 3 | 4) && t.bytes().all(|b| (b'0'..=b'7').contains(&b)));
    match text.and_then(|t| u32::from_str_radix(t, 8).ok()) {
        Some(mode) if mode <= 0o777 => Some(mode),
        _ => invalid(
            node,
            report,
            "an octal mode such as \"0600\", at most \"0777\"",
        ),
    }
}

/// `off` or `{listen}`.
pub(super) fn metrics(node: Option<&Node>, report: &mut Report<'_>) -> Option<SocketAddr> {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 7778));
    let Some(node) = node else {
        return Some(default);
    };
    if node.is_off() {
        return None;
    }
    let listen = node
        .fields(&["listen"], report)
        .and_then(|f| f.value("listen", report, socket_address));
    Some(listen.unwrap_or(default))
}

/// `{target, level}`.
pub(super) fn log(node: Option<&Node>, report: &mut Report<'_>) -> Log {
    let default = Log {
        level: LogLevel::Info,
    };
    let Some(fields) = node.and_then(|n| n.fields(&["target", "level"], report)) else {
        return default;
    };
    if let Some(node) = fields.get("target") {
        let is_syslog = matches!(&node.data, Data::Map(e) if e.iter().any(|e| e.key == "syslog"));
        only(
            node,
            report,
            "stderr",
            is_syslog || node.text() == Some("journald"),
        );
    }
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let level = fields.value("level", report, |n, r| word(n, r, &levels, &[]));
    Log {
        level: level.unwrap_or(default.level),
    }
}

//! Configuration file -> [`Model`].
//!
//! `tree` reads YAML into a tree with places, the other modules decode it and
//! collect every problem, `semantic` looks at keys together. The contract is
//! described for users in `docs/configuration.md`.

mod access;
mod address;
mod backend;
mod certificates;
mod check;
mod check_kind;
mod cluster;
mod gate;
mod host;
mod policy;
mod problem;
mod render;
mod semantic;
mod sources;
#[cfg(test)]
mod tests;
mod tree;
mod value;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use problem::{Cause, Problem, Problems, Warning};
pub use render::{CheckReport, render};

use crate::model::{Interfaces, MAX_CLUSTERS, Model};
use problem::{Place, Report};
use tree::{Data, Node};

/// The embedded default configuration: the pool that the project grew from,
/// on documentation addresses.
pub const DEFAULT: &str = include_str!("default.yaml");

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

const KEYS: [&str; 14] = [
    "version",
    "interfaces",
    "manage_addresses",
    "auto_last_hop",
    "defaults",
    "clusters",
    "tables",
    "resets",
    "sweep",
    "admin",
    "stats",
    "metrics",
    "log",
    "connection_log",
];

/// A valid configuration and what its author should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What the datapath is to do.
    pub model: Model,
    /// Defaults of the contract that this version does not follow, by line.
    pub warnings: Vec<Warning>,
}

/// Reads and validates a file.
///
/// # Errors
/// Every problem of the file, or the one that kept it from being read: absent,
/// a directory, longer than 4 MiB, not UTF-8.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    match read(path) {
        Ok(text) => parse(&text, &name),
        Err(message) => Err(Problems(vec![Problem {
            file: name,
            line: 0,
            key_path: String::new(),
            value: None,
            message,
            allowed: None,
            cause: Cause::Invalid,
        }])),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|e| format!("cannot be opened: {e}"))?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a full file from a longer one, and a
    // device or pipe cannot fill memory.
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("the file is longer than 4 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        format!("the file is not UTF-8: byte {at}")
    })
}

/// Validates `text`; `file_name` is what problems call it.
///
/// # Errors
/// Every problem of the text, by line.
pub fn parse(text: &str, file_name: &str) -> Result<Loaded, Problems> {
    let mut report = Report::new(file_name);
    let model = tree::parse(text, &mut report).and_then(|root| decode(&root, &mut report));
    if model.is_none() && !report.is_failed() {
        // An error without a problem would print as nothing at all.
        let path = String::new();
        report.wrong(&Place { line: 0, path }, "not a configuration");
    }
    let warnings = report.finish()?;
    model
        .map(|model| Loaded { model, warnings })
        .ok_or_else(|| Problems(Vec::new()))
}

fn decode(root: &Node, report: &mut Report<'_>) -> Option<Model> {
    let empty = Node {
        place: root.place.clone(),
        data: Data::Map(Vec::new()),
    };
    let root = match root.data {
        Data::Null => &empty,
        _ => root,
    };
    let fields = root.fields(&KEYS, report)?;
    fields.required("version", "1", report, |n, r| {
        value::word(n, r, &[("1", ())], &[])
    });
    let auto_last_hop = fields.value("auto_last_hop", report, value::boolean);
    if let Some(node) = fields.get("manage_addresses") {
        gate::only_boolean(node, report, false);
    }
    for key in ["stats", "connection_log"] {
        if let Some(node) = fields.get(key) {
            value::only(node, report, "off", matches!(node.data, Data::Map(_)));
        }
    }
    let tables = host::tables(fields.get("tables"), report);
    let clusters = clusters(fields.get("defaults"), fields, report);
    semantic::check(&clusters, tables, report);
    let interfaces = fields.value("interfaces", report, host::interfaces);
    let mut model = Model {
        interfaces: interfaces.unwrap_or(Interfaces::Auto),
        manage_addresses: false,
        auto_last_hop: auto_last_hop.unwrap_or(false),
        clusters: clusters.into_iter().map(|c| c.cluster).collect(),
        tables,
        unknown_resets: host::resets(fields.get("resets"), report),
        sweep_interval: host::sweep(fields.get("sweep"), report),
        admin: host::admin(fields.get("admin"), report),
        metrics: host::metrics(fields.get("metrics"), report),
        log: host::log(fields.get("log"), report),
    };
    for cluster in &mut model.clusters {
        cluster.ports.sort_unstable();
    }
    Some(model)
}

fn clusters(
    defaults: Option<&Node>,
    fields: access::Fields<'_>,
    report: &mut Report<'_>,
) -> Vec<cluster::Decoded> {
    // Looked at on its own, because a cluster may hide what is wrong in it.
    let defaults = defaults.filter(|node| cluster::cluster(node, false, report).is_some());
    let items = fields.required("clusters", "a list of clusters", report, |n, r| {
        n.list("clusters", r)
    });
    if let (Some([]), Some(node)) = (items, fields.get("clusters")) {
        report.invalid(&node.place, node.shown(), "at least one entry");
    }
    let items = items.unwrap_or_default();
    if let Some(extra) = items.get(MAX_CLUSTERS) {
        let message = format!("{} clusters; allowed: at most {MAX_CLUSTERS}", items.len());
        report.wrong(&extra.place, message);
    }
    items
        .iter()
        .take(MAX_CLUSTERS)
        .filter_map(|item| {
            let merged = defaults.map(|base| tree::overlay(base, item));
            cluster::cluster(merged.as_ref().unwrap_or(item), true, report)
        })
        .collect()
}

//! What answers look like on the wire: one of these objects, or the views of
//! flows and sticky entries, one a line.

use serde::{Deserialize, Serialize};

use crate::model::ClusterState;
use crate::readiness::Readiness;
use crate::snapshot::{ClusterView, EventView, InterfaceView, SnatView};

/// The answer to `show backends`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Backends {
    /// Clusters with the backends that were asked for.
    pub clusters: Vec<ClusterView>,
}

/// The answer to `show status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// Attached interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Whether new clients are served.
    #[serde(default, flatten)]
    pub readiness: Readiness,
}

/// How an interface is served.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Kernel name.
    pub name: String,
    /// `native`, `generic` or `tc`.
    pub mode: String,
    /// Why so.
    pub reason: String,
}

impl From<InterfaceView> for InterfaceStatus {
    fn from(view: InterfaceView) -> Self {
        Self {
            name: view.name,
            mode: view.mode,
            reason: view.reason,
        }
    }
}

/// The answer to `show drops`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Drops {
    /// Interfaces with their counters.
    pub interfaces: Vec<InterfaceView>,
}

/// The answer to `show snat`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Snat {
    /// Destinations with their ports.
    pub snat: Vec<SnatView>,
}

/// The answer to `show events`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Events {
    /// Events, oldest first.
    pub events: Vec<EventView>,
}

/// The answer to `clear sticky`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared {
    /// Entries that were forgotten.
    pub cleared: u64,
}

/// The answer to `reload`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What changed, a line each.
    pub changes: Vec<String>,
}

/// The answer to `set backend`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendSet {
    /// Cluster's name.
    pub cluster: String,
    /// Backend's name.
    pub backend: String,
    /// What was said of it, as a sentence goes on after its name.
    pub set: String,
}

/// The answer to `set cluster`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSet {
    /// Cluster's name.
    pub cluster: String,
    /// What it is now.
    pub state: ClusterState,
}

/// The answer to what cannot be served, or how a stream ends that broke.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The reason, for people.
    pub error: String,
}

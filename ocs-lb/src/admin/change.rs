//! What a controller can be asked to do, as one line of JSON.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{BackendSetting, BackendState, ClusterState};

/// A change: `{"change": "reset-backend", "cluster": ..., "backend": ...}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// RST to both sides of a backend's flows.
    ResetBackend {
        /// Cluster's name.
        cluster: String,
        /// Backend's name.
        backend: String,
    },
    /// RST to both sides of a client's flows, in all clusters.
    ResetClient {
        /// Its address.
        client: IpAddr,
    },
    /// Forget sticky entries.
    ClearSticky {
        /// Cluster's name.
        cluster: String,
        /// Only of this client.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<IpAddr>,
        /// Only of this backend.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backend: Option<String>,
    },
    /// Read the configuration again.
    Reload,
    /// Say what a backend is to be.
    SetBackendState {
        /// Cluster's name.
        cluster: String,
        /// Backend's name.
        backend: String,
        /// What it is to be; null takes back what was said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<BackendState>,
    },
    /// Say what a backend is to weigh.
    SetBackendWeight {
        /// Cluster's name.
        cluster: String,
        /// Backend's name.
        backend: String,
        /// 0 to 256; null takes back what was said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<u16>,
    },
    /// Put a cluster in a state.
    SetCluster {
        /// Cluster's name.
        cluster: String,
        /// What it is to be.
        state: ClusterState,
    },
}

/// A backend as people name it: `CLUSTER/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendName {
    /// Cluster's name.
    pub cluster: String,
    /// Its own.
    pub backend: String,
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.backend)
    }
}

/// Whose flows are reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reset {
    /// A backend's.
    Backend {
        /// Cluster's name.
        cluster: String,
        /// Backend's name.
        backend: String,
    },
    /// A client's.
    Client {
        /// Its address.
        client: IpAddr,
    },
}

/// Which sticky entries are forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clear {
    /// Cluster's name.
    pub cluster: String,
    /// Only of this client.
    pub client: Option<IpAddr>,
    /// Only of this backend.
    pub backend: Option<String>,
}

impl Change {
    /// The line that asks for it, newline included.
    ///
    /// # Errors
    /// None that a change can have.
    pub fn to_line(&self) -> serde_json::Result<String> {
        Ok(format!("{}\n", serde_json::to_string(self)?))
    }

    /// Whether someone is asked first: it ends or moves flows, makes clients
    /// move, or refuses them.
    pub fn asks(&self) -> bool {
        match self {
            Self::SetCluster { state, .. } => *state == ClusterState::Maint,
            // No flow ends or moves; who is turned away meets another backend.
            Self::SetBackendState { .. } | Self::SetBackendWeight { .. } | Self::Reload => false,
            Self::ResetBackend { .. } | Self::ResetClient { .. } | Self::ClearSticky { .. } => true,
        }
    }
}

/// As a sentence without its end: what is about to happen.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResetBackend { cluster, backend } => {
                write!(f, "reset every flow of {cluster}/{backend}")
            }
            Self::Reload => write!(f, "apply the configuration's file"),
            Self::ResetClient { client } => write!(f, "reset every flow of client {client}"),
            Self::ClearSticky {
                cluster,
                client,
                backend,
            } => {
                write!(f, "forget ")?;
                match client {
                    Some(client) => write!(f, "the sticky entry of {client}")?,
                    None => write!(f, "every sticky entry")?,
                }
                write!(f, " of cluster {cluster}")?;
                match backend {
                    Some(backend) => write!(f, " on {backend}"),
                    None => Ok(()),
                }
            }
            Self::SetBackendState {
                cluster,
                backend,
                state,
            } => {
                let setting = BackendSetting::State(*state);
                write!(f, "set backend {cluster}/{backend} to {setting}")?;
                match state {
                    Some(state) => write!(f, ": {}", state.meaning()),
                    None => Ok(()),
                }
            }
            Self::SetBackendWeight {
                cluster,
                backend,
                weight,
            } => {
                let setting = BackendSetting::Weight(*weight);
                write!(f, "set backend {cluster}/{backend} to {setting}")
            }
            Self::SetCluster { cluster, state } => {
                write!(f, "set cluster {cluster} to {state}: {}", state.meaning())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(state: ClusterState) -> Change {
        Change::SetCluster {
            cluster: "ocs".into(),
            state,
        }
    }

    #[test]
    fn asks_before_it_refuses_clients() {
        for state in ClusterState::ALL {
            assert_eq!(set(state).asks(), state == ClusterState::Maint, "{state}");
        }
        let client = [203, 0, 113, 9].into();
        assert!(Change::ResetClient { client }.asks());
        assert!(!Change::Reload.asks());
    }

    #[test]
    fn reads_what_it_writes() {
        let cases = [
            (
                Change::ResetBackend {
                    cluster: "ocs".into(),
                    backend: "n".into(),
                },
                r#"{"change":"reset-backend","cluster":"ocs","backend":"n"}"#,
                "reset every flow of ocs/n",
            ),
            (
                Change::ResetClient {
                    client: [203, 0, 113, 9].into(),
                },
                r#"{"change":"reset-client","client":"203.0.113.9"}"#,
                "reset every flow of client 203.0.113.9",
            ),
            (
                Change::Reload,
                r#"{"change":"reload"}"#,
                "apply the configuration's file",
            ),
            (
                Change::ClearSticky {
                    cluster: "ocs".into(),
                    client: None,
                    backend: None,
                },
                r#"{"change":"clear-sticky","cluster":"ocs"}"#,
                "forget every sticky entry of cluster ocs",
            ),
            (
                Change::ClearSticky {
                    cluster: "ocs".into(),
                    client: Some([203, 0, 113, 9].into()),
                    backend: Some("n".into()),
                },
                r#"{"change":"clear-sticky","cluster":"ocs","client":"203.0.113.9","backend":"n"}"#,
                "forget the sticky entry of 203.0.113.9 of cluster ocs on n",
            ),
            (
                Change::SetBackendState {
                    cluster: "ocs".into(),
                    backend: "n".into(),
                    state: Some(BackendState::Drain),
                },
                r#"{"change":"set-backend-state","cluster":"ocs","backend":"n","state":"drain"}"#,
                "set backend ocs/n to drain: only clients with a sticky entry come in",
            ),
            (
                Change::SetBackendState {
                    cluster: "ocs".into(),
                    backend: "n".into(),
                    state: None,
                },
                r#"{"change":"set-backend-state","cluster":"ocs","backend":"n"}"#,
                "set backend ocs/n to the file's state",
            ),
            (
                Change::SetBackendWeight {
                    cluster: "ocs".into(),
                    backend: "n".into(),
                    weight: Some(0),
                },
                r#"{"change":"set-backend-weight","cluster":"ocs","backend":"n","weight":0}"#,
                "set backend ocs/n to weight 0",
            ),
            (
                set(ClusterState::Pass),
                r#"{"change":"set-cluster","cluster":"ocs","state":"pass"}"#,
                "set cluster ocs to pass: new connections go to this host's own stack",
            ),
            (
                set(ClusterState::Drain),
                r#"{"change":"set-cluster","cluster":"ocs","state":"drain"}"#,
                "set cluster ocs to drain: only clients with a sticky entry come in",
            ),
        ];
        for (change, line, words) in cases {
            assert_eq!(change.to_line().unwrap(), format!("{line}\n"));
            assert_eq!(serde_json::from_str::<Change>(line).unwrap(), change);
            assert_eq!(change.to_string(), words);
        }
    }
}

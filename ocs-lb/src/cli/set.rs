//! `ocs-lb set`: what can be set, and to what.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Subcommand, ValueEnum};

use super::{Command, How, backend_name};
use crate::admin::Change;
use crate::model::{BackendState, ClusterState, MAX_WEIGHT};

/// Takes back what was said.
const DEFAULT: &str = "default";

#[derive(Debug, Subcommand)]
pub(super) enum SetVerb {
    /// What a backend is to be, beside what the file and its checks say
    Backend {
        /// The backend
        #[arg(value_name = "CLUSTER/NAME", value_parser = backend_name)]
        backend: (String, String),
        #[command(subcommand)]
        what: BackendVerb,
    },
    /// Who gets a cluster's new connections; those there are stay
    Cluster {
        /// The cluster
        #[arg(value_name = "NAME")]
        cluster: String,
        /// What of it is set
        #[arg(value_name = "WHAT", value_parser = ["state"])]
        what: String,
        /// To what
        state: ClusterState,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BackendVerb {
    /// Who gets its new connections; those there are stay
    State {
        /// To what
        state: StateOrDefault,
        #[command(flatten)]
        how: How,
    },
    /// Its weight instead of the file's
    Weight {
        /// 0 to 256, or `default` for the file's; 0 takes only clients with a sticky entry
        #[arg(value_parser = weight)]
        weight: WeightOrDefault,
        #[command(flatten)]
        how: How,
    },
}

/// A state, or back to the file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StateOrDefault(Option<BackendState>);

/// A weight, or back to the file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WeightOrDefault(Option<u16>);

/// Reads a weight.
fn weight(text: &str) -> Result<WeightOrDefault, String> {
    if text == DEFAULT {
        return Ok(WeightOrDefault(None));
    }
    match text.parse() {
        Ok(weight) if weight <= MAX_WEIGHT => Ok(WeightOrDefault(Some(weight))),
        _ => Err(format!("allowed: 0 to {MAX_WEIGHT}, {DEFAULT}")),
    }
}

impl BackendVerb {
    fn command(self, (cluster, backend): (String, String), socket: PathBuf) -> Command {
        match self {
            Self::State {
                state: StateOrDefault(state),
                how,
            } => {
                let change = Change::SetBackendState {
                    cluster,
                    backend,
                    state,
                };
                how.command(socket, change)
            }
            Self::Weight {
                weight: WeightOrDefault(weight),
                how,
            } => {
                let change = Change::SetBackendWeight {
                    cluster,
                    backend,
                    weight,
                };
                how.command(socket, change)
            }
        }
    }
}

impl SetVerb {
    /// What it asks of the controller behind `socket`.
    pub(super) fn command(self, socket: PathBuf) -> Command {
        match self {
            Self::Backend { backend, what } => what.command(backend, socket),
            // There is one thing to set so far, and clap lets nothing else in.
            Self::Cluster {
                cluster,
                what: _,
                state,
                how,
            } => how.command(socket, Change::SetCluster { cluster, state }),
        }
    }
}

impl ValueEnum for StateOrDefault {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self(Some(BackendState::Ready)),
            Self(Some(BackendState::Drain)),
            Self(Some(BackendState::Maint)),
            Self(None),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self.0 {
            Some(state) => PossibleValue::new(state.name()).help(state.meaning()),
            None => PossibleValue::new(DEFAULT).help("as the file says"),
        })
    }
}

impl ValueEnum for ClusterState {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.meaning()))
    }
}

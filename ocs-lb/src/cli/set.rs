//! `ocs-lb set`: what can be set, and to what.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Subcommand, ValueEnum};

use super::{Command, How};
use crate::admin::Change;
use crate::model::ClusterState;

#[derive(Debug, Subcommand)]
pub(super) enum SetVerb {
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

impl SetVerb {
    /// What it asks of the controller behind `socket`.
    pub(super) fn command(self, socket: PathBuf) -> Command {
        match self {
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

impl ValueEnum for ClusterState {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.meaning()))
    }
}

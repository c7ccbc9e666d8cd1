//! Whom a cluster's clients may meet: decided by the model, written by the owner.

use ocs_lb_common::abi::Cluster;

use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use super::apply;
use super::owner::{Health, Owner};
use super::read;
use crate::model::standing::Standing;
use crate::model::{ClusterState, policy};
use crate::snapshot::SaidView;

impl Owner {
    /// Tells the datapath whom a cluster's clients may meet now; which
    /// backends are ready.
    pub(super) fn write_policy(&mut self, id: usize) -> anyhow::Result<Vec<bool>> {
        let standings = self.standings(id);
        let policy = self.policy(id, &standings, read::uptime());
        apply::set_cluster(&mut self.running.loaded.maps, id as u16, &policy)?;
        Ok(policy::ready(&self.model.clusters[id], &standings))
    }

    /// The policy of a cluster, by backend slot.
    pub(super) fn policy(&self, id: usize, standings: &[Standing], now: Duration) -> Cluster {
        let host = policy::Host::of(&self.model, id, self.unknown, self.states[id], now);
        policy::cluster(&self.model.clusters[id], standings, host)
    }

    /// Puts a cluster in a state; what the datapath refuses leaves it as it was.
    pub(super) fn set_cluster(
        &mut self,
        id: usize,
        state: ClusterState,
        by: String,
    ) -> anyhow::Result<()> {
        let before = std::mem::replace(&mut self.states[id], state);
        let written = self.write_policy(id).and_then(|_| self.write_identities());
        if let Err(error) = written {
            self.states[id] = before;
            // Where that is refused too, the next look at the host writes it.
            if self.write_policy(id).is_err() {
                self.following.waits = Some(format!("{error:#}"));
            }
            return Err(error);
        }
        let cluster = &self.model.clusters[id].name;
        tracing::info!(cluster, %before, %state, "cluster set");
        let now = SystemTime::now();
        tokio::task::block_in_place(|| self.words.say(cluster, state, by, now)).with_context(|| {
            format!("cluster {cluster} is set to {state}, but not over the next boot")
        })
    }

    /// Who said that a cluster is in this state.
    pub(super) fn said(&self, cluster: &str, state: ClusterState) -> Option<SaidView> {
        let word = self.words.of(cluster).filter(|word| word.state == state)?;
        Some(SaidView {
            by: word.by.clone(),
            at: word.at.clone(),
        })
    }

    /// What is known of a cluster's backends.
    pub(super) fn standings(&self, id: usize) -> Vec<Standing> {
        self.health[id].iter().map(Health::standing).collect()
    }
}

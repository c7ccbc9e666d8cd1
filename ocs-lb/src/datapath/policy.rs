//! Whom a cluster's clients may meet: decided by the model, written by the owner.

use ocs_lb_common::abi::Cluster;

use super::apply;
use super::owner::Owner;
use crate::model::{ClusterState, policy};

impl Owner {
    /// Tells the datapath whom a cluster's clients may meet now; which
    /// backends are ready.
    pub(super) fn write_policy(&mut self, id: usize) -> anyhow::Result<Vec<bool>> {
        let healthy = self.healthy(id);
        let policy = self.policy(id, &healthy);
        apply::set_cluster(&mut self.running.loaded.maps, id as u16, &policy)?;
        Ok(policy::ready(&self.model.clusters[id], &healthy))
    }

    /// The policy of a cluster with this health, by backend slot.
    pub(super) fn policy(&self, id: usize, healthy: &[bool]) -> Cluster {
        let host = policy::Host::of(&self.model, id, self.unknown, self.states[id]);
        policy::cluster(&self.model.clusters[id], healthy, host)
    }

    /// Puts a cluster in a state; what the datapath refuses leaves it as it was.
    pub(super) fn set_cluster(&mut self, id: usize, state: ClusterState) -> anyhow::Result<()> {
        let before = std::mem::replace(&mut self.states[id], state);
        if let Err(error) = self.write_policy(id) {
            self.states[id] = before;
            return Err(error);
        }
        self.write_identities()?;
        let cluster = &self.model.clusters[id].name;
        tracing::info!(cluster, %before, %state, "cluster set");
        Ok(())
    }

    pub(super) fn healthy(&self, id: usize) -> Vec<bool> {
        self.health[id]
            .iter()
            .map(|health| health.healthy)
            .collect()
    }
}

//! Whether new clients are served: one answer for `status`, `/readyz` and
//! keepalived.

use serde::{Deserialize, Serialize};

use crate::model::ClusterState;
use crate::snapshot::{ClusterView, Snapshot};

/// What serves, and what does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether new clients of every cluster below are served.
    pub ready: bool,
    /// What is wrong with the datapath as a whole, for people; nothing is
    /// served while there is something.
    pub problems: Vec<String>,
    /// Clusters of the configuration.
    pub clusters: Vec<ClusterReadiness>,
}

/// Whether new clients of one cluster are served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReadiness {
    /// Name.
    pub name: String,
    /// Whether a backend takes new clients.
    pub ready: bool,
    /// The operator's word.
    pub state: ClusterState,
    /// Backends that take new clients.
    pub ready_backends: usize,
    /// Backends of the configuration.
    pub backends: usize,
    /// Why no backend does, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// There is no cluster of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no cluster {0}")]
pub struct NoCluster(pub String);

impl Readiness {
    /// By one look. The datapath must be attached to all that it should be, and
    /// every cluster must have a backend that takes new clients: none has one in
    /// `drain` and `maint`, which so move the clients to another host.
    pub fn of(snapshot: &Snapshot) -> Self {
        let clusters = snapshot.clusters.iter().filter(|cluster| !cluster.removed);
        let mut readiness = Self {
            ready: false,
            problems: datapath(snapshot),
            clusters: clusters.map(ClusterReadiness::of).collect(),
        };
        readiness.sum_up();
        readiness
    }

    /// Only what concerns one cluster.
    ///
    /// # Errors
    /// [`NoCluster`].
    pub fn only(mut self, cluster: &str) -> Result<Self, NoCluster> {
        self.clusters.retain(|one| one.name == cluster);
        if self.clusters.is_empty() {
            return Err(NoCluster(cluster.to_owned()));
        }
        self.sum_up();
        Ok(self)
    }

    fn sum_up(&mut self) {
        self.ready = self.problems.is_empty() && self.clusters.iter().all(|one| one.ready);
    }

    /// Everything that keeps it from being ready, a line each.
    pub fn reasons(&self) -> Vec<String> {
        let clusters = self.clusters.iter().filter_map(|cluster| {
            let reason = cluster.reason.as_ref()?;
            Some(format!("cluster {}: {reason}", cluster.name))
        });
        self.problems.iter().cloned().chain(clusters).collect()
    }
}

/// What is wrong with the datapath.
fn datapath(snapshot: &Snapshot) -> Vec<String> {
    let mut problems = Vec::new();
    if snapshot.interfaces.is_empty() {
        problems.push("the datapath is attached to no interface".to_owned());
    }
    for name in &snapshot.lost {
        problems.push(format!("interface {name}: its program is gone"));
    }
    problems
}

impl ClusterReadiness {
    fn of(cluster: &ClusterView) -> Self {
        let backends = || cluster.backends.iter().filter(|one| one.state != "removed");
        let ready_backends = backends().filter(|backend| backend.ready).count();
        let reason = match (ready_backends, cluster.state) {
            (1.., _) => None,
            (0, ClusterState::Ready | ClusterState::Pass) => Some("no ready backend".to_owned()),
            (0, state) => Some(format!("set to {state}: {}", state.meaning())),
        };
        Self {
            name: cluster.name.clone(),
            ready: reason.is_none(),
            state: cluster.state,
            ready_backends,
            backends: backends().count(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{BackendView, InterfaceView};

    fn cluster(name: &str, state: ClusterState, ready: &[bool]) -> ClusterView {
        let backend = |ready: &bool| BackendView {
            ready: *ready,
            ..BackendView::default()
        };
        ClusterView {
            name: name.into(),
            state,
            backends: ready.iter().map(backend).collect(),
            ..ClusterView::default()
        }
    }

    fn look(clusters: Vec<ClusterView>) -> Readiness {
        Readiness::of(&Snapshot {
            interfaces: vec![InterfaceView::default()],
            clusters,
            ..Snapshot::default()
        })
    }

    #[test]
    fn every_cluster_needs_a_backend() {
        use ClusterState::{Drain, Maint, Pass, Ready};

        let one = |state, ready: &[bool]| look(vec![cluster("ocs", state, ready)]).ready;
        assert!(one(Ready, &[false, true]));
        assert!(!one(Ready, &[false, false]));
        assert!(one(Pass, &[true]), "the host's stack serves");
        // Their backends take nobody new.
        assert!(!one(Drain, &[false]) && !one(Maint, &[false]));

        let both = vec![
            cluster("a", Ready, &[true]),
            cluster("b", Maint, &[false, false]),
        ];
        let both = look(both);
        assert!(!both.ready);
        assert_eq!(
            both.reasons(),
            ["cluster b: set to maint: new connections are refused"]
        );
        assert!(both.clone().only("a").unwrap().ready);
        assert!(!both.clone().only("b").unwrap().ready);
        assert_eq!(both.only("c").unwrap_err(), NoCluster("c".into()));
    }

    #[test]
    fn what_is_removed_does_not_count() {
        let mut gone = cluster("gone", ClusterState::Ready, &[false]);
        gone.removed = true;
        let mut stays = cluster("stays", ClusterState::Ready, &[true, false]);
        stays.backends[1].state = "removed".into();
        let both = look(vec![gone, stays]);
        assert!(both.ready);
        assert_eq!(both.clusters.len(), 1);
        assert_eq!(both.clusters[0].backends, 1);
    }

    #[test]
    fn the_datapath_must_be_attached_to_all() {
        let mut snapshot = Snapshot {
            clusters: vec![cluster("ocs", ClusterState::Ready, &[true])],
            ..Snapshot::default()
        };
        let reasons = |snapshot: &Snapshot| Readiness::of(snapshot).reasons();
        assert_eq!(
            reasons(&snapshot),
            ["the datapath is attached to no interface"]
        );
        snapshot.interfaces = vec![InterfaceView::default()];
        assert!(Readiness::of(&snapshot).ready);
        snapshot.lost = vec!["eth1".into()];
        assert_eq!(reasons(&snapshot), ["interface eth1: its program is gone"]);
        // One cluster's readiness does not outshine it.
        assert!(!Readiness::of(&snapshot).only("ocs").unwrap().ready);
    }
}

//! Names to ids and back.

use super::{Cluster, Model};

impl Model {
    /// The id of a cluster.
    ///
    /// # Errors
    /// For people: which clusters there are.
    pub fn cluster_id(&self, name: &str) -> Result<u16, String> {
        let at = self.clusters.iter().position(|c| c.name == name);
        at.map(|id| id as u16).ok_or_else(|| {
            let names: Vec<_> = self.clusters.iter().map(|c| c.name.as_str()).collect();
            format!("there is no cluster {name}; there is: {}", names.join(", "))
        })
    }
}

impl Cluster {
    /// The slot of a backend.
    ///
    /// # Errors
    /// For people: which backends it has.
    pub fn slot(&self, name: &str) -> Result<u16, String> {
        let at = self.backends.iter().position(|b| b.name == name);
        at.map(|slot| slot as u16).ok_or_else(|| {
            let names: Vec<_> = self.backends.iter().map(|b| b.name.as_str()).collect();
            let (own, names) = (&self.name, names.join(", "));
            format!("cluster {own} has no backend {name}; it has: {names}")
        })
    }

    /// `cluster/backend`, for the log.
    pub fn backend_name(&self, slot: u16) -> String {
        let backend = self.backends.get(usize::from(slot));
        let name = backend.map_or("?", |backend| backend.name.as_str());
        format!("{}/{name}", self.name)
    }
}

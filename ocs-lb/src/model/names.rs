//! Names to ids and back.

use super::{Backend, Cluster, Model};

impl Model {
    /// The id of a cluster of the file.
    ///
    /// # Errors
    /// For people: which clusters there are.
    pub fn cluster_id(&self, name: &str) -> Result<u16, String> {
        self.find(name, |cluster| !cluster.retired)
    }

    /// As [`Model::cluster_id`], of retired clusters too.
    ///
    /// # Errors
    /// As [`Model::cluster_id`].
    pub fn cluster_with_flows(&self, name: &str) -> Result<u16, String> {
        let living = self.cluster_id(name);
        living.or_else(|_| self.find(name, |_| true))
    }

    fn find(&self, name: &str, counts: impl Fn(&Cluster) -> bool) -> Result<u16, String> {
        let mut clusters = self.clusters.iter();
        let at = clusters.position(|c| c.name == name && counts(c));
        at.map(|id| id as u16).ok_or_else(|| {
            let there = self.clusters.iter().filter(|c| counts(c));
            let names: Vec<_> = there.map(|c| c.name.as_str()).collect();
            format!("there is no cluster {name}; there is: {}", names.join(", "))
        })
    }
}

impl Cluster {
    /// The slot of a backend of the file.
    ///
    /// # Errors
    /// For people: which backends it has.
    pub fn slot(&self, name: &str) -> Result<u16, String> {
        self.find(name, |backend| !backend.retired)
    }

    /// As [`Cluster::slot`], of retired backends too where the file has none of
    /// that name.
    ///
    /// # Errors
    /// As [`Cluster::slot`].
    pub fn slot_with_flows(&self, name: &str) -> Result<u16, String> {
        self.slot(name).or_else(|_| self.find(name, |_| true))
    }

    fn find(&self, name: &str, counts: impl Fn(&Backend) -> bool) -> Result<u16, String> {
        let mut backends = self.backends.iter();
        let at = backends.position(|b| b.name == name && counts(b));
        at.map(|slot| slot as u16).ok_or_else(|| {
            let there = self.backends.iter().filter(|b| counts(b));
            let names: Vec<_> = there.map(|b| b.name.as_str()).collect();
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

#[cfg(test)]
mod tests {
    use crate::model::test_cluster;

    #[test]
    fn the_file_first_and_what_is_retired_for_who_wants_it() {
        let mut pool = test_cluster(&[(1, false), (1, false), (1, false)]);
        pool.backends[2].name = "b0".into();
        pool.backends[0].retired = true;
        assert_eq!(pool.slot("b0"), Ok(2));
        assert_eq!(pool.slot_with_flows("b0"), Ok(2));
        pool.backends[1].retired = true;
        let missing = "cluster test has no backend b1; it has: b0";
        assert_eq!(pool.slot("b1"), Err(missing.to_owned()));
        assert_eq!(pool.slot_with_flows("b1"), Ok(1));
        let error = pool.slot_with_flows("b9").expect_err("not known");
        assert!(error.ends_with("it has: b0, b1, b0"), "{error}");

        let text = crate::config::DEFAULT;
        let loaded = crate::config::parse(text, "default.yaml").expect("valid");
        let mut model = loaded.model;
        pool.retired = true;
        model.clusters.insert(0, pool);
        assert_eq!(model.cluster_id("ocs"), Ok(1));
        assert_eq!(model.cluster_with_flows("ocs"), Ok(1));
        let missing = "there is no cluster test; there is: ocs";
        assert_eq!(model.cluster_id("test"), Err(missing.to_owned()));
        assert_eq!(model.cluster_with_flows("test"), Ok(0));
    }
}

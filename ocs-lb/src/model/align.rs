//! A new model on the ids of the running one: pure.
//!
//! Flows carry the ids of their cluster and backend, so a reload keeps them,
//! whatever was moved, added or removed in the file.

use std::net::IpAddr;
use std::time::Duration;

use ocs_lb_common::abi::MAX_BACKENDS;

use super::{
    Access, Backend, Balance, Cluster, DownAction, Fragments, MAX_CLUSTERS, Model, NewConnections,
    OnBackendDown, Persist, Refuse, RefuseAction, RemovedAction, Snat, Timeouts, Unknown, Unserved,
};

/// What names the ids of clusters and backends had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// By id.
    pub clusters: Vec<KnownCluster>,
}

/// A cluster that had an id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownCluster {
    /// Its name.
    pub name: String,
    /// By slot.
    pub backends: Vec<KnownBackend>,
}

/// A backend that had a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBackend {
    /// Its name.
    pub name: String,
    /// Its address: with another one it is another backend.
    pub address: IpAddr,
}

impl Ids {
    /// Those of a model, retired ones included.
    pub fn of(model: &Model) -> Self {
        let backend = |backend: &Backend| KnownBackend {
            name: backend.name.clone(),
            address: backend.address,
        };
        let cluster = |cluster: &Cluster| KnownCluster {
            name: cluster.name.clone(),
            backends: cluster.backends.iter().map(backend).collect(),
        };
        Self {
            clusters: model.clusters.iter().map(cluster).collect(),
        }
    }
}

/// Why a new model finds no ids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlignError {
    /// No id is left for a cluster.
    #[error(
        "cluster {cluster}: {count} clusters with removed ones that have flows; \
         allowed: at most {MAX_CLUSTERS}"
    )]
    Clusters {
        /// The first that finds none.
        cluster: String,
        /// Ids that would be needed.
        count: usize,
    },
    /// No slot is left in a cluster.
    #[error(
        "cluster {cluster}: {count} backends with removed ones that have flows; \
         allowed: at most {MAX_BACKENDS}"
    )]
    Backends {
        /// The cluster.
        cluster: String,
        /// Slots that would be needed.
        count: usize,
    },
}

/// The new model with every cluster at the id that its name had, and every
/// backend at the slot that its name and address had in it. Whoever is new
/// takes the lowest free place, else the next.
///
/// `busy` says whether flows still carry a cluster's id, or a slot in it: what
/// is no longer in the file then stays in place as retired. It also stays, busy
/// or not, where a later one would lose its place without it. What it was comes
/// from the `running` model where that is given.
///
/// # Errors
/// [`AlignError`]: with those that stay there are too many.
pub fn align(
    known: &Ids,
    running: Option<&Model>,
    new: Model,
    busy: impl Fn(u16, Option<u16>) -> bool,
) -> Result<Model, AlignError> {
    let was: Vec<&str> = known.clusters.iter().map(|c| c.name.as_str()).collect();
    let is: Vec<&str> = new.clusters.iter().map(|c| c.name.as_str()).collect();
    let is_busy = |id: usize| {
        let slots = 0..known.clusters[id].backends.len();
        busy(id as u16, None)
            || slots
                .into_iter()
                .any(|slot| busy(id as u16, Some(slot as u16)))
    };
    let mut clusters = Vec::new();
    for (id, at) in places(&was, &is, is_busy).into_iter().enumerate() {
        let name = at.map_or_else(|| was[id], |at| is[at]);
        let running = running.and_then(|model| model.clusters.get(id));
        let running = running.filter(|cluster| cluster.name == name);
        let mut cluster = match at {
            Some(at) => new.clusters[at].clone(),
            None => retired_cluster(name, running),
        };
        // A place may go from one name to another, which knows no slots.
        let before = known.clusters.get(id).filter(|known| known.name == name);
        let before = before.map_or(&[][..], |known| known.backends.as_slice());
        let is_busy = |slot: usize| busy(id as u16, Some(slot as u16));
        cluster.backends = backends(before, running, cluster.backends, is_busy);
        clusters.push(cluster);
    }
    check(&clusters)?;
    Ok(Model { clusters, ..new })
}

fn check(clusters: &[Cluster]) -> Result<(), AlignError> {
    if let Some(first) = clusters.get(MAX_CLUSTERS) {
        return Err(AlignError::Clusters {
            cluster: first.name.clone(),
            count: clusters.len(),
        });
    }
    match clusters.iter().find(|c| c.backends.len() > MAX_BACKENDS) {
        Some(cluster) => Err(AlignError::Backends {
            cluster: cluster.name.clone(),
            count: cluster.backends.len(),
        }),
        None => Ok(()),
    }
}

/// Who stands at each place: an index into `is`, or nobody of it. A known one
/// stands where it stood, another at the lowest place that is free and not
/// busy, else behind all. No place behind the last that is needed.
fn places<K: PartialEq>(was: &[K], is: &[K], busy: impl Fn(usize) -> bool) -> Vec<Option<usize>> {
    let mut places = vec![None; was.len()];
    let mut added = Vec::new();
    for (at, key) in is.iter().enumerate() {
        match (0..was.len()).find(|place| was[*place] == *key && places[*place].is_none()) {
            Some(place) => places[place] = Some(at),
            None => added.push(at),
        }
    }
    let mut lowest = 0;
    for at in added {
        while lowest < was.len() && (places[lowest].is_some() || busy(lowest)) {
            lowest += 1;
        }
        if lowest < was.len() {
            places[lowest] = Some(at);
        } else {
            places.push(Some(at));
        }
    }
    while places.last() == Some(&None) && !busy(places.len() - 1) {
        places.pop();
    }
    places
}

/// The backends of one cluster by slot.
fn backends(
    known: &[KnownBackend],
    running: Option<&Cluster>,
    new: Vec<Backend>,
    busy: impl Fn(usize) -> bool,
) -> Vec<Backend> {
    let was: Vec<_> = known.iter().map(|b| (b.name.as_str(), b.address)).collect();
    let is: Vec<_> = new.iter().map(|b| (b.name.as_str(), b.address)).collect();
    let retired = |slot: usize| {
        let running = running.and_then(|cluster| cluster.backends.get(slot));
        let running = running.filter(|b| (b.name.as_str(), b.address) == was[slot]);
        retired_backend(&known[slot], running)
    };
    places(&was, &is, busy)
        .into_iter()
        .enumerate()
        .map(|(slot, at)| at.map_or_else(|| retired(slot), |at| new[at].clone()))
        .collect()
}

/// A cluster that is no longer in the file, as yet without backends.
fn retired_cluster(name: &str, running: Option<&Cluster>) -> Cluster {
    let was = running.cloned().unwrap_or_else(|| stub(name));
    Cluster {
        vips: Vec::new(),
        ports: Vec::new(),
        access: Access::default(),
        backends: Vec::new(),
        retired: true,
        ..was
    }
}

fn retired_backend(known: &KnownBackend, running: Option<&Backend>) -> Backend {
    let was = running.cloned().unwrap_or_else(|| Backend {
        name: known.name.clone(),
        address: known.address,
        port: None,
        weight: 1,
        backup: false,
        slow_start: Duration::ZERO,
        check: None,
        retired: true,
    });
    Backend {
        check: None,
        retired: true,
        ..was
    }
}

/// A cluster of which only the name is known: the documented defaults.
fn stub(name: &str) -> Cluster {
    let half_hour = Duration::from_secs(30 * 60);
    Cluster {
        name: name.to_owned(),
        vips: Vec::new(),
        ports: Vec::new(),
        access: Access::default(),
        new_connections: NewConnections::default(),
        balance: Balance::LeastConn,
        sticky: None,
        snat: Snat::Auto,
        max_connections: 40_000,
        refuse: Refuse {
            limit: RefuseAction::Drop,
            snat: RefuseAction::Reset,
            deny: RefuseAction::Drop,
            no_backend: RefuseAction::Reset,
        },
        unserved: Unserved::Auto,
        unknown: Unknown::Reset,
        fragments: Fragments::Drop,
        timeouts: Timeouts {
            connect: Duration::from_secs(4),
            client: half_hour,
            server: half_hour,
            half_closed: half_hour,
        },
        redispatch_after: Duration::from_millis(800),
        persist: Persist::Redispatch,
        on_backend_down: OnBackendDown {
            action: DownAction::Reset,
            rate: 5000,
            guard: true,
        },
        on_backend_removed: RemovedAction::Drain,
        backends: Vec::new(),
        retired: true,
    }
}

#[cfg(test)]
mod tests;

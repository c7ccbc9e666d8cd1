//! The task that owns the maps. Everyone else sends it messages.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::{apply, read, sweep};
use crate::health::{CheckResult, Fact};
use crate::model::{Model, Unknown, policy};
use crate::neighbor::{Neighbor, Netlink};
use crate::setup::Running;
use crate::snapshot::{
    BackendView, ClusterView, DurationsView, FlowView, MapView, Snapshot, StickyView, SweepView,
    Unavailable,
};

/// What others tell or ask the owner.
pub enum Message {
    /// A health check ended.
    Health(Fact),
    /// A neighbour's MAC is known.
    Neighbor(Neighbor),
    /// Connections from before the first attach are gone: the clusters' own
    /// `unknown` holds.
    TakenOver,
    /// Someone wants to see everything.
    Snapshot(oneshot::Sender<Snapshot>),
}

/// The way to the owner, for everyone else.
#[derive(Clone)]
pub struct Handle {
    messages: mpsc::Sender<Message>,
    model: Arc<Model>,
    flows: u32,
    sticky: u32,
}

impl Handle {
    /// Tells the owner something.
    ///
    /// # Errors
    /// Where it has stopped: the process is shutting down.
    pub async fn tell(&self, message: Message) -> Result<(), Unavailable> {
        let stopped = |_| Unavailable("the datapath's owner has stopped".to_owned());
        self.messages.send(message).await.map_err(stopped)
    }

    /// One look at everything.
    ///
    /// # Errors
    /// As [`Handle::tell`].
    pub async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Snapshot(reply)).await?;
        let stopped = |_| Unavailable("the datapath's owner has stopped".to_owned());
        answer.await.map_err(stopped)
    }

    /// Every flow that `wanted` accepts, as a stream. The walk runs beside the
    /// owner and stops with the receiver.
    pub fn flows(
        &self,
        wanted: impl Fn(&FlowView) -> bool + Send + 'static,
    ) -> mpsc::Receiver<FlowView> {
        let (sender, receiver) = mpsc::channel(256);
        let (id, model) = (self.flows, Arc::clone(&self.model));
        tokio::task::spawn_blocking(move || {
            let walk = read::flows(id, &model, |view| {
                !wanted(&view) || sender.blocking_send(view).is_ok()
            });
            if let Err(error) = walk {
                tracing::warn!(%error, "flows not listed");
            }
        });
        receiver
    }

    /// Every sticky entry that `wanted` accepts, as a stream.
    pub fn sticky(
        &self,
        wanted: impl Fn(&StickyView) -> bool + Send + 'static,
    ) -> mpsc::Receiver<StickyView> {
        let (sender, receiver) = mpsc::channel(256);
        let (id, model) = (self.sticky, Arc::clone(&self.model));
        tokio::task::spawn_blocking(move || {
            let walk = read::sticky(id, &model, |view| {
                !wanted(&view) || sender.blocking_send(view).is_ok()
            });
            if let Err(error) = walk {
                tracing::warn!(%error, "sticky entries not listed");
            }
        });
        receiver
    }
}

/// Time between two looks at all neighbours.
const NEIGHBORS: Duration = Duration::from_secs(5);

/// Says that a part of the owner's work failed; the datapath forwards on.
fn report(what: &str, result: anyhow::Result<()>) {
    if let Err(error) = result {
        tracing::error!(what, error = format!("{error:#}"), "not done");
    }
}

/// What is known of one backend's health.
#[derive(Debug, Clone)]
struct Health {
    healthy: bool,
    status: String,
    last: String,
    results: BTreeMap<String, u64>,
    durations: DurationsView,
}

/// The owner's state.
struct Owner {
    running: Running,
    model: Arc<Model>,
    netlink: Netlink,
    health: Vec<Vec<Health>>,
    sweep: SweepView,
    unknown: Option<Unknown>,
}

/// Starts the owner. It runs until the token is cancelled and then drops the
/// datapath, which detaches it.
///
/// # Errors
/// Where the runtime cannot poll the events.
pub fn spawn(
    mut running: Running,
    model: Arc<Model>,
    netlink: Netlink,
    unknown: Option<Unknown>,
    cancel: CancellationToken,
) -> anyhow::Result<(Handle, tokio::task::JoinHandle<anyhow::Result<()>>)> {
    let (sender, receiver) = mpsc::channel(1024);
    let handle = Handle {
        messages: sender,
        model: Arc::clone(&model),
        flows: running.loaded.ids.flows,
        sticky: running.loaded.ids.sticky,
    };
    let events = Events::new(running.loaded.take_events()?)?;
    let health = model
        .clusters
        .iter()
        .map(|cluster| {
            let first = |backend: &crate::model::Backend| Health {
                healthy: true,
                status: if backend.check.is_some() {
                    "UP"
                } else {
                    "no check"
                }
                .to_owned(),
                last: String::new(),
                results: BTreeMap::new(),
                durations: DurationsView::default(),
            };
            cluster.backends.iter().map(first).collect()
        })
        .collect();
    let owner = Owner {
        running,
        model,
        netlink,
        health,
        sweep: SweepView::default(),
        unknown,
    };
    let task = tokio::spawn(owner.run(receiver, events, cancel));
    Ok((handle, task))
}

impl Owner {
    async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut events: Events,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut sweeps = tokio::time::interval(self.model.sweep_interval);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut neighbors = tokio::time::interval(NEIGHBORS);
        neighbors.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                Some(message) = messages.recv() => report("message", self.handle(message)),
                needed = events.next() => for neighbor in needed? {
                    self.resolve(neighbor.ifindex, neighbor.address).await;
                },
                _ = sweeps.tick() => report("sweep", self.sweep()),
                _ = neighbors.tick() => report("neighbours", self.refresh().await),
            }
        }
    }

    fn handle(&mut self, message: Message) -> anyhow::Result<()> {
        match message {
            Message::Health(fact) => self.health(&fact)?,
            Message::Neighbor(neighbor) => self.neighbor(&neighbor)?,
            Message::TakenOver => {
                self.unknown = None;
                for id in 0..self.model.clusters.len() {
                    self.write_policy(id)?;
                }
            }
            Message::Snapshot(reply) => {
                // Who asked may be gone; that is no one's loss.
                let _ = reply.send(self.snapshot()?);
            }
        }
        Ok(())
    }

    /// Tells the datapath every neighbour there is: what the kernel's messages
    /// did not say, because nobody listened yet or the socket overran.
    async fn refresh(&mut self) -> anyhow::Result<()> {
        for neighbor in self.netlink.neighbors().await? {
            self.neighbor(&neighbor)?;
        }
        Ok(())
    }

    fn health(&mut self, fact: &Fact) -> anyhow::Result<()> {
        let id = usize::from(fact.cluster);
        let Some(health) = self
            .health
            .get_mut(id)
            .and_then(|row| row.get_mut(usize::from(fact.backend)))
        else {
            return Ok(());
        };
        *health
            .results
            .entry(fact.result.label().to_owned())
            .or_default() += 1;
        health.durations.observe(fact.duration);
        health.status.clone_from(&fact.status);
        health.last = match &fact.result {
            CheckResult::Ok => format!("ok in {:.1} ms", fact.duration.as_secs_f64() * 1e3),
            other => other.to_string(),
        };
        if health.healthy == fact.healthy {
            return Ok(());
        }
        health.healthy = fact.healthy;
        let ready = self.write_policy(id)?;
        let cluster = &self.model.clusters[id];
        if !ready.contains(&true) {
            tracing::error!(cluster = cluster.name, "no backend is ready");
        }
        Ok(())
    }

    /// Tells the datapath whom a cluster's clients may meet now; which
    /// backends are ready.
    fn write_policy(&mut self, id: usize) -> anyhow::Result<Vec<bool>> {
        let healthy = self.healthy(id);
        let cluster = &self.model.clusters[id];
        let policy = policy::cluster(cluster, &healthy, self.unknown);
        apply::set_cluster(&mut self.running.loaded.maps, id as u16, &policy)?;
        Ok(policy::ready(cluster, &healthy))
    }

    fn healthy(&self, id: usize) -> Vec<bool> {
        self.health[id]
            .iter()
            .map(|health| health.healthy)
            .collect()
    }

    fn neighbor(&mut self, neighbor: &Neighbor) -> anyhow::Result<()> {
        let source = self
            .running
            .macs
            .get(&neighbor.ifindex)
            .copied()
            .unwrap_or_default();
        let changed = apply::set_neighbor(
            &mut self.running.loaded.maps,
            neighbor.ifindex,
            neighbor.address,
            neighbor.mac,
            source,
        )?;
        if changed {
            tracing::debug!(address = %neighbor.address, "next hop updated");
        }
        Ok(())
    }

    async fn resolve(&self, ifindex: u32, address: Ipv4Addr) {
        if let Err(error) = self.netlink.probe(ifindex, address).await {
            tracing::warn!(%address, ifindex, %error, "neighbour not resolved");
        }
    }

    fn sweep(&mut self) -> anyhow::Result<()> {
        let (report, duration) =
            tokio::task::block_in_place(|| sweep::run(&mut self.running.loaded))?;
        if report.orphans + report.errors > 0 {
            tracing::warn!(
                orphans = report.orphans,
                errors = report.errors,
                "the sweep found half-written flows"
            );
        }
        self.sweep = SweepView {
            timestamp: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64()),
            duration: duration.as_secs_f64(),
            entries: report.entries,
            half_open: report.half_open,
            established: report.established,
            resting: report.resting,
        };
        Ok(())
    }

    fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let maps = &self.running.loaded.maps;
        let interfaces = self
            .running
            .attached
            .iter()
            .map(|attached| read::interface(maps, attached))
            .collect::<Result<_, _>>()?;
        let clusters = (0..self.model.clusters.len())
            .map(|id| self.cluster(id))
            .collect::<anyhow::Result<_>>()?;
        let rows = self.running.loaded.bill.iter();
        Ok(Snapshot {
            interfaces,
            clusters,
            snat: read::snat(maps, &self.model, &self.running.reach)?,
            maps: rows
                .map(|row| MapView {
                    name: row.name.clone(),
                    entries: (row.name == "FLOWS4").then_some(self.sweep.entries),
                    capacity: row.capacity,
                    bytes: row.bytes,
                })
                .collect(),
            sweep: self.sweep.clone(),
            events_lost: read::events_lost(maps)?,
        })
    }

    fn cluster(&self, id: usize) -> anyhow::Result<ClusterView> {
        let cluster = &self.model.clusters[id];
        let load = read::load(&self.running.loaded.maps, id as u16)?;
        let healthy = self.healthy(id);
        let policy = policy::cluster(cluster, &healthy, self.unknown);
        let ready = policy::ready(cluster, &healthy);
        let backends = cluster
            .backends
            .iter()
            .enumerate()
            .map(|(slot, backend)| {
                let health = &self.health[id][slot];
                BackendView {
                    name: backend.name.clone(),
                    address: match backend.port {
                        Some(port) => format!("{}:{port}", backend.address),
                        None => backend.address.to_string(),
                    },
                    backup: backend.backup,
                    state: policy::state(backend, health.healthy).to_owned(),
                    status: health.status.clone(),
                    ready: ready[slot],
                    weight: backend.weight,
                    effective_weight: policy.slots[slot].weight,
                    live: load.slots[slot].live,
                    pending: load.slots[slot].pending,
                    connections: load.connections[slot],
                    bytes_in: load.bytes_in[slot],
                    bytes_out: load.bytes_out[slot],
                    checks: health.results.clone(),
                    check_durations: health.durations.clone(),
                    last_check: health.last.clone(),
                }
            })
            .collect();
        Ok(ClusterView {
            name: cluster.name.clone(),
            max_connections: cluster.max_connections,
            live: load.live,
            pending: load.pending,
            sticky_hits: load.sticky_hits,
            sticky_misses: load.sticky_misses,
            refused: BTreeMap::from([
                ("limit".to_owned(), load.refused_limit),
                ("snat".to_owned(), load.refused_snat),
                ("no_backend".to_owned(), load.refused_no_backend),
            ]),
            backends,
        })
    }
}

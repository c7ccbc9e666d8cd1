//! The task that owns the maps. Everyone else sends it messages.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::adopt::Found;
use super::down::Down;
use super::events::{Batch, Events};
use super::follow::Following;
use super::handle::{Handle, Known};
use super::history::History;
use super::kills::Kills;
use super::watch::SnatName;
use super::write::told;
use super::{read, sweep};
use crate::admin::Reset;
use crate::health::observe::Traffic;
use crate::health::{CheckResult, Checks, Fact};
use crate::model::drift::{Drift, Pass};
use crate::model::kills::WALKS_PER_SECOND;
use crate::model::pressure::Pressure;
use crate::model::ramp::{self, Ramp};
use crate::model::standing::Standing;
use crate::model::{Backend, BackendSetting, BackendWord, ClusterState, Model, Unknown};
use crate::neighbor::{Change, Netlink};
use crate::setup::{Running, identities, per_backend, standings, states};
use crate::snapshot::{DurationsView, EventView, KilledView, ReloadView, Snapshot, SweepView};
use crate::targets::targets;
use crate::words::Words;

/// What others tell or ask the owner.
pub enum Message {
    /// A health check ended.
    Health(Fact),
    /// What the kernel told of the network.
    Network(Change),
    /// Connections from before the first attach are gone: the clusters' own
    /// `unknown` holds.
    TakenOver,
    /// The configuration is to be read again; what changed, or why nothing did.
    Reload(oneshot::Sender<Result<Vec<String>, String>>),
    /// Someone wants to see everything.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Someone wants to see the last events.
    Events(oneshot::Sender<Vec<EventView>>),
    /// An operator wants flows reset; what keeps it from that is told at once,
    /// the sum when it is done.
    Reset {
        /// Whose.
        wanted: Reset,
        /// Whether there is such a thing.
        accepted: oneshot::Sender<Result<(), String>>,
        /// What came of it.
        done: oneshot::Sender<KilledView>,
    },
    /// An operator's word on a backend.
    SetBackend {
        /// Its cluster's id and its slot.
        backend: (u16, u16),
        /// What is said of it.
        setting: BackendSetting,
        /// Who says so.
        by: String,
        /// Whether the datapath knows it.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// An operator's word on a cluster.
    SetCluster {
        /// The cluster's id.
        cluster: u16,
        /// What it is to be.
        state: ClusterState,
        /// Who says so.
        by: String,
        /// Whether the datapath knows it.
        done: oneshot::Sender<Result<(), String>>,
    },
}

/// Time between two looks at all neighbours.
const NEIGHBORS: Duration = Duration::from_secs(5);
/// Time between two walks that kill flows.
const WALKS: Duration = Duration::from_millis(1000 / WALKS_PER_SECOND as u64);

/// Says that a part of the owner's work failed; the datapath forwards on.
fn report(what: &str, result: anyhow::Result<()>) {
    if let Err(error) = result {
        tracing::error!(what, error = told(&error), "not done");
    }
}

/// Seconds since 1970.
pub(super) fn wall_clock() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// What is known of one backend.
#[derive(Debug, Clone)]
pub(super) struct Health {
    pub(super) healthy: bool,
    pub(super) status: String,
    pub(super) last: String,
    pub(super) results: BTreeMap<String, u64>,
    pub(super) durations: DurationsView,
    /// Its live traffic when it was last looked at.
    pub(super) traffic: Option<Traffic>,
    /// Flows killed, by reason.
    pub(super) kills: BTreeMap<&'static str, u64>,
    /// What an operator said of it.
    pub(super) word: BackendWord,
    /// Its absence and return.
    pub(super) ramp: Ramp,
}

/// The owner's state.
pub(super) struct Owner {
    pub(super) running: Running,
    pub(super) model: Arc<Model>,
    pub(super) netlink: Netlink,
    pub(super) health: Vec<Vec<Health>>,
    /// The operator's word, by cluster id.
    pub(super) states: Vec<ClusterState>,
    /// The same where it outlives the datapath.
    pub(super) words: Words,
    pub(super) sweep: SweepView,
    pub(super) drift: Drift,
    pub(super) unknown: Option<Unknown>,
    pub(super) down: Down,
    history: History,
    pub(super) checks: Checks,
    pub(super) pressure: Pressure<SnatName>,
    pub(super) full: Pressure<&'static str>,
    /// Events lost when it was last looked.
    pub(super) events_lost: Option<u64>,
    /// The file that the model came from.
    pub(super) config: PathBuf,
    pub(super) reloads: ReloadView,
    pub(super) following: Following,
    /// Where others read the model and the tables' ids.
    pub(super) known: watch::Sender<Known>,
}

/// What the owner starts with.
pub struct Start {
    /// The datapath.
    pub running: Running,
    /// What it does, with its ids.
    pub model: Arc<Model>,
    /// What was known of the backends' health.
    pub found: Found,
    /// The way to the kernel's tables.
    pub netlink: Netlink,
    /// The operator's word, as it was kept.
    pub words: Words,
    /// Stands in for the clusters' own.
    pub unknown: Option<Unknown>,
    /// The configuration's file.
    pub config: PathBuf,
    /// Whether the datapath ends with the owner.
    pub detach: bool,
    /// Where the checks' facts go.
    pub facts: mpsc::Sender<Fact>,
}

impl Health {
    /// Of a backend that no check has told of yet.
    pub(super) fn first(backend: &Backend, standing: Standing) -> Self {
        let Standing {
            healthy,
            word,
            ramp,
        } = standing;
        Self {
            healthy,
            status: match (&backend.check, healthy) {
                (None, _) => "no check",
                (Some(_), true) => "UP",
                (Some(_), false) => "DOWN",
            }
            .to_owned(),
            last: String::new(),
            results: BTreeMap::new(),
            durations: DurationsView::default(),
            traffic: None,
            kills: BTreeMap::new(),
            word,
            ramp,
        }
    }
}

/// Starts the owner and the checks of its backends. It runs until the token is
/// cancelled; the datapath goes on, unless it is to end.
///
/// # Errors
/// Where the runtime cannot poll the events, or a socket cannot be had.
pub fn spawn(
    start: Start,
    cancel: CancellationToken,
) -> anyhow::Result<(Handle, tokio::task::JoinHandle<anyhow::Result<()>>)> {
    let Start {
        mut running,
        model,
        found,
        netlink,
        words,
        unknown,
        config,
        detach,
        facts,
    } = start;
    let (sender, receiver) = mpsc::channel(1024);
    let (known, reader) = watch::channel(Known {
        model: Arc::clone(&model),
        ids: running.loaded.ids.clone(),
    });
    let handle = Handle::new(sender, reader);
    let events = Events::new(running.loaded.take_events()?)?;
    let kills = Kills::new(running.loaded.take_kills()?)?;
    let down = Down::new(&model, &running).context("resets for killed flows")?;
    let standings = standings(&model, &found, &words, read::uptime());
    let health = per_backend(&model, |id, slot| {
        Health::first(&model.clusters[id].backends[slot], standings[id][slot])
    });
    let mut checks = Checks::new(facts);
    checks.set(targets(&model, &running)?, |target| {
        found.was_healthy(target.cluster, target.backend)
    });
    let states = states(&model, &found, &words);
    let owner = Owner {
        running,
        model,
        netlink,
        health,
        states,
        words,
        sweep: SweepView::default(),
        drift: Drift::default(),
        unknown,
        down,
        history: History::default(),
        checks,
        pressure: Pressure::default(),
        full: Pressure::default(),
        events_lost: None,
        config,
        reloads: ReloadView::first(wall_clock()),
        following: Following::default(),
        known,
    };
    let task = tokio::spawn(async move {
        let (owner, result) = owner.run(receiver, events, kills, cancel).await;
        if detach {
            owner.running.end()?;
        }
        result
    });
    Ok((handle, task))
}

impl Owner {
    async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut events: Events,
        mut kills: Kills,
        cancel: CancellationToken,
    ) -> (Self, anyhow::Result<()>) {
        let mut sweeps = tokio::time::interval(self.model.sweep_interval);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut neighbors = tokio::time::interval(NEIGHBORS);
        neighbors.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut walks = tokio::time::interval(WALKS);
        walks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ramps = tokio::time::interval(ramp::STEP);
        ramps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return (self, Ok(())),
                Some(message) = messages.recv() => {
                    report("message", self.handle(message).await);
                    if sweeps.period() != self.model.sweep_interval {
                        sweeps = tokio::time::interval(self.model.sweep_interval);
                        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    }
                }
                batch = events.next() => match batch {
                    Ok(batch) => self.happened(batch).await,
                    Err(error) => return (self, Err(error.into())),
                },
                killed = kills.next() => match killed {
                    Ok(killed) => self.tell(&killed),
                    Err(error) => return (self, Err(error.into())),
                },
                error = self.checks.failed() => {
                    return (self, Err(anyhow::Error::from(error).context("a health check")));
                }
                _ = walks.tick(), if self.down.is_busy() => report("kill", self.walk()),
                _ = ramps.tick(), if self.is_ramping() => report("slow start", self.ramp()),
                _ = sweeps.tick() => {
                    report("sweep", self.sweep());
                    report("observe", self.observe());
                    report("tables", self.look_at_tables());
                    self.log_unsent();
                    report("this host", self.follow_host().await);
                }
                _ = neighbors.tick() => {
                    report("neighbours", self.refresh().await);
                    report("SNAT ports", self.look_at_snat());
                }
            }
        }
    }

    async fn handle(&mut self, message: Message) -> anyhow::Result<()> {
        match message {
            Message::Health(fact) => {
                if let Err(error) = self.health(&fact) {
                    // What a map refused is written after the next sweep.
                    self.following.waits = Some(told(&error));
                    return Err(error);
                }
            }
            Message::Network(Change::Neighbor(neighbor)) => self.neighbor(&neighbor)?,
            Message::Network(Change::Host) => self.follow_host().await?,
            Message::Network(Change::Routes) => self.following.routes = true,
            Message::Network(Change::Gone(ifindex, address)) => {
                self.restore(ifindex, address).await?;
            }
            Message::TakenOver => {
                self.unknown = None;
                for id in 0..self.model.clusters.len() {
                    self.write_policy(id)?;
                }
            }
            Message::Reload(reply) => {
                let result = self.reload().await;
                let _ = reply.send(result);
            }
            Message::Snapshot(reply) => {
                // Who asked may be gone; that is no one's loss.
                let _ = reply.send(self.snapshot()?);
            }
            Message::Events(reply) => {
                let _ = reply.send(self.history.views(&self.model));
            }
            Message::Reset {
                wanted,
                accepted,
                done,
            } => {
                let _ = accepted.send(self.operator_resets(&wanted, done));
            }
            Message::SetBackend {
                backend,
                setting,
                by,
                done,
            } => {
                let set = self.set_backend(backend, setting, by);
                let _ = done.send(set.map_err(|error| told(&error)));
            }
            Message::SetCluster {
                cluster,
                state,
                by,
                done,
            } => {
                let set = self.set_cluster(usize::from(cluster), state, by);
                let _ = done.send(set.map_err(|error| told(&error)));
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

    /// Keeps what happened, and has neighbours resolved that are missing.
    async fn happened(&mut self, batch: Batch) {
        let (wall, now) = (wall_clock(), read::now());
        for event in batch.events {
            self.history.push(event, wall, now);
        }
        for neighbor in batch.needed {
            self.resolve(neighbor.ifindex, neighbor.address).await;
        }
    }

    fn health(&mut self, fact: &Fact) -> anyhow::Result<()> {
        let id = usize::from(fact.cluster);
        // A check that was under way when its backend went.
        if self.is_retired(fact.cluster, fact.backend) {
            return Ok(());
        }
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
        if fact.result != CheckResult::Observed {
            health.durations.observe(fact.duration);
        }
        health.status.clone_from(&fact.status);
        health.last = match &fact.result {
            CheckResult::Observed => fact.result.to_string(),
            met => format!("{met} in {:.1} ms", fact.duration.as_secs_f64() * 1e3),
        };
        let changed = health.healthy != fact.healthy;
        health.healthy = fact.healthy;
        self.note(id, usize::from(fact.backend));
        self.witness(fact);
        match (changed, fact.healthy) {
            (true, false) => self.went_down(fact.cluster, fact.backend),
            (true, true) => self.came_up(fact.cluster, fact.backend),
            (false, _) => {}
        }
        self.decide_resets();
        if !changed {
            return Ok(());
        }
        let ready = self.write_policy(id)?;
        self.write_identities()?;
        let cluster = &self.model.clusters[id];
        if !ready.contains(&true) {
            tracing::error!(cluster = cluster.name, "no backend is ready");
        }
        Ok(())
    }

    /// Leaves behind who has which id, who was healthy, and the operator's word.
    pub(super) fn write_identities(&mut self) -> anyhow::Result<()> {
        let standings = per_backend(&self.model, |id, slot| self.health[id][slot].standing());
        let entries = identities(&self.model, &standings, &self.states);
        Ok(self.running.loaded.identity.set(&entries)?)
    }

    fn is_retired(&self, cluster: u16, slot: u16) -> bool {
        let cluster = self.model.clusters.get(usize::from(cluster));
        let backend = cluster.and_then(|cluster| cluster.backends.get(usize::from(slot)));
        backend.is_none_or(|backend| backend.retired)
    }

    fn sweep(&mut self) -> anyhow::Result<()> {
        let clusters = self.model.clusters.len() as u16;
        let (report, duration, counted) =
            tokio::task::block_in_place(|| sweep::run_counted(&mut self.running.loaded, clusters))?;
        if report.orphans + report.errors > 0 {
            tracing::warn!(
                orphans = report.orphans,
                errors = report.errors,
                "the sweep found half-written flows"
            );
        }
        self.down.resets.untold += report.untold;
        for one in &counted {
            self.repair(one)?;
        }
        self.sweep = SweepView {
            timestamp: wall_clock(),
            duration: duration.as_secs_f64(),
            entries: report.entries,
            half_open: report.half_open,
            established: report.established,
            resting: report.resting,
        };
        Ok(())
    }

    /// Repairs counts that have certainly come apart from the flows.
    fn repair(&mut self, counted: &sweep::Counted) -> anyhow::Result<()> {
        let cluster = &self.model.clusters[usize::from(counted.cluster)];
        for (slot, backend) in cluster.backends.iter().enumerate() {
            let pass = Pass {
                before: counted.before.slots[slot],
                recount: counted.recount.slots[slot],
                after: counted.after.slots[slot],
            };
            let Some(correction) = self.drift.observe(counted.cluster, slot as u16, &pass) else {
                continue;
            };
            tracing::warn!(
                cluster = cluster.name,
                backend = backend.name,
                live = correction.live as i32,
                pending = correction.pending as i32,
                "counts repaired: they had come apart from the flows"
            );
            sweep::correct(&mut self.running.loaded, &correction)?;
        }
        Ok(())
    }
}

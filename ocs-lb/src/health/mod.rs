//! Whether backends serve: checks over the network, sent on as facts.
//!
//! Nothing here writes a map or knows a weight; the owner of the maps decides
//! what a fact means.

mod http;
pub mod hysteresis;
pub mod observe;
mod probe;
mod result;
mod sip;
mod source;
mod tls;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};

use crate::model::Check;

pub use hysteresis::{Health, Transition};
use probe::Probe;
pub use result::{CheckResult, Layer};
use source::SourcePorts;
pub use source::source_ports;
use tls::TlsClients;

/// A backend to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Index of its cluster in the model.
    pub cluster: u16,
    /// Its slot in the cluster.
    pub backend: u16,
    /// `cluster/backend`, for the log.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// What to check, and when.
    pub check: Check,
    /// Address that checks come from; `None` is the kernel's choice.
    pub source: Option<IpAddr>,
    /// Ports that checks come from, first and last included: none that a flow
    /// can have, see [`source_ports`].
    pub ports: (u16, u16),
}

impl Target {
    /// Whether one check serves both.
    fn same_check(&self, other: &Self) -> bool {
        self.address == other.address
            && self.check == other.check
            && self.source == other.source
            && self.ports == other.ports
    }
}

/// What one check told about one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Index of its cluster in the model.
    pub cluster: u16,
    /// Its slot in the cluster.
    pub backend: u16,
    /// Whether it is up after this check.
    pub healthy: bool,
    /// Whether this check changed that.
    pub transition: bool,
    /// HAProxy's status text, such as `UP 2/3`.
    pub status: String,
    /// How the check ended.
    pub result: CheckResult,
    /// When it started.
    pub started: Instant,
    /// How long it took.
    pub duration: Duration,
}

/// Failed checks that wait to be told to the task of their server.
const OBSERVED: usize = 16;

/// A server that is checked, and every backend that it is.
struct Server {
    members: Vec<Target>,
    observer: mpsc::Sender<u32>,
    task: AbortHandle,
}

/// Running checks: one task for each server, however many backends it is.
pub struct Checks {
    facts: mpsc::Sender<Fact>,
    servers: Vec<Server>,
    /// One cursor a range, so that checks do not race for the same ports.
    cursors: Vec<((u16, u16), Arc<SourcePorts>)>,
    tls: TlsClients,
    tasks: JoinSet<()>,
}

impl Checks {
    /// Nothing is checked yet; facts go to `facts`.
    pub fn new(facts: mpsc::Sender<Fact>) -> Self {
        Self {
            facts,
            servers: Vec::new(),
            cursors: Vec::new(),
            tls: TlsClients::default(),
            tasks: JoinSet::new(),
        }
    }

    /// Checks these from now on and no others. A server that was checked the
    /// same way for the same backends goes on undisturbed; another one starts
    /// from what `was_up` knows of it, or up on trial.
    ///
    /// Every check sends facts, not only those that change a state.
    pub fn set(&mut self, targets: Vec<Target>, was_up: impl Fn(&Target) -> Option<bool>) {
        let groups = group(targets);
        let count = groups.len();
        let mut before = std::mem::take(&mut self.servers);
        for (index, members) in groups.into_iter().enumerate() {
            if let Some(same) = before.iter().position(|server| server.members == members) {
                self.servers.push(before.swap_remove(same));
                continue;
            }
            let Some(first) = members.first() else {
                continue;
            };
            let check = &first.check;
            let health = match was_up(first) {
                Some(up) => Health::settled(check.rise, check.fall, up),
                None => Health::new(check.rise, check.fall),
            };
            let delay = hysteresis::initial_delay(health.next_interval(check), index, count);
            let from = (first.source, self.cursor(first.ports));
            let probe = Probe::new(first.address, check, from, &mut self.tls);
            let (observer, observed) = mpsc::channel(OBSERVED);
            let (checked, facts) = (members.clone(), self.facts.clone());
            let task = self.tasks.spawn(async move {
                run(checked, probe, health, delay, observed, facts).await;
            });
            self.servers.push(Server {
                members,
                observer,
                task,
            });
        }
        for server in before {
            server.task.abort();
        }
    }

    fn cursor(&mut self, range: (u16, u16)) -> Arc<SourcePorts> {
        if let Some((_, ports)) = self.cursors.iter().find(|(known, _)| *known == range) {
            return Arc::clone(ports);
        }
        let ports = Arc::new(SourcePorts::new(range));
        self.cursors.push((range, Arc::clone(&ports)));
        ports
    }

    /// Counts `failures` failed checks for a backend, where its check wants
    /// them. What its task cannot take yet is left out: there is more where it
    /// came from.
    pub fn observe(&self, cluster: u16, backend: u16, failures: u32) {
        let is = |member: &Target| {
            (member.cluster, member.backend) == (cluster, backend) && member.check.observe
        };
        let mut servers = self.servers.iter();
        if let Some(server) = servers.find(|server| server.members.iter().any(is)) {
            let _ = server.observer.try_send(failures);
        }
    }

    /// Waits for a check that ended where it should not; for ever where none
    /// does.
    pub async fn failed(&mut self) -> tokio::task::JoinError {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) if !error.is_cancelled() => return error,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// Targets by check, both in the order of the list.
fn group(targets: Vec<Target>) -> Vec<Vec<Target>> {
    let mut groups: Vec<Vec<Target>> = Vec::new();
    for target in targets {
        let known = groups
            .iter_mut()
            .find(|group| group.first().is_some_and(|first| first.same_check(&target)));
        match known {
            Some(group) => group.push(target),
            None => groups.push(vec![target]),
        }
    }
    groups
}

/// Checks one server for ever; returns when nobody receives facts.
async fn run(
    members: Vec<Target>,
    probe: Probe,
    mut health: Health,
    delay: Duration,
    mut observed: mpsc::Receiver<u32>,
    facts: mpsc::Sender<Fact>,
) {
    let Some(first) = members.first() else {
        return;
    };
    let check = &first.check;
    tokio::time::sleep(delay).await;
    loop {
        let start = Instant::now();
        let result = probe.run().await;
        let ended = Instant::now();
        let outcome = Outcome {
            result,
            started: start,
            duration: ended - start,
        };
        if tell(&members, &mut health, &outcome, &facts).await.is_err() {
            return;
        }
        // Live traffic may shorten the time to the next check.
        loop {
            let next = tokio::time::Instant::from_std(ended + health.next_interval(check));
            let failures = tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                Some(failures) = observed.recv() => failures,
            };
            for _ in 0..failures {
                let outcome = Outcome {
                    result: CheckResult::Observed,
                    started: Instant::now(),
                    duration: Duration::ZERO,
                };
                if tell(&members, &mut health, &outcome, &facts).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// How one check ended.
struct Outcome {
    result: CheckResult,
    started: Instant,
    duration: Duration,
}

/// Takes an outcome into the server's state and sends it for every backend
/// that the server is; an error where nobody receives it.
async fn tell(
    members: &[Target],
    health: &mut Health,
    outcome: &Outcome,
    facts: &mpsc::Sender<Fact>,
) -> Result<(), mpsc::error::SendError<Fact>> {
    let transition = health.observe(outcome.result.is_ok());
    for member in members {
        let reason = &outcome.result;
        match transition {
            Some(Transition::Up) => info!(backend = %member.name, %reason, "backend is up"),
            Some(Transition::Down) => warn!(backend = %member.name, %reason, "backend is down"),
            None => {}
        }
        let fact = Fact {
            cluster: member.cluster,
            backend: member.backend,
            healthy: health.is_up(),
            transition: transition.is_some(),
            status: health.to_string(),
            result: outcome.result.clone(),
            started: outcome.started,
            duration: outcome.duration,
        };
        facts.send(fact).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

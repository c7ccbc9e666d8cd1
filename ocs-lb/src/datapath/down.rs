//! What the owner does when a backend goes down: asks the guard, and runs the
//! walks at their pace.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ocs_lb_common::abi::{KillReason, KillRequest, Reason};
use ocs_lb_common::address::V4;
use ocs_lb_common::ticks::{self, Ticks};
use tokio::sync::oneshot;

use super::owner::Owner;
use super::tell::reason;
use super::{kill, read};
use crate::admin::Reset;
use crate::health::Fact;
use crate::model::guard::{self, Member, Verdict};
use crate::model::kills::{Job, Queue, of_backend, of_client};
use crate::model::{DownAction, Model};
use crate::resets::{Socket, Tally};
use crate::setup::Running;
use crate::snapshot::{KilledView, ResetView};

/// A backend that is down and whose flows are not decided about.
struct Pending {
    /// When all others were checked once more, since [`Down::start`].
    told_by: Duration,
    /// Whether the log has said that its flows are kept.
    said: bool,
}

/// The state of killing.
pub(super) struct Down {
    start: Instant,
    pub(super) socket: Socket,
    members: Vec<Member>,
    pending: BTreeMap<(u16, u16), Pending>,
    queue: Queue,
    replies: BTreeMap<u64, oneshot::Sender<KilledView>>,
    /// Since the log last spoke of them.
    pub(super) burst: Tally,
    /// Since the start.
    pub(super) resets: ResetView,
}

impl Down {
    /// Nothing is down yet.
    ///
    /// # Errors
    /// Where a packet socket or a next hop cannot be had.
    pub(super) fn new(model: &Model, running: &Running) -> anyhow::Result<Self> {
        Ok(Self {
            start: Instant::now(),
            socket: Socket::open()?,
            members: members(model, running)?,
            pending: BTreeMap::new(),
            queue: Queue::default(),
            replies: BTreeMap::new(),
            burst: Tally::default(),
            resets: ResetView::default(),
        })
    }

    /// Looks after the backends of a new model; what is known of those that
    /// stay is kept.
    ///
    /// # Errors
    /// As [`Down::new`].
    pub(super) fn follow(&mut self, model: &Model, running: &Running) -> anyhow::Result<()> {
        let before = std::mem::replace(&mut self.members, members(model, running)?);
        for member in &mut self.members {
            let key = (member.cluster, member.slot, member.server);
            let same = before
                .iter()
                .find(|old| (old.cluster, old.slot, old.server) == key);
            if let Some(same) = same {
                member.checks = same.checks;
            }
        }
        let is_member = |key: &(u16, u16)| {
            let mut members = self.members.iter();
            members.any(|member| (member.cluster, member.slot) == *key)
        };
        self.pending.retain(|key, _| is_member(key));
        Ok(())
    }

    /// Whether there is something to decide or to walk for.
    pub(super) fn is_busy(&self) -> bool {
        !self.pending.is_empty() || !self.queue.is_empty()
    }
}

/// The backends that are checked, as the guard sees them.
fn members(model: &Model, running: &Running) -> anyhow::Result<Vec<Member>> {
    let mut members = Vec::new();
    for (id, cluster) in model.clusters.iter().enumerate() {
        for (slot, backend) in cluster.backends.iter().enumerate() {
            let Some(check) = backend.check.as_ref().filter(|_| !backend.retired) else {
                continue;
            };
            let next_hop = running.reach[id][slot].next_hop;
            let hop = running.loaded.maps.next_hops.get(&u32::from(next_hop), 0)?;
            members.push(Member {
                cluster: id as u16,
                slot: slot as u16,
                primary: !backend.backup,
                server: (backend.address, check.port),
                ifindex: hop.ifindex,
                next_hop,
                cycle: check.interval + check.timeout,
                checks: guard::Checks::default(),
            });
        }
    }
    Ok(members)
}

impl Owner {
    /// Takes a check's result for the guard. Whose flows wait for a decision
    /// may get it now.
    pub(super) fn witness(&mut self, fact: &Fact) {
        let started = fact.started.saturating_duration_since(self.down.start);
        let key = (fact.cluster, fact.backend);
        let mut members = self.down.members.iter_mut();
        if let Some(member) = members.find(|member| (member.cluster, member.slot) == key) {
            member.checks.observe(fact.result.is_ok(), started);
        }
    }

    /// A backend went down.
    pub(super) fn went_down(&mut self, cluster: u16, backend: u16) {
        let policy = self.model.clusters[usize::from(cluster)].on_backend_down;
        if policy.action == DownAction::Keep {
            return;
        }
        if !policy.guard {
            return self.kill_backend(cluster, backend, None);
        }
        let key = (cluster, backend);
        let all = &self.down.members;
        let member = all
            .iter()
            .find(|member| (member.cluster, member.slot) == key);
        let told_by = member.map_or(Duration::ZERO, |dead| guard::told_by(dead, all.iter()));
        let said = false;
        self.down.pending.insert(key, Pending { told_by, said });
    }

    /// A backend is up again: its flows are left alone from now on.
    pub(super) fn came_up(&mut self, cluster: u16, backend: u16) {
        self.down.pending.remove(&(cluster, backend));
        if let Some(job) = self.down.queue.drop_down(cluster, backend) {
            self.log_job(&job, "up again, the rest of its flows is kept");
        }
    }

    /// Decides about the flows of backends that are down, where it can.
    pub(super) fn decide_resets(&mut self) {
        let now = self.down.start.elapsed();
        let mut dead = Vec::new();
        for (key, pending) in &mut self.down.pending {
            let all = &self.down.members;
            let member = all
                .iter()
                .find(|member| (member.cluster, member.slot) == *key);
            let Some(member) = member else {
                continue;
            };
            // Its last check was good: it is on its way up.
            let Some(since) = member.checks.failing_since else {
                continue;
            };
            match guard::decide(member, all.iter()) {
                Verdict::Reset => dead.push((*key, since)),
                Verdict::Keep(why) if now >= pending.told_by && !pending.said => {
                    pending.said = true;
                    let cluster = &self.model.clusters[usize::from(key.0)];
                    tracing::warn!(
                        backend = cluster.backend_name(key.1),
                        reason = why.text(),
                        "flows of a backend that is down are kept"
                    );
                }
                Verdict::Keep(_) => {}
            }
        }
        for ((cluster, backend), since) in dead {
            self.down.pending.remove(&(cluster, backend));
            self.kill_backend(cluster, backend, Some(now.saturating_sub(since)));
        }
    }

    /// Queues the resets of a dead backend's flows; with the age of its first
    /// failed check, those whose backend sent something since are kept.
    fn kill_backend(&mut self, cluster: u16, backend: u16, age: Option<Duration>) {
        let policy = self.model.clusters[usize::from(cluster)].on_backend_down;
        let mut request = of_backend(cluster, backend, KillReason::BackendDown);
        if let Some(age) = age {
            request.guard = 1;
            request.since = Ticks(read::now().0.wrapping_sub(ticks::duration(age)));
        }
        self.down.queue.push(request, policy.rate);
    }

    /// Queues the resets of a backend's flows that the file no longer has.
    pub(super) fn kill_removed(&mut self, cluster: u16, backend: u16) {
        let rate = self.model.clusters[usize::from(cluster)]
            .on_backend_down
            .rate;
        let request = of_backend(cluster, backend, KillReason::Operator);
        self.down.queue.push(request, rate);
    }

    /// An operator wants flows to be reset; the answer comes when they are.
    pub(super) fn operator_resets(
        &mut self,
        wanted: &Reset,
        reply: oneshot::Sender<KilledView>,
    ) -> Result<(), String> {
        let (request, rate) = request(&self.model, wanted)?;
        let id = self.down.queue.push(request, rate);
        self.down.replies.insert(id, reply);
        Ok(())
    }

    /// One walk for whose turn it is.
    ///
    /// # Errors
    /// The walk's; it is tried again, and after a few failures given up.
    pub(super) fn walk(&mut self) -> anyhow::Result<()> {
        self.decide_resets();
        let Some((id, request)) = self.down.queue.step() else {
            return Ok(());
        };
        let walked = tokio::task::block_in_place(|| kill::run(&mut self.running.loaded, &request));
        let report = match walked {
            Ok(report) => report,
            Err(error) => {
                if let Some(job) = self.down.queue.failed(id) {
                    self.log_job(&job, "given up, the rest of the flows is kept");
                    self.down.replies.remove(&id);
                }
                return Err(error.into());
            }
        };
        self.down.resets.untold += u64::from(report.untold);
        self.count_untold(&request, report.untold);
        if let Some(job) = self.down.queue.walked(id, &report) {
            self.log_job(&job, "flows reset");
            if let Some(reply) = self.down.replies.remove(&id) {
                // Who asked may be gone.
                let _ = reply.send(KilledView {
                    killed: job.killed,
                    untold: job.untold,
                    done: true,
                });
            }
        }
        Ok(())
    }

    fn log_job(&self, job: &Job, what: &str) {
        let request = &job.request;
        let cluster = self.model.clusters.get(usize::from(request.cluster));
        let backend = cluster.map(|cluster| cluster.backend_name(request.backend));
        let [a, b, c, d, ..] = request.client;
        let client = (request.client != [0; 16]).then_some(Ipv4Addr::new(a, b, c, d));
        tracing::info!(
            backend,
            client = client.map(tracing::field::display),
            reason = reason(request.reason).map(Reason::label),
            killed = job.killed,
            kept = job.kept,
            untold = job.untold,
            "{what}"
        );
    }
}

/// The request and pace of an operator's wish.
fn request(model: &Model, wanted: &Reset) -> Result<(KillRequest, u32), String> {
    match wanted {
        Reset::Backend { cluster, backend } => {
            let id = model.cluster_with_flows(cluster)?;
            let found = &model.clusters[usize::from(id)];
            let slot = found.slot_with_flows(backend)?;
            let request = of_backend(id, slot, KillReason::Operator);
            Ok((request, found.on_backend_down.rate))
        }
        Reset::Client { client } => {
            let IpAddr::V4(address) = client else {
                return Err(format!(
                    "{client} is IPv6, which this version does not serve"
                ));
            };
            // It may have flows in every cluster: the gentlest pace of all.
            let rates = model.clusters.iter().map(|c| c.on_backend_down.rate);
            let client = KillRequest::v4(V4(address.octets()));
            Ok((of_client(client), rates.min().unwrap_or(1)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn wishes_become_requests() {
        let model = config::parse(config::DEFAULT, "default.yaml")
            .expect("valid")
            .model;
        let backend = |cluster: &str, backend: &str| Reset::Backend {
            cluster: cluster.into(),
            backend: backend.into(),
        };
        let (one, rate) = request(&model, &backend("ocs", "OCS_Node2")).expect("known");
        assert_eq!((one.cluster, one.backend, rate), (0, 1, 5000));
        assert_eq!((one.reason, one.guard), (KillReason::Operator as u8, 0));
        let client = Reset::Client {
            client: [192, 0, 2, 9].into(),
        };
        let (one, _) = request(&model, &client).expect("IPv4");
        assert_eq!(one.client[..5], [192, 0, 2, 9, 0]);
        for (wanted, expected) in [
            (
                backend("lync", "OCS_Node1"),
                "there is no cluster lync; there is: ocs",
            ),
            (
                backend("ocs", "Node1"),
                "cluster ocs has no backend Node1; it has: OCS_Node1, OCS_Node2, backup",
            ),
            (
                Reset::Client {
                    client: "2001:db8::1".parse().expect("an address"),
                },
                "2001:db8::1 is IPv6",
            ),
        ] {
            let error = request(&model, &wanted).expect_err("not known");
            assert!(error.starts_with(expected), "{error}");
        }
    }
}

//! The configuration read again, and the datapath brought from the running
//! model to the new one while it forwards.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::attach::Attached;
use super::handle::Known;
use super::load::MapIds;
use super::owner::{Health, Owner, wall_clock};
use super::sticky_tables::sticky_for;
use super::write::told;
use super::{adopt, attach, read, sticky};
use crate::config;
use crate::model::align::{Ids, align};
use crate::model::diff::{diff, needs_restart};
use crate::model::edits::{MapEdit, Reach};
use crate::model::ramp::Ramp;
use crate::model::sizes::Sizes;
use crate::model::standing::Standing;
use crate::model::{AttachMode, Backend, Cluster, ClusterState, Interfaces, Model, RemovedAction};
use crate::neighbor::Link;
use crate::setup::{self, Facts, Network, Running, identities, per_backend};
use crate::snapshot::ReloadView;
use crate::targets::targets;

/// A model with all that this host says of it.
struct Ready {
    model: Model,
    network: Network,
    interfaces: Vec<(Link, AttachMode)>,
    sizes: Sizes,
    reach: Vec<Vec<Reach>>,
    edits: Vec<MapEdit>,
}

impl Owner {
    /// Reads the file again and applies it; what changed.
    ///
    /// # Errors
    /// Every problem of the file, or why this host cannot do what it says.
    /// The datapath is as it was then: what was written before a map refused
    /// the next write is set back.
    pub(super) async fn reload(&mut self) -> Result<Vec<String>, String> {
        let result = self.apply_file().await;
        self.reloads = self.reloads.after(result.is_ok(), wall_clock());
        match &result {
            Ok(changes) if changes.is_empty() => tracing::info!("reloaded: nothing changed"),
            Ok(changes) => {
                for change in changes {
                    tracing::info!("reloaded: {change}");
                }
            }
            Err(error) => tracing::error!("not reloaded: {error}"),
        }
        result
    }

    async fn apply_file(&mut self) -> Result<Vec<String>, String> {
        let loaded = config::load(&self.config).map_err(|problems| problems.to_string())?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let model = self.aligned(loaded.model).map_err(|error| told(&error))?;
        let mut changes = diff(&self.model, &model);
        for key in needs_restart(&self.model, &model) {
            changes.push(format!(
                "{key}: takes effect when the controller starts again"
            ));
        }
        let before = Arc::clone(&self.model);
        let ready = self.prepare(model).await.map_err(|error| told(&error))?;
        match self.write(ready).await {
            Ok(()) => {
                self.words.warn_of_strangers(&self.model);
                Ok(changes)
            }
            Err(error) => Err(self.set_back(&before, &told(&error)).await),
        }
    }

    /// Makes the datapath what it was before a change failed midway; what there
    /// is to say of it.
    async fn set_back(&mut self, before: &Model, error: &str) -> String {
        let tried = self.apply_model(before.clone()).await;
        match tried {
            Ok(()) => format!("{error}; the configuration from before is set back and forwards"),
            Err(again) => {
                let again = told(&again);
                let said = format!(
                    "{error}; the configuration from before could not be set back whole ({again}): \
                     it is tried again every second, and what was written forwards"
                );
                // For the next look.
                self.following.waits = Some(again);
                said
            }
        }
    }

    /// The new model on the ids of the running one.
    fn aligned(&self, model: Model) -> anyhow::Result<Model> {
        let standings = per_backend(&self.model, |_, _| Standing::of(true));
        let known = identities(&self.model, &standings, &self.states);
        let maps = &self.running.loaded.maps;
        let busy = adopt::busy(known.keys(), |id| read::load(maps, id))?;
        let ids = Ids::of(&self.model);
        let is_busy = |id, slot| busy.contains(&(id, slot));
        Ok(align(&ids, Some(&self.model), model, is_busy)?)
    }

    /// Brings the datapath to a model.
    ///
    /// # Errors
    /// What this host cannot do; a map's, and then part of it is written.
    pub(super) async fn apply_model(&mut self, model: Model) -> anyhow::Result<()> {
        let ready = self.prepare(model).await?;
        self.write(ready).await
    }

    /// Looks whether this host can do what a model says. No packet meets
    /// anything of it yet.
    async fn prepare(&mut self, model: Model) -> anyhow::Result<Ready> {
        let network = setup::look(&model, &self.netlink).await?;
        let interfaces = setup::interfaces(&model, &network)?;
        let sizes = Sizes::of(&model);
        self.fits(&sizes)?;
        let running = &mut self.running;
        attach::check(
            &running.pins,
            network.links(),
            &interfaces,
            &running.attached,
        )
        .await?;
        let maps = &mut running.loaded.maps;
        let reach = setup::reach(
            &model,
            &network,
            maps,
            &mut running.next_hops,
            &running.reach,
        )?;
        let edits = setup::edits(&model, &network, &reach)?;
        Ok(Ready {
            model,
            network,
            interfaces,
            sizes,
            reach,
            edits,
        })
    }

    /// Writes what was prepared.
    async fn write(&mut self, ready: Ready) -> anyhow::Result<()> {
        let Ready {
            model,
            network,
            interfaces,
            sizes,
            reach,
            edits,
        } = ready;
        let now = read::uptime();
        let health = self.health_of(&model, now);
        let standings = per_backend(&model, |id, slot| health[id][slot].standing());
        let states = self.states_of(&model);

        // Whom a restart meets: before any flow has a new id.
        let running = &mut self.running;
        running
            .loaded
            .identity
            .set(&identities(&model, &standings, &states))?;
        // A table of another size is copied, which takes its time.
        tokio::task::block_in_place(|| {
            sticky_for(&mut running.loaded, &running.pins, &sizes.sticky)
        })?;
        // A new interface first: packets of a new service may come in there.
        attach::attach_all(
            &mut running.loaded,
            Some(&running.pins),
            network.links(),
            &interfaces,
            &mut running.attached,
        )
        .await?;
        running.macs = network.macs();
        running.sources = network.sources();
        let facts = Facts {
            reach: &reach,
            standings: &standings,
            states: &states,
            unknown: self.unknown,
            now,
        };
        setup::fill(&model, &mut running.loaded.maps, &edits, &sizes, facts)?;
        running.kept = setup::neighbors(
            &self.netlink,
            &network,
            &running.next_hops,
            &mut running.loaded.maps,
        )
        .await?;
        if matches!(model.interfaces, Interfaces::Listed(_)) {
            leave(running, &interfaces)?;
        }
        setup::links(
            network.links(),
            &setup::indexes(&running.attached),
            &running.next_hops,
            &mut running.loaded.maps,
        )?;
        running.next_hops.refresh(&mut running.loaded.maps)?;
        running.routes = network.into_routes();
        running.reach = reach;
        self.states = states;
        self.switch(model, health)
    }

    /// Everything but the maps.
    fn switch(&mut self, model: Model, health: Vec<Vec<Health>>) -> anyhow::Result<()> {
        let removed = removed(&self.model, &model);
        let reused = reused(&self.model, &model);
        // Of those that stay, checks go on from what they knew.
        let up = per_backend(&model, |id, slot| {
            is_same(&self.model, &model, id, slot).then(|| health[id][slot].healthy)
        });
        self.model = Arc::new(model);
        self.health = health;
        self.down.follow(&self.model, &self.running)?;
        self.checks
            .set(targets(&self.model, &self.running)?, |target| {
                up[usize::from(target.cluster)][usize::from(target.backend)]
            });
        for (cluster, slot) in removed {
            let policy = self.model.clusters[usize::from(cluster)].on_backend_removed;
            if policy == RemovedAction::Reset {
                self.kill_removed(cluster, slot);
            }
        }
        let ids = self.running.loaded.ids.clone();
        tokio::task::spawn_blocking(move || forget(&ids, &reused));
        self.known.send_replace(Known {
            model: Arc::clone(&self.model),
            ids: self.running.loaded.ids.clone(),
        });
        Ok(())
    }

    /// What is known of the backends of a model: of those that had their places
    /// before, what it was.
    fn health_of(&self, model: &Model, now: Duration) -> Vec<Vec<Health>> {
        per_backend(model, |id, slot| {
            let (cluster, new) = (&model.clusters[id], &model.clusters[id].backends[slot]);
            let was = is_same(&self.model, model, id, slot).then(|| &self.health[id][slot]);
            let mut health = match was {
                Some(was) if new.check.is_some() => was.clone(),
                // Without a check it is healthy, whatever it was before.
                Some(was) => Health::first(
                    new,
                    Standing {
                        healthy: true,
                        ..was.standing()
                    },
                ),
                None => Health::first(new, self.joining(cluster, id, &new.name)),
            };
            let mut standing = health.standing();
            standing.observe(new, now);
            health.ramp = standing.ramp;
            health
        })
    }

    /// What is known of a backend that has its place from now on. Beside others
    /// that have all the clients it starts slowly.
    fn joining(&self, cluster: &Cluster, id: usize, backend: &str) -> Standing {
        let before = self.model.clusters.get(id);
        let served = before.is_some_and(|old| old.name == cluster.name && !old.retired);
        Standing {
            word: self.words.backend_word(&cluster.name, backend),
            ramp: if served {
                Ramp::FROM_NOTHING
            } else {
                Ramp::default()
            },
            ..Standing::of(true)
        }
    }

    /// The operator's word about the clusters of a model that had their ids.
    fn states_of(&self, model: &Model) -> Vec<ClusterState> {
        let state = |(id, cluster): (usize, &Cluster)| {
            let old = self.model.clusters.get(id);
            let same = old.filter(|old| old.name == cluster.name);
            // One that was away and is back has what was said of it.
            same.map_or_else(|| self.words.state(&cluster.name), |_| self.states[id])
        };
        model.clusters.iter().enumerate().map(state).collect()
    }

    /// Whether the tables that are there have room.
    fn fits(&self, sizes: &Sizes) -> anyhow::Result<()> {
        for (name, wanted) in sizes.overrides() {
            let row = self.running.loaded.bill.iter().find(|row| row.name == name);
            let has = row.with_context(|| format!("map {name}"))?.capacity;
            if u64::from(wanted) > has {
                bail!(
                    "the new configuration needs {wanted} entries of {name} and the running \
                     datapath has {has}: a table keeps its size while flows are in it; \
                     `ocs-lb detach` and a start make it anew"
                );
            }
        }
        Ok(())
    }
}

/// Takes the program off interfaces that a list no longer names. Without a
/// list nothing is left: what carries no VIP now may carry one in a moment
/// (keepalived), and flows of before.
fn leave(running: &mut Running, interfaces: &[(Link, AttachMode)]) -> anyhow::Result<()> {
    let is_listed = |one: &Attached| {
        let mut links = interfaces.iter();
        links.any(|(link, _)| link.ifindex == one.ifindex)
    };
    let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut running.attached)
        .into_iter()
        .partition(is_listed);
    running.attached = kept;
    for one in gone {
        tracing::info!(interface = one.name, "no longer attached");
        attach::detach(&mut running.loaded, Some(&running.pins), one)?;
    }
    Ok(())
}

/// Whether a place has the backend that it had.
fn is_same(old: &Model, new: &Model, id: usize, slot: usize) -> bool {
    let Some(cluster) = old.clusters.get(id) else {
        return false;
    };
    let backend = &new.clusters[id].backends[slot];
    let same = |old: &Backend| (&old.name, old.address) == (&backend.name, backend.address);
    cluster.name == new.clusters[id].name && cluster.backends.get(slot).is_some_and(same)
}

/// Backends that a new model retires.
fn removed(old: &Model, new: &Model) -> Vec<(u16, u16)> {
    let mut found = Vec::new();
    for (id, cluster) in new.clusters.iter().enumerate() {
        for (slot, backend) in cluster.backends.iter().enumerate() {
            let before = old.clusters.get(id).and_then(|old| old.backends.get(slot));
            if backend.retired && before.is_some_and(|before| !before.retired) {
                found.push((id as u16, slot as u16));
            }
        }
    }
    found
}

/// Slots that another backend has now.
fn reused(old: &Model, new: &Model) -> Vec<(u16, u16)> {
    let mut found = Vec::new();
    for (id, cluster) in new.clusters.iter().enumerate() {
        for slot in 0..cluster.backends.len() {
            let before = old.clusters.get(id).and_then(|old| old.backends.get(slot));
            if before.is_some() && !is_same(old, new, id, slot) {
                found.push((id as u16, slot as u16));
            }
        }
    }
    found
}

/// Forgets the clients of whoever had these slots.
fn forget(ids: &MapIds, slots: &[(u16, u16)]) {
    for (cluster, slot) in slots {
        let wanted = sticky::Wanted {
            cluster: *cluster,
            client: None,
            backend: Some(*slot),
        };
        if let Err(error) = sticky::clear(ids, &wanted) {
            tracing::warn!(%error, "sticky entries of a backend that is gone");
        }
    }
}

impl ReloadView {
    /// At the start.
    pub(super) fn first(now: f64) -> Self {
        Self {
            applied: 0,
            failed: 0,
            last_successful: true,
            last_success: now,
        }
    }

    fn after(&self, ok: bool, now: f64) -> Self {
        Self {
            applied: self.applied + u64::from(ok),
            failed: self.failed + u64::from(!ok),
            last_successful: ok,
            last_success: if ok { now } else { self.last_success },
        }
    }
}

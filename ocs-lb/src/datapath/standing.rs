//! What an operator says of backends, and how those that come back get their
//! clients: decided by the model, written by the owner.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use super::owner::{Health, Owner};
use super::read;
use crate::model::BackendSetting;
use crate::model::standing::Standing;
use crate::snapshot::SaidView;
use crate::words::Said;

impl Health {
    /// What decides whom the backend meets.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            healthy: self.healthy,
            word: self.word,
            ramp: self.ramp,
        }
    }
}

impl Owner {
    /// Takes note of what a backend is now, after anything changed that decides
    /// it.
    pub(super) fn note(&mut self, id: usize, slot: usize) {
        let health = &mut self.health[id][slot];
        let mut standing = health.standing();
        standing.observe(&self.model.clusters[id].backends[slot], read::uptime());
        health.ramp = standing.ramp;
    }

    /// Takes an operator's word on a backend; what the datapath refuses leaves
    /// it as it was.
    pub(super) fn set_backend(
        &mut self,
        (cluster, slot): (u16, u16),
        setting: BackendSetting,
        by: String,
    ) -> anyhow::Result<()> {
        let (id, slot) = (usize::from(cluster), usize::from(slot));
        // The file may have changed since the name was looked up.
        let health = self.health.get_mut(id).and_then(|row| row.get_mut(slot));
        let health = health.context("the backend is gone")?;
        let before = (health.word, health.ramp);
        health.word = health.word.with(setting);
        self.note(id, slot);
        let written = self.write_policy(id).and_then(|ready| {
            self.write_identities()?;
            Ok(ready)
        });
        let ready = match written {
            Ok(ready) => ready,
            Err(error) => {
                let health = &mut self.health[id][slot];
                (health.word, health.ramp) = before;
                // Where that is refused too, the next look at the host writes it.
                if self.write_policy(id).is_err() {
                    self.following.waits = Some(format!("{error:#}"));
                }
                return Err(error);
            }
        };
        let found = &self.model.clusters[id];
        let name = found.backend_name(slot as u16);
        tracing::info!(backend = name, to = %setting, "backend set");
        if !ready.contains(&true) {
            tracing::error!(cluster = found.name, "no backend is ready");
        }
        let (cluster, backend) = (&found.name, &found.backends[slot].name);
        let words = &mut self.words;
        tokio::task::block_in_place(|| {
            words.say_of_backend(cluster, backend, setting, by, SystemTime::now())
        })
        .with_context(|| format!("{name} is set to {setting}, but not over the next boot"))
    }

    /// Whether a backend is on its way back, as far as anyone looked.
    pub(super) fn is_ramping(&self) -> bool {
        let mut all = self.health.iter().flatten();
        all.any(|health| health.ramp.since.is_some())
    }

    /// Gives backends that are on their way back the weight that they have now.
    pub(super) fn ramp(&mut self) -> anyhow::Result<()> {
        let now = read::uptime();
        for id in 0..self.model.clusters.len() {
            if self.health[id]
                .iter()
                .any(|health| health.ramp.since.is_some())
            {
                self.ramp_cluster(id, now)?;
            }
        }
        Ok(())
    }

    fn ramp_cluster(&mut self, id: usize, now: Duration) -> anyhow::Result<()> {
        let standings = self.standings(id);
        let policy = self.policy(id, &standings, now);
        let map = &self.running.loaded.maps.clusters;
        // Most looks find the step of the one before.
        if map.get(&(id as u32), 0)? != policy {
            self.write_policy(id)?;
        }
        for (slot, mut standing) in standings.into_iter().enumerate() {
            let backend = &self.model.clusters[id].backends[slot];
            if standing.settle(backend, now) {
                self.health[id][slot].ramp = standing.ramp;
                if !backend.slow_start.is_zero() && !backend.retired {
                    let backend = self.model.clusters[id].backend_name(slot as u16);
                    tracing::info!(backend, "slow start is over");
                }
            }
        }
        Ok(())
    }

    /// Who said something that holds of a backend.
    pub(super) fn said_of<T: PartialEq>(
        words: Option<&Said<T>>,
        holds: Option<&T>,
    ) -> Option<SaidView> {
        let said = words.filter(|said| holds == Some(&said.to))?;
        Some(SaidView {
            by: said.by.clone(),
            at: said.at.clone(),
        })
    }
}

//! What the owner looks at of itself from time to time: live traffic that
//! counts as checks, SNAT ports that run out.

use super::owner::Owner;
use super::read;
use crate::health::observe::{Traffic, failures};
use crate::model::pressure::{CALM, WARN};

/// Cluster, address, backend and port of a SNAT destination.
pub(super) type SnatName = (String, String, String, u16);

impl Owner {
    /// Hands failures of live traffic on to the checks that want them.
    ///
    /// # Errors
    /// A map's.
    pub(super) fn observe(&mut self) -> anyhow::Result<()> {
        for (id, cluster) in self.model.clusters.iter().enumerate() {
            let wants = |check: &crate::model::Check| check.observe;
            let mut checks = cluster.backends.iter().filter_map(|b| b.check.as_ref());
            if !checks.any(wants) {
                continue;
            }
            let load = read::load(&self.running.loaded.maps, id as u16)?;
            for (slot, backend) in cluster.backends.iter().enumerate() {
                let Some(check) = backend.check.as_ref().filter(|check| check.observe) else {
                    continue;
                };
                let now = Traffic {
                    established: load.connections[slot],
                    failed: load.refusals[slot] + load.silences[slot],
                };
                let before = self.health[id][slot].traffic.replace(now);
                let failed = before.map_or(0, |before| failures(before, now, check.fall));
                if failed > 0 {
                    self.checks.observe(id as u16, slot as u16, failed);
                }
            }
        }
        Ok(())
    }

    /// Warns where the flow table fills up, and tells how many events found
    /// their ring full since the last look.
    ///
    /// # Errors
    /// A map's.
    pub(super) fn look_at_tables(&mut self) -> anyhow::Result<()> {
        const FLOWS: &str = "FLOWS4";
        let row = self
            .running
            .loaded
            .bill
            .iter()
            .find(|row| row.name == FLOWS);
        let limit = row.map_or(0, |row| row.capacity as u32);
        let used = self.sweep.entries.min(u64::from(u32::MAX)) as u32;
        if self.full.observe(&FLOWS, used, limit) {
            tracing::warn!(
                map = FLOWS,
                used,
                limit,
                "the flow table fills up: {WARN} % are in use (the next warning comes after less \
                 than {CALM} %); new connections are dropped where it is full; give it more by \
                 tables.flows and a detach"
            );
        }
        let lost = read::events_lost(&self.running.loaded.maps)?;
        let before = self.events_lost.replace(lost);
        let new = before.map_or(0, |before| lost.wrapping_sub(before));
        if new > 0 {
            tracing::warn!(
                events = new,
                "events found their ring full: the controller did not read for a while; \
                 flows are not touched by that, `show events` has gaps"
            );
        }
        Ok(())
    }

    /// Warns of destinations whose SNAT ports run out. Ports that rest are
    /// given away where nothing else is free, so they do not count.
    ///
    /// # Errors
    /// A map's.
    pub(super) fn look_at_snat(&mut self) -> anyhow::Result<()> {
        let maps = &self.running.loaded.maps;
        for row in read::snat(maps, &self.model, &self.running.reach)? {
            let used = row.used.saturating_sub(row.resting);
            let name = (row.cluster, row.address, row.backend, row.port);
            if self.pressure.observe(&name, used, row.limit) {
                let (cluster, address, backend, port) = name;
                tracing::warn!(
                    cluster,
                    backend,
                    port,
                    address,
                    used,
                    limit = row.limit,
                    "SNAT ports run out: {WARN} % are in use (the next warning comes after \
                     less than {CALM} %); add addresses to the pool"
                );
            }
        }
        Ok(())
    }
}

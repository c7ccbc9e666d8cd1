//! Neighbours that the kernel tells of, and those that it is to find.

use std::net::Ipv4Addr;

use super::next_hops;
use super::owner::Owner;
use crate::neighbor::Neighbor;

impl Owner {
    /// Writes what the kernel learned of a neighbour.
    pub(super) fn neighbor(&mut self, neighbor: &Neighbor) -> anyhow::Result<()> {
        let source = self
            .running
            .macs
            .get(&neighbor.ifindex)
            .copied()
            .unwrap_or_default();
        let changed = next_hops::set_neighbor(
            &mut self.running.loaded.maps,
            &self.running.next_hops,
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

    /// Has the kernel find a neighbour again whose entry someone deleted.
    pub(super) async fn restore(&self, ifindex: u32, address: Ipv4Addr) -> anyhow::Result<()> {
        if self.running.kept.contains(&(ifindex, address)) {
            return Ok(self.netlink.keep(ifindex, address).await?);
        }
        if next_hops::is_next_hop(&self.running.loaded.maps, ifindex, address)? {
            self.resolve(ifindex, address).await;
        }
        Ok(())
    }

    /// Has the kernel ask for a neighbour's address.
    pub(super) async fn resolve(&self, ifindex: u32, address: Ipv4Addr) {
        if let Err(error) = self.netlink.probe(ifindex, address).await {
            tracing::warn!(%address, ifindex, %error, "neighbour not resolved");
        }
    }
}

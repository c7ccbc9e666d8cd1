//! The host changes under way: interfaces come and go, addresses move. What
//! the datapath knows of them is brought up to date without a reload.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::attach::{self, Attached};
use super::hook;
use super::next_hops;
use super::owner::Owner;
use super::wires::Wires;
use super::write::told;
use crate::model::attach::Mode;
use crate::neighbor::Link;
use crate::setup;

/// What is compared between two looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Names, indexes, MAC addresses, MTUs, whether they are on and whether XDP
    /// is attached, of the interfaces that matter.
    links: BTreeSet<(String, u32, [u8; 6], u32, bool, bool)>,
    addresses: BTreeSet<(u32, Ipv4Addr)>,
}

impl Host {
    fn of(links: &[Link], addresses: &[(u32, Ipv4Addr)], names: &BTreeSet<String>) -> Self {
        let known = |link: &&Link| names.contains(&link.name);
        let row = |link: &Link| {
            let (name, xdp) = (link.name.clone(), link.xdp.is_some());
            (name, link.ifindex, link.mac, link.mtu, link.up, xdp)
        };
        Self {
            links: links.iter().filter(known).map(row).collect(),
            addresses: addresses.iter().copied().collect(),
        }
    }
}

/// What the owner knows of the host it follows.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// When it was last looked at, unless it never was.
    host: Option<Host>,
    /// Interfaces that served and are gone, with the index they had.
    lost: BTreeMap<String, u32>,
    /// Whether a route changed since the ways to the backends were asked for.
    pub(super) routes: bool,
    /// Why the running model does not hold whole, as it was last said.
    pub(super) waits: Option<String>,
    /// What the drivers do to packets.
    pub(super) wires: Wires,
}

impl Following {
    /// Interfaces that served and are gone.
    pub(super) fn lost(&self) -> Vec<String> {
        self.lost.keys().cloned().collect()
    }
}

impl Owner {
    /// Compares the host with what it was, and applies the running model anew
    /// where something changed.
    ///
    /// # Errors
    /// What could not be read; a map's.
    pub(super) async fn follow_host(&mut self) -> anyhow::Result<()> {
        let (host, links) = self.look_at_host().await?;
        let lost = self.leave_lost(&links)?;
        let moved = self.routes_moved().await;
        self.look_at_wires(&links).await;
        let before = self.following.host.get_or_insert_with(|| host.clone());
        if *before == host && !lost && !moved && self.following.waits.is_none() {
            // An interface that is not served may be a parent, or a way out.
            let running = &mut self.running;
            return setup::links(
                &links,
                &setup::indexes(&running.attached),
                &running.next_hops,
                &mut running.loaded.maps,
            );
        }
        if let Err(error) = self.attach_returned(&links).await {
            self.wait(&error);
            return Ok(());
        }
        for (old, new) in renumbered(&self.following.lost, &links) {
            let moved = next_hops::renumber(&mut self.running.loaded.maps, old, new)?;
            tracing::info!(
                old,
                new,
                moved,
                "an interface is back: its next hops follow"
            );
        }
        let there = |name: &String| links.iter().any(|link| link.name == *name);
        self.following.lost.retain(|name, _| !there(name));
        match self.apply_model((*self.model).clone()).await {
            Ok(()) => {
                tracing::info!("the datapath follows the host's interfaces and addresses");
                self.following.waits = None;
                self.following.host = Some(self.look_at_host().await?.0);
            }
            Err(error) => self.wait(&error),
        }
        Ok(())
    }

    /// What cannot be done now is tried again at the next look, and said once.
    fn wait(&mut self, error: &anyhow::Error) {
        let text = told(error);
        if self.following.waits.as_ref() != Some(&text) {
            tracing::warn!("the host changed, and the datapath waits: {text}");
            self.following.waits = Some(text);
        }
    }

    /// Whether the way to a backend is another than before; asked only where the
    /// kernel told of a changed route.
    async fn routes_moved(&mut self) -> bool {
        if !std::mem::take(&mut self.following.routes) {
            return false;
        }
        let routes = setup::routes(&self.model, &self.netlink).await;
        // Without a route there is something to say.
        routes.map_or(true, |routes| routes != self.running.routes)
    }

    async fn look_at_host(&self) -> anyhow::Result<(Host, Vec<Link>)> {
        let links = self.netlink.links().await?;
        let addresses = self.netlink.addresses().await?;
        let attached = self.running.attached.iter().map(|one| one.name.clone());
        let names = attached
            .chain(self.following.lost.keys().cloned())
            .collect();
        Ok((Host::of(&links, &addresses, &names), links))
    }

    /// Attaches to interfaces that are back, before an address or a route is
    /// there: the host's own stack would answer flows of ours with a RST.
    async fn attach_returned(&mut self, links: &[Link]) -> anyhow::Result<()> {
        let back: Vec<_> = links
            .iter()
            .filter(|link| self.following.lost.contains_key(&link.name))
            .map(|link| (link.clone(), self.model.mode_of(&link.name)))
            .collect();
        if back.is_empty() {
            return Ok(());
        }
        let running = &mut self.running;
        let before = running.attached.len();
        attach::attach_all(
            &mut running.loaded,
            Some(&running.pins),
            links,
            &back,
            &mut running.attached,
        )
        .await?;
        for one in &running.attached[before..] {
            tracing::info!(interface = one.name, "attached again");
        }
        Ok(())
    }

    /// Gives up interfaces whose link is gone, with them or alone; whether
    /// there were any.
    fn leave_lost(&mut self, links: &[Link]) -> anyhow::Result<bool> {
        let running = &mut self.running;
        let loaded = &mut running.loaded;
        let forwards = |one: &Attached| {
            let link = links.iter().find(|link| link.ifindex == one.ifindex);
            link.is_some_and(|link| match one.mode {
                Mode::Native | Mode::Generic => link.xdp.is_some(),
                Mode::Tc => hook::has_tc(loaded, &link.name),
            })
        };
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut running.attached)
            .into_iter()
            .partition(forwards);
        running.attached = kept;
        let any = !gone.is_empty();
        for one in gone {
            tracing::error!(
                interface = one.name,
                "its program is gone: it is attached again as soon as the interface is there"
            );
            self.following.lost.insert(one.name.clone(), one.ifindex);
            attach::detach(&mut running.loaded, Some(&running.pins), one)?;
        }
        Ok(any)
    }
}

/// Interfaces that are back with another index.
fn renumbered(lost: &BTreeMap<String, u32>, links: &[Link]) -> Vec<(u32, u32)> {
    lost.iter()
        .filter_map(|(name, old)| {
            let link = links.iter().find(|link| link.name == *name)?;
            (link.ifindex != *old).then_some((*old, link.ifindex))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_compared() {
        let link = |name: &str, ifindex, xdp| Link {
            ifindex,
            name: name.into(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            up: true,
            xdp,
            ..Link::default()
        };
        let names = BTreeSet::from(["eth0".to_owned()]);
        let address = Ipv4Addr::new(192, 0, 2, 1);
        let of = |links: &[Link], addresses: &[(u32, Ipv4Addr)]| Host::of(links, addresses, &names);
        let usual = of(&[link("eth0", 2, Some(Mode::Native))], &[(2, address)]);
        let other = link("docker0", 9, None);
        let with_another = [link("eth0", 2, Some(Mode::Native)), other];
        assert_eq!(usual, of(&with_another, &[(2, address)]));
        let mut shorter = link("eth0", 2, Some(Mode::Native));
        shorter.mtu = 1400;
        for (links, addresses) in [
            (vec![shorter], vec![(2, address)]),
            (vec![], vec![(2, address)]),
            (
                vec![link("eth0", 3, Some(Mode::Native))],
                vec![(2, address)],
            ),
            (vec![link("eth0", 2, None)], vec![(2, address)]),
            (vec![link("eth0", 2, Some(Mode::Native))], vec![]),
        ] {
            assert_ne!(usual, of(&links, &addresses));
        }
    }
}

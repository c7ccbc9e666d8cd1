//! The host changes under way: interfaces come and go, addresses move. What
//! the datapath knows of them is brought up to date without a reload.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::apply;
use super::attach::{self, Attached};
use super::owner::Owner;
use crate::neighbor::Link;

/// What is compared between two looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Names, indexes, MAC addresses and whether XDP is attached, of the
    /// interfaces that matter.
    links: BTreeSet<(String, u32, [u8; 6], bool)>,
    addresses: BTreeSet<(u32, Ipv4Addr)>,
}

impl Host {
    fn of(links: &[Link], addresses: &[(u32, Ipv4Addr)], names: &BTreeSet<String>) -> Self {
        let known = |link: &&Link| names.contains(&link.name);
        let row = |link: &Link| {
            (
                link.name.clone(),
                link.ifindex,
                link.mac,
                link.xdp.is_some(),
            )
        };
        Self {
            links: links.iter().filter(known).map(row).collect(),
            addresses: addresses.iter().copied().collect(),
        }
    }
}

impl Owner {
    /// Compares the host with what it was, and applies the running model anew
    /// where something changed.
    ///
    /// # Errors
    /// What could not be read; what the host lacks for now.
    pub(super) async fn follow_host(&mut self) -> anyhow::Result<()> {
        let links = self.netlink.links().await?;
        let addresses = self.netlink.addresses().await?;
        let attached = self.running.attached.iter();
        let mut names: BTreeSet<String> = attached.map(|one| one.name.clone()).collect();
        names.extend(self.lost.iter().cloned());
        let host = Host::of(&links, &addresses, &names);
        let Some(before) = self.host.replace(host.clone()) else {
            return Ok(());
        };
        if before == host {
            return Ok(());
        }
        self.say_what_is_lost(&links);
        for (old, new) in renumbered(&self.running.attached, &links) {
            let moved = apply::renumber(&mut self.running.loaded.maps, old, new)?;
            tracing::info!(
                old,
                new,
                moved,
                "an interface came back: its next hops follow"
            );
        }
        let running = &mut self.running;
        // The link of what came back is another one, or none.
        let forwards = |one: &Attached| {
            let mut links = links.iter();
            links.any(|link| link.ifindex == one.ifindex && link.xdp.is_some())
        };
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut running.attached)
            .into_iter()
            .partition(forwards);
        running.attached = kept;
        for one in gone {
            attach::detach(&mut running.loaded, Some(&running.pins), one)?;
        }
        let applied = self.apply_model((*self.model).clone()).await;
        if applied.is_ok() {
            tracing::info!("the host's interfaces or addresses changed: the datapath follows");
            // What it looks like with what was just attached.
            self.host = None;
        } else {
            // Tried again at the next look.
            self.host = Some(before);
        }
        applied
    }

    /// Interfaces that served and are gone.
    fn say_what_is_lost(&mut self, links: &[Link]) {
        for one in &self.running.attached {
            let there = links.iter().any(|link| link.name == one.name);
            if !there && self.lost.insert(one.name.clone()) {
                tracing::error!(
                    interface = one.name,
                    "gone: what it carried waits; it is attached again when it is back"
                );
            }
        }
        self.lost
            .retain(|name| !links.iter().any(|link| link.name == *name));
    }
}

/// Interfaces that have another index under the name they had.
fn renumbered(attached: &[Attached], links: &[Link]) -> Vec<(u32, u32)> {
    attached
        .iter()
        .filter_map(|one| {
            let link = links.iter().find(|link| link.name == one.name)?;
            (link.ifindex != one.ifindex).then_some((one.ifindex, link.ifindex))
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
            veth: false,
            xdp,
        };
        let names = BTreeSet::from(["eth0".to_owned()]);
        let address = Ipv4Addr::new(192, 0, 2, 1);
        let of = |links: &[Link], addresses: &[(u32, Ipv4Addr)]| Host::of(links, addresses, &names);
        let usual = of(&[link("eth0", 2, Some("native"))], &[(2, address)]);
        let other = link("docker0", 9, None);
        let with_another = [link("eth0", 2, Some("native")), other];
        assert_eq!(usual, of(&with_another, &[(2, address)]));
        for (links, addresses) in [
            (vec![], vec![(2, address)]),
            (vec![link("eth0", 3, Some("native"))], vec![(2, address)]),
            (vec![link("eth0", 2, None)], vec![(2, address)]),
            (vec![link("eth0", 2, Some("native"))], vec![]),
        ] {
            assert_ne!(usual, of(&links, &addresses));
        }
    }
}

//! What the drivers of attached interfaces do to packets, and how long those
//! may be: changed under way by others, told with what helps.

use std::collections::{BTreeMap, BTreeSet};

use super::owner::Owner;
use crate::model::attach::{Kind, Mode};
use crate::neighbor::{Link, Offloads, offloads, xdp_features};

/// One interface as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wire {
    mode: Mode,
    /// In bytes, without the Ethernet header.
    mtu: u32,
    offloads: Offloads,
    /// Whether frames that native XDP redirects to it go out; none where the
    /// kernel does not tell (before Linux 6.3).
    transmits: Option<bool>,
}

/// Every attached interface as it was at the last look, by name.
#[derive(Debug, Default)]
pub(super) struct Wires {
    known: BTreeMap<String, Wire>,
    /// What was wrong then.
    problems: BTreeSet<String>,
}

/// What a look found.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    /// What is different, whether it matters or not.
    changes: Vec<String>,
    /// What is wrong now and was not, with the remedy.
    problems: Vec<String>,
    /// What is no longer wrong.
    over: Vec<String>,
}

impl Wires {
    /// Compares with the last look, and remembers this one.
    fn look(&mut self, now: BTreeMap<String, Wire>) -> News {
        let changes = now.iter().filter_map(|(name, wire)| {
            let changes = changes(self.known.get(name)?, wire);
            (!changes.is_empty()).then(|| format!("{name}: {}", changes.join(", ")))
        });
        let changes = changes.collect();
        let problems = problems(&now);
        let news = News {
            changes,
            problems: problems.difference(&self.problems).cloned().collect(),
            over: self.problems.difference(&problems).cloned().collect(),
        };
        self.known = now;
        self.problems = problems;
        news
    }
}

fn changes(before: &Wire, now: &Wire) -> Vec<String> {
    let mut changes = Vec::new();
    if before.mtu != now.mtu {
        changes.push(format!("MTU {} -> {}", before.mtu, now.mtu));
    }
    if before.offloads != now.offloads {
        changes.push(now.offloads.changes(&before.offloads));
    }
    changes
}

/// What keeps packets from going on, with the remedy.
fn problems(wires: &BTreeMap<String, Wire>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (name, wire) in wires {
        for offload in wire.offloads.merging() {
            found.insert(format!(
                "{name}: its driver merges packets before they are translated, and the merged \
                 ones are lost; switch that off: `ethtool -K {name} {offload} off`"
            ));
        }
        if wire.transmits == Some(false) && wire.mode == Mode::Native {
            found.insert(format!(
                "{name}: it takes no frames of XDP, and packets that leave by it are lost; switch \
                 on GRO at the other end of the pair: `ethtool -K PEER gro on`"
            ));
        }
    }
    let longest = wires.values().map(|wire| wire.mtu).max();
    for (name, wire) in wires {
        if let Some(longest) = longest.filter(|longest| wire.mtu < *longest) {
            found.insert(format!(
                "{name}: its MTU is {}, and that of another interface {longest}: longer packets do \
                 not leave by it; give both the same: `ip link set dev {name} mtu {longest}`",
                wire.mtu
            ));
        }
    }
    found
}

impl Owner {
    /// Says what changed at the attached interfaces. A driver tells of its
    /// offloads by a link message (`NETDEV_FEAT_CHANGE`), of what the other
    /// end of a pair does not at all: so this comes after each sweep, too.
    pub(super) async fn look_at_wires(&mut self, links: &[Link]) {
        let features = xdp_features().ok();
        let mut now = BTreeMap::new();
        for one in &self.running.attached {
            let Some(link) = links.iter().find(|link| link.ifindex == one.ifindex) else {
                continue;
            };
            let before = self.following.wires.known.get(&link.name);
            let offloads = match offloads(&link.name).await {
                Ok(offloads) => offloads,
                Err(error) => {
                    tracing::debug!(%error, "its offloads are as they were");
                    before.map(|before| before.offloads).unwrap_or_default()
                }
            };
            let of_link = |features: &BTreeMap<u32, _>| features.get(&link.ifindex).copied();
            // Of other drivers than veth this says what they could do.
            let features = features
                .as_ref()
                .map(|all| of_link(all).unwrap_or_default());
            let wire = Wire {
                mode: one.mode,
                mtu: link.mtu,
                offloads,
                transmits: features
                    .filter(|_| link.kind == Kind::Veth)
                    .map(|found| found.transmits()),
            };
            now.insert(link.name.clone(), wire);
        }
        let news = self.following.wires.look(now);
        for change in news.changes {
            tracing::info!("changed: {change}");
        }
        for problem in news.problems {
            tracing::warn!("{problem}");
        }
        for problem in news.over {
            tracing::info!("no longer: {problem}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Wire = Wire {
        mode: Mode::Native,
        mtu: 1500,
        offloads: Offloads {
            rx_checksum: true,
            tx_checksum: true,
            tso: true,
            gso: true,
            gro: true,
            lro: false,
            gro_hw: false,
        },
        transmits: Some(true),
    };

    fn pair(second: Wire) -> BTreeMap<String, Wire> {
        BTreeMap::from([("eth0".to_owned(), USUAL), ("eth1".to_owned(), second)])
    }

    fn changed(second: Wire) -> (News, News) {
        let mut wires = Wires::default();
        assert_eq!(wires.look(pair(USUAL)), News::default());
        let news = wires.look(pair(second));
        // Said once.
        assert_eq!(wires.look(pair(second)), News::default());
        (news, wires.look(pair(USUAL)))
    }

    #[test]
    fn what_does_not_matter_is_told_without_alarm() {
        let mut other = USUAL;
        other.offloads.gro = false;
        other.offloads.tso = false;
        let (news, back) = changed(other);
        assert_eq!(news.changes, ["eth1: tso on -> off, gro on -> off"]);
        assert!(news.problems.is_empty());
        assert_eq!(back.changes, ["eth1: tso off -> on, gro off -> on"]);
        assert!(back.over.is_empty());
    }

    #[test]
    fn merging_before_xdp_is_told_with_the_remedy() {
        let mut other = USUAL;
        other.offloads.lro = true;
        other.offloads.gro_hw = true;
        let (news, back) = changed(other);
        for (problem, remedy) in news.problems.iter().zip([
            "`ethtool -K eth1 lro off`",
            "`ethtool -K eth1 rx-gro-hw off`",
        ]) {
            assert!(problem.ends_with(remedy), "{problem}");
        }
        assert_eq!(news.problems.len(), 2);
        assert_eq!(back.over, news.problems);
    }

    #[test]
    fn the_shorter_mtu_is_named() {
        let (news, back) = changed(Wire { mtu: 1400, ..USUAL });
        assert_eq!(news.changes, ["eth1: MTU 1500 -> 1400"]);
        assert_eq!(news.problems.len(), 1);
        let problem = &news.problems[0];
        assert!(
            problem.ends_with("`ip link set dev eth1 mtu 1500`"),
            "{problem}"
        );
        assert_eq!(back.over, news.problems);
        let (news, _) = changed(Wire { mtu: 9000, ..USUAL });
        let problem = &news.problems[0];
        assert!(
            problem.ends_with("`ip link set dev eth0 mtu 9000`"),
            "{problem}"
        );
    }

    #[test]
    fn a_wire_that_takes_no_frames_matters_to_native_xdp() {
        let lost = Wire {
            transmits: Some(false),
            ..USUAL
        };
        let (news, _) = changed(lost);
        assert!(news.problems[0].contains("gro on"), "{news:?}");
        for wire in [
            Wire {
                mode: Mode::Generic,
                ..lost
            },
            Wire {
                transmits: None,
                ..USUAL
            },
        ] {
            assert_eq!(changed(wire).0, News::default());
        }
    }
}

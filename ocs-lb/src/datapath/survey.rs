//! What the host says of interfaces, for the choice of their modes.

use std::collections::BTreeMap;

use super::attach::Attached;
use super::hook;
use super::pins::Pins;
use crate::model::AttachMode;
use crate::model::attach::{Facts, Kind, Mode, Partial, Support};
use crate::neighbor::{Link, Offloads, XdpFeatures, driver, offloads, peer, xdp_features};

/// Facts of the wanted interfaces, in their order, and after them of those that
/// are attached and not among them.
pub(super) async fn survey(
    pins: Option<&Pins>,
    links: &[Link],
    wanted: &[(Link, AttachMode)],
    attached: &[Attached],
) -> Vec<Facts> {
    // Linux before 6.3 does not tell.
    let features = xdp_features().ok();
    let has = |link: &Link| {
        let known = attached.iter().find(|one| one.ifindex == link.ifindex);
        known.map(|one| one.mode).or_else(|| {
            let pinned = pins?.take_link(link.ifindex)?;
            hook::mode_of(link, &pinned)
        })
    };
    let others = attached.iter().filter_map(|one| {
        let known = wanted.iter().any(|(link, _)| link.ifindex == one.ifindex);
        let link = links.iter().find(|link| link.ifindex == one.ifindex);
        link.filter(|_| !known)
    });
    let all = wanted
        .iter()
        .map(|(link, mode)| (link, *mode))
        .chain(others.map(|link| (link, AttachMode::Auto)));
    let mut found = Vec::new();
    for (link, mode) in all {
        // Linux before 5.6 does not tell.
        let offloads = offloads(&link.name).await.unwrap_or_default();
        let mut one = facts(link, mode, has(link), links, features.as_ref());
        one.partial = partial(link, offloads);
        one.lro = offloads.lro;
        one.gro_hw = offloads.gro_hw;
        found.push(one);
    }
    found
}

/// Facts of one interface.
fn facts(
    link: &Link,
    wanted: AttachMode,
    has: Option<Mode>,
    links: &[Link],
    features: Option<&BTreeMap<u32, XdpFeatures>>,
) -> Facts {
    let master = links.iter().find(|one| Some(one.ifindex) == link.master);
    let features = features.map(|all| all.get(&link.ifindex).copied().unwrap_or_default());
    let other = link
        .xdp_program
        .filter(|_| has.is_none() || has == Some(Mode::Tc));
    Facts {
        name: link.name.clone(),
        kind: link.kind.clone(),
        ethernet: link.ethernet,
        master: master.map(|one| (one.name.clone(), one.kind.clone())),
        wanted,
        has,
        native: match features {
            None => Support::Unknown,
            Some(features) if features.runs() => Support::Yes,
            Some(_) => Support::No("its driver has none".into()),
        },
        transmits: match features {
            Some(features) if features.transmits() => Support::Yes,
            // Its state hangs on the peer's; other drivers make room when a
            // program is attached.
            Some(_) if link.kind == Kind::Veth => Support::No(
                "its peer has neither an XDP program nor GRO (`ethtool -K PEER gro on`)".into(),
            ),
            _ => Support::Unknown,
        },
        partial: Partial::No,
        lro: false,
        gro_hw: false,
        other_xdp: other.map(|id| hook::name("XDP", id)),
    }
}

fn partial(link: &Link, offloads: Offloads) -> Partial {
    match link.kind {
        // Its driver has the host fill them in while XDP is attached natively.
        Kind::Card
            if offloads.rx_checksum && driver(&link.name).as_deref() == Some("virtio_net") =>
        {
            Partial::UnlessNative
        }
        Kind::Veth => match peer(link) {
            Some(peer) if peer.offload => Partial::Yes(format!(
                "switch that off at its peer (`ethtool -K {} tx off`)",
                peer.name
            )),
            Some(_) => Partial::No,
            None => {
                Partial::Unknown("its peer is in a namespace that cannot be found from here".into())
            }
        },
        Kind::Tap => Partial::Unknown("a virtual machine may leave them out".into()),
        _ => Partial::No,
    }
}

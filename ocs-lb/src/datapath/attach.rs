//! Programs on interfaces.

use std::collections::BTreeSet;

use aya::programs::links::FdLink;
use ocs_lb_common::abi::{INTERFACE_INDEX_MASK, INTERFACE_NO_TX, INTERFACE_SLOTS};

use super::hook;
use super::load::{LoadError, Loaded};
use super::pins::{PinError, Pins};
use super::survey::survey;
use crate::model::AttachMode;
use crate::model::attach::{Choice, Kind, Mode, Refusal, Support, plan};
use crate::neighbor::Link;

/// Why the program could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The object is not what it should be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel refused.
    #[error("{interface}: {source}{hint}")]
    Program {
        /// The interface.
        interface: String,
        /// Why.
        source: Box<aya::programs::ProgramError>,
        /// What may be in the way.
        hint: String,
    },
    /// The interfaces do not allow it.
    #[error("interfaces: {0}")]
    Refused(#[from] Refusal),
    /// No tcx.
    #[error(
        "{0}: mode tc needs Linux 6.6 or later: an older kernel's traffic control has no links \
         that outlive the controller; use `mode: generic`"
    )]
    NoTcx(String),
    /// A map refused the interface.
    #[error("{interface}: {source}")]
    Map {
        /// The interface.
        interface: String,
        /// Why.
        source: aya::maps::MapError,
    },
    /// The device map refused the interface.
    #[error("{interface}: {source}")]
    Device {
        /// The interface.
        interface: String,
        /// Why.
        source: aya::maps::xdp::XdpMapError,
    },
    /// The link is no file descriptor.
    #[error("{0}: the kernel has no BPF links for XDP; Linux 5.9 or later is needed")]
    NoLink(String),
    /// The link's pin.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The link could not be pinned.
    #[error("{interface}: its link is not pinned: {source}")]
    NotPinned {
        /// The interface.
        interface: String,
        /// Why.
        source: aya::pin::PinError,
    },
    /// Too many.
    #[error("{0}: more than {max} interfaces", max = INTERFACE_SLOTS - 1)]
    TooMany(String),
    /// Two interface indexes fall on one slot.
    #[error("{0}: its index collides with another interface's; recreate one of the two")]
    Collision(String),
}

/// A program on an interface; dropping it detaches where it is not pinned.
pub struct Attached {
    /// Kernel name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// Where its packets meet the program.
    pub mode: Mode,
    /// Why so.
    pub reason: String,
    /// Slot of its counters.
    pub slot: u32,
    /// Whether it forwarded before this process came.
    pub adopted: bool,
    _link: FdLink,
}

/// Attaches to one more interface and lets it take redirected packets. A link
/// that is pinned gets the new program at once, without a packet in between.
///
/// # Errors
/// [`AttachError`]; the interface is as before then.
fn attach(
    loaded: &mut Loaded,
    pins: Option<&Pins>,
    attached: &[Attached],
    target: &Link,
    choice: &Choice,
) -> Result<Attached, AttachError> {
    let (name, ifindex) = (target.name.as_str(), target.ifindex);
    let interface = || name.to_owned();
    let index = ifindex & INTERFACE_INDEX_MASK;
    if attached
        .iter()
        .any(|other| other.ifindex & INTERFACE_INDEX_MASK == index)
    {
        return Err(AttachError::Collision(interface()));
    }
    let map = |source| AttachError::Map {
        interface: interface(),
        source,
    };
    let slot = slot(loaded, index)
        .map_err(map)?
        .ok_or_else(|| AttachError::TooMany(interface()))?;
    let no_tx = if target.kind == Kind::Veth {
        INTERFACE_NO_TX
    } else {
        0
    };
    loaded
        .maps
        .interfaces
        .set(index, (slot + 1) | no_tx, 0)
        .map_err(map)?;
    loaded
        .maps
        .devices
        .insert(ifindex, ifindex, None, 0)
        .map_err(|source| AttachError::Device {
            interface: interface(),
            source,
        })?;
    let taken = match pins.and_then(|pins| pins.take_link(ifindex)) {
        Some(link) => hook::take_on(loaded, target, link)?,
        None => None,
    };
    let adopted = taken.is_some();
    let (link, mode) = match taken {
        Some(taken) => taken,
        None => {
            let link = hook::create(loaded, target, choice.mode)?;
            (pin(pins, target, link)?, choice.mode)
        }
    };
    Ok(Attached {
        name: interface(),
        ifindex,
        mode,
        reason: choice.reason.clone(),
        slot,
        adopted,
        _link: link,
    })
}

/// The slot of an interface's counters: the one it has, or one that no other
/// interface has. The last counts packets of interfaces without one.
fn slot(loaded: &Loaded, index: u32) -> Result<Option<u32>, aya::maps::MapError> {
    let of = |value: u32| (value & !INTERFACE_NO_TX).checked_sub(1);
    let interfaces = &loaded.maps.interfaces;
    if let Some(slot) = of(interfaces.get(&index, 0)?) {
        return Ok(Some(slot));
    }
    let taken: BTreeSet<u32> = interfaces
        .iter()
        .map(|value| value.map(of))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect();
    Ok((0..INTERFACE_SLOTS - 1).find(|slot| !taken.contains(slot)))
}

/// Pins a new link, so that it outlives this process.
fn pin(pins: Option<&Pins>, target: &Link, link: FdLink) -> Result<FdLink, AttachError> {
    let Some(pins) = pins else {
        return Ok(link);
    };
    pins.forget_link(target.ifindex)?;
    let pinned = link
        .pin(pins.link(target.ifindex))
        .map_err(|source| AttachError::NotPinned {
            interface: target.name.clone(),
            source,
        })?;
    Ok(pinned.into())
}

/// Takes the program off an interface.
///
/// # Errors
/// A pin's or a map's; then it may forward still.
pub fn detach(
    loaded: &mut Loaded,
    pins: Option<&Pins>,
    attached: Attached,
) -> Result<(), AttachError> {
    if let Some(pins) = pins {
        pins.forget_link(attached.ifindex)?;
    }
    forget(loaded, attached.ifindex)
}

/// Gives back an interface's slot, and lets it take no redirected packet.
///
/// # Errors
/// A map's.
pub fn forget(loaded: &mut Loaded, ifindex: u32) -> Result<(), AttachError> {
    let map = |source| AttachError::Map {
        interface: format!("interface {ifindex}"),
        source,
    };
    let maps = &mut loaded.maps;
    maps.interfaces
        .set(ifindex & INTERFACE_INDEX_MASK, 0, 0)
        .map_err(map)?;
    match maps.devices.remove(ifindex) {
        Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(source) => Err(map(source)),
    }
}

/// Whether every interface of a list can be served beside those that are, before
/// anything is written.
///
/// # Errors
/// [`AttachError::Refused`].
pub async fn check(
    pins: &Pins,
    links: &[Link],
    wanted: &[(Link, AttachMode)],
    attached: &[Attached],
) -> Result<(), AttachError> {
    plan(&survey(Some(pins), links, wanted, attached).await)?;
    Ok(())
}

/// Attaches to the interfaces of a list where nothing is attached yet, in modes
/// that go together with each other and with those of `attached`.
///
/// # Errors
/// [`AttachError`]; what was not attached before is not attached then.
pub async fn attach_all(
    loaded: &mut Loaded,
    pins: Option<&Pins>,
    links: &[Link],
    wanted: &[(Link, AttachMode)],
    attached: &mut Vec<Attached>,
) -> Result<(), AttachError> {
    let before = attached.len();
    let mut facts = survey(pins, links, wanted, attached).await;
    loop {
        let choices = plan(&facts)?;
        let Err((at, error)) = attach_each(loaded, pins, wanted, &choices, attached) else {
            log(loaded, &attached[before..]);
            return Ok(());
        };
        give_up(loaded, pins, attached, before);
        // A driver may promise more than it can do now (queues, memory).
        let one = &mut facts[at];
        let automatic = one.wanted == AttachMode::Auto && choices[at].mode == Mode::Native;
        if !automatic || one.native.is_no() {
            return Err(error);
        }
        one.native = Support::No(error.to_string());
    }
}

fn attach_each(
    loaded: &mut Loaded,
    pins: Option<&Pins>,
    wanted: &[(Link, AttachMode)],
    choices: &[Choice],
    attached: &mut Vec<Attached>,
) -> Result<(), (usize, AttachError)> {
    for (at, ((link, _), choice)) in wanted.iter().zip(choices).enumerate() {
        if attached.iter().any(|one| one.ifindex == link.ifindex) {
            continue;
        }
        let one = attach(loaded, pins, attached, link, choice).map_err(|error| (at, error))?;
        attached.push(one);
    }
    Ok(())
}

/// Says where it was attached, how and why, and who else is there.
fn log(loaded: &mut Loaded, attached: &[Attached]) {
    for one in attached {
        let how = if one.adopted { "taken on" } else { "attached" };
        tracing::info!(interface = one.name, mode = %one.mode, reason = one.reason, "{how}");
        for other in hook::others_at_tc(loaded, &one.name) {
            tracing::info!(
                interface = one.name,
                other,
                "another program sees what is not served"
            );
        }
    }
}

/// Detaches what this process attached; what forwarded before goes on.
fn give_up(loaded: &mut Loaded, pins: Option<&Pins>, attached: &mut Vec<Attached>, before: usize) {
    for one in attached.split_off(before) {
        if one.adopted {
            continue;
        }
        if let Err(error) = detach(loaded, pins, one) {
            tracing::warn!(%error, "not detached");
        }
    }
}

//! Programs on interfaces.

use std::collections::BTreeSet;

use aya::programs::XdpMode;
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpLink;
use ocs_lb_common::abi::{INTERFACE_INDEX_MASK, INTERFACE_NO_TX, INTERFACE_SLOTS};

use super::load::{LoadError, Loaded, xdp};
use super::pins::{PinError, Pins};
use crate::model::AttachMode;
use crate::neighbor::Link;

/// Why the program could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The object is not what it should be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel refused.
    #[error(
        "{interface}: {source}; another XDP program may be attached (`ip link show dev {interface}`)"
    )]
    Program {
        /// The interface.
        interface: String,
        /// Why.
        source: Box<aya::programs::ProgramError>,
    },
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
    /// `native` or `generic`.
    pub mode: &'static str,
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
pub fn attach(
    loaded: &mut Loaded,
    pins: Option<&Pins>,
    attached: &[Attached],
    target: &Link,
    mode: AttachMode,
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
    loaded
        .maps
        .interfaces
        .set(
            index,
            (slot + 1) | if target.veth { INTERFACE_NO_TX } else { 0 },
            0,
        )
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
        Some(link) => take_on(loaded, target, link, mode)?,
        None => None,
    };
    let adopted = taken.is_some();
    let (link, mode) = match taken {
        Some(taken) => taken,
        None => {
            let (link, mode) = link(loaded, name, ifindex, mode)?;
            (pin(pins, target, link)?, mode)
        }
    };
    Ok(Attached {
        name: interface(),
        ifindex,
        mode,
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

/// Replaces the program of a link that forwards already. Nothing where the
/// link turns out to have lost its interface.
fn take_on(
    loaded: &mut Loaded,
    target: &Link,
    link: FdLink,
    mode: AttachMode,
) -> Result<Option<(FdLink, &'static str)>, AttachError> {
    let no_link = |_| AttachError::NoLink(target.name.clone());
    let program = xdp(&mut loaded.ebpf)?;
    let link = XdpLink::try_from(link).map_err(no_link)?;
    let id = match program.attach_to_link(link) {
        Ok(id) => id,
        Err(error) => {
            tracing::warn!(interface = target.name, %error, "its link is gone; attaching anew");
            return Ok(None);
        }
    };
    let link = program
        .take_link(id)
        .map_err(|source| refused(&target.name, source))?;
    let has = target.xdp.unwrap_or("native");
    let wanted = match mode {
        AttachMode::Auto => has,
        AttachMode::Native => "native",
        AttachMode::Generic => "generic",
    };
    if wanted != has {
        tracing::warn!(
            interface = target.name,
            has,
            wanted,
            "the mode of a link cannot change while it forwards; `ocs-lb detach` and start for that"
        );
    }
    Ok(Some((FdLink::try_from(link).map_err(no_link)?, has)))
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

/// Attaches to every interface. Native and generic do not mix where the mode
/// is `auto`: a packet that native XDP redirects needs a driver that takes it.
///
/// # Errors
/// [`AttachError`]; what was not attached before is not attached then.
pub fn attach_all(
    loaded: &mut Loaded,
    pins: Option<&Pins>,
    interfaces: &[(Link, AttachMode)],
) -> Result<Vec<Attached>, AttachError> {
    let mut attached = Vec::new();
    if let Err(error) = attach_each(loaded, pins, interfaces, &mut attached) {
        give_up(loaded, pins, attached);
        return Err(error);
    }
    let mixed = attached.iter().any(|one| one.mode != attached[0].mode);
    let automatic = |(_, mode): &(Link, AttachMode)| *mode == AttachMode::Auto;
    if !mixed || !interfaces.iter().any(automatic) {
        return Ok(attached);
    }
    give_up(loaded, pins, attached);
    tracing::warn!("not every interface has native XDP; all are attached in generic mode");
    let generic: Vec<_> = interfaces
        .iter()
        .map(|(link, mode)| match mode {
            AttachMode::Auto => (link.clone(), AttachMode::Generic),
            mode => (link.clone(), *mode),
        })
        .collect();
    let mut attached = Vec::new();
    match attach_each(loaded, pins, &generic, &mut attached) {
        Ok(()) => Ok(attached),
        Err(error) => {
            give_up(loaded, pins, attached);
            Err(error)
        }
    }
}

fn attach_each(
    loaded: &mut Loaded,
    pins: Option<&Pins>,
    interfaces: &[(Link, AttachMode)],
    attached: &mut Vec<Attached>,
) -> Result<(), AttachError> {
    for (link, mode) in interfaces {
        let one = attach(loaded, pins, attached, link, *mode)?;
        attached.push(one);
    }
    Ok(())
}

/// Detaches what this process attached; what forwarded before goes on.
fn give_up(loaded: &mut Loaded, pins: Option<&Pins>, attached: Vec<Attached>) {
    for one in attached.into_iter().filter(|one| !one.adopted) {
        if let Err(error) = detach(loaded, pins, one) {
            tracing::warn!(%error, "not detached");
        }
    }
}

fn link(
    loaded: &mut Loaded,
    name: &str,
    ifindex: u32,
    mode: AttachMode,
) -> Result<(FdLink, &'static str), AttachError> {
    let program = xdp(&mut loaded.ebpf)?;
    let tries: &[(XdpMode, &str)] = match mode {
        AttachMode::Auto => &[(XdpMode::Driver, "native"), (XdpMode::Skb, "generic")],
        AttachMode::Native => &[(XdpMode::Driver, "native")],
        AttachMode::Generic => &[(XdpMode::Skb, "generic")],
    };
    let mut last = None;
    for (flags, label) in tries {
        match program.attach_to_if_index(ifindex, *flags) {
            Ok(id) => {
                let link = program
                    .take_link(id)
                    .map_err(|source| refused(name, source))?;
                // aya falls back to a netlink link in silence; that one cannot
                // be pinned or replaced atomically.
                let link =
                    FdLink::try_from(link).map_err(|_| AttachError::NoLink(name.to_owned()))?;
                return Ok((link, label));
            }
            Err(error) => {
                if mode == AttachMode::Auto && *flags == XdpMode::Driver {
                    tracing::warn!(interface = name, %error, "no native XDP; trying generic");
                }
                last = Some(refused(name, error));
            }
        }
    }
    Err(last.unwrap_or_else(|| AttachError::NoLink(name.to_owned())))
}

fn refused(name: &str, source: aya::programs::ProgramError) -> AttachError {
    AttachError::Program {
        interface: name.to_owned(),
        source: Box::new(source),
    }
}

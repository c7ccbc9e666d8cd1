//! Programs on interfaces.

use aya::programs::XdpMode;
use aya::programs::links::FdLink;
use ocs_lb_common::abi::{INTERFACE_INDEX_MASK, INTERFACE_NO_TX, INTERFACE_SLOTS};

use super::load::{LoadError, Loaded, xdp};
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
    /// Too many.
    #[error("{0}: more than {max} interfaces", max = INTERFACE_SLOTS - 1)]
    TooMany(String),
    /// Two interface indexes fall on one slot.
    #[error("{0}: its index collides with another interface's; recreate one of the two")]
    Collision(String),
}

/// A program on an interface; dropping it detaches.
pub struct Attached {
    /// Kernel name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// `native` or `generic`.
    pub mode: &'static str,
    /// Slot of its counters.
    pub slot: u32,
    _link: FdLink,
}

/// Attaches to one more interface and lets it take redirected packets.
///
/// # Errors
/// [`AttachError`]; the interface is as before then.
fn attach(
    loaded: &mut Loaded,
    attached: &[Attached],
    target: &Link,
    mode: AttachMode,
) -> Result<Attached, AttachError> {
    let (name, ifindex) = (target.name.as_str(), target.ifindex);
    let interface = || name.to_owned();
    let slot = attached.len() as u32;
    // The last slot counts packets of interfaces without one.
    if slot >= INTERFACE_SLOTS - 1 {
        return Err(AttachError::TooMany(interface()));
    }
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
    let (link, mode) = link(loaded, name, ifindex, mode)?;
    Ok(Attached {
        name: interface(),
        ifindex,
        mode,
        slot,
        _link: link,
    })
}

/// Attaches to every interface. Native and generic do not mix where the mode
/// is `auto`: a packet that native XDP redirects needs a driver that takes it.
///
/// # Errors
/// [`AttachError`]; nothing stays attached then.
pub fn attach_all(
    loaded: &mut Loaded,
    interfaces: &[(Link, AttachMode)],
) -> Result<Vec<Attached>, AttachError> {
    let attached = attach_each(loaded, interfaces)?;
    let mixed = attached.iter().any(|one| one.mode != attached[0].mode);
    let automatic = |(_, mode): &(Link, AttachMode)| *mode == AttachMode::Auto;
    if !mixed || !interfaces.iter().any(automatic) {
        return Ok(attached);
    }
    drop(attached);
    tracing::warn!("not every interface has native XDP; all are attached in generic mode");
    let generic: Vec<_> = interfaces
        .iter()
        .map(|(link, mode)| match mode {
            AttachMode::Auto => (link.clone(), AttachMode::Generic),
            mode => (link.clone(), *mode),
        })
        .collect();
    attach_each(loaded, &generic)
}

fn attach_each(
    loaded: &mut Loaded,
    interfaces: &[(Link, AttachMode)],
) -> Result<Vec<Attached>, AttachError> {
    let mut attached = Vec::new();
    for (link, mode) in interfaces {
        let one = attach(loaded, &attached, link, *mode)?;
        attached.push(one);
    }
    Ok(attached)
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

//! The kernel's hold of a program on an interface: a BPF link at XDP or at the
//! ingress of traffic control, with its program replaced in place.

use aya::programs::links::{FdLink, LinkType};
use aya::programs::tc::TcAttachOptions;
use aya::programs::xdp::XdpLink;
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, XdpMode, loaded_programs,
};

use super::attach::AttachError;
use super::load::{Loaded, tc, xdp};
use crate::model::attach::Mode;
use crate::neighbor::Link;

/// The program as operators know it: `XDP program 12 (dispatcher)`.
pub(super) fn name(what: &str, id: u32) -> String {
    let named = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned));
    named.map_or_else(
        || format!("{what} program {id}"),
        |name| format!("{what} program {id} ({name})"),
    )
}

/// Attaches to an interface where nothing of ours is.
///
/// # Errors
/// The kernel's.
pub(super) fn create(
    loaded: &mut Loaded,
    target: &Link,
    mode: Mode,
) -> Result<FdLink, AttachError> {
    match mode {
        Mode::Native => xdp_link(loaded, target, XdpMode::Driver),
        Mode::Generic => xdp_link(loaded, target, XdpMode::Skb),
        Mode::Tc => tcx_link(loaded, target),
    }
}

fn xdp_link(loaded: &mut Loaded, target: &Link, mode: XdpMode) -> Result<FdLink, AttachError> {
    let program = xdp(&mut loaded.ebpf)?;
    let id = program
        .attach_to_if_index(target.ifindex, mode)
        .map_err(|source| refused(target, source))?;
    let link = program
        .take_link(id)
        .map_err(|source| refused(target, source))?;
    // aya falls back to a netlink link in silence; that one cannot be pinned
    // or replaced atomically.
    FdLink::try_from(link).map_err(|_| AttachError::NoLink(target.name.clone()))
}

/// Before every other tcx program: what is ours is not theirs to see, as with
/// XDP.
fn tcx_link(loaded: &mut Loaded, target: &Link) -> Result<FdLink, AttachError> {
    let program = tc(&mut loaded.ebpf)?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program
        .attach_with_options(&target.name, TcAttachType::Ingress, options)
        .map_err(|source| {
            if has_tcx() {
                refused(target, source)
            } else {
                AttachError::NoTcx(target.name.clone())
            }
        })?;
    let link = program
        .take_link(id)
        .map_err(|source| refused(target, source))?;
    FdLink::try_from(link).map_err(|_| AttachError::NoTcx(target.name.clone()))
}

fn refused(target: &Link, source: ProgramError) -> AttachError {
    let there = target.xdp_program.map(|id| name("XDP", id));
    AttachError::Program {
        interface: target.name.clone(),
        source: Box::new(source),
        hint: there.map_or_else(String::new, |there| {
            format!(
                "; {there} is attached there: take it off (`ip link set dev {} xdp off`), or use \
                 `mode: tc`",
                target.name
            )
        }),
    }
}

/// The mode of a link that is pinned; nothing where it is another kind of link.
pub(super) fn mode_of(target: &Link, link: &FdLink) -> Option<Mode> {
    match link.info().ok()?.link_type().ok()? {
        LinkType::Xdp => Some(target.xdp.unwrap_or(Mode::Native)),
        LinkType::Tcx => Some(Mode::Tc),
        _ => None,
    }
}

/// Replaces the program of a link that forwards already. Nothing where the
/// link turns out to have lost its interface.
///
/// # Errors
/// The kernel's.
pub(super) fn take_on(
    loaded: &mut Loaded,
    target: &Link,
    link: FdLink,
) -> Result<Option<(FdLink, Mode)>, AttachError> {
    let Some(mode) = mode_of(target, &link) else {
        return Ok(None);
    };
    let no_link = |_| AttachError::NoLink(target.name.clone());
    let taken = match mode {
        Mode::Native | Mode::Generic => {
            let program = xdp(&mut loaded.ebpf)?;
            let link = XdpLink::try_from(link).map_err(no_link)?;
            let id = program.attach_to_link(link);
            id.and_then(|id| program.take_link(id))
                .map(FdLink::try_from)
        }
        Mode::Tc => {
            let program = tc(&mut loaded.ebpf)?;
            let link = link.try_into().map_err(no_link)?;
            let id = program.attach_to_link(link);
            id.and_then(|id| program.take_link(id))
                .map(FdLink::try_from)
        }
    };
    match taken {
        Ok(link) => Ok(Some((link.map_err(no_link)?, mode))),
        Err(error) => {
            tracing::warn!(interface = target.name, %error, "its link is gone; attaching anew");
            Ok(None)
        }
    }
}

/// Whether our program is at the ingress of traffic control.
pub(super) fn has_tc(loaded: &mut Loaded, name: &str) -> bool {
    let Ok(own) = tc(&mut loaded.ebpf).map(|program| program.info()) else {
        return false;
    };
    let Ok((_, programs)) = SchedClassifier::query_tcx(name, TcAttachType::Ingress) else {
        return false;
    };
    own.is_ok_and(|own| programs.iter().any(|one| one.id() == own.id()))
}

/// Programs of others at the ingress of traffic control, in their order.
pub(super) fn others_at_tc(loaded: &mut Loaded, interface: &str) -> Vec<String> {
    let own = tc(&mut loaded.ebpf)
        .ok()
        .and_then(|program| program.info().ok());
    // Linux before 6.6 has none.
    let Ok((_, programs)) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress) else {
        return Vec::new();
    };
    programs
        .iter()
        .filter(|one| own.as_ref().is_none_or(|own| own.id() != one.id()))
        .map(|one| name("tcx", one.id()))
        .collect()
}

/// Links at traffic control came with Linux 6.6.
fn has_tcx() -> bool {
    aya::util::KernelVersion::current()
        .is_ok_and(|version| version >= aya::util::KernelVersion::new(6, 6, 0))
}

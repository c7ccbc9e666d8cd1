//! Kinds of links beside veth and bridge, and neighbours. Every function works
//! in the namespace of the calling thread.

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

use anyhow::Context as _;
use rtnetlink::packet_route::link::{BondMode, LinkMessage, MacVlanMode};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::{LinkBond, LinkDummy, LinkMacVlan, LinkVlan, LinkVxlan};

use crate::link::{self, connect, down, enslave, index, up};

/// A link that is made; whether this kernel knows its kind.
async fn make(message: LinkMessage) -> anyhow::Result<bool> {
    match connect()?.link().add(message).execute().await {
        Ok(()) => Ok(true),
        Err(rtnetlink::Error::NetlinkError(error))
            if error.raw_code() == -nix::libc::EOPNOTSUPP =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes a bridge with one port; switched on.
///
/// # Errors
/// netlink's.
pub async fn bridge_over(name: &str, port: &str) -> anyhow::Result<()> {
    link::bridge(name).await?;
    enslave(port, name).await?;
    up(port).await
}

/// Makes a macvlan; switched on.
///
/// # Errors
/// netlink's.
pub async fn macvlan(name: &str, parent: &str) -> anyhow::Result<bool> {
    let parent_index = index(&connect()?, parent).await?;
    let made = make(LinkMacVlan::new(name, parent_index, MacVlanMode::Bridge).build()).await?;
    if made {
        up(parent).await?;
        up(name).await?;
    }
    Ok(made)
}

/// Makes a VLAN sub-interface; switched on.
///
/// # Errors
/// netlink's.
pub async fn vlan(name: &str, parent: &str, id: u16) -> anyhow::Result<bool> {
    let parent_index = index(&connect()?, parent).await?;
    let made = make(LinkVlan::new(name, parent_index, id).build()).await?;
    if made {
        up(parent).await?;
        up(name).await?;
    }
    Ok(made)
}

/// Makes a bond with one port; switched on.
///
/// # Errors
/// netlink's.
pub async fn bond(name: &str, port: &str) -> anyhow::Result<bool> {
    let bond = LinkBond::new(name).mode(BondMode::ActiveBackup).build();
    if !make(bond).await? {
        return Ok(false);
    }
    // It takes no port that is on.
    down(port).await?;
    enslave(port, name).await?;
    up(name).await?;
    up(port).await?;
    Ok(true)
}

/// Makes a dummy; switched on.
///
/// # Errors
/// netlink's.
pub async fn dummy(name: &str) -> anyhow::Result<bool> {
    let made = make(LinkDummy::new(name).build()).await?;
    if made {
        up(name).await?;
    }
    Ok(made)
}

/// Makes an end of a VXLAN tunnel between two addresses; switched on.
///
/// # Errors
/// netlink's.
pub async fn vxlan(name: &str, local: Ipv4Addr, remote: Ipv4Addr) -> anyhow::Result<bool> {
    let message = LinkVxlan::new(name, 7).local(local).remote(remote);
    let made = make(message.port(4789).build()).await?;
    if made {
        up(name).await?;
    }
    Ok(made)
}

/// Deletes the entry of a neighbour.
///
/// # Errors
/// netlink's; where there is none.
pub async fn forget_neighbor(link: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    let handle = connect()?;
    let mut message = NeighbourMessage::default();
    message.header.family = rtnetlink::packet_route::AddressFamily::Inet;
    message.header.ifindex = index(&handle, link).await?;
    message.header.state = NeighbourState::None;
    message
        .attributes
        .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(
            address,
        )));
    let deleted = handle.neighbours().del(message).execute().await;
    deleted.with_context(|| format!("neighbour {address}"))
}

nix::ioctl_write_ptr_bad!(
    /// `TUNSETIFF` (`include/uapi/linux/if_tun.h`).
    tunsetiff,
    0x4004_54ca,
    nix::libc::ifreq
);

/// A tun, whose packets have no Ethernet header; it lives as long as the file.
///
/// # Errors
/// The ioctl's.
pub fn tun(name: &str) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .context("/dev/net/tun")?;
    // SAFETY: plain integers and a union of them; zero is a value.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (nix::libc::IFF_TUN | nix::libc::IFF_NO_PI) as i16;
    // SAFETY: the request is whole and outlives the call.
    unsafe { tunsetiff(file.as_raw_fd(), &raw const request) }.context("TUNSETIFF")?;
    Ok(file)
}

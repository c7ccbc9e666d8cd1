//! Links, addresses and offloads. Every function works in the namespace of
//! the calling thread.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, RawFd};

use anyhow::{Context as _, bail};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// A connection to rtnetlink, driven by the current runtime.
pub(crate) fn connect() -> anyhow::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

pub(crate) async fn index(handle: &Handle, name: &str) -> anyhow::Result<u32> {
    let link = handle
        .link()
        .get()
        .match_name(name.to_owned())
        .execute()
        .try_next()
        .await
        .with_context(|| name.to_owned())?;
    match link {
        Some(link) => Ok(link.header.index),
        None => bail!("there is no link {name}"),
    }
}

/// Makes a bridge.
///
/// # Errors
/// netlink's.
pub async fn bridge(name: &str) -> anyhow::Result<()> {
    let handle = connect()?;
    handle
        .link()
        .add(LinkBridge::new(name).build())
        .execute()
        .await?;
    up(name).await
}

/// Makes a pair: `here` stays, `there` goes to another namespace.
///
/// # Errors
/// netlink's.
pub async fn veth(here: &str, there: &str, namespace: RawFd) -> anyhow::Result<()> {
    let handle = connect()?;
    // A name that cannot be taken here already.
    let passing = format!("{here}-out");
    handle
        .link()
        .add(LinkVeth::new(here, &passing).build())
        .execute()
        .await
        .with_context(|| format!("veth {here}"))?;
    let id = index(&handle, &passing).await?;
    let moved = LinkUnspec::new_with_index(id)
        .name(there.to_owned())
        .setns_by_fd(namespace)
        .build();
    handle.link().set(moved).execute().await?;
    Ok(())
}

/// Puts a link into a bridge.
///
/// # Errors
/// netlink's.
pub async fn enslave(name: &str, bridge: &str) -> anyhow::Result<()> {
    let handle = connect()?;
    let (id, bridge) = (index(&handle, name).await?, index(&handle, bridge).await?);
    let message = LinkUnspec::new_with_index(id).controller(bridge).build();
    handle.link().set(message).execute().await?;
    Ok(())
}

/// Switches a link on.
///
/// # Errors
/// netlink's.
pub async fn up(name: &str) -> anyhow::Result<()> {
    let handle = connect()?;
    let id = index(&handle, name).await?;
    handle
        .link()
        .set(LinkUnspec::new_with_index(id).up().build())
        .execute()
        .await?;
    Ok(())
}

/// Switches a link off.
///
/// # Errors
/// netlink's.
pub async fn down(name: &str) -> anyhow::Result<()> {
    let handle = connect()?;
    let id = index(&handle, name).await?;
    handle
        .link()
        .set(LinkUnspec::new_with_index(id).down().build())
        .execute()
        .await?;
    Ok(())
}

/// Deletes a link, and its pair with it.
///
/// # Errors
/// netlink's.
pub async fn delete(name: &str) -> anyhow::Result<()> {
    let handle = connect()?;
    let id = index(&handle, name).await?;
    handle.link().del(id).execute().await?;
    Ok(())
}

/// Gives a link a MAC address.
///
/// # Errors
/// netlink's.
pub async fn set_mac(name: &str, mac: [u8; 6]) -> anyhow::Result<()> {
    let handle = connect()?;
    let id = index(&handle, name).await?;
    let message = LinkUnspec::new_with_index(id).address(mac.to_vec()).build();
    handle.link().set(message).execute().await?;
    Ok(())
}

/// Gives a link another MTU.
///
/// # Errors
/// netlink's; where its driver refuses.
pub async fn set_mtu(name: &str, mtu: u32) -> anyhow::Result<()> {
    let handle = connect()?;
    let id = index(&handle, name).await?;
    let message = LinkUnspec::new_with_index(id).mtu(mtu).build();
    handle.link().set(message).execute().await?;
    Ok(())
}

/// Takes an address away.
///
/// # Errors
/// netlink's; where the link has no such address.
pub async fn remove_address(name: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    let handle = connect()?;
    let id = index(&handle, name).await?;
    let found = handle
        .address()
        .get()
        .set_link_index_filter(id)
        .set_address_filter(address.into())
        .execute()
        .try_next()
        .await?;
    let found = found.with_context(|| format!("{address} on {name}"))?;
    handle.address().del(found).execute().await?;
    Ok(())
}

/// Adds addresses, each with a /24.
///
/// # Errors
/// netlink's.
pub async fn addresses(
    name: &str,
    addresses: impl IntoIterator<Item = Ipv4Addr>,
) -> anyhow::Result<()> {
    let handle = connect()?;
    let id = index(&handle, name).await?;
    for address in addresses {
        handle
            .address()
            .add(id, address.into(), 24)
            .execute()
            .await
            .with_context(|| format!("{address} on {name}"))?;
    }
    Ok(())
}

/// Adds a default route.
///
/// # Errors
/// netlink's.
pub async fn default_route(gateway: Ipv4Addr) -> anyhow::Result<()> {
    let handle = connect()?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(gateway)
        .build();
    handle.route().add(route).execute().await?;
    Ok(())
}

/// Adds a route to a network of 24 bits by a gateway.
///
/// # Errors
/// netlink's.
pub async fn route(network: Ipv4Addr, gateway: Ipv4Addr) -> anyhow::Result<()> {
    let handle = connect()?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(network, 24)
        .gateway(gateway)
        .build();
    handle.route().add(route).execute().await?;
    Ok(())
}

/// Adds a route to one host by a gateway.
///
/// # Errors
/// netlink's.
pub async fn host_route(host: Ipv4Addr, gateway: Ipv4Addr) -> anyhow::Result<()> {
    let handle = connect()?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(host, 32)
        .gateway(gateway)
        .build();
    handle.route().add(route).execute().await?;
    Ok(())
}

/// Has nothing leave for a network: TCP towards it is silent, while ARP still
/// answers; or lets it leave again.
///
/// # Errors
/// netlink's.
pub async fn silence(address: Ipv4Addr, bits: u8, silent: bool) -> anyhow::Result<()> {
    let handle = connect()?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, bits)
        .kind(rtnetlink::packet_route::route::RouteType::BlackHole)
        .build();
    if silent {
        handle.route().add(route).execute().await?;
    } else {
        handle.route().del(route).execute().await?;
    }
    Ok(())
}

/// Has whoever sends to an address through here be told that it cannot be
/// reached.
///
/// # Errors
/// netlink's.
pub async fn unreachable(address: Ipv4Addr) -> anyhow::Result<()> {
    let handle = connect()?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, 32)
        .kind(rtnetlink::packet_route::route::RouteType::Unreachable)
        .build();
    handle.route().add(route).execute().await?;
    Ok(())
}

/// Names an address's MAC address for good.
///
/// # Errors
/// netlink's.
pub async fn neighbor(name: &str, address: Ipv4Addr, mac: [u8; 6]) -> anyhow::Result<()> {
    let handle = connect()?;
    let id = index(&handle, name).await?;
    handle
        .neighbours()
        .add(id, address.into())
        .link_layer_address(&mac)
        .replace()
        .execute()
        .await?;
    Ok(())
}

/// The MAC address of a link.
///
/// # Errors
/// netlink's.
pub async fn mac(name: &str) -> anyhow::Result<[u8; 6]> {
    let handle = connect()?;
    let links: Vec<_> = handle
        .link()
        .get()
        .match_name(name.to_owned())
        .execute()
        .try_collect()
        .await?;
    links
        .iter()
        .flat_map(|link| &link.attributes)
        .find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        })
        .with_context(|| format!("{name} has no MAC address"))
}

/// Has a veth carry what real wires do: whole checksums and no segments
/// beyond the MTU; and GRO on, without which a frame that XDP redirects to
/// its peer is lost in silence.
///
/// # Errors
/// The ioctl's.
pub fn wire_like(name: &str) -> anyhow::Result<()> {
    for (offload, on) in [
        (Offload::Tso, false),
        (Offload::Gso, false),
        (Offload::ScatterGather, false),
        (Offload::TxChecksum, false),
        (Offload::Gro, true),
    ] {
        set_offload(name, offload, on)?;
    }
    Ok(())
}

/// Has a veth do what its defaults are: checksums left out, segments beyond the
/// MTU.
///
/// # Errors
/// The ioctl's.
pub fn card_like(name: &str) -> anyhow::Result<()> {
    for offload in [
        Offload::TxChecksum,
        Offload::ScatterGather,
        Offload::Tso,
        Offload::Gso,
    ] {
        set_offload(name, offload, true)?;
    }
    Ok(())
}

/// Switches GRO on or off.
///
/// # Errors
/// The ioctl's.
pub fn set_gro(name: &str, on: bool) -> anyhow::Result<()> {
    set_offload(name, Offload::Gro, on)
}

/// What a driver does to packets: the commands that set it
/// (`include/uapi/linux/ethtool.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// `ETHTOOL_STXCSUM`.
    TxChecksum = 0x17,
    /// `ETHTOOL_SSG`.
    ScatterGather = 0x19,
    /// `ETHTOOL_STSO`.
    Tso = 0x1f,
    /// `ETHTOOL_SGSO`.
    Gso = 0x24,
    /// `ETHTOOL_SGRO`.
    Gro = 0x2c,
}

/// Switches an offload, as `ethtool -K` does.
///
/// # Errors
/// The ioctl's.
pub fn set_offload(name: &str, offload: Offload, on: bool) -> anyhow::Result<()> {
    ethtool(name, offload as u32, u32::from(on)).with_context(|| format!("{offload:?} of {name}"))
}

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

nix::ioctl_write_ptr_bad!(
    /// `SIOCETHTOOL` (`include/uapi/linux/sockios.h`).
    siocethtool,
    0x8946,
    nix::libc::ifreq
);

fn ethtool(name: &str, command: u32, data: u32) -> anyhow::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    let mut value = EthtoolValue { command, data };
    // SAFETY: plain integers and a union of them; zero is a value.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names a link and points to a value that outlives
    // the call.
    unsafe { siocethtool(socket.as_raw_fd(), &request) }?;
    Ok(())
}

/// Whether an XDP program is attached to a link.
///
/// # Errors
/// netlink's.
pub async fn has_xdp(name: &str) -> anyhow::Result<bool> {
    use rtnetlink::packet_route::link::{LinkXdp, XdpAttached};

    let handle = connect()?;
    let links: Vec<_> = handle
        .link()
        .get()
        .match_name(name.to_owned())
        .execute()
        .try_collect()
        .await?;
    Ok(links
        .iter()
        .flat_map(|link| &link.attributes)
        .any(|attribute| {
            matches!(attribute, LinkAttribute::Xdp(xdp) if xdp.iter().any(|part| {
                matches!(part, LinkXdp::Attached(mode) if *mode != XdpAttached::None)
            }))
        }))
}

//! A network namespace with two links, so that routing lookups of a test run
//! have an answer: `wan0` towards clients, `lan0` towards backends.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// Our MAC on `wan0`.
pub const WAN_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Our MAC on `lan0`.
pub const LAN_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// The router towards all clients in 203.0.113.0/24 and 100.64.0.0/10.
pub const GATEWAY: [u8; 4] = [192, 0, 2, 254];
/// Its MAC.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x01, 0xfe];
/// The router towards 10.99.0.0/16, whose MAC nobody knows.
pub const SILENT_GATEWAY: [u8; 4] = [192, 0, 2, 253];

/// MAC of a backend 198.51.100.`host`.
pub const fn backend_mac(host: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0x02, host]
}

/// Interface indexes in the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    /// Towards clients: 192.0.2.2/24.
    pub wan: u32,
    /// Towards backends: 198.51.100.2/24.
    pub lan: u32,
}

impl Net {
    /// Our MAC on an interface.
    pub const fn mac(&self, ifindex: u32) -> [u8; 6] {
        if ifindex == self.wan {
            WAN_MAC
        } else {
            LAN_MAC
        }
    }
}

/// Moves the calling thread into a fresh namespace and furnishes it. The
/// namespace goes when the thread has ended or has moved on, and nothing of
/// it is kept.
///
/// # Errors
/// The kernel's; without root at the first step.
pub fn enter() -> Result<Net> {
    unshare(CloneFlags::CLONE_NEWNET).context("a new network namespace (needs root)")?;
    std::fs::write("/proc/sys/net/ipv4/conf/lo/forwarding", "1").context("lo.forwarding")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let task = tokio::spawn(connection);
        let net = furnish(&handle).await;
        drop(handle);
        task.abort();
        net
    })
}

async fn furnish(handle: &Handle) -> Result<Net> {
    up(handle, 1).await?;
    let wan = link(handle, "wan0", WAN_MAC, [192, 0, 2, 2]).await?;
    let lan = link(handle, "lan0", LAN_MAC, [198, 51, 100, 2]).await?;
    neighbor(handle, wan, GATEWAY, GATEWAY_MAC).await?;
    for host in [11, 12] {
        neighbor(handle, lan, [198, 51, 100, host], backend_mac(host)).await?;
    }
    route(handle, [203, 0, 113, 0], 24, GATEWAY).await?;
    route(handle, [100, 64, 0, 0], 10, GATEWAY).await?;
    route(handle, [10, 99, 0, 0], 16, SILENT_GATEWAY).await?;
    Ok(Net { wan, lan })
}

/// A veth pair `name`, `name`p, up, with an address; its index.
async fn link(handle: &Handle, name: &str, mac: [u8; 6], address: [u8; 4]) -> Result<u32> {
    let peer = format!("{name}p");
    handle
        .link()
        .add(LinkVeth::new(name, &peer).address(mac.to_vec()).build())
        .execute()
        .await
        .with_context(|| format!("veth pair {name}"))?;
    let index = nix::net::if_::if_nametoindex(name)?;
    up(handle, nix::net::if_::if_nametoindex(peer.as_str())?).await?;
    up(handle, index).await?;
    handle
        .address()
        .add(index, IpAddr::from(address), 24)
        .execute()
        .await
        .with_context(|| format!("address of {name}"))?;
    Ok(index)
}

async fn up(handle: &Handle, index: u32) -> Result<()> {
    let message = LinkUnspec::new_with_index(index).up().build();
    Ok(handle.link().set(message).execute().await?)
}

async fn neighbor(handle: &Handle, link: u32, address: [u8; 4], mac: [u8; 6]) -> Result<()> {
    handle
        .neighbours()
        .add(link, IpAddr::from(address))
        .link_layer_address(&mac)
        .state(NeighbourState::Permanent)
        .execute()
        .await
        .context("neighbour")
}

async fn route(handle: &Handle, prefix: [u8; 4], len: u8, gateway: [u8; 4]) -> Result<()> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::from(prefix), len)
        .gateway(Ipv4Addr::from(gateway))
        .build();
    handle.route().add(route).execute().await.context("route")
}

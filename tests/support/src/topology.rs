//! The lab's network: clients, the balancer, three servers.

use std::net::{Ipv4Addr, SocketAddr};

use crate::netns::Namespace;
use crate::{link, mode};

/// The virtual address.
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The balancer's address towards the servers.
pub const LB: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Servers: name and address, as the default configuration has them.
pub const SERVERS: [(&str, Ipv4Addr); 3] = [
    ("OCS_Node1", Ipv4Addr::new(198, 51, 100, 10)),
    ("OCS_Node2", Ipv4Addr::new(198, 51, 100, 11)),
    ("backup", Ipv4Addr::new(198, 51, 100, 12)),
];
/// Client addresses in the client's namespace.
pub const CLIENTS: u8 = 200;

/// The address of a client, from 0 to [`CLIENTS`].
pub const fn client(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 10 + number % CLIENTS)
}

/// A port of the VIP.
pub const fn vip(port: u16) -> SocketAddr {
    SocketAddr::V4(std::net::SocketAddrV4::new(VIP, port))
}

/// How the balancer stands in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arms {
    /// One interface for clients and servers; packets leave where they came in.
    One,
    /// One interface for each.
    Two,
}

/// Five namespaces and the wires between them.
///
/// Servers have no route to the clients' network, so only an address of the
/// balancer as the source brings an answer back; and nobody forwards.
pub struct Topology {
    /// Where the client addresses are.
    pub clients: Namespace,
    /// Where the balancer runs: `eth0`, and `eth1` with two arms.
    pub lb: Namespace,
    /// The servers, in the order of [`SERVERS`].
    pub servers: [Namespace; 3],
    /// The bridge between.
    pub switch: Namespace,
}

impl Topology {
    /// Builds it.
    ///
    /// # Errors
    /// Without root, or where the kernel refuses.
    pub fn new(arms: Arms) -> anyhow::Result<Self> {
        let topology = Self {
            clients: Namespace::new()?,
            lb: Namespace::new()?,
            servers: [Namespace::new()?, Namespace::new()?, Namespace::new()?],
            switch: Namespace::new()?,
        };
        // Far ends of the switch's wires: port, link there, namespace.
        let mut wires = vec![
            (
                "lb",
                if arms == Arms::One { "eth0" } else { "eth1" },
                &topology.lb,
            ),
            ("node1", "eth0", &topology.servers[0]),
            ("node2", "eth0", &topology.servers[1]),
            ("backup", "eth0", &topology.servers[2]),
        ];
        if arms == Arms::One {
            wires.push(("clients", "eth0", &topology.clients));
        } else {
            let far = topology.lb.raw_fd();
            topology
                .clients
                .block_on(|| link::veth("eth0", "eth0", far))?;
            topology.clients.run(|| mode::prepare("eth0"))??;
            topology.lb.run(|| mode::prepare("eth0"))??;
        }
        topology.switch.block_on(|| link::bridge("switch"))?;
        for (port, there, namespace) in &wires {
            let far = namespace.raw_fd();
            topology.switch.block_on(|| async move {
                link::veth(port, there, far).await?;
                link::enslave(port, "switch").await?;
                link::up(port).await
            })?;
            topology.switch.run(|| mode::prepare(port))??;
            namespace.run(|| mode::prepare(there))??;
        }
        topology.clients.block_on(|| async {
            link::addresses("eth0", (0..CLIENTS).map(client)).await?;
            link::up("eth0").await
        })?;
        for (namespace, (_, address)) in topology.servers.iter().zip(SERVERS) {
            namespace.block_on(|| async move {
                link::addresses("eth0", [address]).await?;
                link::up("eth0").await
            })?;
        }
        let inner = if arms == Arms::One { "eth0" } else { "eth1" };
        topology.lb.block_on(|| async move {
            link::addresses("eth0", [VIP]).await?;
            link::addresses(inner, [LB]).await?;
            link::up("eth0").await?;
            link::up(inner).await
        })?;
        Ok(topology)
    }
}

/// One end of a wire: where, the link's name there, its addresses (each with a
/// /24).
pub type WireEnd<'a> = (&'a Namespace, &'a str, &'a [Ipv4Addr]);

/// Joins two namespaces by a pair of links that behave like a real wire's ends,
/// both up.
///
/// # Errors
/// netlink's.
pub fn wire(here: WireEnd<'_>, there: WireEnd<'_>) -> anyhow::Result<()> {
    let far = there.0.raw_fd();
    let (name, name_there) = (here.1, there.1);
    here.0.block_on(|| link::veth(name, name_there, far))?;
    // Both before either is up: when a veth comes up, the kernel notes whether
    // its peer takes redirected frames (drivers/net/veth.c, veth_set_xdp_features).
    for (namespace, name, _) in [here, there] {
        namespace.run(|| link::wire_like(name))??;
    }
    for (namespace, name, addresses) in [here, there] {
        namespace.block_on(|| async {
            link::addresses(name, addresses.iter().copied()).await?;
            link::up(name).await
        })?;
    }
    Ok(())
}

/// Has a namespace forward packets between its links.
///
/// # Errors
/// Where the namespace cannot be entered, or the sysctl's.
pub fn router(namespace: &Namespace) -> anyhow::Result<()> {
    Ok(namespace.run(|| crate::tcp::sysctl("ip_forward", "1"))??)
}

//! An interface, as the kernel's link messages tell of it.

use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    LinkXdp, XdpAttached,
};

use crate::model::attach::{Kind, Mode};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Kernel name.
    pub name: String,
    /// MAC address; zero where the link has none.
    pub mac: [u8; 6],
    /// What it is.
    pub kind: Kind,
    /// Whether its frames have an Ethernet header.
    pub ethernet: bool,
    /// Longest packet without the Ethernet header, in bytes.
    pub mtu: u32,
    /// Index of the bond, bridge or VRF that it belongs to.
    pub master: Option<u32>,
    /// Index of the interface below: a VLAN's parent, a veth's peer.
    pub parent: Option<u32>,
    /// The namespace of `parent`, by our id for it; none where it is our own.
    pub parent_namespace: Option<i32>,
    /// Protocol (EtherType) and number of a VLAN sub-interface, host order.
    pub vlan: Option<(u16, u16)>,
    /// Whether it is switched on.
    pub up: bool,
    /// How an XDP program is attached, where one is.
    pub xdp: Option<Mode>,
    /// Its id.
    pub xdp_program: Option<u32>,
}

/// The link of a message.
pub(super) fn link(message: LinkMessage) -> Link {
    let header = message.header;
    let mut link = Link {
        ifindex: header.index,
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        up: header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    if header.flags.contains(LinkFlags::Loopback) {
        link.kind = Kind::Loopback;
    }
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            // 0: it is its own.
            LinkAttribute::Link(index) => link.parent = Some(index).filter(|index| *index != 0),
            LinkAttribute::LinkNetNsId(id) => link.parent_namespace = Some(id),
            LinkAttribute::LinkInfo(parts) => info(&mut link, &parts),
            LinkAttribute::Xdp(parts) => {
                link.xdp = xdp(&parts);
                link.xdp_program = xdp_program(&parts);
            }
            _ => {}
        }
    }
    link
}

fn info(link: &mut Link, parts: &[LinkInfo]) {
    for part in parts {
        match part {
            LinkInfo::Kind(kind) => link.kind = self::kind(kind),
            LinkInfo::Data(InfoData::Vlan(fields)) => {
                // The kernel always tells both.
                let (mut protocol, mut id) = (0x8100, 0);
                for field in fields {
                    match field {
                        InfoVlan::Id(number) => id = *number,
                        InfoVlan::Protocol(number) => protocol = u16::from(*number),
                        _ => {}
                    }
                }
                link.vlan = Some((protocol, id));
            }
            _ => {}
        }
    }
}

fn kind(kind: &InfoKind) -> Kind {
    match kind {
        InfoKind::Veth => Kind::Veth,
        InfoKind::Tun => Kind::Tap,
        InfoKind::Bond | InfoKind::Team => Kind::Bond,
        InfoKind::Bridge => Kind::Bridge,
        InfoKind::Vlan => Kind::Vlan,
        InfoKind::Dummy => Kind::Dummy,
        InfoKind::Vrf => Kind::Vrf,
        other => Kind::Other(other.to_string()),
    }
}

/// The mode among what the kernel says of a link's XDP.
fn xdp(parts: &[LinkXdp]) -> Option<Mode> {
    parts.iter().find_map(|part| match part {
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(Mode::Generic),
        LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Multiple) => Some(Mode::Native),
        _ => None,
    })
}

fn xdp_program(parts: &[LinkXdp]) -> Option<u32> {
    parts.iter().find_map(|part| match part {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => {
            Some(*id).filter(|id| *id != 0)
        }
        _ => None,
    })
}

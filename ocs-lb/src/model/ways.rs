//! How frames leave by each interface: on which one, with which VLAN tags, how
//! long.

use std::collections::BTreeMap;

use ocs_lb_common::abi::{LinkInfo, Tag};
use ocs_lb_common::address::Be16;

/// An interface, as far as frames that leave by it are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Port {
    /// Interface index.
    pub ifindex: u32,
    /// Longest IP packet, in bytes.
    pub mtu: u32,
    /// The VLAN of a sub-interface: its parent's index, the tag's EtherType and
    /// the VLAN's id, host order.
    pub vlan: Option<(u32, u16, u16)>,
    /// Whether the program is attached there.
    pub attached: bool,
}

/// Tags that the datapath can write.
const TAGS: usize = 2;

/// How frames leave by every interface, by its index.
///
/// Frames of a VLAN leave by the interface below, with their tag, where the
/// program is attached there: it sees what comes back before the sub-interface
/// would. The lowest such interface counts that is at most two tags below.
pub fn ways(ports: &[Port]) -> BTreeMap<u32, LinkInfo> {
    let by_index: BTreeMap<u32, Port> = ports.iter().map(|port| (port.ifindex, *port)).collect();
    by_index
        .values()
        .map(|port| (port.ifindex, way(port, &by_index)))
        .collect()
}

fn way(port: &Port, all: &BTreeMap<u32, Port>) -> LinkInfo {
    let mut way = LinkInfo {
        send_on: port.ifindex,
        mtu: mtu(port.mtu),
        ..LinkInfo::default()
    };
    // The outermost, which is the last on the way down, comes first.
    let mut tags = Vec::new();
    let mut at = *port;
    while let Some((parent, protocol, id)) = at.vlan
        && tags.len() < TAGS
        && let Some(below) = all.get(&parent)
    {
        let tag = Tag {
            protocol: Be16::new(protocol),
            control: Be16::new(id & Tag::ID),
        };
        tags.insert(0, tag);
        if below.attached {
            way.send_on = below.ifindex;
            way.tags = Default::default();
            for (to, from) in way.tags.iter_mut().zip(&tags) {
                *to = *from;
            }
        }
        at = *below;
    }
    way
}

/// As the datapath holds it: 0 is not known, and longer than any IPv4 packet is
/// as long as the longest.
pub fn mtu(bytes: u32) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ifindex: u32, attached: bool) -> Port {
        Port {
            ifindex,
            mtu: 1500,
            vlan: None,
            attached,
        }
    }

    fn sub(ifindex: u32, parent: u32, id: u16, attached: bool) -> Port {
        Port {
            vlan: Some((parent, 0x8100, id)),
            ..port(ifindex, attached)
        }
    }

    /// Where frames of an interface go, and the ids of their tags.
    fn of(ports: &[Port], ifindex: u32) -> (u32, Vec<u16>) {
        let way = ways(ports)[&ifindex];
        let tags = way.tags.iter().filter(|tag| tag.is_some());
        (way.send_on, tags.map(|tag| tag.control.get()).collect())
    }

    #[test]
    fn frames_of_a_vlan_leave_where_the_program_is() {
        // Neither, the sub-interface, the parent, both.
        assert_eq!(of(&[port(2, false), sub(3, 2, 7, false)], 3), (3, vec![]));
        assert_eq!(of(&[port(2, false), sub(3, 2, 7, true)], 3), (3, vec![]));
        assert_eq!(of(&[port(2, true), sub(3, 2, 7, false)], 3), (2, vec![7]));
        assert_eq!(of(&[port(2, true), sub(3, 2, 7, true)], 3), (2, vec![7]));
        assert_eq!(of(&[port(2, true), sub(3, 2, 7, true)], 2), (2, vec![]));
        // Its parent is in another namespace.
        assert_eq!(of(&[sub(3, 2, 7, false)], 3), (3, vec![]));
    }

    #[test]
    fn tags_within_tags_have_the_outer_first() {
        let stack = |low, middle| [port(2, low), sub(3, 2, 100, middle), sub(4, 3, 7, true)];
        assert_eq!(of(&stack(true, false), 4), (2, vec![100, 7]));
        assert_eq!(of(&stack(true, true), 4), (2, vec![100, 7]));
        assert_eq!(of(&stack(false, true), 4), (3, vec![7]));
        assert_eq!(of(&stack(false, false), 4), (4, vec![]));
        // Three tags are more than the datapath writes.
        let mut deep = stack(true, false).to_vec();
        deep.push(sub(5, 4, 9, false));
        assert_eq!(of(&deep, 5), (4, vec![9]));
    }

    #[test]
    fn the_tag_is_what_lies_in_a_frame() {
        let provider = Port {
            vlan: Some((2, 0x88a8, 0x0123)),
            ..port(3, false)
        };
        let way = ways(&[port(2, true), provider])[&3];
        assert_eq!(way.tags[0].protocol.get(), 0x88a8);
        assert_eq!(way.tags[0].control.get(), 0x0123);
    }

    #[test]
    fn a_way_is_as_long_as_its_own_interface_says() {
        let narrow = Port {
            mtu: 1400,
            ..sub(3, 2, 7, false)
        };
        let jumbo = Port {
            mtu: 9000,
            ..port(2, true)
        };
        let ways = ways(&[jumbo, narrow]);
        assert_eq!((ways[&2].mtu, ways[&3].mtu), (9000, 1400));
        assert_eq!(mtu(65_536), 65_535);
    }
}

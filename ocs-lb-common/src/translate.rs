//! Step six: the rewrite. Decides nothing; a flow says it all.

use crate::abi::{Flow, FlowKey};
use crate::address::{Address, V4, V6};
use crate::checksum::{Delta, Sum};
use crate::parse::{IP_OFFSET, Packet};
use crate::wire::{Frame, Ipv4, Ipv4Mut, Ipv6, Tcp, TcpChange, TcpMut};

/// Changes of the two checksums when one tuple becomes another.
///
/// First the network layer's: addresses and one hop. Then TCP's: addresses, as
/// part of the pseudo header, and ports. They are stored apart because a
/// socket buffer with a partial checksum needs them apart.
#[inline(always)]
pub fn deltas<A: Address>(before: &FlowKey<A>, after: &FlowKey<A>) -> (Delta, Delta) {
    let old = before.destination.add_to(before.source.add_to(Sum::ZERO));
    let new = after.destination.add_to(after.source.add_to(Sum::ZERO));
    let addresses = new.sub(old);
    let l3 = addresses.add_u16(Ipv4Mut::HOP);
    let l4 = addresses
        .sub_u16(before.source_port.get())
        .sub_u16(before.destination_port.get())
        .add_u16(after.source_port.get())
        .add_u16(after.destination_port.get());
    (l3.delta(), l4.delta())
}

/// Both entries of a flow: the tuples and their deltas, nothing else set.
///
/// `client` is the tuple of the client's packets, `backend` that of the same
/// packets as the backend sees them.
#[inline(always)]
pub fn pair<A: Address>(client: &FlowKey<A>, backend: &FlowKey<A>) -> (Flow<A>, Flow<A>) {
    let (reply, answer) = (backend.reversed(), client.reversed());
    (entry(client, backend), entry(&reply, &answer))
}

#[inline(always)]
fn entry<A: Address>(before: &FlowKey<A>, after: &FlowKey<A>) -> Flow<A> {
    let (l3_delta, l4_delta) = deltas(before, after);
    Flow {
        source: after.source,
        destination: after.destination,
        source_port: after.source_port,
        destination_port: after.destination_port,
        l3_delta,
        l4_delta,
        ..Flow::default()
    }
}

/// A family whose packets can be rewritten.
pub trait Translate: Address {
    /// Rewrites addresses, ports, hop count and checksums of a parsed packet.
    /// `None`, with nothing changed that matters, where the frame is shorter
    /// than its parse said.
    fn translate(frame: &mut impl Frame, packet: &Packet<Self>, flow: &Flow<Self>) -> Option<()>;
}

impl Translate for V4 {
    #[inline(always)]
    fn translate(frame: &mut impl Frame, packet: &Packet<V4>, flow: &Flow<V4>) -> Option<()> {
        let mut ip = Ipv4Mut(frame.at_mut::<{ Ipv4::LEN }>(IP_OFFSET)?);
        ip.set_addresses(flow.source, flow.destination);
        ip.decrement_ttl();
        ip.adjust_checksum(flow.l3_delta);
        rewrite_tcp(frame, packet.tcp_offset, flow)
    }
}

impl Translate for V6 {
    #[inline(always)]
    fn translate(frame: &mut impl Frame, packet: &Packet<V6>, flow: &Flow<V6>) -> Option<()> {
        let header = frame.at_mut::<{ Ipv6::LEN }>(IP_OFFSET)?;
        Ipv6::rewrite(header, flow.source, flow.destination);
        rewrite_tcp(frame, packet.tcp_offset, flow)
    }
}

#[inline(always)]
fn rewrite_tcp<A: Address>(
    frame: &mut impl Frame,
    tcp_offset: usize,
    flow: &Flow<A>,
) -> Option<()> {
    let mut tcp = TcpMut(frame.at_mut::<{ Tcp::LEN }>(tcp_offset)?);
    tcp.set_ports(flow.source_port, flow.destination_port);
    let change = TcpChange {
        all: flow.l4_delta,
        addresses: flow.l3_delta.without(Delta(Ipv4Mut::HOP)),
    };
    frame.tcp_changed(tcp_offset, change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Be16;
    use crate::parse::{parse_ipv4, parse_ipv6};
    use crate::wire::SliceFrame;
    use proptest::prelude::*;

    /// Fills in both checksums of a TCP frame.
    fn seal(frame: &mut [u8], v6: bool) {
        let (addresses, tcp) = if v6 { (22..54, 54) } else { (26..34, 34) };
        frame[tcp + 16..tcp + 18].fill(0);
        let len = (frame.len() - tcp) as u16;
        let pseudo = Sum::ZERO
            .add_bytes(&frame[addresses])
            .add_u16(6)
            .add_u16(len);
        let checksum = pseudo.add_bytes(&frame[tcp..]).checksum();
        frame[tcp + 16..tcp + 18].copy_from_slice(&checksum.to_be_bytes());
        if !v6 {
            frame[24..26].fill(0);
            let checksum = Sum::ZERO.add_bytes(&frame[14..34]).checksum();
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
    }

    fn frame_v4(addresses: &[u8; 8], ports: &[u8; 4], payload: &[u8]) -> Vec<u8> {
        let total = (40 + payload.len()) as u16;
        let mut frame = vec![0u8; 14];
        frame[12] = 0x08;
        frame.extend([0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(addresses);
        frame.extend(ports);
        frame.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend(payload);
        seal(&mut frame, false);
        frame
    }

    fn frame_v6(addresses: &[u8; 32], ports: &[u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0u8; 14];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((20 + payload.len() as u16).to_be_bytes());
        frame.extend([6, 64]);
        frame.extend(addresses);
        frame.extend(ports);
        frame.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend(payload);
        seal(&mut frame, true);
        frame
    }

    proptest! {
        /// Forward, the result has valid checksums (a full computation changes
        /// nothing); a reply translated back is what the client would expect.
        #[test]
        fn checksums_stay_valid(
            addresses in any::<[u8; 8]>(), ports in any::<[u8; 4]>(),
            new in any::<[u8; 8]>(), new_ports in any::<[u8; 4]>(),
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut frame = frame_v4(&addresses, &ports, &payload);
            let packet = parse_ipv4(&SliceFrame(&mut frame)).expect("a packet");
            let backend = FlowKey::tcp(
                V4(new[..4].try_into().expect("4")), Be16([new_ports[0], new_ports[1]]),
                V4(new[4..].try_into().expect("4")), Be16([new_ports[2], new_ports[3]]),
            );
            let (forward, reverse) = pair(&packet.key, &backend);
            let before = frame.clone();
            V4::translate(&mut SliceFrame(&mut frame), &packet, &forward).expect("whole");
            prop_assert_eq!(parse_ipv4(&SliceFrame(&mut frame)).expect("a packet").key, backend);
            prop_assert_eq!(frame[22], 63);
            let mut sealed = frame.clone();
            seal(&mut sealed, false);
            prop_assert_eq!(&frame, &sealed);

            let mut reply = frame_v4(
                &[&new[4..], &new[..4]].concat().try_into().expect("8"),
                &[new_ports[2], new_ports[3], new_ports[0], new_ports[1]],
                &payload,
            );
            let packet_back = parse_ipv4(&SliceFrame(&mut reply)).expect("a packet");
            prop_assert_eq!(packet_back.key, backend.reversed());
            V4::translate(&mut SliceFrame(&mut reply), &packet_back, &reverse).expect("whole");
            let answer = parse_ipv4(&SliceFrame(&mut reply)).expect("a packet");
            prop_assert_eq!(answer.key, packet.key.reversed());
            prop_assert_eq!(reverse.peer_key(), packet.key);
            let mut sealed = reply.clone();
            seal(&mut sealed, false);
            prop_assert_eq!(&reply, &sealed);
            prop_assert_eq!(&before[54..], &frame[54..], "the payload is untouched");
        }

        #[test]
        fn ipv6_checksums_stay_valid(
            addresses in any::<[u8; 32]>(), ports in any::<[u8; 4]>(),
            new in any::<[u8; 32]>(), new_ports in any::<[u8; 4]>(),
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut frame = frame_v6(&addresses, &ports, &payload);
            let packet = parse_ipv6(&SliceFrame(&mut frame)).expect("a packet");
            let backend = FlowKey::tcp(
                V6(new[..16].try_into().expect("16")), Be16([new_ports[0], new_ports[1]]),
                V6(new[16..].try_into().expect("16")), Be16([new_ports[2], new_ports[3]]),
            );
            let (forward, _) = pair(&packet.key, &backend);
            V6::translate(&mut SliceFrame(&mut frame), &packet, &forward).expect("whole");
            prop_assert_eq!(parse_ipv6(&SliceFrame(&mut frame)).expect("a packet").key, backend);
            prop_assert_eq!(frame[21], 63);
            let mut sealed = frame.clone();
            seal(&mut sealed, true);
            prop_assert_eq!(&frame, &sealed);
        }
    }
}

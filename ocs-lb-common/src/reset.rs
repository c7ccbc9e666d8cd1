//! A RST in answer to a packet (RFC 9293 section 3.10.7.1), or without one.

use crate::abi::FlowKey;
use crate::address::{Address, V4};
use crate::checksum::Sum;
use crate::parse::{IP_OFFSET, Packet, Segment};
use crate::wire::{Ethernet, Flags, Frame, IpProto, Ipv4, MacAddress, SliceFrame, Tcp};

/// Length of the frame that carries a reset over IPv4, in bytes.
pub const IPV4_LEN: usize = IP_OFFSET + Ipv4::LEN + Tcp::LEN;

/// Replaces an IPv4 packet by the RST that answers it, built from zero so that
/// nothing of the old headers survives. The caller cuts the frame to
/// [`IPV4_LEN`] and sets the Ethernet addresses.
///
/// `None` where the frame is shorter than its parse said.
#[inline(always)]
pub fn write_ipv4(frame: &mut impl Frame, packet: &Packet<V4>) -> Option<()> {
    let (from, to) = (packet.key.destination, packet.key.source);
    let segment = &packet.segment;
    let (seq, ack, flags) = if segment.flags.any(Flags::ACK) {
        (segment.ack, 0, Flags::RST)
    } else {
        (0, segment.end(), Flags::RST | Flags::ACK)
    };

    let ip = frame.at_mut::<{ Ipv4::LEN }>(IP_OFFSET)?;
    // Version and length; 40 bytes in all; don't fragment; TTL 64.
    *ip = [
        0x45,
        0,
        0,
        40,
        0,
        0,
        0x40,
        0,
        64,
        IpProto::TCP.0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    ip[12..16].copy_from_slice(&from.0);
    ip[16..20].copy_from_slice(&to.0);
    let addresses = to.add_to(from.add_to(Sum::ZERO));
    let fixed = Sum::ZERO
        .add_u16(0x4500)
        .add_u16(40)
        .add_u16(0x4000)
        .add_u16(64 << 8 | IpProto::TCP.0 as u16);
    ip[10..12].copy_from_slice(&addresses.add(fixed).checksum().to_be_bytes());

    let tcp = frame.at_mut::<{ Tcp::LEN }>(IP_OFFSET + Ipv4::LEN)?;
    *tcp = [0; Tcp::LEN];
    tcp[0..2].copy_from_slice(&packet.key.destination_port.0);
    tcp[2..4].copy_from_slice(&packet.key.source_port.0);
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.to_be_bytes());
    tcp[12] = (Tcp::LEN as u8 / 4) << 4;
    tcp[13] = flags;
    let pseudo = addresses
        .add_u16(IpProto::TCP.0 as u16)
        .add_u16(Tcp::LEN as u16);
    let whole = pseudo
        .add_u16(packet.key.destination_port.get())
        .add_u16(packet.key.source_port.get())
        .add_u32(seq)
        .add_u32(ack)
        .add_u16((Tcp::LEN as u16 / 4) << 12 | flags as u16);
    frame.tcp_written(IP_OFFSET + Ipv4::LEN, pseudo, whole)
}

/// The whole frame of a RST that no packet asked for: with the tuple `key` and
/// the sequence number `seq`, which should be the next that `destination`
/// expects from the other side.
pub fn frame_ipv4(
    destination: &MacAddress,
    source: &MacAddress,
    key: &FlowKey<V4>,
    seq: u32,
) -> [u8; IPV4_LEN] {
    // The answer to a segment that acknowledges everything before `seq`.
    let asked = Packet {
        key: key.reversed(),
        tcp_offset: 0,
        tcp_header_len: 0,
        ip_len: 0,
        tos: 0,
        ttl: 0,
        segment: Segment {
            flags: Flags(Flags::ACK),
            ack: seq,
            ..Segment::default()
        },
    };
    let mut bytes = [0; IPV4_LEN];
    let mut frame = SliceFrame(&mut bytes);
    // The frame is as long as what is written to it.
    let _ = write_ipv4(&mut frame, &asked);
    if let Some(ethernet) = frame.at_mut::<{ Ethernet::LEN }>(0) {
        ethernet[0..6].copy_from_slice(destination);
        ethernet[6..12].copy_from_slice(source);
        ethernet[12..14].copy_from_slice(&[0x08, 0x00]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Be16;
    use crate::parse::parse_ipv4;

    /// Client to VIP, with IP options, flags and data as given.
    fn frame(flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0u8; 14];
        frame[12] = 0x08;
        frame.extend([0x46, 0, 0, 44 + payload as u8, 1, 2, 0, 0, 9, 6, 0, 0]);
        frame.extend([192, 0, 2, 10, 192, 0, 2, 1, 1, 1, 1, 1]);
        frame.extend([0x9c, 0x40, 0x13, 0xc5, 0, 0, 0, 7, 0, 0, 0, 99]);
        frame.extend([0x50, flags, 0, 9, 0, 0, 0, 0]);
        frame.resize(frame.len() + payload, 0xee);
        frame
    }

    #[test]
    fn answers() {
        let (syn, ack, fin) = (Flags::SYN, Flags::ACK, Flags::FIN);
        // (flags, payload, seq, ack, flags of the answer)
        let cases = [
            (syn, 0, 0, 8, Flags::RST | ack),
            (syn, 3, 0, 11, Flags::RST | ack),
            (fin, 2, 0, 10, Flags::RST | ack),
            (ack, 5, 99, 0, Flags::RST),
            (syn | ack, 0, 99, 0, Flags::RST),
        ];
        for (bits, payload, seq, ack, wanted) in cases {
            let mut bytes = frame(bits, payload);
            let packet = parse_ipv4(&SliceFrame(&mut bytes)).expect("a packet");
            write_ipv4(&mut SliceFrame(&mut bytes), &packet).expect("whole");
            bytes.truncate(IPV4_LEN);
            let answer = parse_ipv4(&SliceFrame(&mut bytes)).expect("a packet");
            assert_eq!(answer.key, packet.key.reversed());
            assert_eq!(answer.segment.seq, seq, "{bits:#x}");
            assert_eq!(answer.segment.ack, ack, "{bits:#x}");
            assert_eq!(answer.segment.flags, Flags(wanted));
            assert_eq!(Sum::ZERO.add_bytes(&bytes[14..34]).fold(), 0xffff);
            let pseudo = Sum::ZERO.add_bytes(&bytes[26..34]).add_u16(6).add_u16(20);
            assert_eq!(pseudo.add_bytes(&bytes[34..]).fold(), 0xffff);
        }
    }

    #[test]
    fn frames_without_a_packet() {
        let key = FlowKey::tcp(
            V4([192, 0, 2, 1]),
            Be16::new(5061),
            V4([203, 0, 113, 9]),
            Be16::new(40_000),
        );
        let (client, ours) = ([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
        let mut bytes = frame_ipv4(&client, &ours, &key, 0x8000_0001);
        let wanted = [
            // To the client, from us, IPv4.
            2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0, //
            // 20 bytes of header, 40 in all, don't fragment, TTL 64, TCP.
            0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0x3c, 0xc5, //
            192, 0, 2, 1, 203, 0, 113, 9, //
            // Ports, sequence, no acknowledgment.
            0x13, 0xc5, 0x9c, 0x40, 0x80, 0, 0, 1, 0, 0, 0, 0, //
            // RST and nothing else, no window.
            0x50, 4, 0, 0, 0x81, 0xce, 0, 0,
        ];
        assert_eq!(bytes, wanted);
        assert_eq!(Sum::ZERO.add_bytes(&bytes[14..34]).fold(), 0xffff);
        let pseudo = Sum::ZERO.add_bytes(&bytes[26..34]).add_u16(6).add_u16(20);
        assert_eq!(pseudo.add_bytes(&bytes[34..]).fold(), 0xffff);
        let parsed = parse_ipv4(&SliceFrame(&mut bytes)).expect("a packet");
        assert_eq!(parsed.key, key);
    }
}

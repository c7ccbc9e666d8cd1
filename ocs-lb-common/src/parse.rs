//! Step one: bytes to a [`Packet`]. Decides nothing but what the bytes are.

use crate::abi::FlowKey;
use crate::address::{V4, V6};
use crate::verdict::Verdict;
use crate::wire::{EtherType, Ethernet, Flags, Frame, IpProto, Ipv4, Ipv6, Tcp};

/// What a TCP segment says, without its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// Control bits.
    pub flags: Flags,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Receive window, not scaled.
    pub window: u16,
    /// Bytes of data.
    pub payload: u16,
}

impl Segment {
    /// The sequence number after this segment: SYN and FIN count one each.
    #[inline(always)]
    pub const fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.payload as u32)
            .wrapping_add(self.flags.any(Flags::SYN) as u32)
            .wrapping_add(self.flags.any(Flags::FIN) as u32)
    }
}

/// A whole TCP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<A> {
    /// Its five-tuple.
    pub key: FlowKey<A>,
    /// Offset of the TCP header in the frame, in bytes.
    pub tcp_offset: usize,
    /// Length of the TCP header with options, in bytes.
    pub tcp_header_len: usize,
    /// Length of the IP packet, in bytes.
    pub ip_len: u16,
    /// TOS or traffic class.
    pub tos: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// The TCP part.
    pub segment: Segment,
}

/// A packet that is not a whole TCP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd<A> {
    /// Nothing of ours, whatever its address.
    Pass(Verdict),
    /// The verdict holds if the destination is one of our addresses; the host
    /// gets it otherwise.
    IfOurs {
        /// Where it comes from.
        source: A,
        /// Where it goes.
        destination: A,
        /// What it meets there.
        verdict: Verdict,
    },
}

/// Offset of the IP header. VLAN tags are taken off before a packet's way.
pub const IP_OFFSET: usize = Ethernet::LEN;

/// What the frame carries.
///
/// # Errors
/// [`Verdict::Vlan`] or [`Verdict::NotIp`] for what is neither IPv4 nor IPv6.
#[inline(always)]
pub fn parse_ether_type(frame: &impl Frame) -> Result<EtherType, Verdict> {
    let Some(bytes) = frame.at::<{ Ethernet::LEN }>(0) else {
        return Err(Verdict::NotIp);
    };
    match Ethernet(bytes).ether_type() {
        EtherType::IPV4 => Ok(EtherType::IPV4),
        EtherType::IPV6 => Ok(EtherType::IPV6),
        EtherType::VLAN | EtherType::VLAN_SERVICE => Err(Verdict::Vlan),
        _ => Err(Verdict::NotIp),
    }
}

/// What a frame carries behind the VLAN tags that lie in it, and their length in
/// bytes. `None` where there are more than two, or the frame ends.
#[inline(always)]
pub fn behind_tags(frame: &impl Frame) -> Option<(EtherType, usize)> {
    const TAG_LEN: usize = 4;
    let at = |len: usize| {
        let bytes = frame.at::<2>(Ethernet::LEN - 2 + len)?;
        Some(EtherType(u16::from_be_bytes(*bytes)))
    };
    for len in [0, TAG_LEN, 2 * TAG_LEN] {
        let ether_type = at(len)?;
        if !ether_type.is_tag() {
            return Some((ether_type, len));
        }
    }
    None
}

/// An IPv4 frame to a packet.
///
/// # Errors
/// An [`Odd`] for everything but a whole TCP packet whose headers agree with
/// the frame's length. Bytes after the packet (Ethernet padding) are allowed.
#[inline(always)]
pub fn parse_ipv4(frame: &impl Frame) -> Result<Packet<V4>, Odd<V4>> {
    let Some(bytes) = frame.at::<{ Ipv4::LEN }>(IP_OFFSET) else {
        return Err(Odd::Pass(Verdict::NotIp));
    };
    let ip = Ipv4(bytes);
    let (source, destination) = (ip.source(), ip.destination());
    let odd = |verdict| Odd::IfOurs {
        source,
        destination,
        verdict,
    };
    let header_len = ip.header_len();
    let total_len = ip.total_len();
    if ip.version() != 4 {
        return Err(odd(Verdict::Malformed));
    }
    if header_len < Ipv4::LEN {
        return Err(odd(Verdict::BadLength));
    }
    // Before the fragments: those of another protocol are no danger to a flow.
    if ip.protocol() != IpProto::TCP {
        return Err(odd(Verdict::NotTcp));
    }
    if ip.is_fragment() {
        return Err(odd(Verdict::Fragment));
    }
    if is_cut(frame, IP_OFFSET + total_len) {
        return Err(odd(Verdict::BadLength));
    }
    let (ttl, tos) = (ip.ttl(), ip.tos());
    let tcp_offset = IP_OFFSET + header_len;
    let Some(bytes) = frame.at::<{ Tcp::LEN }>(tcp_offset) else {
        return Err(odd(Verdict::BadLength));
    };
    let tcp = Tcp(bytes);
    let tcp_header_len = tcp.header_len();
    if tcp_header_len < Tcp::LEN || header_len + tcp_header_len > total_len {
        return Err(odd(Verdict::BadLength));
    }
    Ok(Packet {
        key: FlowKey::tcp(
            source,
            tcp.source_port(),
            destination,
            tcp.destination_port(),
        ),
        tcp_offset,
        tcp_header_len,
        ip_len: total_len as u16,
        tos,
        ttl,
        segment: segment(&tcp, (total_len - header_len - tcp_header_len) as u16),
    })
}

/// An IPv6 frame to a packet. Extension headers make a packet odd.
///
/// # Errors
/// As [`parse_ipv4`].
#[inline(always)]
pub fn parse_ipv6(frame: &impl Frame) -> Result<Packet<V6>, Odd<V6>> {
    let Some(bytes) = frame.at::<{ Ipv6::LEN }>(IP_OFFSET) else {
        return Err(Odd::Pass(Verdict::NotIp));
    };
    let ip = Ipv6(bytes);
    let (source, destination) = (ip.source(), ip.destination());
    let odd = |verdict| Odd::IfOurs {
        source,
        destination,
        verdict,
    };
    let payload_len = ip.payload_len();
    if ip.version() != 6 {
        return Err(odd(Verdict::Malformed));
    }
    /// The fragment header (RFC 8200 section 4.5).
    const FRAGMENT: IpProto = IpProto(44);
    if ip.next_header() == FRAGMENT {
        return Err(odd(Verdict::Fragment));
    }
    if ip.next_header() != IpProto::TCP {
        return Err(odd(Verdict::NotTcp));
    }
    if is_cut(frame, IP_OFFSET + Ipv6::LEN + payload_len) {
        return Err(odd(Verdict::BadLength));
    }
    let (ttl, tos) = (ip.hop_limit(), ip.traffic_class());
    let tcp_offset = IP_OFFSET + Ipv6::LEN;
    let Some(bytes) = frame.at::<{ Tcp::LEN }>(tcp_offset) else {
        return Err(odd(Verdict::BadLength));
    };
    let tcp = Tcp(bytes);
    let tcp_header_len = tcp.header_len();
    if tcp_header_len < Tcp::LEN || tcp_header_len > payload_len {
        return Err(odd(Verdict::BadLength));
    }
    Ok(Packet {
        key: FlowKey::tcp(
            source,
            tcp.source_port(),
            destination,
            tcp.destination_port(),
        ),
        tcp_offset,
        tcp_header_len,
        ip_len: (Ipv6::LEN + payload_len) as u16,
        tos,
        ttl,
        segment: segment(&tcp, (payload_len - tcp_header_len) as u16),
    })
}

/// Whether a frame is shorter than its headers say.
#[inline(always)]
pub(crate) fn is_cut(frame: &impl Frame, len: usize) -> bool {
    len > frame.len() && len > frame.whole_len()
}

#[inline(always)]
fn segment(tcp: &Tcp<'_>, payload: u16) -> Segment {
    Segment {
        flags: tcp.flags(),
        seq: tcp.sequence(),
        ack: tcp.acknowledgment(),
        window: tcp.window(),
        payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SliceFrame;
    use proptest::prelude::*;

    /// SYN, 192.0.2.10:40000 to 192.0.2.1:5061, no options, no padding.
    const SYN: [u8; 54] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, // Ethernet
        0x45, 0, 0, 40, 0x12, 0x34, 0x40, 0, 64, 6, 0xa4, 0x90, 192, 0, 2, 10, 192, 0, 2,
        1, // IP
        0x9c, 0x40, 0x13, 0xc5, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x02, 0xfa, 0xf0, 0, 0, 0,
        0, // TCP
    ];

    fn parse(mut frame: Vec<u8>) -> Result<Packet<V4>, Odd<V4>> {
        parse_ipv4(&SliceFrame(&mut frame))
    }

    #[test]
    fn a_syn() {
        let packet = parse(SYN.to_vec()).expect("a packet");
        assert_eq!(packet.key.source, V4([192, 0, 2, 10]));
        assert_eq!(packet.key.destination_port.get(), 5061);
        assert_eq!((packet.tcp_offset, packet.tcp_header_len), (34, 20));
        assert_eq!(packet.segment.end(), 8);
        assert_eq!(packet.segment.payload, 0);
    }

    #[test]
    fn behind_up_to_two_tags() {
        let mut frame = SYN.to_vec();
        for (count, len) in [(0, 0), (1, 4), (2, 8)] {
            let found = behind_tags(&SliceFrame(&mut frame));
            assert_eq!(found, Some((EtherType::IPV4, len)), "{count} tags");
            let protocol = if count == 0 { [0x81, 0] } else { [0x88, 0xa8] };
            frame.splice(12..12, [protocol[0], protocol[1], 0x20, 100]);
        }
        assert_eq!(behind_tags(&SliceFrame(&mut frame)), None, "three");
        frame.truncate(17);
        assert_eq!(behind_tags(&SliceFrame(&mut frame)), None, "cut");
    }

    #[test]
    fn padding_is_not_payload() {
        let mut frame = SYN.to_vec();
        frame.resize(60, 0xee);
        assert_eq!(parse(frame).expect("a packet").segment.payload, 0);
    }

    #[test]
    fn ip_options_shift_the_tcp_header() {
        let mut frame = SYN.to_vec();
        frame[14] = 0x46;
        frame[17] = 44;
        frame.splice(34..34, [1, 1, 1, 1]);
        let packet = parse(frame).expect("a packet");
        assert_eq!(packet.tcp_offset, 38);
        assert_eq!(packet.key.source_port.get(), 40000);
    }

    #[test]
    fn odd_packets() {
        let cases: [(&str, usize, u8, Verdict); 9] = [
            ("version 5", 14, 0x55, Verdict::Malformed),
            ("header of 16 bytes", 14, 0x44, Verdict::BadLength),
            ("header beyond the packet", 14, 0x4f, Verdict::BadLength),
            ("shorter than its headers", 17, 39, Verdict::BadLength),
            ("longer than the frame", 17, 41, Verdict::BadLength),
            ("more fragments", 20, 0x20, Verdict::Fragment),
            ("UDP", 23, 17, Verdict::NotTcp),
            ("TCP header of 16 bytes", 46, 0x40, Verdict::BadLength),
            ("TCP header beyond the packet", 46, 0x60, Verdict::BadLength),
        ];
        for (case, at, byte, verdict) in cases {
            let mut frame = SYN.to_vec();
            frame[at] = byte;
            let destination = V4([192, 0, 2, 1]);
            assert_eq!(
                parse(frame),
                Err(Odd::IfOurs {
                    source: V4([192, 0, 2, 10]),
                    destination,
                    verdict
                }),
                "{case}"
            );
        }
    }

    #[test]
    fn a_fragment_of_another_protocol_is_that_protocols() {
        let mut frame = SYN.to_vec();
        (frame[20], frame[23]) = (0x20, 17);
        let odd = parse(frame);
        assert!(matches!(
            odd,
            Err(Odd::IfOurs {
                verdict: Verdict::NotTcp,
                ..
            })
        ));
    }

    #[test]
    fn every_truncation_is_odd() {
        for len in 0..SYN.len() {
            assert!(parse(SYN[..len].to_vec()).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn tags_and_other_types_pass() {
        for (bytes, verdict) in [
            ([0x81, 0x00], Verdict::Vlan),
            ([0x88, 0xa8], Verdict::Vlan),
            ([0x08, 0x06], Verdict::NotIp),
        ] {
            let mut frame = SYN;
            frame[12..14].copy_from_slice(&bytes);
            assert_eq!(parse_ether_type(&SliceFrame(&mut frame)), Err(verdict));
        }
    }

    proptest! {
        /// Any bytes: no panic, and a packet lies within its frame.
        #[test]
        fn any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), v6 in any::<bool>()) {
            if bytes.len() > 15 {
                bytes[14] = if v6 { 0x60 } else { 0x45 };
            }
            let frame = SliceFrame(&mut bytes);
            if let Ok(packet) = parse_ipv4(&frame) {
                prop_assert!(packet.tcp_offset + packet.tcp_header_len
                    + packet.segment.payload as usize <= frame.len());
            }
            if let Ok(packet) = parse_ipv6(&frame) {
                prop_assert_eq!(packet.ip_len as usize + IP_OFFSET,
                    packet.tcp_offset + packet.tcp_header_len + packet.segment.payload as usize);
            }
        }
    }
}

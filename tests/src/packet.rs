//! TCP over IPv4 frames, readable to build and strict to check.
//!
//! The checksums are computed in full and by another rule than the datapath's
//! (remainder modulo 65,535 instead of folding), so that both cannot share a
//! mistake.

use std::fmt::Write as _;

/// FIN, SYN, RST, PSH and ACK as in byte 13 of a TCP header.
pub mod flag {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Opens.
    pub const SYN: u8 = 0x02;
    /// Resets.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// More-fragments flag of an IPv4 header.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// Don't-fragment flag of an IPv4 header.
pub const DONT_FRAGMENT: u16 = 0x4000;

/// An address and a port.
pub type End = ([u8; 4], u16);

/// A frame to be built. Every field may be set to nonsense; [`Frame::bytes`]
/// computes lengths and checksums for what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Ethernet destination.
    pub mac_destination: [u8; 6],
    /// Ethernet source.
    pub mac_source: [u8; 6],
    /// VLAN identifier, where tagged.
    pub vlan: Option<u16>,
    /// Source address and port.
    pub source: End,
    /// Destination address and port.
    pub destination: End,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Identification of the IP packet.
    pub identification: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// IP protocol; the payload is a TCP segment all the same.
    pub protocol: u8,
    /// IP options, a multiple of 4 bytes.
    pub ip_options: Vec<u8>,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Control bits.
    pub flags: u8,
    /// Receive window.
    pub window: u16,
    /// TCP options, a multiple of 4 bytes.
    pub tcp_options: Vec<u8>,
    /// Data.
    pub payload: Vec<u8>,
    /// Bytes after the packet, as Ethernet pads short frames.
    pub padding: usize,
}

impl Frame {
    /// A segment without data or options.
    pub fn tcp(source: End, destination: End, flags: u8) -> Self {
        Self {
            mac_destination: [0x02, 0, 0, 0, 0, 0x01],
            mac_source: [0x02, 0, 0, 0, 0x01, 0xfe],
            vlan: None,
            source,
            destination,
            tos: 0,
            identification: 0x1234,
            fragment: DONT_FRAGMENT,
            ttl: 64,
            protocol: 6,
            ip_options: Vec::new(),
            seq: 0,
            ack: 0,
            flags,
            window: 64_240,
            tcp_options: Vec::new(),
            payload: Vec::new(),
            padding: 0,
        }
    }

    /// With sequence and acknowledgment numbers.
    #[must_use]
    pub fn numbers(mut self, seq: u32, ack: u32) -> Self {
        (self.seq, self.ack) = (seq, ack);
        self
    }

    /// With data.
    #[must_use]
    pub fn data(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// With a time to live.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// With TCP options.
    #[must_use]
    pub fn tcp_options(mut self, options: impl Into<Vec<u8>>) -> Self {
        self.tcp_options = options.into();
        self
    }

    /// With IP options.
    #[must_use]
    pub fn ip_options(mut self, options: impl Into<Vec<u8>>) -> Self {
        self.ip_options = options.into();
        self
    }

    /// The frame as it lies on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.mac_destination);
        frame.extend(self.mac_source);
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend([0x08, 0x00]);
        frame.extend(self.packet());
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    fn packet(&self) -> Vec<u8> {
        let segment = self.segment();
        let header_len = 20 + self.ip_options.len();
        let mut ip = vec![0x40 | (header_len / 4) as u8, self.tos];
        ip.extend(((header_len + segment.len()) as u16).to_be_bytes());
        ip.extend(self.identification.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, self.protocol, 0, 0]);
        ip.extend(self.source.0);
        ip.extend(self.destination.0);
        ip.extend(&self.ip_options);
        let checksum = checksum(&ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        ip.extend(segment);
        ip
    }

    fn segment(&self) -> Vec<u8> {
        let header_len = 20 + self.tcp_options.len();
        let mut tcp = Vec::new();
        tcp.extend(self.source.1.to_be_bytes());
        tcp.extend(self.destination.1.to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([((header_len / 4) as u8) << 4, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&self.tcp_options);
        tcp.extend(&self.payload);
        let checksum = checksum(
            &[
                pseudo(self.source.0, self.destination.0, tcp.len()),
                tcp.clone(),
            ]
            .concat(),
        );
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        tcp
    }
}

/// The pseudo header of a TCP checksum (RFC 9293 section 3.1).
pub(crate) fn pseudo(source: [u8; 4], destination: [u8; 4], len: usize) -> Vec<u8> {
    let mut bytes = [source, destination].concat();
    bytes.extend([0, 6]);
    bytes.extend((len as u16).to_be_bytes());
    bytes
}

/// The words of `bytes` as one number modulo 65,535.
fn remainder(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u64::from(*high) * 256 + u64::from(*low),
        [high] => u64::from(*high) * 256,
        _ => 0,
    });
    (words.sum::<u64>() % 65_535) as u16
}

/// The checksum of bytes whose own field is zero. 0xffff never comes out: it
/// would need a sum of zero, and no header is all zero.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    65_535
        - if remainder(bytes) == 0 {
            65_535
        } else {
            remainder(bytes)
        }
}

/// Checks lengths and recomputes every checksum of an untagged frame of TCP or
/// ICMP over IPv4.
///
/// # Errors
/// What is wrong with it.
pub fn verify(frame: &[u8]) -> Result<(), String> {
    let ip = frame.get(14..).ok_or("no IP header")?;
    let header_len = ip.first().map_or(0, |first| usize::from(first & 15) * 4);
    let total = match ip {
        [0x45..=0x4f, _, high, low, ..] => usize::from(*high) * 256 + usize::from(*low),
        _ => return Err("not IPv4".into()),
    };
    let packet = ip
        .get(..total)
        .ok_or("the frame is shorter than its packet")?;
    let header = packet
        .get(..header_len)
        .ok_or("the packet is shorter than its header")?;
    let tcp = &packet[header_len..];
    if header.get(9) == Some(&1) {
        sums_up("IP", header, header, 10)?;
        return crate::icmp::verify(tcp);
    }
    if tcp.len() < 20 || tcp.len() < usize::from(tcp[12] >> 4) * 4 {
        return Err("the packet is shorter than its segment's header".into());
    }
    sums_up("IP", header, header, 10)?;
    let mut covered = [&header[12..20], &[0, 6]].concat();
    covered.extend((tcp.len() as u16).to_be_bytes());
    covered.extend(tcp);
    sums_up("TCP", &covered, tcp, 16)
}

pub(crate) fn sums_up(
    name: &str,
    covered: &[u8],
    header: &[u8],
    field: usize,
) -> Result<(), String> {
    if remainder(covered) != 0 {
        return Err(format!("the {name} checksum is wrong"));
    }
    if header[field..field + 2] == [0xff, 0xff] {
        return Err(format!("the {name} checksum is the other zero (RFC 1624)"));
    }
    Ok(())
}

/// Hexadecimal with any white space to bytes. For literals in tests.
///
/// # Panics
/// On anything else.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("a hexadecimal digit") as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2), "an odd number of digits");
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// Bytes to hexadecimal: Ethernet, then rows of 20 as headers are.
pub fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (ethernet, rest) = bytes.split_at(bytes.len().min(14));
    for row in std::iter::once(ethernet).chain(rest.chunks(20)) {
        for byte in row {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN that was captured from a Linux client, rebuilt.
    #[test]
    fn known_bytes() {
        let frame = Frame::tcp(([192, 0, 2, 10], 40_000), ([192, 0, 2, 1], 5061), flag::SYN);
        let bytes = frame.bytes();
        // RFC 791: the header checksum of these twenty bytes is 0xa490.
        assert_eq!(bytes[24..26], [0xa4, 0x90]);
        assert_eq!(verify(&bytes), Ok(()));
        assert_eq!(hex(&dump(&bytes)), bytes);
    }

    #[test]
    fn one_changed_bit_is_noticed() {
        let frame = Frame::tcp(([192, 0, 2, 10], 40_000), ([192, 0, 2, 1], 5061), flag::ACK)
            .data(*b"odd")
            .ip_options([1, 1, 1, 1])
            .tcp_options([1, 1, 1, 0]);
        let bytes = frame.bytes();
        assert_eq!(verify(&bytes), Ok(()));
        for at in 14 * 8..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[at / 8] ^= 1 << (at % 8);
            assert!(verify(&other).is_err(), "bit {at}");
        }
    }
}

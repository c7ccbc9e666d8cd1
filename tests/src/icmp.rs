//! ICMP over IPv4 frames, readable to build and strict to check.

use crate::packet::{checksum, pseudo, sums_up};

/// A message to be built; its lengths and checksums are computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Icmp {
    /// Ethernet destination.
    pub mac_destination: [u8; 6],
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// Time to live.
    pub ttl: u8,
    /// IP options, a multiple of 4 bytes.
    pub ip_options: Vec<u8>,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes that depend on the type.
    pub rest: [u8; 4],
    /// What follows the header of eight bytes.
    pub body: Vec<u8>,
}

impl Icmp {
    /// A message without a body.
    pub fn new(source: [u8; 4], destination: [u8; 4], kind: u8, code: u8) -> Self {
        Self {
            mac_destination: [0x02, 0, 0, 0, 0, 0x01],
            source,
            destination,
            ttl: 64,
            ip_options: Vec::new(),
            kind,
            code,
            rest: [0; 4],
            body: Vec::new(),
        }
    }

    /// An error about a TCP packet in a frame, to the packet's source, with
    /// `len` bytes of the segment in its quote.
    pub fn error(source: [u8; 4], kind: u8, code: u8, about: &[u8], len: usize) -> Self {
        let packet = &about[14..];
        let quoted = usize::from(packet[0] & 15) * 4 + len;
        let destination = [packet[12], packet[13], packet[14], packet[15]];
        Self {
            body: packet[..quoted.min(packet.len())].to_vec(),
            ..Self::new(source, destination, kind, code)
        }
    }

    /// With an MTU, as in "fragmentation needed" (RFC 1191).
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        let [high, low] = mtu.to_be_bytes();
        self.rest = [0, 0, high, low];
        self
    }

    /// The frame as it lies on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut icmp = vec![self.kind, self.code, 0, 0];
        icmp.extend(self.rest);
        icmp.extend(&self.body);
        let sum = checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());

        let header_len = 20 + self.ip_options.len();
        let mut ip = vec![0x40 | (header_len / 4) as u8, 0];
        ip.extend(((header_len + icmp.len()) as u16).to_be_bytes());
        ip.extend([0x12, 0x34, 0, 0, self.ttl, 1, 0, 0]);
        ip.extend(self.source);
        ip.extend(self.destination);
        ip.extend(&self.ip_options);
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());

        let mut frame = self.mac_destination.to_vec();
        frame.extend([0x02, 0, 0, 0, 0x01, 0xfe, 0x08, 0x00]);
        frame.extend(ip);
        frame.extend(icmp);
        frame
    }
}

/// Checks a message, and what it quotes: the IP header's checksum, and TCP's
/// where the quote is a whole packet.
///
/// # Errors
/// What is wrong with it.
pub fn verify(icmp: &[u8]) -> Result<(), String> {
    if icmp.len() < 8 {
        return Err("the message is shorter than its header".into());
    }
    sums_up("ICMP", icmp, icmp, 2)?;
    if !matches!(icmp[0], 3 | 11 | 12) {
        return Ok(());
    }
    let quote = &icmp[8..];
    let header_len = quote.first().map_or(0, |first| usize::from(first & 15) * 4);
    let header = quote.get(..header_len).filter(|header| header.len() >= 20);
    let header = header.ok_or("the quote is shorter than its IP header")?;
    sums_up("quoted IP", header, header, 10)?;
    let total = usize::from(u16::from_be_bytes([quote[2], quote[3]]));
    let Some(tcp) = quote.get(header_len..total).filter(|tcp| tcp.len() >= 20) else {
        return Ok(());
    };
    let from = [header[12], header[13], header[14], header[15]];
    let to = [header[16], header[17], header[18], header[19]];
    let covered = [pseudo(from, to, tcp.len()), tcp.to_vec()].concat();
    sums_up("quoted TCP", &covered, tcp, 16)
}

/// What holds for a packet that was sent where it came as ICMP or left as such:
/// all checksums are right that were, and nothing but what was meant changed.
///
/// # Errors
/// What is wrong.
pub fn sent(before: &[u8], after: &[u8]) -> Result<(), String> {
    let in_a_frame = |packet: &[u8]| [&[0; 12][..], &[8, 0], packet].concat();
    let was_right = crate::packet::verify(&in_a_frame(before)).is_ok();
    // A wrong checksum may be in the quote; what is written anew is right.
    if was_right || after[9] != 1 {
        crate::packet::verify(&in_a_frame(after))?;
    }
    let body = |packet: &'_ [u8]| usize::from(packet[0] & 15) * 4 + 8;
    let end = usize::from(u16::from_be_bytes([after[2], after[3]]));
    let told = after.get(body(after)..end).ok_or("cut")?;
    let swapped = before[12..16] == after[16..20] && before[16..20] == after[12..16];
    let what = if before[9] != 1 {
        // An error of ours: the packet as it came.
        (!swapped || after[8] != 64 || !before.starts_with(told)).then_some("no quote")
    } else if after[9] != 1 {
        // A flow moves: its SYN once more.
        let flags = after[usize::from(after[0] & 15) * 4 + 13];
        (flags & 0x17 != 0x02 || after[8] != 63).then_some("no SYN")
    } else {
        let said = before.get(body(before)..).ok_or("cut")?;
        let said = said.get(..told.len()).ok_or("grown")?;
        let (was, is) = (&before[body(before) - 8..], &after[body(after) - 8..]);
        if was[0] == 8 {
            let same = (is[0], is[1], &is[4..8]) == (0, was[1], &was[4..8]) && said == told;
            (!swapped || after[8] != 64 || !same).then_some("no reply")
        } else {
            let tcp = usize::from(said.first().map_or(0, |first| first & 15)) * 4;
            let may = |at: usize| {
                (10..20).contains(&at)
                    || (tcp..tcp + 4).contains(&at)
                    || at == tcp + 16
                    || at == tcp + 17
            };
            let kept = (0..told.len()).all(|at| may(at) || said[at] == told[at]);
            let same = was[0..2] == is[0..2] && was[4..8] == is[4..8];
            let hop = after[8] == before[8].wrapping_sub(1);
            (!kept || !same || !hop).then_some("more than was meant changed")
        }
    };
    what.map_or(Ok(()), |what| Err(format!("ICMP: {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{self, Frame, flag};

    #[test]
    fn one_changed_bit_is_noticed() {
        let about = Frame::tcp(([192, 0, 2, 1], 5061), ([192, 0, 2, 10], 40_000), flag::ACK)
            .data(*b"odd")
            .ip_options([1, 1, 1, 1])
            .bytes();
        for len in [8, 20, 23] {
            let bytes = Icmp::error([192, 0, 2, 10], 3, 1, &about, len).bytes();
            assert_eq!(packet::verify(&bytes), Ok(()), "{len}");
            for at in 14 * 8..bytes.len() * 8 {
                // Another protocol is not looked into.
                if at / 8 == 23 {
                    continue;
                }
                let mut other = bytes.clone();
                other[at / 8] ^= 1 << (at % 8);
                assert!(packet::verify(&other).is_err(), "{len}: bit {at}");
            }
        }
    }
}

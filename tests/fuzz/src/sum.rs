//! Checksums by another rule than the core's: remainders modulo 65,535.

use ocs_lb_common::address::{V4, V6};
use ocs_lb_common::parse::{IP_OFFSET, Packet};

/// The words of `parts` as one number modulo 65,535. Only the last part may be
/// odd.
pub fn remainder(parts: &[&[u8]]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    let words = parts.iter().flat_map(|part| part.chunks(2).map(word));
    (words.sum::<u64>() % 65_535) as u16
}

/// Length and protocol in the pseudo header of a segment.
fn pseudo(len: usize) -> [u8; 4] {
    let [high, low] = (len as u16).to_be_bytes();
    [0, 6, high, low]
}

/// Where addresses, header and segment of a whole packet lie.
pub struct Parts {
    /// Both addresses.
    pub addresses: std::ops::Range<usize>,
    /// The header that has a checksum of its own, at its byte 10.
    pub header: Option<std::ops::Range<usize>>,
    /// The segment.
    pub segment: std::ops::Range<usize>,
}

impl Parts {
    /// Of an IPv4 packet.
    pub fn ipv4(packet: &Packet<V4>) -> Self {
        Self {
            addresses: 26..34,
            header: Some(IP_OFFSET..packet.tcp_offset),
            segment: packet.tcp_offset..IP_OFFSET + usize::from(packet.ip_len),
        }
    }

    /// Of an IPv6 packet.
    pub fn ipv6(packet: &Packet<V6>) -> Self {
        Self {
            addresses: 22..54,
            header: None,
            segment: packet.tcp_offset..IP_OFFSET + usize::from(packet.ip_len),
        }
    }

    /// Both sums over what their checksums cover: 0 where these are right.
    pub fn remainders(&self, frame: &[u8]) -> (u16, u16) {
        let ip = self.header.clone().map_or(0, |h| remainder(&[&frame[h]]));
        let segment = &frame[self.segment.clone()];
        let addresses = &frame[self.addresses.clone()];
        (ip, remainder(&[addresses, &pseudo(segment.len()), segment]))
    }

    /// Makes both checksums right.
    pub fn seal(&self, frame: &mut [u8]) {
        let at = self.fields();
        for at in at.iter().flatten() {
            frame[*at..at + 2].fill(0);
        }
        let (ip, tcp) = self.remainders(frame);
        for (at, sum) in at.into_iter().zip([ip, tcp]) {
            if let Some(at) = at {
                // No header is all zero, so a sum of zero is one of 65,535.
                let sum = if sum == 0 { 65_535 } else { sum };
                frame[at..at + 2].copy_from_slice(&(65_535 - sum).to_be_bytes());
            }
        }
    }

    /// Fails unless both checksums are right, and not the other zero
    /// (RFC 1624).
    pub fn check(&self, frame: &[u8]) {
        assert_eq!(self.remainders(frame), (0, 0), "a checksum is wrong");
        for at in self.fields().into_iter().flatten() {
            assert_ne!(frame[at..at + 2], [0xff, 0xff], "the other zero");
        }
    }

    /// Where the checksums lie.
    pub fn fields(&self) -> [Option<usize>; 2] {
        let ip = self.header.as_ref().map(|header| header.start + 10);
        [ip, Some(self.segment.start + 16)]
    }
}

//! Transmission Control Protocol (RFC 9293 section 3.1), the header.

use crate::address::Be16;
use crate::checksum::Delta;

pub(super) mod field {
    pub const SOURCE_PORT: usize = 0;
    pub const DESTINATION_PORT: usize = 2;
    pub const SEQUENCE: usize = 4;
    pub const ACKNOWLEDGMENT: usize = 8;
    pub const DATA_OFFSET: usize = 12;
    pub const FLAGS: usize = 13;
    pub const WINDOW: usize = 14;
    pub const CHECKSUM: usize = 16;
}

/// Control bits, as byte 13 of the header.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgment number is valid.
    pub const ACK: u8 = 0x10;

    /// Whether any of `bits` is set.
    #[inline(always)]
    pub const fn any(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    /// Whether this opens a connection: SYN without ACK, FIN or RST.
    #[inline(always)]
    pub const fn is_open(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::FIN | Self::RST) == Self::SYN
    }
}

/// Length of the fixed header in bytes.
const LEN: usize = 20;

/// A view on a TCP header without options.
#[derive(Debug, Clone, Copy)]
pub struct Tcp<'a>(pub &'a [u8; LEN]);

impl Tcp<'_> {
    /// Offset of the checksum in the header.
    pub const CHECKSUM: usize = field::CHECKSUM;

    /// Length of the fixed part in bytes.
    pub const LEN: usize = LEN;

    #[inline(always)]
    const fn be16_at(&self, offset: usize) -> Be16 {
        Be16([self.0[offset], self.0[offset + 1]])
    }

    #[inline(always)]
    const fn u32_at(&self, offset: usize) -> u32 {
        u32::from_be_bytes([
            self.0[offset],
            self.0[offset + 1],
            self.0[offset + 2],
            self.0[offset + 3],
        ])
    }

    /// Source port.
    #[inline(always)]
    pub const fn source_port(&self) -> Be16 {
        self.be16_at(field::SOURCE_PORT)
    }

    /// Destination port.
    #[inline(always)]
    pub const fn destination_port(&self) -> Be16 {
        self.be16_at(field::DESTINATION_PORT)
    }

    /// Sequence number.
    #[inline(always)]
    pub const fn sequence(&self) -> u32 {
        self.u32_at(field::SEQUENCE)
    }

    /// Acknowledgment number; means something only with ACK.
    #[inline(always)]
    pub const fn acknowledgment(&self) -> u32 {
        self.u32_at(field::ACKNOWLEDGMENT)
    }

    /// Length of the header with options, in bytes: 0 to 60, valid from 20.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        ((self.0[field::DATA_OFFSET] >> 4) as usize) << 2
    }

    /// Control bits.
    #[inline(always)]
    pub const fn flags(&self) -> Flags {
        Flags(self.0[field::FLAGS])
    }

    /// Receive window, not scaled.
    #[inline(always)]
    pub const fn window(&self) -> u16 {
        self.be16_at(field::WINDOW).get()
    }

    /// Checksum, host integer.
    #[inline(always)]
    pub const fn checksum(&self) -> u16 {
        self.be16_at(field::CHECKSUM).get()
    }
}

/// A view on a TCP header, to be written.
#[derive(Debug)]
pub struct TcpMut<'a>(pub &'a mut [u8; Tcp::LEN]);

impl TcpMut<'_> {
    /// Sets both ports.
    #[inline(always)]
    pub fn set_ports(&mut self, source: Be16, destination: Be16) {
        let ([a, b], [c, d]) = (source.0, destination.0);
        self.0[field::SOURCE_PORT] = a;
        self.0[field::SOURCE_PORT + 1] = b;
        self.0[field::DESTINATION_PORT] = c;
        self.0[field::DESTINATION_PORT + 1] = d;
    }

    /// Changes the checksum.
    #[inline(always)]
    pub fn adjust_checksum(&mut self, delta: Delta) {
        self.set_checksum(delta.apply(Tcp(self.0).checksum()));
    }

    /// Sets the checksum, host integer.
    #[inline(always)]
    pub const fn set_checksum(&mut self, checksum: u16) {
        let [high, low] = checksum.to_be_bytes();
        self.0[field::CHECKSUM] = high;
        self.0[field::CHECKSUM + 1] = low;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SYN from port 40000 to 5061 with the options of a Linux client.
    const SYN: [u8; 40] = [
        0x9c, 0x40, 0x13, 0xc5, 0x01, 0x02, 0x03, 0x04, 0x00, 0x00, 0x00, 0x00, 0xa0, 0x02, 0xfa,
        0xf0, 0x12, 0x34, 0x00, 0x00, 2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3,
        3, 7,
    ];

    #[test]
    fn deconstruct() {
        let header = Tcp(SYN.first_chunk().expect("20 bytes"));
        assert_eq!(header.source_port().get(), 40000);
        assert_eq!(header.destination_port().get(), 5061);
        assert_eq!(header.sequence(), 0x0102_0304);
        assert_eq!(header.acknowledgment(), 0);
        assert_eq!(header.header_len(), 40);
        assert!(header.flags().is_open());
        assert_eq!(header.window(), 64240);
        assert_eq!(header.checksum(), 0x1234);
    }

    #[test]
    fn opening_flags() {
        let cases = [
            (Flags::SYN, true),
            (Flags::SYN | Flags::ACK, false),
            (Flags::SYN | Flags::FIN, false),
            (Flags::SYN | Flags::RST, false),
            (Flags::ACK, false),
            (0, false),
            // ECN setup (RFC 3168): CWR and ECE with the SYN.
            (0xc0 | Flags::SYN, true),
        ];
        for (bits, open) in cases {
            assert_eq!(Flags(bits).is_open(), open, "{bits:#04x}");
        }
    }
}

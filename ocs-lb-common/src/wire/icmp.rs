//! Internet Control Message Protocol (RFC 792): the header of a message, and
//! the start of the TCP segment that an error quotes.

use super::tcp::field;
use crate::address::Be16;
use crate::checksum::Delta;

/// Offsets in the eight bytes that all messages begin with.
mod at {
    pub const KIND: usize = 0;
    pub const CODE: usize = 1;
    pub const CHECKSUM: usize = 2;
    pub const MTU: usize = 6;
}

/// Type of a message (IANA "ICMP Type Numbers").
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IcmpType(pub u8);

impl IcmpType {
    /// Echo reply.
    pub const ECHO_REPLY: Self = Self(0);
    /// Destination unreachable.
    pub const UNREACHABLE: Self = Self(3);
    /// Echo request.
    pub const ECHO: Self = Self(8);
    /// Time exceeded.
    pub const TIME_EXCEEDED: Self = Self(11);
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: Self = Self(12);

    /// Whether the message quotes the packet that it is about. Redirects (5)
    /// are a host's own affair, and source quench (4) is dead: nobody forwards
    /// it or heeds it (RFC 6633).
    #[inline(always)]
    pub const fn is_error(self) -> bool {
        matches!(
            self,
            Self::UNREACHABLE | Self::TIME_EXCEEDED | Self::PARAMETER_PROBLEM
        )
    }
}

/// Length of the header in bytes.
const LEN: usize = 8;

/// A view on a message's header.
#[derive(Debug, Clone, Copy)]
pub struct Icmp<'a>(pub &'a [u8; LEN]);

impl Icmp<'_> {
    /// Length of the header in bytes.
    pub const LEN: usize = LEN;

    /// Code: there is no way to the network (these and the next: RFC 792, RFC
    /// 1812 section 5.2.7.1).
    pub const UNREACHABLE_NET: u8 = 0;
    /// The host does not answer.
    pub const UNREACHABLE_HOST: u8 = 1;
    /// The host does not know TCP.
    pub const UNREACHABLE_PROTOCOL: u8 = 2;
    /// Nobody listens.
    pub const UNREACHABLE_PORT: u8 = 3;
    /// Fragmentation needed (RFC 1191).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// The network is administratively prohibited.
    pub const PROHIBITED_NET: u8 = 9;
    /// The host is.
    pub const PROHIBITED_HOST: u8 = 10;
    /// A filter says no.
    pub const PROHIBITED: u8 = 13;

    /// Type.
    #[inline(always)]
    pub const fn kind(&self) -> IcmpType {
        IcmpType(self.0[at::KIND])
    }

    /// Code, whose meaning depends on the type.
    #[inline(always)]
    pub const fn code(&self) -> u8 {
        self.0[at::CODE]
    }

    /// Checksum of the whole message, host integer.
    #[inline(always)]
    pub const fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[at::CHECKSUM], self.0[at::CHECKSUM + 1]])
    }

    /// MTU of the next hop in bytes, where fragmentation is needed (RFC 1191
    /// section 4); 0 from routers that do not know it.
    #[inline(always)]
    pub const fn mtu(&self) -> u16 {
        u16::from_be_bytes([self.0[at::MTU], self.0[at::MTU + 1]])
    }
}

/// A view on a message's header, to be written.
#[derive(Debug)]
pub struct IcmpMut<'a>(pub &'a mut [u8; LEN]);

impl IcmpMut<'_> {
    /// What the type's change from a request to its answer does to the
    /// checksum: the word of type and code falls by 0x0800.
    pub const ANSWER: u16 = !0x0800;

    /// Sets the type.
    #[inline(always)]
    pub fn set_kind(&mut self, kind: IcmpType) {
        self.0[at::KIND] = kind.0;
    }

    /// Changes the checksum.
    #[inline(always)]
    pub fn adjust_checksum(&mut self, delta: Delta) {
        let [high, low] = delta.apply(Icmp(self.0).checksum()).to_be_bytes();
        self.0[at::CHECKSUM] = high;
        self.0[at::CHECKSUM + 1] = low;
    }
}

/// The first eight bytes of a TCP header: all that an error must quote of it
/// (RFC 792).
#[derive(Debug, Clone, Copy)]
pub struct TcpStart<'a>(pub &'a [u8; 8]);

impl TcpStart<'_> {
    /// Length in bytes.
    pub const LEN: usize = 8;
    /// Offset of the checksum, two bytes, which a quote need not reach.
    pub const CHECKSUM: usize = field::CHECKSUM;

    #[inline(always)]
    const fn be16_at(&self, offset: usize) -> Be16 {
        Be16([self.0[offset], self.0[offset + 1]])
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
        let [.., a, b, c, d] = *self.0;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Sets both ports.
    #[inline(always)]
    pub fn set_ports(bytes: &mut [u8; 8], source: Be16, destination: Be16) {
        let ([a, b], [c, d]) = (source.0, destination.0);
        bytes[field::SOURCE_PORT] = a;
        bytes[field::SOURCE_PORT + 1] = b;
        bytes[field::DESTINATION_PORT] = c;
        bytes[field::DESTINATION_PORT + 1] = d;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum;

    #[test]
    fn deconstruct() {
        // Fragmentation needed, 1280 bytes.
        let header = [3, 4, 0x12, 0x34, 0, 0, 5, 0];
        let icmp = Icmp(&header);
        assert_eq!(icmp.kind(), IcmpType::UNREACHABLE);
        assert_eq!(icmp.code(), Icmp::FRAGMENTATION_NEEDED);
        assert_eq!((icmp.checksum(), icmp.mtu()), (0x1234, 1280));

        let tcp = TcpStart(&[0x9c, 0x40, 0x13, 0xc5, 1, 2, 3, 4]);
        assert_eq!(tcp.source_port().get(), 40_000);
        assert_eq!(tcp.destination_port().get(), 5061);
        assert_eq!(tcp.sequence(), 0x0102_0304);
    }

    #[test]
    fn errors_by_type() {
        let errors: Vec<u8> = (0..=255)
            .filter(|kind| IcmpType(*kind).is_error())
            .collect();
        assert_eq!(errors, [3, 11, 12]);
    }

    #[test]
    fn an_answer_keeps_the_checksum_valid() {
        for word in 0..=u16::MAX {
            let [a, b] = word.to_be_bytes();
            let mut bytes = [8, 0, 0, 0, a, b, 0, 1];
            let checksum = Sum::ZERO.add_bytes(&bytes).checksum();
            bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
            let mut header = IcmpMut(&mut bytes);
            header.set_kind(IcmpType::ECHO_REPLY);
            header.adjust_checksum(Delta(IcmpMut::ANSWER));
            assert_eq!(Sum::ZERO.add_bytes(&bytes).fold(), 0xffff, "{word:#x}");
        }
    }
}

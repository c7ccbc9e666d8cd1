//! ICMP over IPv4: what is made of messages to our addresses, and the errors
//! that we send ourselves (RFC 792, RFC 1122 section 3.2.2, RFC 5508 for what
//! a NAT does).
//!
//! An error quotes the packet that it is about as it was *sent on*: with the
//! translated tuple. Read backwards that is the tuple of an answer, so it is
//! found under the key of the other direction's packets, and that entry says
//! what the packet was before.

use core::num::NonZeroU32;

use crate::abi::{AddressFlags, Flow, FlowKey};
use crate::address::{Address, V4};
use crate::checksum::{Delta, Sum};
use crate::parse::{IP_OFFSET, Packet, is_cut};
use crate::track::{Phase, StateWord};
use crate::verdict::Verdict;
use crate::wire::{
    Ethernet, Frame, Icmp, IcmpMut, IcmpType, IpProto, Ipv4, Ipv4Mut, Tcp, TcpStart,
};

/// Errors that one CPU sends in each window of [`crate::rate`]. As many as a
/// Linux host sends in all (`net.ipv4.icmp_msgs_per_sec`).
pub const ERRORS_PER_CPU: u32 = 1000;

/// A message to one of our addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks whether we are there.
    Echo(Echo),
    /// Something happened to a TCP packet.
    Error(Error),
    /// The same, to a packet that is not TCP, shows no ports, or did not come
    /// from the address that the error is to, which this is.
    Foreign(V4),
    /// Anything else, ICMP or not, to this address.
    Other(V4),
}

/// An echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Who asks.
    pub source: V4,
    /// Whom.
    pub destination: V4,
    /// Offset of the message in the frame, in bytes.
    pub offset: usize,
    /// Length of the IP packet, in bytes.
    pub ip_len: u16,
}

/// An error about a TCP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// Who sends it: the packet's receiver or a router on the way.
    pub source: V4,
    /// Time to live of the error itself.
    pub ttl: u8,
    /// Its type.
    pub kind: IcmpType,
    /// Its code.
    pub code: u8,
    /// Offset of the message in the frame, in bytes.
    pub offset: usize,
    /// Offset of the quoted TCP header in the frame, in bytes.
    pub tcp_offset: usize,
    /// Whether the quote reaches as far as the TCP checksum.
    pub has_checksum: bool,
    /// Tuple of the quoted packet.
    pub quoted: FlowKey<V4>,
    /// Its sequence number.
    pub seq: u32,
}

impl Error {
    /// Offset of the quoted IP header in the frame, in bytes.
    const fn quote_offset(&self) -> usize {
        self.offset + Icmp::LEN
    }

    /// Whether it says that the packet's destination cannot be reached at all,
    /// rather than that this packet could not (RFC 1122 section 3.2.2.1, RFC
    /// 1812 section 5.2.7.1).
    #[inline(always)]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self.kind, IcmpType::UNREACHABLE)
            && matches!(
                self.code,
                Icmp::UNREACHABLE_NET
                    | Icmp::UNREACHABLE_HOST
                    | Icmp::UNREACHABLE_PROTOCOL
                    | Icmp::UNREACHABLE_PORT
                    | Icmp::PROHIBITED_NET
                    | Icmp::PROHIBITED_HOST
                    | Icmp::PROHIBITED
            )
    }
}

/// An IPv4 packet that is not TCP.
///
/// # Errors
/// [`Verdict::BadLength`] where a header contradicts itself or the frame's
/// length, or an error quotes less than an IP header and eight bytes.
/// [`Verdict::Malformed`] where what it quotes is not IPv4.
#[inline(always)]
pub fn parse_ipv4(frame: &impl Frame) -> Result<Message, Verdict> {
    let bytes = frame.at(IP_OFFSET).ok_or(Verdict::BadLength)?;
    let ip = Ipv4(bytes);
    let (header_len, total_len) = (ip.header_len(), ip.total_len());
    let (source, destination, ttl) = (ip.source(), ip.destination(), ip.ttl());
    if ip.protocol() != IpProto::ICMP || ip.is_fragment() {
        return Ok(Message::Other(destination));
    }
    let end = IP_OFFSET + total_len;
    if header_len < Ipv4::LEN || total_len < header_len + Icmp::LEN || is_cut(frame, end) {
        return Err(Verdict::BadLength);
    }
    let offset = IP_OFFSET + header_len;
    let icmp = Icmp(frame.at(offset).ok_or(Verdict::BadLength)?);
    let (kind, code) = (icmp.kind(), icmp.code());
    if kind == IcmpType::ECHO {
        return Ok(Message::Echo(Echo {
            source,
            destination,
            offset,
            ip_len: total_len as u16,
        }));
    }
    if !kind.is_error() {
        return Ok(Message::Other(destination));
    }
    let quote_offset = offset + Icmp::LEN;
    if quote_offset + Ipv4::LEN > end {
        return Err(Verdict::BadLength);
    }
    let quote = Ipv4(frame.at(quote_offset).ok_or(Verdict::BadLength)?);
    let quote_len = quote.header_len();
    if quote.version() != 4 {
        return Err(Verdict::Malformed);
    }
    if quote_len < Ipv4::LEN {
        return Err(Verdict::BadLength);
    }
    let (from, to) = (quote.source(), quote.destination());
    if quote.protocol() != IpProto::TCP || quote.is_later_fragment() || from != destination {
        return Ok(Message::Foreign(destination));
    }
    let tcp_offset = quote_offset + quote_len;
    if tcp_offset + TcpStart::LEN > end {
        return Err(Verdict::BadLength);
    }
    let tcp = TcpStart(frame.at(tcp_offset).ok_or(Verdict::BadLength)?);
    Ok(Message::Error(Error {
        source,
        ttl,
        kind,
        code,
        offset,
        tcp_offset,
        has_checksum: tcp_offset + TcpStart::CHECKSUM + 2 <= end,
        quoted: FlowKey::tcp(from, tcp.source_port(), to, tcp.destination_port()),
        seq: tcp.sequence(),
    }))
}

/// Whether errors about a flow in this state are anybody's business: it lives,
/// or serves retransmissions.
#[inline(always)]
pub const fn is_known(word: StateWord) -> bool {
    matches!(
        word.phase(),
        Phase::HalfOpen | Phase::Established | Phase::Closed | Phase::Reset
    )
}

/// Where an error ends that is about no flow of ours: the host's own
/// connections and checks share addresses with flows, so the host gets what
/// comes to an address that it has.
#[inline(always)]
pub const fn without_flow(address: AddressFlags) -> Verdict {
    if address.any(AddressFlags::HOST) {
        Verdict::NotTcp
    } else {
        Verdict::IcmpUnknown
    }
}

/// Whether an echo request is answered here: a VIP is there whether the host
/// has it or not, and a SNAT address that the host does not have would
/// otherwise be silent.
#[inline(always)]
pub const fn answers_echo(address: AddressFlags) -> bool {
    address.any(AddressFlags::VIP)
        || address.any(AddressFlags::SNAT) && !address.any(AddressFlags::HOST)
}

/// Turns an echo request into its reply (RFC 1122 section 3.2.2.6); the caller
/// sets the Ethernet addresses. A wrong checksum stays wrong.
///
/// `None` where the frame is shorter than its parse said.
#[inline(always)]
pub fn write_reply(frame: &mut impl Frame, echo: &Echo) -> Option<()> {
    let bytes = frame.at_mut::<{ Ipv4::LEN }>(IP_OFFSET)?;
    let before = Sum::ZERO.sub_u16((Ipv4(bytes).ttl() as u16) << 8);
    let mut ip = Ipv4Mut(bytes);
    ip.set_addresses(echo.destination, echo.source);
    ip.set_ttl(TTL);
    ip.adjust_checksum(before.add_u16((TTL as u16) << 8).delta());
    let mut icmp = IcmpMut(frame.at_mut::<{ Icmp::LEN }>(echo.offset)?);
    icmp.set_kind(IcmpType::ECHO_REPLY);
    icmp.adjust_checksum(Delta(IcmpMut::ANSWER));
    Some(())
}

/// Who the error comes from, as its receiver is told. `entry` is the one that
/// the quote was found under.
///
/// A backend's side is nothing that clients may see, whether the error is the
/// backend's own or a router's: for them everything behind the VIP is the VIP.
/// A backend sees routers on the clients' side as they are, and the SNAT
/// address instead of the client.
#[inline(always)]
pub fn source_after(error: &Error, entry: &Flow<V4>) -> V4 {
    if entry.is_reverse() || error.source == error.quoted.destination {
        entry.source
    } else {
        error.source
    }
}

/// Translates an error: it goes to the sender of the quoted packet, and quotes
/// it as that sent it, but for its time to live, which nobody restores.
/// Checksums that were wrong stay wrong, the message's and those in the quote.
///
/// `None`, with nothing changed that matters, where the frame is shorter than
/// its parse said.
#[inline(always)]
pub fn translate(frame: &mut impl Frame, error: &Error, entry: &Flow<V4>) -> Option<()> {
    let (before, after) = (&error.quoted, entry.peer_key());
    let addresses =
        sum_of(after.source, after.destination).sub(sum_of(before.source, before.destination));
    let ports = Sum::ZERO
        .sub_u16(before.source_port.get())
        .sub_u16(before.destination_port.get())
        .add_u16(after.source_port.get())
        .add_u16(after.destination_port.get());
    // All of the message that changes, its own checksum excepted.
    let mut message = addresses.add(ports);

    let mut quote = Ipv4Mut(frame.at_mut::<{ Ipv4::LEN }>(error.quote_offset())?);
    message = message.sub_u16(Ipv4(quote.0).checksum());
    quote.set_addresses(after.source, after.destination);
    quote.adjust_checksum(addresses.delta());
    message = message.add_u16(Ipv4(quote.0).checksum());

    let start = frame.at_mut::<{ TcpStart::LEN }>(error.tcp_offset)?;
    TcpStart::set_ports(start, after.source_port, after.destination_port);
    if error.has_checksum {
        let checksum = frame.at_mut::<2>(error.tcp_offset + TcpStart::CHECKSUM)?;
        let old = u16::from_be_bytes(*checksum);
        let new = addresses.add(ports).delta().apply(old);
        *checksum = new.to_be_bytes();
        message = message.sub_u16(old).add_u16(new);
    }
    IcmpMut(frame.at_mut::<{ Icmp::LEN }>(error.offset)?).adjust_checksum(message.delta());

    let source = source_after(error, entry);
    let mut ip = Ipv4Mut(frame.at_mut::<{ Ipv4::LEN }>(IP_OFFSET)?);
    let outer = sum_of(source, after.source)
        .sub(sum_of(error.source, before.source))
        .add_u16(Ipv4Mut::HOP);
    ip.set_addresses(source, after.source);
    ip.decrement_ttl();
    ip.adjust_checksum(outer.delta());
    Some(())
}

#[inline(always)]
fn sum_of(source: V4, destination: V4) -> Sum {
    destination.add_to(source.add_to(Sum::ZERO))
}

/// Why a packet goes no further here: the MTU of its way on, in bytes, or
/// [`Obstacle::EXPIRED`]. One number, not an enum: what an enum leaves unset
/// the kernel's verifier does not want to see copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Obstacle(NonZeroU32);

impl Obstacle {
    /// Its time to live is over.
    pub const EXPIRED: Self = Self(NonZeroU32::MAX);

    /// The link that it would leave by takes no packets over this length; none
    /// where that is 0.
    #[inline(always)]
    pub const fn too_big(mtu: u16) -> Option<Self> {
        match NonZeroU32::new(mtu as u32) {
            Some(mtu) => Some(Self(mtu)),
            None => None,
        }
    }

    #[inline(always)]
    const fn is_expired(self) -> bool {
        self.0.get() == Self::EXPIRED.0.get()
    }

    /// What a packet meets that its sender is told nothing of.
    #[inline(always)]
    pub const fn silent(self) -> Verdict {
        if self.is_expired() {
            Verdict::TtlExceeded
        } else {
            Verdict::TooBig
        }
    }

    /// What a packet meets that its sender is told of.
    #[inline(always)]
    pub const fn told(self) -> Verdict {
        if self.is_expired() {
            Verdict::AnsweredExpired
        } else {
            Verdict::AnsweredTooBig
        }
    }

    /// Type and code as one word, and the MTU.
    #[inline(always)]
    const fn words(self) -> (u16, u16) {
        if self.is_expired() {
            ((IcmpType::TIME_EXCEEDED.0 as u16) << 8, 0)
        } else {
            let code = Icmp::FRAGMENTATION_NEEDED as u16;
            let word = (IcmpType::UNREACHABLE.0 as u16) << 8 | code;
            (word, self.0.get() as u16)
        }
    }
}

/// Whether a packet that came as this frame may be answered with an error at
/// all: it was not for a group (RFC 1812 section 4.3.2.7). That it is TCP, no
/// fragment, to an address of ours and from one that a client can have, its
/// way up to here has shown.
#[inline(always)]
pub fn may_tell(frame: &impl Frame) -> bool {
    frame
        .at::<{ Ethernet::LEN }>(0)
        .is_some_and(|bytes| bytes[0] & 1 == 0)
}

/// Room that an error's headers take in front of the packet that it quotes.
pub const ROOM: usize = Ipv4::LEN + Icmp::LEN;

/// Words of the longest quote: an IP header with all options, and TCP's.
const QUOTE_WORDS: usize = (60 + Tcp::LEN) / 4;

/// Length of what an error quotes of a packet: its IP header with options, and
/// the fixed part of its TCP header (RFC 1812 section 4.3.2.3 asks for eight
/// bytes of that, and for more where it is cheap).
#[inline(always)]
pub const fn quote_len(packet: &Packet<V4>) -> usize {
    packet.tcp_offset - IP_OFFSET + Tcp::LEN
}

/// Time to live of what we send ourselves.
const TTL: u8 = 64;

/// TOS of errors: internetwork control (RFC 1812 section 4.3.2.5).
const TOS: u8 = 0xc0;

/// Writes the headers of an error into the [`ROOM`] that was made between the
/// Ethernet header and the packet it is about, of which [`quote_len`] bytes are
/// left. It comes from the packet's own destination: an address of ours that
/// the sender knows. The caller sets the Ethernet addresses.
///
/// With `partial` a device is still to complete the packet's TCP checksum, and
/// will do so in the quote: whatever it writes there brings the sum over the
/// TCP header to what the field held before, taken away (RFC 1071 section 1).
/// The field is set to zero here, so the sum will be none.
///
/// `None` where the frame is shorter than that.
#[inline(always)]
pub fn write_error(
    frame: &mut impl Frame,
    packet: &Packet<V4>,
    obstacle: Obstacle,
    partial: bool,
) -> Option<()> {
    let (from, to) = (packet.key.destination, packet.key.source);
    let (offset, len) = (IP_OFFSET + Ipv4::LEN, quote_len(packet));
    let ip_len = (ROOM + len) as u16;
    let ip = frame.at_mut::<{ Ipv4::LEN }>(IP_OFFSET)?;
    *ip = [0; Ipv4::LEN];
    ip[0] = 0x45;
    ip[1] = TOS;
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    // Don't fragment.
    ip[6] = 0x40;
    ip[8] = TTL;
    ip[9] = IpProto::ICMP.0;
    ip[12..16].copy_from_slice(&from.0);
    ip[16..20].copy_from_slice(&to.0);
    let sum = sum_of(from, to)
        .add_u16(0x4500 | TOS as u16)
        .add_u16(ip_len)
        .add_u16(0x4000)
        .add_u16((TTL as u16) << 8 | IpProto::ICMP.0 as u16);
    ip[10..12].copy_from_slice(&sum.checksum().to_be_bytes());

    let summed = if partial {
        let field = packet.tcp_offset + ROOM + TcpStart::CHECKSUM;
        *frame.at_mut::<2>(field)? = [0; 2];
        len - Tcp::LEN
    } else {
        len
    };
    let (kind, mtu) = obstacle.words();
    let mut sum = Sum::ZERO.add_u16(kind).add_u16(mtu);
    for at in 0..QUOTE_WORDS {
        if at * 4 >= summed {
            break;
        }
        let word = frame.at::<4>(offset + Icmp::LEN + at * 4)?;
        sum = sum.add_u32(u32::from_be_bytes(*word));
    }
    let icmp = frame.at_mut::<{ Icmp::LEN }>(offset)?;
    *icmp = [0; Icmp::LEN];
    icmp[0..2].copy_from_slice(&kind.to_be_bytes());
    icmp[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
    Some(())
}

#[cfg(test)]
#[path = "icmp_tests.rs"]
mod tests;

//! Any bytes as a frame. A parse stays within them; what is read of options is
//! what Linux reads (`net/ipv4/tcp_input.c`: `tcp_parse_options`).

use ocs_lb_common::abi::Pending;
use ocs_lb_common::address::{Address, V4};
use ocs_lb_common::parse::{IP_OFFSET, Odd, Packet, parse_ether_type, parse_ipv4, parse_ipv6};
use ocs_lb_common::redispatch::{frame_len_ipv4, options_ipv4, packet_ipv4, save, write_ipv4};
use ocs_lb_common::ticks::Ticks;
use ocs_lb_common::wire::{
    EtherType, Frame as _, SliceFrame, SynOptions, strip_timestamp, syn_options, timestamp_value,
};

use crate::redispatch::nothing;
use crate::sum::{Parts, remainder};

/// Options that the core reads of a SYN.
const OPTIONS_READ: usize = 12;

/// The target.
pub fn run(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let ether_type = parse_ether_type(&SliceFrame(&mut bytes));
    match ether_type {
        Ok(EtherType::IPV4) => assert_eq!(bytes[12..14], [8, 0]),
        Ok(other) => assert_eq!(
            (other, &bytes[12..14]),
            (EtherType::IPV6, &[0x86, 0xdd][..])
        ),
        Err(_) => {}
    }
    match parse_ipv4(&SliceFrame(&mut bytes)) {
        Ok(packet) => {
            whole(&packet, 26, &bytes);
            assert_eq!(packet.ttl, bytes[22]);
            // Their frames need not be IPv4 for the parsers, but for the rest.
            options(&packet, &mut bytes.clone());
            second_try(&packet, &mut bytes);
        }
        Err(Odd::IfOurs { destination, .. }) => assert_eq!(destination.0, bytes[30..34]),
        Err(Odd::Pass(_)) => assert!(bytes.len() < IP_OFFSET + 20),
    }
    match parse_ipv6(&SliceFrame(&mut bytes)) {
        Ok(packet) => {
            whole(&packet, 22, &bytes);
            options(&packet, &mut bytes);
        }
        Err(Odd::IfOurs { destination, .. }) => assert_eq!(destination.0, bytes[38..54]),
        Err(Odd::Pass(_)) => assert!(bytes.len() < IP_OFFSET + 40),
    }
    // Offsets that no parse told.
    if let [.., offset, len] = bytes[..] {
        let (offset, len) = (usize::from(offset), usize::from(len & 63));
        let frame = SliceFrame(&mut bytes);
        let read = syn_options(&frame, offset, len);
        assert!(read.scale <= 14);
        assert!(read.timestamp.is_none() || read.timestamp_at + 10 <= offset + len);
        let _ = timestamp_value(&frame, offset, len);
        let _ = strip_timestamp(&mut SliceFrame(&mut bytes), offset, offset + len);
    }
}

/// A packet agrees with its frame; its addresses lie at `addresses`.
fn whole<A: Address>(packet: &Packet<A>, addresses: usize, bytes: &[u8]) {
    let tcp = packet.tcp_offset;
    assert!(tcp <= IP_OFFSET + 60 && (20..=60).contains(&packet.tcp_header_len));
    let end = IP_OFFSET + usize::from(packet.ip_len);
    let payload = usize::from(packet.segment.payload);
    assert_eq!(tcp + packet.tcp_header_len + payload, end);
    assert!(end <= bytes.len());
    let key = &packet.key;
    let told = [key.source, key.destination].map(|a| a.to_bytes()[..A::LEN].to_vec());
    assert_eq!(told.concat(), bytes[addresses..addresses + 2 * A::LEN]);
    let ports = [key.source_port.0, key.destination_port.0].concat();
    assert_eq!(ports, bytes[tcp..tcp + 4]);
    assert_eq!(packet.segment.seq.to_be_bytes(), bytes[tcp + 4..tcp + 8]);
    assert_eq!(packet.segment.flags.0, bytes[tcp + 13]);
    assert_eq!((key.proto, key.pad, key.pad2), (6, 0, 0));
}

fn options<A: Address>(packet: &Packet<A>, bytes: &mut [u8]) {
    let (tcp, len) = (packet.tcp_offset, packet.tcp_header_len);
    let read = syn_options(&SliceFrame(bytes), tcp, len);
    let aligned = timestamp_value(&SliceFrame(bytes), tcp, len);
    if let Some(wanted) = as_linux(&bytes[tcp + 20..tcp + len], tcp + 20) {
        assert_eq!(read, wanted);
        if let Some(value) = aligned {
            assert!(wanted.timestamp.is_some(), "{value} is no timestamp");
        }
    }
    let Some(value) = read.timestamp else {
        return;
    };
    let at = read.timestamp_at;
    assert!(at >= tcp + 20 && at + 10 <= tcp + len);
    assert_eq!(bytes[at..at + 2], [8, 10]);
    assert_eq!(bytes[at + 2..at + 6], value.to_be_bytes());

    let before = bytes.to_vec();
    let end = tcp + len + usize::from(packet.segment.payload);
    let stripped = strip_timestamp(&mut SliceFrame(bytes), tcp, at);
    assert_eq!(stripped, Some(()), "a packet is whole");
    assert_eq!(bytes[at..at + 10], [1; 10]);
    assert_eq!(
        remainder(&[&bytes[tcp..end]]),
        remainder(&[&before[tcp..end]]),
        "the checksum no longer fits"
    );
    let may_change = |n: usize| (at..at + 10).contains(&n) || (tcp + 16..tcp + 18).contains(&n);
    only(&before, bytes, may_change);
}

/// Fails where another byte changed than one that may.
pub fn only(before: &[u8], after: &[u8], may_change: impl Fn(usize) -> bool) {
    assert_eq!(before.len(), after.len());
    for (at, (old, new)) in before.iter().zip(after).enumerate() {
        assert!(old == new || may_change(at), "byte {at} changed");
    }
}

/// What Linux reads of a SYN's options, the first of which lies at `first`;
/// `None` where there are more than the core looks at.
fn as_linux(options: &[u8], first: usize) -> Option<SynOptions> {
    let mut read = SynOptions::default();
    let mut at = 0;
    for _ in 0..OPTIONS_READ {
        match options[at..] {
            [] | [0, ..] => return Some(read),
            [1, ..] => at += 1,
            // A kind without its length.
            [_] => return Some(read),
            [_, len, ..] => {
                let len = usize::from(len);
                let Some(option) = options.get(at..at + len) else {
                    return Some(read);
                };
                match *option {
                    [] | [_] => return Some(read),
                    [3, 3, scale] => read.scale = scale.min(14),
                    [8, 10, a, b, c, d, ..] => {
                        read.timestamp = Some(u32::from_be_bytes([a, b, c, d]));
                        read.timestamp_at = first + at;
                    }
                    _ => {}
                }
                at += len;
            }
        }
    }
    (at >= options.len()).then_some(read)
}

/// What is kept of a SYN for a second try is that SYN.
fn second_try(packet: &Packet<V4>, bytes: &mut [u8]) {
    let (tcp, len) = (packet.tcp_offset, packet.tcp_header_len);
    if !packet.segment.flags.is_open() {
        return;
    }
    let read = syn_options(&SliceFrame(bytes), tcp, len);
    let mut pending: Pending<V4> = nothing();
    pending.key = packet.key;
    save(&mut pending, packet, &read, Ticks(7));
    pending.options[..len - 20].copy_from_slice(&bytes[tcp + 20..tcp + len]);
    let mut frame = vec![0; frame_len_ipv4(&pending)];
    let mut view = SliceFrame(&mut frame);
    assert_eq!(write_ipv4(&mut view, &pending), Some(()));
    let again = packet_ipv4(&pending);
    assert_eq!(parse_ipv4(&view), Ok(again));
    assert_eq!(again.key, packet.key);
    assert_eq!(again.segment.seq, packet.segment.seq);
    let known = options_ipv4(&pending, read.timestamp.unwrap_or(0));
    let read = syn_options(&view, again.tcp_offset, again.tcp_header_len);
    assert_eq!(known.scale, read.scale);
    assert_eq!(known.timestamp, read.timestamp);
    assert!(known.timestamp.is_none() || known.timestamp_at == read.timestamp_at);
    assert_eq!(view.len(), IP_OFFSET + usize::from(again.ip_len));
    Parts::ipv4(&again).check(&frame);
}

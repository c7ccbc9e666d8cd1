//! Tests of ICMP: every checksum is computed anew, and nothing is compared
//! with what the code under test says of it.

use super::*;
use crate::address::Be16;
use crate::parse::parse_ipv4 as parse_tcp;
use crate::translate::{Translate as _, pair};
use crate::wire::SliceFrame;
use proptest::prelude::*;

const CLIENT: [u8; 4] = [203, 0, 113, 7];
const VIP: [u8; 4] = [192, 0, 2, 1];
const SNAT: [u8; 4] = [198, 51, 100, 1];
const BACKEND: [u8; 4] = [198, 51, 100, 11];
const ROUTER: [u8; 4] = [198, 51, 100, 254];

fn key(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> FlowKey<V4> {
    FlowKey::tcp(V4(from.0), Be16::new(from.1), V4(to.0), Be16::new(to.1))
}

fn flow() -> (FlowKey<V4>, FlowKey<V4>) {
    let client = key((CLIENT, 40_000), (VIP, 5061));
    let backend = key((SNAT, 20_000), (BACKEND, 5061));
    (client, backend)
}

fn put(bytes: &mut [u8], at: usize, checksum: u16) {
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn sum(bytes: &[u8]) -> u16 {
    Sum::ZERO.add_bytes(bytes).fold()
}

/// An IPv4 packet with a right header checksum.
fn ip(from: V4, to: V4, protocol: u8, ttl: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut ip = vec![0x40 | (header_len / 4) as u8, 0];
    ip.extend(((header_len + payload.len()) as u16).to_be_bytes());
    ip.extend([0x12, 0x34, 0x40, 0, ttl, protocol, 0, 0]);
    ip.extend(from.0);
    ip.extend(to.0);
    ip.extend(options);
    let checksum = Sum::ZERO.add_bytes(&ip).checksum();
    put(&mut ip, 10, checksum);
    ip.extend(payload);
    ip
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend(packet);
    frame
}

/// A TCP packet with right checksums.
fn segment(key: &FlowKey<V4>, seq: u32, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut tcp = [key.source_port.0, key.destination_port.0].concat();
    tcp.extend(seq.to_be_bytes());
    tcp.extend([0, 0, 0, 9, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend(payload);
    let pseudo = key.destination.add_to(key.source.add_to(Sum::ZERO));
    let pseudo = pseudo.add_u16(6).add_u16(tcp.len() as u16);
    let checksum = pseudo.add_bytes(&tcp).checksum();
    put(&mut tcp, 16, checksum);
    ip(key.source, key.destination, 6, 64, options, &tcp)
}

/// An error about a packet, of which it quotes `len` bytes.
fn error(from: V4, kind: u8, code: u8, about: &[u8], len: usize) -> Vec<u8> {
    let quoted = V4(about[12..16].try_into().expect("4"));
    let mut icmp = vec![kind, code, 0, 0, 0, 0, 5, 0];
    icmp.extend(&about[..len.min(about.len())]);
    let checksum = Sum::ZERO.add_bytes(&icmp).checksum();
    put(&mut icmp, 2, checksum);
    ip(from, quoted, 1, 64, &[], &icmp)
}

fn parsed(frame: &mut [u8]) -> Error {
    match parse_ipv4(&SliceFrame(frame)) {
        Ok(Message::Error(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Translates a packet of `key` as the datapath does.
fn sent_on(packet: &[u8], entry: &Flow<V4>) -> Vec<u8> {
    let mut bytes = frame(packet);
    let packet = parse_tcp(&SliceFrame(&mut bytes)).expect("a packet");
    V4::translate(&mut SliceFrame(&mut bytes), &packet, entry).expect("whole");
    bytes[IP_OFFSET..].to_vec()
}

/// The error as `entry` translates it, and its quote, after a look at the
/// checksums of both headers and of the message.
fn translated(packet: &[u8], entry: &Flow<V4>) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = frame(packet);
    let error = parsed(&mut bytes);
    translate(&mut SliceFrame(&mut bytes), &error, entry).expect("whole");
    let packet = bytes[IP_OFFSET..].to_vec();
    assert_eq!(sum(&packet[..20]), 0xffff, "IP");
    assert_eq!(sum(&packet[20..]), 0xffff, "ICMP");
    assert_eq!(packet[8], 63, "one hop");
    let quote = packet[28..].to_vec();
    let header_len = usize::from(quote[0] & 15) * 4;
    assert_eq!(sum(&quote[..header_len]), 0xffff, "the quoted IP header");
    (packet, quote)
}

/// What the sender sent, as far as the quote reaches: all but the time to live
/// and the checksum over it.
fn as_sent(packet: &[u8], len: usize) -> Vec<u8> {
    let mut packet = packet[..len.min(packet.len())].to_vec();
    let header_len = usize::from(packet[0] & 15) * 4;
    packet[8] -= 1;
    put(&mut packet, 10, 0);
    let checksum = Sum::ZERO.add_bytes(&packet[..header_len]).checksum();
    put(&mut packet, 10, checksum);
    packet
}

proptest! {
    /// Both directions, any tuple, any length of the quote: the sender is told
    /// of the packet that it sent, and all checksums are right.
    #[test]
    fn errors_come_back(
        addresses in any::<[[u8; 4]; 4]>(), ports in any::<[u16; 4]>(),
        router in any::<[u8; 4]>(), options in 0usize..11, shown in 8usize..80,
        payload in proptest::collection::vec(any::<u8>(), 0..60),
        seq in any::<u32>(), kind in prop::sample::select(vec![3u8, 11, 12]),
        code in any::<u8>(), back in any::<bool>(), own in any::<bool>(),
    ) {
        let client = key((addresses[0], ports[0]), (addresses[1], ports[1]));
        let backend = key((addresses[2], ports[2]), (addresses[3], ports[3]));
        let (mut forward, mut reverse) = pair(&client, &backend);
        reverse.flags = crate::abi::REVERSE;
        forward.flags = 0;
        let (first, entry, found) = if back {
            (backend.reversed(), &reverse, &forward)
        } else {
            (client, &forward, &reverse)
        };
        let packet = segment(&first, seq, &vec![1; options * 4], &payload);
        let onward = sent_on(&packet, entry);
        let receiver = V4(onward[16..20].try_into().expect("4"));
        let len = 20 + options * 4 + shown;
        let from = if own { receiver } else { V4(router) };
        let message = error(from, kind, code, &onward, len);
        let mut bytes = frame(&message);
        let parse = parsed(&mut bytes);
        prop_assert_eq!(parse.quoted.reversed(), entry.peer_key());
        prop_assert_eq!((parse.seq, parse.kind.0, parse.code), (seq, kind, code));

        let (message, quote) = translated(&message, found);
        // Half of a checksum is none.
        let whole = if shown == 17 { len - 1 } else { len };
        let whole = whole.min(quote.len());
        prop_assert_eq!(&quote[..whole], &as_sent(&packet, whole)[..]);
        prop_assert_eq!(quote.len(), len.min(packet.len()));
        prop_assert_eq!(&message[16..20], &first.source.0[..]);
        let shown = if own || !back { first.destination } else { V4(router) };
        prop_assert_eq!(&message[12..16], &shown.0[..]);
        prop_assert_eq!(&message[20..22], &[kind, code][..]);
        prop_assert_eq!(&message[24..28], &[0, 0, 5, 0][..]);
    }

    /// A wrong checksum is not made right.
    #[test]
    fn what_was_wrong_stays_wrong(at in 20usize..56, bit in 0u8..8) {
        let (client, backend) = flow();
        let (forward, reverse) = pair(&client, &backend);
        let onward = sent_on(&segment(&client, 7, &[], &[]), &forward);
        let mut message = error(V4(ROUTER), 3, 4, &onward, 28);
        message[at] ^= 1 << bit;
        let mut bytes = frame(&message);
        if let Ok(Message::Error(error)) = parse_ipv4(&SliceFrame(&mut bytes)) {
            translate(&mut SliceFrame(&mut bytes), &error, &reverse).expect("whole");
            prop_assert_ne!(sum(&bytes[IP_OFFSET + 20..IP_OFFSET + 56]), 0xffff);
        }
    }

    /// Any bytes: no panic, and whatever is parsed can be translated.
    #[test]
    fn any_bytes(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..150),
        kind in any::<u8>(), options in 5u8..16, inner in 4u8..16,
    ) {
        let end = bytes.len();
        if end > 60 {
            bytes[14] = 0x40 | options;
            bytes[16..18].copy_from_slice(&((end - 14) as u16).to_be_bytes());
            bytes[23] = 1;
            let icmp = 14 + usize::from(options) * 4;
            if icmp + 30 < end {
                bytes[icmp] = [0, 3, 8, 11][usize::from(kind) % 4];
                bytes[icmp + 8] = 0x40 | inner;
                bytes[icmp + 14..icmp + 18].copy_from_slice(&[0, 0, 9, 6]);
                let own: [u8; 4] = bytes[30..34].try_into().expect("4");
                bytes[icmp + 20..icmp + 24].copy_from_slice(&own);
            }
        }
        let before = bytes.clone();
        match parse_ipv4(&SliceFrame(&mut bytes)) {
            Ok(Message::Error(error)) => {
                let entry = Flow::default();
                prop_assert!(translate(&mut SliceFrame(&mut bytes), &error, &entry).is_some());
                prop_assert_eq!(&before[..22], &bytes[..22], "nothing before the TTL");
            }
            Ok(Message::Echo(echo)) => {
                prop_assert!(write_reply(&mut SliceFrame(&mut bytes), &echo).is_some());
            }
            _ => {}
        }
        prop_assert_eq!(before.len(), bytes.len());
    }

    /// Our own errors: right checksums, the packet as it came, and an address
    /// that its sender knows.
    #[test]
    fn errors_of_our_own(
        options in 0usize..11, mtu in 576u16..9000, expired in any::<bool>(),
        payload in proptest::collection::vec(any::<u8>(), 0..60), seq in any::<u32>(),
        partial in any::<bool>(),
    ) {
        let (client, _) = flow();
        let packet = segment(&client, seq, &vec![1; options * 4], &payload);
        let parse = parse_tcp(&SliceFrame(&mut frame(&packet))).expect("a packet");
        let len = quote_len(&parse);
        prop_assert_eq!(len, 40 + options * 4);
        let too_big = Obstacle::too_big(mtu).expect("an MTU");
        let obstacle = if expired { Obstacle::EXPIRED } else { too_big };
        let mut told = frame(&[&[0xee; ROOM], &packet[..len]].concat());
        write_error(&mut SliceFrame(&mut told), &parse, obstacle, partial).expect("room");
        let told = &mut told[14..];
        if partial {
            // What a device does: it completes the sum from the TCP header on.
            let tcp = ROOM + len - 20;
            let checksum = !sum(&told[tcp..]);
            put(told, tcp + 16, checksum);
        }
        prop_assert_eq!(&told[..2], &[0x45, 0xc0][..]);
        prop_assert_eq!(usize::from(u16::from_be_bytes([told[2], told[3]])), told.len());
        prop_assert_eq!(sum(&told[..20]), 0xffff, "IP");
        prop_assert_eq!(sum(&told[20..]), 0xffff, "ICMP");
        prop_assert_eq!((&told[12..16], &told[16..20]), (&VIP[..], &CLIENT[..]));
        let [high, low] = mtu.to_be_bytes();
        let head = if expired { [11, 0, 0, 0, 0, 0] } else { [3, 4, 0, 0, high, low] };
        prop_assert_eq!((&told[20..22], &told[24..28]), (&head[..2], &head[2..]));
        let shown = if partial { len - 4 } else { len };
        prop_assert_eq!(&told[28..28 + shown], &packet[..shown]);
    }

    #[test]
    fn an_echo_comes_back(
        ttl in 1u8.., options in 0usize..11, id in any::<[u8; 4]>(),
        payload in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut icmp = [&[8, 0, 0, 0], &id[..], &payload].concat();
        let checksum = Sum::ZERO.add_bytes(&icmp).checksum();
        put(&mut icmp, 2, checksum);
        let packet = ip(V4(CLIENT), V4(VIP), 1, ttl, &vec![1; options * 4], &icmp);
        let mut bytes = frame(&packet);
        let Ok(Message::Echo(echo)) = parse_ipv4(&SliceFrame(&mut bytes)) else {
            panic!("no echo");
        };
        write_reply(&mut SliceFrame(&mut bytes), &echo).expect("whole");
        let reply = &bytes[14..];
        icmp[0] = 0;
        let checksum = checksum.wrapping_add(0x0800);
        // The ones' complement sum has a carry.
        put(&mut icmp, 2, checksum + u16::from(checksum < 0x0800));
        let expected = ip(V4(VIP), V4(CLIENT), 1, 64, &vec![1; options * 4], &icmp);
        prop_assert_eq!(sum(&reply[20 + options * 4..]), 0xffff);
        prop_assert_eq!(reply, &expected[..]);
    }
}

#[test]
fn what_is_no_error_about_a_flow() {
    let (client, _) = flow();
    let about = segment(&client, 7, &[], b"data");
    let own = V4(CLIENT);
    let message = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = frame(&error(V4(ROUTER), 3, 1, &about, 28));
        change(&mut bytes);
        parse_ipv4(&SliceFrame(&mut bytes))
    };
    assert!(matches!(message(&|_| {}), Ok(Message::Error(_))));
    type Case = (&'static str, fn(&mut Vec<u8>), Result<Message, Verdict>);
    let cases: [Case; 15] = [
        (
            "a fragment",
            |b| b[20] = 0x20,
            Ok(Message::Other(V4(CLIENT))),
        ),
        ("UDP", |b| b[23] = 17, Ok(Message::Other(V4(CLIENT)))),
        ("echo reply", |b| b[34] = 0, Ok(Message::Other(V4(CLIENT)))),
        (
            "source quench",
            |b| b[34] = 4,
            Ok(Message::Other(V4(CLIENT))),
        ),
        ("redirect", |b| b[34] = 5, Ok(Message::Other(V4(CLIENT)))),
        ("timestamp", |b| b[34] = 13, Ok(Message::Other(V4(CLIENT)))),
        (
            "about UDP",
            |b| b[51] = 17,
            Ok(Message::Foreign(V4(CLIENT))),
        ),
        (
            "about a later fragment",
            |b| b[49] = 1,
            Ok(Message::Foreign(V4(CLIENT))),
        ),
        (
            "about another's packet",
            |b| b[57] ^= 1,
            Ok(Message::Foreign(V4(CLIENT))),
        ),
        ("IPv6 inside", |b| b[42] = 0x60, Err(Verdict::Malformed)),
        (
            "a quoted header of 16 bytes",
            |b| b[42] = 0x44,
            Err(Verdict::BadLength),
        ),
        (
            "a quoted header beyond the packet",
            |b| b[42] = 0x46,
            Err(Verdict::BadLength),
        ),
        (
            "seven bytes of TCP",
            |b| b[17] -= 1,
            Err(Verdict::BadLength),
        ),
        (
            "longer than the frame",
            |b| b[17] += 1,
            Err(Verdict::BadLength),
        ),
        (
            "an IP header beyond the packet",
            |b| b[14] = 0x4f,
            Err(Verdict::BadLength),
        ),
    ];
    for (name, change, wanted) in cases {
        assert_eq!(message(&change), wanted, "{name}");
    }
    // A first fragment shows its ports.
    assert!(matches!(message(&|b| b[48] = 0x20), Ok(Message::Error(_))));
    assert_eq!(
        parsed(&mut frame(&error(own, 3, 1, &about, 28))).source,
        own
    );
}

#[test]
fn every_truncation_is_noticed() {
    let (client, _) = flow();
    let whole = frame(&error(
        V4(ROUTER),
        11,
        0,
        &segment(&client, 7, &[1; 40], b"data"),
        68,
    ));
    for len in 34..whole.len() {
        let mut cut = whole[..len].to_vec();
        assert_eq!(
            parse_ipv4(&SliceFrame(&mut cut)),
            Err(Verdict::BadLength),
            "{len} bytes"
        );
        // The same where the IP header agrees.
        let mut agreed = cut.clone();
        agreed[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
        assert_eq!(
            parse_ipv4(&SliceFrame(&mut agreed)),
            Err(Verdict::BadLength),
            "{len} bytes"
        );
    }
}

/// Nothing of the backends' side is shown to a client.
#[test]
fn who_errors_come_from() {
    let (client, backend) = flow();
    let (forward, mut reverse) = pair(&client, &backend);
    reverse.flags = crate::abi::REVERSE;
    let there = segment(&client, 7, &[], &[]);
    let back = segment(&backend.reversed(), 7, &[], &[]);
    // (the packet, its entry, that of the error, whom from, whom it seems from)
    let cases = [
        (&there, &forward, &reverse, BACKEND, VIP),
        (&there, &forward, &reverse, ROUTER, VIP),
        (&back, &reverse, &forward, CLIENT, SNAT),
        (&back, &reverse, &forward, [100, 64, 0, 1], [100, 64, 0, 1]),
    ];
    for (packet, entry, found, from, seems) in cases {
        let message = error(V4(from), 3, 1, &sent_on(packet, entry), 28);
        let (message, _) = translated(&message, found);
        assert_eq!(message[12..16], seems, "{from:?}");
        for hidden in [BACKEND, ROUTER] {
            let shows = message.windows(4).any(|bytes| bytes == hidden);
            assert_eq!(shows, packet == &back && hidden == BACKEND, "{from:?}");
        }
    }
}

#[test]
fn what_a_flow_and_an_address_say() {
    let known = |phase| is_known(StateWord::born(1).with_phase(phase));
    for phase in [
        Phase::HalfOpen,
        Phase::Established,
        Phase::Closed,
        Phase::Reset,
    ] {
        assert!(known(phase), "{phase:?}");
    }
    for phase in [Phase::Dead, Phase::Deleting, Phase::Killed] {
        assert!(!known(phase), "{phase:?}");
    }
    let (vip, snat, host) = (AddressFlags::VIP, AddressFlags::SNAT, AddressFlags::HOST);
    // (what it is, whether it answers, what an unknown error meets)
    for (bits, echo, unknown) in [
        (vip, true, Verdict::IcmpUnknown),
        (vip | host, true, Verdict::NotTcp),
        (vip | snat | host, true, Verdict::NotTcp),
        (snat, true, Verdict::IcmpUnknown),
        (snat | host, false, Verdict::NotTcp),
    ] {
        let flags = AddressFlags {
            bits,
            ..AddressFlags::default()
        };
        assert_eq!(answers_echo(flags), echo, "{bits:#x}");
        assert_eq!(without_flow(flags), unknown, "{bits:#x}");
    }
}

#[test]
fn unreachable_by_code() {
    let (client, _) = flow();
    let about = segment(&client, 7, &[], &[]);
    let says = |kind, code| {
        let mut bytes = frame(&error(V4(ROUTER), kind, code, &about, 28));
        parsed(&mut bytes).is_unreachable()
    };
    let codes: Vec<u8> = (0..=255).filter(|code| says(3, *code)).collect();
    assert_eq!(codes, [0, 1, 2, 3, 9, 10, 13]);
    assert!((0..=255).all(|code| !says(11, code) && !says(12, code)));
}

/// No error about what was sent to a group on the link.
#[test]
fn nobody_is_told_of_group_frames() {
    for (mac, may) in [
        ([2, 0, 0, 0, 0, 1], true),
        ([0xff; 6], false),
        ([1, 0, 0x5e, 0, 0, 1], false),
    ] {
        let mut bytes = frame(&[0; 40]);
        bytes[..6].copy_from_slice(&mac);
        assert_eq!(may_tell(&SliceFrame(&mut bytes)), may, "{mac:?}");
    }
    assert!(!may_tell(&SliceFrame(&mut [0; 13])));
}

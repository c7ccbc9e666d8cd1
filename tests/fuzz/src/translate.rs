//! Any whole packet under any translation: checksums stay right, nothing else
//! changes, and an answer comes back to whom the packet came from.
//!
//! Bytes: two for each port and four for each address after translation, then
//! the frame, whose checksums are made right.

use ocs_lb_common::abi::{Flow, FlowKey};
use ocs_lb_common::address::{Address, Be16, V4, V6};
use ocs_lb_common::parse::{Odd, Packet, parse_ipv4, parse_ipv6};
use ocs_lb_common::translate::{Translate, pair};
use ocs_lb_common::wire::SliceFrame;

use crate::sum::Parts;
use crate::take::Take;
use crate::wire::only;

/// The target.
pub fn run(bytes: &[u8]) {
    let mut take = Take(bytes);
    let ports = [Be16(take.array()), Be16(take.array())];
    let addresses: [[u8; 4]; 2] = [take.array(), take.array()];
    let frame = take.rest();
    let wide = addresses.map(|[a, b, c, d]| {
        let mut wide = [a; 16];
        wide[12..].copy_from_slice(&[a, b, c, d]);
        V6(wide)
    });
    let v4 = Layout {
        parse: |frame| parse_ipv4(&SliceFrame(frame)),
        parts: Parts::ipv4,
        addresses: 26,
        ttl: 22,
    };
    both_ways(frame, addresses.map(V4), ports, &v4);
    let v6 = Layout {
        parse: |frame| parse_ipv6(&SliceFrame(frame)),
        parts: Parts::ipv6,
        addresses: 22,
        ttl: 21,
    };
    both_ways(frame, wide, ports, &v6);
}

/// Where a family's fields lie.
struct Layout<A> {
    parse: Parse<A>,
    parts: fn(&Packet<A>) -> Parts,
    addresses: usize,
    ttl: usize,
}

fn both_ways<A: Translate>(
    frame: &[u8],
    [source, destination]: [A; 2],
    [source_port, destination_port]: [Be16; 2],
    layout: &Layout<A>,
) {
    let mut frame = frame.to_vec();
    let Ok(packet) = (layout.parse)(&mut frame) else {
        return;
    };
    // The datapath sends nothing on that has no hop left.
    if packet.ttl <= 1 {
        return;
    }
    (layout.parts)(&packet).seal(&mut frame);
    let (client, backend) = (
        packet.key,
        FlowKey::tcp(source, source_port, destination, destination_port),
    );
    let (forward, reverse) = pair(&client, &backend);
    assert_eq!(forward.peer_key(), backend.reversed());
    assert_eq!(reverse.peer_key(), client);
    one_way(&mut frame, &backend, &forward, layout);

    // The backend answers with the same segment.
    swap_ends(&mut frame, layout);
    let answer = (layout.parse)(&mut frame).expect("still a packet");
    assert_eq!(answer.key, backend.reversed());
    if answer.ttl > 1 {
        one_way(&mut frame, &client.reversed(), &reverse, layout);
    }
}

/// One translation, and that nothing else happens.
fn one_way<A: Translate>(frame: &mut [u8], to: &FlowKey<A>, flow: &Flow<A>, layout: &Layout<A>) {
    let before = frame.to_vec();
    let packet = (layout.parse)(frame).expect("still a packet");
    let parts = (layout.parts)(&packet);
    let done = A::translate(&mut SliceFrame(frame), &packet, flow);
    assert_eq!(done, Some(()), "a packet is whole");
    let wanted = Packet {
        key: *to,
        ttl: packet.ttl - 1,
        ..packet
    };
    assert_eq!((layout.parse)(frame), Ok(wanted));
    parts.check(frame);
    let fields = parts.fields();
    let ports = packet.tcp_offset..packet.tcp_offset + 4;
    let addresses = layout.addresses..layout.addresses + 2 * A::LEN;
    only(&before, frame, |at| {
        at == layout.ttl
            || ports.contains(&at)
            || addresses.contains(&at)
            || fields.iter().flatten().any(|f| (*f..f + 2).contains(&at))
    });
}

/// Bytes of one family to a packet.
type Parse<A> = fn(&mut [u8]) -> Result<Packet<A>, Odd<A>>;

/// Makes a packet its own answer; sums do not notice.
fn swap_ends<A: Address>(frame: &mut [u8], layout: &Layout<A>) {
    let packet = (layout.parse)(frame).expect("still a packet");
    let (from, to) = frame[layout.addresses..].split_at_mut(A::LEN);
    from.swap_with_slice(&mut to[..A::LEN]);
    let (from, to) = frame[packet.tcp_offset..].split_at_mut(2);
    from.swap_with_slice(&mut to[..2]);
}

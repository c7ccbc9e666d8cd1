//! What holds for every frame that a program sends, whatever the test is
//! about: every checksum is right, a hop is taken off once, and nothing but
//! what was meant to changed.

use crate::icmp;
use crate::packet::{dump, verify};
use crate::prog::{Action, Program};

/// Checks a frame after a program against the frame before.
///
/// A frame that is not sent says nothing: one that is passed must be as it
/// came, and of one that is dropped nobody sees what is left.
///
/// # Errors
/// What is wrong, with both frames.
pub fn check(program: Program, before: &[u8], action: Action, after: &[u8]) -> Result<(), String> {
    let changed = match program {
        Program::Xdp => before != after,
        // A tag that was taken off and put on again lies beside the data.
        Program::Tc => without_tags(before) != without_tags(after),
    };
    let result = match action {
        Action::Pass if changed => Err("passed, but changed".to_owned()),
        Action::Pass | Action::Drop => Ok(()),
        Action::Aborted => Err("the program failed".to_owned()),
        Action::Tx | Action::Redirect => sent(before, after),
    };
    result.map_err(|what| format!("{what}\n{}became\n{}", dump(before), dump(after)))
}

/// A frame from the EtherType behind its tags on.
fn without_tags(frame: &[u8]) -> &[u8] {
    let mut rest = frame.get(12..).unwrap_or_default();
    while let [0x81, 0x00, ..] | [0x88, 0xa8, ..] = rest {
        rest = rest.get(4..).unwrap_or_default();
    }
    rest
}

/// A TCP packet in its frame, as far as it is looked at here.
struct Parts<'a> {
    /// What it carries: behind the tags, which are the next hop's.
    ether_type: &'a [u8],
    /// The IP header with options.
    ip: &'a [u8],
    /// The segment's header with options.
    tcp: &'a [u8],
    /// Its data, and what follows the packet.
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(frame: &'a [u8]) -> Option<Self> {
        let frame = without_tags(frame);
        let (ether_type, ip) = (frame.get(..2)?, 2);
        let tcp = ip + usize::from(frame.get(ip)? & 15) * 4;
        let data = tcp + usize::from(frame.get(tcp + 12)? >> 4) * 4;
        let parts = Self {
            ether_type,
            ip: frame.get(ip..tcp)?,
            tcp: frame.get(tcp..data)?,
            rest: frame.get(data..)?,
        };
        (parts.ip.len() >= 20 && parts.tcp.len() >= 20).then_some(parts)
    }

    fn addresses(&self) -> (&'a [u8], &'a [u8]) {
        (&self.ip[12..16], &self.ip[16..20])
    }

    fn ports(&self) -> (&'a [u8], &'a [u8]) {
        (&self.tcp[0..2], &self.tcp[2..4])
    }

    /// Control bits, without those of ECN.
    fn flags(&self) -> u8 {
        self.tcp[13] & 0x3f
    }

    /// The frame without tags, for [`verify`].
    fn untagged(&self) -> Vec<u8> {
        let ethernet = [&[0; 12][..], &[0x08, 0x00]].concat();
        [&ethernet, self.ip, self.tcp, self.rest].concat()
    }
}

/// What a frame carries, where that may be an IP packet.
fn packet(frame: &[u8]) -> Option<&[u8]> {
    without_tags(frame)
        .get(2..)
        .filter(|packet| packet.len() >= 20)
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK_FIN: u8 = 0x11;

fn sent(before: &[u8], after: &[u8]) -> Result<(), String> {
    let (Some(was), Some(is)) = (packet(before), packet(after)) else {
        return Err("sent, but no whole packet".to_owned());
    };
    if was[9] == 1 || is[9] == 1 {
        return icmp::sent(was, is);
    }
    let (Some(from), Some(to)) = (Parts::of(before), Parts::of(after)) else {
        return Err("sent, but no whole packet".to_owned());
    };
    if from.ip[9] != 6 || to.ip[9] != 6 {
        return Err("sent, but not TCP".to_owned());
    }
    if before[..12] == after[..12] {
        return Err("sent with the MAC addresses that it came with".to_owned());
    }
    // What came with a wrong checksum leaves with one: its receiver drops it.
    let was_right = verify(&from.untagged()).is_ok();
    let right = verify(&to.untagged());
    let (a, b) = from.addresses();
    let (c, d) = from.ports();
    if to.addresses() == (b, a) && to.ports() == (d, c) {
        right?;
        answer(&to)
    } else if let Some(seq) = moved_from(&from, &to) {
        right?;
        moved(seq, &from, &to)
    } else {
        if was_right {
            right?;
        }
        translated(&from, &to)
    }
}

/// A RST, built from zero.
fn answer(to: &Parts<'_>) -> Result<(), String> {
    let whole = (to.ip.len(), to.tcp.len(), to.rest.len()) == (20, 20, 0);
    if !whole || to.flags() & RST == 0 || to.ip[8] != 64 {
        return Err("answered with something else than a plain RST".to_owned());
    }
    Ok(())
}

/// The first sequence number of a flow that moves to another backend: its
/// backend refused it, or its client's SYN came again. The SYN that is sent is
/// then written anew, without an identification.
fn moved_from(from: &Parts<'_>, to: &Parts<'_>) -> Option<u32> {
    let number =
        |at: usize| u32::from_be_bytes(from.tcp[at..at + 4].try_into().unwrap_or_default());
    let anew = from.ip[4..6] != to.ip[4..6] && to.ip[4..6] == [0, 0];
    let is = |flag| from.flags() & flag != 0;
    if is(RST) && to.flags() & RST == 0 {
        Some(number(8).wrapping_sub(1))
    } else {
        (is(SYN) && anew).then(|| number(4))
    }
}

/// The SYN of a flow that moves, written from what the datapath kept.
fn moved(seq: u32, from: &Parts<'_>, to: &Parts<'_>) -> Result<(), String> {
    let whole = (to.ip.len(), to.ip[8], to.rest.len()) == (20, 63, 0);
    // Whatever else the client said, urgent data or ECN, is kept.
    if !whole
        || to.flags() & (SYN | RST | ACK_FIN) != SYN
        || to.tcp[4..12] != [seq.to_be_bytes(), [0; 4]].concat()
    {
        return Err("moved with something else than the flow's SYN".to_owned());
    }
    // Another port of the same backend is another place.
    let ((a, b), (c, d)) = (from.addresses(), from.ports());
    if to.addresses() == (b, a) && to.ports() == (d, c) {
        return Err("moved to where it was".to_owned());
    }
    Ok(())
}

/// Addresses, ports, one hop, both checksums, and nothing else; of a SYN the
/// timestamp may be gone.
fn translated(from: &Parts<'_>, to: &Parts<'_>) -> Result<(), String> {
    let differ = |name: &str, a: &[u8], b: &[u8], but: &[std::ops::Range<usize>]| {
        let other = |at: &usize| !but.iter().any(|range| range.contains(at));
        let changed = (0..a.len()).filter(other).find(|at| a[*at] != b[*at]);
        match changed {
            _ if a.len() != b.len() => Err(format!("the {name} has another length")),
            Some(at) => Err(format!("byte {at} of the {name} changed")),
            None => Ok(()),
        }
    };
    differ("EtherType", from.ether_type, to.ether_type, &[])?;
    differ("IP header", from.ip, to.ip, &[8..9, 10..20])?;
    if to.ip[8] != from.ip[8].wrapping_sub(1) {
        let ttl = (from.ip[8], to.ip[8]);
        return Err(format!("the time to live went from {} to {}", ttl.0, ttl.1));
    }
    differ(
        "TCP header",
        &from.tcp[..20],
        &to.tcp[..20],
        &[0..4, 16..18],
    )?;
    differ("data", from.rest, to.rest, &[])?;
    let (was, is) = (&from.tcp[20..], &to.tcp[20..]);
    if was == is {
        return Ok(());
    }
    let stripped = was.len() == is.len()
        && (0..was.len().saturating_sub(9)).any(|at| {
            let (end, nops) = (at + 10, [1; 10]);
            was[at..at + 2] == [8, 10]
                && is[at..end] == nops
                && (&was[..at], &was[end..]) == (&is[..at], &is[end..])
        });
    if from.flags() & SYN != 0 && stripped {
        Ok(())
    } else {
        Err("the TCP options changed".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Frame, flag};

    /// By the program that has tags within the data.
    fn by(before: &[u8], action: Action, after: &[u8]) -> Result<(), String> {
        check(Program::Xdp, before, action, after)
    }

    const CLIENT: crate::packet::End = ([203, 0, 113, 7], 40_000);
    const VIP: crate::packet::End = ([192, 0, 2, 1], 5061);
    const SNAT: crate::packet::End = ([198, 51, 100, 1], 20_000);
    const BACKEND: crate::packet::End = ([198, 51, 100, 11], 5061);

    /// A segment and what it becomes.
    fn pair(change: impl Fn(&mut Frame)) -> (Frame, Frame) {
        let mut before = Frame::tcp(CLIENT, VIP, flag::ACK).data(*b"abc");
        change(&mut before);
        let after = Frame {
            source: SNAT,
            destination: BACKEND,
            ttl: before.ttl.wrapping_sub(1),
            mac_destination: [2, 0, 0, 0, 2, 11],
            mac_source: [2, 0, 0, 0, 0, 2],
            ..before.clone()
        };
        (before, after)
    }

    #[test]
    fn a_translation_and_every_bit_of_it() {
        let tagged = |frame: &mut Frame| frame.vlan = Some(5);
        let optioned = |frame: &mut Frame| {
            frame.ip_options = vec![1; 4];
            frame.tcp_options = vec![1, 1, 1, 0];
            frame.padding = 3;
        };
        for (before, after) in [pair(|_| ()), pair(tagged), pair(optioned)] {
            let (before, after) = (before.bytes(), after.bytes());
            assert_eq!(by(&before, Action::Redirect, &after), Ok(()));
            // The MAC addresses are the next hop's, and so are tags.
            let first = after.len() - without_tags(&after).len();
            for bit in first * 8..after.len() * 8 {
                let mut other = after.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                let wrong = by(&before, Action::Tx, &other);
                assert!(wrong.is_err(), "bit {bit} of\n{}", dump(&after));
            }
        }
    }

    #[test]
    fn what_came_wrong_leaves_wrong() {
        let (before, after) = pair(|_| ());
        let (mut before, mut after) = (before.bytes(), after.bytes());
        for frame in [&mut before, &mut after] {
            frame[50] ^= 0x10;
        }
        assert_eq!(by(&before, Action::Redirect, &after), Ok(()));
    }

    #[test]
    fn a_syn_that_moves_is_written_anew() {
        let before = Frame::tcp(CLIENT, VIP, flag::SYN).numbers(7, 0).ttl(9);
        let refusal = Frame::tcp(BACKEND, SNAT, flag::RST | flag::ACK).numbers(0, 8);
        let mut after = Frame::tcp(SNAT, ([198, 51, 100, 12], 5061), flag::SYN)
            .numbers(7, 0)
            .ttl(63);
        after.identification = 0;
        after.mac_source = [2, 0, 0, 0, 0, 2];
        for from in [&before, &refusal] {
            let moved = |after: &Frame| by(&from.bytes(), Action::Tx, &after.bytes());
            assert_eq!(moved(&after), Ok(()));
            assert!(moved(&after.clone().numbers(8, 0)).is_err());
            assert!(moved(&after.clone().ttl(62)).is_err());
            assert!(moved(&after.clone().data(*b"x")).is_err());
            let mut wrong = after.bytes();
            wrong[50] ^= 1;
            assert!(by(&from.bytes(), Action::Tx, &wrong).is_err());
        }
    }

    #[test]
    fn a_hop_is_taken_once() {
        for (ttl, right) in [(63, true), (64, false), (62, false)] {
            let (before, mut after) = pair(|_| ());
            after.ttl = ttl;
            let result = by(&before.bytes(), Action::Redirect, &after.bytes());
            assert_eq!(result.is_ok(), right, "{ttl}");
        }
    }

    #[test]
    fn a_timestamp_goes_from_a_syn_only() {
        let options = vec![2, 4, 5, 180, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0];
        let mut nops = options.clone();
        nops[4..14].fill(1);
        for (flags, right) in [(flag::SYN, true), (flag::ACK, false)] {
            let (before, mut after) = pair(|frame| {
                frame.flags = flags;
                frame.tcp_options.clone_from(&options);
            });
            after.tcp_options.clone_from(&nops);
            let result = by(&before.bytes(), Action::Redirect, &after.bytes());
            assert_eq!(result.is_ok(), right, "{result:?}");
        }
    }

    #[test]
    fn passed_is_untouched() {
        let (before, after) = pair(|_| ());
        let (before, after) = (before.bytes(), after.bytes());
        assert_eq!(by(&before, Action::Pass, &before), Ok(()));
        assert!(by(&before, Action::Pass, &after).is_err());
        assert_eq!(by(&before, Action::Drop, &after), Ok(()));
        let (tagged, _) = pair(|frame| frame.vlan = Some(5));
        let passed = |program| check(program, &tagged.bytes(), Action::Pass, &before);
        assert!(passed(Program::Xdp).is_err());
        assert_eq!(passed(Program::Tc), Ok(()));
        assert!(by(&before, Action::Tx, &before).is_err());
        assert!(by(&before, Action::Aborted, &before).is_err());
    }
}

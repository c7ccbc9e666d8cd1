//! The TCP options that tracking needs (RFC 9293 section 3.2, RFC 7323).

use super::{Frame, Tcp, TcpChange};
use crate::checksum::{Delta, Sum};

mod kind {
    pub const END: u8 = 0;
    pub const NOP: u8 = 1;
    pub const WINDOW_SCALE: u8 = 3;
    pub const TIMESTAMP: u8 = 8;
}

/// Length of a window scale option in bytes.
const SCALE_LEN: usize = 3;

/// Length of a timestamp option in bytes.
const TIMESTAMP_LEN: usize = 10;

/// NOP, NOP, kind 8, length 10: how common stacks align the timestamp option
/// when it stands alone (RFC 7323 appendix A).
const TIMESTAMP_ALIGNED: [u8; 4] = [1, 1, 8, 10];

/// Offset of the last option that any header can have: Ethernet, 60 bytes of IP,
/// 60 of TCP.
const FURTHEST: usize = 14 + 60 + 60;

/// Options that a SYN may have: real ones have fewer than ten.
const OPTIONS_READ: usize = 12;

/// The sender's timestamp, where the segment carries the option first and
/// aligned as RFC 7323 appendix A recommends; `None` anywhere else.
#[inline(always)]
pub fn timestamp_value(frame: &impl Frame, tcp_offset: usize, header_len: usize) -> Option<u32> {
    if header_len < Tcp::LEN + 12 {
        return None;
    }
    let bytes = frame.at::<8>(tcp_offset + Tcp::LEN)?;
    let [a, b, c, d, value @ ..] = *bytes;
    ([a, b, c, d] == TIMESTAMP_ALIGNED).then_some(u32::from_be_bytes(value))
}

/// What a SYN's options say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SynOptions {
    /// Shift of the window; 0 without the option. RFC 7323 section 2.3: one
    /// above 14 is used as 14.
    pub scale: u8,
    /// The sender's timestamp.
    pub timestamp: Option<u32>,
    /// Offset of the timestamp option in the frame, where there is one.
    pub timestamp_at: usize,
}

/// Reads a SYN's options, up to the first that makes no sense. The walk is
/// bounded: 40 bytes hold at most 40 options, and a real SYN has fewer than ten.
#[inline(always)]
pub fn syn_options(frame: &impl Frame, tcp_offset: usize, header_len: usize) -> SynOptions {
    let mut options = SynOptions::default();
    let end = tcp_offset + header_len;
    let mut at = tcp_offset + Tcp::LEN;
    for _ in 0..OPTIONS_READ {
        if at >= end {
            break;
        }
        // Three bytes at once: what needs fewer and comes last says nothing.
        let Some([kind, len, value]) = frame.at::<3>(at) else {
            break;
        };
        if *kind == kind::END {
            break;
        }
        if *kind == kind::NOP {
            at += 1;
            continue;
        }
        let len = *len as usize;
        // What follows the header is data.
        if !(2..=40).contains(&len) || at + len > end {
            break;
        }
        if *kind == kind::WINDOW_SCALE && len == SCALE_LEN {
            options.scale = if *value > 14 { 14 } else { *value };
        }
        if *kind == kind::TIMESTAMP && len == TIMESTAMP_LEN {
            options.timestamp_at = at;
        }
        at += len;
    }
    let at = options.timestamp_at;
    if at != 0
        && let Some([_, _, value @ ..]) = frame.at::<6>(at)
    {
        options.timestamp = Some(u32::from_be_bytes(*value));
    }
    options
}

/// Replaces a SYN's timestamp option by NOPs and corrects the checksum.
/// `None` where the frame is shorter than its parse said.
#[inline(always)]
pub fn strip_timestamp(frame: &mut impl Frame, tcp_offset: usize, at: usize) -> Option<()> {
    if at > FURTHEST {
        return None;
    }
    let option = frame.at_mut::<TIMESTAMP_LEN>(at)?;
    let odd = (at - tcp_offset) & 1;
    let mut change = Sum::ZERO;
    for (index, byte) in option.iter_mut().enumerate() {
        // The high byte of a checksum word, or the low one.
        let shift = if (index + odd) & 1 == 0 { 8 } else { 0 };
        change = change
            .sub_u16((*byte as u16) << shift)
            .add_u16((kind::NOP as u16) << shift);
        *byte = kind::NOP;
    }
    let change = TcpChange {
        all: change.delta(),
        addresses: Delta(0),
    };
    frame.tcp_changed(tcp_offset, change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SliceFrame;

    /// SYN from port 40000 to 5061 with the options of a Linux client.
    const SYN: [u8; 40] = [
        0x9c, 0x40, 0x13, 0xc5, 0x01, 0x02, 0x03, 0x04, 0x00, 0x00, 0x00, 0x00, 0xa0, 0x02, 0xfa,
        0xf0, 0x12, 0x34, 0x00, 0x00, 2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3,
        3, 7,
    ];

    #[test]
    fn options_of_a_syn() {
        let mut syn = SYN;
        let read = |bytes: &mut [u8], len| syn_options(&SliceFrame(bytes), 0, len);
        let wanted = SynOptions {
            scale: 7,
            timestamp: Some(9),
            timestamp_at: 26,
        };
        assert_eq!(read(&mut syn, 40), wanted);
        syn[39] = 200;
        assert_eq!(read(&mut syn, 40).scale, 14);
        assert_eq!(read(&mut syn, 20), SynOptions::default(), "no options");
        syn[27] = 9;
        assert_eq!(read(&mut syn, 40).timestamp, None, "of a wrong length");
        syn[21] = 0;
        let broken = "an option of length 0";
        assert_eq!(read(&mut syn, 40), SynOptions::default(), "{broken}");
    }

    /// Linux ignores such an option, and so must the window's arithmetic.
    #[test]
    fn an_option_ends_with_its_header_and_has_its_length() {
        let mut syn = SYN;
        let read = |bytes: &mut [u8], len| syn_options(&SliceFrame(bytes), 0, len);
        assert_eq!(read(&mut syn, 36).scale, 0, "it would lie in the data");
        assert_eq!(read(&mut syn, 32), SynOptions::default(), "cut short");
        syn[36..40].copy_from_slice(&[3, 4, 7, 0]);
        assert_eq!(read(&mut syn, 40).scale, 0, "of a wrong length");
        syn[20..32].copy_from_slice(&[8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 8, 10]);
        let first = read(&mut syn, 32);
        assert_eq!((first.timestamp, first.timestamp_at), (Some(9), 20));
    }

    #[test]
    fn a_stripped_timestamp_leaves_the_checksum_right() {
        // Once aligned, once behind one NOP more.
        for odd in [false, true] {
            let mut syn = SYN;
            if odd {
                syn[24..40].copy_from_slice(&[1, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 3, 3, 3, 7]);
            }
            syn[16..18].fill(0);
            let checksum = Sum::ZERO.add_bytes(&syn).checksum();
            syn[16..18].copy_from_slice(&checksum.to_be_bytes());
            let options = syn_options(&SliceFrame(&mut syn), 0, 40);
            assert_eq!((options.timestamp, options.scale), (Some(9), 7));
            assert_eq!(options.timestamp_at % 2 == 1, odd);
            strip_timestamp(&mut SliceFrame(&mut syn), 0, options.timestamp_at).expect("whole");
            assert_eq!(Sum::ZERO.add_bytes(&syn).fold(), 0xffff);
            let after = syn_options(&SliceFrame(&mut syn), 0, 40);
            assert_eq!(after.timestamp, None);
        }
    }
    #[test]
    fn timestamp_only_where_aligned() {
        let mut segment = [0u8; 32];
        segment[20..28].copy_from_slice(&[1, 1, 8, 10, 0, 0, 1, 0]);
        assert_eq!(timestamp_value(&SliceFrame(&mut segment), 0, 32), Some(256));
        assert_eq!(timestamp_value(&SliceFrame(&mut segment), 0, 20), None);
        segment[20] = 0;
        assert_eq!(timestamp_value(&SliceFrame(&mut segment), 0, 32), None);
    }
}

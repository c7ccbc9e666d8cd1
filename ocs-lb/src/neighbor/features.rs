//! What XDP an interface can do, as the kernel tells it since Linux 6.3
//! (`Documentation/netlink/specs/netdev.yaml`).

use std::collections::BTreeMap;
use std::io;

use nix::sys::socket::SockProtocol;

use super::raw::{Socket, attribute, attributes};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID`,
/// `CTRL_ATTR_FAMILY_NAME` (`include/uapi/linux/genetlink.h`).
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX`, `NETDEV_A_DEV_XDP_FEATURES`
/// (`include/uapi/linux/netdev.h`).
const DEV_GET: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;

/// `enum netdev_xdp_act`: bits of what an interface can do with XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    /// `NETDEV_XDP_ACT_BASIC | NETDEV_XDP_ACT_REDIRECT`: its driver runs
    /// programs, and sends on what they redirect.
    pub const fn runs(self) -> bool {
        self.0 & 0b11 == 0b11
    }

    /// `NETDEV_XDP_ACT_NDO_XMIT`: it takes frames that are redirected to it, as
    /// things stand now.
    pub const fn transmits(self) -> bool {
        self.0 & 0b100 != 0
    }
}

/// What every interface can do, by index; nothing where the kernel does not
/// tell.
///
/// # Errors
/// netlink's; `NotFound` where the kernel is older.
pub fn xdp_features() -> io::Result<BTreeMap<u32, XdpFeatures>> {
    let socket = Socket::open(SockProtocol::NetlinkGeneric)?;
    let mut body = vec![GET_FAMILY, 1, 0, 0];
    body.extend(attribute(FAMILY_NAME, b"netdev\0"));
    let answers = socket.ask(CONTROL, false, &body)?;
    let family = answers
        .iter()
        .filter_map(|answer| answer.get(GENERIC_HEADER..))
        .flat_map(attributes)
        .find_map(|(kind, value)| (kind == FAMILY_ID).then(|| value.try_into().ok())?)
        .map(u16::from_ne_bytes)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let answers = socket.ask(family, true, &[DEV_GET, 1, 0, 0])?;
    Ok(answers.iter().filter_map(|answer| one(answer)).collect())
}

fn one(answer: &[u8]) -> Option<(u32, XdpFeatures)> {
    let (mut ifindex, mut features) = (None, None);
    for (kind, value) in attributes(answer.get(GENERIC_HEADER..)?) {
        match kind {
            IFINDEX => ifindex = value.try_into().ok().map(u32::from_ne_bytes),
            XDP_FEATURES => features = value.try_into().ok().map(u64::from_ne_bytes),
            _ => {}
        }
    }
    Some((ifindex?, XdpFeatures(features?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let mut answer = vec![DEV_GET, 1, 0, 0];
        answer.extend(attribute(IFINDEX, &3u32.to_ne_bytes()));
        answer.extend(attribute(XDP_FEATURES, &0b111u64.to_ne_bytes()));
        let (ifindex, features) = one(&answer).expect("both are there");
        assert_eq!(ifindex, 3);
        assert!(features.runs() && features.transmits());
        let basic = XdpFeatures(0b001);
        assert!(!basic.runs() && !basic.transmits());
        assert_eq!(one(&answer[..12]), None);
    }
}

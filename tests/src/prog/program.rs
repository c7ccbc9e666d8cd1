//! The program that a test's frames run through.

use std::env;

use anyhow::Result;
use aya::programs::{TestRun as _, TestRunOptions};
use ocs_lb::datapath::load::{Loaded, tc, xdp};

use super::Action;
use crate::net::Net;

/// Room for a frame to grow: a RST becomes a SYN with all its options, a packet
/// an ICMP error about it.
const SLACK: usize = 64;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `ocs_lb_xdp`.
    Xdp,
    /// `ocs_lb_tc`.
    Tc,
}

impl Program {
    /// What `OCS_LB_PROGRAM` says: `xdp`, as without it, or `tc`. So every case
    /// of a table is run through both.
    ///
    /// # Panics
    /// Where it says something else.
    pub fn of_run() -> Self {
        match env::var("OCS_LB_PROGRAM").as_deref() {
            Err(_) | Ok("xdp") => Self::Xdp,
            Ok("tc") => Self::Tc,
            Ok(other) => panic!("OCS_LB_PROGRAM is {other}; xdp and tc are allowed"),
        }
    }

    /// Runs it on a frame: what the kernel is to do, and the frame afterwards.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run(
        self,
        loaded: &mut Loaded,
        net: &Net,
        ifindex: u32,
        frame: &[u8],
    ) -> Result<(Action, Vec<u8>)> {
        let context: Vec<u32> = match self {
            // struct xdp_md: data, data_end, data_meta, ingress_ifindex,
            // rx_queue_index, egress_ifindex.
            Self::Xdp => vec![0, frame.len() as u32, 0, ifindex, 0, 0],
            // struct __sk_buff: ifindex is its eleventh word.
            Self::Tc => [&[0; 10][..], &[ifindex]].concat(),
        };
        let context: Vec<u8> = context.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut bytes = vec![0; frame.len() + SLACK];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut bytes),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = match self {
            Self::Xdp => xdp(&mut loaded.ebpf)?.test_run(options)?,
            Self::Tc => tc(&mut loaded.ebpf)?.test_run(options)?,
        };
        bytes.truncate(result.data_size_out as usize);
        let action = match self {
            Self::Xdp => Action::of_xdp(result.return_value),
            Self::Tc => Action::of_tc(result.return_value as i32, net.mac(ifindex), &bytes),
        };
        Ok((action, bytes))
    }
}

impl Action {
    /// From an `xdp_action` (`include/uapi/linux/bpf.h`).
    pub const fn of_xdp(code: u32) -> Self {
        match code {
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Tx,
            4 => Self::Redirect,
            _ => Self::Aborted,
        }
    }

    /// From a `TC_ACT_*` (`include/uapi/linux/pkt_cls.h`). A packet that leaves
    /// where it came in has that interface's address.
    fn of_tc(code: i32, ingress: [u8; 6], frame: &[u8]) -> Self {
        match code {
            -1 => Self::Pass,
            2 => Self::Drop,
            7 if frame[6..12] == ingress => Self::Tx,
            7 => Self::Redirect,
            _ => Self::Aborted,
        }
    }
}

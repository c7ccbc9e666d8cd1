//! Health checks: when they run, and on which port.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::address::port;
use super::check_kind::{self, kind};
use super::problem::Report;
use super::tree::Node;
use super::value::{boolean, duration, number};
use crate::model::{Check, CheckKind};

const KEYS: [&str; 9] = [
    "type",
    "port",
    "interval",
    "fast_interval",
    "down_interval",
    "timeout",
    "rise",
    "fall",
    "observe",
];

const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
const COUNTS: RangeInclusive<u32> = 1..=65_535;

/// A check whose port may still have to be taken from the cluster.
#[derive(Debug, Clone)]
pub(super) struct PartialCheck {
    port: Option<u16>,
    check: Check,
}

impl PartialCheck {
    /// The check, on `default_port` unless the file names another.
    pub fn on(self, default_port: u16) -> Check {
        Check {
            port: self.port.unwrap_or(default_port),
            ..self.check
        }
    }
}

/// The documented default.
const DEFAULT: PartialCheck = PartialCheck {
    port: None,
    check: Check {
        kind: CheckKind::Tcp,
        port: 0,
        interval: Duration::from_secs(2),
        fast_interval: None,
        down_interval: None,
        timeout: Duration::from_secs(2),
        rise: 2,
        fall: 3,
        observe: false,
    },
};

/// `off` (`None`) or a mapping; absent keys and an absent `node` are the default.
pub(super) fn check(node: Option<&Node>, report: &mut Report<'_>) -> Option<PartialCheck> {
    let Some(node) = node.filter(|n| !matches!(n.data, super::tree::Data::Null)) else {
        return Some(DEFAULT);
    };
    if node.is_off() {
        return None;
    }
    let known: Vec<&str> = KEYS.into_iter().chain(check_kind::KEYS).collect();
    let Some(fields) = node.fields(&known, report) else {
        return Some(DEFAULT);
    };
    let base = DEFAULT.check;
    let kind = kind(fields, report);
    let interval =
        |key, report: &mut Report<'_>| fields.value(key, report, |n, r| duration(n, r, INTERVALS));
    let (every, fast_interval, down_interval) = (
        interval("interval", report),
        interval("fast_interval", report),
        interval("down_interval", report),
    );
    let timeout = fields.value("timeout", report, |n, r| duration(n, r, TIMEOUTS));
    let rise = fields.value("rise", report, |n, r| number(n, r, COUNTS));
    let fall = fields.value("fall", report, |n, r| number(n, r, COUNTS));
    let observe = fields.value("observe", report, boolean);
    Some(PartialCheck {
        port: fields.value("port", report, port),
        check: Check {
            kind: kind.unwrap_or(base.kind),
            port: 0,
            interval: every.unwrap_or(base.interval),
            fast_interval,
            down_interval,
            timeout: timeout.unwrap_or(base.timeout),
            rise: rise.unwrap_or(base.rise),
            fall: fall.unwrap_or(base.fall),
            observe: observe.unwrap_or(base.observe),
        },
    })
}

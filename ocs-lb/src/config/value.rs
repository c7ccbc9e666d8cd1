//! Scalars: words, numbers, durations, sizes, names.
//!
//! A decoder returns `None` exactly when it reported a problem.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::Report;
use super::tree::Node;
pub(super) use crate::model::show::duration as show_duration;

/// Reports `node` as not allowed.
pub(super) fn invalid<T>(
    node: &Node,
    report: &mut Report<'_>,
    allowed: impl Into<String>,
) -> Option<T> {
    report.invalid(&node.place, node.shown(), allowed);
    None
}

/// Reports `node` as a value of the contract that this version lacks.
pub(super) fn unsupported<T>(
    node: &Node,
    report: &mut Report<'_>,
    allowed: impl Into<String>,
) -> Option<T> {
    report.unsupported(&node.place, node.shown(), allowed);
    None
}

/// One of `allowed`; the words of `later` are known but not supported yet.
pub(super) fn word<T: Copy>(
    node: &Node,
    report: &mut Report<'_>,
    allowed: &[(&str, T)],
    later: &[&str],
) -> Option<T> {
    let text = node.text().unwrap_or_default();
    if let Some((_, value)) = allowed.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let words: Vec<&str> = allowed.iter().map(|(word, _)| *word).collect();
    if later.contains(&text) {
        return unsupported(node, report, words.join(", "));
    }
    invalid(node, report, words.join(", "))
}

/// `true` or `false`, also `on` or `off`.
pub(super) fn boolean(node: &Node, report: &mut Report<'_>) -> Option<bool> {
    match node.text() {
        _ if node.is_off() => Some(false),
        Some("true" | "True" | "TRUE" | "on" | "On" | "ON") => Some(true),
        _ => invalid(node, report, "true, false"),
    }
}

/// Decimal digits and nothing else; no sign, no octal, no overflow.
fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// A whole number within `range`.
pub(super) fn number<N>(node: &Node, report: &mut Report<'_>, range: RangeInclusive<N>) -> Option<N>
where
    N: TryFrom<u64> + PartialOrd + Display,
{
    let value = node
        .text()
        .and_then(digits)
        .and_then(|v| N::try_from(v).ok());
    match value {
        Some(value) if range.contains(&value) => Some(value),
        _ => {
            let allowed = format!("{} to {}", range.start(), range.end());
            invalid(node, report, allowed)
        }
    }
}

/// Parses `500ms`, `4s`, `30m`, `2h` or a bare `0`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at_checked(at)?;
    let millis_each = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    digits(count)?
        .checked_mul(millis_each)
        .map(Duration::from_millis)
}

/// A duration within `range`.
pub(super) fn duration(
    node: &Node,
    report: &mut Report<'_>,
    range: RangeInclusive<Duration>,
) -> Option<Duration> {
    match node.text().and_then(parse_duration) {
        Some(value) if range.contains(&value) => Some(value),
        _ => {
            let (from, to) = (show_duration(*range.start()), show_duration(*range.end()));
            invalid(
                node,
                report,
                format!("{from} to {to}, written as 500ms, 4s, 30m or 2h"),
            )
        }
    }
}

/// Parses `4096`, `10240k`, `1m`; k = 1024 as HAProxy counts.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (count, each) = if let Some(count) = text.strip_suffix('k') {
        (count, 1024)
    } else if let Some(count) = text.strip_suffix('m') {
        (count, 1024 * 1024)
    } else {
        (text, 1)
    };
    digits(count)?.checked_mul(each)
}

/// A number of entries within `range`.
pub(super) fn size(
    node: &Node,
    report: &mut Report<'_>,
    range: RangeInclusive<u32>,
) -> Option<u32> {
    let value = node.text().and_then(parse_size);
    match value.and_then(|v| u32::try_from(v).ok()) {
        Some(value) if range.contains(&value) => Some(value),
        _ => {
            let allowed = format!(
                "{} to {}, written as 4096, 10240k or 1m",
                range.start(),
                range.end()
            );
            invalid(node, report, allowed)
        }
    }
}

/// A name of a cluster or backend.
pub(super) fn name(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let is_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    match node.text() {
        Some(text) if (1..=64).contains(&text.len()) && text.bytes().all(is_char) => {
            Some(text.to_owned())
        }
        _ => invalid(node, report, "1 to 64 of the characters A-Z a-z 0-9 _ . -"),
    }
}

/// Name of a network interface: what the kernel's `dev_valid_name` accepts.
pub(super) fn interface_name(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let is_bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    match node.text() {
        Some(text)
            if (1..=15).contains(&text.len())
                && text != "."
                && text != ".."
                && !text.contains(is_bad) =>
        {
            Some(text.to_owned())
        }
        _ => invalid(node, report, "an interface name of 1 to 15 bytes"),
    }
}

/// Accepts exactly the documented default of a key this version has no other value for.
pub(super) fn only(node: &Node, report: &mut Report<'_>, default: &str, is_known: bool) {
    if node.text() == Some(default) || (default == "off" && node.is_off()) {
        return;
    }
    if is_known {
        unsupported::<()>(node, report, default);
    } else {
        invalid::<()>(node, report, default);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("4s", Some(4000)),
            ("30m", Some(1_800_000)),
            ("2h", Some(7_200_000)),
            ("5", None),
            ("1d", None),
            ("1h30m", None),
            ("1.5s", None),
            ("-1s", None),
            ("4 s", None),
            ("s", None),
            ("", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
            ("1\u{b5}s", None),
        ] {
            let want = want.map(Duration::from_millis);
            assert_eq!(parse_duration(text), want, "{text}");
        }
        for text in ["1ms", "1500ms", "4s", "30m", "2h", "0s"] {
            let shown = parse_duration(text).map(show_duration);
            assert_eq!(shown.as_deref(), Some(text));
        }
    }

    #[test]
    fn sizes() {
        for (text, want) in [
            ("4096", Some(4096)),
            ("10240k", Some(10_485_760)),
            ("1m", Some(1_048_576)),
            ("0", Some(0)),
            ("1g", None),
            ("1K", None),
            ("k", None),
            ("", None),
            ("+1", None),
            ("0x10", None),
            ("99999999999999999999", None),
            ("18446744073709551615k", None),
        ] {
            assert_eq!(parse_size(text), want, "{text}");
        }
    }
}

//! What a health check asks: its type and the keys of that type.

use std::path::Path;

use rustls::pki_types::DnsName;

use super::access::Fields;
use super::problem::Report;
use super::tree::{Data, Node};
use super::value::{boolean, invalid, word};
use crate::model::{Anchors, CheckKind, HttpRequest, SipOptions, Statuses, Tls};

/// Keys that belong to some types only.
pub(super) const KEYS: [&str; 11] = [
    "sni",
    "verify",
    "ca",
    "transport",
    "from",
    "to",
    "expect",
    "tls",
    "method",
    "path",
    "host",
];

/// Keys of every check that speaks TLS.
const TLS_KEYS: [&str; 3] = ["sni", "verify", "ca"];
const SIP_KEYS: [&str; 4] = ["transport", "from", "to", "expect"];
const HTTP_KEYS: [&str; 5] = ["tls", "method", "path", "host", "expect"];

/// Longest URI, path, name or method.
const LONGEST: usize = 1024;

/// Final responses of SIP (RFC 3261 section 7.2).
const SIP_STATUSES: (u16, u16) = (200, 699);
/// Final responses of HTTP (RFC 9110 section 15).
const HTTP_STATUSES: (u16, u16) = (200, 599);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Tcp,
    Tls,
    SipOptions,
    Http,
}

/// The type with its keys; `None` if the type itself is wrong.
pub(super) fn kind(fields: Fields<'_>, report: &mut Report<'_>) -> Option<CheckKind> {
    let words = [
        ("tcp", Word::Tcp),
        ("tls", Word::Tls),
        ("sip-options", Word::SipOptions),
        ("http", Word::Http),
    ];
    let kind = match fields.get("type") {
        None => Word::Tcp,
        // Keys say nothing new once the type is refused.
        Some(node) => word(node, report, &words, &[])?,
    };
    Some(match kind {
        Word::Tcp => {
            refuse_others(fields, &[], false, report);
            CheckKind::Tcp
        }
        Word::Tls => {
            refuse_others(fields, &[], true, report);
            CheckKind::Tls(tls(fields, report))
        }
        Word::SipOptions => sip_options(fields, report),
        Word::Http => http(fields, report),
    })
}

fn sip_options(fields: Fields<'_>, report: &mut Report<'_>) -> CheckKind {
    let transports = [("tcp", false), ("tls", true)];
    let transport = fields.value("transport", report, |n, r| word(n, r, &transports, &[]));
    let is_tls = transport.unwrap_or(false);
    refuse_others(fields, &SIP_KEYS, is_tls, report);
    CheckKind::SipOptions(SipOptions {
        tls: is_tls.then(|| tls(fields, report)),
        from: fields.value("from", report, sip_uri),
        to: fields.value("to", report, sip_uri),
        expect: fields
            .value("expect", report, |n, r| statuses(n, r, SIP_STATUSES))
            // Whoever answers lives, but for 5xx: the server says that it fails.
            .unwrap_or_else(|| Statuses(vec![(200, 499), (600, 699)])),
    })
}

fn http(fields: Fields<'_>, report: &mut Report<'_>) -> CheckKind {
    let is_tls = fields.value("tls", report, boolean).unwrap_or(false);
    refuse_others(fields, &HTTP_KEYS, is_tls, report);
    let host = fields.value("host", report, host);
    let tls = is_tls.then(|| {
        let mut tls = tls(fields, report);
        // The name of the site, as every client asks for it.
        let name = host.as_deref().map(without_port);
        let name = name.filter(|name| is_dns_name(name));
        tls.sni = tls.sni.or(name.map(str::to_owned));
        tls
    });
    let method = fields.value("method", report, method);
    CheckKind::Http(HttpRequest {
        tls,
        method: method.unwrap_or_else(|| "GET".to_owned()),
        path: fields
            .value("path", report, path)
            .unwrap_or_else(|| "/".to_owned()),
        host,
        expect: fields
            .value("expect", report, |n, r| statuses(n, r, HTTP_STATUSES))
            // HAProxy's default for `option httpchk`.
            .unwrap_or_else(|| Statuses(vec![(200, 399)])),
    })
}

/// Refuses by name what another type asks.
fn refuse_others(fields: Fields<'_>, own: &[&str], is_tls: bool, report: &mut Report<'_>) {
    for key in KEYS {
        let is_own = own.contains(&key) || (is_tls && TLS_KEYS.contains(&key));
        let Some(node) = fields.get(key).filter(|_| !is_own) else {
            continue;
        };
        let allowed = match key {
            "sni" | "verify" | "ca" => {
                "in a check of type tls, of type sip-options with `transport: tls`, or of type \
                 http with `tls: true`"
            }
            "transport" | "from" | "to" => "in a check of type sip-options",
            "expect" => "in a check of type sip-options or http",
            _ => "in a check of type http",
        };
        report.invalid(&node.place, format!("`{key}`"), allowed);
    }
}

fn tls(fields: Fields<'_>, report: &mut Report<'_>) -> Tls {
    let sni = fields.value("sni", report, dns_name);
    let verify = fields.value("verify", report, boolean);
    let named = fields.value("ca", report, ca);
    // Who names an authority wants it to be asked.
    let verify = if verify.unwrap_or(fields.get("ca").is_some()) {
        match (named, fields.get("verify")) {
            (Some(anchors), _) => Some(anchors),
            (None, Some(node)) if fields.get("ca").is_none() => hosts_store(node, report),
            (None, _) => None,
        }
    } else {
        None
    };
    Tls { sni, verify }
}

fn ca(node: &Node, report: &mut Report<'_>) -> Option<Anchors> {
    let path = node.text().map(Path::new).filter(|path| path.is_absolute());
    let Some(path) = path else {
        return invalid(node, report, "the absolute path of a PEM file");
    };
    match report.certificates.of_file(path) {
        Ok(certificates) => Some(Anchors {
            file: Some(path.to_owned()),
            certificates,
        }),
        Err(message) => {
            report.wrong(&node.place, format!("{}: {message}", path.display()));
            None
        }
    }
}

fn hosts_store(verify: &Node, report: &mut Report<'_>) -> Option<Anchors> {
    match report.certificates.of_host() {
        Ok(certificates) => Some(Anchors {
            file: None,
            certificates,
        }),
        Err(message) => {
            report.wrong(
                &verify.place,
                format!("{message}; name a PEM file by `ca` instead"),
            );
            None
        }
    }
}

fn is_dns_name(text: &str) -> bool {
    DnsName::try_from(text).is_ok() && text.parse::<std::net::IpAddr>().is_err()
}

/// A name that TLS can ask for; addresses are none (RFC 6066 section 3).
fn dns_name(node: &Node, report: &mut Report<'_>) -> Option<String> {
    match node.text() {
        Some(text) if is_dns_name(text) => Some(text.to_owned()),
        _ => invalid(node, report, "a DNS name"),
    }
}

/// A host with or without a port, as the header has it (RFC 9110 section 7.2).
fn host(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let authority = node.text().filter(|text| text.len() <= LONGEST);
    let authority = authority.and_then(|text| text.parse::<hyper::http::uri::Authority>().ok());
    match authority {
        Some(authority) if !authority.as_str().contains('@') => Some(authority.to_string()),
        _ => invalid(node, report, "HOST or HOST:PORT"),
    }
}

fn without_port(host: &str) -> &str {
    host.split(':').next().unwrap_or(host)
}

/// A method but for CONNECT, which asks for no path.
fn method(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = node.text().filter(|text| text.len() <= LONGEST);
    match text {
        Some(text) if text.parse::<hyper::Method>().is_ok() && text != "CONNECT" => {
            Some(text.to_owned())
        }
        _ => invalid(node, report, "a method other than CONNECT, such as GET"),
    }
}

fn path(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = node.text().filter(|text| text.len() <= LONGEST);
    match text {
        Some(text)
            if text.starts_with('/')
                && text.parse::<hyper::Uri>().is_ok()
                && !text.contains('#') =>
        {
            Some(text.to_owned())
        }
        _ => invalid(node, report, "a path from the slash on, without spaces"),
    }
}

/// A URI of RFC 3261 section 19.1 in as far as it cannot break out of its
/// header: a scheme, and neither spaces, controls, quotes nor angles.
fn sip_uri(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = node.text().filter(|text| text.len() <= LONGEST);
    let rest = text.and_then(|text| text.strip_prefix("sip:").or(text.strip_prefix("sips:")));
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"<>\"\\".contains(&b);
    match (text, rest) {
        (Some(text), Some(rest)) if !rest.is_empty() && rest.bytes().all(is_plain) => {
            Some(text.to_owned())
        }
        _ => invalid(
            node,
            report,
            "a URI such as sip:probe@example.com, without spaces, quotes and angle brackets",
        ),
    }
}

/// A status, a range such as `200-299`, or a list of both.
fn statuses(node: &Node, report: &mut Report<'_>, within: (u16, u16)) -> Option<Statuses> {
    let items = match &node.data {
        Data::List(items) if !items.is_empty() => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let ranges: Vec<_> = items
        .iter()
        .map(|item| {
            let range = item.text().and_then(parse_statuses);
            match range
                .filter(|(first, last)| first <= last && *first >= within.0 && *last <= within.1)
            {
                Some(range) => Some(range),
                None => invalid(
                    item,
                    report,
                    format!(
                        "{} to {}, ranges of them such as 200-299, and lists of both",
                        within.0, within.1
                    ),
                ),
            }
        })
        .collect();
    ranges.into_iter().collect::<Option<_>>().map(Statuses)
}

fn parse_statuses(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let is_status = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        is_status.then(|| text.parse().ok()).flatten()
    };
    match text.split_once('-') {
        None => number(text).map(|status| (status, status)),
        Some((first, last)) => Some((number(first)?, number(last)?)),
    }
}

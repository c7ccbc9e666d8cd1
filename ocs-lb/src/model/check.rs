//! Health checks: what is asked, how often, and which answers are good.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A health check of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// Port on the backend.
    pub port: u16,
    /// From the end of a check to the start of the next.
    pub interval: Duration,
    /// The same while the state is in transition.
    pub fast_interval: Option<Duration>,
    /// The same while down.
    pub down_interval: Option<Duration>,
    /// Limit of one check.
    pub timeout: Duration,
    /// Successes that bring a backend up.
    pub rise: u32,
    /// Failures that take a backend down.
    pub fall: u32,
    /// Whether live connections that the backend refused or did not answer
    /// count as failed checks.
    pub observe: bool,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// A TCP connection.
    Tcp,
    /// A TLS handshake.
    Tls(Tls),
    /// The SIP request OPTIONS (RFC 3261 section 11).
    SipOptions(SipOptions),
    /// An HTTP request.
    Http(HttpRequest),
}

impl CheckKind {
    /// The file's word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls(_) => "tls",
            Self::SipOptions(_) => "sip-options",
            Self::Http(_) => "http",
        }
    }
}

/// How TLS is spoken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Name that is asked for and, with `verify`, must be the certificate's;
    /// `None` asks for none, and then the backend's address must be.
    pub sni: Option<String>,
    /// Whom a certificate must come from; `None` takes any.
    pub verify: Option<Anchors>,
}

/// Certificates that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchors {
    /// File they were read from; `None` is the host's own store.
    pub file: Option<PathBuf>,
    /// Each as DER (RFC 5280 section 4.1).
    pub certificates: Arc<Vec<Vec<u8>>>,
}

/// A SIP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipOptions {
    /// TLS over TCP; `None` is TCP alone.
    pub tls: Option<Tls>,
    /// URI of the header From; `None` is `sip:ocs-lb@` and the source address.
    pub from: Option<String>,
    /// URI of the request and of the header To; `None` is `sip:` with the
    /// backend's address and port.
    pub to: Option<String>,
    /// Final responses that count as success.
    pub expect: Statuses,
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// TLS over TCP; `None` is TCP alone.
    pub tls: Option<Tls>,
    /// Method, a token (RFC 9110 section 9.1).
    pub method: String,
    /// Path and query, from the slash on.
    pub path: String,
    /// The header Host; `None` is the backend's address and port.
    pub host: Option<String>,
    /// Responses that count as success.
    pub expect: Statuses,
}

/// Status codes: ranges of first and last, both included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(pub Vec<(u16, u16)>);

impl Statuses {
    /// Whether a status is one of them.
    pub fn contains(&self, status: u16) -> bool {
        let mut ranges = self.0.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{first}")?;
            if last != first {
                write!(f, "-{last}")?;
            }
        }
        Ok(())
    }
}

/// By connection, with the documented defaults of the file.
#[cfg(test)]
pub(crate) fn test_check() -> Check {
    Check {
        kind: CheckKind::Tcp,
        port: 5061,
        interval: Duration::from_secs(2),
        fast_interval: None,
        down_interval: None,
        timeout: Duration::from_secs(2),
        rise: 2,
        fall: 3,
        observe: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_ranges() {
        let statuses = Statuses(vec![(200, 299), (404, 404), (603, 699)]);
        for (status, wanted) in [
            (199, false),
            (200, true),
            (299, true),
            (300, false),
            (404, true),
            (405, false),
            (602, false),
            (699, true),
        ] {
            assert_eq!(statuses.contains(status), wanted, "{status}");
        }
        assert_eq!(statuses.to_string(), "200-299, 404, 603-699");
    }
}

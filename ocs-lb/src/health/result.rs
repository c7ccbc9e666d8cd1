//! How a check ends.

use std::fmt;
use std::io::{self, ErrorKind};

/// How far a check came, by HAProxy's layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The TCP connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The answer to a request.
    Answer,
}

/// How one check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckResult {
    /// The backend did all that was asked, up to this layer; an answer with its
    /// status.
    Ok(Layer, Option<u16>),
    /// It answered the SYN with a RST.
    Refused,
    /// There is no way to it: no route, or an ICMP error.
    Unreachable,
    /// It did not do what this layer wants in time.
    Timeout(Layer),
    /// The handshake failed; the text is the cause.
    Handshake(String),
    /// What it answered is no answer; the text is the cause.
    Answer(String),
    /// It answered with a status that is not wanted, and these words.
    Status(u16, String),
    /// No check: a live connection was refused or not answered.
    Observed,
    /// The check itself did not work; the text is the cause.
    Error(String),
}

impl CheckResult {
    /// Whether it counts as a success.
    pub const fn is_ok(&self) -> bool {
        matches!(self, Self::Ok(..))
    }

    /// The `result` label of the metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Ok(..) => "ok",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout(Layer::Connect) => "timeout",
            Self::Timeout(Layer::Tls) => "tls_timeout",
            Self::Timeout(Layer::Answer) => "answer_timeout",
            Self::Handshake(_) => "tls_error",
            Self::Answer(_) => "bad_answer",
            Self::Status(..) => "bad_status",
            Self::Observed => "observed",
            Self::Error(_) => "error",
        }
    }

    /// HAProxy's code for it, `check_status` of `show stat` (management guide,
    /// section 9.1).
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Ok(Layer::Connect, _) => "L4OK",
            Self::Ok(Layer::Tls, _) => "L6OK",
            Self::Ok(Layer::Answer, _) => "L7OK",
            Self::Refused | Self::Unreachable => "L4CON",
            Self::Timeout(Layer::Connect) => "L4TOUT",
            Self::Timeout(Layer::Tls) => "L6TOUT",
            Self::Timeout(Layer::Answer) => "L7TOUT",
            Self::Handshake(_) => "L6RSP",
            Self::Answer(_) => "L7RSP",
            Self::Status(..) => "L7STS",
            Self::Observed => "HANA",
            Self::Error(_) => "SOCKERR",
        }
    }

    /// The status that the backend answered with.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Ok(_, status) => *status,
            Self::Status(status, _) => Some(*status),
            _ => None,
        }
    }

    /// What a failed `connect` means.
    pub(super) fn from_connect(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Self::Refused,
            ErrorKind::TimedOut => Self::Timeout(Layer::Connect),
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
                Self::Unreachable
            }
            _ => Self::Error(error.to_string()),
        }
    }
}

/// The code and what there is to say beyond it: `L7STS 503 Busy`.
impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())?;
        match self {
            Self::Ok(_, None) => Ok(()),
            Self::Ok(_, Some(status)) => write!(f, " {status}"),
            Self::Status(status, words) if words.is_empty() => write!(f, " {status}"),
            Self::Status(status, words) => write!(f, " {status} {words}"),
            Self::Handshake(cause) | Self::Answer(cause) | Self::Error(cause) => {
                write!(f, ": {cause}")
            }
            Self::Refused => f.write_str(": refused"),
            Self::Unreachable => f.write_str(": unreachable"),
            Self::Timeout(_) => f.write_str(": timeout"),
            Self::Observed => f.write_str(": live connections fail"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_has_its_label_code_and_words() {
        let text = || "why".to_owned();
        for (result, label, code, words) in [
            (CheckResult::Ok(Layer::Connect, None), "ok", "L4OK", "L4OK"),
            (CheckResult::Ok(Layer::Tls, None), "ok", "L6OK", "L6OK"),
            (
                CheckResult::Ok(Layer::Answer, Some(200)),
                "ok",
                "L7OK",
                "L7OK 200",
            ),
            (CheckResult::Refused, "refused", "L4CON", "L4CON: refused"),
            (
                CheckResult::Unreachable,
                "unreachable",
                "L4CON",
                "L4CON: unreachable",
            ),
            (
                CheckResult::Timeout(Layer::Connect),
                "timeout",
                "L4TOUT",
                "L4TOUT: timeout",
            ),
            (
                CheckResult::Timeout(Layer::Tls),
                "tls_timeout",
                "L6TOUT",
                "L6TOUT: timeout",
            ),
            (
                CheckResult::Timeout(Layer::Answer),
                "answer_timeout",
                "L7TOUT",
                "L7TOUT: timeout",
            ),
            (
                CheckResult::Handshake(text()),
                "tls_error",
                "L6RSP",
                "L6RSP: why",
            ),
            (
                CheckResult::Answer(text()),
                "bad_answer",
                "L7RSP",
                "L7RSP: why",
            ),
            (
                CheckResult::Status(503, text()),
                "bad_status",
                "L7STS",
                "L7STS 503 why",
            ),
            (
                CheckResult::Observed,
                "observed",
                "HANA",
                "HANA: live connections fail",
            ),
            (
                CheckResult::Error(text()),
                "error",
                "SOCKERR",
                "SOCKERR: why",
            ),
        ] {
            let met = (result.label(), result.code(), result.to_string());
            assert_eq!(met, (label, code, words.to_owned()));
            assert_eq!(result.is_ok(), label == "ok");
        }
    }

    #[test]
    fn errors_of_connect() {
        for (kind, code) in [
            (ErrorKind::HostUnreachable, "L4CON"),
            (ErrorKind::NetworkUnreachable, "L4CON"),
            (ErrorKind::ConnectionRefused, "L4CON"),
            (ErrorKind::TimedOut, "L4TOUT"),
            (ErrorKind::PermissionDenied, "SOCKERR"),
        ] {
            assert_eq!(CheckResult::from_connect(&kind.into()).code(), code);
        }
    }
}

//! What can be asked, as one line of JSON.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::change::Change;
use super::filter::Filter;

/// Something that can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Interfaces: where the program is attached, and why so.
    Status,
    /// Clusters and their backends.
    Backends,
    /// Flows, one a line.
    Flows,
    /// Sticky entries, one a line.
    Sticky,
    /// Packets by interface, verdict and reason.
    Drops,
    /// SNAT ports in use.
    Snat,
    /// The last events.
    Events,
}

impl Show {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Status,
        Self::Backends,
        Self::Flows,
        Self::Sticky,
        Self::Drops,
        Self::Snat,
        Self::Events,
    ];

    /// Its name in requests and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Backends => "backends",
            Self::Flows => "flows",
            Self::Sticky => "sticky",
            Self::Drops => "drops",
            Self::Snat => "snat",
            Self::Events => "events",
        }
    }

    /// Conditions that mean something to it, as requests spell them.
    pub const fn filters(self) -> &'static [&'static str] {
        match self {
            Self::Backends => &["cluster", "backend", "state"],
            Self::Flows => &[
                "cluster",
                "backend",
                "client",
                "vip",
                "snat",
                "state",
                "older_than_secs",
            ],
            Self::Sticky => &["cluster", "backend", "client"],
            Self::Status | Self::Drops => &[],
            Self::Snat => &["cluster", "backend", "snat"],
            Self::Events => &["cluster", "backend", "client", "vip", "snat"],
        }
    }
}

impl fmt::Display for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Show {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|show| show.name() == text)
            .ok_or_else(|| RequestError::UnknownShow(text.to_owned()))
    }
}

/// Why a line is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a JSON object.
    #[error("a request is one JSON object: {0}")]
    NotAnObject(String),
    /// No `show`, or it is not a string.
    #[error("a request has \"show\": one of status, backends, flows, sticky, drops, snat, events")]
    NoShow,
    /// A `change` that there is not.
    #[error("{0}")]
    Change(String),
    /// A `show` of something else.
    #[error("cannot show `{0}`; it is one of status, backends, flows, sticky, drops, snat, events")]
    UnknownShow(String),
    /// A key or value that no filter has.
    #[error("{0}")]
    Filter(String),
    /// A filter that would be ignored.
    #[error("`{show}` has no `{filter}` to filter by")]
    NotApplicable {
        /// What was to be shown.
        show: Show,
        /// The filter's name.
        filter: &'static str,
    },
}

/// What a line asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// To be shown something.
    Show(Request),
    /// Something to be done.
    Change(Change),
}

impl Asked {
    /// Reads one line.
    ///
    /// # Errors
    /// As [`Request::parse`], and a change that is none.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let is_change = serde_json::from_slice::<Map<String, Value>>(line)
            .is_ok_and(|object| object.contains_key("change"));
        if !is_change {
            return Request::parse(line).map(Self::Show);
        }
        serde_json::from_slice(line)
            .map(Self::Change)
            .map_err(|error| RequestError::Change(error.to_string()))
    }
}

/// A request to be shown something.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is to be shown.
    pub show: Show,
    /// Which of it.
    pub filter: Filter,
}

impl Request {
    /// A request whose filter means something to what is shown.
    ///
    /// # Errors
    /// A condition that would be ignored: who asks for less must not get all.
    pub fn new(show: Show, filter: Filter) -> Result<Self, RequestError> {
        let odd = |name: &&str| !show.filters().contains(name);
        match filter.used().into_iter().find(odd) {
            Some(filter) => Err(RequestError::NotApplicable { show, filter }),
            None => Ok(Self { show, filter }),
        }
    }

    /// Reads one line.
    ///
    /// # Errors
    /// Anything but an object with a known `show` and its filters.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let mut object: Map<String, Value> = serde_json::from_slice(line)
            .map_err(|error| RequestError::NotAnObject(error.to_string()))?;
        let show = match object.remove("show") {
            Some(Value::String(name)) => name.parse()?,
            _ => return Err(RequestError::NoShow),
        };
        let filter = serde_json::from_value(Value::Object(object))
            .map_err(|error| RequestError::Filter(error.to_string()))?;
        Self::new(show, filter)
    }

    /// The line that [`Request::parse`] reads, newline included.
    ///
    /// # Errors
    /// An age that JSON has no number for.
    pub fn to_line(&self) -> serde_json::Result<String> {
        let mut object = serde_json::to_value(&self.filter)?;
        if let Value::Object(object) = &mut object {
            object.insert("show".to_owned(), self.show.name().into());
        }
        Ok(format!("{object}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for show in Show::ALL {
            let plain = Request::new(show, Filter::default()).unwrap();
            assert_eq!(
                plain.to_line().unwrap(),
                format!("{{\"show\":\"{show}\"}}\n")
            );
            assert_eq!(
                Request::parse(plain.to_line().unwrap().as_bytes()),
                Ok(plain)
            );
        }
        let line = br#"{"show": "flows", "cluster": "ocs", "backend": "n", "client": "203.0.113.5",
            "vip": "192.0.2.1:443", "snat": "198.51.100.1:2000", "state": "reset", "older_than_secs": 1.5}"#;
        let full = Request::parse(line).unwrap();
        assert_eq!(full.filter.used(), Show::Flows.filters());
        assert_eq!(Request::parse(full.to_line().unwrap().as_bytes()), Ok(full));
    }

    #[test]
    fn says_what_is_wrong() {
        for (line, expected) in [
            ("", "a request is one JSON object"),
            ("[]", "a request is one JSON object"),
            ("show info", "a request is one JSON object"),
            ("{}", "a request has \"show\""),
            (r#"{"show": 7}"#, "a request has \"show\""),
            (r#"{"show": "threads"}"#, "cannot show `threads`"),
            (
                r#"{"change": "reboot"}"#,
                "unknown variant `reboot`, expected one of",
            ),
            (r#"{"change": "reset-client"}"#, "missing field `client`"),
            (
                r#"{"change": "set-cluster", "cluster": "a", "state": "up"}"#,
                "unknown variant `up`, expected one of `ready`",
            ),
            (
                r#"{"change": "clear-sticky", "cluster": "a", "state": "up"}"#,
                "unknown field `state`",
            ),
            (
                r#"{"show": "flows", "clutser": "ocs"}"#,
                "unknown field `clutser`",
            ),
            (
                r#"{"show": "flows", "client": "host"}"#,
                "`host` is not ADDR",
            ),
            (
                r#"{"show": "drops", "cluster": "ocs"}"#,
                "`drops` has no `cluster`",
            ),
            (
                r#"{"show": "sticky", "older_than_secs": 3}"#,
                "`sticky` has no `older_than_secs`",
            ),
        ] {
            let error = Asked::parse(line.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{line}: {error}");
        }
    }
}

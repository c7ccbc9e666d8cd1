//! `ADDR[:PORT]`, as filters take it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address, and a port or any. IPv6 with a port is written `[2001:db8::1]:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port, host order; `None` is any.
    pub port: Option<u16>,
}

/// The text is neither an address nor an address and port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not ADDR or ADDR:PORT (IPv6 with a port: [ADDR]:PORT)")]
pub struct NotAnEndpoint(pub String);

impl Endpoint {
    /// Whether `address` and `port` are meant.
    pub fn matches(&self, address: IpAddr, port: u16) -> bool {
        self.address == address && self.port.is_none_or(|own| own == port)
    }
}

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            let port = None;
            return Ok(Self { address, port });
        }
        let both: SocketAddr = text.parse().map_err(|_| NotAnEndpoint(text.to_owned()))?;
        Ok(Self {
            address: both.ip(),
            port: Some(both.port()),
        })
    }
}

impl TryFrom<String> for Endpoint {
    type Error = NotAnEndpoint;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => self.address.fmt(f),
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "192.0.2.1",
            "192.0.2.1:443",
            "2001:db8::1",
            "[2001:db8::1]:443",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
        for text in [
            "",
            "host",
            "192.0.2.1:",
            "192.0.2.1:65536",
            "[2001:db8::1]",
            ":443",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn without_a_port_any_port_matches() {
        let any: Endpoint = "192.0.2.1".parse().unwrap();
        let one: Endpoint = "192.0.2.1:443".parse().unwrap();
        assert!(any.matches(any.address, 1) && one.matches(any.address, 443));
        assert!(!one.matches(any.address, 1));
    }
}

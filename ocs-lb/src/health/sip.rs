//! The SIP request OPTIONS and its answer (RFC 3261 sections 7, 8.1, 11 and
//! 18.3): pure.

use std::net::SocketAddr;

/// Longest answer that is looked at, in bytes.
pub const LONGEST: usize = 16 * 1024;

/// Characters of a reason that are kept.
const REASON: usize = 64;

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Our side of the connection.
    pub local: SocketAddr,
    /// The server's.
    pub server: SocketAddr,
    /// Whether the connection speaks TLS.
    pub tls: bool,
    /// URI of From, where the file names one.
    pub from: Option<&'a str>,
    /// URI of the request and of To, where the file names one.
    pub to: Option<&'a str>,
    /// What makes this request unlike any other.
    pub token: u64,
}

impl Request<'_> {
    /// The header Call-ID.
    fn call_id(&self) -> String {
        format!("{:016x}@{}", self.token, self.local.ip())
    }

    /// The request as it is sent.
    ///
    /// Without a user in the URI it is for the server itself, which so need not
    /// look further; `Max-Forwards` is what section 8.1.1.6 says.
    pub fn text(&self) -> String {
        let (local, token) = (self.local, self.token);
        let transport = if self.tls { "TLS" } else { "TCP" };
        let own = match local {
            SocketAddr::V4(local) => format!("sip:ocs-lb@{}", local.ip()),
            SocketAddr::V6(local) => format!("sip:ocs-lb@[{}]", local.ip()),
        };
        let server = format!("sip:{}", self.server);
        let (from, to) = (self.from.unwrap_or(&own), self.to.unwrap_or(&server));
        format!(
            "OPTIONS {to} SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {local};branch=z9hG4bK{token:016x}\r\n\
             Max-Forwards: 70\r\n\
             From: <{from}>;tag={:08x}\r\n\
             To: <{to}>\r\n\
             Call-ID: {}\r\n\
             CSeq: 1 OPTIONS\r\n\
             Contact: <sip:ocs-lb@{local};transport={}>\r\n\
             Accept: application/sdp\r\n\
             User-Agent: ocs-lb\r\n\
             Content-Length: 0\r\n\r\n",
            token >> 32,
            self.call_id(),
            transport.to_ascii_lowercase(),
        )
    }

    /// What was received so far: the final response, `None` where more is to
    /// come. Provisional responses (1xx) and empty lines are passed over.
    ///
    /// # Errors
    /// Why it is no answer to this request.
    pub fn answer(&self, mut received: &[u8]) -> Result<Option<Response>, String> {
        loop {
            // Section 7.5: empty lines before a message are ignored.
            while let [b'\r' | b'\n', rest @ ..] = received {
                received = rest;
            }
            is_response(received)?;
            let Some((head, rest)) = split_head(received) else {
                if received.len() >= LONGEST {
                    return Err(format!("the answer's head is longer than {LONGEST} bytes"));
                }
                return Ok(None);
            };
            let head = String::from_utf8_lossy(head);
            let (response, body) = self.response(&head)?;
            if response.status >= 200 {
                return Ok(Some(response));
            }
            match rest.get(body..) {
                Some(next) => received = next,
                None if body > LONGEST => {
                    return Err(format!("a provisional answer of {body} bytes"));
                }
                None => return Ok(None),
            }
        }
    }

    /// The response of a head, and the length of its body.
    fn response(&self, head: &str) -> Result<(Response, usize), String> {
        let mut lines = head.split('\n').map(|line| line.trim_end_matches('\r'));
        let line = lines.next().unwrap_or_default();
        let mut words = line.splitn(3, ' ').skip(1);
        let status = words.next().unwrap_or_default();
        let number = status.parse().ok().filter(|n| (100..700).contains(n));
        let Some(status) = number.filter(|_| status.len() == 3) else {
            return Err(format!("no status: {}", plain(line)));
        };
        let reason = plain(words.next().unwrap_or_default());
        let mut body = 0;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let (name, value) = (name.trim_end().to_ascii_lowercase(), value.trim());
            match name.as_str() {
                "call-id" | "i" if value != self.call_id() => {
                    return Err(format!("an answer to the call {}", plain(value)));
                }
                "cseq" if !is_ours(value) => {
                    return Err(format!("an answer to the request {}", plain(value)));
                }
                "content-length" | "l" => {
                    let length = value.parse();
                    body = length.map_err(|_| format!("the length {}", plain(value)))?;
                }
                _ => {}
            }
        }
        Ok((Response { status, reason }, body))
    }
}

/// A final response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 200 to 699.
    pub status: u16,
    /// The reason phrase, shortened and without controls.
    pub reason: String,
}

/// An error as soon as it cannot become a status line any more.
fn is_response(received: &[u8]) -> Result<(), String> {
    const BEGIN: &[u8] = b"SIP/2.0 ";
    let mut met = received.iter().zip(BEGIN);
    if met.all(|(met, wanted)| met.eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    let line = received.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.get(..REASON).unwrap_or(line);
    Err(format!(
        "not SIP: {}",
        plain(&String::from_utf8_lossy(line))
    ))
}

/// The head of a message with its last line's end, and what follows.
fn split_head(received: &[u8]) -> Option<(&[u8], &[u8])> {
    const END: &[u8] = b"\r\n\r\n";
    let at = received.windows(END.len()).position(|four| four == END)?;
    received.split_at_checked(at + END.len())
}

fn is_ours(cseq: &str) -> bool {
    let mut words = cseq.split_ascii_whitespace();
    (words.next(), words.next()) == (Some("1"), Some("OPTIONS"))
}

/// What a server wrote, fit for a log.
fn plain(text: &str) -> String {
    let shown = text.trim().chars().take(REASON);
    shown
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
#[path = "sip_tests.rs"]
mod tests;

//! One check of one server, from the SYN to the verdict.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::result::{CheckResult, Layer};
use super::source::{SourcePorts, connect};
use super::tls::{TlsClient, TlsClients};
use super::{http, sip};
use crate::model::{Check, CheckKind, HttpRequest, SipOptions, Tls};

/// Bytes of an answer that are read at once.
const CHUNK: usize = 2048;

/// What a check does.
#[derive(Debug)]
pub struct Probe {
    target: SocketAddr,
    source: Option<IpAddr>,
    ports: Arc<SourcePorts>,
    limit: Duration,
    kind: CheckKind,
    tls: Option<Result<TlsClient, String>>,
}

/// A connection that a request can be sent over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Probe {
    /// Of the server at `address`, from `source` (`None`: the kernel's choice)
    /// and the next of `ports`.
    pub fn new(
        address: IpAddr,
        check: &Check,
        (source, ports): (Option<IpAddr>, Arc<SourcePorts>),
        clients: &mut TlsClients,
    ) -> Self {
        let target = SocketAddr::new(address, check.port);
        Self {
            target,
            source,
            ports,
            limit: check.timeout,
            kind: check.kind.clone(),
            tls: tls_of(&check.kind).map(|tls| clients.client(tls, target)),
        }
    }

    /// Runs it once; the time limit is that of all its steps together.
    pub async fn run(&self) -> CheckResult {
        let mut layer = Layer::Connect;
        let ended = timeout(self.limit, self.steps(&mut layer)).await;
        match ended {
            Ok(Ok(status)) => CheckResult::Ok(layer, status),
            Ok(Err(failure)) => failure,
            Err(_) => CheckResult::Timeout(layer),
        }
    }

    /// `layer` is the one that is under way.
    async fn steps(&self, layer: &mut Layer) -> Result<Option<u16>, CheckResult> {
        let stream = connect(self.target, self.source, &self.ports)
            .await
            .map_err(|error| CheckResult::from_connect(&error))?;
        if self.kind == CheckKind::Tcp {
            return Ok(None);
        }
        let local = stream.local_addr();
        let local = local.map_err(|error| CheckResult::Error(error.to_string()))?;
        match &self.tls {
            None => self.ask(layer, stream, local).await,
            Some(client) => {
                *layer = Layer::Tls;
                let client = client.as_ref();
                let client = client.map_err(|cause| CheckResult::Error(cause.clone()))?;
                let handshake = client.handshake(stream).await;
                let mut stream = handshake.map_err(CheckResult::Handshake)?;
                let answered = self.ask(layer, &mut stream, local).await;
                // The notice of RFC 8446 section 6.1, if it can be had at once:
                // servers log a connection that ends without.
                let _ = stream.shutdown().now_or_never();
                answered
            }
        }
    }

    /// What follows the connection and the handshake.
    async fn ask(
        &self,
        layer: &mut Layer,
        stream: impl Stream,
        local: SocketAddr,
    ) -> Result<Option<u16>, CheckResult> {
        match &self.kind {
            CheckKind::Tcp | CheckKind::Tls(_) => Ok(None),
            CheckKind::SipOptions(options) => {
                *layer = Layer::Answer;
                self.sip(options, stream, local).await.map(Some)
            }
            CheckKind::Http(request) => {
                *layer = Layer::Answer;
                self.http(request, stream).await.map(Some)
            }
        }
    }

    async fn sip(
        &self,
        options: &SipOptions,
        mut stream: impl Stream,
        local: SocketAddr,
    ) -> Result<u16, CheckResult> {
        let lost = |error: std::io::Error| CheckResult::Answer(error.to_string());
        let request = sip::Request {
            local,
            server: self.target,
            tls: options.tls.is_some(),
            from: options.from.as_deref(),
            to: options.to.as_deref(),
            token: token(),
        };
        let text = request.text();
        stream.write_all(text.as_bytes()).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        let mut received = Vec::with_capacity(CHUNK);
        let response = loop {
            let (before, room) = (received.len(), sip::LONGEST - received.len());
            if room == 0 {
                return Err(CheckResult::Answer(format!(
                    "no final answer in {} bytes",
                    sip::LONGEST
                )));
            }
            let mut part = (&mut stream).take(room.min(CHUNK) as u64);
            part.read_buf(&mut received).await.map_err(lost)?;
            if received.len() == before {
                return Err(CheckResult::Answer("closed without an answer".to_owned()));
            }
            match request.answer(&received) {
                Ok(Some(response)) => break response,
                Ok(None) => {}
                Err(cause) => return Err(CheckResult::Answer(cause)),
            }
        };
        if options.expect.contains(response.status) {
            Ok(response.status)
        } else {
            Err(CheckResult::Status(response.status, response.reason))
        }
    }

    async fn http(&self, asked: &HttpRequest, stream: impl Stream) -> Result<u16, CheckResult> {
        let request = http::request(asked, self.target).map_err(CheckResult::Error)?;
        let answered = http::exchange(stream, request).await;
        let status = answered.map_err(CheckResult::Answer)?;
        if asked.expect.contains(status.as_u16()) {
            Ok(status.as_u16())
        } else {
            let words = status.canonical_reason().unwrap_or_default();
            Err(CheckResult::Status(status.as_u16(), words.to_owned()))
        }
    }
}

fn tls_of(kind: &CheckKind) -> Option<&Tls> {
    match kind {
        CheckKind::Tcp => None,
        CheckKind::Tls(tls) => Some(tls),
        CheckKind::SipOptions(options) => options.tls.as_ref(),
        CheckKind::Http(request) => request.tls.as_ref(),
    }
}

/// A number that no other check has, here and on other hosts.
fn token() -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    KEYS.hash_one(NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;

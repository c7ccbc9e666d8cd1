//! Clients. Every function works in the namespace of the calling thread.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpSocket;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::server::BYE;

/// Longest wait for a connection or an answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// An open connection to a [`Server`](crate::server::Server).
pub struct Session {
    /// The name of the server that answered.
    pub server: String,
    /// The client's address as the server sees it.
    pub seen: SocketAddr,
    /// The client's own address.
    pub local: SocketAddr,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// Connects and reads who answered. Port 0 is any.
///
/// # Errors
/// Within [`PATIENCE`].
pub async fn connect(
    source: Ipv4Addr,
    source_port: u16,
    to: SocketAddr,
) -> anyhow::Result<Session> {
    timeout(PATIENCE, try_connect(source, source_port, to))
        .await
        .with_context(|| format!("{source} to {to}: no answer within {PATIENCE:?}"))?
        .with_context(|| format!("{source} to {to}"))
}

async fn try_connect(
    source: Ipv4Addr,
    source_port: u16,
    to: SocketAddr,
) -> anyhow::Result<Session> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((source, source_port).into()).context("bind")?;
    let stream = socket.connect(to).await.context("connect")?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    reader.read_line(&mut line).await.context("greeting")?;
    let mut words = line.split_whitespace();
    match (words.next(), words.next().map(str::parse)) {
        (Some(server), Some(Ok(seen))) => Ok(Session {
            server: server.to_owned(),
            seen,
            local,
            reader,
            writer,
        }),
        _ => bail!("closed without a greeting (read {line:?})"),
    }
}

impl Session {
    /// Sends bytes and reads them back.
    ///
    /// # Errors
    /// Where the echo differs or does not come within [`PATIENCE`].
    pub async fn echo(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.echo_within(bytes, PATIENCE).await
    }

    /// The same with another patience.
    ///
    /// # Errors
    /// As [`Session::echo`].
    pub async fn echo_within(&mut self, bytes: &[u8], limit: Duration) -> anyhow::Result<()> {
        timeout(limit, async {
            self.writer.write_all(bytes).await?;
            let mut answer = vec![0; bytes.len()];
            self.reader.read_exact(&mut answer).await?;
            ensure!(answer == bytes, "the echo differs");
            Ok(())
        })
        .await
        .context("no echo in time")?
    }

    /// Sends `len` bytes while reading as many back; the hashes of both ways.
    ///
    /// # Errors
    /// The connection's.
    pub async fn bulk(&mut self, len: usize) -> anyhow::Result<(u64, u64)> {
        let (writer, reader) = (&mut self.writer, &mut self.reader);
        let send = async {
            let (mut hasher, mut left, mut seed) = (DefaultHasher::new(), len, 1u64);
            let mut chunk = vec![0u8; 32 * 1024];
            while left > 0 {
                for byte in &mut chunk {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *byte = (seed >> 56) as u8;
                }
                let part = &chunk[..left.min(chunk.len())];
                hasher.write(part);
                writer.write_all(part).await?;
                left -= part.len();
            }
            Ok::<_, anyhow::Error>(hasher.finish())
        };
        let receive = async {
            let (mut hasher, mut left) = (DefaultHasher::new(), len);
            // Chunks as the sender hashes them: the hash depends on them.
            let mut chunk = vec![0u8; 32 * 1024];
            while left > 0 {
                let size = left.min(chunk.len());
                reader.read_exact(&mut chunk[..size]).await?;
                hasher.write(&chunk[..size]);
                left -= size;
            }
            Ok::<_, anyhow::Error>(hasher.finish())
        };
        tokio::try_join!(send, receive)
    }

    /// Ends the client's side and reads the server's late answer.
    ///
    /// # Errors
    /// Where the answer is another one or does not come within [`PATIENCE`].
    pub async fn close(mut self) -> anyhow::Result<()> {
        timeout(PATIENCE, async {
            self.writer.shutdown().await?;
            let mut rest = Vec::new();
            self.reader.read_to_end(&mut rest).await?;
            ensure!(rest == BYE, "after the half-close came {rest:?}");
            Ok(())
        })
        .await
        .context("no late answer in time")?
    }
}

/// What many short connections met.
#[derive(Debug, Default)]
pub struct Report {
    /// Connections that did all they should.
    pub ok: usize,
    /// What went wrong with the others.
    pub failed: Vec<String>,
    /// Connections by server.
    pub by_server: BTreeMap<String, usize>,
    /// Time from SYN to greeting, ascending.
    pub latencies: Vec<Duration>,
}

impl Report {
    /// The latency that `share` (0 to 1) of the connections did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let at = (self.latencies.len() as f64 * share) as usize;
        let last = self.latencies.len().saturating_sub(1);
        self.latencies
            .get(at.min(last))
            .copied()
            .unwrap_or_default()
    }
}

/// Opens connections in turn over sources and targets, `at_once` at a time;
/// each echoes a line, half-closes and reads the late answer.
pub async fn short_connections(
    count: usize,
    at_once: usize,
    sources: &[Ipv4Addr],
    targets: &[SocketAddr],
) -> Report {
    let mut report = Report::default();
    let mut tasks = JoinSet::new();
    let mut started = 0;
    while started < count || !tasks.is_empty() {
        if started < count && tasks.len() < at_once {
            let source = sources[started % sources.len()];
            // Another target each time a source comes round.
            let target = targets[(started + started / sources.len()) % targets.len()];
            tasks.spawn(short_connection(source, target));
            started += 1;
            continue;
        }
        match tasks.join_next().await {
            Some(Ok(Ok((server, latency)))) => {
                report.ok += 1;
                *report.by_server.entry(server).or_default() += 1;
                report.latencies.push(latency);
            }
            Some(Ok(Err(error))) => report.failed.push(format!("{error:#}")),
            Some(Err(panic)) => report.failed.push(panic.to_string()),
            None => {}
        }
    }
    report.latencies.sort_unstable();
    report
}

async fn short_connection(
    source: Ipv4Addr,
    target: SocketAddr,
) -> anyhow::Result<(String, Duration)> {
    let start = Instant::now();
    let mut session = connect(source, 0, target).await?;
    let latency = start.elapsed();
    let server = session.server.clone();
    session.echo(b"hello\n").await?;
    session.close().await?;
    Ok((server, latency))
}

/// Status and body of a GET.
///
/// # Errors
/// Within [`PATIENCE`].
pub async fn http_get(to: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    timeout(PATIENCE, async {
        let mut stream = tokio::net::TcpStream::connect(to).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        Ok((status.context("no status")?, body.unwrap_or_default()))
    })
    .await
    .context("no answer in time")?
}

//! Serves the runtime socket: reads a request, asks the source, writes.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::answer::{
    BackendSet, Backends, Cleared, ClusterSet, Drops, Events, Failure, Reloaded, Snat, Status,
};
use super::change::{BackendName, Change, Clear, Reset};
use super::request::{Asked, Request, Show};
use super::socket::Socket;
use super::{Filter, Source};
use crate::model::BackendSetting;
use crate::readiness::Readiness;
use crate::snapshot::Unavailable;

/// Longest request, in bytes, its newline included.
pub const LINE_MAX: usize = 64 * 1024;
/// Clients at once.
pub const CLIENTS_MAX: usize = 16;
/// How long a client may take to ask, or to read what it was sent.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// How long the source may be silent: a walk with a filter finds nothing for a
/// while.
const SOURCE_LIMIT: Duration = Duration::from_secs(60);
/// Pause after accept(2) failed, which it does again at once when out of
/// descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers clients of `socket` until `cancel`, then removes it; answers under
/// way are cut off.
pub async fn serve(socket: Socket, source: Arc<dyn Source>, cancel: CancellationToken) {
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = clients.join_next() => continue,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok(stream) if clients.len() >= CLIENTS_MAX => turn_away(&stream),
            Ok(stream) => {
                let source = source.clone();
                clients.spawn(async move {
                    if let Err(error) = client(stream, source.as_ref(), IDLE_LIMIT).await {
                        debug!(reason = %error, "runtime socket: client lost");
                    }
                });
            }
            Err(error) => {
                warn!(reason = %error, "runtime socket: cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn turn_away(stream: &UnixStream) {
    let text = format!("{{\"error\":\"{CLIENTS_MAX} clients are connected already\"}}\n");
    // The buffer of a fresh socket holds it; if not, the client sees the close.
    let _ = stream.try_write(text.as_bytes());
}

async fn client(mut stream: UnixStream, source: &dyn Source, idle: Duration) -> io::Result<()> {
    // Who asks; a change is logged with it.
    let asker = stream.peer_cred().ok();
    let (read, write) = stream.split();
    let mut out = Answer {
        writer: BufWriter::with_capacity(LINE_MAX, write),
        idle,
    };
    let mut line = Vec::new();
    let mut reader = BufReader::new(read.take(LINE_MAX as u64 + 1));
    let asked = timeout(idle, reader.read_until(b'\n', &mut line)).await;
    match asked {
        Err(_) => out.fail("no request came").await?,
        Ok(read) => match read? {
            0 => return Ok(()),
            length if length > LINE_MAX => out.fail("the request is too long").await?,
            _ => match Asked::parse(&line) {
                Err(error) => out.fail(&error.to_string()).await?,
                Ok(Asked::Show(request)) => out.show(request, source).await?,
                Ok(Asked::Change(change)) => {
                    let uid = asker.map(|asker| asker.uid());
                    let pid = asker.and_then(|asker| asker.pid());
                    info!(uid, pid, %change, "an operator's word");
                    let number = |number: Option<i64>| {
                        number.map_or_else(|| "unknown".to_owned(), |number| number.to_string())
                    };
                    let (uid, pid) = (uid.map(i64::from), pid.map(i64::from));
                    let by = format!("uid {}, process {}", number(uid), number(pid));
                    out.change(change, by, source).await?;
                }
            },
        },
    }
    out.flush().await
}

/// The way back to one client; every write is bounded in time.
struct Answer<W> {
    writer: BufWriter<W>,
    idle: Duration,
}

impl<W: AsyncWrite + Unpin> Answer<W> {
    async fn show(&mut self, request: Request, source: &dyn Source) -> io::Result<()> {
        let filter = request.filter;
        let answered = match request.show {
            Show::Flows => match within(source.flows(filter.clone())).await {
                Err(reason) => Err(reason),
                Ok(flows) => return self.stream(flows, &filter, Filter::flow).await,
            },
            Show::Sticky => match within(source.sticky(filter.clone())).await {
                Err(reason) => Err(reason),
                Ok(entries) => return self.stream(entries, &filter, Filter::sticky).await,
            },
            Show::Events => match within(source.events()).await {
                Err(reason) => Err(reason),
                Ok(mut events) => {
                    events.retain(|event| filter.event(event));
                    return self.line(&Events { events }).await;
                }
            },
            Show::Status | Show::Backends | Show::Drops | Show::Snat => {
                within(source.snapshot()).await
            }
        };
        let mut snapshot = match answered {
            Err(reason) => return self.fail(&reason).await,
            Ok(snapshot) => snapshot,
        };
        match request.show {
            Show::Status => {
                let readiness = Readiness::of(&snapshot);
                let interfaces = snapshot.interfaces.into_iter();
                let interfaces = interfaces.map(Into::into).collect();
                let status = Status {
                    interfaces,
                    readiness,
                };
                self.line(&status).await
            }
            Show::Drops => {
                let interfaces = snapshot.interfaces;
                self.line(&Drops { interfaces }).await
            }
            Show::Snat => {
                snapshot.snat.retain(|destination| filter.snat(destination));
                let snat = snapshot.snat;
                self.line(&Snat { snat }).await
            }
            _ => {
                let clusters = filter.clusters(snapshot.clusters);
                self.line(&Backends { clusters }).await
            }
        }
    }

    async fn change(&mut self, change: Change, by: String, source: &dyn Source) -> io::Result<()> {
        let wanted = match change {
            Change::ClearSticky {
                cluster,
                client,
                backend,
            } => {
                let wanted = Clear {
                    cluster,
                    client,
                    backend,
                };
                return match within(source.clear(wanted)).await {
                    Ok(cleared) => self.line(&Cleared { cleared }).await,
                    Err(reason) => self.fail(&reason).await,
                };
            }
            Change::Reload => {
                return match within(source.reload()).await {
                    Ok(changes) => self.line(&Reloaded { changes }).await,
                    Err(reason) => self.fail(&reason).await,
                };
            }
            Change::SetCluster { cluster, state } => {
                return match within(source.set_cluster(cluster.clone(), state, by)).await {
                    Ok(()) => self.line(&ClusterSet { cluster, state }).await,
                    Err(reason) => self.fail(&reason).await,
                };
            }
            Change::SetBackendState {
                cluster,
                backend,
                state,
            } => {
                let name = BackendName { cluster, backend };
                return self
                    .set(name, BackendSetting::State(state), by, source)
                    .await;
            }
            Change::SetBackendWeight {
                cluster,
                backend,
                weight,
            } => {
                let name = BackendName { cluster, backend };
                return self
                    .set(name, BackendSetting::Weight(weight), by, source)
                    .await;
            }
            Change::ResetBackend { cluster, backend } => Reset::Backend { cluster, backend },
            Change::ResetClient { client } => Reset::Client { client },
        };
        match within(source.reset(wanted)).await {
            Ok(killed) => self.line(&killed).await,
            Err(reason) => self.fail(&reason).await,
        }
    }

    async fn set(
        &mut self,
        name: BackendName,
        setting: BackendSetting,
        by: String,
        source: &dyn Source,
    ) -> io::Result<()> {
        match within(source.set_backend(name.clone(), setting, by)).await {
            Err(reason) => self.fail(&reason).await,
            Ok(()) => {
                let BackendName { cluster, backend } = name;
                let set = setting.to_string();
                let answer = BackendSet {
                    cluster,
                    backend,
                    set,
                };
                self.line(&answer).await
            }
        }
    }

    async fn stream<T: Serialize>(
        &mut self,
        mut views: mpsc::Receiver<T>,
        filter: &Filter,
        matches: fn(&Filter, &T) -> bool,
    ) -> io::Result<()> {
        loop {
            if views.is_empty() {
                // What is known is shown while the walk goes on.
                self.flush().await?;
            }
            match timeout(SOURCE_LIMIT, views.recv()).await {
                Err(_) => return self.fail("the walk does not go on").await,
                Ok(None) => return Ok(()),
                Ok(Some(view)) if matches(filter, &view) => self.line(&view).await?,
                Ok(Some(_)) => {}
            }
        }
    }

    async fn fail(&mut self, reason: &str) -> io::Result<()> {
        let error = reason.to_owned();
        self.line(&Failure { error }).await
    }

    async fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(value)?;
        text.push(b'\n');
        let limit = self.idle;
        bounded(limit, self.writer.write_all(&text)).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        let limit = self.idle;
        bounded(limit, self.writer.flush()).await
    }
}

async fn bounded(limit: Duration, write: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    match timeout(limit, write).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not read",
        )),
    }
}

/// The source's answer, or why there is none.
async fn within<T>(asked: impl Future<Output = Result<T, Unavailable>>) -> Result<T, String> {
    match timeout(SOURCE_LIMIT, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("the datapath's owner does not answer".to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests;

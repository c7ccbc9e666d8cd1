//! `ocs-lb run`: the controller's parts, and the order of their end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::socket::Socket;
use crate::admin::{self, BackendName, Clear, Filter, Reset, Source};
use crate::conflict;
use crate::datapath::handle::Handle;
use crate::datapath::owner::{self, Message, Start};
use crate::datapath::pins::Pins;
use crate::metrics::server::{self, SnapshotFn};
use crate::model::{AdminSocket, BackendSetting, ClusterState, Model, Unknown};
use crate::neighbor::{self, Change, Netlink};
use crate::setup::set_up;
use crate::snapshot::{EventView, FlowView, KilledView, Snapshot, StickyView, Unavailable};
use crate::words::Words;

/// Time between two looks for sockets of a process that is taken over.
const TAKE_OVER_POLL: Duration = Duration::from_secs(2);

/// How the controller runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration's file, for reloads.
    pub config: PathBuf,
    /// Whether connections of other processes on what is served go on.
    pub take_over: bool,
    /// Whether the datapath ends with the controller.
    pub detach_on_exit: bool,
    /// Where the operator's word is kept.
    pub state: PathBuf,
}

/// Runs the controller until SIGTERM or SIGINT. The datapath goes on without
/// it, for the next one to take on.
///
/// # Errors
/// What keeps it from starting or ends it. What forwarded before it came goes
/// on then; what it attached itself before it was ready does not.
pub async fn run(model: Model, options: Options) -> anyhow::Result<()> {
    // Before anything is attached, so that no signal finds us half-way.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancel = CancellationToken::new();
    let hangup = signal(SignalKind::hangup())?;
    let work = serve(model, options, hangup, cancel.clone());
    tokio::pin!(work);
    tokio::select! {
        result = &mut work => return result,
        _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "stopping"),
        _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "stopping"),
    }
    cancel.cancel();
    work.await
}

/// Starts every part and waits for the first that ends.
async fn serve(
    model: Model,
    options: Options,
    hangup: Signal,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("root is missing: loading eBPF programs needs it");
    }
    let pins = Pins::open()?;
    let forwards = !pins.attached()?.is_empty();
    // What can fail comes before the attach: no packet waits for a busy port.
    let unknown = conflicts(&model, options.take_over || forwards)?;
    let listener = match model.metrics {
        Some(address) => Some(server::bind(address).await?),
        None => None,
    };
    let mut sockets = Vec::new();
    for admin in &model.admin {
        sockets.push(bind(admin).await?);
    }
    let netlink = Netlink::connect()?;
    // Subscribed before the first look, so that no change falls between.
    let changes = watch_network()?;
    let words = words(&model, &options.state);
    let (running, model, found) = set_up(model, &netlink, unknown, pins, &words).await?;
    let model = Arc::new(model);
    let (facts, checked) = mpsc::channel(256);
    let start = Start {
        running,
        model: Arc::clone(&model),
        found,
        netlink,
        words,
        unknown,
        config: options.config,
        detach: options.detach_on_exit,
        facts,
    };
    let (handle, owner) = owner::spawn(start, cancel.clone())?;
    if unknown.is_some() {
        finish_take_over(&handle);
    }
    hand_on(changes, &handle, Message::Network);
    hand_on(checked, &handle, Message::Health);
    reload_on(hangup, handle.clone());
    let mut servers = serve_all(listener, sockets, &handle, &cancel);
    drop(handle);
    tracing::info!(clusters = model.clusters.len(), "forwarding");
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);

    let mut owner = owner;
    let ended = tokio::select! {
        result = &mut owner => Err(result),
        Some(result) = servers.join_next() => Ok(result),
    };
    // Whoever ended first, all the others end as well.
    cancel.cancel();
    while servers.join_next().await.is_some() {}
    match ended {
        Err(result) => result.context("the datapath's owner")?,
        Ok(result) => {
            owner.await.context("the datapath's owner")??;
            result.context("a server")?
        }
    }
}

/// What an operator said before; names what is said of nobody.
fn words(model: &Model, directory: &Path) -> Words {
    let words = Words::load(directory).unwrap_or_else(|error| {
        tracing::error!(%error, "what an operator said is not known");
        Words::none(directory)
    });
    words.warn_of_strangers(model);
    words
}

/// Reads the configuration again at every SIGHUP; the owner logs what came of
/// it.
fn reload_on(mut hangup: Signal, handle: Handle) {
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // The owner has said in the log what came of it.
            let _ = handle.reload().await;
        }
    });
}

/// Starts the servers of metrics and runtime sockets.
fn serve_all(
    listener: Option<TcpListener>,
    sockets: Vec<Socket>,
    handle: &Handle,
    cancel: &CancellationToken,
) -> JoinSet<anyhow::Result<()>> {
    let mut servers = JoinSet::new();
    if let Some(listener) = listener {
        let (source, cancel) = (snapshots(handle), cancel.clone());
        servers.spawn(async move {
            server::serve(listener, source, cancel)
                .await
                .context("metrics")
        });
    }
    for socket in sockets {
        let (source, cancel) = (Arc::new(handle.clone()), cancel.clone());
        servers.spawn(async move {
            admin::server::serve(socket, source, cancel).await;
            Ok(())
        });
    }
    servers
}

/// A runtime socket; its directory is made where it is missing.
async fn bind(socket: &AdminSocket) -> anyhow::Result<Socket> {
    if let Some(directory) = socket.path.parent() {
        std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    Ok(Socket::bind(&socket.path, socket.mode).await?)
}

/// What stands in for the clusters' `unknown` while other processes hold what
/// they serve; nothing where nobody does.
///
/// # Errors
/// Names the processes, unless they are to be taken over.
fn conflicts(model: &Model, take_over: bool) -> anyhow::Result<Option<Unknown>> {
    let holders = conflict::holders(model).context("sockets of this host")?;
    if holders.is_empty() {
        return Ok(None);
    }
    let list: Vec<String> = holders.iter().map(ToString::to_string).collect();
    let list = list.join("; ");
    if take_over {
        tracing::info!(holders = list, "taking over: its connections go on");
        return Ok(Some(Unknown::Pass));
    }
    bail!("{list}; its connections would be cut off: stop it first, or use --take-over")
}

/// Lets the clusters' own `unknown` hold again once nobody else has a socket
/// on what they serve.
fn finish_take_over(handle: &Handle) {
    let handle = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TAKE_OVER_POLL).await;
            match conflict::holders(&handle.known().model) {
                Ok(holders) if holders.is_empty() => break,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "sockets of this host"),
            }
        }
        tracing::info!("taken over: nobody else holds a served port");
        // The owner ends with the process only.
        let _ = handle.tell(Message::TakenOver).await;
    });
}

fn watch_network() -> anyhow::Result<mpsc::Receiver<Change>> {
    let (sender, changes) = mpsc::channel(4096);
    neighbor::watch(sender)?;
    Ok(changes)
}

/// Hands facts on to the owner until either end is gone.
fn hand_on<T: Send + 'static>(
    mut facts: mpsc::Receiver<T>,
    handle: &Handle,
    message: fn(T) -> Message,
) {
    let handle = handle.clone();
    tokio::spawn(async move {
        while let Some(fact) = facts.recv().await {
            if handle.tell(message(fact)).await.is_err() {
                return;
            }
        }
    });
}

fn snapshots(handle: &Handle) -> SnapshotFn {
    let handle = handle.clone();
    Arc::new(move || {
        let handle = handle.clone();
        Box::pin(async move { handle.snapshot().await })
    })
}

impl Source for Handle {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, Unavailable>> {
        Box::pin(Handle::snapshot(self))
    }

    fn flows(
        &self,
        filter: Filter,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<FlowView>, Unavailable>> {
        let flows = Handle::flows(self, move |view| filter.flow(view));
        Box::pin(async move { Ok(flows) })
    }

    fn sticky(
        &self,
        filter: Filter,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<StickyView>, Unavailable>> {
        let entries = Handle::sticky(self, move |view| filter.sticky(view));
        Box::pin(async move { Ok(entries) })
    }

    fn events(&self) -> BoxFuture<'_, Result<Vec<EventView>, Unavailable>> {
        Box::pin(Handle::events(self))
    }

    fn reload(&self) -> BoxFuture<'_, Result<Vec<String>, Unavailable>> {
        Box::pin(Handle::reload(self))
    }

    fn reset(&self, wanted: Reset) -> BoxFuture<'_, Result<KilledView, Unavailable>> {
        Box::pin(Handle::reset(self, wanted))
    }

    fn clear(&self, wanted: Clear) -> BoxFuture<'_, Result<u64, Unavailable>> {
        Box::pin(Handle::clear(self, wanted))
    }

    fn set_cluster(
        &self,
        cluster: String,
        state: ClusterState,
        by: String,
    ) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move { Handle::set_cluster(self, &cluster, state, by).await })
    }

    fn set_backend(
        &self,
        backend: BackendName,
        setting: BackendSetting,
        by: String,
    ) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move { Handle::set_backend(self, &backend, setting, by).await })
    }
}

//! `ocs-lb run`: the controller's parts, and the order of their end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::socket::Socket;
use crate::admin::{self, Clear, Filter, Reset, Source};
use crate::conflict;
use crate::datapath::handle::Handle;
use crate::datapath::owner::{self, Message};
use crate::health::{self, Target, source_ports};
use crate::metrics::server::{self, SnapshotFn};
use crate::model::{AdminSocket, ClusterState, Model, Unknown};
use crate::neighbor::{self, Neighbor, Netlink};
use crate::setup::{Running, ephemeral_ports, set_up};
use crate::snapshot::{EventView, FlowView, KilledView, Snapshot, StickyView, Unavailable};

/// Time between two looks for sockets of a process that is taken over.
const TAKE_OVER_POLL: Duration = Duration::from_secs(2);

/// Runs the controller until SIGTERM or SIGINT, then detaches.
///
/// # Errors
/// What keeps it from starting or ends it; nothing stays attached then.
pub async fn run(model: Model, take_over: bool) -> anyhow::Result<()> {
    // Before anything is attached, so that no signal finds us half-way.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancel = CancellationToken::new();
    let work = serve(model, take_over, cancel.clone());
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
async fn serve(model: Model, take_over: bool, cancel: CancellationToken) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("root is missing: loading eBPF programs needs it");
    }
    // What can fail comes before the attach: no packet waits for a busy port.
    let unknown = conflicts(&model, take_over)?;
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
    let neighbors = watch_neighbors()?;
    let running = set_up(&model, &netlink, unknown).await?;
    if cancel.is_cancelled() {
        return Ok(());
    }
    let model = Arc::new(model);
    let targets = targets(&model, &running)?;
    let (handle, owner) = owner::spawn(
        running,
        Arc::clone(&model),
        netlink,
        unknown,
        cancel.clone(),
    )?;
    if unknown.is_some() {
        finish_take_over(&handle, Arc::clone(&model));
    }
    hand_on(neighbors, &handle, Message::Neighbor);
    let mut checks = check_health(targets, &handle, cancel.clone()).await?;
    let mut servers = serve_all(listener, sockets, &handle, &cancel);
    drop(handle);
    tracing::info!(clusters = model.clusters.len(), "forwarding");
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);

    let result = tokio::select! {
        result = owner => result.context("the datapath's owner")?,
        Some(result) = servers.join_next() => result.context("a server")?,
        Some(Err(panic)) = checks.join_next() => Err(panic).context("a health check"),
    };
    // Whoever ended first, all the others end as well.
    cancel.cancel();
    while servers.join_next().await.is_some() {}
    result
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
fn finish_take_over(handle: &Handle, model: Arc<Model>) {
    let handle = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TAKE_OVER_POLL).await;
            match conflict::holders(&model) {
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

/// What is checked, from which address and ports.
fn targets(model: &Model, running: &Running) -> anyhow::Result<Vec<Target>> {
    let ephemeral = ephemeral_ports()?;
    let mut targets = Vec::new();
    for (id, cluster) in model.clusters.iter().enumerate() {
        for (slot, backend) in cluster.backends.iter().enumerate() {
            let Some(check) = backend.check else {
                continue;
            };
            targets.push(Target {
                cluster: id as u16,
                backend: slot as u16,
                name: format!("{}/{}", cluster.name, backend.name),
                address: backend.address,
                check,
                source: Some(IpAddr::V4(running.sources[id][slot])),
                ports: source_ports(taken(model, running, id, slot), ephemeral),
            });
        }
    }
    Ok(targets)
}

/// First and last SNAT port that any flow towards a backend may have from the
/// address its checks come from, over all clusters.
fn taken(model: &Model, running: &Running, id: usize, slot: usize) -> (u16, u16) {
    let (address, source) = (
        model.clusters[id].backends[slot].address,
        running.sources[id][slot],
    );
    let mut taken = running.reach[id][slot].ports;
    for (cluster, reach) in model.clusters.iter().zip(&running.reach) {
        for (backend, reach) in cluster.backends.iter().zip(reach) {
            if backend.address == address && reach.snat.contains(&source) {
                taken = (taken.0.min(reach.ports.0), taken.1.max(reach.ports.1));
            }
        }
    }
    taken
}

async fn check_health(
    targets: Vec<Target>,
    handle: &Handle,
    cancel: CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    let (sender, facts) = mpsc::channel(256);
    let checks = health::spawn(targets, sender, cancel);
    hand_on(facts, handle, Message::Health);
    handle.tell(Message::Observers(checks.observers)).await?;
    Ok(checks.tasks)
}

fn watch_neighbors() -> anyhow::Result<mpsc::Receiver<Neighbor>> {
    let (sender, neighbors) = mpsc::channel(4096);
    neighbor::watch(sender)?;
    Ok(neighbors)
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
    ) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move { Handle::set_cluster(self, &cluster, state).await })
    }
}

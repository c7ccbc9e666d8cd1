//! The way to the owner of the maps, for everyone else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::load::MapIds;
use super::owner::Message;
use super::{read, sticky};
use crate::admin::{BackendName, Clear, Reset};
use crate::model::{BackendSetting, ClusterState, MAX_WEIGHT, Model};
use crate::snapshot::{EventView, FlowView, KilledView, Snapshot, StickyView, Unavailable};

/// How long who asked for a reset waits for its sum.
const RESET_WAIT: Duration = Duration::from_secs(30);

fn stopped<E>(_: E) -> Unavailable {
    Unavailable("the datapath's owner has stopped".to_owned())
}

/// What a reload may change under everyone's eyes.
#[derive(Clone)]
pub struct Known {
    /// What the datapath does.
    pub model: Arc<Model>,
    /// The tables that are walked beside the owner.
    pub ids: MapIds,
}

/// A handle on the owner; any number may exist.
#[derive(Clone)]
pub struct Handle {
    messages: mpsc::Sender<Message>,
    known: watch::Receiver<Known>,
}

impl Handle {
    /// A handle that sends its messages there.
    pub const fn new(messages: mpsc::Sender<Message>, known: watch::Receiver<Known>) -> Self {
        Self { messages, known }
    }

    /// What holds now.
    pub fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// Reads the configuration again and applies it; what changed.
    ///
    /// # Errors
    /// As [`Handle::tell`]; why nothing changed.
    pub async fn reload(&self) -> Result<Vec<String>, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Reload(reply)).await?;
        answer.await.map_err(stopped)?.map_err(Unavailable)
    }

    /// Tells the owner something.
    ///
    /// # Errors
    /// Where it has stopped: the process is shutting down.
    pub async fn tell(&self, message: Message) -> Result<(), Unavailable> {
        self.messages.send(message).await.map_err(stopped)
    }

    /// One look at everything.
    ///
    /// # Errors
    /// As [`Handle::tell`].
    pub async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Snapshot(reply)).await?;
        answer.await.map_err(stopped)
    }

    /// The last events, oldest first.
    ///
    /// # Errors
    /// As [`Handle::tell`].
    pub async fn events(&self) -> Result<Vec<EventView>, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Events(reply)).await?;
        answer.await.map_err(stopped)
    }

    /// Resets flows; the sum, or after half a minute that it goes on.
    ///
    /// # Errors
    /// As [`Handle::tell`]; what is not there; a walk that failed.
    pub async fn reset(&self, wanted: Reset) -> Result<KilledView, Unavailable> {
        let (accepted, acceptance) = oneshot::channel();
        let (done, sum) = oneshot::channel();
        let message = Message::Reset {
            wanted,
            accepted,
            done,
        };
        self.tell(message).await?;
        acceptance.await.map_err(stopped)?.map_err(Unavailable)?;
        match tokio::time::timeout(RESET_WAIT, sum).await {
            Ok(Ok(killed)) => Ok(killed),
            Ok(Err(_)) => Err(Unavailable("the walk failed; the log says why".to_owned())),
            Err(_) => Ok(KilledView::default()),
        }
    }

    /// Forgets sticky entries; how many. The walk runs beside the owner.
    ///
    /// # Errors
    /// What is not there; the map's.
    pub async fn clear(&self, wanted: Clear) -> Result<u64, Unavailable> {
        let wanted = self.sticky_wanted(&wanted).map_err(Unavailable)?;
        let ids = self.known().ids;
        let walk = tokio::task::spawn_blocking(move || sticky::clear(&ids, &wanted));
        match walk.await {
            Ok(cleared) => cleared.map_err(|error| Unavailable(error.to_string())),
            Err(error) => Err(Unavailable(error.to_string())),
        }
    }

    /// Puts a cluster in a state; the datapath knows it when this returns, and
    /// it is kept. `by` says who wants it.
    ///
    /// # Errors
    /// As [`Handle::tell`]; what is not there; the map's.
    pub async fn set_cluster(
        &self,
        cluster: &str,
        state: ClusterState,
        by: String,
    ) -> Result<(), Unavailable> {
        let cluster = self
            .known()
            .model
            .cluster_id(cluster)
            .map_err(Unavailable)?;
        let (done, answer) = oneshot::channel();
        let message = Message::SetCluster {
            cluster,
            state,
            by,
            done,
        };
        self.tell(message).await?;
        answer.await.map_err(stopped)?.map_err(Unavailable)
    }

    /// Says one thing of a backend; the datapath knows it when this returns, and
    /// it is kept. `by` says who wants it.
    ///
    /// # Errors
    /// As [`Handle::tell`]; what is not there or not allowed; the map's.
    pub async fn set_backend(
        &self,
        name: &BackendName,
        setting: BackendSetting,
        by: String,
    ) -> Result<(), Unavailable> {
        if let BackendSetting::Weight(Some(weight)) = setting
            && weight > MAX_WEIGHT
        {
            return Err(Unavailable(format!(
                "weight {weight} is not allowed; allowed: 0 to {MAX_WEIGHT}, default"
            )));
        }
        let model = self.known().model;
        let cluster = model.cluster_id(&name.cluster).map_err(Unavailable)?;
        let slot = model.clusters[usize::from(cluster)].slot(&name.backend);
        let (done, answer) = oneshot::channel();
        let message = Message::SetBackend {
            backend: (cluster, slot.map_err(Unavailable)?),
            setting,
            by,
            done,
        };
        self.tell(message).await?;
        answer.await.map_err(stopped)?.map_err(Unavailable)
    }

    fn sticky_wanted(&self, wanted: &Clear) -> Result<sticky::Wanted, String> {
        let model = self.known().model;
        let cluster = model.cluster_id(&wanted.cluster)?;
        let backends = &model.clusters[usize::from(cluster)];
        let slot = wanted.backend.as_ref().map(|name| backends.slot(name));
        Ok(sticky::Wanted {
            cluster,
            client: wanted.client,
            backend: slot.transpose()?,
        })
    }

    /// Every flow that `wanted` accepts, as a stream. The walk runs beside the
    /// owner and stops with the receiver.
    pub fn flows(
        &self,
        wanted: impl Fn(&FlowView) -> bool + Send + 'static,
    ) -> mpsc::Receiver<FlowView> {
        let (sender, receiver) = mpsc::channel(256);
        let Known { model, ids } = self.known();
        tokio::task::spawn_blocking(move || {
            let walk = read::flows(ids.flows, &model, |view| {
                !wanted(&view) || sender.blocking_send(view).is_ok()
            });
            if let Err(error) = walk {
                tracing::warn!(%error, "flows not listed");
            }
        });
        receiver
    }

    /// Every sticky entry that `wanted` accepts, as a stream.
    pub fn sticky(
        &self,
        wanted: impl Fn(&StickyView) -> bool + Send + 'static,
    ) -> mpsc::Receiver<StickyView> {
        let (sender, receiver) = mpsc::channel(256);
        let Known { model, ids } = self.known();
        tokio::task::spawn_blocking(move || {
            let walk = read::sticky(&ids.sticky, &model, |view| {
                !wanted(&view) || sender.blocking_send(view).is_ok()
            });
            if let Err(error) = walk {
                tracing::warn!(%error, "sticky entries not listed");
            }
        });
        receiver
    }
}

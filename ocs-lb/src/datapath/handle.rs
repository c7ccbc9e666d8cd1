//! The way to the owner of the maps, for everyone else.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::load::MapIds;
use super::owner::Message;
use super::read;
use crate::model::Model;
use crate::snapshot::{FlowView, Snapshot, StickyView, Unavailable};

/// A handle on the owner; any number may exist.
#[derive(Clone)]
pub struct Handle {
    messages: mpsc::Sender<Message>,
    model: Arc<Model>,
    ids: MapIds,
}

impl Handle {
    /// A handle that sends its messages there.
    pub fn new(messages: mpsc::Sender<Message>, model: Arc<Model>, ids: MapIds) -> Self {
        Self {
            messages,
            model,
            ids,
        }
    }

    /// Tells the owner something.
    ///
    /// # Errors
    /// Where it has stopped: the process is shutting down.
    pub async fn tell(&self, message: Message) -> Result<(), Unavailable> {
        let stopped = |_| Unavailable("the datapath's owner has stopped".to_owned());
        self.messages.send(message).await.map_err(stopped)
    }

    /// One look at everything.
    ///
    /// # Errors
    /// As [`Handle::tell`].
    pub async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Snapshot(reply)).await?;
        let stopped = |_| Unavailable("the datapath's owner has stopped".to_owned());
        answer.await.map_err(stopped)
    }

    /// Every flow that `wanted` accepts, as a stream. The walk runs beside the
    /// owner and stops with the receiver.
    pub fn flows(
        &self,
        wanted: impl Fn(&FlowView) -> bool + Send + 'static,
    ) -> mpsc::Receiver<FlowView> {
        let (sender, receiver) = mpsc::channel(256);
        let (id, model) = (self.ids.flows, Arc::clone(&self.model));
        tokio::task::spawn_blocking(move || {
            let walk = read::flows(id, &model, |view| {
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
        let (ids, model) = (Arc::clone(&self.ids.sticky), Arc::clone(&self.model));
        tokio::task::spawn_blocking(move || {
            let walk = read::sticky(&ids, &model, |view| {
                !wanted(&view) || sender.blocking_send(view).is_ok()
            });
            if let Err(error) = walk {
                tracing::warn!(%error, "sticky entries not listed");
            }
        });
        receiver
    }
}

//! The runtime socket: one line of JSON asks, lines of JSON answer.
//!
//! `{"show": "backends"}` and its filters come in on a UNIX stream; the answer
//! is one object (`flows` and `sticky`: one object a line), then the end of the
//! stream. `{"change": "reset-backend", ...}` asks for something to be done, and
//! the answer comes when it is. A request that cannot be served is answered `{"error": "..."}`.

pub mod answer;
pub mod change;
pub mod client;
pub mod endpoint;
pub mod filter;
pub mod request;
pub mod server;
pub mod socket;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::model::{BackendSetting, ClusterState};
use crate::snapshot::{EventView, FlowView, KilledView, Snapshot, StickyView, Unavailable};

pub use change::{BackendName, Change, Clear, Reset};
pub use endpoint::Endpoint;
pub use filter::Filter;
pub use request::{Request, Show};

/// What the socket's server asks of the owner of the maps.
///
/// The filter is a hint that saves work: the server applies it again. A walk
/// that fails midway just ends; one whose receiver is dropped should stop.
pub trait Source: Send + Sync + 'static {
    /// One look at everything but the tables' entries.
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, Unavailable>>;

    /// Walks the flow table.
    fn flows(&self, filter: Filter)
    -> BoxFuture<'_, Result<mpsc::Receiver<FlowView>, Unavailable>>;

    /// Walks the sticky table.
    fn sticky(
        &self,
        filter: Filter,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<StickyView>, Unavailable>>;

    /// The last events, oldest first.
    fn events(&self) -> BoxFuture<'_, Result<Vec<EventView>, Unavailable>>;

    /// Resets flows; answers when they are reset, or that it goes on.
    fn reset(&self, wanted: Reset) -> BoxFuture<'_, Result<KilledView, Unavailable>>;

    /// Reads the configuration again; what changed.
    fn reload(&self) -> BoxFuture<'_, Result<Vec<String>, Unavailable>>;

    /// Forgets sticky entries; how many.
    fn clear(&self, wanted: Clear) -> BoxFuture<'_, Result<u64, Unavailable>>;

    /// Says one thing of a backend; answers when the datapath knows it. `by`
    /// says who wants it.
    fn set_backend(
        &self,
        backend: BackendName,
        setting: BackendSetting,
        by: String,
    ) -> BoxFuture<'_, Result<(), Unavailable>>;

    /// Puts a cluster in a state; answers when the datapath knows it. `by` says
    /// who wants it.
    fn set_cluster(
        &self,
        cluster: String,
        state: ClusterState,
        by: String,
    ) -> BoxFuture<'_, Result<(), Unavailable>>;
}

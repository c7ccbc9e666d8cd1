//! The runtime socket: one line of JSON asks, lines of JSON answer.
//!
//! `{"show": "backends"}` and its filters come in on a UNIX stream; the answer
//! is one object (`flows` and `sticky`: one object a line), then the end of the
//! stream. A request that cannot be served is answered `{"error": "..."}`.

pub mod answer;
pub mod client;
pub mod endpoint;
pub mod filter;
pub mod request;
pub mod server;
pub mod socket;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::snapshot::{FlowView, Snapshot, StickyView, Unavailable};

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
}

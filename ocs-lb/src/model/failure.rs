//! What a cluster does when a backend fails or is removed.

/// What a sticky client meets while its backend is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persist {
    /// Another backend, and its entry is replaced.
    Redispatch,
    /// Its own first; it moves at a RST or a late SYN retransmission.
    Haproxy,
    /// A refusal until it is back.
    Strict,
}

/// What becomes of the flows of a backend that goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnBackendDown {
    /// Whether they are reset or kept.
    pub action: DownAction,
    /// Flows that are reset in a second at most.
    pub rate: u32,
    /// Keep flows whose backend still sends, and all of them where the failure
    /// looks like our own link's.
    pub guard: bool,
}

/// Whether flows of a dead backend end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownAction {
    /// Both sides get a RST.
    Reset,
    /// They stay until they end by themselves or by time.
    Keep,
}

/// What becomes of the flows of a backend that is no longer in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovedAction {
    /// They live until they end by themselves or by time.
    Drain,
    /// Both sides get a RST.
    Reset,
}

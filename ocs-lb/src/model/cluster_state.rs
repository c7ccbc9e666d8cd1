//! What an operator says about a whole cluster.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who gets a cluster's new connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterState {
    /// Its backends, as configured.
    #[default]
    Ready,
    /// Its backends, but only from clients with a sticky entry.
    Drain,
    /// Nobody: they are refused.
    Maint,
    /// The host's own stack.
    Pass,
}

impl ClusterState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Drain, Self::Maint, Self::Pass];

    /// Its number where it outlives the controller.
    pub fn number(self) -> u8 {
        let at = Self::ALL.iter().position(|state| *state == self);
        at.unwrap_or_default() as u8
    }

    /// The state of a number; ready where there is none.
    pub fn from_number(number: u8) -> Self {
        let known = Self::ALL.get(usize::from(number));
        known.copied().unwrap_or_default()
    }

    /// Its name in requests, on the command line and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
            Self::Pass => "pass",
        }
    }

    /// What it means for new connections, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ready => "new connections go to its backends",
            Self::Drain => "only clients with a sticky entry come in",
            Self::Maint => "new connections are refused",
            Self::Pass => "new connections go to this host's own stack",
        }
    }

    /// Whether clients without a sticky entry meet a backend.
    pub const fn takes_new(self) -> bool {
        matches!(self, Self::Ready | Self::Pass)
    }
}

impl fmt::Display for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_spell_it_as_the_command_line_does() {
        for state in ClusterState::ALL {
            let text = format!("\"{state}\"");
            assert_eq!(ClusterState::from_number(state.number()), state);
            assert_eq!(serde_json::to_string(&state).unwrap(), text);
            assert_eq!(serde_json::from_str::<ClusterState>(&text).unwrap(), state);
        }
    }
}

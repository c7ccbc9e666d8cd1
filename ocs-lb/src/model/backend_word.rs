//! What an operator says about one backend.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The largest weight (HAProxy's).
pub const MAX_WEIGHT: u16 = 256;

/// Who gets a backend's new connections, as an operator wants it. Health is
/// another fact: what is down serves nobody, whatever is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Everyone, while it is healthy.
    Ready,
    /// Clients with a sticky entry only.
    Drain,
    /// Nobody.
    Maint,
}

impl BackendState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Maint];

    /// Its name in requests and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// What it means for new connections, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ready => "it takes new connections while it is healthy",
            Self::Drain => "only clients with a sticky entry come in",
            Self::Maint => "nobody new comes in, and sticky clients move",
        }
    }
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// All that an operator said of a backend; nothing is as the file says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackendWord {
    /// Its state, where something was said of it.
    pub state: Option<BackendState>,
    /// Its weight instead of the file's.
    pub weight: Option<u16>,
}

impl BackendWord {
    /// Its numbers where it outlives the controller; 0 is nothing said.
    pub fn numbers(self) -> (u8, u16) {
        let at = |state| BackendState::ALL.iter().position(|one| *one == state);
        let state = self.state.and_then(at).map_or(0, |at| at as u8 + 1);
        (state, self.weight.map_or(0, |weight| weight + 1))
    }

    /// The word of these numbers; what no number means was not said.
    pub fn from_numbers(state: u8, weight: u16) -> Self {
        let at = usize::from(state).checked_sub(1);
        Self {
            state: at.and_then(|at| BackendState::ALL.get(at).copied()),
            weight: weight.checked_sub(1).filter(|weight| *weight <= MAX_WEIGHT),
        }
    }

    /// Whether nobody new comes in.
    pub fn is_maint(self) -> bool {
        self.state == Some(BackendState::Maint)
    }

    /// The weight that counts, beside the file's; 0 takes sticky clients only,
    /// and so does drain.
    pub fn weight_beside(self, file: u16) -> u16 {
        match self.state {
            Some(BackendState::Drain | BackendState::Maint) => 0,
            Some(BackendState::Ready) | None => self.weight.unwrap_or(file),
        }
    }
}

/// One thing that is said of a backend; `None` takes it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendSetting {
    /// Its state.
    State(Option<BackendState>),
    /// Its weight, 0 to [`MAX_WEIGHT`].
    Weight(Option<u16>),
}

impl BackendWord {
    /// The word with one thing said anew.
    pub fn with(mut self, setting: BackendSetting) -> Self {
        match setting {
            BackendSetting::State(state) => self.state = state,
            BackendSetting::Weight(weight) => self.weight = weight,
        }
        self
    }
}

/// As a sentence goes on after the backend's name.
impl fmt::Display for BackendSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(Some(state)) => write!(f, "{state}"),
            Self::State(None) => write!(f, "the file's state"),
            Self::Weight(Some(weight)) => write!(f, "weight {weight}"),
            Self::Weight(None) => write!(f, "the file's weight"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_back() {
        let states = BackendState::ALL.into_iter().map(Some).chain([None]);
        for state in states {
            for weight in [None, Some(0), Some(1), Some(MAX_WEIGHT)] {
                let word = BackendWord { state, weight };
                let (a, b) = word.numbers();
                assert_eq!(BackendWord::from_numbers(a, b), word);
            }
        }
        assert_eq!(BackendWord::default().numbers(), (0, 0));
        let nothing = BackendWord::default();
        assert_eq!(BackendWord::from_numbers(9, MAX_WEIGHT + 2), nothing);
    }

    #[test]
    fn what_counts_beside_the_file() {
        let word = |state, weight| BackendWord { state, weight };
        for (word, wanted) in [
            (word(None, None), 5),
            (word(None, Some(7)), 7),
            (word(None, Some(0)), 0),
            (word(Some(BackendState::Ready), Some(7)), 7),
            (word(Some(BackendState::Drain), Some(7)), 0),
            (word(Some(BackendState::Maint), None), 0),
        ] {
            assert_eq!(word.weight_beside(5), wanted, "{word:?}");
        }
        // The weight that was said waits for the end of the drain.
        let drained = word(Some(BackendState::Drain), Some(7));
        let back = drained.with(BackendSetting::State(None));
        assert_eq!(back.weight_beside(5), 7);
        let file = back.with(BackendSetting::Weight(None));
        assert_eq!(file, BackendWord::default());
    }

    #[test]
    fn spelled_as_typed() {
        for state in BackendState::ALL {
            let text = format!("\"{state}\"");
            assert_eq!(serde_json::to_string(&state).unwrap(), text);
            assert_eq!(serde_json::from_str::<BackendState>(&text).unwrap(), state);
        }
    }
}

//! What a guest that tries another kernel says on its serial console.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Marks our lines among the kernel's.
const MARK: &str = "vm-load: ";

/// One line from the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Line {
    /// The kernel's release; first.
    Kernel(String),
    /// What became of a program.
    Program(Trial),
    /// The guest could not try the programs: why.
    Failed(String),
    /// Every program was tried; last.
    End,
}

/// What the verifier made of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The program.
    pub program: String,
    /// Instructions it walked, where it loaded.
    pub instructions: Option<u32>,
    /// Instructions it may walk.
    pub budget: Option<u32>,
    /// Why it did not load, with the end of the verifier's log.
    pub refusal: Option<String>,
}

impl Trial {
    /// What is wrong with it, in a few words.
    pub fn fault(&self) -> Option<&'static str> {
        if self.refusal.is_some() {
            return Some("refused");
        }
        match (self.instructions, self.budget) {
            (None, _) => Some("not counted"),
            (_, None) => Some("no budget"),
            (Some(count), Some(budget)) if count > budget => Some("over its budget"),
            _ => None,
        }
    }
}

impl Line {
    /// As one line of text, without its end.
    ///
    /// # Errors
    /// None that these types can have.
    pub fn encode(&self) -> anyhow::Result<String> {
        Ok(format!("{MARK}{}", serde_json::to_string(self)?))
    }

    /// From a line of the console, where it is ours.
    ///
    /// # Errors
    /// A line of ours that cannot be read.
    pub fn decode(text: &str) -> anyhow::Result<Option<Self>> {
        // The kernel may have left its own line unended.
        let Some((_, ours)) = text.split_once(MARK) else {
            return Ok(None);
        };
        serde_json::from_str(ours.trim_end())
            .map(Some)
            .with_context(|| format!("the guest said: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(instructions: Option<u32>, budget: Option<u32>, refusal: Option<&str>) -> Trial {
        Trial {
            program: "a".to_owned(),
            instructions,
            budget,
            refusal: refusal.map(str::to_owned),
        }
    }

    #[test]
    fn a_line_survives_the_console() {
        let line = Line::Program(trial(None, Some(5), Some("one\ntwo \"three\"")));
        let text = format!("[    1.2] noise {}\r", line.encode().expect("encoded"));
        assert_eq!(text.lines().count(), 1);
        assert_eq!(Line::decode(&text).expect("ours"), Some(line));
        assert_eq!(Line::decode("Linux version 6.1").expect("not ours"), None);
        assert!(Line::decode("vm-load: {\"Prog").is_err());
    }

    #[test]
    fn faults() {
        assert_eq!(trial(Some(5), Some(5), None).fault(), None);
        assert_eq!(
            trial(Some(6), Some(5), None).fault(),
            Some("over its budget")
        );
        assert_eq!(trial(Some(6), None, None).fault(), Some("no budget"));
        assert_eq!(trial(None, Some(5), None).fault(), Some("not counted"));
        assert_eq!(trial(None, None, Some("no")).fault(), Some("refused"));
    }
}

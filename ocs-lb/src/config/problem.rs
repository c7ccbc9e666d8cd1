//! What is wrong with a configuration file, as values and as lines of text.

use std::fmt;

use serde::Serialize;

use super::certificates::Certificates;

/// Why a value is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The value can never be right, or contradicts another one.
    Invalid,
    /// The contract knows the value, this version does not.
    Unsupported,
}

/// One thing that is wrong, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Problem {
    /// File as it was named to the loader.
    pub file: String,
    /// Line, from 1; 0 means the file as a whole.
    pub line: usize,
    /// Key path such as `clusters[0].backends[1].weight`; empty for the file.
    pub key_path: String,
    /// The refused value (or key), shortened; `None` where something is missing.
    pub value: Option<String>,
    /// What is wrong with it.
    pub message: String,
    /// What would be allowed, where that can be said.
    pub allowed: Option<String>,
    /// Wrong for ever, or for this version.
    pub cause: Cause,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.file, self.line, &self.key_path)?;
        if let Some(value) = &self.value {
            write!(f, "{value} ")?;
        }
        f.write_str(&self.message)?;
        match (&self.allowed, self.cause) {
            (Some(allowed), Cause::Invalid) => write!(f, "; allowed: {allowed}"),
            (Some(allowed), Cause::Unsupported) => write!(f, "; allowed now: {allowed}"),
            (None, _) => Ok(()),
        }
    }
}

/// A valid value with a consequence that its author may not expect.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Warning {
    /// File as it was named to the loader.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Key path such as `clusters[0].slow_start`.
    pub key_path: String,
    /// What differs and how to say it explicitly.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.file, self.line, &self.key_path)?;
        f.write_str(&self.message)
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, file: &str, line: usize, path: &str) -> fmt::Result {
    f.write_str(file)?;
    if line > 0 {
        write!(f, ":{line}")?;
    }
    f.write_str(": ")?;
    if !path.is_empty() {
        write!(f, "{path}: ")?;
    }
    Ok(())
}

/// Every problem of a file, by line; never empty when returned as an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Where something stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Key path from the root.
    pub path: String,
}

/// Collects all there is to say about one file.
pub(super) struct Report<'a> {
    file: &'a str,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
    /// Files that the configuration names, each read once.
    pub certificates: Certificates,
}

impl<'a> Report<'a> {
    /// An empty report on `file`.
    pub fn new(file: &'a str) -> Self {
        Self {
            file,
            problems: Vec::new(),
            warnings: Vec::new(),
            certificates: Certificates::default(),
        }
    }

    fn push(
        &mut self,
        place: &Place,
        value: Option<String>,
        message: String,
        allowed: Option<String>,
        cause: Cause,
    ) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: place.line,
            key_path: place.path.clone(),
            value,
            message,
            allowed,
            cause,
        });
    }

    /// `value` can never stand at `place`.
    pub fn invalid(&mut self, place: &Place, value: String, allowed: impl Into<String>) {
        let message = "is not allowed".to_owned();
        self.push(
            place,
            Some(value),
            message,
            Some(allowed.into()),
            Cause::Invalid,
        );
    }

    /// Something is wrong that needs its own words.
    pub fn wrong(&mut self, place: &Place, message: impl Into<String>) {
        self.push(place, None, message.into(), None, Cause::Invalid);
    }

    /// A required key is absent at `place`.
    pub fn missing(&mut self, place: &Place, allowed: impl Into<String>) {
        let message = "is required and missing".to_owned();
        self.push(place, None, message, Some(allowed.into()), Cause::Invalid);
    }

    /// `value` is in the contract and not in this version.
    pub fn unsupported(&mut self, place: &Place, value: String, allowed: impl Into<String>) {
        let message = "is known but not supported by this version".to_owned();
        self.push(
            place,
            Some(value),
            message,
            Some(allowed.into()),
            Cause::Unsupported,
        );
    }

    /// A valid value whose effect needs a word.
    pub fn warn(&mut self, place: &Place, message: impl Into<String>) {
        self.warnings.push(Warning {
            file: self.file.to_owned(),
            line: place.line,
            key_path: place.path.clone(),
            message: message.into(),
        });
    }

    /// Whether any problem was reported.
    pub fn is_failed(&self) -> bool {
        !self.problems.is_empty()
    }

    /// The problems or else the warnings, by line. What several clusters
    /// inherit is decoded once for each of them and so is reported once here.
    pub fn finish(self) -> Result<Vec<Warning>, Problems> {
        let Self {
            mut problems,
            mut warnings,
            ..
        } = self;
        let mut seen = std::collections::HashSet::new();
        problems.retain(|p| seen.insert(p.clone()));
        problems.sort_by_key(|p| p.line);
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let mut seen = std::collections::HashSet::new();
        warnings.retain(|w| seen.insert(w.clone()));
        warnings.sort_by_key(|w| w.line);
        Ok(warnings)
    }
}

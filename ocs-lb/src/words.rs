//! The operator's word on clusters, kept in the state directory: it outlives
//! the datapath and the host's next boot.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::ClusterState;

/// The file's name.
const NAME: &str = "operator.json";
/// The version of its layout.
const VERSION: u32 = 1;

/// What an operator said of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// What it is to be.
    pub state: ClusterState,
    /// Who said so: `uid 0, process 4711`.
    pub by: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
}

/// All that was said; clusters that are not configured are kept.
#[derive(Debug)]
pub struct Words {
    path: PathBuf,
    clusters: BTreeMap<String, Word>,
}

/// As it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    clusters: BTreeMap<String, Word>,
}

/// Why nothing is known of what was said.
#[derive(Debug, thiserror::Error)]
pub enum WordsError {
    /// The file's or the directory's.
    #[error("{path}: {source}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what this program writes.
    #[error("{path}: {reason}; it is kept as {kept}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// Its new name.
        kept: PathBuf,
    },
}

impl Words {
    /// Nothing said yet, to be kept in a directory.
    pub fn none(directory: &Path) -> Self {
        Self {
            path: directory.join(NAME),
            clusters: BTreeMap::new(),
        }
    }

    /// What the directory has; nothing where there is no file.
    ///
    /// # Errors
    /// [`WordsError`]; a broken file has another name then.
    pub fn load(directory: &Path) -> Result<Self, WordsError> {
        let mut words = Self::none(directory);
        let path = words.path.clone();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(words),
            Err(source) => return Err(WordsError::File { path, source }),
        };
        let reason = match serde_json::from_slice::<Text>(&text) {
            Ok(text) if text.version == VERSION => {
                words.clusters = text.clusters;
                return Ok(words);
            }
            Ok(text) => format!("version {}; allowed: {VERSION}", text.version),
            Err(error) => error.to_string(),
        };
        let kept = path.with_extension("json.broken");
        match fs::rename(&path, &kept) {
            Ok(()) => Err(WordsError::Broken { path, reason, kept }),
            Err(source) => Err(WordsError::File { path, source }),
        }
    }

    /// What was said of a cluster.
    pub fn of(&self, cluster: &str) -> Option<&Word> {
        self.clusters.get(cluster)
    }

    /// What a cluster is to be.
    pub fn state(&self, cluster: &str) -> ClusterState {
        self.of(cluster)
            .map_or(ClusterState::Ready, |word| word.state)
    }

    /// Names of clusters that something was said of.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.clusters.keys().map(String::as_str)
    }

    /// Keeps a word; `ready` is as if nothing had been said. It is on the disk
    /// when this returns.
    ///
    /// # Errors
    /// [`WordsError::File`]; the file is as it was then.
    pub fn say(
        &mut self,
        cluster: &str,
        state: ClusterState,
        by: String,
        now: SystemTime,
    ) -> Result<(), WordsError> {
        if state == ClusterState::Ready {
            if self.clusters.remove(cluster).is_none() {
                return Ok(());
            }
        } else {
            let at = humantime::format_rfc3339_seconds(now).to_string();
            let word = Word { state, by, at };
            self.clusters.insert(cluster.to_owned(), word);
        }
        self.write().map_err(|source| WordsError::File {
            path: self.path.clone(),
            source,
        })
    }

    /// The whole file or the one from before, whenever the power goes.
    fn write(&self) -> io::Result<()> {
        let text = Text {
            version: VERSION,
            clusters: self.clusters.clone(),
        };
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let new = self.path.with_extension("json.new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&text)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        // The name is on the disk with its directory.
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("ocs-lb-words-{}-{name}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn say(words: &mut Words, cluster: &str, state: ClusterState) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        words
            .say(cluster, state, "uid 0".into(), now)
            .expect("written");
    }

    #[test]
    fn what_was_said_is_read_again() {
        let scratch = Scratch::new("kept");
        let mut words = Words::load(&scratch.0).expect("nothing yet");
        assert_eq!(words.names().count(), 0);
        say(&mut words, "ocs", ClusterState::Drain);
        say(&mut words, "gone", ClusterState::Maint);
        let mut words = Words::load(&scratch.0).expect("readable");
        let word = words.of("ocs").expect("kept");
        assert_eq!((word.state, &*word.by), (ClusterState::Drain, "uid 0"));
        assert_eq!(word.at, "1970-01-02T00:00:00Z");
        say(&mut words, "ocs", ClusterState::Ready);
        let words = Words::load(&scratch.0).expect("readable");
        // Who is not configured is kept all the same.
        assert_eq!(words.names().collect::<Vec<_>>(), ["gone"]);
        assert!(!scratch.0.join("operator.json.new").exists());
    }

    #[test]
    fn a_broken_file_is_kept_beside() {
        let scratch = Scratch::new("broken");
        fs::create_dir_all(&scratch.0).expect("a directory");
        for (text, expected) in [
            ("{", "EOF"),
            ("{\"version\": 2, \"clusters\": {}}", "allowed: 1"),
            ("{\"version\": 1, \"clusters\": {}, \"more\": 1}", "more"),
        ] {
            fs::write(scratch.0.join(NAME), text).expect("a file");
            let error = Words::load(&scratch.0).expect_err("broken").to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("operator.json.broken"), "{error}");
            assert!(!scratch.0.join(NAME).exists());
        }
    }

    #[test]
    fn what_cannot_be_written_is_said() {
        let mut words = Words::none(Path::new("/proc/nothing"));
        let now = SystemTime::UNIX_EPOCH;
        let error = words.say("ocs", ClusterState::Drain, "uid 0".into(), now);
        let error = error.expect_err("no such directory").to_string();
        assert!(
            error.starts_with("/proc/nothing/operator.json: "),
            "{error}"
        );
    }
}

//! The operator's word on clusters and backends, kept in the state directory:
//! it outlives the datapath and the host's next boot.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::{BackendSetting, BackendState, BackendWord, ClusterState, MAX_WEIGHT, Model};

/// The file's name.
const NAME: &str = "operator.json";
/// The version of its layout; 1 had no backends.
const VERSION: u32 = 2;
/// The oldest that is read.
const OLDEST: u32 = 1;

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

/// One thing that an operator said of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said<T> {
    /// What it is to be.
    pub to: T,
    /// Who said so.
    pub by: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
}

/// All that was said of a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendWords {
    /// Of its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Said<BackendState>>,
    /// Of its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Said<u16>>,
}

impl BackendWords {
    /// Without who and when.
    pub fn word(&self) -> BackendWord {
        let weight = self.weight.as_ref().map(|said| said.to.min(MAX_WEIGHT));
        BackendWord {
            state: self.state.as_ref().map(|said| said.to),
            weight,
        }
    }
}

/// Words on the backends of each cluster, by their names.
type Backends = BTreeMap<String, BTreeMap<String, BackendWords>>;

/// All that was said; clusters and backends that are not configured are kept.
#[derive(Debug)]
pub struct Words {
    path: PathBuf,
    clusters: BTreeMap<String, Word>,
    backends: Backends,
}

/// As it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    clusters: BTreeMap<String, Word>,
    #[serde(default)]
    backends: Backends,
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
            backends: Backends::new(),
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
            Ok(text) if (OLDEST..=VERSION).contains(&text.version) => {
                words.clusters = text.clusters;
                words.backends = text.backends;
                return Ok(words);
            }
            Ok(text) => format!("version {}; allowed: {OLDEST} to {VERSION}", text.version),
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

    /// All that was said of a backend.
    pub fn backend(&self, cluster: &str, backend: &str) -> Option<&BackendWords> {
        self.backends.get(cluster)?.get(backend)
    }

    /// What a backend is to be.
    pub fn backend_word(&self, cluster: &str, backend: &str) -> BackendWord {
        let words = self.backend(cluster, backend);
        words.map(BackendWords::word).unwrap_or_default()
    }

    /// Clusters, and backends as `CLUSTER/NAME`, that something was said of and
    /// that a model does not have.
    pub fn strangers(&self, model: &Model) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let clusters = self.clusters.keys();
        names.extend(
            clusters
                .filter(|name| model.cluster_id(name).is_err())
                .cloned(),
        );
        for (cluster, backends) in &self.backends {
            let id = model.cluster_id(cluster);
            let known = id.map(|id| &model.clusters[usize::from(id)]);
            let is_known = |name: &str| known.as_ref().is_ok_and(|known| known.slot(name).is_ok());
            let unknown = backends.keys().filter(|name| !is_known(name));
            names.extend(unknown.map(|name| format!("{cluster}/{name}")));
        }
        names
    }

    /// Says in the log of whom that a model does not have something is kept.
    pub fn warn_of_strangers(&self, model: &Model) {
        for name in self.strangers(model) {
            tracing::warn!(
                name,
                "an operator spoke of it, and it is not configured; that is kept until it is"
            );
        }
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
        self.keep()
    }

    /// Keeps one thing said of a backend, or forgets what was said of it. It is
    /// on the disk when this returns.
    ///
    /// # Errors
    /// As [`Words::say`].
    pub fn say_of_backend(
        &mut self,
        cluster: &str,
        backend: &str,
        setting: BackendSetting,
        by: String,
        now: SystemTime,
    ) -> Result<(), WordsError> {
        let of_cluster = self.backends.entry(cluster.to_owned()).or_default();
        let words = of_cluster.entry(backend.to_owned()).or_default();
        let at = humantime::format_rfc3339_seconds(now).to_string();
        match setting {
            BackendSetting::State(to) => words.state = to.map(|to| Said { to, by, at }),
            BackendSetting::Weight(to) => words.weight = to.map(|to| Said { to, by, at }),
        }
        of_cluster.retain(|_, words| *words != BackendWords::default());
        self.backends.retain(|_, backends| !backends.is_empty());
        self.keep()
    }

    fn keep(&self) -> Result<(), WordsError> {
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
            backends: self.backends.clone(),
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
        assert!(words.clusters.is_empty());
        say(&mut words, "ocs", ClusterState::Drain);
        say(&mut words, "gone", ClusterState::Maint);
        let mut words = Words::load(&scratch.0).expect("readable");
        let word = words.of("ocs").expect("kept");
        assert_eq!((word.state, &*word.by), (ClusterState::Drain, "uid 0"));
        assert_eq!(word.at, "1970-01-02T00:00:00Z");
        say(&mut words, "ocs", ClusterState::Ready);
        let words = Words::load(&scratch.0).expect("readable");
        // Who is not configured is kept all the same.
        assert_eq!(words.clusters.keys().collect::<Vec<_>>(), ["gone"]);
        assert!(!scratch.0.join("operator.json.new").exists());
    }

    #[test]
    fn backends_are_spoken_of_by_name() {
        let scratch = Scratch::new("backends");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        let (drain, light) = (
            BackendSetting::State(Some(BackendState::Drain)),
            BackendSetting::Weight(Some(7)),
        );
        let say = |words: &mut Words, backend: &str, setting| {
            let said = words.say_of_backend("ocs", backend, setting, "uid 0".into(), now);
            said.expect("written");
        };
        let mut words = Words::load(&scratch.0).expect("nothing yet");
        assert_eq!(words.backend("ocs", "a"), None);
        say(&mut words, "a", drain);
        say(&mut words, "a", light);
        say(&mut words, "gone", light);
        let mut words = Words::load(&scratch.0).expect("readable");
        let kept = words.backend("ocs", "a").expect("kept");
        let state = kept.state.as_ref().expect("a state");
        let weight = kept.weight.as_ref().expect("a weight");
        assert_eq!((state.to, &*state.by), (BackendState::Drain, "uid 0"));
        assert_eq!((weight.to, &*weight.at), (7, "1970-01-02T00:00:00Z"));
        assert_eq!(words.backend_word("ocs", "a"), kept.word());

        let loaded = crate::config::parse(crate::config::DEFAULT, "default.yaml");
        let model = loaded.expect("valid").model;
        assert_eq!(words.strangers(&model), ["ocs/a", "ocs/gone"]);
        say(&mut words, "OCS_Node1", drain);
        let said = words.say("lync", ClusterState::Drain, "uid 0".into(), now);
        said.expect("written");
        assert_eq!(words.strangers(&model), ["lync", "ocs/a", "ocs/gone"]);

        for backend in ["a", "gone", "OCS_Node1"] {
            say(&mut words, backend, BackendSetting::State(None));
            say(&mut words, backend, BackendSetting::Weight(None));
        }
        let words = Words::load(&scratch.0).expect("readable");
        assert!(words.backends.is_empty());
        assert_eq!(words.backend_word("ocs", "a"), BackendWord::default());
    }

    #[test]
    fn the_file_of_before_backends_is_read() {
        let scratch = Scratch::new("old");
        fs::create_dir_all(&scratch.0).expect("a directory");
        let text = r#"{"version": 1, "clusters":
            {"ocs": {"state": "drain", "by": "uid 0", "at": "1970-01-02T00:00:00Z"}}}"#;
        fs::write(scratch.0.join(NAME), text).expect("a file");
        let words = Words::load(&scratch.0).expect("readable");
        assert_eq!(words.state("ocs"), ClusterState::Drain);
        assert!(words.backends.is_empty());
    }

    #[test]
    fn a_broken_file_is_kept_beside() {
        let scratch = Scratch::new("broken");
        fs::create_dir_all(&scratch.0).expect("a directory");
        for (text, expected) in [
            ("{", "EOF"),
            ("{\"version\": 3, \"clusters\": {}}", "allowed: 1 to 2"),
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

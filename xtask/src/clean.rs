//! What a killed lab leaves: a directory, and pins of a datapath without a
//! network. Namespaces, links and processes go with the process that held them.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use ocs_lb_test_support::netns::Namespace;

use crate::run;

/// Prefix of the lab's directories; the process id follows.
const PREFIX: &str = "ocs-lb-lab-";

/// The lab's own directory; removed when dropped.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes one, readable by its owner only.
    ///
    /// # Errors
    /// The file system's.
    pub fn new() -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;

        let path = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("xtask: {} stays behind: {error}", self.path.display());
        }
    }
}

/// Removes the directories of labs whose process is gone; says which.
///
/// # Errors
/// The file system's.
pub fn clean() -> anyhow::Result<()> {
    for entry in std::fs::read_dir(std::env::temp_dir())? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        if !Path::new("/proc").join(id).exists() {
            std::fs::remove_dir_all(entry.path())?;
            println!("clean: removed {}", entry.path().display());
        }
    }
    if run::binary().exists() && nix::unistd::geteuid().is_root() {
        clean_pins()?;
    }
    Ok(())
}

/// Removes pins of namespaces that are gone. Asked from a namespace of its own,
/// the balancer finds nothing else to end.
fn clean_pins() -> anyhow::Result<()> {
    let nowhere = Namespace::new()?;
    let output = nowhere
        .command(run::binary())
        .args(["detach", "--yes"])
        .output()?;
    ensure!(
        output.status.success(),
        "pins: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

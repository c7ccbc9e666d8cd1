//! What outlives the controller: maps and links, pinned in a directory of
//! bpffs whose name holds the version of their layout.
//!
//! A host has one datapath for each network namespace. That of the host itself
//! lies at `/sys/fs/bpf/ocs-lb/v<ABI>`, that of another namespace in a directory
//! below, named by the namespace's inode.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use nix::fcntl::{Flock, FlockArg};
use ocs_lb_common::abi::ABI_VERSION;

use super::bpffs::{self, Bpffs};
use super::{load, sysctl};

/// Below bpffs.
const ROOT: &str = "ocs-lb";
const MAPS: &str = "maps";
const LINKS: &str = "links";
const PROGRAMS: &str = "programs";
/// A sysctl that only the first network namespace has (`net_core_table`,
/// `net/core/sysctl_net_core.c`); no right is needed to see it.
const OF_THE_FIRST: &str = "/proc/sys/net/core/netdev_budget";

/// Why pins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// A file operation.
    #[error("{path}: {source}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds the datapath.
    #[error("another ocs-lb controls the datapath of {path}; stop it first")]
    Held {
        /// The directory.
        path: PathBuf,
    },
    /// A datapath of another layout forwards.
    #[error(
        "a datapath of layout {found} forwards from {path}, and this binary speaks {ABI_VERSION}: \
         its flows cannot be kept. `ocs-lb detach` ends it, or go on with the binary that started it"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: String,
    },
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> PinError + '_ {
    |source| PinError::File {
        path: path.to_path_buf(),
        source,
    }
}

/// The directory of this namespace's datapath, held by this process.
pub struct Pins {
    directory: PathBuf,
    _lock: Flock<File>,
    _bpffs: Bpffs,
}

impl Pins {
    /// Opens or makes the directory, and holds it until dropped. What other
    /// namespaces left that are gone is removed.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn open() -> Result<Self, PinError> {
        let bpffs = Bpffs::mounted()?;
        let root = bpffs.path().join(ROOT);
        refuse_other_versions(&root)?;
        let version = root.join(format!("v{ABI_VERSION}"));
        collect_garbage(&version);
        Self::hold(below(version)?, bpffs)
    }

    fn hold(directory: PathBuf, bpffs: Bpffs) -> Result<Self, PinError> {
        fs::create_dir_all(&directory).map_err(file(&directory))?;
        let open = File::open(&directory).map_err(file(&directory))?;
        let lock = match Flock::lock(open, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(PinError::Held { path: directory });
            }
            Err((_, error)) => return Err(file(&directory)(error.into())),
        };
        for part in [MAPS, LINKS, PROGRAMS] {
            let path = directory.join(part);
            fs::create_dir_all(&path).map_err(file(&path))?;
        }
        Ok(Self {
            directory,
            _lock: lock,
            _bpffs: bpffs,
        })
    }

    /// Where everything is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        // bpffs takes no dot in a name.
        self.directory.join(MAPS).join(name.replace('.', "_"))
    }

    /// Where a program is pinned.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(PROGRAMS).join(name)
    }

    /// Where an interface's link is pinned.
    pub fn link(&self, ifindex: u32) -> PathBuf {
        self.directory.join(LINKS).join(ifindex.to_string())
    }

    /// Interfaces whose link forwards still.
    ///
    /// # Errors
    /// The directory's.
    pub fn attached(&self) -> Result<Vec<u32>, PinError> {
        attached(&self.directory)
    }

    /// The link of an interface, where it is there and forwards still.
    pub fn take_link(&self, ifindex: u32) -> Option<FdLink> {
        let link = PinnedLink::from_pin(self.link(ifindex)).ok()?;
        let link = FdLink::from(link);
        (bpffs::link_ifindex(&link) == Some(ifindex)).then_some(link)
    }

    /// Removes an interface's pin; its link goes with the last descriptor.
    ///
    /// # Errors
    /// The file's, unless it is gone already.
    pub fn forget_link(&self, ifindex: u32) -> Result<(), PinError> {
        remove(&self.link(ifindex))
    }

    /// Removes every pin but not the directory: what forwards stops when its
    /// last descriptor is closed.
    ///
    /// # Errors
    /// A file's.
    pub fn clear(&self) -> Result<(), PinError> {
        clear(&self.directory)
    }

    /// Removes all, the directory included.
    ///
    /// # Errors
    /// A file's.
    pub fn remove(self) -> Result<(), PinError> {
        remove_all(&self.directory)
    }
}

/// Ends the datapaths of this namespace, of whatever version; which
/// directories there were. What namespaces left that are gone goes too.
///
/// # Errors
/// Where a controller holds one, or a file's.
pub fn detach() -> Result<Vec<PathBuf>, PinError> {
    let bpffs = Bpffs::mounted()?;
    let root = bpffs.path().join(ROOT);
    let mut ended = Vec::new();
    for version in entries(&root) {
        collect_garbage(&version);
        let directory = below(version)?;
        if directory.join(MAPS).is_dir() {
            let pins = Pins::hold(directory.clone(), Bpffs::mounted()?)?;
            // A table of another version may be another table.
            let identity = load::identity(Some(&pins)).ok();
            if let Some(before) = identity.and_then(|table| table.forwarding_before()) {
                sysctl::restore(&before);
            }
            pins.remove()?;
            ended.push(directory);
        }
    }
    Ok(ended)
}

/// Whether a datapath of this namespace forwards, with a controller or without;
/// changes nothing.
///
/// # Errors
/// A file's; where bpffs is not mounted and cannot be.
pub fn forwards() -> Result<bool, PinError> {
    let bpffs = Bpffs::mounted()?;
    for version in entries(&bpffs.path().join(ROOT)) {
        if !attached(&below(version)?)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The directory of this namespace below a version's.
fn below(version: PathBuf) -> Result<PathBuf, PinError> {
    if Path::new(OF_THE_FIRST).exists() {
        return Ok(version);
    }
    let own = Path::new("/proc/self/ns/net");
    let inode = fs::metadata(own).map_err(file(own))?.ino();
    Ok(version.join(format!("netns-{inode}")))
}

/// Another version's datapath forwards in this namespace.
fn refuse_other_versions(root: &Path) -> Result<(), PinError> {
    for version in entries(root) {
        let name = version.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        if name == format!("v{ABI_VERSION}") {
            continue;
        }
        let path = below(version)?;
        if !attached(&path)?.is_empty() {
            let found = name.trim_start_matches('v').to_owned();
            return Err(PinError::Version { path, found });
        }
    }
    Ok(())
}

/// Removes the directories of namespaces that are gone: nobody holds them and
/// no link of theirs has an interface.
fn collect_garbage(version: &Path) {
    for directory in entries(version) {
        let name = directory.file_name().unwrap_or_default();
        if !name.to_string_lossy().starts_with("netns-") {
            continue;
        }
        let Ok(open) = File::open(&directory) else {
            continue;
        };
        let Ok(_lock) = Flock::lock(open, FlockArg::LockExclusiveNonblock) else {
            continue;
        };
        if attached(&directory).is_ok_and(|links| links.is_empty())
            && let Err(error) = remove_all(&directory)
        {
            tracing::debug!(%error, "pins of a namespace that is gone");
        }
    }
}

fn attached(directory: &Path) -> Result<Vec<u32>, PinError> {
    let mut found = Vec::new();
    for path in entries(&directory.join(LINKS)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Ok(ifindex) = name.parse::<u32>() else {
            continue;
        };
        let Ok(link) = PinnedLink::from_pin(&path) else {
            continue;
        };
        // 0: its interface is gone.
        if bpffs::link_ifindex(&FdLink::from(link)) == Some(ifindex) {
            found.push(ifindex);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What is in a directory; nothing where there is none.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(directory) else {
        return Vec::new();
    };
    read.flatten().map(|entry| entry.path()).collect()
}

fn remove(path: &Path) -> Result<(), PinError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(path)(error)),
        _ => Ok(()),
    }
}

fn clear(directory: &Path) -> Result<(), PinError> {
    // Links first: nothing forwards by maps that are going.
    for part in [LINKS, PROGRAMS, MAPS] {
        for path in entries(&directory.join(part)) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove_all(directory: &Path) -> Result<(), PinError> {
    clear(directory)?;
    for part in [LINKS, PROGRAMS, MAPS] {
        let path = directory.join(part);
        match fs::remove_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file(&path)(error));
            }
            _ => {}
        }
    }
    // Its own, then the parents that are empty now; others may use them.
    let mut parent = Some(directory);
    while let Some(path) = parent {
        if fs::remove_dir(path).is_err() || path.ends_with(ROOT) {
            break;
        }
        parent = path.parent();
    }
    Ok(())
}

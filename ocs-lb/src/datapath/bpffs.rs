//! The file system of BPF objects, and what the kernel tells of a link.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};

use super::pins::PinError;

/// Where hosts have it.
const PATH: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` (`include/uapi/linux/magic.h`).
const MAGIC: FsType = FsType(0xcafe_4a11);

/// A mounted bpffs, reachable while this lives.
pub struct Bpffs {
    path: PathBuf,
    _open: Option<File>,
}

impl Bpffs {
    /// Its root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn here() -> Self {
        Self {
            path: PATH.into(),
            _open: None,
        }
    }

    /// That of another process' mounts; nothing where it has none.
    fn of(process: u32) -> Option<Self> {
        let path = PathBuf::from(format!("/proc/{process}/root{PATH}"));
        let open = File::open(&path).ok().filter(|_| is_bpffs(&path))?;
        // The process may end before we do.
        let path = format!("/proc/self/fd/{}", open.as_raw_fd()).into();
        Some(Self {
            path,
            _open: Some(open),
        })
    }

    /// Finds it, or mounts it where it is missing. A process with mounts of its
    /// own (`ip netns exec`) takes those of who started it: what it mounted
    /// itself would go with it.
    ///
    /// # Errors
    /// Where it cannot be mounted.
    pub fn mounted() -> Result<Self, PinError> {
        if is_bpffs(Path::new(PATH)) {
            return Ok(Self::here());
        }
        let others = with_other_mounts();
        if let Some(found) = others.iter().find_map(|process| Self::of(*process)) {
            return Ok(found);
        }
        for process in others {
            let mounted = std::thread::spawn(move || mount_for(process)).join();
            if let (Ok(Ok(())), Some(found)) = (mounted, Self::of(process)) {
                return Ok(found);
            }
        }
        mount_here().map_err(|source| PinError::File {
            path: PATH.into(),
            source,
        })?;
        Ok(Self::here())
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == MAGIC)
}

fn mount_here() -> io::Result<()> {
    let none: Option<&str> = None;
    mount(Some("bpf"), PATH, Some("bpf"), MsFlags::empty(), none)?;
    Ok(())
}

/// Mounts it among another process' mounts; for a thread that ends then.
fn mount_for(process: u32) -> io::Result<()> {
    let mounts = File::open(format!("/proc/{process}/ns/mnt"))?;
    // Threads share a working directory, which a mount namespace forbids.
    unshare(CloneFlags::CLONE_FS)?;
    setns(mounts.as_fd(), CloneFlags::CLONE_NEWNS)?;
    mount_here()
}

/// The first process and who started this one, where their mounts are others.
fn with_other_mounts() -> Vec<u32> {
    let inode = |process: &str| {
        let metadata = fs::metadata(format!("/proc/{process}/ns/mnt"));
        metadata.ok().map(|metadata| metadata.ino())
    };
    let own = inode("self");
    let mut found = vec![1];
    let mut process = procfs::process::Process::myself();
    while let Ok(stat) = process.and_then(|process| process.stat()) {
        let Ok(parent) = u32::try_from(stat.ppid) else {
            break;
        };
        if parent <= 1 {
            break;
        }
        found.push(parent);
        process = procfs::process::Process::new(stat.ppid);
    }
    found.retain(|process| {
        let other = inode(&process.to_string());
        other.is_some() && other != own
    });
    found
}

/// The interface of an XDP link (`bpf_xdp_link_show_fdinfo`, `net/core/dev.c`);
/// 0 where it is gone, nothing where the kernel does not tell.
pub fn link_ifindex(link: &FdLink) -> Option<u32> {
    // The descriptor is not told, but the kernel shows each one's link.
    let id = link.info().ok()?.id().to_string();
    let field = |text: &str, name: &str| -> Option<String> {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(value.trim().to_owned())
    };
    fs::read_dir("/proc/self/fdinfo")
        .ok()?
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .find(|text| field(text, "link_id:").as_deref() == Some(id.as_str()))
        .and_then(|text| field(&text, "ifindex:")?.parse().ok())
}

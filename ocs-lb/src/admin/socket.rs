//! The socket in the file system: made with its mode, never taken from a
//! process that still answers, removed at the end.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// A busy owner may take this long to accept before the path counts as taken.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process serves it.
    #[error(
        "admin.socket: {0} is served by another process; stop that one, or give this one another path"
    )]
    Taken(PathBuf),
    /// The path is something else, which is left alone.
    #[error("admin.socket: {0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("admin.socket: {path}: {source}")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A runtime socket; its path is removed when it is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: a successor's socket on the same path is not ours.
    identity: (u64, u64),
}

impl Socket {
    /// Listens on `path` with the file mode `mode`. The directory is made if it
    /// is missing, a socket on which nobody answers is replaced.
    ///
    /// # Errors
    /// When the path is in use or cannot be made.
    pub async fn bind(path: &Path, mode: u32) -> Result<Self, BindError> {
        let io = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(BindError::NotASocket(path.to_owned()));
            }
            Ok(_) if is_served(path).await => return Err(BindError::Taken(path.to_owned())),
            Ok(_) => {}
        }
        // Made under another name and moved into place, so that the path never
        // has another mode, and a stale socket goes in the same step.
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}", std::process::id()));
        let draft = PathBuf::from(draft);
        let _ = fs::remove_file(&draft);
        let listener = UnixListener::bind(&draft).map_err(io)?;
        let placed = fs::set_permissions(&draft, Permissions::from_mode(mode))
            .and_then(|()| fs::symlink_metadata(&draft))
            .and_then(|meta| fs::rename(&draft, path).map(|()| (meta.dev(), meta.ino())));
        match placed {
            Ok(identity) => Ok(Self {
                listener,
                path: path.to_owned(),
                identity,
            }),
            Err(error) => {
                let _ = fs::remove_file(&draft);
                Err(io(error))
            }
        }
    }

    /// The next client.
    ///
    /// # Errors
    /// As accept(2); most pass by themselves.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether somebody answers. Only a clear refusal says no: a full queue, or a
/// socket that we may not open, has an owner.
async fn is_served(path: &Path) -> bool {
    match timeout(PROBE_LIMIT, UnixStream::connect(path)).await {
        Ok(Err(error)) => !matches!(
            error.kind(),
            ErrorKind::ConnectionRefused | ErrorKind::NotFound
        ),
        Ok(Ok(_)) | Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::server::tests::Scratch;

    #[tokio::test]
    async fn has_its_mode_and_goes_with_its_owner() {
        let scratch = Scratch::new("mode");
        let path = scratch.path().join("made/admin.sock");
        let socket = Socket::bind(&path, 0o640).await.unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn replaces_only_what_nobody_serves() {
        let scratch = Scratch::new("stale");
        let path = scratch.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Socket::bind(&path, 0o600).await.unwrap();
        let error = Socket::bind(&path, 0o600).await.unwrap_err();
        assert!(matches!(error, BindError::Taken(_)), "{error}");
        assert!(UnixStream::connect(&path).await.is_ok());

        // A successor took the path over: it is no longer the first one's to remove.
        fs::remove_file(&path).unwrap();
        let second = Socket::bind(&path, 0o600).await.unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn leaves_other_files_alone() {
        let scratch = Scratch::new("file");
        let path = scratch.path().join("admin.sock");
        fs::write(&path, "mine").unwrap();
        let error = Socket::bind(&path, 0o600).await.unwrap_err();
        assert!(matches!(error, BindError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}

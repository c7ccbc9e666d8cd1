//! The other end of the runtime socket, for the command line: blocking, and
//! line by line, so that a large answer is never held.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::answer::Failure;
use super::change::Change;
use super::request::Request;

/// Longer than the server lets its source be silent, so that it can say so.
const READ_LIMIT: Duration = Duration::from_secs(70);
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Why there is no answer, or no more of it. The texts are for people, and say
/// what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing is there.
    #[error(
        "{0}: there is no such socket: start the controller (`ocs-lb run`), or name its socket with --socket or OCS_LB_SOCKET"
    )]
    Absent(PathBuf),
    /// A controller that is gone left it.
    #[error("{0}: nobody answers: the controller has stopped; start it with `ocs-lb run`")]
    Stale(PathBuf),
    /// Not allowed.
    #[error("{0}: permission denied: run this as root, or as the socket's user or group")]
    Denied(PathBuf),
    /// Anything else.
    #[error("{path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The controller's own words.
    #[error("{path}: the controller says: {reason}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The stream ended before the answer.
    #[error("{0}: the controller closed the connection without an answer")]
    Empty(PathBuf),
}

impl ClientError {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::NotFound => Self::Absent(path),
            ErrorKind::ConnectionRefused => Self::Stale(path),
            ErrorKind::PermissionDenied => Self::Denied(path),
            _ => Self::Io { path, source },
        }
    }
}

/// The lines of an answer, without their newlines; ends at the first error.
#[derive(Debug)]
pub struct Answer {
    path: PathBuf,
    reader: BufReader<UnixStream>,
    ended: bool,
}

/// Sends `request` to the controller behind `socket`.
///
/// # Errors
/// When there is no controller, or it may not be asked.
pub fn ask(socket: &Path, request: &Request) -> Result<Answer, ClientError> {
    send(socket, request.to_line())
}

/// Sends `change` to the controller behind `socket`.
///
/// # Errors
/// As [`ask`].
pub fn change(socket: &Path, change: &Change) -> Result<Answer, ClientError> {
    send(socket, change.to_line())
}

fn send(socket: &Path, line: serde_json::Result<String>) -> Result<Answer, ClientError> {
    let failed = |source| ClientError::io(socket, source);
    let line = line.map_err(io::Error::from).map_err(failed)?;
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(READ_LIMIT)).map_err(failed)?;
    stream
        .set_write_timeout(Some(WRITE_LIMIT))
        .map_err(failed)?;
    // A controller that turns us away closes before it reads: its reason comes
    // with the answer, so a broken pipe here is not the news.
    match stream.write_all(line.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(failed(error)),
        _ => {}
    }
    let _ = stream.shutdown(Shutdown::Write);
    Ok(Answer {
        path: socket.to_owned(),
        reader: BufReader::new(stream),
        ended: false,
    })
}

impl Answer {
    /// The first line, for answers that are one object.
    ///
    /// # Errors
    /// When there is none.
    pub fn only(&mut self) -> Result<String, ClientError> {
        self.next()
            .unwrap_or_else(|| Err(ClientError::Empty(self.path.clone())))
    }

    /// A line that is not what was asked for.
    pub fn unreadable(&self, error: serde_json::Error) -> ClientError {
        ClientError::Io {
            path: self.path.clone(),
            source: error.into(),
        }
    }

    fn read(&mut self) -> Option<Result<String, ClientError>> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => {
                let text = match error.kind() {
                    ErrorKind::WouldBlock => "the controller does not answer".to_owned(),
                    _ => error.to_string(),
                };
                let source = io::Error::new(error.kind(), text);
                let path = self.path.clone();
                return Some(Err(ClientError::Io { path, source }));
            }
        }
        line.truncate(line.trim_end().len());
        // No view begins with this key.
        if line.starts_with("{\"error\"")
            && let Ok(failure) = serde_json::from_str::<Failure>(&line)
        {
            let reason = failure.error;
            let path = self.path.clone();
            return Some(Err(ClientError::Refused { path, reason }));
        }
        Some(Ok(line))
    }
}

impl Iterator for Answer {
    type Item = Result<String, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let line = self.read();
        self.ended = !matches!(line, Some(Ok(_)));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::server::tests::{Memory, Running, Scratch};
    use crate::admin::{Filter, Show};

    fn request(show: Show) -> Request {
        Request::new(show, Filter::default()).unwrap()
    }

    #[test]
    fn errors_name_the_socket_and_the_remedy() {
        let scratch = Scratch::new("client");
        let path = scratch.path().join("admin.sock");
        let text = ask(&path, &request(Show::Drops)).unwrap_err().to_string();
        assert!(
            text.contains("admin.sock") && text.contains("ocs-lb run"),
            "{text}"
        );
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let text = ask(&path, &request(Show::Drops)).unwrap_err().to_string();
        assert!(text.contains("has stopped"), "{text}");
    }

    #[tokio::test]
    async fn reads_lines_and_refusals() {
        let server = Running::start(Memory {
            flows: 3,
            gone: false,
        })
        .await;
        let path = server.path.clone();
        let lines = tokio::task::spawn_blocking(move || {
            let flows = ask(&path, &request(Show::Flows)).unwrap();
            flows.collect::<Result<Vec<_>, _>>().unwrap()
        });
        assert_eq!(lines.await.unwrap().len(), 3);
        server.stop().await;

        let server = Running::start(Memory {
            flows: 0,
            gone: true,
        })
        .await;
        let path = server.path.clone();
        let refused = tokio::task::spawn_blocking(move || {
            ask(&path, &request(Show::Snat))
                .unwrap()
                .only()
                .unwrap_err()
        });
        let text = refused.await.unwrap().to_string();
        assert!(text.ends_with("the controller says: starting"), "{text}");
        server.stop().await;
    }
}

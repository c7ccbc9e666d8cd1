//! `ocs-lb status`: whether new clients are served, for people and for the
//! `track_script` of keepalived.

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{EXIT_DONE, EXIT_FAILED};
use crate::admin::answer::Status;
use crate::admin::client::{self, ClientError};
use crate::admin::{Filter, Request, Show};
use crate::datapath::pins;

/// Pause between two tries: a controller that starts is not there yet.
const PAUSE: Duration = Duration::from_millis(100);

/// How it is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusCommand {
    /// The controller's runtime socket.
    pub socket: PathBuf,
    /// Whether only this cluster counts.
    pub cluster: Option<String>,
    /// Whether the exit code is the whole answer.
    pub quiet: bool,
    /// Whether the answer is printed as JSON.
    pub json: bool,
    /// How long a controller that does not answer is waited for.
    pub timeout: Duration,
}

/// Asks; the exit code. A controller that does not answer in time is not ready:
/// nobody looks after the backends' health then.
pub fn status(command: &StatusCommand) -> u8 {
    let answer = patient(command.timeout, || ask(command));
    let wanted = answer.and_then(|mut status| {
        if let Some(cluster) = &command.cluster {
            let readiness = status.readiness.only(cluster);
            status.readiness = readiness.map_err(|error| error.to_string())?;
        }
        Ok(status)
    });
    match wanted {
        Ok(status) => {
            match (command.quiet, command.json) {
                (true, _) => {}
                (_, true) => match serde_json::to_string(&status) {
                    Ok(line) => println!("{line}"),
                    Err(error) => eprintln!("ocs-lb: {error}"),
                },
                _ => println!("{}", words(&status)),
            }
            if status.readiness.ready {
                EXIT_DONE
            } else {
                EXIT_FAILED
            }
        }
        Err(reason) => {
            if !command.quiet {
                eprintln!("ocs-lb: {reason}");
                if matches!(pins::forwards(), Ok(true)) {
                    eprintln!("ocs-lb: the datapath forwards on without it");
                }
            }
            EXIT_FAILED
        }
    }
}

/// What a try came to.
enum Try {
    Answer(Box<Status>),
    /// Another one may have more luck.
    Again(String),
    /// None will.
    Never(String),
}

/// Tries until there is an answer, for as long as `limit`. A try that hangs is
/// left behind: it ends with the process.
fn patient(
    limit: Duration,
    mut ask: impl FnMut() -> mpsc::Receiver<Try>,
) -> Result<Status, String> {
    let end = Instant::now() + limit;
    let mut last = format!("no answer within {}", humantime::format_duration(limit));
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match ask().recv_timeout(left) {
            Ok(Try::Answer(status)) => return Ok(*status),
            Ok(Try::Never(reason)) => return Err(reason),
            Ok(Try::Again(reason)) => last = reason,
            Err(_) => return Err(last),
        }
        if Instant::now() + PAUSE >= end {
            return Err(last);
        }
        thread::sleep(PAUSE);
    }
}

/// One try, on a thread of its own.
fn ask(command: &StatusCommand) -> mpsc::Receiver<Try> {
    let (sender, receiver) = mpsc::channel();
    let socket = command.socket.clone();
    thread::spawn(move || {
        let request = Request {
            show: Show::Status,
            filter: Filter::default(),
        };
        let answer = client::ask(&socket, &request).and_then(|mut answer| {
            let line = answer.only()?;
            serde_json::from_str(&line).map_err(|error| answer.unreadable(error))
        });
        let tried = match answer {
            Ok(status) => Try::Answer(Box::new(status)),
            Err(error @ ClientError::Denied(_)) => Try::Never(error.to_string()),
            Err(error) => Try::Again(error.to_string()),
        };
        // Whoever asked may have gone.
        let _ = sender.send(tried);
    });
    receiver
}

/// The answer for people.
fn words(status: &Status) -> String {
    let readiness = &status.readiness;
    let mut lines = vec![
        if readiness.ready {
            "ready"
        } else {
            "not ready"
        }
        .to_owned(),
    ];
    let attached: Vec<String> = status
        .interfaces
        .iter()
        .map(|one| format!("{} ({})", one.name, one.mode))
        .collect();
    if !attached.is_empty() {
        lines.push(format!("attached to {}", attached.join(", ")));
    }
    lines.extend(readiness.problems.iter().cloned());
    for cluster in &readiness.clusters {
        let serves = format!(
            "{} of {} backends take new clients",
            cluster.ready_backends, cluster.backends
        );
        let state = match cluster.reason.as_deref() {
            Some(reason) => format!("not ready: {reason}"),
            None => serves,
        };
        lines.push(format!("cluster {}: {state}", cluster.name));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::answer::InterfaceStatus;
    use crate::readiness::{ClusterReadiness, Readiness};

    fn sent(tries: Vec<Try>) -> impl FnMut() -> mpsc::Receiver<Try> {
        let mut tries = tries.into_iter();
        move || {
            let (sender, receiver) = mpsc::channel();
            match tries.next() {
                Some(tried) => sender.send(tried).expect("someone listens"),
                // One that hangs.
                None => std::mem::forget(sender),
            }
            receiver
        }
    }

    fn answer() -> Try {
        Try::Answer(Box::default())
    }

    #[test]
    fn a_controller_that_restarts_is_waited_for() {
        let absent = || Try::Again("absent".into());
        let limit = Duration::from_secs(5);
        assert!(patient(limit, sent(vec![absent(), absent(), answer()])).is_ok());
        let start = Instant::now();
        let limit = Duration::from_millis(150);
        let never = || Try::Never("denied".into());
        assert_eq!(
            patient(limit, sent(vec![never(), answer()])).unwrap_err(),
            "denied"
        );
        assert_eq!(
            patient(limit, sent(vec![absent()])).unwrap_err(),
            "absent",
            "the second hangs"
        );
        assert_eq!(
            patient(limit, sent(vec![])).unwrap_err(),
            "no answer within 150ms"
        );
        assert!(start.elapsed() < Duration::from_secs(2));
        assert!(patient(Duration::ZERO, sent(vec![absent()])).is_err());
    }

    #[test]
    fn people_read_why() {
        let cluster = |name: &str, ready: usize, reason: Option<&str>| ClusterReadiness {
            name: name.into(),
            ready: reason.is_none(),
            ready_backends: ready,
            backends: 3,
            reason: reason.map(str::to_owned),
            ..ClusterReadiness::default()
        };
        let status = Status {
            interfaces: vec![InterfaceStatus {
                name: "eth0".into(),
                mode: "tc".into(),
                reason: String::new(),
            }],
            readiness: Readiness {
                ready: false,
                problems: vec!["interface eth1: its program is gone".into()],
                clusters: vec![
                    cluster("ocs", 2, None),
                    cluster("lync", 0, Some("no ready backend")),
                ],
            },
        };
        assert_eq!(
            words(&status),
            "not ready\n\
             attached to eth0 (tc)\n\
             interface eth1: its program is gone\n\
             cluster ocs: 2 of 3 backends take new clients\n\
             cluster lync: not ready: no ready backend"
        );
    }
}

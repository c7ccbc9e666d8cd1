//! Commands that change something: ask first where flows end by them, then ask
//! the controller.

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};

use serde::de::DeserializeOwned;

use super::{ChangeCommand, EXIT_DONE, EXIT_FAILED, EXIT_USAGE};
use crate::admin::Change;
use crate::admin::answer::{BackendSet, Cleared, ClusterSet, Reloaded};
use crate::admin::client::{self, Answer, ClientError};
use crate::datapath::pins;
use crate::snapshot::KilledView;

/// Has the controller do it and prints what came of it; the exit code.
pub fn change(command: &ChangeCommand) -> u8 {
    let sure = command.yes || !command.change.asks();
    if let Err(code) = confirmed(&command.change, sure) {
        return code;
    }
    match done(command) {
        Ok(text) => {
            println!("{text}");
            EXIT_DONE
        }
        Err(error) => {
            eprintln!("ocs-lb: {error}");
            EXIT_FAILED
        }
    }
}

/// `ocs-lb detach`; the exit code.
pub fn detach(yes: bool) -> u8 {
    let what = "end the datapath and cut off every flow";
    if let Err(code) = confirmed(&what, yes) {
        return code;
    }
    match pins::detach() {
        Ok(ended) if ended.is_empty() => {
            println!("nothing was attached");
            EXIT_DONE
        }
        Ok(ended) => {
            for directory in ended {
                println!("removed {}", directory.display());
            }
            EXIT_DONE
        }
        Err(error) => {
            eprintln!("ocs-lb: {error}");
            EXIT_FAILED
        }
    }
}

/// Asks where nobody has said yes before.
///
/// # Errors
/// The exit code, where nobody says it now.
fn confirmed(what: &impl Display, yes: bool) -> Result<(), u8> {
    let stdin = io::stdin();
    if yes {
        return Ok(());
    }
    if !stdin.is_terminal() {
        eprintln!("ocs-lb: without a terminal to ask on, this needs --yes");
        return Err(EXIT_USAGE);
    }
    if !confirm(what, &mut stdin.lock(), &mut io::stderr()) {
        eprintln!("ocs-lb: nothing was done");
        return Err(EXIT_FAILED);
    }
    Ok(())
}

/// Whether whoever sits there says yes. Silence is no.
fn confirm(change: &impl Display, answers: &mut impl BufRead, questions: &mut impl Write) -> bool {
    let mut line = String::new();
    let asked = write!(questions, "This will {change}. Go on? [y/N] ");
    let read = asked
        .and_then(|()| questions.flush())
        .and_then(|()| answers.read_line(&mut line));
    read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes" | "Yes" | "YES")
}

/// The answer, for people or as JSON.
fn done(command: &ChangeCommand) -> Result<String, ClientError> {
    let mut answer = client::change(&command.socket, &command.change)?;
    let line = answer.only()?;
    if command.json {
        return Ok(line);
    }
    match command.change {
        Change::ClearSticky { .. } => {
            let Cleared { cleared } = object(&line, &answer)?;
            Ok(format!("sticky entries forgotten: {cleared}"))
        }
        Change::Reload => {
            let Reloaded { changes } = object(&line, &answer)?;
            Ok(reloaded(&changes))
        }
        Change::SetBackendState { .. } | Change::SetBackendWeight { .. } => {
            let BackendSet {
                cluster,
                backend,
                set,
            } = object(&line, &answer)?;
            Ok(format!("backend {cluster}/{backend} is set to {set}"))
        }
        Change::SetCluster { .. } => {
            let ClusterSet { cluster, state } = object(&line, &answer)?;
            Ok(format!("cluster {cluster} is set to {state}"))
        }
        Change::ResetBackend { .. } | Change::ResetClient { .. } => {
            Ok(killed(&object(&line, &answer)?))
        }
    }
}

fn reloaded(changes: &[String]) -> String {
    if changes.is_empty() {
        return "nothing changed".to_owned();
    }
    changes.join("\n")
}

fn killed(view: &KilledView) -> String {
    if !view.done {
        return "it takes longer than half a minute and goes on; the controller's log will have the sum"
            .to_owned();
    }
    let told = match view.untold {
        0 => String::new(),
        untold => format!("; {untold} of them are told when they send"),
    };
    format!("flows reset: {}{told}", view.killed)
}

fn object<T: DeserializeOwned>(line: &str, answer: &Answer) -> Result<T, ClientError> {
    serde_json::from_str(line).map_err(|error| answer.unreadable(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::server::tests::{Memory, Running};
    use crate::model::ClusterState;

    fn client() -> Change {
        Change::ResetClient {
            client: [203, 0, 113, 5].into(),
        }
    }

    #[test]
    fn only_yes_is_yes() {
        for (typed, expected) in [
            ("y\n", true),
            ("YES\n", true),
            ("\n", false),
            ("", false),
            ("n\n", false),
            ("yesterday\n", false),
        ] {
            let mut questions = Vec::new();
            let confirmed = confirm(&client(), &mut typed.as_bytes(), &mut questions);
            assert_eq!(confirmed, expected, "{typed:?}");
            assert_eq!(
                String::from_utf8(questions).unwrap(),
                "This will reset every flow of client 203.0.113.5. Go on? [y/N] "
            );
        }
    }

    #[test]
    fn sums() {
        let mut view = KilledView {
            killed: 7,
            untold: 0,
            done: true,
        };
        assert_eq!(killed(&view), "flows reset: 7");
        view.untold = 2;
        assert_eq!(
            killed(&view),
            "flows reset: 7; 2 of them are told when they send"
        );
        view.done = false;
        assert!(killed(&view).contains("goes on"));
    }

    #[tokio::test]
    async fn prints_what_came_of_it() {
        let server = Running::start(Memory {
            flows: 0,
            gone: false,
        })
        .await;
        let sticky = Change::ClearSticky {
            cluster: "ocs".into(),
            client: None,
            backend: None,
        };
        let backend = Change::ResetBackend {
            cluster: "ocs".into(),
            backend: "b".into(),
        };
        let set = |cluster: &str| Change::SetCluster {
            cluster: cluster.into(),
            state: ClusterState::Pass,
        };
        for (change, json, expected) in [
            (client(), false, Ok("flows reset: 3")),
            (Change::Reload, false, Ok("cluster ocs: backend c added")),
            (
                Change::Reload,
                true,
                Ok(r#"{"changes":["cluster ocs: backend c added"]}"#),
            ),
            (client(), true, Ok(r#"{"killed":3,"untold":0,"done":true}"#)),
            (sticky.clone(), false, Ok("sticky entries forgotten: 12")),
            (sticky, true, Ok(r#"{"cleared":12}"#)),
            (backend, false, Err("the controller says: no b")),
            (set("ocs"), false, Ok("cluster ocs is set to pass")),
            (set("ocs"), true, Ok(r#"{"cluster":"ocs","state":"pass"}"#)),
            (set("sfb"), false, Err("the controller says: no sfb")),
        ] {
            let command = ChangeCommand {
                socket: server.path.clone(),
                change,
                yes: true,
                json,
            };
            let printed = tokio::task::spawn_blocking(move || done(&command));
            match (printed.await.unwrap(), expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().ends_with(expected), "{error}");
                }
                (printed, _) => panic!("{printed:?}, not {expected:?}"),
            }
        }
        server.stop().await;
    }
}

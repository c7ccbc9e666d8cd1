//! What can be typed, and what it means.

use super::*;
use crate::model::{BackendState, ClusterState};

fn parsed(line: &str) -> Result<Command, clap::Error> {
    try_parse(line.split(' '))
}

#[test]
fn definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn run_and_check_have_defaults() {
    assert_eq!(
        parsed("ocs-lb run").unwrap(),
        Command::Run {
            config: DEFAULT_CONFIG.into(),
            detach_on_exit: false,
            take_over: false,
            state: DEFAULT_STATE.into(),
        }
    );
    assert_eq!(
        parsed("ocs-lb run --config x.yaml --detach-on-exit").unwrap(),
        Command::Run {
            config: "x.yaml".into(),
            detach_on_exit: true,
            take_over: false,
            state: DEFAULT_STATE.into(),
        }
    );
    assert_eq!(
        parsed("ocs-lb check --json").unwrap(),
        Command::Check {
            config: DEFAULT_CONFIG.into(),
            json: true
        }
    );
}

#[test]
fn show_carries_its_filters() {
    let line = "ocs-lb show flows --json --cluster ocs --client 203.0.113.5 --vip 192.0.2.1:443 \
        --snat 198.51.100.1 --state half-open --older-than 30m --socket /tmp/s"
        .replace("            ", "");
    let Command::Show(command) = parsed(&line).unwrap() else {
        panic!("{line}");
    };
    assert!(command.json);
    assert_eq!(command.socket, PathBuf::from("/tmp/s"));
    let filter = command.request.filter;
    assert_eq!(filter.older_than_secs, Some(1800.0));
    assert_eq!(filter.vip.unwrap().port, Some(443));
    assert_eq!(filter.used().len(), 6);
}

#[test]
fn changes() {
    let change = |line: &str| match parsed(line).unwrap() {
        Command::Change(command) => command,
        other => panic!("{other:?}"),
    };
    let backend = change("ocs-lb reset backend ocs/OCS_Node1");
    let wanted = Change::ResetBackend {
        cluster: "ocs".into(),
        backend: "OCS_Node1".into(),
    };
    assert_eq!((backend.change, backend.yes), (wanted, false));
    let client = change("ocs-lb reset client 203.0.113.5 --yes --json --socket /tmp/s");
    assert_eq!(client.socket, PathBuf::from("/tmp/s"));
    assert!(client.yes && client.json);
    let sticky = change("ocs-lb clear sticky ocs --client 203.0.113.5 --backend b");
    let wanted = Change::ClearSticky {
        cluster: "ocs".into(),
        client: Some([203, 0, 113, 5].into()),
        backend: Some("b".into()),
    };
    assert_eq!(sticky.change, wanted);
    let set = change("ocs-lb set cluster ocs state maint --yes");
    let wanted = Change::SetCluster {
        cluster: "ocs".into(),
        state: ClusterState::Maint,
    };
    assert_eq!((set.change, set.yes), (wanted, true));
}

#[test]
fn words_on_a_backend() {
    let change = |line: &str| match parsed(line).unwrap() {
        Command::Change(command) => command.change,
        other => panic!("{other:?}"),
    };
    let (cluster, backend) = ("ocs".to_owned(), "b".to_owned());
    for (word, state) in [
        ("ready", Some(BackendState::Ready)),
        ("drain", Some(BackendState::Drain)),
        ("maint", Some(BackendState::Maint)),
        ("default", None),
    ] {
        let wanted = Change::SetBackendState {
            cluster: cluster.clone(),
            backend: backend.clone(),
            state,
        };
        assert_eq!(
            change(&format!("ocs-lb set backend ocs/b state {word}")),
            wanted
        );
        assert!(!wanted.asks());
    }
    for (word, weight) in [("0", Some(0)), ("256", Some(256)), ("default", None)] {
        let wanted = Change::SetBackendWeight {
            cluster: cluster.clone(),
            backend: backend.clone(),
            weight,
        };
        assert_eq!(
            change(&format!("ocs-lb set backend ocs/b weight {word}")),
            wanted
        );
    }
    for (line, allowed) in [
        ("set backend ocs/b state up", "ready, drain, maint, default"),
        ("set backend ocs/b weight 257", "0 to 256, default"),
        ("set backend ocs/b weight -1", "unexpected argument"),
        ("set backend b state drain", "CLUSTER/NAME"),
    ] {
        let error = parsed(&format!("ocs-lb {line}")).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(EXIT_USAGE), "{line}");
        assert!(error.to_string().contains(allowed), "{line}: {error}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for line in [
        "ocs-lb",
        "ocs-lb frobnicate",
        "ocs-lb show",
        "ocs-lb show threads",
        "ocs-lb show events --older-than 3s",
        "ocs-lb reset",
        "ocs-lb reset backend",
        "ocs-lb reset backend OCS_Node1",
        "ocs-lb reset backend ocs/",
        "ocs-lb reset client host",
        "ocs-lb clear sticky",
        "ocs-lb clear sticky ocs --client 203.0.113.5:1",
        "ocs-lb set cluster ocs",
        "ocs-lb set cluster ocs state",
        "ocs-lb set cluster ocs state up",
        "ocs-lb set cluster ocs weight 1",
        "ocs-lb show drops --cluster ocs",
        "ocs-lb show sticky --older-than 3s",
        "ocs-lb show flows --older-than soon",
        "ocs-lb show flows --client host",
        "ocs-lb run --json",
    ] {
        let error = parsed(line).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(EXIT_USAGE), "{line}: {error}");
    }
    for line in ["ocs-lb --version", "ocs-lb --help", "ocs-lb show --help"] {
        assert_eq!(
            parsed(line).unwrap_err().exit_code(),
            i32::from(EXIT_DONE),
            "{line}"
        );
    }
}

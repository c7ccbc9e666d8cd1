//! The server over a real socket, with a source that answers from memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use super::*;
use crate::model::ClusterState;
use crate::snapshot::{
    BackendView, ClusterView, EventView, FlowView, InterfaceView, KilledView, Snapshot, SnatView,
    StickyView,
};

/// A directory of this test's own.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let own = format!("ocs-lb-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(own);
        fs::create_dir_all(&path).expect("it is there");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Two clusters; `flows` flows, alternately of each; or nothing at all.
pub(crate) struct Memory {
    pub(crate) flows: u16,
    pub(crate) gone: bool,
}

pub(crate) fn flow(number: u16) -> FlowView {
    FlowView {
        cluster: if number.is_multiple_of(2) {
            "ocs"
        } else {
            "lync"
        }
        .into(),
        client: [203, 0, 113, 5].into(),
        client_port: number,
        vip: [192, 0, 2, 1].into(),
        vip_port: 443,
        snat: [198, 51, 100, 1].into(),
        snat_port: number,
        backend: "OCS_Node1".into(),
        backend_address: [198, 51, 100, 10].into(),
        backend_port: 443,
        state: "established".into(),
        idle: 1.5,
        bytes_in: 1,
        bytes_out: 2048,
        packets_in: 3,
        packets_out: 4,
    }
}

pub(crate) fn snapshot() -> Snapshot {
    let cluster = |name: &str| ClusterView {
        name: name.into(),
        backends: vec![BackendView {
            name: "OCS_Node1".into(),
            address: "198.51.100.10".into(),
            state: "up".into(),
            ready: true,
            ..BackendView::default()
        }],
        ..ClusterView::default()
    };
    let destination = |name: &str| SnatView {
        cluster: name.into(),
        address: "198.51.100.1".into(),
        backend: "OCS_Node1".into(),
        port: 443,
        used: 5,
        resting: 2,
        failures: 0,
        limit: 1000,
    };
    Snapshot {
        interfaces: vec![InterfaceView {
            name: "eth0".into(),
            mode: "native".into(),
            reason: "as configured".into(),
            dropped: [("limit".to_owned(), 4)].into(),
            ..InterfaceView::default()
        }],
        clusters: vec![cluster("ocs"), cluster("lync")],
        snat: vec![destination("ocs"), destination("lync")],
        ..Snapshot::default()
    }
}

impl Memory {
    fn answer<T: Send + 'static>(
        &self,
        views: impl Iterator<Item = T> + Send + 'static,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<T>, Unavailable>> {
        let gone = self.gone;
        Box::pin(async move {
            if gone {
                return Err(Unavailable("starting".into()));
            }
            let (sender, receiver) = mpsc::channel(4);
            tokio::spawn(async move {
                for view in views {
                    if sender.send(view).await.is_err() {
                        return;
                    }
                }
            });
            Ok(receiver)
        })
    }
}

impl Source for Memory {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, Unavailable>> {
        let answer = if self.gone {
            Err(Unavailable("starting".into()))
        } else {
            Ok(snapshot())
        };
        Box::pin(async move { answer })
    }

    fn flows(&self, _: Filter) -> BoxFuture<'_, Result<mpsc::Receiver<FlowView>, Unavailable>> {
        self.answer((0..self.flows).map(flow))
    }

    fn sticky(&self, _: Filter) -> BoxFuture<'_, Result<mpsc::Receiver<StickyView>, Unavailable>> {
        self.answer(["ocs", "lync"].into_iter().map(|cluster| StickyView {
            cluster: cluster.into(),
            client: [203, 0, 113, 5].into(),
            backend: "OCS_Node1".into(),
            expires_in: 1799.5,
        }))
    }

    fn events(&self) -> BoxFuture<'_, Result<Vec<EventView>, Unavailable>> {
        let event = |cluster: &str| EventView {
            at: 1_700_000_000.25,
            kind: "redispatch".into(),
            reason: Some("silent".into()),
            cluster: Some(cluster.into()),
            client: Some([203, 0, 113, 5].into()),
            client_port: 50000,
            vip: Some([192, 0, 2, 1].into()),
            vip_port: 443,
            backend: Some("OCS_Node2".into()),
            before: Some("OCS_Node1".into()),
            ..EventView::default()
        };
        Box::pin(async move { Ok(vec![event("ocs"), event("lync")]) })
    }

    fn reset(&self, wanted: Reset) -> BoxFuture<'_, Result<KilledView, Unavailable>> {
        let answer = match wanted {
            Reset::Backend { backend, .. } => Err(Unavailable(format!("no {backend}"))),
            Reset::Client { .. } => Ok(KilledView {
                killed: 3,
                untold: 0,
                done: true,
            }),
        };
        Box::pin(async move { answer })
    }

    fn reload(&self) -> BoxFuture<'_, Result<Vec<String>, Unavailable>> {
        let answer = if self.gone {
            Err(Unavailable(
                "config.yaml:3: ports: `http` is no port".into(),
            ))
        } else {
            Ok(vec!["cluster ocs: backend c added".to_owned()])
        };
        Box::pin(async move { answer })
    }

    fn clear(&self, wanted: Clear) -> BoxFuture<'_, Result<u64, Unavailable>> {
        let cleared = if wanted.client.is_some() { 1 } else { 12 };
        Box::pin(async move { Ok(cleared) })
    }

    fn set_backend(
        &self,
        name: BackendName,
        _: BackendSetting,
        _: String,
    ) -> BoxFuture<'_, Result<(), Unavailable>> {
        let known = name.to_string() == "ocs/OCS_Node1";
        Box::pin(async move {
            match known {
                true => Ok(()),
                false => Err(Unavailable(format!("no {name}"))),
            }
        })
    }

    fn set_cluster(
        &self,
        cluster: String,
        _: ClusterState,
        _: String,
    ) -> BoxFuture<'_, Result<(), Unavailable>> {
        let known = ["ocs", "lync"].contains(&&*cluster);
        Box::pin(async move {
            match known {
                true => Ok(()),
                false => Err(Unavailable(format!("no {cluster}"))),
            }
        })
    }
}

/// A server on a socket of its own.
pub(crate) struct Running {
    pub(crate) path: PathBuf,
    cancel: CancellationToken,
    task: JoinHandle<()>,
    _scratch: Scratch,
}

impl Running {
    pub(crate) async fn start(source: Memory) -> Self {
        let scratch = Scratch::new("server");
        let path = scratch.path().join("admin.sock");
        let socket = Socket::bind(&path, 0o600).await.expect("it is there");
        let cancel = CancellationToken::new();
        let task = tokio::spawn(serve(socket, Arc::new(source), cancel.clone()));
        Self {
            path,
            cancel,
            task,
            _scratch: scratch,
        }
    }

    async fn ask(&self, line: &str) -> Vec<serde_json::Value> {
        let mut stream = UnixStream::connect(&self.path).await.expect("it is there");
        stream
            .write_all(line.as_bytes())
            .await
            .expect("it is there");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("it is there");
        answer
            .lines()
            .map(|line| serde_json::from_str(line).expect("it is there"))
            .collect()
    }

    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.task.await.expect("it is there");
        assert!(!self.path.exists());
    }
}

const PRESENT: Memory = Memory {
    flows: 1000,
    gone: false,
};

#[tokio::test]
async fn answers_every_kind() {
    let server = Running::start(PRESENT).await;
    let backends = server
        .ask("{\"show\":\"backends\",\"cluster\":\"lync\"}\n")
        .await;
    assert_eq!(backends.len(), 1);
    assert_eq!(
        backends[0]["clusters"]
            .as_array()
            .expect("it is there")
            .len(),
        1
    );
    assert_eq!(
        backends[0]["clusters"][0]["backends"][0]["name"],
        "OCS_Node1"
    );

    let flows = server
        .ask("{\"show\":\"flows\",\"cluster\":\"ocs\"}\n")
        .await;
    assert_eq!(flows.len(), 500);
    assert_eq!(flows[3]["client_port"], 6);

    let sticky = server.ask("{\"show\":\"sticky\"}\n").await;
    assert_eq!(sticky.len(), 2);

    let drops = server.ask("{\"show\":\"drops\"}\n").await;
    assert_eq!(drops[0]["interfaces"][0]["dropped"]["limit"], 4);

    let snat = server
        .ask("{\"show\":\"snat\",\"cluster\":\"ocs\"}\n")
        .await;
    assert_eq!(snat[0]["snat"].as_array().expect("it is there").len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn does_what_it_is_asked() {
    let server = Running::start(PRESENT).await;
    for (line, expected) in [
        (
            r#"{"change":"reset-client","client":"203.0.113.5"}"#,
            serde_json::json!({"killed": 3, "untold": 0, "done": true}),
        ),
        (
            r#"{"change":"reset-backend","cluster":"ocs","backend":"b"}"#,
            serde_json::json!({"error": "no b"}),
        ),
        (
            r#"{"change":"clear-sticky","cluster":"ocs","client":"203.0.113.5"}"#,
            serde_json::json!({"cleared": 1}),
        ),
        (
            r#"{"change":"clear-sticky","cluster":"ocs"}"#,
            serde_json::json!({"cleared": 12}),
        ),
        (
            r#"{"change":"set-cluster","cluster":"ocs","state":"pass"}"#,
            serde_json::json!({"cluster": "ocs", "state": "pass"}),
        ),
        (
            r#"{"change":"set-cluster","cluster":"sfb","state":"drain"}"#,
            serde_json::json!({"error": "no sfb"}),
        ),
    ] {
        let answer = server.ask(&format!("{line}\n")).await;
        assert_eq!(answer, [expected], "{line}");
    }
    let events = server
        .ask("{\"show\":\"events\",\"cluster\":\"lync\"}\n")
        .await;
    assert_eq!(
        events[0]["events"].as_array().expect("it is there").len(),
        1
    );
    server.stop().await;
}

#[tokio::test]
async fn says_what_it_cannot_do() {
    let server = Running::start(Memory {
        flows: 0,
        gone: true,
    })
    .await;
    let long = format!("{{\"show\":\"{}\"}}\n", "x".repeat(LINE_MAX));
    for (line, expected) in [
        ("help\n", "a request is one JSON object"),
        ("{\"show\":\"flow\"}\n", "cannot show `flow`"),
        ("{\"show\":\"flows\"}\n", "starting"),
        ("{\"show\":\"backends\"}\n", "starting"),
    ] {
        let answer = server.ask(line).await;
        let error = answer[0]["error"].as_str().expect("it is there");
        assert!(error.starts_with(expected), "{line}: {error}");
    }
    // The rest of such a line is not read, so its sender may see a broken pipe.
    let mut stream = UnixStream::connect(&server.path)
        .await
        .expect("it is there");
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).expect("it is there");
    assert!(answer.contains("too long"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn the_seventeenth_client_is_turned_away() {
    let server = Running::start(PRESENT).await;
    let mut held = Vec::new();
    for _ in 0..CLIENTS_MAX {
        held.push(
            UnixStream::connect(&server.path)
                .await
                .expect("it is there"),
        );
    }
    // Through the client, because its request may meet a closed socket.
    let ask = async || {
        let path = server.path.clone();
        let request = Request::new(Show::Drops, Filter::default()).expect("it is there");
        let asked = move || crate::admin::client::ask(&path, &request)?.only();
        tokio::task::spawn_blocking(asked)
            .await
            .expect("it is there")
    };
    let refused = ask().await.unwrap_err().to_string();
    assert!(refused.contains("16 clients"), "{refused}");
    held.pop();
    // The slot is free as soon as the server has seen the close.
    for _ in 0..100 {
        if ask().await.is_ok() {
            return server.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the slot was not given back");
}

#[tokio::test]
async fn silent_clients_are_let_go() {
    let (ours, theirs) = UnixStream::pair().expect("it is there");
    let idle = Duration::from_millis(20);
    client(ours, &PRESENT, idle).await.expect("it is there");
    let mut answer = String::new();
    BufReader::new(theirs)
        .read_line(&mut answer)
        .await
        .expect("it is there");
    assert_eq!(answer, "{\"error\":\"no request came\"}\n");
}

#[tokio::test]
async fn clients_that_do_not_read_are_let_go() {
    let (ours, mut theirs) = UnixStream::pair().expect("it is there");
    theirs
        .write_all(b"{\"show\":\"flows\"}\n")
        .await
        .expect("it is there");
    let many = Memory {
        flows: u16::MAX,
        gone: false,
    };
    let error = client(ours, &many, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(theirs);
}

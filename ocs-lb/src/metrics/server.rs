//! The HTTP side of the metrics: `/metrics`, `/healthz`, `/readyz`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::exposition::CONTENT_TYPE;
use super::{Process, render};
use crate::readiness::Readiness;
use crate::snapshot::{Snapshot, Unavailable};

/// Where the pages get their snapshot.
pub type SnapshotFn =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Snapshot, Unavailable>> + Send + Sync>;

/// How long a request may wait for a snapshot; below Prometheus' default
/// timeout of 10 s, so that the answer says why.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(5);
/// How long open requests may take at shutdown.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// The address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("metrics.listen: cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address of the configuration.
    pub address: SocketAddr,
    /// What the kernel said.
    pub source: io::Error,
}

/// Listens on `address`.
///
/// # Errors
/// When the address is in use, not of this host, or not allowed.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listening = TcpListener::bind(address).await;
    listening.map_err(|source| BindError { address, source })
}

/// Serves the pages until `cancel`; open requests then have a second.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    source: SnapshotFn,
    cancel: CancellationToken,
) -> io::Result<()> {
    let pages = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(source);
    let drained = {
        let cancel = cancel.clone();
        async move {
            cancel.cancelled().await;
            tokio::time::sleep(DRAIN_LIMIT).await;
        }
    };
    let server = axum::serve(listener, pages).with_graceful_shutdown(cancel.cancelled_owned());
    tokio::select! {
        ended = async { server.await } => ended,
        () = drained => Ok(()),
    }
}

async fn look(source: &SnapshotFn) -> Result<Snapshot, String> {
    match timeout(SNAPSHOT_LIMIT, source()).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("the datapath's owner does not answer".to_owned()),
    }
}

async fn metrics(State(source): State<SnapshotFn>) -> Response {
    match look(&source).await {
        Ok(snapshot) => {
            let text = render(&snapshot, &Process::read());
            ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
        }
        Err(reason) => unavailable(&reason),
    }
}

/// Whether the controller lives: its owner answers and the datapath is attached.
async fn healthz(State(source): State<SnapshotFn>) -> Response {
    match look(&source).await.map(|snapshot| Readiness::of(&snapshot)) {
        Ok(Readiness { problems, .. }) if problems.is_empty() => "ok\n".into_response(),
        Ok(Readiness { problems, .. }) => unavailable(&problems.join("\n")),
        Err(reason) => unavailable(&reason),
    }
}

/// Whether new clients are served, of every cluster or of `?cluster=NAME`.
async fn readyz(
    State(source): State<SnapshotFn>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    // A filter that is ignored would say ready of another cluster.
    if let Some(other) = query.keys().find(|key| *key != "cluster") {
        let text = format!("there is no `{other}` to filter by; allowed: cluster\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let all = match look(&source).await {
        Ok(snapshot) => Readiness::of(&snapshot),
        Err(reason) => return unavailable(&reason),
    };
    let wanted = match query.get("cluster") {
        Some(cluster) => all.only(cluster),
        None => Ok(all),
    };
    match wanted {
        Ok(readiness) if readiness.ready => "ready\n".into_response(),
        Ok(readiness) => unavailable(&readiness.reasons().join("\n")),
        Err(error) => (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
    }
}

fn unavailable(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::snapshot::{BackendView, ClusterView, InterfaceView};

    fn snapshot(attached: bool, ready: bool) -> Snapshot {
        let backend = BackendView {
            ready,
            ..BackendView::default()
        };
        let cluster = ClusterView {
            name: "ocs".into(),
            backends: vec![BackendView::default(), backend],
            ..ClusterView::default()
        };
        Snapshot {
            interfaces: vec![InterfaceView::default(); usize::from(attached)],
            clusters: vec![cluster],
            ..Snapshot::default()
        }
    }

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn answers(source: Result<Snapshot, Unavailable>, paths: &[&str]) -> Vec<String> {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let source: SnapshotFn = Arc::new(move || {
            let answer = source.clone();
            Box::pin(async move { answer })
        });
        let server = tokio::spawn(serve(listener, source, cancel.clone()));
        let mut answers = Vec::new();
        for path in paths {
            answers.push(fetch(address, path).await);
        }
        // A client that never ends its request does not hold the shutdown up.
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
        cancel.cancel();
        timeout(DRAIN_LIMIT * 5, server)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        answers
    }

    #[tokio::test]
    async fn serves_its_pages() {
        let paths = ["/metrics", "/healthz", "/readyz", "/"];
        let got = answers(Ok(snapshot(true, true)), &paths).await;
        assert!(
            got[0].starts_with("HTTP/1.1 200") && got[0].contains(CONTENT_TYPE),
            "{}",
            got[0]
        );
        assert!(got[0].contains("\nocs_lb_build_info{"), "{}", got[0]);
        assert!(got[1].starts_with("HTTP/1.1 200"), "{}", got[1]);
        assert!(got[2].starts_with("HTTP/1.1 200"), "{}", got[2]);
        assert!(got[3].starts_with("HTTP/1.1 404"), "{}", got[3]);
    }

    #[tokio::test]
    async fn says_why_it_is_not_ready() {
        let paths = ["/metrics", "/healthz", "/readyz"];
        let got = answers(Err(Unavailable("starting".into())), &paths).await;
        assert!(got[0].starts_with("HTTP/1.1 503") && got[0].ends_with("starting\n"));
        assert!(got[1].starts_with("HTTP/1.1 503") && got[1].ends_with("starting\n"));
        assert!(got[2].starts_with("HTTP/1.1 503") && got[2].ends_with("starting\n"));
    }

    #[tokio::test]
    async fn readiness_is_more_than_health() {
        let paths = ["/healthz", "/readyz"];
        let got = answers(Ok(snapshot(false, true)), &paths).await;
        for answer in got {
            let reason = "the datapath is attached to no interface\n";
            let said = answer.starts_with("HTTP/1.1 503") && answer.ends_with(reason);
            assert!(said, "{answer}");
        }
        let got = answers(Ok(snapshot(true, false)), &paths).await;
        assert!(got[0].starts_with("HTTP/1.1 200"), "{}", got[0]);
        let said = got[1].ends_with("\ncluster ocs: no ready backend\n");
        assert!(got[1].starts_with("HTTP/1.1 503") && said, "{}", got[1]);
    }

    #[tokio::test]
    async fn one_cluster_may_be_asked_for() {
        let mut both = snapshot(true, true);
        both.clusters.push(ClusterView {
            name: "l&s".into(),
            ..ClusterView::default()
        });
        let paths = [
            "/readyz",
            "/readyz?cluster=ocs",
            "/readyz?cluster=l%26s",
            "/readyz?cluster=other",
            "/readyz?clutser=ocs",
        ];
        let got = answers(Ok(both), &paths).await;
        let statuses: Vec<_> = got.iter().map(|text| &text[9..12]).collect();
        assert_eq!(statuses, ["503", "200", "503", "404", "400"]);
        assert!(
            got[3].ends_with("there is no cluster other\n"),
            "{}",
            got[3]
        );
    }

    #[tokio::test]
    async fn bind_errors_name_key_address_and_cause() {
        let taken = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = taken.local_addr().unwrap();
        let text = bind(address).await.unwrap_err().to_string();
        let expected = format!("metrics.listen: cannot listen on {address}: Address");
        assert!(text.starts_with(&expected), "{text}");
    }
}

//! The HTTP side of the metrics: `/metrics`, `/healthz`, `/readyz`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::exposition::CONTENT_TYPE;
use super::{Process, render};
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
        .route("/healthz", get(async || "ok\n"))
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

async fn readyz(State(source): State<SnapshotFn>) -> Response {
    let verdict = look(&source)
        .await
        .and_then(|snapshot| readiness(&snapshot));
    match verdict {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => unavailable(&reason),
    }
}

fn unavailable(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}

/// Whether new clients are served: the datapath is attached and every cluster
/// has a ready backend. The error is the reason, for people.
pub fn readiness(snapshot: &Snapshot) -> Result<(), String> {
    if snapshot.interfaces.is_empty() {
        return Err("the datapath is attached to no interface".to_owned());
    }
    let without: Vec<&str> = snapshot
        .clusters
        .iter()
        .filter(|cluster| !cluster.removed && !cluster.backends.iter().any(|b| b.ready))
        .map(|cluster| cluster.name.as_str())
        .collect();
    if without.is_empty() {
        Ok(())
    } else {
        Err(format!("no ready backend: {}", without.join(", ")))
    }
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

    #[test]
    fn a_removed_cluster_does_not_count() {
        let mut snapshot = snapshot(true, false);
        assert!(readiness(&snapshot).is_err());
        snapshot.clusters[0].removed = true;
        assert_eq!(readiness(&snapshot), Ok(()));
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
        assert!(got[1].starts_with("HTTP/1.1 200"));
        assert!(got[2].starts_with("HTTP/1.1 503") && got[2].ends_with("starting\n"));
    }

    #[test]
    fn readiness_needs_both() {
        assert_eq!(readiness(&snapshot(true, true)), Ok(()));
        assert_eq!(
            readiness(&snapshot(false, true)),
            Err("the datapath is attached to no interface".into())
        );
        assert_eq!(
            readiness(&snapshot(true, false)),
            Err("no ready backend: ocs".into())
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

//! An HTTP request and the status of its answer (RFC 9112), by hyper.

use std::error::Error as _;
use std::net::SocketAddr;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::model::HttpRequest;

/// Longest head of an answer, in bytes.
const LONGEST: usize = 64 * 1024;

/// The request to a server.
///
/// # Errors
/// Where method, path or host are none, in words.
pub fn request(asked: &HttpRequest, server: SocketAddr) -> Result<Request<Empty<Bytes>>, String> {
    let own_port = if asked.tls.is_some() { 443 } else { 80 };
    let host = match &asked.host {
        Some(host) => host.clone(),
        // RFC 9110 section 7.2: the port only where it is not the scheme's.
        None if server.port() == own_port => match server {
            SocketAddr::V4(server) => server.ip().to_string(),
            SocketAddr::V6(server) => format!("[{}]", server.ip()),
        },
        None => server.to_string(),
    };
    Request::builder()
        .method(asked.method.as_str())
        .uri(asked.path.as_str())
        .header(HOST, host)
        .header(USER_AGENT, "ocs-lb")
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| error.to_string())
}

/// Sends a request and waits for the head of its answer; the body is not read.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
) -> Result<StatusCode, String> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LONGEST)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| words(&error))?;
    let (mut answer, mut connection) = (
        std::pin::pin!(sender.send_request(request)),
        std::pin::pin!(connection),
    );
    let answered = tokio::select! {
        biased;
        answered = &mut answer => answered,
        // It ends before the answer came, and tells the answer why.
        _ = &mut connection => answer.await,
    };
    answered
        .map(|response| response.status())
        .map_err(|error| words(&error))
}

fn words(error: &hyper::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

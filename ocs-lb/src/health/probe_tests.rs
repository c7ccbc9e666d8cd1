//! Checks of servers that behave, and of those that do not.

use std::net::Ipv4Addr;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::model::{Anchors, Statuses, test_check};

/// The limit of every check here.
const LIMIT: Duration = Duration::from_millis(400);

/// A loopback address of this process' own.
fn localhost() -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 78, high, low).into()
}

/// A server that does `work` with its first connection.
async fn server<F>(
    work: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, JoinHandle<()>)
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind((localhost(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        work(stream).await;
    });
    (address, task)
}

async fn check(kind: CheckKind, server: SocketAddr) -> CheckResult {
    let check = Check {
        kind,
        port: server.port(),
        timeout: LIMIT,
        ..test_check()
    };
    let ports = Arc::new(SourcePorts::new((20500, 20999)));
    let mut clients = TlsClients::default();
    let probe = Probe::new(
        server.ip(),
        &check,
        (Some(localhost()), ports),
        &mut clients,
    );
    probe.run().await
}

/// A server that reads and then writes `answer`.
async fn answering(kind: CheckKind, answer: &'static [u8]) -> CheckResult {
    let (address, task) = server(move |mut stream| async move {
        let mut bytes = [0; 4096];
        let _ = stream.read(&mut bytes).await;
        let _ = stream.write_all(answer).await;
        let _ = stream.read(&mut bytes).await;
    })
    .await;
    let result = check(kind, address).await;
    task.abort();
    result
}

/// A server that never says a word.
async fn silent(kind: CheckKind) -> CheckResult {
    let (address, task) = server(|stream| async move {
        tokio::time::sleep(LIMIT * 10).await;
        drop(stream);
    })
    .await;
    let result = check(kind, address).await;
    task.abort();
    result
}

fn sip() -> CheckKind {
    CheckKind::SipOptions(SipOptions {
        tls: None,
        from: None,
        to: None,
        expect: Statuses(vec![(200, 499), (600, 699)]),
    })
}

fn http(tls: Option<Tls>) -> CheckKind {
    CheckKind::Http(HttpRequest {
        tls,
        method: "GET".into(),
        path: "/healthy".into(),
        host: None,
        expect: Statuses(vec![(200, 399)]),
    })
}

fn tls(verify: Option<Anchors>, sni: Option<&str>) -> CheckKind {
    CheckKind::Tls(Tls {
        sni: sni.map(str::to_owned),
        verify,
    })
}

/// A server's certificate for `name`, and those who trust it.
fn certificate(name: &str) -> (TlsAcceptor, Anchors) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let anchors = Anchors {
        file: None,
        certificates: Arc::new(vec![cert.der().to_vec()]),
    };
    (TlsAcceptor::from(Arc::new(config)), anchors)
}

/// A server that shakes hands and then answers.
async fn tls_server(acceptor: TlsAcceptor, answer: &'static [u8]) -> SocketAddr {
    let (address, _) = server(move |stream| async move {
        let Ok(mut stream) = acceptor.accept(stream).await else {
            return;
        };
        let mut bytes = [0; 4096];
        let _ = stream.read(&mut bytes).await;
        let _ = stream.write_all(answer).await;
        let _ = stream.flush().await;
        let _ = stream.read(&mut bytes).await;
    })
    .await;
    address
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp() {
    let met = silent(CheckKind::Tcp).await;
    assert_eq!(met, CheckResult::Ok(Layer::Connect, None));
    let gone = TcpListener::bind((localhost(), 0)).await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    for kind in [CheckKind::Tcp, tls(None, None), sip(), http(None)] {
        assert_eq!(check(kind, address).await, CheckResult::Refused);
    }
}

#[tokio::test]
async fn silence_ends_in_time_at_its_layer() {
    for (kind, layer) in [
        (tls(None, None), Layer::Tls),
        (sip(), Layer::Answer),
        (http(None), Layer::Answer),
        (http(Some(Tls::default())), Layer::Tls),
    ] {
        let start = std::time::Instant::now();
        assert_eq!(silent(kind).await, CheckResult::Timeout(layer));
        assert!(start.elapsed() < LIMIT * 3, "{:?}", start.elapsed());
    }
}

/// One byte at a time is not faster than the limit.
#[tokio::test]
async fn a_slow_drip_does_not_stretch_the_limit() {
    for kind in [sip(), http(None)] {
        let (address, task) = server(|mut stream| async move {
            for byte in b"SIP/2.0 200 OK\r\n".iter().cycle() {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(LIMIT / 8).await;
            }
        })
        .await;
        let met = check(kind.clone(), address).await;
        task.abort();
        match kind {
            // Not even the first byte of HTTP is right.
            CheckKind::Http(_) => assert_eq!(met.code(), "L7RSP", "{met}"),
            _ => assert_eq!(met, CheckResult::Timeout(Layer::Answer)),
        }
    }
}

#[tokio::test]
async fn statuses_decide() {
    let met = answering(http(None), b"HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(met, CheckResult::Ok(Layer::Answer, Some(204)));
    let met = answering(
        http(None),
        b"HTTP/1.0 503 Busy\r\nContent-Length: 9\r\n\r\n",
    )
    .await;
    assert_eq!(met, CheckResult::Status(503, "Service Unavailable".into()));
    assert_eq!(met.to_string(), "L7STS 503 Service Unavailable");
    for (answer, wanted) in [
        (
            &b"SIP/2.0 200 OK\r\n\r\n"[..],
            CheckResult::Ok(Layer::Answer, Some(200)),
        ),
        (
            b"SIP/2.0 405 Method Not Allowed\r\n\r\n",
            CheckResult::Ok(Layer::Answer, Some(405)),
        ),
        (
            b"SIP/2.0 503 Stopped\r\n\r\n",
            CheckResult::Status(503, "Stopped".into()),
        ),
    ] {
        assert_eq!(answering(sip(), answer).await, wanted);
    }
}

#[tokio::test]
async fn what_is_no_answer() {
    for (kind, answer) in [
        (sip(), &b""[..]),
        (sip(), b"HTTP/1.1 200 OK\r\n\r\n"),
        (sip(), b"\x15\x03\x01\x00\x02\x02\x28"),
        (http(None), b"SIP/2.0 200 OK\r\n\r\n"),
        (http(None), b"garbage\r\n\r\n"),
    ] {
        let (address, _) = server(move |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer).await;
        })
        .await;
        let met = check(kind, address).await;
        assert_eq!(met.code(), "L7RSP", "{met}");
    }
}

#[tokio::test]
async fn a_huge_answer_is_not_read() {
    for (kind, line) in [
        (sip(), &b"SIP/2.0 200 OK\r\n"[..]),
        (http(None), b"HTTP/1.1 200 OK\r\n"),
    ] {
        let (address, task) = server(move |mut stream| async move {
            let _ = stream.write_all(line).await;
            let filler =
                b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(100);
            while stream.write_all(&filler).await.is_ok() {}
        })
        .await;
        let met = check(kind, address).await;
        task.abort();
        assert_eq!(met.code(), "L7RSP", "{met}");
    }
}

#[tokio::test]
async fn handshakes() {
    let (acceptor, _) = certificate("pool.example.com");
    let address = tls_server(acceptor, b"").await;
    let met = check(tls(None, None), address).await;
    assert_eq!(
        met,
        CheckResult::Ok(Layer::Tls, None),
        "any certificate does"
    );

    let (acceptor, anchors) = certificate("pool.example.com");
    let address = tls_server(acceptor.clone(), b"").await;
    let met = check(
        tls(Some(anchors.clone()), Some("pool.example.com")),
        address,
    )
    .await;
    assert_eq!(
        met,
        CheckResult::Ok(Layer::Tls, None),
        "the one that is trusted"
    );

    let address = tls_server(acceptor, b"").await;
    let met = check(tls(Some(anchors), Some("other.example.com")), address).await;
    assert_eq!(met.code(), "L6RSP", "of another name: {met}");

    let (acceptor, _) = certificate("pool.example.com");
    let (_, others) = certificate("pool.example.com");
    let address = tls_server(acceptor, b"").await;
    let met = check(tls(Some(others), Some("pool.example.com")), address).await;
    assert_eq!(met.code(), "L6RSP", "of another authority: {met}");
}

#[tokio::test]
async fn failed_handshakes() {
    // A fatal alert: handshake_failure (RFC 8446 section 6).
    let met = answering(tls(None, None), b"\x15\x03\x03\x00\x02\x02\x28").await;
    assert_eq!(met.code(), "L6RSP");
    assert!(met.to_string().contains("type: tcp"), "the remedy: {met}");
    let met = answering(tls(None, None), b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert_eq!(met.code(), "L6RSP", "{met}");
    let (address, _) = server(|stream| async move { drop(stream) }).await;
    let met = check(tls(None, None), address).await;
    assert_eq!(met.code(), "L6RSP", "closed at once: {met}");
}

#[tokio::test]
async fn requests_over_tls() {
    let (acceptor, anchors) = certificate("pool.example.com");
    let address = tls_server(acceptor, b"HTTP/1.1 200 OK\r\n\r\n").await;
    let trusted = Tls {
        sni: Some("pool.example.com".into()),
        verify: Some(anchors),
    };
    let met = check(http(Some(trusted)), address).await;
    assert_eq!(met, CheckResult::Ok(Layer::Answer, Some(200)));
    let (acceptor, _) = certificate("pool.example.com");
    let address = tls_server(acceptor, b"SIP/2.0 503 Stopped\r\n\r\n").await;
    let CheckKind::SipOptions(plain) = sip() else {
        unreachable!("of that kind");
    };
    let kind = CheckKind::SipOptions(SipOptions {
        tls: Some(Tls::default()),
        ..plain
    });
    assert_eq!(
        check(kind, address).await,
        CheckResult::Status(503, "Stopped".into())
    );
}

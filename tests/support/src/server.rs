//! Servers that say who they are.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::netns::Namespace;

/// What a server sends when the client has sent all: a late answer, to prove
/// that half-closed connections live.
pub const BYE: &[u8] = b"bye\n";

/// Peers of the open connections, by local port.
type Peers = Arc<Mutex<BTreeMap<u16, Vec<SocketAddr>>>>;

/// A server on several ports.
///
/// To each client it sends `NAME PEER LOCALPORT\n` at once, then echoes until
/// the client has sent all, then sends [`BYE`] and closes.
pub struct Server {
    name: String,
    peers: Peers,
    stop: Option<watch::Sender<bool>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Server {
    /// Starts one; it listens when this returns.
    ///
    /// # Errors
    /// Where a port is taken.
    pub fn start(
        namespace: &Namespace,
        name: &str,
        address: Ipv4Addr,
        ports: &[u16],
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (ready, is_ready) = oneshot::channel();
        let peers = Peers::default();
        let (task_peers, task_name, ports) = (Arc::clone(&peers), name.to_owned(), ports.to_vec());
        let thread = namespace.spawn(move || async move {
            let listeners = ports
                .iter()
                .map(|port| listen(address, *port))
                .collect::<anyhow::Result<Vec<_>>>()?;
            // Nobody waits any more where the start was given up.
            let _ = ready.send(());
            let mut tasks = JoinSet::new();
            for listener in listeners {
                tasks.spawn(accept(listener, task_name.clone(), Arc::clone(&task_peers)));
            }
            let mut stopped = stopped;
            // An error means that the server was dropped: stop as well.
            let _ = stopped.wait_for(|stop| *stop).await;
            Ok(())
        });
        let mut server = Self {
            name: name.to_owned(),
            peers,
            stop: Some(stop),
            thread: Some(thread),
        };
        if is_ready.blocking_recv().is_err() {
            server.stop().with_context(|| server.name.clone())?;
        }
        Ok(server)
    }

    /// Stops it, as the end of its process would: listeners and connections
    /// are closed.
    ///
    /// # Errors
    /// What ended it before.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(true);
        }
        self.peers().clear();
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who is connected to a port now.
    pub fn connected(&self, port: u16) -> Vec<SocketAddr> {
        self.peers().get(&port).cloned().unwrap_or_default()
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Vec<SocketAddr>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its result has been looked at, or nobody cares any more.
        let _ = self.stop();
    }
}

fn listen(address: Ipv4Addr, port: u16) -> anyhow::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket
        .bind((address, port).into())
        .with_context(|| format!("{address}:{port}"))?;
    Ok(socket.listen(4096)?)
}

async fn accept(listener: TcpListener, name: String, peers: Peers) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A failed accept concerns a client that is gone.
                if let Ok((stream, peer)) = accepted {
                    sessions.spawn(session(stream, peer, name.clone(), Arc::clone(&peers)));
                }
            }
            Some(_) = sessions.join_next() => {}
        }
    }
}

async fn session(mut stream: TcpStream, peer: SocketAddr, name: String, peers: Peers) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let lock = || peers.lock().unwrap_or_else(PoisonError::into_inner);
    lock().entry(local.port()).or_default().push(peer);
    // The client sees every failure itself.
    let _ = talk(&mut stream, &format!("{name} {peer} {}\n", local.port())).await;
    if let Some(open) = lock().get_mut(&local.port()) {
        open.retain(|other| *other != peer);
    }
}

async fn talk(stream: &mut TcpStream, greeting: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(greeting.as_bytes()).await?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            break;
        }
        stream.write_all(&buffer[..len]).await?;
    }
    stream.write_all(BYE).await?;
    stream.shutdown().await
}

//! A way from this host into a namespace, for whoever wants to look.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::netns::Namespace;

/// Hands every connection to a listener of this host on to an address inside
/// a namespace, until the process ends. Returns where it listens: at `wanted`,
/// or on another port of the same address where that is taken.
///
/// # Errors
/// Where it cannot listen at all.
pub fn relay(
    namespace: &Namespace,
    wanted: SocketAddr,
    inside: SocketAddr,
) -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(wanted)
        .or_else(|_| std::net::TcpListener::bind((wanted.ip(), 0)))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (sender, mut accepted) = mpsc::channel::<std::net::TcpStream>(16);
    std::thread::spawn(move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                sender.send(stream.into_std()?).await?;
            }
        })
    });
    namespace.spawn(move || async move {
        while let Some(stream) = accepted.recv().await {
            tokio::spawn(async move {
                // Either side may hang up whenever it likes.
                if let (Ok(mut outer), Ok(mut inner)) = (
                    TcpStream::from_std(stream),
                    TcpStream::connect(inside).await,
                ) {
                    let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                }
            });
        }
        Ok(())
    });
    Ok(address)
}

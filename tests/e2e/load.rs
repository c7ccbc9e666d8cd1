//! The load under which nothing may break: held connections that echo, and
//! new ones at a steady rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ocs_lb_test_support::client::connect;
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::topology::{client, vip};
use tokio::task::JoinSet;

/// Time from one new connection to the next.
const EVERY: Duration = Duration::from_millis(20);
/// Time between two echoes of a held connection.
const PAUSE: Duration = Duration::from_secs(1);

/// What clients met.
#[derive(Debug, Default)]
pub struct Met {
    pub held: usize,
    pub echoes: usize,
    pub opened: usize,
    pub slowest_echo: Duration,
    pub slowest_open: Duration,
    /// Held connections that broke, and new ones that failed.
    pub failed: Vec<String>,
}

/// Clients at work.
pub struct Load {
    over: Arc<AtomicBool>,
    task: JoinHandle<anyhow::Result<Met>>,
}

impl Load {
    /// Opens `held` connections to the port and starts; all are open when this
    /// returns.
    pub fn start(clients: &Namespace, port: u16, held: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let ends = Arc::clone(&over);
        let task = clients.spawn(move || work(vip(port), held, ends, ready));
        is_ready.recv().expect("held connections");
        Self { over, task }
    }

    /// Ends it; what clients met.
    pub fn stop(self) -> Met {
        self.over.store(true, Ordering::Relaxed);
        let met = self.task.join().expect("no panic").expect("clients");
        println!(
            "{} held, {} echoes, slowest {:?}; {} opened, slowest {:?}; failed {:?}",
            met.held, met.echoes, met.slowest_echo, met.opened, met.slowest_open, met.failed
        );
        met
    }
}

async fn work(
    to: SocketAddr,
    held: usize,
    over: Arc<AtomicBool>,
    ready: std::sync::mpsc::Sender<()>,
) -> anyhow::Result<Met> {
    let mut sessions = Vec::new();
    for number in 0..held {
        sessions.push(connect(client(number as u8), 0, to).await?);
    }
    ready.send(())?;
    let mut holding = JoinSet::new();
    for (number, mut session) in sessions.into_iter().enumerate() {
        let over = Arc::clone(&over);
        holding.spawn(async move {
            // Not all at once.
            tokio::time::sleep(PAUSE * number as u32 / held as u32).await;
            let (mut echoes, mut slowest) = (0, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                if let Err(error) = session.echo(b"still there?").await {
                    return (echoes, slowest, Some(format!("held: {error:#}")));
                }
                slowest = slowest.max(start.elapsed());
                echoes += 1;
                tokio::time::sleep(PAUSE).await;
            }
            let closed = session.close().await.err();
            (
                echoes,
                slowest,
                closed.map(|error| format!("at its end: {error:#}")),
            )
        });
    }
    let mut opening = JoinSet::new();
    let mut number = 0u8;
    let mut ticks = tokio::time::interval(EVERY);
    while !over.load(Ordering::Relaxed) {
        ticks.tick().await;
        number = number.wrapping_add(1);
        let source = client(number);
        opening.spawn(async move {
            let start = Instant::now();
            let mut session = connect(source, 0, to).await?;
            let took = start.elapsed();
            session.echo(b"hello").await?;
            session.close().await?;
            anyhow::Ok(took)
        });
    }
    let mut met = Met {
        held,
        ..Met::default()
    };
    while let Some(done) = opening.join_next().await {
        met.opened += 1;
        match done? {
            Ok(took) => met.slowest_open = met.slowest_open.max(took),
            Err(error) => met.failed.push(format!("new: {error:#}")),
        }
    }
    while let Some(done) = holding.join_next().await {
        let (echoes, slowest, failed) = done?;
        met.echoes += echoes;
        met.slowest_echo = met.slowest_echo.max(slowest);
        met.failed.extend(failed);
    }
    Ok(met)
}

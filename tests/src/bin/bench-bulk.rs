//! Bytes a second of one download and of one upload, through the traffic
//! classifier with every offload on, beside plain routing and HAProxy.
//!
//! Each has three namespaces of its own with the same links (client, host in the
//! middle, server), and they take turns, so that what disturbs the machine
//! disturbs all. Client, host and server share its CPUs: a proxy copies every
//! byte there, which a real host would do on CPUs of its own. Fails where ours
//! is below 90 % of routing or below HAProxy.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use ocs_lb_test_support::balancer::Balancer;
use ocs_lb_test_support::link;
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::proc::Process;
use ocs_lb_test_support::topology::{router, wire};
use ocs_lb_tests::repeat::median;

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LB: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const PORT: u16 = 443;

/// Bytes written or read at once.
const CHUNK: usize = 256 * 1024;
/// What a client asks for.
const DOWNLOAD: u8 = b'd';
const UPLOAD: u8 = b'u';

/// What plain routing's throughput is multiplied by at least.
const LEAST: f64 = 0.9;

#[derive(clap::Parser)]
#[command(about = "Bytes a second through tc, plain routing and HAProxy")]
struct Arguments {
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measurements of each figure; the median counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Milliseconds of each.
    #[arg(long, default_value_t = 1000)]
    milliseconds: u64,
    /// The balancer.
    #[arg(long)]
    balancer: PathBuf,
}

/// Client, host and server.
struct Ground {
    client: Namespace,
    host: Namespace,
    server: Namespace,
}

impl Ground {
    fn new() -> Result<Self> {
        let ground = Self {
            client: Namespace::new()?,
            host: Namespace::new()?,
            server: Namespace::new()?,
        };
        let (client, host, server) = (&ground.client, &ground.host, &ground.server);
        wire((client, "eth0", &[CLIENT]), (host, "eth0", &[VIP]))?;
        wire((server, "eth0", &[SERVER]), (host, "eth1", &[LB]))?;
        for (namespace, name) in [
            (client, "eth0"),
            (server, "eth0"),
            (host, "eth0"),
            (host, "eth1"),
        ] {
            namespace.run(|| link::card_like(name))??;
        }
        client.block_on(|| link::default_route(VIP))?;
        server.block_on(|| link::default_route(LB))?;
        server.spawn(|| async { serve() });
        Ok(ground)
    }

    /// Bytes a second from or to `target`.
    fn measure(&self, target: Ipv4Addr, what: u8, time: Duration) -> Result<f64> {
        let measured = self
            .client
            .run(|| measure((target, PORT).into(), what, time))?;
        Ok(measured?)
    }
}

/// Answers every connection with bytes, or swallows them.
fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || -> std::io::Result<()> {
            let (mut what, mut bytes) = ([0], vec![0; CHUNK]);
            stream.read_exact(&mut what)?;
            if what[0] == DOWNLOAD {
                loop {
                    stream.write_all(&bytes)?;
                }
            }
            while stream.read(&mut bytes)? != 0 {}
            Ok(())
        });
    }
    Ok(())
}

fn measure(to: SocketAddr, what: u8, time: Duration) -> std::io::Result<f64> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    let mut bytes = vec![0; CHUNK];
    stream.write_all(&[what])?;
    let mut turn = |bytes: &mut [u8]| {
        if what == DOWNLOAD {
            stream.read(bytes)
        } else {
            stream.write(bytes)
        }
    };
    // The window opens first.
    let begin = Instant::now();
    while begin.elapsed() < time / 5 {
        turn(&mut bytes)?;
    }
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < time {
        done += turn(&mut bytes)?;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

fn haproxy(host: &Namespace, scratch: &Path) -> Result<Process> {
    let path = scratch.join("haproxy.cfg");
    let text = format!(
        "defaults
  mode tcp
  timeout connect 4s
  timeout client 30m
  timeout server 30m
listen ocs
  bind {VIP}:{PORT}
  server one {SERVER}:{PORT}
"
    );
    fs::write(&path, text)?;
    let mut command = host.command("haproxy");
    command.arg("-db").arg("-f").arg(&path);
    let process = Process::start(command).context("HAProxy: `cargo xtask setup --tools`")?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(process)
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scratch = std::env::temp_dir().join(format!("ocs-lb-bulk-{}", std::process::id()));
    fs::create_dir(&scratch)?;
    let result = bench(&arguments, &scratch);
    fs::remove_dir_all(&scratch)?;
    result
}

fn bench(arguments: &Arguments, scratch: &Path) -> Result<()> {
    let routed = Ground::new()?;
    router(&routed.host)?;
    let balanced = Ground::new()?;
    let config = format!(
        "version: 1
interfaces: [{{name: eth0, mode: tc}}, {{name: eth1, mode: tc}}]
clusters:
  - name: bulk
    vips: [{VIP}]
    ports: [{PORT}]
    check: off
    snat: {{addresses: [{LB}]}}
    backends: [{{name: one, address: {SERVER}}}]
"
    );
    let _balancer = Balancer::start(&balanced.host, &arguments.balancer, &config, scratch)?;
    let proxied = Ground::new()?;
    let _haproxy = haproxy(&proxied.host, scratch)?;

    let time = Duration::from_millis(arguments.milliseconds);
    let ways = [
        ("routed", &routed, SERVER),
        ("ocs-lb, tc", &balanced, VIP),
        ("HAProxy", &proxied, VIP),
    ];
    let mut samples = [const { [const { Vec::new() }; 2] }; 3];
    for _ in 0..arguments.rounds {
        for (samples, (name, ground, target)) in samples.iter_mut().zip(ways) {
            for (samples, what) in samples.iter_mut().zip([DOWNLOAD, UPLOAD]) {
                let found = ground.measure(target, what, time);
                samples.push(found.with_context(|| name.to_owned())?);
            }
        }
    }
    let figures = samples.map(|both| both.map(median));
    let share = |way: usize, direction: usize| figures[way][direction] / figures[0][direction];
    println!("              download           upload");
    println!("              GB/s  of routed    GB/s  of routed");
    for (way, (name, _, _)) in ways.iter().enumerate() {
        let [down, up] = figures[way].map(|bytes| bytes / 1e9);
        let (a, b) = (share(way, 0), share(way, 1));
        println!("{name:12}  {down:4.2}  {a:9.2}    {up:4.2}  {b:9.2}");
    }
    if let Some(path) = &arguments.json {
        let rows: serde_json::Map<_, _> = ways
            .iter()
            .zip(figures)
            .map(|((name, _, _), [down, up])| {
                let row = serde_json::json!({"download_bytes_per_second": down, "upload_bytes_per_second": up});
                ((*name).to_owned(), row)
            })
            .collect();
        fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
    }
    for direction in 0..2 {
        ensure!(
            share(1, direction) >= LEAST && share(1, direction) > share(2, direction),
            "too slow: at least {LEAST} of routing and more than HAProxy are wanted"
        );
    }
    Ok(())
}

//! Many short connections whose server closes first: nginx, one SNAT address.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ocs_lb_test_support::link;
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::proc::Process;
use ocs_lb_test_support::tcp;
use ocs_lb_test_support::topology::{LB, SERVERS, Topology, vip};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::peers::has;
use crate::world::{Scratch, World, clients};

/// Connections at once.
const AT_ONCE: usize = 32;
/// What is slow: a retransmission, or a collapse.
const SLOW: Duration = Duration::from_millis(200);
/// A server's address on the plain route.
const PLAIN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// What a churn met.
#[derive(Debug, Default)]
pub struct Churn {
    pub ok: usize,
    pub failed: BTreeMap<String, usize>,
    pub slow: usize,
    pub slowest: Duration,
    pub elapsed: Duration,
}

impl Churn {
    pub fn rate(&self) -> f64 {
        self.ok as f64 / self.elapsed.as_secs_f64()
    }

    /// Share of slow connects.
    pub fn share(&self) -> f64 {
        self.slow as f64 / self.ok.max(1) as f64
    }

    pub fn say(&self, what: &str) {
        println!(
            "{what}: {} connections, {:.0}/s, {} over {SLOW:?}, slowest {:?}, failed {:?}",
            self.ok,
            self.rate(),
            self.slow,
            self.slowest,
            self.failed
        );
    }
}

/// One request; how long the connect took.
async fn request(source: Ipv4Addr, to: SocketAddr) -> anyhow::Result<Duration> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let start = Instant::now();
    let mut stream = socket.connect(to).await?;
    let took = start.elapsed();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: pool\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "another answer");
    Ok(took)
}

/// Requests over all sources, as many as come through, or `rate` a second.
pub fn churn(
    namespace: &Namespace,
    sources: &[Ipv4Addr],
    to: SocketAddr,
    time: Duration,
    rate: Option<f64>,
) -> Churn {
    let churned = namespace.block_on(|| async {
        let mut churn = Churn::default();
        let (start, mut started) = (Instant::now(), 0);
        let mut tasks = JoinSet::new();
        loop {
            let go_on = start.elapsed() < time;
            if !go_on && tasks.is_empty() {
                break;
            }
            let due =
                rate.is_none_or(|rate| f64::from(started) < start.elapsed().as_secs_f64() * rate);
            if go_on && due && tasks.len() < AT_ONCE {
                let source = sources[started as usize % sources.len()];
                tasks.spawn(tokio::time::timeout(tcp::PATIENCE, request(source, to)));
                started += 1;
                continue;
            }
            if tasks.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            match tasks.join_next().await {
                Some(Ok(Ok(Ok(took)))) => {
                    churn.ok += 1;
                    churn.slow += usize::from(took > SLOW);
                    churn.slowest = churn.slowest.max(took);
                }
                Some(Ok(Ok(Err(error)))) => {
                    *churn.failed.entry(format!("{error:#}")).or_default() += 1;
                }
                Some(Ok(Err(_))) => *churn.failed.entry("no end".into()).or_default() += 1,
                Some(Err(panic)) => {
                    *churn.failed.entry(panic.to_string()).or_default() += 1;
                }
                None => {}
            }
        }
        churn.elapsed = start.elapsed();
        Ok(churn)
    });
    churned.expect("namespace")
}

/// nginx on port 8080 of the first two servers' namespaces.
pub fn nginx(topology: &Topology, scratch: &Scratch) -> Vec<Process> {
    let start = |(namespace, (name, _)): (&Namespace, (&str, Ipv4Addr))| {
        let path = scratch.0.join(format!("{name}.conf"));
        let text = format!(
            "daemon off; master_process off; pid {dir}/{name}.pid; error_log stderr;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; multi_accept on; }}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{ listen 8080 backlog=4096; location / {{ return 200 \"{name}\\n\"; }} }}
}}
",
            dir = scratch.0.display()
        );
        std::fs::write(&path, text).expect("a configuration");
        let mut command = namespace.command("nginx");
        command.arg("-c").arg(&path);
        Process::start(command).expect("nginx")
    };
    let servers = topology.servers.iter().zip(SERVERS).take(2);
    let started = servers.map(start).collect();
    std::thread::sleep(Duration::from_millis(500));
    started
}

/// A wire from the clients to the first server, beside the balancer; the
/// clients' addresses there.
pub fn plain_route(topology: &Topology) -> Vec<Ipv4Addr> {
    let sources: Vec<_> = (0..200)
        .map(|n| Ipv4Addr::new(203, 0, 113, 10 + n))
        .collect();
    let far = topology.servers[0].raw_fd();
    topology
        .clients
        .block_on(|| async {
            link::veth("plain", "plain", far).await?;
            link::addresses("plain", sources.clone()).await?;
            link::up("plain").await
        })
        .expect("a wire");
    topology.servers[0]
        .block_on(|| async {
            link::addresses("plain", [PLAIN]).await?;
            link::up("plain").await
        })
        .expect("a wire");
    for namespace in [&topology.clients, &topology.servers[0]] {
        namespace
            .run(|| link::wire_like("plain"))
            .expect("namespace")
            .expect("offloads");
    }
    sources
}

pub fn plain(port: u16) -> SocketAddr {
    (PLAIN, port).into()
}

/// One cluster on port 80, nginx behind; SNAT ports from `ports`.
pub fn http_config(ports: &str) -> String {
    format!(
        "version: 1
clusters:
  - name: ocs
    vips: [192.0.2.1]
    ports: [{{listen: 80, target: 8080}}]
    sticky: off
    slow_start: 0s
    on_backend_down: {{action: keep}}
    check: off
    snat: {{addresses: [198.51.100.1], ports: {ports}}}
    backends:
      - {{name: OCS_Node1, address: 198.51.100.10}}
      - {{name: OCS_Node2, address: 198.51.100.11}}
"
    )
}

/// Churn on the plain route, then through the balancer, for the same time.
pub fn both_ways(time: Duration, ports: &str) {
    if !has("nginx") {
        return;
    }
    let world = World::new(&http_config(ports));
    let scratch = Scratch::new();
    let _servers = nginx(&world.topology, &scratch);
    let sources = plain_route(&world.topology);
    let namespace = &world.topology.clients;
    let direct = churn(namespace, &sources, plain(8080), time / 3, None);
    direct.say("plain");
    let churned = churn(namespace, &clients(), vip(80), time, None);
    churned.say("balanced");
    let reused = world.metric("ocs_lb_snat_ports_reused_total", "");
    println!("ports reused early: {reused}");
    assert!(churned.failed.is_empty(), "{:?}", churned.failed);
    assert!(
        churned.share() <= 0.001,
        "{} of slow connects",
        churned.share()
    );
    assert!(
        churned.share() <= direct.share(),
        "{} slow of {}, {} slow of {} on the plain route",
        churned.slow,
        churned.ok,
        direct.slow,
        direct.ok
    );
    assert!(reused >= 1.0, "no port was reused early");
    assert_eq!(world.metric("ocs_lb_refused_total", ""), 0.0);
}

/// 20 s: five on the plain route, fifteen balanced.
#[test]
#[ignore = "needs root"]
fn short_connections_are_as_fast_as_on_the_plain_route() {
    both_ways(Duration::from_secs(15), "20000-23999");
}

/// 15 s: a program on the balancer has used the range's ports towards the
/// servers, which hold its TIME_WAITs.
#[test]
#[ignore = "needs root"]
fn ports_that_another_program_used_do_not_collapse_it() {
    use std::io::{Read as _, Write as _};

    if !has("nginx") {
        return;
    }
    const USED: u16 = 2000;
    let world = World::new(&http_config("20000-23999"));
    let scratch = Scratch::new();
    let _servers = nginx(&world.topology, &scratch);
    world
        .topology
        .lb
        .run(|| {
            for (_, address) in SERVERS.into_iter().take(2) {
                for port in 20000..20000 + USED {
                    let to = SocketAddr::from((address, 8080));
                    let (mut stream, _) = tcp::connect((LB, port), to).expect("served");
                    stream
                        .write_all(b"GET / HTTP/1.0\r\n\r\n")
                        .expect("written");
                    stream.read_to_end(&mut Vec::new()).expect("an answer");
                }
            }
        })
        .expect("namespace");
    let namespace = &world.topology.clients;
    let time = Duration::from_secs(4);
    let first = churn(namespace, &clients(), vip(80), time, None);
    first.say("on ports just used");
    let then = churn(namespace, &clients(), vip(80), time, None);
    then.say("after that");
    assert!(first.failed.is_empty(), "{:?}", first.failed);
    assert!(then.failed.is_empty(), "{:?}", then.failed);
    assert!(first.slow <= usize::from(2 * USED), "{} slow", first.slow);
    assert!(
        first.slowest < Duration::from_millis(3500),
        "{:?}",
        first.slowest
    );
    assert!(then.share() <= 0.001, "{} slow then", then.slow);
}

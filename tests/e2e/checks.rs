//! Checks that ask more than a connection, of the servers that people run:
//! kamailio over TLS, nginx over HTTPS. About 6 s.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ocs_lb_test_support::balancer::Balancer;
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::proc::Process;
use ocs_lb_test_support::topology::{Arms, SERVERS, Topology};
use serde_json::Value;

use crate::peers::has;
use crate::world::{Scratch, binary};

/// The name that both certificates have.
const NAME: &str = "pool.example.com";

/// Writes a key and a certificate for [`NAME`] that is its own authority.
fn certificate(directory: &Path) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
    fs::write(directory.join("cert.pem"), cert.pem()).expect("written");
    fs::write(directory.join("key.pem"), signing_key.serialize_pem()).expect("written");
}

/// kamailio, whose processes end with its first one only where that is asked.
struct Kamailio(Process);

impl Kamailio {
    fn stop(&mut self) {
        self.0.stop().expect("kamailio ends");
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // It may have ended; a test that fails must not panic twice.
        let _ = self.0.stop();
    }
}

/// kamailio that answers every request with `status`.
fn kamailio(namespace: &Namespace, directory: &Path, status: u16, reason: &str) -> Kamailio {
    let address = SERVERS[0].1;
    let text = format!(
        "#!KAMAILIO
debug=1
log_stderror=yes
fork=yes
children=1
tcp_children=1
disable_sctp=yes
enable_tls=yes
listen=tls:{address}:5061
loadmodule \"tls.so\"
loadmodule \"sl.so\"
modparam(\"tls\", \"private_key\", \"{dir}/key.pem\")
modparam(\"tls\", \"certificate\", \"{dir}/cert.pem\")
modparam(\"tls\", \"tls_method\", \"TLSv1.2+\")
request_route {{
    sl_send_reply(\"{status}\", \"{reason}\");
    exit;
}}
",
        dir = directory.display()
    );
    let path = directory.join("kamailio.cfg");
    fs::write(&path, text).expect("a configuration");
    let mut command = namespace.command("kamailio");
    command.arg("-f").arg(&path).args(["-DD", "-E", "-m", "64"]);
    command.arg("-Y").arg(directory).arg("-w").arg(directory);
    command.stdout(std::process::Stdio::null());
    Kamailio(Process::start(command).expect("kamailio"))
}

/// nginx that answers `/healthy` with `status`.
fn nginx(namespace: &Namespace, directory: &Path, status: u16) -> Process {
    let address = SERVERS[1].1;
    let text = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr;
events {{ }}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{
    listen {address}:443 ssl; server_name {NAME};
    ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;
    location = /healthy {{ return {status} \"so\\n\"; }}
    location / {{ return 404; }}
  }}
}}
",
        dir = directory.display()
    );
    let path = directory.join("nginx.conf");
    fs::write(&path, text).expect("a configuration");
    let mut command = namespace.command("nginx");
    command.arg("-c").arg(&path);
    Process::start(command).expect("nginx")
}

fn config(directory: &Path) -> String {
    format!(
        "version: 1
defaults:
  sticky: off
  slow_start: 0s
  on_backend_down: {{action: keep}}
  vips: [192.0.2.1]
clusters:
  - name: sip
    ports: [5061]
    check: {{type: sip-options, transport: tls, interval: 100ms, timeout: 1s, rise: 2, fall: 2}}
    backends: [{{name: kamailio, address: {}}}]
  - name: web
    ports: [443]
    check:
      {{type: http, tls: true, path: /healthy, host: {NAME}, ca: {}/cert.pem, interval: 100ms,
       timeout: 1s, rise: 2, fall: 2}}
    backends: [{{name: nginx, address: {}}}]
",
        SERVERS[0].1,
        directory.display(),
        SERVERS[1].1
    )
}

/// Waits until the backend of cluster `id` is in `state` and its last check said
/// `last`.
fn wait_for(balancer: &Balancer, id: usize, state: &str, last: &str) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let shown = balancer.show("backends").expect("show backends");
        let backend = &shown["clusters"][id]["backends"][0];
        let text = |key: &str| backend[key].as_str().unwrap_or_default().to_owned();
        if text("state") == state && text("last_check").starts_with(last) {
            return;
        }
        assert!(Instant::now() < end, "not {state} by {last}: {backend}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs root"]
fn real_servers_are_asked_in_their_own_language() {
    if !has("kamailio") || !has("nginx") {
        return;
    }
    let topology = Topology::new(Arms::Two).expect("namespaces");
    let scratch = Scratch::new();
    let directory = scratch.0.as_path();
    certificate(directory);
    let (one, two) = (&topology.servers[0], &topology.servers[1]);
    let mut sip = kamailio(one, directory, 200, "OK");
    let mut web = nginx(two, directory, 200);
    let balancer = Balancer::start(&topology.lb, &binary(), &config(directory), directory)
        .expect("the balancer");
    wait_for(&balancer, 0, "up", "L7OK 200");
    wait_for(&balancer, 1, "up", "L7OK 200");

    // Their processes end.
    sip.stop();
    web.stop().expect("nginx ends");
    wait_for(&balancer, 0, "down", "L4CON");
    wait_for(&balancer, 1, "down", "L4CON");

    // They are there and say that they cannot.
    let mut sip = kamailio(one, directory, 503, "Stopped");
    let mut web = nginx(two, directory, 503);
    wait_for(&balancer, 0, "down", "L7STS 503 Stopped");
    wait_for(&balancer, 1, "down", "L7STS 503 Service Unavailable");
    let metrics = balancer.metrics().expect("metrics");
    let bad = |cluster: &str| {
        let is = |line: &&str| {
            line.starts_with("ocs_lb_health_checks_total{")
                && line.contains(&format!("cluster=\"{cluster}\""))
                && line.contains("result=\"bad_status\"")
        };
        metrics.lines().any(|line| is(&line))
    };
    assert!(bad("sip") && bad("web"), "{metrics}");
    sip.stop();
    web.stop().expect("nginx ends");

    // 404 is a word of a server that lives, in SIP; a page that is not there is
    // none in HTTP.
    let _sip = kamailio(one, directory, 404, "Not Found");
    let mut web = nginx(two, directory, 404);
    wait_for(&balancer, 0, "up", "L7OK 404");
    wait_for(&balancer, 1, "down", "L7STS 404");
    web.stop().expect("nginx ends");
    let mut web = nginx(two, directory, 200);
    wait_for(&balancer, 1, "up", "L7OK 200");

    // A certificate that nobody trusts is no way in.
    web.stop().expect("nginx ends");
    wait_for(&balancer, 1, "down", "L4CON");
    let trusted = fs::read(directory.join("cert.pem")).expect("read");
    certificate(directory);
    let other = fs::read(directory.join("cert.pem")).expect("read");
    assert_ne!(trusted, other);
    let _web = nginx(two, directory, 200);
    wait_for(&balancer, 1, "down", "L6RSP");
    let shown: Value = balancer.show("backends").expect("show backends");
    assert_eq!(shown["clusters"][0]["backends"][0]["state"], "up");
}

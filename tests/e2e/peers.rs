//! Real clients and servers through the balancer. A missing one skips its
//! test with a word; `cargo xtask setup --tools` installs them, and CI fails
//! without.

use std::process::{Command, Stdio};
use std::time::Duration;

use ocs_lb_test_support::balancer::Balancer;
use ocs_lb_test_support::proc::Process;
use ocs_lb_test_support::topology::{Arms, SERVERS, Topology};

use crate::world::{Scratch, binary};

pub fn has(program: &str) -> bool {
    let there = ["/usr/bin", "/usr/sbin"]
        .iter()
        .any(|place| std::path::Path::new(place).join(program).exists());
    if !there {
        println!("SKIPPED: {program} is missing");
    }
    there
}

/// One cluster with this port mapping and this check.
fn config(ports: &str, check: &str) -> String {
    format!(
        "version: 1
clusters:
  - name: ocs
    vips: [192.0.2.1]
    ports: [{ports}]
    sticky: off
    slow_start: 0s
    on_backend_down: {{action: keep}}
    check: {check}
    backends:
      - {{name: OCS_Node1, address: 198.51.100.10}}
      - {{name: OCS_Node2, address: 198.51.100.11}}
"
    )
}

/// nginx behind another port than clients dial, curl in front.
#[test]
#[ignore = "needs root"]
fn curl_to_nginx() {
    if !has("nginx") || !has("curl") {
        return;
    }
    let topology = Topology::new(Arms::Two).expect("namespaces");
    let scratch = Scratch::new();
    let mut servers = Vec::new();
    for (namespace, (name, address)) in topology.servers.iter().zip(SERVERS).take(2) {
        let path = scratch.0.join(format!("{name}.conf"));
        let text = format!(
            "daemon off; master_process off; pid {dir}/{name}.pid; error_log stderr;
events {{ }}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{ listen {address}:8080; location / {{ return 200 \"{name} $remote_addr\\n\"; }} }}
}}
",
            dir = scratch.0.display()
        );
        std::fs::write(&path, text).expect("a configuration");
        let mut command = namespace.command("nginx");
        command.arg("-c").arg(&path);
        servers.push(Process::start(command).expect("nginx"));
    }
    std::thread::sleep(Duration::from_millis(500));
    let config = config(
        "{listen: 80, target: 8080}",
        "{port: 8080, interval: 200ms}",
    );
    let _balancer =
        Balancer::start(&topology.lb, &binary(), &config, &scratch.0).expect("the balancer");
    let mut met = std::collections::BTreeMap::new();
    for _ in 0..20 {
        let output = topology
            .clients
            .command("curl")
            .args(["-sS", "--max-time", "5", "http://192.0.2.1/"])
            .output()
            .expect("curl");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        *met.entry(String::from_utf8_lossy(&output.stdout).into_owned())
            .or_insert(0) += 1;
    }
    let wanted = std::collections::BTreeMap::from([
        ("OCS_Node1 198.51.100.1\n".to_owned(), 10),
        ("OCS_Node2 198.51.100.1\n".to_owned(), 10),
    ]);
    assert_eq!(met, wanted);
}

/// SIP calls over TCP, one connection a call. Unchecked: sipp's server ends a
/// call for every connection that a check opens and resets.
#[test]
#[ignore = "needs root"]
fn sipp_calls() {
    if !has("sipp") {
        return;
    }
    let topology = Topology::new(Arms::Two).expect("namespaces");
    let scratch = Scratch::new();
    let mut servers = Vec::new();
    for (namespace, (_, address)) in topology.servers.iter().zip(SERVERS).take(2) {
        let mut command = namespace.command("sipp");
        command
            .args(["-sn", "uas", "-t", "t1", "-p", "5060", "-nostdin", "-i"])
            .arg(address.to_string())
            .current_dir(&scratch.0)
            .stdout(Stdio::null());
        servers.push(Process::start(command).expect("sipp"));
    }
    std::thread::sleep(Duration::from_millis(500));
    let _balancer = Balancer::start(&topology.lb, &binary(), &config("5060", "off"), &scratch.0)
        .expect("the balancer");
    let output = topology
        .clients
        .command("sipp")
        .args([
            "-sn",
            "uac",
            "-t",
            "tn",
            "-max_socket",
            "300",
            "-i",
            "192.0.2.10",
        ])
        .args([
            "-m", "100", "-r", "50", "-d", "200", "-nostdin", "-timeout", "30s",
        ])
        .arg("192.0.2.1:5060")
        .current_dir(&scratch.0)
        .output()
        .expect("sipp");
    let text = String::from_utf8_lossy(&output.stdout);
    let tail: String = text.lines().rev().take(40).collect::<Vec<_>>().join("\n");
    assert_eq!(
        output.status.code(),
        Some(0),
        "every call succeeds:\n{tail}"
    );
}

/// What promtool thinks of the metrics of a running balancer.
#[test]
#[ignore = "needs root"]
fn promtool_finds_nothing_to_say() {
    use std::io::Write as _;

    if !has("promtool") {
        return;
    }
    let world = crate::world::World::new(&crate::world::config([1, 1], "    check: {port: 5061}"));
    let metrics = world.balancer.metrics().expect("metrics");
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(metrics.as_bytes()).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("promtool");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

//! The balancer as users start it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::client::http_get;
use crate::mode;
use crate::netns::Namespace;
use crate::proc::Process;

/// Where a balancer serves its metrics, inside its namespace.
pub const METRICS: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(
    std::net::Ipv4Addr::LOCALHOST,
    7778,
));

/// A running balancer.
pub struct Balancer {
    /// Its process.
    pub process: Process,
    /// Its runtime socket.
    pub socket: PathBuf,
    /// Its configuration's file.
    pub config: PathBuf,
    /// Whether dropping it ends the datapath too.
    pub detaches: bool,
    binary: PathBuf,
    namespace: Namespace,
}

impl Balancer {
    /// Starts the binary with a configuration, to which its runtime socket in
    /// `scratch` is added; it is ready when this returns.
    ///
    /// # Errors
    /// What did not start, with its log.
    pub fn start(
        namespace: &Namespace,
        binary: &Path,
        config: &str,
        scratch: &Path,
    ) -> anyhow::Result<Self> {
        let mut balancer = Self::launch(namespace, binary, config, scratch)?;
        balancer.wait_ready()?;
        Ok(balancer)
    }

    /// Waits until it forwards and every cluster has a ready backend.
    ///
    /// # Errors
    /// Where it ends or is not ready in time, with its log.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        let inside = self.namespace.clone();
        self.process
            .wait_until(Duration::from_secs(30), |_| is_ready(&inside))
            .context("the balancer")
    }

    /// The same without waiting for it. Its datapath ends with it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn launch(
        namespace: &Namespace,
        binary: &Path,
        config: &str,
        scratch: &Path,
    ) -> anyhow::Result<Self> {
        let arguments = ["--detach-on-exit"];
        Self::launch_with(namespace, binary, config, scratch, &arguments)
    }

    /// The same with arguments of choice.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn launch_with(
        namespace: &Namespace,
        binary: &Path,
        config: &str,
        scratch: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let socket = scratch.join("admin.sock");
        let path = scratch.join("config.yaml");
        let config = namespace.run(|| mode::with_interfaces(config))??;
        write_config(&path, &socket, &config)?;
        let mut command = namespace.command(binary);
        command
            .arg("run")
            .arg("--config")
            .arg(&path)
            .arg("--state-directory")
            .arg(scratch.join("state"))
            .args(arguments);
        Ok(Self {
            process: Process::start(command)?,
            socket,
            config: path,
            detaches: true,
            binary: binary.to_path_buf(),
            namespace: namespace.clone(),
        })
    }

    /// Starts another controller, or another binary's, where the last one has
    /// ended; its datapath outlives it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn relaunch(&mut self, binary: &Path) -> anyhow::Result<()> {
        self.relaunch_as(binary, |_| Ok(()))
    }

    /// The same with a command that is prepared further.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn relaunch_as(
        &mut self,
        binary: &Path,
        prepare: impl FnOnce(&mut Command) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut command = self.namespace.command(binary);
        command.arg("run").arg("--config").arg(&self.config);
        command
            .arg("--state-directory")
            .arg(self.config.with_file_name("state"));
        prepare(&mut command)?;
        self.process = Process::start(command)?;
        binary.clone_into(&mut self.binary);
        Ok(())
    }

    /// Writes another configuration; nothing reads it yet.
    ///
    /// # Errors
    /// The file's, or a mode that is none.
    pub fn configure(&self, config: &str) -> anyhow::Result<()> {
        let config = self.namespace.run(|| mode::with_interfaces(config))??;
        write_config(&self.config, &self.socket, &config)
    }

    /// What `ocs-lb show WHAT --json` prints.
    ///
    /// # Errors
    /// Where the command fails or prints no JSON.
    pub fn show(&self, what: &str) -> anyhow::Result<Value> {
        let output = Command::new(&self.binary)
            .arg("--socket")
            .arg(&self.socket)
            .args(["show", what, "--json"])
            .output()?;
        ensure!(
            output.status.success(),
            "show {what}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).with_context(|| format!("show {what}"))
    }

    /// Runs a client command against it, without a terminal.
    ///
    /// # Errors
    /// Where the binary does not start.
    pub fn client(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        // In its namespace: some commands are about this host, not the socket.
        let output = self
            .namespace
            .command(&self.binary)
            .arg("--socket")
            .arg(&self.socket)
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        Ok(output)
    }

    /// What `/metrics` says.
    ///
    /// # Errors
    /// Where it does not answer with 200.
    pub fn metrics(&self) -> anyhow::Result<String> {
        let (status, body) = self.namespace.block_on(|| http_get(METRICS, "/metrics"))?;
        ensure!(status == 200, "status {status}");
        Ok(body)
    }
}

/// Asks it to end, and ends what it left.
impl Drop for Balancer {
    fn drop(&mut self) {
        // It may be gone, or suspended; the datapath is what must not stay.
        let _ = self.process.signal(Signal::SIGCONT);
        let _ = self.process.stop();
        self.process.kill();
        if self.detaches {
            let _ = self.client(&["detach", "--yes"]);
        }
    }
}

/// The file appears whole, or not at all.
fn write_config(path: &Path, socket: &Path, config: &str) -> anyhow::Result<()> {
    let text = format!("{config}\nadmin:\n  - {{socket: {}}}\n", socket.display());
    let new = path.with_extension("new");
    std::fs::write(&new, text).context("configuration")?;
    std::fs::rename(&new, path).context("configuration")
}

fn is_ready(namespace: &Namespace) -> bool {
    let answer = namespace.block_on(|| http_get(METRICS, "/readyz"));
    answer.is_ok_and(|(status, _)| status == 200)
}

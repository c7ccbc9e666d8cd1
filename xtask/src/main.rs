//! Commands of the workspace: `cargo xtask <command>`.

mod bench;
mod ci;
mod clean;
mod host;
mod lab;
mod matrix;
mod run;
mod setup;
mod soak;
mod test;
mod tools;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What cargo alone cannot do.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what the build needs: the eBPF linker and the rust-src component
    Setup {
        /// Also the real peers that some tests use (nginx, HAProxy, kamailio ...)
        #[arg(long)]
        tools: bool,
    },
    /// Runs the lab; with `-- --config FILE`, the balancer on this host
    Run {
        /// End after the steps, with exit 1 if one did not do what it should
        #[arg(long)]
        once: bool,
        /// Arguments for the balancer on this host
        #[arg(last = true)]
        balancer: Vec<String>,
    },
    /// Runs every test that this machine's tools allow
    Test,
    /// Runs the end-to-end tests in every mode of attaching
    Matrix {
        /// A few of them, in the modes that `test` does not choose by itself
        #[arg(long)]
        smoke: bool,
    },
    /// Runs the long tests
    Soak {
        /// How long each of the longest may take
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// Runs measures
    Bench {
        /// Which; all of them by default
        names: Vec<String>,
        /// Also write the figures as JSON
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Loads every program on older kernels, in a guest
    VmLoad,
    /// What CI runs
    Ci,
    /// Removes what a killed lab left behind
    Clean,
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Setup { tools } => setup::setup(tools),
        Command::Run { once, balancer } if balancer.is_empty() => return lab::lab(once),
        Command::Run { once: _, balancer } => run::run(&balancer),
        Command::Test => test::test(),
        Command::Matrix { smoke } => matrix::matrix(smoke),
        Command::Soak { minutes } => soak::soak(minutes),
        Command::Bench { names, json } => bench::bench(&names, json.as_deref()),
        Command::VmLoad => vm::load(),
        Command::Ci => ci::ci(),
        Command::Clean => clean::clean(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! Entry point of the `ocs-lb` binary.

use std::path::Path;
use std::process::ExitCode;

use ocs_lb::cli::{self, Command, EXIT_DONE, EXIT_FAILED, EXIT_USAGE};
use ocs_lb::config::{self, Loaded};
use ocs_lb::datapath::write::told;
use ocs_lb::model::{LogLevel, bill::bill};
use ocs_lb::{run, setup};

fn main() -> ExitCode {
    let code = match cli::parse() {
        Command::Run {
            config,
            detach_on_exit,
            take_over,
            state,
        } => serve(run::Options {
            config,
            take_over,
            detach_on_exit,
            state,
        }),
        Command::Detach { yes } => cli::detach(yes),
        Command::Check { config, json } => check(&config, json),
        Command::Show(command) => return cli::show(&command),
        Command::Status(command) => cli::status(&command),
        Command::Change(command) => cli::change(&command),
    };
    ExitCode::from(code)
}

fn serve(options: run::Options) -> u8 {
    let Some(loaded) = load(&options.config) else {
        return EXIT_USAGE;
    };
    log(loaded.model.log.level);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run::run(loaded.model, options)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => EXIT_DONE,
        Err(error) => {
            eprintln!("ocs-lb: {}", told(&error));
            EXIT_FAILED
        }
    }
}

fn check(path: &Path, json: bool) -> u8 {
    let Some(loaded) = load(path) else {
        return EXIT_USAGE;
    };
    let ephemeral = match setup::ephemeral_ports() {
        Ok(ports) => ports,
        Err(error) => {
            eprintln!("ocs-lb: {error:#}");
            return EXIT_FAILED;
        }
    };
    let bill = bill(&loaded.model, ephemeral);
    if !json {
        println!("{}", config::render(&loaded, &bill));
        return EXIT_DONE;
    }
    match serde_json::to_string_pretty(&config::CheckReport::new(&loaded, &bill)) {
        Ok(text) => {
            println!("{text}");
            EXIT_DONE
        }
        Err(error) => {
            eprintln!("ocs-lb: {error}");
            EXIT_FAILED
        }
    }
}

/// Reads a configuration; prints every problem where there is one.
fn load(path: &Path) -> Option<Loaded> {
    config::load(path)
        .map_err(|problems| eprintln!("{problems}"))
        .ok()
}

fn log(level: LogLevel) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .init();
}

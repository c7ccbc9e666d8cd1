//! Entry point of the `ocs-lb` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let path = std::env::args().nth(3).unwrap_or_default();
    let model = match ocs_lb::run::load(path.as_ref()) {
        Ok(model) => model,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    match runtime.block_on(ocs_lb::run::run(model)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ocs-lb: {error:#}");
            ExitCode::FAILURE
        }
    }
}

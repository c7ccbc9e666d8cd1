//! The command line: what can be typed, and what `show` prints.

pub mod change;
mod set;
pub mod show;
pub mod status;
mod table;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::admin::request::RequestError;
use crate::admin::{Change, Endpoint, Filter, Request, Show};

pub use change::{change, detach};
use set::SetVerb;
pub use show::show;
pub use status::{StatusCommand, status};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/ocs-lb/config.yaml";
/// Where the runtime socket is unless `--socket` or `OCS_LB_SOCKET` says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ocs-lb/admin.sock";

/// Where what outlives the datapath is kept, unless `--state-directory` or
/// systemd (`StateDirectory=`) says otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/ocs-lb";

/// Done.
pub const EXIT_DONE: u8 = 0;
/// Failed, or not ready.
pub const EXIT_FAILED: u8 = 1;
/// Wrong usage or an invalid configuration.
pub const EXIT_USAGE: u8 = 2;

/// What was asked for on the command line.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Run the controller in the foreground.
    Run {
        /// The configuration file.
        config: PathBuf,
        /// Whether the datapath goes with the controller.
        detach_on_exit: bool,
        /// Whether sessions of other processes on what is served go on.
        take_over: bool,
        /// Where the operator's word is kept.
        state: PathBuf,
    },
    /// Validate a configuration and print the bill.
    Check {
        /// The configuration file.
        config: PathBuf,
        /// Whether the result is printed as JSON.
        json: bool,
    },
    /// Ask a running controller.
    Show(ShowCommand),
    /// Ask whether new clients are served.
    Status(StatusCommand),
    /// Have a running controller do something.
    Change(ChangeCommand),
    /// End the datapath and remove what it left.
    Detach {
        /// Whether it is done without a question.
        yes: bool,
    },
}

/// A wish to a running controller.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeCommand {
    /// The controller's runtime socket.
    pub socket: PathBuf,
    /// What is to be done.
    pub change: Change,
    /// Whether it is done without a question.
    pub yes: bool,
    /// Whether the answer is printed as JSON.
    pub json: bool,
}

/// A question to a running controller.
#[derive(Debug, Clone, PartialEq)]
pub struct ShowCommand {
    /// The controller's runtime socket.
    pub socket: PathBuf,
    /// What is asked.
    pub request: Request,
    /// Whether the answer is printed as JSON.
    pub json: bool,
}

/// Kernel-accelerated SNAT load balancer for OCS, Lync and Skype for Business pools
#[derive(Debug, Parser)]
#[command(name = "ocs-lb", version)]
struct Cli {
    /// Runtime socket of the controller to ask
    #[arg(long, global = true, value_name = "PATH", env = "OCS_LB_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the controller in the foreground
    Run {
        /// Configuration file
        #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
        /// Stop forwarding when the controller ends
        #[arg(long)]
        detach_on_exit: bool,
        /// Go on although other processes hold a served port; their connections stay theirs
        #[arg(long)]
        take_over: bool,
        /// Directory that keeps what an operator said of clusters
        #[arg(
            long = "state-directory",
            value_name = "PATH",
            env = "STATE_DIRECTORY",
            default_value = DEFAULT_STATE
        )]
        state: PathBuf,
    },
    /// Print every problem of a configuration, or what it will cost; touches nothing
    Check {
        /// Configuration file
        #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask a running controller
    Show(ShowArgs),
    /// Whether new clients are served: exit code 0 if they are, else 1
    Status {
        /// Only clients of this cluster
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
        /// Print nothing
        #[arg(long, conflicts_with = "json")]
        quiet: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// How long a controller that does not answer is waited for
        #[arg(
            long,
            value_name = "DURATION",
            default_value = "2s",
            value_parser = humantime::parse_duration
        )]
        timeout: Duration,
    },
    /// Reset flows: both sides get a RST
    #[command(subcommand)]
    Reset(ResetVerb),
    /// Have a running controller apply its file anew; prints what changed, or why nothing did
    Reload {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End the datapath: its flows are cut off, its programs, maps and pins removed
    Detach {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Forget what a running controller's datapath remembers
    #[command(subcommand)]
    Clear(ClearVerb),
    /// Say who serves new connections
    #[command(subcommand)]
    Set(SetVerb),
}

#[derive(Debug, Subcommand)]
enum ResetVerb {
    /// Every flow of a backend
    Backend {
        /// The backend
        #[arg(value_name = "CLUSTER/NAME", value_parser = backend_name)]
        backend: (String, String),
        #[command(flatten)]
        how: How,
    },
    /// Every flow of a client
    Client {
        /// Its address
        #[arg(value_name = "ADDR")]
        client: IpAddr,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Subcommand)]
enum ClearVerb {
    /// Sticky entries: their clients' next connections go where the algorithm says
    Sticky {
        /// The cluster
        cluster: String,
        /// Only of this client
        #[arg(long, value_name = "ADDR")]
        client: Option<IpAddr>,
        /// Only of this backend
        #[arg(long, value_name = "NAME")]
        backend: Option<String>,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Args)]
struct How {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Reads `CLUSTER/NAME`.
fn backend_name(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((cluster, name)) if !cluster.is_empty() && !name.is_empty() => {
            Ok((cluster.to_owned(), name.to_owned()))
        }
        _ => Err("a backend is named CLUSTER/NAME".to_owned()),
    }
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// What to show
    what: Show,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Only of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only of this backend
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Only of this client
    #[arg(long, value_name = "ADDR[:PORT]")]
    client: Option<Endpoint>,
    /// Only of this VIP
    #[arg(long, value_name = "ADDR[:PORT]")]
    vip: Option<Endpoint>,
    /// Only with this SNAT address
    #[arg(long, value_name = "ADDR[:PORT]")]
    snat: Option<Endpoint>,
    /// Only in this state, as the table names it
    #[arg(long)]
    state: Option<String>,
    /// Only flows without a packet for this long, such as 30m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
}

impl ValueEnum for Show {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Status => "Interfaces: how they are attached, and why",
            Self::Backends => "Clusters and their backends",
            Self::Flows => "Flows, one a line",
            Self::Sticky => "Sticky clients and their backends",
            Self::Drops => "Packets by interface, verdict and reason",
            Self::Snat => "SNAT ports in use by destination",
            Self::Events => "The last events of each kind",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

/// Reads the process' arguments. Ends the process with usage and exit code 2
/// where they make no sense, and with 0 after `--help` or `--version`.
pub fn parse() -> Command {
    try_parse(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// Reads arguments, the program's name first.
///
/// # Errors
/// clap's, ready to print.
pub fn try_parse<I, T>(arguments: I) -> Result<Command, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let Cli { socket, verb } = Cli::try_parse_from(arguments)?;
    Ok(match verb {
        Verb::Run {
            config,
            detach_on_exit,
            take_over,
            state,
        } => Command::Run {
            config,
            detach_on_exit,
            take_over,
            state,
        },
        Verb::Check { config, json } => Command::Check { config, json },
        Verb::Show(arguments) => {
            let json = arguments.json;
            let request = arguments.request().map_err(usage)?;
            Command::Show(ShowCommand {
                socket,
                request,
                json,
            })
        }
        Verb::Status {
            cluster,
            quiet,
            json,
            timeout,
        } => Command::Status(StatusCommand {
            socket,
            cluster,
            quiet,
            json,
            timeout,
        }),
        Verb::Reset(verb) => {
            let (change, how) = match verb {
                ResetVerb::Backend { backend, how } => {
                    let (cluster, backend) = backend;
                    (Change::ResetBackend { cluster, backend }, how)
                }
                ResetVerb::Client { client, how } => (Change::ResetClient { client }, how),
            };
            how.command(socket, change)
        }
        Verb::Reload { json } => Command::Change(ChangeCommand {
            socket,
            change: Change::Reload,
            yes: true,
            json,
        }),
        Verb::Detach { yes } => Command::Detach { yes },
        Verb::Clear(ClearVerb::Sticky {
            cluster,
            client,
            backend,
            how,
        }) => {
            let change = Change::ClearSticky {
                cluster,
                client,
                backend,
            };
            how.command(socket, change)
        }
        Verb::Set(verb) => verb.command(socket),
    })
}

impl How {
    fn command(self, socket: PathBuf, change: Change) -> Command {
        Command::Change(ChangeCommand {
            socket,
            change,
            yes: self.yes,
            json: self.json,
        })
    }
}

impl ShowArgs {
    fn request(self) -> Result<Request, RequestError> {
        let filter = Filter {
            cluster: self.cluster,
            backend: self.backend,
            client: self.client,
            vip: self.vip,
            snat: self.snat,
            state: self.state,
            older_than_secs: self.older_than.map(|age| age.as_secs_f64()),
        };
        Request::new(self.what, filter)
    }
}

fn usage(error: RequestError) -> clap::Error {
    let text = match error {
        RequestError::NotApplicable { show, filter } => {
            let option = match filter {
                "older_than_secs" => "older-than",
                other => other,
            };
            format!("`show {show}` cannot be filtered by --{option}")
        }
        other => other.to_string(),
    };
    Cli::command().error(ErrorKind::ArgumentConflict, text)
}

#[cfg(test)]
mod tests;

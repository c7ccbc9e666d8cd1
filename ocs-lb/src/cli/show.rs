//! `ocs-lb show`: asks the controller, prints tables or JSON.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use serde::de::DeserializeOwned;

use super::table::{Column, Pager, bytes, number, seconds, text};
use super::{EXIT_DONE, EXIT_FAILED, ShowCommand};
use crate::admin::Show;
use crate::admin::answer::{Backends, Drops, Events, InterfaceStatus, Snat, Status};
use crate::admin::client::{self, Answer, ClientError};
use crate::snapshot::{
    BackendView, ClusterView, EventView, FlowView, InterfaceView, SaidView, SnatView, StickyView,
};

/// Asks, and prints the answer on standard output or the reason why there is
/// none on standard error. A reader that leaves early is no failure.
pub fn show(command: &ShowCommand) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = print(command, &mut out);
    let code = match printed.and_then(|()| out.flush().map_err(ShowError::from)) {
        Ok(()) => EXIT_DONE,
        Err(ShowError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => EXIT_DONE,
        Err(error) => {
            // What came before the error is shown before it.
            let _ = out.flush();
            eprintln!("ocs-lb: {error}");
            EXIT_FAILED
        }
    };
    ExitCode::from(code)
}

#[derive(Debug, thiserror::Error)]
enum ShowError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Prints the whole answer to `out`.
fn print(command: &ShowCommand, out: &mut impl Write) -> Result<(), ShowError> {
    let mut answer = client::ask(&command.socket, &command.request)?;
    match (command.request.show, command.json) {
        (Show::Flows | Show::Sticky, true) => array(answer, out),
        (_, true) => Ok(writeln!(out, "{}", answer.only()?)?),
        (Show::Flows, false) => rows(answer, out, FLOWS, flow),
        (Show::Sticky, false) => rows(answer, out, STICKY, sticky),
        (Show::Status, false) => {
            let Status { interfaces, .. } = object(&mut answer)?;
            Ok(status(&interfaces, out)?)
        }
        (Show::Backends, false) => {
            let Backends { clusters } = object(&mut answer)?;
            Ok(backends(&clusters, out)?)
        }
        (Show::Drops, false) => {
            let Drops { interfaces } = object(&mut answer)?;
            Ok(drops(&interfaces, out)?)
        }
        (Show::Snat, false) => {
            let Snat { snat: all } = object(&mut answer)?;
            Ok(snat(&all, out)?)
        }
        (Show::Events, false) => {
            let Events { events: all } = object(&mut answer)?;
            Ok(events(&all, out)?)
        }
    }
}

fn object<T: DeserializeOwned>(answer: &mut Answer) -> Result<T, ClientError> {
    let line = answer.only()?;
    serde_json::from_str(&line).map_err(|error| answer.unreadable(error))
}

/// The lines as one JSON array. It stays open if the stream breaks: half an
/// answer must not read as a whole one.
fn array(answer: Answer, out: &mut impl Write) -> Result<(), ShowError> {
    let mut separator = "[\n";
    for line in answer {
        let line = line?;
        write!(out, "{separator}{line}")?;
        separator = ",\n";
    }
    let start = if separator == "[\n" { "[" } else { "\n" };
    Ok(writeln!(out, "{start}]")?)
}

fn rows<T: DeserializeOwned>(
    mut answer: Answer,
    out: &mut impl Write,
    columns: &'static [Column],
    cells: fn(T) -> Vec<String>,
) -> Result<(), ShowError> {
    let mut table = Pager::new(out, columns);
    let mut broken = None;
    while let Some(line) = answer.next() {
        let view = line
            .and_then(|line| serde_json::from_str(&line).map_err(|error| answer.unreadable(error)));
        match view {
            Ok(view) => table.row(cells(view))?,
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    table.finish()?;
    broken.map_or(Ok(()), |error| Err(error.into()))
}

const FLOWS: &[Column] = &[
    text("CLUSTER"),
    text("CLIENT"),
    text("VIP"),
    text("SNAT"),
    text("BACKEND"),
    text("TO"),
    text("STATE"),
    number("IDLE"),
    number("IN"),
    number("OUT"),
];

fn flow(flow: FlowView) -> Vec<String> {
    let at = |address, port| SocketAddr::new(address, port).to_string();
    vec![
        flow.cluster,
        at(flow.client, flow.client_port),
        at(flow.vip, flow.vip_port),
        at(flow.snat, flow.snat_port),
        flow.backend,
        at(flow.backend_address, flow.backend_port),
        flow.state,
        seconds(flow.idle),
        bytes(flow.bytes_in),
        bytes(flow.bytes_out),
    ]
}

const STICKY: &[Column] = &[
    text("CLUSTER"),
    text("CLIENT"),
    text("BACKEND"),
    number("EXPIRES"),
];

fn sticky(entry: StickyView) -> Vec<String> {
    vec![
        entry.cluster,
        entry.client.to_string(),
        entry.backend,
        seconds(entry.expires_in),
    ]
}

const BACKENDS: &[Column] = &[
    text("CLUSTER"),
    text("CLUSTER STATE"),
    text("BACKEND"),
    text("ADDRESS"),
    text("STATE"),
    text("READY"),
    text("ROLE"),
    number("WEIGHT"),
    number("LIVE"),
    number("PENDING"),
    number("TOTAL"),
    number("IN"),
    number("OUT"),
    text("SAID"),
    text("LAST CHECK"),
];

fn backends(clusters: &[ClusterView], out: &mut impl Write) -> io::Result<()> {
    let mut table = Pager::new(out, BACKENDS);
    for cluster in clusters {
        for backend in &cluster.backends {
            table.row(vec![
                cluster.name.clone(),
                cluster.state.to_string(),
                backend.name.clone(),
                backend.address.clone(),
                backend.state.clone(),
                if backend.ready { "yes" } else { "no" }.to_owned(),
                if backend.backup { "backup" } else { "active" }.to_owned(),
                weight(backend),
                backend.live.to_string(),
                backend.pending.to_string(),
                backend.connections.to_string(),
                bytes(backend.bytes_in),
                bytes(backend.bytes_out),
                said(backend),
                backend.last_check.clone(),
            ])?;
        }
    }
    table.finish()
}

/// The weight in use, and the file's where that is another; how much of it a
/// backend has while it starts slowly.
fn weight(backend: &BackendView) -> String {
    let now = match backend.throttle {
        Some(percent) => format!(
            "{percent:.0}% of {}",
            backend.weight_word.unwrap_or(backend.weight)
        ),
        None => backend.effective_weight.to_string(),
    };
    let is_the_files = backend
        .weight_word
        .is_none_or(|word| word == backend.weight)
        && (backend.throttle.is_some() || backend.effective_weight == backend.weight);
    match is_the_files {
        true => now,
        false => format!("{now}/{}", backend.weight),
    }
}

/// An operator's word on a backend: what, who and when.
fn said(backend: &BackendView) -> String {
    let state = backend.state_word.map(|state| state.to_string());
    let weight = backend.weight_word.map(|weight| format!("weight {weight}"));
    let words = [(state, &backend.said), (weight, &backend.weight_said)];
    let words = words.into_iter().filter_map(|(word, said)| {
        let word = word?;
        Some(match said {
            Some(SaidView { by, at }) => format!("{word} by {by} at {at}"),
            None => word,
        })
    });
    words.collect::<Vec<_>>().join("; ")
}

const DROPS: &[Column] = &[
    text("INTERFACE"),
    text("VERDICT"),
    text("REASON"),
    number("PACKETS"),
];

const STATUS: &[Column] = &[text("INTERFACE"), text("MODE"), text("REASON")];

fn status(interfaces: &[InterfaceStatus], out: &mut impl Write) -> io::Result<()> {
    let mut table = Pager::new(out, STATUS);
    for one in interfaces {
        table.row(vec![one.name.clone(), one.mode.clone(), one.reason.clone()])?;
    }
    table.finish()
}

fn drops(interfaces: &[InterfaceView], out: &mut impl Write) -> io::Result<()> {
    let mut table = Pager::new(out, DROPS);
    for interface in interfaces {
        for (verdict, reasons) in [
            ("drop", &interface.dropped),
            ("pass", &interface.passed),
            ("forward", &interface.forwarded),
        ] {
            for (reason, packets) in reasons.iter().filter(|(_, packets)| **packets > 0) {
                table.row(vec![
                    interface.name.clone(),
                    verdict.to_owned(),
                    reason.clone(),
                    packets.to_string(),
                ])?;
            }
        }
    }
    table.finish()
}

const SNAT: &[Column] = &[
    text("CLUSTER"),
    text("ADDRESS"),
    text("BACKEND"),
    number("PORT"),
    number("USED"),
    number("RESTING"),
    number("LIMIT"),
    number("USED %"),
];

fn snat(destinations: &[SnatView], out: &mut impl Write) -> io::Result<()> {
    let mut table = Pager::new(out, SNAT);
    for destination in destinations {
        let share = 100.0 * f64::from(destination.used) / f64::from(destination.limit.max(1));
        table.row(vec![
            destination.cluster.clone(),
            destination.address.clone(),
            destination.backend.clone(),
            destination.port.to_string(),
            destination.used.to_string(),
            destination.resting.to_string(),
            destination.limit.to_string(),
            format!("{share:.1}"),
        ])?;
    }
    table.finish()
}

const EVENTS: &[Column] = &[
    text("TIME"),
    text("EVENT"),
    text("REASON"),
    text("CLUSTER"),
    text("CLIENT"),
    text("VIP"),
    text("BACKEND"),
    number("AGE"),
    number("IN"),
    number("OUT"),
];

fn events(events: &[EventView], out: &mut impl Write) -> io::Result<()> {
    let mut table = Pager::new(out, EVENTS);
    for event in events {
        table.row(cells(event))?;
    }
    table.finish()
}

fn cells(event: &EventView) -> Vec<String> {
    let time = Duration::try_from_secs_f64(event.at).unwrap_or_default();
    let at = |address: Option<IpAddr>, port| {
        address.map_or_else(String::new, |ip| SocketAddr::new(ip, port).to_string())
    };
    let client = match (event.neighbor, event.ifindex) {
        (Some(neighbor), Some(ifindex)) => format!("{neighbor} dev {ifindex}"),
        _ => at(event.client, event.client_port),
    };
    let backend = event.backend.clone().unwrap_or_default();
    // What did not happen has neither age nor bytes.
    let lived = matches!(&*event.kind, "open" | "close");
    let figure = |shown: String| if lived { shown } else { String::new() };
    vec![
        humantime::format_rfc3339_millis(UNIX_EPOCH + time).to_string(),
        event.kind.clone(),
        event.reason.clone().unwrap_or_default(),
        event.cluster.clone().unwrap_or_default(),
        client,
        at(event.vip, event.vip_port),
        match &event.before {
            Some(before) => format!("{before} -> {backend}"),
            None => backend,
        },
        figure(seconds(event.age)),
        figure(bytes(event.bytes_in)),
        figure(bytes(event.bytes_out)),
    ]
}

#[cfg(test)]
mod tests;

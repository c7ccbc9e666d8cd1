//! How the program is attached to each interface: what each kind of interface
//! allows, and which modes go together.

use super::AttachMode;

mod facts;

pub use facts::{Facts, Kind, Mode, Partial, Support};

#[cfg(test)]
mod tests;

/// What is done with an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Where the program goes.
    pub mode: Mode,
    /// Why there, for people.
    pub reason: String,
}

/// Why an interface cannot be served, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

/// Chooses a mode for every interface.
///
/// Native XDP where every packet's way in and out allows it: the driver of the
/// interface it comes in by runs XDP, and that of every interface it may leave
/// by takes such frames. Otherwise traffic control, which serves everywhere.
/// Generic XDP only where the file asks for it.
///
/// # Errors
/// The first interface that cannot be served so.
pub fn plan(all: &[Facts]) -> Result<Vec<Choice>, Refusal> {
    let mut choices = Vec::with_capacity(all.len());
    for one in all {
        refuse(one)?;
        choices.push(alone(one)?);
    }
    together(all, &mut choices)?;
    Ok(choices)
}

/// What no mode serves.
fn refuse(one: &Facts) -> Result<(), Refusal> {
    let name = &one.name;
    let no = |text: String| Err(Refusal(format!("{name}: {text}")));
    match (&one.kind, &one.master) {
        (Kind::Loopback, _) => {
            return no(
                "the loopback carries nothing of others; name the interface that clients come in \
                 by (the VIP may stay on lo)"
                    .into(),
            );
        }
        (Kind::Dummy, _) => {
            return no(
                "nothing ever comes in on a dummy; name the interface that clients come in by (the \
                 VIP may stay on the dummy)"
                    .into(),
            );
        }
        (Kind::Vrf, _) => return no(
            "a VRF is not served; clients and backends must be reached by the main routing table"
                .into(),
        ),
        (_, Some((vrf, Kind::Vrf))) => {
            return no(format!(
                "it belongs to the VRF {vrf}, whose routing table is not asked; take it out \
                 (`ip link set dev {name} nomaster`)"
            ));
        }
        (_, Some((master, kind))) => {
            return no(format!(
                "it is a port of the {kind} {master}, which has the addresses; name {master} \
                 instead"
            ));
        }
        _ => {}
    }
    if !one.ethernet {
        return no(format!(
            "a {kind} without Ethernet header is not served; let clients and backends come by an \
             Ethernet interface (for a tunnel: gretap, vxlan or geneve)",
            kind = one.kind
        ));
    }
    if one.lro {
        return no(format!(
            "large receive offload merges packets that cannot be told apart again; switch it off: \
             `ethtool -K {name} lro off`"
        ));
    }
    Ok(())
}

/// The mode of an interface as if it were the only one.
fn alone(one: &Facts) -> Result<Choice, Refusal> {
    if let Some(mode) = one.has {
        return Ok(Choice {
            mode,
            reason: "it forwards already".into(),
        });
    }
    let name = &one.name;
    let mode = match one.wanted {
        AttachMode::Auto => return Ok(automatic(one)),
        AttachMode::Native => Mode::Native,
        AttachMode::Generic => Mode::Generic,
        AttachMode::Tc => Mode::Tc,
    };
    if mode != Mode::Tc {
        if let Some(there) = &one.other_xdp {
            return Err(Refusal(format!(
                "{name}: {there} is attached there, and XDP has room for one; take it off (`ip link \
                 set dev {name} xdp off`), or use `mode: tc`"
            )));
        }
        if let Partial::Yes(remedy) = &one.partial {
            return Err(Refusal(format!(
                "{name}: packets come in with checksums that are not there yet, which XDP cannot \
                 pass on; {remedy}, or use `mode: tc`"
            )));
        }
    }
    if mode == Mode::Generic && one.partial == Partial::UnlessNative {
        return Err(Refusal(format!(
            "{name}: packets come in with checksums that are not there yet, which generic XDP \
             cannot pass on; use `mode: native` or `mode: tc`"
        )));
    }
    if mode == Mode::Generic && one.gro_hw {
        return Err(Refusal(format!(
            "{name}: the card merges packets, which generic XDP would send on too long; switch it \
             off (`ethtool -K {name} rx-gro-hw off`), or use `mode: tc`"
        )));
    }
    if let (Mode::Native, Support::No(why)) = (mode, &one.native) {
        return Err(Refusal(format!(
            "{name}: no native XDP: {why}; use `mode: tc`"
        )));
    }
    Ok(Choice {
        mode,
        reason: "as configured".into(),
    })
}

fn automatic(one: &Facts) -> Choice {
    let tc = |reason: String| Choice {
        mode: Mode::Tc,
        reason,
    };
    match (&one.kind, &one.native, &one.partial) {
        _ if one.other_xdp.is_some() => {
            let there = one.other_xdp.as_deref().unwrap_or_default();
            tc(format!("{there} is attached there"))
        }
        (Kind::Card | Kind::Veth, Support::No(why), _) => tc(format!("no native XDP: {why}")),
        (Kind::Card | Kind::Veth, _, Partial::Yes(_)) => {
            tc("packets come in with checksums that are not there yet".into())
        }
        (Kind::Card | Kind::Veth, _, Partial::Unknown(why)) => {
            tc(format!("packets may come in without checksums: {why}"))
        }
        (Kind::Card | Kind::Veth, support, Partial::No | Partial::UnlessNative) => Choice {
            mode: Mode::Native,
            reason: match support {
                Support::Unknown => "the driver is tried: this kernel does not tell what it can",
                _ => "the driver runs XDP and takes redirected frames",
            }
            .into(),
        },
        (kind, ..) => tc(format!("it is a {kind}")),
    }
}

/// Native XDP is given up where what it redirects would be lost, and where
/// another interface needs traffic control: all go one way, unless the file or
/// what forwards already says otherwise.
fn together(all: &[Facts], choices: &mut [Choice]) -> Result<(), Refusal> {
    if let Some(at) = choices.iter().position(|choice| choice.mode == Mode::Tc) {
        let reason = format!("{} needs traffic control, and all go one way", all[at].name);
        give_up_native(all, choices, &reason);
    }
    let Some((egress, why)) = (0..all.len()).find_map(|at| loses(&all[at], choices[at].mode))
    else {
        return Ok(());
    };
    let reason = format!(
        "packets leave by {}, which takes no frames of XDP: {why}",
        egress.name
    );
    give_up_native(all, choices, &reason);
    // Those that are left are by name, or forward already.
    for (one, choice) in all.iter().zip(choices.iter()) {
        if choice.mode != Mode::Native {
            continue;
        }
        // What gave up native XDP just now may be what this one needed.
        let Some((egress, why)) = all
            .iter()
            .zip(choices.iter())
            .find_map(|(one, choice)| loses(one, choice.mode))
        else {
            return Ok(());
        };
        let Facts { name, .. } = one;
        if one.has.is_none() {
            return Err(Refusal(format!(
                "{name}: mode native sends frames by XDP, and {} does not take them ({why}); use \
                 `mode: tc` for both",
                egress.name
            )));
        }
        if egress.has.is_none() {
            return Err(Refusal(format!(
                "{}: it does not take frames that XDP sends ({why}), and {name} forwards by native \
                 XDP already; `ocs-lb detach` and a start choose anew",
                egress.name
            )));
        }
    }
    Ok(())
}

/// The interface and why, where frames that XDP redirects to it would be lost.
fn loses(one: &Facts, mode: Mode) -> Option<(&Facts, String)> {
    match &one.transmits {
        Support::No(why) => Some((one, why.clone())),
        // It takes them only while XDP is in its own driver.
        Support::Unknown if mode != Mode::Native => Some((one, format!("its mode is {mode}"))),
        _ => None,
    }
}

/// Those that are free to choose go to traffic control.
fn give_up_native(all: &[Facts], choices: &mut [Choice], reason: &str) {
    for (one, choice) in all.iter().zip(choices.iter_mut()) {
        let free = one.has.is_none() && one.wanted == AttachMode::Auto;
        if free && choice.mode == Mode::Native {
            *choice = Choice {
                mode: Mode::Tc,
                reason: reason.to_owned(),
            };
        }
    }
}

use super::*;

fn card(name: &str) -> Facts {
    Facts {
        name: name.into(),
        kind: Kind::Card,
        ethernet: true,
        master: None,
        wanted: AttachMode::Auto,
        has: None,
        native: Support::Yes,
        transmits: Support::Yes,
        partial: Partial::No,
        lro: false,
        gro_hw: false,
        other_xdp: None,
    }
}

fn no(why: &str) -> Support {
    Support::No(why.into())
}

/// Modes and reasons of a plan.
fn modes(all: &[Facts]) -> Vec<(Mode, String)> {
    let choices = plan(all).expect("they can be served");
    choices
        .into_iter()
        .map(|choice| (choice.mode, choice.reason))
        .collect()
}

fn refusal(one: Facts) -> String {
    plan(&[one]).expect_err("it is refused").to_string()
}

/// What `auto` makes of one interface alone.
#[test]
fn auto_looks_at_the_way_in() {
    let cases: &[(Facts, Mode, &str)] = &[
        (
            card("eth0"),
            Mode::Native,
            "the driver runs XDP and takes redirected frames",
        ),
        (
            Facts {
                native: Support::Unknown,
                transmits: Support::Unknown,
                ..card("eth0")
            },
            Mode::Native,
            "the driver is tried: this kernel does not tell what it can",
        ),
        (
            Facts {
                native: no("its driver has none"),
                transmits: Support::Unknown,
                ..card("eth0")
            },
            Mode::Tc,
            "no native XDP: its driver has none",
        ),
        (
            Facts {
                kind: Kind::Veth,
                partial: Partial::Yes("switch it off".into()),
                ..card("eth0")
            },
            Mode::Tc,
            "packets come in with checksums that are not there yet",
        ),
        (
            Facts {
                kind: Kind::Veth,
                partial: Partial::Unknown("its peer is elsewhere".into()),
                ..card("eth0")
            },
            Mode::Tc,
            "packets may come in without checksums: its peer is elsewhere",
        ),
        (
            Facts {
                other_xdp: Some("XDP program 12 (filter)".into()),
                ..card("eth0")
            },
            Mode::Tc,
            "XDP program 12 (filter) is attached there",
        ),
        (
            Facts {
                kind: Kind::Bond,
                ..card("bond0")
            },
            Mode::Tc,
            "it is a bond",
        ),
        (
            Facts {
                kind: Kind::Vlan,
                ..card("eth0.7")
            },
            Mode::Tc,
            "it is a VLAN sub-interface",
        ),
        (
            Facts {
                kind: Kind::Other("macvlan".into()),
                ..card("mv0")
            },
            Mode::Tc,
            "it is a macvlan",
        ),
        (
            Facts {
                kind: Kind::Tap,
                ..card("tap0")
            },
            Mode::Tc,
            "it is a tap",
        ),
        (
            Facts {
                has: Some(Mode::Generic),
                native: no("none"),
                ..card("eth0")
            },
            Mode::Generic,
            "it forwards already",
        ),
    ];
    for (facts, mode, reason) in cases {
        assert_eq!(
            modes(std::slice::from_ref(facts)),
            [(*mode, (*reason).to_owned())]
        );
    }
}

/// What packets leave by decides too.
#[test]
fn auto_looks_at_the_way_out() {
    let veth = |name: &str, transmits| Facts {
        kind: Kind::Veth,
        transmits,
        ..card(name)
    };
    let mode = |all: &[Facts]| {
        modes(all)
            .into_iter()
            .map(|(mode, _)| mode)
            .collect::<Vec<_>>()
    };
    // Both ways by XDP.
    let all = [card("eth0"), veth("eth1", Support::Yes)];
    assert_eq!(mode(&all), [Mode::Native, Mode::Native]);
    // A card takes frames once our program is in its driver.
    let late = Facts {
        transmits: Support::Unknown,
        ..card("eth1")
    };
    assert_eq!(mode(&[card("eth0"), late.clone()]), [Mode::Native; 2]);
    // It has none: nobody is native, and each says why.
    let none = Facts {
        native: no("its driver has none"),
        ..late
    };
    assert_eq!(
        modes(&[card("eth0"), none]),
        [
            (
                Mode::Tc,
                "eth1 needs traffic control, and all go one way".into()
            ),
            (Mode::Tc, "no native XDP: its driver has none".into()),
        ]
    );
    // A veth alone sends back by redirect as well.
    assert_eq!(mode(&[veth("eth0", no("its peer has no GRO"))]), [Mode::Tc]);
    // All go one way, also where frames of XDP would arrive; by name they mix.
    let sink = Facts {
        native: no("its driver has none"),
        ..card("eth1")
    };
    assert_eq!(mode(&[card("eth0"), sink.clone()]), [Mode::Tc, Mode::Tc]);
    let named = Facts {
        wanted: AttachMode::Native,
        ..card("eth0")
    };
    assert_eq!(mode(&[named, sink]), [Mode::Native, Mode::Tc]);
    // Generic XDP sends anywhere, and takes nothing by itself.
    let generic = |transmits| Facts {
        wanted: AttachMode::Generic,
        transmits,
        ..card("eth0")
    };
    assert_eq!(
        mode(&[generic(Support::Yes), card("eth1")]),
        [Mode::Generic, Mode::Native]
    );
    assert_eq!(
        mode(&[generic(Support::Unknown), card("eth1")]),
        [Mode::Generic, Mode::Tc]
    );
    // What traffic control sends goes anywhere.
    let tc = Facts {
        wanted: AttachMode::Tc,
        ..card("eth0")
    };
    let blind = veth("eth1", no("its peer has no GRO"));
    assert_eq!(mode(&[tc, blind]), [Mode::Tc, Mode::Tc]);
    // What forwards already is left alone.
    let has = Facts {
        has: Some(Mode::Native),
        ..card("eth0")
    };
    let blind = veth("eth1", no("its peer has no GRO"));
    let here = Facts {
        has: Some(Mode::Tc),
        ..blind.clone()
    };
    assert_eq!(mode(&[has.clone(), here]), [Mode::Native, Mode::Tc]);
    // What would lose its frames does not join it.
    assert_eq!(
        plan(&[has, blind])
            .expect_err("frames would be lost")
            .to_string(),
        "eth1: it does not take frames that XDP sends (its peer has no GRO), and eth0 forwards by \
         native XDP already; `ocs-lb detach` and a start choose anew"
    );
}

#[test]
fn a_mode_by_name_is_taken_or_refused() {
    let wanted = |wanted| Facts {
        wanted,
        ..card("eth0")
    };
    for (word, mode) in [
        (AttachMode::Native, Mode::Native),
        (AttachMode::Generic, Mode::Generic),
        (AttachMode::Tc, Mode::Tc),
    ] {
        assert_eq!(modes(&[wanted(word)]), [(mode, "as configured".into())]);
    }
    for word in [AttachMode::Native, AttachMode::Generic] {
        let partial = Facts {
            partial: Partial::Yes("switch that off at its peer (`ethtool -K p tx off`)".into()),
            ..wanted(word)
        };
        assert_eq!(
            refusal(partial),
            "eth0: packets come in with checksums that are not there yet, which XDP cannot pass \
             on; switch that off at its peer (`ethtool -K p tx off`), or use `mode: tc`"
        );
        let there = Facts {
            other_xdp: Some("XDP program 12 (filter)".into()),
            ..wanted(word)
        };
        assert_eq!(
            refusal(there),
            "eth0: XDP program 12 (filter) is attached there, and XDP has room for one; take it \
             off (`ip link set dev eth0 xdp off`), or use `mode: tc`"
        );
    }
    let none = Facts {
        native: no("its driver has none"),
        ..wanted(AttachMode::Native)
    };
    assert_eq!(
        refusal(none),
        "eth0: no native XDP: its driver has none; use `mode: tc`"
    );
    let merging = Facts {
        gro_hw: true,
        ..wanted(AttachMode::Generic)
    };
    assert_eq!(
        refusal(merging.clone()),
        "eth0: the card merges packets, which generic XDP would send on too long; switch it off \
         (`ethtool -K eth0 rx-gro-hw off`), or use `mode: tc`"
    );
    // Its driver refuses, or switches it off itself.
    let native = Facts {
        wanted: AttachMode::Native,
        ..merging
    };
    assert_eq!(modes(&[native])[0].0, Mode::Native);
    let virtio = Facts {
        partial: Partial::UnlessNative,
        ..wanted(AttachMode::Generic)
    };
    assert_eq!(
        refusal(virtio.clone()),
        "eth0: packets come in with checksums that are not there yet, which generic XDP cannot \
         pass on; use `mode: native` or `mode: tc`"
    );
    let native = Facts {
        wanted: AttachMode::Native,
        ..virtio
    };
    assert_eq!(modes(&[native])[0].0, Mode::Native);
    let mixed = [
        wanted(AttachMode::Native),
        Facts {
            name: "eth1".into(),
            transmits: Support::Unknown,
            ..wanted(AttachMode::Tc)
        },
    ];
    assert_eq!(
        plan(&mixed).expect_err("frames would be lost").to_string(),
        "eth0: mode native sends frames by XDP, and eth1 does not take them (its mode is tc); use \
         `mode: tc` for both"
    );
}

#[test]
fn what_no_mode_serves_is_refused_with_a_remedy() {
    let master = |kind| Facts {
        master: Some(("top".into(), kind)),
        ..card("eth0")
    };
    let of = |kind| Facts {
        kind,
        ..card("eth0")
    };
    let cases: &[(Facts, &str)] = &[
        (
            master(Kind::Bond),
            "it is a port of the bond top, which has the addresses; name top instead",
        ),
        (
            master(Kind::Bridge),
            "it is a port of the bridge top, which has the addresses; name top instead",
        ),
        (
            master(Kind::Vrf),
            "it belongs to the VRF top, whose routing table is not asked; take it out (`ip link set dev eth0 nomaster`)",
        ),
        (
            of(Kind::Vrf),
            "a VRF is not served; clients and backends must be reached by the main routing table",
        ),
        (
            of(Kind::Loopback),
            "the loopback carries nothing of others; name the interface that clients come in by (the VIP may stay on lo)",
        ),
        (
            of(Kind::Dummy),
            "nothing ever comes in on a dummy; name the interface that clients come in by (the VIP may stay on the dummy)",
        ),
        (
            Facts {
                ethernet: false,
                ..of(Kind::Other("wireguard".into()))
            },
            "a wireguard without Ethernet header is not served; let clients and backends come by an Ethernet interface (for a tunnel: gretap, vxlan or geneve)",
        ),
        (
            Facts {
                lro: true,
                ..card("eth0")
            },
            "large receive offload merges packets that cannot be told apart again; switch it off: `ethtool -K eth0 lro off`",
        ),
    ];
    for (facts, text) in cases {
        for wanted in [
            AttachMode::Auto,
            AttachMode::Native,
            AttachMode::Generic,
            AttachMode::Tc,
        ] {
            let facts = Facts {
                wanted,
                ..facts.clone()
            };
            assert_eq!(refusal(facts), format!("eth0: {text}"));
        }
    }
}

/// Whatever is known: a plan has no native interface whose frames would be
/// lost, unless it forwarded before, and only asked-for generic ones.
#[test]
fn every_plan_holds_together() {
    let supports = [Support::Yes, Support::Unknown, Support::No("none".into())];
    let wanted = [
        AttachMode::Auto,
        AttachMode::Native,
        AttachMode::Generic,
        AttachMode::Tc,
    ];
    let mut each = Vec::new();
    for native in &supports {
        for transmits in &supports {
            for wanted in wanted {
                each.push(Facts {
                    native: native.clone(),
                    transmits: transmits.clone(),
                    wanted,
                    ..card("eth")
                });
            }
        }
    }
    let mut plans = 0;
    for a in &each {
        for b in &each {
            for c in &each {
                let all = [a.clone(), b.clone(), c.clone()];
                let Ok(choices) = plan(&all) else {
                    continue;
                };
                plans += 1;
                let any_native = choices.iter().any(|one| one.mode == Mode::Native);
                for (one, choice) in all.iter().zip(&choices) {
                    assert!(!choice.reason.is_empty());
                    assert_eq!(
                        choice.mode == Mode::Generic,
                        one.wanted == AttachMode::Generic
                    );
                    let takes = match one.transmits {
                        Support::Yes => true,
                        Support::Unknown => choice.mode == Mode::Native,
                        Support::No(_) => false,
                    };
                    assert!(takes || !any_native, "{all:?} {choices:?}");
                }
            }
        }
    }
    assert!(plans > 1000, "{plans}");
}

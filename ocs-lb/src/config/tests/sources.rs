//! Sources and paces, and what two clusters may share.

use super::{BASE, check, valid, with, with_cluster};
use crate::model::edits::{MapEdit, Reach, plan};
use crate::model::{NewConnections, Port};
use ocs_lb_common::abi::Service;
use std::time::Duration;

#[test]
fn prefixes_and_paces() {
    let model = valid(&with_cluster(
        "from: [10.0.0.0/8]\nallow: [10.1.0.0/16, 10.2.3.4]\ndeny: [10.1.2.0/24]\n\
         new_connections: {per_source: 10, total: 1000, burst: 1s}",
    ))
    .model;
    let cluster = &model.clusters[0];
    let shown =
        |list: &[crate::model::Prefix]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&cluster.access.from), ["10.0.0.0/8"]);
    assert_eq!(shown(&cluster.access.allow), ["10.1.0.0/16", "10.2.3.4/32"]);
    assert_eq!(shown(&cluster.access.deny), ["10.1.2.0/24"]);
    let wanted = NewConnections {
        per_source: 10,
        total: 1000,
        burst: Duration::from_secs(1),
    };
    assert_eq!(cluster.new_connections, wanted);
    let model = valid(&with(
        "[443, 5061]",
        "[443, {listen: 5061, allow: [10.0.0.0/8]}, {listen: 80, allow: []}, \
         {listen: any, allow: [10.0.0.0/8]}]",
    ))
    .model;
    let cluster = &model.clusters[0];
    let ports: Vec<_> = cluster.ports.iter().map(|p| (p.listen, p.access)).collect();
    assert_eq!(ports, [(Port::ANY, 1), (80, 2), (443, 0), (5061, 1)]);
    assert_eq!(shown(cluster.access.allow(1)), ["10.0.0.0/8"]);
    assert!(cluster.access.allow(2).is_empty() && cluster.access.allow(0).is_empty());
}

#[test]
fn what_is_no_prefix_or_pace() {
    for (lines, message) in [
        ("allow: [10.0.0.0/33]", "10.0.0.0/33 is not allowed"),
        ("allow: [10.0.0/8]", "10.0.0/8 is not allowed"),
        ("allow: [10.0.0.0/+8]", "10.0.0.0/+8 is not allowed"),
        ("deny: [2001:db8::/32]", "IPv6 is not wired"),
        ("from: [10.0.0.1/8]", "beyond the length: 10.0.0.0/8"),
        (
            "deny: all",
            "all is not allowed; allowed: a list of prefixes",
        ),
        ("new_connections: {total: 1000001}", "allowed: 0 to 1000000"),
        ("new_connections: {burst: 1ms}", "allowed: 20ms to 4s"),
        ("new_connections: 10", "allowed: a mapping"),
    ] {
        let problems = check(&with_cluster(lines)).unwrap_err();
        assert_eq!(problems.0.len(), 1, "{problems}");
        assert!(
            problems.to_string().contains(message),
            "{lines}: {problems}"
        );
    }
}

fn two(first: &str, second: &str) -> String {
    format!(
        "{BASE}    from: {first}\n  - name: c\n    vips: [192.0.2.1]\n    ports: [5061]\n    \
         from: {second}\n    backends: [{{name: b, address: 198.51.100.1}}]\n"
    )
}

#[test]
fn one_port_of_several_clusters() {
    for (first, second, whom) in [
        ("[]", "[]", ""),
        ("[]", "[0.0.0.0/0]", ""),
        (
            "[10.0.0.0/8, 11.0.0.0/8]",
            "[11.0.0.0/8]",
            " for 11.0.0.0/8",
        ),
    ] {
        let problems = check(&two(first, second)).unwrap_err().to_string();
        assert_eq!(
            problems,
            format!(
                "t.yaml:11: clusters[1].ports[0]: 192.0.2.1:5061 is served already{whom}, \
                 by clusters[0].ports[1] in line 5"
            )
        );
    }
    valid(&two("[]", "[10.0.0.0/8]"));
    valid(&two("[10.0.0.0/8]", "[10.1.0.0/16]"));
}

/// 443 is the first cluster's alone, 5061 is both's: each its service, and one
/// that chooses. Lists that are equal are one.
#[test]
fn services_and_lists() {
    let text = two("[10.0.0.0/8]", "[]")
        .replace("    from: []", "    from: []\n    deny: [10.9.0.0/16]\n");
    let reach = vec![vec![Reach::default()]; 2];
    let edits = plan(&valid(&text).model, &reach, &[]).expect("a plan");
    let mut services = Vec::new();
    let mut lists = Vec::new();
    for edit in edits {
        match edit {
            MapEdit::Service(key, service) => services.push((
                (key.port.get(), key.choice),
                (service.cluster, service.access, service.flags),
            )),
            MapEdit::List(number, _) => lists.push(number),
            _ => {}
        }
    }
    assert_eq!(lists, [1, 2, 3]);
    let by = Service::BY_SOURCE;
    assert_eq!(
        services,
        [
            ((443, 1), (0, 0, 0)),
            ((443, 0), (0, 1, by)),
            ((5061, 1), (0, 0, 0)),
            ((5061, 2), (1, 2, 0)),
            ((5061, 0), (0, 3, by)),
        ]
    );
}

#[test]
fn any_port_of_a_snat_address_is_refused() {
    let text = with("[443, 5061]", "[443, {listen: any, allow: [10.0.0.0/8]}]");
    let reach = vec![vec![Reach {
        snat: vec!["192.0.2.1".parse().expect("an address")],
        ports: (1024, 2047),
        next_hop: 1,
    }]];
    let error = plan(&valid(&text).model, &reach, &[]).expect_err("no port is left");
    assert!(
        error.to_string().contains("serves any port of 192.0.2.1"),
        "{error}"
    );
}

//! One mistake a case: its line, its key path and its words.

mod backends;
mod checks;
mod clusters;
mod failures;
mod host;
mod later;
mod ports;
mod shape;

use super::{check, with, with_cluster, with_top};
use Edit::{Cluster, Replace, Top, Whole};

enum Edit {
    /// Instead of a part of the base.
    Replace(&'static str, &'static str),
    /// Lines added to the cluster, from line 8 on.
    Cluster(&'static str),
    /// Lines added at the top level, from line 8 on.
    Top(&'static str),
    /// The whole file.
    Whole(&'static str),
}

/// `(case, edit, line, key path, part of the message)`
type Case = (&'static str, Edit, usize, &'static str, &'static str);

#[track_caller]
fn all_refused(cases: Vec<Case>) {
    for (case, edit, line, path, message) in cases {
        let text = match edit {
            Replace(from, to) => with(from, to),
            Cluster(lines) => with_cluster(lines),
            Top(lines) => with_top(lines),
            Whole(text) => text.to_owned(),
        };
        let Err(problems) = check(&text) else {
            panic!("{case}: accepted\n{text}");
        };
        let [problem] = problems.0.as_slice() else {
            panic!("{case}: not one problem:\n{problems}");
        };
        let shown = problem.to_string();
        assert_eq!(problem.line, line, "{case}: {shown}");
        assert_eq!(problem.key_path, path, "{case}: {shown}");
        assert!(shown.contains(message), "{case}: {shown}");
    }
}

#[test]
fn between_clusters() {
    let second = |vips: &str, ports: &str| {
        format!(
            "  - name: c\n    vips: {vips}\n    ports: {ports}\n    backends: [{{name: b, address: 198.51.100.1}}]\n"
        )
    };
    let text = format!("{}{}", super::BASE, second("[192.0.2.1]", "[5060-5070]"));
    let problems = check(&text).unwrap_err().to_string();
    assert_eq!(
        problems,
        "t.yaml:10: clusters[1].ports[0]: 192.0.2.1:5061 is served already, by clusters[0].ports[1] in line 5"
    );

    let text = format!("{}{}", super::BASE, second("[198.51.100.1]", "[80]"));
    let problems = check(&text).unwrap_err().to_string();
    assert_eq!(
        problems,
        "t.yaml:9: clusters[1].vips[0]: VIP 198.51.100.1 is a backend's address, by clusters[0].backends[0].address in line 7"
    );

    let twice = second("[192.0.2.2]", "[80]").replace("name: c", "name: a");
    let problems = check(&format!("{}{twice}", super::BASE)).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "t.yaml:8: clusters[1].name: cluster name a is used already, by clusters[0].name in line 3"
    );

    // One VIP, served on other ports by another cluster.
    for (key, word) in [("unserved", "drop"), ("fragments", "kernel")] {
        let second = second("[192.0.2.1]", "[80]");
        let text = format!("{}{second}    {key}: {word}\n", super::BASE);
        let problems = check(&text).unwrap_err().to_string();
        assert_eq!(
            problems,
            format!(
                "t.yaml:9: clusters[1].vips[0]: VIP 192.0.2.1 is used already, by \
                 clusters[0].vips[0] in line 4, with another `{key}`; allowed: one for all \
                 clusters of a VIP"
            )
        );
    }
    super::valid(&format!("{}{}", super::BASE, second("[192.0.2.1]", "[80]")));

    // Ports and VIPs that both inherit: only the names tell the clusters apart.
    let text = "\
version: 1
defaults:
  vips: [192.0.2.1]
  ports: [443]
  backends: [{name: b, address: 198.51.100.1}]
clusters:
  - name: a
  - name: c
";
    let problems = check(text).unwrap_err().to_string();
    assert_eq!(
        problems,
        "t.yaml:8: clusters[1].name: 192.0.2.1:443 is served already, by clusters[0].name in line 7"
    );
}

#[test]
fn too_many() {
    let backends: String = (0..257)
        .map(|i| {
            format!(
                "      - {{name: b{i}, address: 198.51.{}.{}}}\n",
                i / 250,
                i % 250
            )
        })
        .collect();
    let text = with("      - {name: b, address: 198.51.100.1}\n", &backends);
    let problems = check(&text).unwrap_err().to_string();
    assert_eq!(
        problems,
        "t.yaml:263: clusters[0].backends[256]: 257 backends; allowed: at most 256"
    );

    let clusters: String = (0..17)
        .map(|i| {
            format!(
                "  - {{name: a{i}, vips: [192.0.2.{i}], ports: [1], max_connections: 4000000, backends: [{{name: b, address: 198.51.100.1}}]}}\n"
            )
        })
        .collect();
    let text = format!("version: 1\nclusters:\n{clusters}");
    let problems = check(&text).unwrap_err().to_string();
    assert!(problems.contains("add up to 68000000 flows"), "{problems}");
    super::valid(&format!("{text}tables: {{flows: 1000000}}\n"));
}

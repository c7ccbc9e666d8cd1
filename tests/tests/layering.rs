//! The arrows of `docs/architecture.md`, checked against the sources.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a member of the workspace")
        .to_path_buf()
}

/// Every Rust source below a folder of the workspace, or one file.
fn sources(place: &str) -> Vec<(PathBuf, String)> {
    let path = root().join(place);
    if path.is_file() {
        let text = std::fs::read_to_string(&path).expect("a source");
        return vec![(path, text)];
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&path).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs") {
            let inner = path.strip_prefix(root()).expect("below the root");
            found.extend(sources(inner.to_str().expect("a plain name")));
        }
    }
    found
}

/// Lines of code below `place` that name one of the words.
fn naming(place: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources(place) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    found
}

#[test]
fn only_the_datapath_knows_aya() {
    let mut found = naming("ocs-lb/src", &["aya::", "aya_log::", "aya_obj"]);
    found.retain(|line| !line.contains("ocs-lb/src/datapath/"));
    // `setup` asks how many CPUs there are.
    found.retain(|line| !line.contains("aya::util::nr_cpus"));
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn model_and_config_are_pure() {
    for place in ["ocs-lb/src/model", "ocs-lb/src/config"] {
        let found = naming(
            place,
            &[
                "aya",
                "tokio",
                "crate::datapath",
                "crate::health",
                "crate::neighbor",
                "Instant::now",
                "SystemTime",
            ],
        );
        assert_eq!(found, Vec::<String>::new());
    }
}

#[test]
fn only_the_datapath_writes_maps() {
    for place in ["health", "neighbor", "metrics", "admin", "cli"] {
        let found = naming(
            &format!("ocs-lb/src/{place}"),
            &["datapath::apply", "datapath::load"],
        );
        assert_eq!(found, Vec::<String>::new());
    }
}

#[test]
fn the_core_touches_nothing() {
    let mut found = naming(
        "ocs-lb-common/src",
        &["aya_ebpf", "bpf_", "std::time", "Instant", "unsafe {"],
    );
    // Names of kernel helpers and files in documentation stand in comments.
    found.retain(|line| !line.contains("const BPF_NOEXIST"));
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_programs_decide_nothing_about_time() {
    let found = naming(
        "ocs-lb-ebpf/src",
        &["_timeout", "max_connections *", "wrapping_sub(now"],
    );
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn no_log_line_per_packet() {
    let found = naming(
        "ocs-lb-ebpf/src",
        &["info!(", "warn!(", "error!(", "trace!("],
    );
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(
        naming("ocs-lb-ebpf/src", &["debug!("]).len(),
        1,
        "one line a new flow"
    );
}

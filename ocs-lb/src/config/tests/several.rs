//! Problems come together, in order, and files that cannot be read are problems.

use std::path::Path;

use super::super::{Cause, load};
use super::{BASE, check};

#[test]
fn all_problems_come_together_by_line() {
    let text = "\
version: 1
interfaces: [{name: eth0, mode: fast}]
clusters:
  - name: web server
    vips: []
    ports: [443, 0]
    balance: source
    timeouts: {client: 0s, serve: 1m}
    backends:
      - {name: one, address: 198.51.100.1, weight: 300}
      - {name: one, address: 198.51.100.1}
metrics: {listen: 7778}
";
    let problems = check(text).unwrap_err();
    let lines: Vec<String> = problems.to_string().lines().map(str::to_owned).collect();
    assert_eq!(
        lines,
        [
            "t.yaml:2: interfaces[0].mode: fast is not allowed; allowed: auto, native, generic, tc",
            "t.yaml:4: clusters[0].name: \"web server\" is not allowed; allowed: 1 to 64 of the characters A-Z a-z 0-9 _ . -",
            "t.yaml:5: clusters[0].vips: [] is not allowed; allowed: at least one entry",
            "t.yaml:6: clusters[0].ports[1]: 0 is not allowed; allowed: a port of 1 to 65535 or a range such as 5070-5080, optionally with /tcp, or any",
            "t.yaml:7: clusters[0].balance: source is known but not supported by this version; allowed now: leastconn, roundrobin",
            "t.yaml:8: clusters[0].timeouts.serve: unknown key; did you mean `server`?",
            "t.yaml:8: clusters[0].timeouts.client: 0s is not allowed; allowed: 1ms to 168h, written as 500ms, 4s, 30m or 2h",
            "t.yaml:10: clusters[0].backends[0].weight: 300 is not allowed; allowed: 0 to 256",
            "t.yaml:11: clusters[0].backends[1].name: backend name one is used already, by clusters[0].backends[0].name in line 10",
            "t.yaml:11: clusters[0].backends[1].address: backend address 198.51.100.1 is used already, by clusters[0].backends[0].address in line 10",
            "t.yaml:12: metrics.listen: 7778 is not allowed; allowed: an address with a port such as 127.0.0.1:7778",
        ]
    );
    assert_eq!(problems.0[0].cause, Cause::Invalid);
    assert_eq!(problems.0[4].cause, Cause::Unsupported);
}

#[test]
fn duplicate_keys_do_not_hide_other_problems() {
    let text = BASE.replace(
        "    ports:",
        "    name: x\n    vips: [192.0.2.2]\n    ports:",
    );
    let problems = check(&text.replace("443", "0")).unwrap_err();
    let places: Vec<_> = problems.0.iter().map(|p| (p.line, &*p.key_path)).collect();
    assert_eq!(
        places,
        [
            (5, "clusters[0].name"),
            (6, "clusters[0].vips"),
            (7, "clusters[0].ports[0]")
        ]
    );
}

#[test]
fn problems_as_json() {
    let problems = check(&BASE.replace("version: 1", "version: 3")).unwrap_err();
    assert_eq!(
        serde_json::to_value(&problems).unwrap(),
        serde_json::json!([{
            "file": "t.yaml",
            "line": 1,
            "key_path": "version",
            "value": "3",
            "message": "is not allowed",
            "allowed": "1",
            "cause": "invalid",
        }])
    );
}

/// A file of its own that goes away with the test.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let name = format!("ocs-lb-config-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn files() {
    let good = Scratch::new("good.yaml", BASE.as_bytes());
    assert_eq!(load(&good.0).unwrap().model.clusters.len(), 1);

    let message = |path: &Path| {
        let problems = load(path).unwrap_err();
        assert_eq!(problems.0.len(), 1);
        problems.to_string()
    };
    assert!(
        message(Path::new("/nonexistent/x.yaml"))
            .starts_with("/nonexistent/x.yaml: cannot be opened")
    );
    assert!(message(&std::env::temp_dir()).contains("cannot be read"));
    let latin = Scratch::new("latin.yaml", b"version: 1 # gr\xfcn\n");
    assert!(message(&latin.0).contains("not UTF-8: byte 15"));
    let long = Scratch::new("long.yaml", &vec![b'#'; (4 << 20) + 1]);
    assert!(message(&long.0).contains("longer than 4 MiB"));
    let full = Scratch::new("full.yaml", &vec![b'#'; 4 << 20]);
    let problems = load(&full.0).unwrap_err();
    assert_eq!(problems.0[0].key_path, "version", "4 MiB are read");
}

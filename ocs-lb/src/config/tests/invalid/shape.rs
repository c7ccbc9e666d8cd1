//! YAML and mappings as such.

use super::Edit::{Cluster, Replace, Top, Whole};
use super::all_refused;

#[test]
fn shape_of_the_file() {
    all_refused(vec![
        (
            "not YAML",
            Replace("[192.0.2.1]", "[192.0.2.1"),
            5,
            "clusters[0].vips",
            "not YAML",
        ),
        ("tab", Whole("version: 1\n\tx: 1\n"), 1, "", "not YAML"),
        (
            "a word",
            Whole("hello"),
            1,
            "",
            "hello is not allowed; allowed: a mapping",
        ),
        (
            "a list",
            Whole("- version: 1"),
            1,
            "",
            "[...] is not allowed",
        ),
        ("NUL", Whole("version: 1\n\0"), 2, "", "NUL byte"),
        (
            "two documents",
            Top("---\nversion: 1"),
            8,
            "",
            "second document",
        ),
        (
            "tag",
            Replace("version: 1", "version: !!int 1"),
            1,
            "",
            "tags",
        ),
        ("list as key", Top("? [a]\n: 1"), 8, "", "plain word"),
        ("duplicate key", Top("version: 1"), 8, "version", "twice"),
        (
            "duplicate inner key",
            Cluster("name: b"),
            8,
            "clusters[0].name",
            "twice",
        ),
        (
            "unknown key",
            Top("klusters: 1"),
            8,
            "klusters",
            "did you mean `clusters`?",
        ),
        (
            "far key",
            Top("frobnicate: 1"),
            8,
            "frobnicate",
            "known here: version",
        ),
        (
            "merge key",
            Cluster("<<: {}"),
            8,
            "clusters[0].<<",
            "unknown key",
        ),
        (
            "unknown key of a backend",
            Replace("address:", "wieght: 1, address:"),
            7,
            "clusters[0].backends[0].wieght",
            "did you mean `weight`?",
        ),
        (
            "no version",
            Replace("version: 1\n", ""),
            1,
            "version",
            "required and missing",
        ),
        (
            "version null",
            Replace("version: 1", "version:"),
            1,
            "version",
            "required",
        ),
        (
            "version 2",
            Replace("version: 1", "version: 2"),
            1,
            "version",
            "2 is not allowed; allowed: 1",
        ),
        (
            "no clusters",
            Whole("version: 1\n"),
            1,
            "clusters",
            "required",
        ),
        (
            "empty clusters",
            Whole("version: 1\nclusters: []\n"),
            2,
            "clusters",
            "at least one",
        ),
        (
            "clusters a mapping",
            Whole("version: 1\nclusters: {}\n"),
            2,
            "clusters",
            "a list of clusters",
        ),
        (
            "cluster a word",
            Whole("version: 1\nclusters: [a]\n"),
            2,
            "clusters[0]",
            "a mapping",
        ),
    ]);
}

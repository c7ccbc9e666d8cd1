//! No input panics, and every refusal names a problem.

use proptest::prelude::*;

use super::super::DEFAULT;
use super::check;

fn survives(text: &str) {
    if let Err(problems) = check(text) {
        assert!(!problems.0.is_empty(), "{text:?}");
        let lines = text.split(['\n', '\r']).count();
        for problem in &problems.0 {
            assert!(problem.line <= lines + 1, "{problem} in {text:?}");
            assert!(!problem.to_string().contains('\n'), "{problem:?}");
        }
    }
}

/// Pieces that mean something to YAML or to the contract.
fn token() -> impl Strategy<Value = String> {
    let words = [
        "\n",
        "\n  ",
        "\n    - ",
        " ",
        ": ",
        "- ",
        "? ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a ",
        "*a",
        "!!str ",
        "|\n",
        ">-\n",
        "'",
        "\"",
        "#",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "null",
        "~",
        "off",
        "\t",
        "\r",
        "\u{feff}",
        "\0",
        "<<",
        "version",
        "clusters",
        "name",
        "vips",
        "ports",
        "backends",
        "check",
        "snat",
        "1",
        "0",
        "443",
        "5070-5080",
        "192.0.2.1",
        "::1",
        "30m",
        "10240k",
        "99999999999999999999",
    ];
    prop_oneof![
        4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn arbitrary_text(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn arbitrary_tokens(tokens in prop::collection::vec(token(), 0..60)) {
        survives(&tokens.concat());
    }

    #[test]
    fn mutated_valid_files(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, token()), 1..6),
    ) {
        let mut chars: Vec<char> = DEFAULT.chars().collect();
        for (at, cut, insert) in edits {
            let at = at.index(chars.len() + 1);
            let end = (at + cut).min(chars.len());
            chars.splice(at..end, insert.chars());
        }
        survives(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn truncated_valid_files(at in any::<prop::sample::Index>()) {
        let chars: Vec<char> = DEFAULT.chars().collect();
        let cut = at.index(chars.len());
        survives(&chars.into_iter().take(cut).collect::<String>());
    }
}

#[test]
fn deep_and_wide_files() {
    survives(&"[".repeat(200_000));
    survives(&"{a: ".repeat(50_000));
    survives(&"- ".repeat(50_000));
    survives(&format!(
        "version: 1\nclusters: {}{}",
        "[".repeat(500),
        "]".repeat(500)
    ));
    survives(&format!(
        "version: 1\nclusters: [{}]",
        "a, ".repeat(300_000)
    ));
    // Few bytes, many ports.
    let ranges = vec!["1-65535"; 20_000].join(", ");
    survives(&super::with("[443, 5061]", &format!("[{ranges}]")));
    // Anchors that multiply: each level ten times the one before.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    survives(&bomb);
    // A chain that deepens with every alias.
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for level in 1..2000 {
        chain.push_str(&format!("a{level}: &a{level} [[[[*a{}]]]]\n", level - 1));
    }
    survives(&chain);
}

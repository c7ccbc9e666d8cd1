//! Corpora: a file is hexadecimal, with any white space and `#` comments.

use std::path::{Path, PathBuf};

/// A corpus of the tree.
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target)
}

/// Text to bytes.
///
/// # Errors
/// What is no hexadecimal.
pub fn parse(text: &str) -> Result<Vec<u8>, String> {
    let code = |line: &str| line.split('#').next().unwrap_or_default().to_string();
    let digits = text
        .lines()
        .flat_map(|line| code(line).chars().collect::<Vec<_>>())
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).ok_or(format!("`{c}` is no digit")))
        .collect::<Result<Vec<_>, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err("an odd number of digits".into());
    }
    let byte = |pair: &[u32]| (pair[0] << 4 | pair[1]) as u8;
    Ok(digits.chunks(2).map(byte).collect())
}

/// Names and bytes of a target's corpus, in order.
///
/// # Errors
/// A file that cannot be read or is no hexadecimal.
pub fn read(target: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
    let folder = folder(target);
    let problem = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let entries = std::fs::read_dir(&folder).map_err(|e| problem(&folder, &e))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "hex"));
    paths.sort_unstable();
    let mut corpus = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|e| problem(&path, &e))?;
        let bytes = parse(&text).map_err(|e| problem(&path, &e))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        corpus.push((name.into_owned(), bytes));
    }
    Ok(corpus)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn comments_and_white_space() {
        let text = "# a frame\n45 00 # version\n 0f";
        assert_eq!(parse(text), Ok(vec![0x45, 0, 0x0f]));
        assert!(parse("4").is_err());
        assert!(parse("zz").is_err());
    }
}

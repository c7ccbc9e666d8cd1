//! Debian's kernels, taken from the mirror this machine already uses; nothing
//! is installed and apt's own state is not touched.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::host::{self, run};

/// Series of kernels, each the newest that Debian 12 has.
const SERIES: [&str; 2] = ["6.1", "6.12"];
/// Suites that have them.
const SUITES: [&str; 2] = ["bookworm", "bookworm-backports"];
/// Package that depends on the newest of a suite. The kernel for clouds is
/// small and has a serial console.
const NEWEST: &str = "linux-image-cloud-amd64";
/// Signs all suites of Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Name of a kernel's file; the release follows.
const FILE: &str = "vmlinuz-";

/// A kernel to boot.
pub struct Kernel {
    /// Its file's name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
}

/// One kernel of each series. Those in `.tools/vm` are used as they are.
///
/// # Errors
/// Where one is missing and cannot be fetched.
pub fn kernels() -> anyhow::Result<Vec<Kernel>> {
    std::fs::create_dir_all(host::vm())?;
    if SERIES.iter().any(|series| find(series).is_none()) {
        fetch().context("the kernels of Debian 12 cannot be fetched")?;
    }
    SERIES
        .iter()
        .map(|series| find(series).with_context(|| format!("Debian 12 has no Linux {series}")))
        .collect()
}

/// The kernel of a series that was fetched before.
fn find(series: &str) -> Option<Kernel> {
    let prefix = format!("{FILE}{series}.");
    std::fs::read_dir(host::vm()).ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        name.starts_with(&prefix).then(|| Kernel {
            name,
            path: entry.path(),
        })
    })
}

fn fetch() -> anyhow::Result<()> {
    for program in ["apt-get", "apt-cache", "dpkg-deb"] {
        ensure!(host::has(program), "{program} is missing");
    }
    let scratch = host::vm().join("apt");
    std::fs::create_dir_all(scratch.join("lists/partial"))?;
    let result = fetch_into(&scratch);
    // Lists of packages and unpacked modules are large.
    std::fs::remove_dir_all(&scratch)?;
    result
}

fn fetch_into(scratch: &Path) -> anyhow::Result<()> {
    let mirror = mirror()?;
    let signed = if Path::new(KEYRING).exists() {
        format!(" signed-by={KEYRING}")
    } else {
        String::new()
    };
    let sources = SUITES.map(|suite| format!("deb [arch=amd64{signed}] {mirror} {suite} main\n"));
    std::fs::write(scratch.join("sources.list"), sources.concat())?;
    println!("vm-load: fetching the kernels of Debian 12 into .tools/vm (once)");
    run(apt("apt-get", scratch).args(["update", "-qq"]))?;
    let newest = output(apt("apt-cache", scratch).args(["show", NEWEST]))?;
    for series in SERIES {
        let package = package(&newest, series)
            .with_context(|| format!("{NEWEST} of Debian 12 knows no Linux {series}"))?;
        run(apt("apt-get", scratch).args(["download", "-qq", &package]))?;
    }
    for entry in std::fs::read_dir(scratch)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            unpack(&path)?;
        }
    }
    Ok(())
}

/// Takes the kernel out of a package.
fn unpack(package: &Path) -> anyhow::Result<()> {
    let contents = package.with_extension("contents");
    run(Command::new("dpkg-deb")
        .arg("-x")
        .arg(package)
        .arg(&contents))?;
    for entry in std::fs::read_dir(contents.join("boot"))? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(FILE) {
            // Last, and at once: half a kernel is never found.
            std::fs::rename(entry.path(), host::vm().join(name))?;
        }
    }
    Ok(())
}

/// Apt with sources and lists of our own.
fn apt(program: &str, scratch: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(scratch);
    for (option, value) in [
        ("Dir::Etc::sourcelist", scratch.join("sources.list")),
        ("Dir::Etc::sourceparts", "/dev/null".into()),
        ("Dir::State::lists", scratch.join("lists")),
        ("Dir::Cache", scratch.join("cache")),
        // Else root's downloads warn that another user cannot write here.
        ("APT::Sandbox::User", "root".into()),
        ("Acquire::Languages", "none".into()),
        (
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
            "false".into(),
        ),
    ] {
        command
            .arg("-o")
            .arg(format!("{option}={}", value.display()));
    }
    command
}

/// Where this machine has Debian from.
fn mirror() -> anyhow::Result<String> {
    // Before the first `apt-get update` apt knows its sources, but not whose
    // they are.
    for options in [&[][..], &["--no-release-info"]] {
        let targets = output(
            Command::new("apt-get")
                .arg("indextargets")
                .args(options)
                .args(["--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"])
                .arg("Identifier: Packages"),
        )?;
        if let Some(mirror) = pick_mirror(&targets) {
            return Ok(mirror.to_owned());
        }
    }
    bail!("apt on this machine knows no mirror of Debian")
}

/// The mirror of a whole release: not of updates, which may lie elsewhere.
fn pick_mirror(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (uri, release, component) = (words.next()?, words.next()?, words.next()?);
        // Apt leaves what it does not know as it was written.
        let debian = matches!(words.next(), None | Some("Debian" | "$(ORIGIN)"));
        let whole = !release.contains(['-', '/']) && component == "main";
        (debian && whole).then_some(uri)
    })
}

/// The package that the newest kernel of a series is in.
fn package(newest: &str, series: &str) -> Option<String> {
    let prefix = format!("linux-image-{series}.");
    newest
        .lines()
        .filter_map(|line| line.strip_prefix("Depends:"))
        .flat_map(|depends| depends.split(','))
        .filter_map(|depend| depend.split_whitespace().next())
        .find(|name| name.starts_with(&prefix))
        .map(str::to_owned)
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| program.clone())?;
    ensure!(
        output.status.success(),
        "{program} ended with {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_of_a_whole_release() {
        let targets = "http://a.test/security/ bookworm-security main Debian
http://b.test/other/ stable main Other
http://c.test/debian/ bookworm contrib Debian
http://d.test/debian/ bookworm main Debian
";
        assert_eq!(pick_mirror(targets), Some("http://d.test/debian/"));
        let never_updated = "http://e.test/debian/ trixie main $(ORIGIN)\n";
        assert_eq!(pick_mirror(never_updated), Some("http://e.test/debian/"));
        assert_eq!(pick_mirror(""), None);
    }

    #[test]
    fn the_package_of_a_series() {
        let newest = "Package: linux-image-cloud-amd64
Version: 6.12.9-1~bpo12+1
Depends: linux-image-6.12.9+bpo-cloud-amd64 (= 6.12.9-1~bpo12+1)

Package: linux-image-cloud-amd64
Version: 6.1.7-1
Depends: a, linux-image-6.1.0-3-cloud-amd64 (= 6.1.7-1)
";
        let package = |series| package(newest, series);
        assert_eq!(
            package("6.12").as_deref(),
            Some("linux-image-6.12.9+bpo-cloud-amd64")
        );
        assert_eq!(
            package("6.1").as_deref(),
            Some("linux-image-6.1.0-3-cloud-amd64")
        );
        assert_eq!(package("6.6"), None);
    }
}

//! The guest's file system: an archive with one file, its init.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cpio::newc::{Builder, ModeFileType, trailer};

use crate::host::{self, cargo, run};

/// The tests' program that is the guest's init.
const INIT: &str = "vm-init";

/// Builds the init and packs it; the archive's path.
///
/// # Errors
/// The build's, or the file system's.
pub fn build() -> anyhow::Result<PathBuf> {
    // The guest has no library and no loader. The flags go to this program
    // alone, so nothing else is built twice.
    run(
        cargo(&["rustc", "--quiet", "--package", "ocs-lb-tests"]).args([
            "--bin",
            INIT,
            "--",
            "-Ctarget-feature=+crt-static",
            "-Cstrip=debuginfo",
        ]),
    )?;
    let init = host::target().join("debug").join(INIT);
    let archive = host::vm().join("initramfs.cpio");
    pack(&init, &archive).with_context(|| archive.display().to_string())?;
    Ok(archive)
}

fn pack(init: &Path, archive: &Path) -> anyhow::Result<()> {
    let init = std::fs::read(init)?;
    let mut entry = Builder::new("init")
        .mode(0o755)
        .set_mode_file_type(ModeFileType::Regular)
        .write(Vec::new(), u32::try_from(init.len())?);
    entry.write_all(&init)?;
    std::fs::write(archive, trailer(entry.finish()?)?)?;
    Ok(())
}

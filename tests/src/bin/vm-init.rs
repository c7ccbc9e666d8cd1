//! The only process of a guest that tries the programs on another kernel.
//!
//! `cargo xtask vm-load` links it statically and makes it the guest's init. It
//! gives every program to the verifier, says on the console what came of it
//! and powers off.

use anyhow::{Context as _, Result, ensure};
use aya::programs::Program;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::termios::tcdrain;
use ocs_lb::datapath::load::{object, verify};
use ocs_lb::model::LogLevel;
use ocs_lb_test_support::vm::{Line, Trial};
use ocs_lb_tests::budget::budget;
use ocs_lb_tests::plan::Plan;
use ocs_lb_tests::prog::sizes;

/// Lines of a verifier's log that are worth the console's time.
const LOG_END: usize = 40;

fn main() -> Result<()> {
    // Anywhere else the last step would power off the host.
    ensure!(
        std::process::id() == 1,
        "vm-init is a guest's init: `cargo xtask vm-load` starts it"
    );
    if let Err(error) = try_programs() {
        say(&Line::Failed(format!("{error:#}")))?;
    }
    tcdrain(std::io::stdout()).context("the console")?;
    reboot(RebootMode::RB_POWER_OFF)?;
    Ok(())
}

fn try_programs() -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf")] {
        // The first two are not in the archive; the third comes with the second.
        std::fs::create_dir_all(place).context(place)?;
        mount(
            Some(kind),
            place,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .context(place)?;
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    say(&Line::Kernel(release.trim().to_owned()))?;
    let mut ebpf = object(&sizes(&Plan::default()), LogLevel::Info)?;
    let mut programs: Vec<_> = ebpf.programs_mut().collect();
    programs.sort_unstable_by_key(|(name, _)| *name);
    for (name, program) in programs {
        say(&Line::Program(try_program(name, program)))?;
    }
    say(&Line::End)
}

fn try_program(name: &str, program: &mut Program) -> Trial {
    let refusal = verify(program).err().map(|error| end(&error.to_string()));
    Trial {
        program: name.to_owned(),
        instructions: program
            .info()
            .ok()
            .and_then(|info| info.verified_instruction_count()),
        budget: budget(name),
        refusal,
    }
}

/// The first line, which has the error, and the last ones.
fn end(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let skipped = lines.len().saturating_sub(LOG_END);
    if skipped <= 1 {
        return lines.join("\n");
    }
    format!(
        "{}\n... {} lines ...\n{}",
        lines[0],
        skipped - 1,
        lines[skipped..].join("\n")
    )
}

fn say(line: &Line) -> Result<()> {
    println!("{}", line.encode()?);
    Ok(())
}

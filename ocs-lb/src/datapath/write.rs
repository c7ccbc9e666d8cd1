//! Writes that the kernel puts off or refuses.

use std::io;
use std::time::Duration;

use aya::maps::MapError;
use nix::errno::Errno;

/// How often a write is tried that meets `EBUSY`.
const TRIES: u32 = 10;
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(1);

/// Writes, and tries again while a bucket is held by someone else on the same
/// CPU (`EBUSY`, `htab_lock_bucket` in `kernel/bpf/hashtab.c`): ten times, a
/// millisecond apart.
///
/// # Errors
/// The last try's.
pub fn patient<T>(mut write: impl FnMut() -> Result<T, MapError>) -> Result<T, MapError> {
    for _ in 1..TRIES {
        match write() {
            Err(error) if errno(&error) == Some(Errno::EBUSY) => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    write()
}

/// The kernel's answer in a chain of errors.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let code = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        if let Some(code) = code {
            return Some(Errno::from_raw(code));
        }
        cause = error.source();
    }
    None
}

/// Whether a table has no place left (`E2BIG`, a hash without eviction).
pub fn is_full(error: &MapError) -> bool {
    errno(error) == Some(Errno::E2BIG)
}

/// What helps against an answer of the kernel, where anything does.
fn remedy(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::ENOMEM => Some(
            "the kernel has no memory for it: free some, or raise the memory limit of the service \
             (systemd: MemoryMax), and try again",
        ),
        Errno::EBUSY => Some("the kernel was busy with it all the time: try again"),
        _ => None,
    }
}

/// An error with its causes and with what helps.
pub fn told(error: &anyhow::Error) -> String {
    match errno(error.as_ref()).and_then(remedy) {
        Some(remedy) => format!("{error:#}; {remedy}"),
        None => format!("{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    fn answer(errno: Errno) -> MapError {
        MapError::SyscallError(SyscallError {
            call: "bpf_map_update_elem",
            io_error: io::Error::from_raw_os_error(errno as i32),
        })
    }

    #[test]
    fn a_busy_kernel_is_asked_again() {
        let mut tries = 0;
        let done = patient(|| {
            tries += 1;
            if tries < TRIES {
                Err(answer(Errno::EBUSY))
            } else {
                Ok(7)
            }
        });
        assert_eq!((done.ok(), tries), (Some(7), TRIES));
    }

    #[test]
    fn not_for_ever_and_not_for_other_answers() {
        for (errno, expected) in [(Errno::EBUSY, TRIES), (Errno::ENOMEM, 1), (Errno::E2BIG, 1)] {
            let mut tries = 0;
            let done = patient(|| {
                tries += 1;
                Err::<(), _>(answer(errno))
            });
            assert!(done.is_err());
            assert_eq!(tries, expected, "{errno}");
        }
    }

    #[test]
    fn what_helps_is_told() {
        let of = |errno| told(&anyhow::Error::new(answer(errno)).context("map SERVICES4"));
        let text = of(Errno::ENOMEM);
        assert!(text.starts_with("map SERVICES4: "), "{text}");
        assert!(text.contains("Cannot allocate memory"), "{text}");
        assert!(text.contains("MemoryMax"), "{text}");
        assert!(of(Errno::EBUSY).ends_with("try again"));
        assert!(of(Errno::E2BIG).ends_with("(os error 7)"));
    }
}

//! Whether a shim lives, and ending one that must not. Blocks.

use std::fs::File;
use std::io;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::open::failed;
use crate::error::RuntimeError;
use crate::layout::SandboxDir;
use crate::process::kill_and_wait;
use crate::records::{self, ProcessIdentity};

/// A killed process is gone within this time unless it hangs in the kernel.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Looks at a shim that is to end; with [`pause`] between them they are some seconds.
pub(super) const KILL_ROUNDS: u32 = 2000;

/// Ends the shim process of a sandbox, if there still is one; `false` when it hangs in the kernel.
pub(super) fn kill_shim(dir: &SandboxDir) -> Result<bool, RuntimeError> {
    for _ in 0..KILL_ROUNDS {
        if !is_shim_lock_held(dir)? {
            return Ok(true);
        }
        // One that has only just been started has no record of itself yet; it ends by itself when it finds nobody to
        // report to, or is found in a later round.
        match records::read::<ProcessIdentity>(&dir.shim()) {
            Ok(Some(shim)) if !kill_and_wait(&shim, KILL_LIMIT) => {
                return Ok(false);
            }
            Ok(_) | Err(RuntimeError::DamagedRecord { .. }) => {}
            Err(error) => return Err(error),
        }
        pause();
    }
    Ok(!is_shim_lock_held(dir)?)
}

/// For callers that must go on: a process that hangs is in nobody's power, and containers are looked after next.
pub(super) fn kill_shim_or_say(dir: &SandboxDir) -> Result<(), RuntimeError> {
    if !kill_shim(dir)? {
        tracing::error!(sandbox.dir = %dir.path.display(), "Shim process does not end");
    }
    Ok(())
}

/// The lock on a file that the shim was started with as its standard input: it is let go of by the process's end, and
/// by nothing else.
fn is_shim_lock_held(dir: &SandboxDir) -> Result<bool, RuntimeError> {
    let path = dir.shim_lock();
    match File::open(&path) {
        Ok(file) => Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("open", &path)(error)),
    }
}

/// The lock for a shim that is about to be started.
pub(super) fn shim_lock(dir: &SandboxDir) -> Result<File, RuntimeError> {
    let path = dir.shim_lock();
    let file = File::create(&path).map_err(failed("make", &path))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(io::Error::from)
        .map_err(failed("lock", &path))?;
    Ok(file)
}

/// Between rounds of killing: the kernel needs a moment to take processes away.
pub(super) fn pause() {
    let moment = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    rustix::event::poll(&mut [], Some(&moment)).ok(); // a signal only makes it shorter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shim_lives_as_long_as_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let dir = SandboxDir {
            path: dir.path().to_owned(),
        };
        assert!(!is_shim_lock_held(&dir).unwrap(), "never started");
        let lock = shim_lock(&dir).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .stdin(lock)
            .spawn()
            .unwrap();
        assert!(is_shim_lock_held(&dir).unwrap());
        records::write_volatile(&dir.shim(), &ProcessIdentity::of(child.id()).unwrap()).unwrap();
        assert!(kill_shim(&dir).unwrap());
        assert!(!is_shim_lock_held(&dir).unwrap());
        assert_eq!(child.wait().unwrap().code(), None, "killed");
    }
}

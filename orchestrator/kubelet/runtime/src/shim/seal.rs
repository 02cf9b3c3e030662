//! Running from a read-only view of the executable.
//!
//! A process on its way into a container is still this executable, and so reachable for that container through
//! `/proc/<pid>/exe`: by its root user, for writing, as soon as nothing runs it any more. A shim that was itself
//! executed through a read-only mount hands that mount on to all it starts, and no container can change it, because
//! the mount is in nobody's namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use moorline_mount::mount::{BindOptions, Propagation, clone_tree, set_propagation};
use moorline_mount::mount_options::Attributes;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::shim::SHIM_NAME;

/// Executes this executable again through a read-only mount, as `role` for `dir`. Returns only when that failed; the
/// process is then as it was.
pub(crate) fn execute_again(role: &str, dir: &Path) -> io::Error {
    match read_only_executable(dir) {
        Ok(executable) => {
            let path = format!("/proc/self/fd/{}", executable.as_raw_fd());
            Command::new(path)
                .arg0(SHIM_NAME)
                .arg(role)
                .arg(dir)
                .env_clear()
                .exec()
        }
        Err(error) => error,
    }
}

/// A mount has to be attached somewhere before a file in it can be opened by name: that is done in a namespace that
/// exists for this moment only.
fn read_only_executable(dir: &Path) -> io::Result<impl AsRawFd> {
    let home = File::open("/proc/self/ns/mnt")?;
    let options = BindOptions {
        attributes: Attributes::NONE.read_only(),
        recursive: false,
    };
    let copy = clone_tree("/proc/self/exe", options).map_err(io::Error::other)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let opened = (|| {
        set_propagation("/", Propagation::Private, true).map_err(io::Error::other)?;
        let place = dir.join("exe");
        File::create(&place)?;
        copy.attach(&place).map_err(io::Error::other)?;
        Ok(openat(
            CWD,
            &place,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    })();
    setns(&home, CloneFlags::CLONE_NEWNS)?;
    opened
}

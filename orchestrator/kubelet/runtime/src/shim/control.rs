//! The control socket's place. The path of a unix socket is limited to 108 bytes, a state directory isn't: both ends
//! name the socket through an opened directory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Name of the control socket in the sandbox's directory.
pub(crate) const SOCKET: &str = "ctl";

/// A short name for a file in `dir`; good while the returned file is open.
fn short_name(dir: &Path, name: &str) -> io::Result<(File, PathBuf)> {
    let dir = File::from(openat(
        CWD,
        dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?);
    let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    Ok((dir, path))
}

/// Listens on `dir/name`, mode 0600 from the start; a stale socket there is replaced.
pub(crate) fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let (_open, path) = short_name(dir, name)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(&path);
    rustix::process::umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Listens on `dir/name` in a process with threads, which must not change its mask: `dir` lets nobody else in.
pub(crate) fn listen_in_private(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let (_open, path) = short_name(dir, name)?;
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the shim of a sandbox.
pub(crate) fn connect(sandbox_dir: &Path) -> io::Result<UnixStream> {
    let (_open, path) = short_name(sandbox_dir, SOCKET)?;
    UnixStream::connect(&path)
}

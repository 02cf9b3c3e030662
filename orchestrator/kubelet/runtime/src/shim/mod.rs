//! The pod's shim: the process that outlives the kubelet and owns the pod's containers.
//!
//! ```text
//! runtime --start--> shim (serve) --start--> helper --library--> container's first process
//!                     |  ^ waits for all of them; owns their pipes, logs, exit records
//!                     +--+ control socket, see `protocol`
//! ```
//!
//! One executable plays all parts: called as `moorline-shim`, `main` goes to [`shim_main`] before anything else.

mod attach;
mod connections;
pub(crate) mod console;
mod containers;
pub(crate) mod control;
mod ending;
mod execs;
pub(crate) mod helper;
mod log;
mod prepare;
pub(crate) mod protocol;
mod pump;
mod seal;
mod server;
pub(crate) mod streams;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::Mode;
use rustix::process::{chdir, set_child_subreaper, setsid, umask};

/// Name under which the executable is a shim.
pub const SHIM_NAME: &str = "moorline-shim";

/// What a shim says on standard output once it can be talked to.
pub(crate) const READY: &str = "ready";

/// Plays the shim's part and ends the process. To be called first thing by `main` when the file name of `argv[0]` is
/// [`SHIM_NAME`]: no thread may exist yet.
pub fn shim_main() -> ! {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next().unwrap_or_default();
    let path = PathBuf::from(arguments.next().unwrap_or_default());
    let code = match part(&role, &path) {
        Ok(code) => code,
        Err(error) => {
            writeln!(io::stderr(), "{SHIM_NAME}: {error}").ok(); // standard error is all there is to tell
            1
        }
    };
    #[expect(clippy::exit, reason = "this function is the whole process")]
    std::process::exit(i32::from(code))
}

/// As [`shim_main`] for a `main` that returns an exit code: `None` when this process isn't called as a shim.
pub fn run_if_shim() -> Option<ExitCode> {
    let name = std::env::args_os().next()?;
    (Path::new(&name).file_name()? == SHIM_NAME).then(|| shim_main())
}

fn part(role: &OsString, path: &Path) -> io::Result<u8> {
    close_inherited();
    umask(Mode::from_raw_mode(0o022));
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    match role.to_str() {
        Some("serve") => {
            let error = seal::execute_again("serve-sealed", path);
            writeln!(
                io::stderr(),
                "{SHIM_NAME}: runs from a writable executable: {error}"
            )
            .ok(); // as above
            part(&OsString::from("serve-sealed"), path)
        }
        Some("serve-sealed") => {
            // Not the runtime's session: its terminal and its signals are not ours.
            setsid()?;
            set_child_subreaper(rustix::process::Pid::from_raw(1))?;
            chdir("/")?;
            server::serve(path)?;
            Ok(0)
        }
        Some("start") => Ok(helper::start(path)),
        Some("exec") => Ok(helper::exec(path)),
        Some(_) | None => Err(io::Error::other(
            "usage: moorline-shim serve|start|exec DIRECTORY",
        )),
    }
}

/// Everything beyond the standard streams belongs to whoever started us: a listening socket or a lock kept open here
/// would outlive its owner.
fn close_inherited() {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    // The directory's own descriptor was among them and is closed by now.
    for number in open
        .into_iter()
        .filter(|number| Path::new(&format!("/proc/self/fd/{number}")).is_symlink())
    {
        #[expect(unsafe_code, reason = "closing a descriptor that no owned type stands for")]
        // SAFETY: the process has just begun; nothing in it has opened a file yet but the directory reader above,
        // which is closed again, so nothing uses these numbers.
        unsafe {
            rustix::io::close(number);
        }
    }
}

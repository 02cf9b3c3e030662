//! Running a filesystem tool: argument list, empty environment, deadline, bounded output that ends up in the error.

use std::{
    ffi::{OsStr, OsString},
    os::fd::AsFd as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
    time::{ClockId, clock_gettime},
};
use thiserror::Error;

const DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of what a tool prints, the last part is kept: that is where it says why it gave up.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// What went wrong with a tool.
#[derive(Debug, Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("{program} is not installed; install the package {package}")]
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it (the name is the same or close to it elsewhere).
        package: &'static str,
    },
    /// A system call around it failed.
    #[error("{action} {program}")]
    Run {
        /// What was tried.
        action: &'static str,
        /// The program.
        program: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It did not finish in time and was killed.
    #[error("{program} did not finish within {} s and was killed: {output}", deadline.as_secs())]
    Deadline {
        /// The program.
        program: &'static str,
        /// The time it had.
        deadline: Duration,
        /// The last part of what it printed.
        output: String,
    },
    /// It said that it failed.
    #[error("{program} failed with {status}: {output}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Exit code or signal.
        status: ExitStatus,
        /// The last part of what it printed.
        output: String,
    },
}

impl ToolError {
    /// Did it fail because the filesystem below has no room left?
    pub fn is_no_space(&self) -> bool {
        match self {
            ToolError::Failed { output, .. } => output.contains("No space left on device"),
            ToolError::Run { source, .. } => source.raw_os_error() == Some(Errno::NOSPC.raw_os_error()),
            ToolError::Missing { .. } | ToolError::Deadline { .. } => false,
        }
    }
}

/// A tool, where it comes from, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// File name of the program.
    pub program: &'static str,
    /// Debian package that has it.
    pub package: &'static str,
    /// When it is killed.
    pub deadline: Duration,
    /// Exit codes up to this one mean success.
    pub exit_code_max: i32,
}

impl Tool {
    /// Runs it and returns what it printed (standard output and error together).
    ///
    /// # Errors
    /// See [`ToolError`].
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String, ToolError> {
        let program = find(self.program).ok_or(ToolError::Missing {
            program: self.program,
            package: self.package,
        })?;
        let arguments: Vec<OsString> = arguments
            .into_iter()
            .map(|word| word.as_ref().to_owned())
            .collect();
        tracing::debug!(program = %program.display(), ?arguments, "Running a tool");
        let (read_end, write_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| self.error("make a pipe for", errno))?;
        rustix::fs::fcntl_setfl(&read_end, OFlags::NONBLOCK)
            .map_err(|errno| self.error("set up a pipe for", errno))?;
        let second_end = write_end
            .try_clone()
            .map_err(|source| self.error("set up a pipe for", source))?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(write_end)
            .stderr(second_end)
            .spawn()
            .map_err(|source| self.error("start", source))?;
        let mut output = Output {
            pipe: read_end,
            bytes: Vec::new(),
        };
        let waited = self.wait(&mut child, &mut output);
        if waited.is_err() {
            child.kill().ok(); // It may have ended just now.
        }
        let status = child.wait().map_err(|source| self.error("wait for", source))?;
        output.drain();
        let output = output.text();
        match waited {
            Ok(()) if status.code().is_some_and(|code| code <= self.exit_code_max) => Ok(output),
            Ok(()) => Err(ToolError::Failed {
                program: self.program,
                status,
                output,
            }),
            Err(Errno::TIMEDOUT) => Err(ToolError::Deadline {
                program: self.program,
                deadline: self.deadline,
                output,
            }),
            Err(errno) => Err(self.error("wait for", errno)),
        }
    }

    /// Reads the output as it comes and returns when the child has ended or its time is up.
    fn wait(&self, child: &mut Child, output: &mut Output) -> Result<(), Errno> {
        let pid = Pid::from_child(child);
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        let limit = monotonic() + self.deadline;
        let mut is_pipe_open = true;
        loop {
            let left = limit.saturating_sub(monotonic());
            let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
            let mut waits = vec![PollFd::new(&ended, PollFlags::IN)];
            if is_pipe_open {
                waits.push(PollFd::from_borrowed_fd(output.pipe.as_fd(), PollFlags::IN));
            }
            match poll(&mut waits, Some(&timeout)) {
                Ok(0) => return Err(Errno::TIMEDOUT),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            if !waits[0].revents().is_empty() {
                return Ok(());
            }
            is_pipe_open = is_pipe_open && output.drain();
        }
    }

    fn error(&self, action: &'static str, source: impl Into<std::io::Error>) -> ToolError {
        ToolError::Run {
            action,
            program: self.program,
            source: source.into(),
        }
    }
}

/// Time since some fixed point in the past.
pub(crate) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0); // The monotonic clock starts at zero.
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Lets time pass, for conditions that nobody reports.
pub(crate) fn pause(interval: Duration) {
    let timeout = Timespec::try_from(interval).ok();
    poll(&mut [], timeout.as_ref()).ok(); // Interrupted is as good as elapsed.
}

fn find(program: &str) -> Option<PathBuf> {
    DIRECTORIES
        .iter()
        .map(|directory| PathBuf::from(directory).join(program))
        .find(|path| path.is_file())
}

/// Is the program installed where [`Tool::run`] would look?
pub fn is_installed(program: &str) -> bool {
    find(program).is_some()
}

struct Output {
    pipe: std::os::fd::OwnedFd,
    bytes: Vec<u8>,
}

impl Output {
    /// Takes what is there without waiting; false once the other end is closed.
    fn drain(&mut self) -> bool {
        let mut buffer = [0u8; 4096];
        loop {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => return false,
                Ok(length) => self.keep(&buffer[..length]),
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }

    fn keep(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        let surplus = self.bytes.len().saturating_sub(OUTPUT_BYTES_MAX);
        self.bytes.drain(..surplus);
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let lines: Vec<_> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        lines.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(program: &'static str, deadline: Duration) -> Tool {
        Tool {
            program,
            package: "coreutils",
            deadline,
            exit_code_max: 0,
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn output_is_returned() {
        assert_eq!(
            tool("echo", LONG).run(["one", "two; three"]).unwrap(),
            "one two; three"
        );
    }

    #[test]
    fn failure_carries_what_was_printed() {
        let error = tool("ls", LONG).run(["/does/not/exist"]).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let error = tool("no-such-tool", LONG).run([""; 0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no-such-tool is not installed; install the package coreutils"
        );
    }

    #[test]
    fn a_tool_that_hangs_is_killed() {
        let error = tool("sleep", Duration::from_millis(50))
            .run(["1000"])
            .unwrap_err();
        assert!(matches!(error, ToolError::Deadline { .. }), "{error}");
    }

    #[test]
    fn the_environment_is_empty_but_for_two_variables() {
        let printed = tool("env", LONG).run([""; 0]).unwrap();
        let names: Vec<_> = printed
            .split("; ")
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names.len(), 2, "{printed}");
    }

    #[test]
    fn of_much_output_the_end_is_kept() {
        let printed = tool("seq", LONG).run(["100000"]).unwrap();
        assert!(printed.ends_with("99999; 100000") && printed.len() < 2 * OUTPUT_BYTES_MAX);
    }
}

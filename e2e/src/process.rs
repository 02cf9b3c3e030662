//! The binary under test, and what the kernel accounts to a process.

use std::{
    env, fs,
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How often a process that can't wake us is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The `moorline` binary: `MOORLINE_BIN`, or the newest one built beside this test.
///
/// # Panics
/// When there is none: the tests can't say anything then.
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("MOORLINE_BIN") {
        return PathBuf::from(path);
    }
    let test = env::current_exe().expect("a test knows its own path");
    let profiles = test
        .ancestors()
        .find(|dir| dir.join("release").is_dir() || dir.join("debug").is_dir());
    // An older one would be tested in place of the code that is meant.
    let built = |path: &PathBuf| path.metadata().and_then(|found| found.modified()).ok();
    let found = profiles.and_then(|dir| {
        ["release/moorline", "debug/moorline"]
            .map(|name| dir.join(name))
            .into_iter()
            .filter(|path| path.is_file())
            .max_by_key(built)
    });
    found.expect("no moorline binary: cargo build --release, or set MOORLINE_BIN")
}

/// A part of Moorline, or a peer of it, running as a process of its own, killed with this value.
#[derive(Debug)]
pub struct Part {
    child: Child,
}

impl Part {
    /// Starts the binary with these arguments; what it logs is appended to `log`.
    pub fn start(args: &[String], log: &Path) -> Self {
        Self::start_program(&binary(), args, &[], log)
    }

    /// Starts another program than Moorline's, with additions to its environment.
    pub fn start_program(program: &Path, args: &[String], variables: &[(&str, &str)], log: &Path) -> Self {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("open the log");
        let child = Command::new(program)
            .args(args)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for the tests, which end their parts in an order of their own.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", program.display()));
        Self { child }
    }

    /// How the process ended, if it did.
    ///
    /// # Errors
    /// When the kernel doesn't tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("look after a process")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until somebody accepts connections at a unix socket that this process is to make.
    ///
    /// # Errors
    /// When the process ends before, or the time is up.
    pub fn wait_for_socket(&mut self, socket: &Path, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            match UnixStream::connect(socket) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("connect to {}", socket.display()));
                }
                Err(_) => {}
            }
            if let Some(status) = self.child.try_wait().context("look after moorline")? {
                bail!(
                    "moorline ended with {status} before it listened on {}",
                    socket.display()
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("process ids fit"));
        kill(pid, signal).expect("signal the process");
    }

    /// Waits for the process's own end and gives its exit code; `None` for one that a signal ended.
    ///
    /// # Panics
    /// When it takes longer than `limit`.
    pub fn wait_exit(mut self, limit: Duration) -> Option<i32> {
        crate::wait::until("the process to end", limit, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            other => Err(format!("{other:?}")),
        })
    }

    /// Its exit code, if it has ended.
    ///
    /// # Errors
    /// When the system can't tell.
    pub fn try_ended(&mut self) -> anyhow::Result<Option<i32>> {
        let status = self.child.try_wait().context("look after moorline")?;
        Ok(status.and_then(|status| status.code()))
    }

    /// Asks the process to end, as an init system would, and waits for it.
    ///
    /// # Errors
    /// When it takes too long (it is killed then) or ends with an error.
    pub fn terminate(mut self, limit: Duration) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("process ids are small")?);
        kill(pid, Signal::SIGTERM).context("send SIGTERM")?;
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().context("wait for moorline")? {
                if !status.success() {
                    bail!("moorline ended with {status} after SIGTERM");
                }
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        bail!("moorline still ran {limit:?} after SIGTERM")
    }

    /// Ends the process at once, as the kernel would.
    pub fn kill_9(mut self) {
        self.child.kill().expect("kill it");
        self.child.wait().expect("wait for it");
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already, unless the test failed before.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Resources a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Resident memory now, in bytes.
    pub rss_bytes: u64,
    /// The most resident memory it ever had, in bytes.
    pub peak_rss_bytes: u64,
    /// Processor time, user and system, in seconds.
    pub cpu_seconds: f64,
}

/// Reads a process's usage from `/proc`.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let dir = Path::new("/proc").join(pid.to_string());
    let status =
        fs::read_to_string(dir.join("status")).with_context(|| format!("read status of process {pid}"))?;
    let stat = fs::read_to_string(dir.join("stat")).with_context(|| format!("read stat of process {pid}"))?;
    // The name may hold spaces and parentheses; the fields that count come behind the last one.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let (Some(user), Some(system)) = (fields.get(11), fields.get(12)) else {
        bail!("unreadable stat of process {pid}")
    };
    let ticks = user.parse::<u64>()? + system.parse::<u64>()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(Usage {
        rss_bytes: kib(&status, "VmRSS:")? * 1024,
        peak_rss_bytes: kib(&status, "VmHWM:")? * 1024,
        cpu_seconds: ticks as f64 / per_second as f64,
    })
}

fn kib(status: &str, field: &str) -> anyhow::Result<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .with_context(|| format!("no {field}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Runs the binary to its end and gives exit code, standard output and standard error.
pub fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary())
        .args(args)
        .output()
        .expect("start moorline");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

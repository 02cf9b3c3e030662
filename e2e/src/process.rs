//! The binary under test, and what the kernel accounts to a process.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};

/// The `moorline` binary: `MOORLINE_BIN`, or the one built beside this test.
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
    let found = profiles.and_then(|dir| {
        ["release/moorline", "debug/moorline"]
            .map(|name| dir.join(name))
            .into_iter()
            .find(|path| path.is_file())
    });
    found.expect("no moorline binary: cargo build --release, or set MOORLINE_BIN")
}

/// A part of Moorline running as a process of its own, killed with this value.
#[derive(Debug)]
pub struct Part {
    child: Child,
}

impl Part {
    /// Starts the binary with these arguments; what it logs is appended to `log`.
    pub fn start(args: &[String], log: &Path) -> Self {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("open the log");
        let child = Command::new(binary())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start moorline");
        Self { child }
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

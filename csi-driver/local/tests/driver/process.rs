//! The driver as a process of its own, which a failpoint can kill and a test can stop.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use moorline_driver_local::{BackendKind, Config};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    crash::driver_program,
    support::{LONG, Scratch},
};

/// A running driver; it is killed when it goes out of scope.
pub(crate) struct Process {
    child: Option<Child>,
    /// What the driver logged.
    log: PathBuf,
}

impl Process {
    /// `failpoints`: the driver's environment variable of that name.
    pub(crate) fn start(scratch: &Scratch, config: &Config, failpoints: &str) -> Self {
        let pool = &config.pools[0];
        let backend = match pool.backend {
            BackendKind::Dir => "dir",
            BackendKind::Loop => "loop",
            BackendKind::Btrfs => "btrfs",
        };
        let log = scratch.path("driver.log");
        let child = Command::new(driver_program())
            .arg(format!("--endpoint={}", config.serving.endpoint))
            .arg(format!("--node-id={}", config.node_id))
            .arg(format!("--pool-dir={}", pool.directory.display()))
            .arg(format!("--target-root={}", config.target_root.display()))
            .arg(format!("--backend={backend}"))
            .args(
                pool.capacity_limit_bytes
                    .map(|bytes| format!("--capacity={bytes}")),
            )
            .args(config.is_attachable.then_some("--attachable"))
            .env("FAILPOINTS", failpoints)
            .env("RUST_LOG", "info")
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn();
        Process {
            child: Some(child.unwrap()),
            log,
        }
    }

    fn pid(&self) -> Pid {
        let child = self.child.as_ref().expect("it was not waited for");
        Pid::from_raw(child.id().try_into().unwrap())
    }

    /// Waits for its end; how it came.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let pid = self.pid();
        let mut child = self.child.take().expect("it was not waited for");
        let mut waiting = tokio::task::spawn_blocking(move || child.wait());
        let Ok(ended) = tokio::time::timeout(LONG, &mut waiting).await else {
            kill(pid, Signal::SIGKILL).unwrap(); // Not reaped yet: the number is still its own.
            waiting.await.unwrap().unwrap();
            panic!("the driver did not end:\n{}", self.log());
        };
        ended.unwrap().unwrap()
    }

    /// Waits until it was ended by SIGKILL, and nothing else.
    pub(crate) async fn was_killed(self) {
        let log = self.log.clone();
        let ended = self.ended().await;
        let log = || fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(ended.signal(), Some(9), "{ended}:\n{}", log());
    }

    /// Ends it as an administrator would.
    pub(crate) async fn stop(self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let log = self.log.clone();
        let ended = self.ended().await;
        let log = || fs::read_to_string(&log).unwrap_or_default();
        assert!(ended.success(), "{ended}:\n{}", log());
    }

    /// Ends it with SIGKILL, whatever it does.
    pub(crate) async fn kill(self) {
        kill(self.pid(), Signal::SIGKILL).unwrap();
        self.was_killed().await;
    }

    /// What it has logged since its start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok(); // It may have ended by itself.
            child.wait().ok(); // As above.
        }
    }
}

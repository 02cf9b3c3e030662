//! A cluster in a process of its own, started from the binary that users run, and gone again with this value.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{kubectl::Kubectl, machine, process};

/// How long a cluster may take until it is ready; generous, because tests share the machine.
const READY: Duration = Duration::from_secs(60);

/// A running `moorline up` on a temporary state directory.
#[derive(Debug)]
pub struct TestCluster {
    dir: Option<tempfile::TempDir>,
    listen: SocketAddr,
    args: Vec<String>,
    child: Option<Child>,
    log: PathBuf,
}

impl TestCluster {
    /// Starts a cluster with these flags of `moorline up`, and waits until it is ready.
    pub fn start(args: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("moorline-e2e-")
            .tempdir()
            .expect("make a temporary directory");
        let log = dir.path().join("up.log");
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut cluster = Self {
            dir: Some(dir),
            listen: free_address(),
            args,
            child: None,
            log,
        };
        cluster.up();
        cluster
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.root().join("state")
    }

    /// The temporary directory around the state directory.
    pub fn root(&self) -> &Path {
        self.dir.as_ref().expect("there until dropped").path()
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the cluster runs").id()
    }

    /// Starts the cluster (again) and waits until it says that it is ready.
    pub fn up(&mut self) {
        if let Err(error) = self.try_up() {
            panic!("{error:#}\n--- log of moorline up ---\n{}", self.log_text());
        }
    }

    /// Starts the cluster (again) without waiting for more than the process itself.
    pub fn spawn(&mut self) -> anyhow::Result<mpsc::Receiver<String>> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .context("open the log")?;
        let mut child = Command::new(process::binary())
            .args([
                "up",
                "--listen",
                &self.listen.to_string(),
                "--node-name",
                "n1",
                "--state-dir",
            ])
            .arg(self.state())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("start moorline up")?;
        let stdout = child.stdout.take().context("no output")?;
        self.child = Some(child);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody may be listening any more; the pipe must be drained all the same.
                sender.send(line).ok();
            }
        });
        Ok(lines)
    }

    fn try_up(&mut self) -> anyhow::Result<()> {
        let lines = self.spawn()?;
        loop {
            match lines.recv_timeout(READY) {
                Ok(line) if line.starts_with("ready in") => return Ok(()),
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("not ready within {READY:?}"),
                Err(mpsc::RecvTimeoutError::Disconnected) => bail!("moorline up ended before it was ready"),
            }
        }
    }

    /// What the cluster logged so far, over all its starts.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends the process as the kernel's out-of-memory killer would.
    pub fn kill_9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill moorline up");
            child.wait().expect("wait for moorline up");
        }
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().expect("process ids fit"));
        kill(pid, signal).expect("signal moorline up");
    }

    /// Waits for the process's end and gives its exit code.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<i32> {
        let mut child = self.child.take().expect("the cluster runs");
        crate::wait::until("moorline up to end", limit, || match child.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            other => Err(format!("{other:?}")),
        })
    }

    /// Drains and stops the process; pods go on.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let code = self.wait_exit(Duration::from_secs(40));
        assert_eq!(code, Some(0), "drain\n{}", self.log_text());
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state().join("admin.kubeconfig")
    }

    /// Stock kubectl for this cluster.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.kubeconfig())
    }

    /// A client that comes in over TLS.
    pub async fn client(&self) -> kube::Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).expect("read the kubeconfig");
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .expect("use the kubeconfig");
        kube::Client::try_from(config).expect("connect")
    }

    /// Stops everything and asserts that the machine holds nothing of it any more.
    pub fn finish(mut self) {
        self.stop();
        let (code, stdout, stderr) = self.down();
        assert_eq!(code, Some(0), "moorline down: {stdout}{stderr}");
        let held = machine::held_below(self.root());
        assert!(held.is_empty(), "left behind: {held:?}\n{}", self.log_text());
    }

    fn down(&self) -> (Option<i32>, String, String) {
        if !machine::is_root() {
            return (Some(0), String::new(), String::new());
        }
        process::run(&[
            "down",
            "--state-dir",
            self.state().to_str().expect("temporary paths are UTF-8"),
        ])
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Also after a failed test: nothing of it may stay.
            child.kill().ok();
            child.wait().ok();
        }
        if self.state().is_dir() {
            let (code, _, stderr) = self.down();
            if code != Some(0) {
                eprintln!("moorline down after the test: {stderr}");
            }
        }
        if std::thread::panicking() {
            let kept = std::env::temp_dir().join("moorline-e2e-failed.log");
            fs::copy(&self.log, &kept).ok();
            eprintln!(
                "--- log of moorline up (kept in {}) ---\n{}",
                kept.display(),
                tail(&self.log_text(), 80)
            );
        }
    }
}

/// An address that nobody listens on now; restarts come back to it, as clients expect.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    listener.local_addr().expect("a bound listener has an address")
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

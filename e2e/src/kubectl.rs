//! Stock kubectl against a cluster.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{machine, wait};

/// True if kubectl is on the path.
pub fn is_installed() -> bool {
    machine::has_tool("kubectl")
}

/// kubectl with a kubeconfig and a cache directory of its own.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

/// What a call gave.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Kubectl {
    /// For the cluster behind `kubeconfig`; keeps its discovery cache beside that file.
    pub fn new(kubeconfig: &Path) -> Self {
        Self {
            program: PathBuf::from("kubectl"),
            kubeconfig: kubeconfig.to_owned(),
            cache: kubeconfig.with_file_name("kubectl-cache"),
        }
    }

    /// The same with another kubectl than the one on the path.
    #[must_use]
    pub fn of(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// A command with the connection's flags set.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(args);
        command
    }

    /// Runs a call and gives whatever came of it.
    pub fn call(&self, args: &[&str]) -> Answer {
        let output = self.command(args).output().expect("start kubectl");
        Answer {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a call that has to succeed, and gives its output without the last line break.
    pub fn run(&self, args: &[&str]) -> String {
        let answer = self.call(args);
        assert_eq!(
            answer.code,
            Some(0),
            "kubectl {args:?}: {}{}",
            answer.stdout,
            answer.stderr
        );
        answer.stdout.trim_end().to_owned()
    }

    /// Applies a manifest given as text.
    pub fn apply(&self, manifest: &str) -> Answer {
        self.with_input(&["apply", "-f", "-"], manifest)
    }

    /// Applies a manifest that has to be accepted.
    pub fn apply_ok(&self, manifest: &str) -> String {
        let answer = self.apply(manifest);
        assert_eq!(
            answer.code,
            Some(0),
            "kubectl apply: {}{}\n{manifest}",
            answer.stdout,
            answer.stderr
        );
        answer.stdout
    }

    /// Runs a call that reads standard input, and may write before it has read all of it.
    pub fn with_input(&self, args: &[&str], input: &str) -> Answer {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start kubectl");
        let mut stdin = child.stdin.take().expect("piped");
        let output = std::thread::scope(|scope| {
            let feeding = scope.spawn(move || stdin.write_all(input.as_bytes()));
            let output = child.wait_with_output().expect("kubectl ends");
            feeding
                .join()
                .expect("no panic")
                .expect("kubectl reads its input");
            output
        });
        Answer {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// One field of an object; empty if the object or the field is missing.
    pub fn field(&self, resource: &str, name: &str, jsonpath: &str) -> String {
        let output = format!("jsonpath={jsonpath}");
        self.call(&["get", resource, name, "-o", &output, "--ignore-not-found"])
            .stdout
    }

    /// Waits until a field has a value.
    pub fn wait_field(&self, resource: &str, name: &str, jsonpath: &str, value: &str, limit: Duration) {
        wait::until(&format!("{resource}/{name} {jsonpath} = {value}"), limit, || {
            let seen = self.field(resource, name, jsonpath);
            if seen == value {
                return Ok(());
            }
            let events = self.call(&["events", "--types=Warning", "--no-headers"]).stdout;
            Err(format!("{seen:?}; warnings:\n{events}"))
        });
    }

    /// Waits until an event of an object has a reason, and gives its message.
    pub fn wait_event(&self, name: &str, reason: &str, limit: Duration) -> String {
        let selector = format!("involvedObject.name={name},reason={reason}");
        wait::until(&format!("event {reason} of {name}"), limit, || {
            let path = "jsonpath={.items[0].message}";
            let seen = self
                .call(&["get", "events", "--field-selector", &selector, "-o", path])
                .stdout;
            if seen.is_empty() {
                Err(self.call(&["events"]).stdout)
            } else {
                Ok(seen)
            }
        })
    }
}

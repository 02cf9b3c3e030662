//! Containers as the shim has them: started through a helper, logged, stopped, their exits recorded.
//!
//! ```text
//!            Start            helper: started             process ends
//! (unknown) -------> starting ----------------> running -----------------> exited
//!                        |   helper: failed, killed, too late               ^
//!                        +--------------------------------------------------+
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::container::{ContainerId, ContainerState};
use crate::layout::ContainerDir;
use crate::records::{self, ContainerRecord, ProcessIdentity, Progress};
use crate::shim::attach::Attachment;
use crate::shim::connections::Asker;
use crate::shim::helper::Outcome;
use crate::shim::log::{FILE_LIMIT_BYTES, LineCutter, LogFile, Stream};
use crate::shim::protocol::{FromShim, Reply};
use crate::shim::pump::{Flow, Pump};
use crate::shim::server::{Job, Server, monotonic, split_exit};
use crate::shim::{SHIM_NAME, console};

/// A helper that takes longer is stuck in the kernel.
pub(crate) const HELPER_LIMIT: Duration = Duration::from_secs(120);

/// Reason and exit code of a container whose process never came to life, as the kubelet knows them.
const START_ERROR: (&str, i32) = ("StartError", 128);

/// A container in the shim's hands.
#[derive(Debug)]
pub(crate) struct Managed {
    pub(crate) dir: ContainerDir,
    pub(crate) progress: Progress,
    outputs: Vec<(Pump, LineCutter)>,
    log: Option<LogFile>,
    console: Option<UnixListener>,
    /// Held so that the container's standard input doesn't end.
    pub(crate) stdin: Option<OwnedFd>,
    /// It ends when the first who types has no more to say.
    pub(crate) stdin_once: bool,
    is_terminal: bool,
    pub(crate) attached: Vec<Attachment>,
    helper: Option<u32>,
    /// When to kill: the helper that is late, or the process whose grace is over.
    kill_at: Option<Duration>,
    starters: Vec<Asker>,
    stoppers: Vec<Asker>,
    /// A stop that came while starting.
    stop_when_started: Option<(i32, Duration)>,
}

impl Managed {
    /// The first process while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.progress.process.as_ref().map(|process| process.pid)
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.kill_at
    }

    pub(crate) fn outputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.outputs
            .iter()
            .map(|(pump, _)| pump.fd())
            .chain(self.console.iter().map(AsFd::as_fd))
    }

    /// The other side of the container's terminal, if it has one.
    pub(crate) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        let pump = self.outputs.first().filter(|_| self.is_terminal);
        pump.map(|(pump, _)| pump.fd())
    }

    fn is_starting(&self) -> bool {
        self.helper.is_some()
    }
}

/// Starts this executable again under the shim's name.
pub(crate) fn helper_command(role: &str, path: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(SHIM_NAME).arg(role).arg(path).env_clear();
    command
}

impl Server {
    pub(crate) fn start(&mut self, asker: Asker, id: ContainerId) {
        if self.is_ending() {
            return self.reply(
                asker,
                Reply::Failed {
                    why: "the sandbox is being stopped".to_owned(),
                },
            );
        }
        if let Some(known) = self.containers.get_mut(&id) {
            if known.is_starting() {
                return known.starters.push(asker);
            }
            let reply = match known.progress.reason.as_str() {
                "StartError" => Reply::Failed {
                    why: known.progress.message.clone(),
                },
                _ => Reply::Done,
            };
            return self.reply(asker, reply);
        }
        let dir = self.dir.container(&id);
        let record = match records::read::<ContainerRecord>(&dir.record()) {
            Ok(Some(record)) => record,
            Ok(None) => {
                return self.reply(
                    asker,
                    Reply::Failed {
                        why: "it has no record".to_owned(),
                    },
                );
            }
            Err(error) => {
                return self.reply(
                    asker,
                    Reply::Failed {
                        why: error.to_string(),
                    },
                );
            }
        };
        match self.spawn(dir, &record) {
            Ok((mut managed, helper)) => {
                managed.starters.push(asker);
                self.jobs.insert(helper, Job::Start(id.clone()));
                self.containers.insert(id, managed);
            }
            Err(error) => self.reply(
                asker,
                Reply::Failed {
                    why: error.to_string(),
                },
            ),
        }
    }

    fn spawn(&self, dir: ContainerDir, record: &ContainerRecord) -> io::Result<(Managed, u32)> {
        let config = &record.config;
        let log = if config.log_path.as_os_str().is_empty() {
            None
        } else {
            let path = self.sandbox.config.log_directory.join(&config.log_path);
            let open = LogFile::open(&path, FILE_LIMIT_BYTES);
            Some(open.map_err(|error| io::Error::other(format!("open log {}: {error}", path.display())))?)
        };
        let mut command = helper_command("start", &dir.path);
        let mut outputs = Vec::new();
        let mut held = None;
        let mut terminal = None;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if config.tty {
            terminal = Some(console::listen(&dir.path)?);
        } else {
            let (out, out_writer) = io::pipe()?;
            let (err, err_writer) = io::pipe()?;
            outputs.push((Pump::new(out.into())?, LineCutter::new(Stream::Stdout)));
            outputs.push((Pump::new(err.into())?, LineCutter::new(Stream::Stderr)));
            command.stdout(out_writer).stderr(err_writer);
            if config.stdin {
                let (reader, writer) = io::pipe()?;
                command.stdin(reader);
                let writer: OwnedFd = writer.into();
                // Whoever types may be faster than the container reads.
                fcntl_setfl(&writer, fcntl_getfl(&writer)? | OFlags::NONBLOCK)?;
                held = Some(writer);
            }
        }
        let helper = command.spawn()?.id();
        let managed = Managed {
            dir,
            progress: Progress::created(),
            outputs,
            log,
            console: terminal,
            stdin: held,
            stdin_once: config.stdin_once,
            is_terminal: config.tty,
            attached: Vec::new(),
            helper: Some(helper),
            kill_at: Some(monotonic() + HELPER_LIMIT),
            starters: Vec::new(),
            stoppers: Vec::new(),
            stop_when_started: None,
        };
        Ok((managed, helper))
    }

    pub(crate) fn on_start_helper_end(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.helper = None;
        container.kill_at = None;
        let (result, warnings) = match records::read::<Outcome>(&container.dir.outcome()) {
            Ok(Some(Outcome::Started { process, warnings })) => (Ok(process), warnings),
            Ok(Some(Outcome::Failed { why, warnings })) => (Err(why), warnings),
            Ok(Some(Outcome::Executed { .. }) | None) => {
                (Err("its helper ended without a result".to_owned()), Vec::new())
            }
            Err(error) => (Err(error.to_string()), Vec::new()),
        };
        for text in warnings {
            self.tell_all(&FromShim::Warning {
                container: id.clone(),
                text,
            });
        }
        match result {
            Ok(process) => self.on_started(id, process),
            Err(why) => self.on_start_failed(id, why),
        }
    }

    fn on_started(&mut self, id: &ContainerId, process: ProcessIdentity) {
        self.take_console(id);
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.progress.state = ContainerState::Running;
        container.progress.process = Some(process);
        container.progress.started_at = Some(Timestamp::now());
        // Its loss in a power failure loses nothing: the process is lost with it.
        let written = records::write_volatile(&container.dir.progress(), &container.progress);
        let starters = std::mem::take(&mut container.starters);
        let stop = container.stop_when_started.take();
        self.warn_on_error(id, written);
        self.tell_change(id);
        for asker in starters {
            self.reply(asker, Reply::Done);
        }
        if let Some((signal, grace)) = stop {
            self.signal_to_stop(id, signal, grace);
        }
    }

    fn on_start_failed(&mut self, id: &ContainerId, why: String) {
        let cgroup = self.sandbox.cgroup.child(&id.0);
        for pid in cgroup.processes() {
            crate::process::kill_now(pid);
        }
        self.kill_strays();
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let (reason, code) = START_ERROR;
        container.progress.reason = reason.to_owned();
        container.progress.message.clone_from(&why);
        container.progress.exit_code = Some(code);
        let starters = std::mem::take(&mut container.starters);
        self.finish(id);
        for asker in starters {
            self.reply(asker, Reply::Failed { why: why.clone() });
        }
    }

    pub(crate) fn on_exit(&mut self, id: &ContainerId, status: i32) {
        let cgroup = self.sandbox.cgroup.child(&id.0);
        let oom_killed = cgroup.oom_kills() > 0;
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let (code, signal) = split_exit(status);
        let progress = &mut container.progress;
        progress.exit_code = Some(code);
        progress.signal = signal;
        progress.oom_killed = oom_killed && signal == Some(9);
        progress.reason = match (progress.oom_killed, code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            (false, _) => "Error",
        }
        .to_owned();
        self.finish(id);
    }

    /// The end of every container: the log is whole before the record, the record on disk before anybody hears.
    fn finish(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let now = Timestamp::now();
        let mut trouble = None;
        for (pump, mut cutter) in std::mem::take(&mut container.outputs) {
            let mut lines = Vec::new();
            let (stream, attached) = (cutter.stream(), &mut container.attached);
            pump.drain(|bytes| {
                attached.iter_mut().for_each(|one| one.take(stream, bytes));
                lines.extend(cutter.feed(bytes, now));
            });
            lines.extend(cutter.finish(now));
            trouble = trouble.or(container.log.as_mut().and_then(|log| log.write_or_drop(&lines)));
        }
        container.log = None;
        container.console = None;
        container.stdin = None;
        container.kill_at = None;
        container.progress.process = None;
        let exit_code = container.progress.exit_code.unwrap_or(0);
        container.attached.iter_mut().for_each(|one| one.end(exit_code));
        container.progress.state = ContainerState::Exited;
        container.progress.finished_at = Some(now);
        let written = records::write(&container.dir.progress(), &container.progress);
        let stoppers = std::mem::take(&mut container.stoppers);
        self.on_attached(id);
        self.warn(id, trouble);
        self.warn_on_error(id, written);
        self.clear_cgroup(id);
        self.tell_change(id);
        for asker in stoppers {
            self.reply(asker, Reply::Done);
        }
    }

    /// Without a process namespace of its own a container leaves processes behind.
    fn clear_cgroup(&self, id: &ContainerId) {
        let cgroup = self.sandbox.cgroup.child(&id.0);
        for pid in cgroup.processes() {
            crate::process::kill_now(pid);
        }
        // What is busy still is removed with the container.
        cgroup.remove();
    }

    pub(crate) fn stop(&mut self, asker: Asker, id: &ContainerId, signal: i32, grace: Duration) {
        match self.containers.get_mut(id) {
            Some(container) if container.is_starting() => {
                container.stoppers.push(asker);
                container.stop_when_started = Some((signal, grace));
            }
            Some(container) if container.pid().is_some() => {
                container.stoppers.push(asker);
                self.signal_to_stop(id, signal, grace);
            }
            Some(_) | None => self.reply(asker, Reply::Done),
        }
    }

    /// A later stop may only shorten the grace of an earlier one.
    fn signal_to_stop(&mut self, id: &ContainerId, signal: i32, grace: Duration) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let Some(pid) = container.pid() else { return };
        let at = monotonic() + grace;
        container.kill_at = Some(container.kill_at.map_or(at, |earlier| earlier.min(at)));
        if !grace.is_zero() {
            crate::process::signal(pid, signal);
        }
    }

    pub(crate) fn containers_on_time(&mut self, now: Duration) {
        for container in self.containers.values_mut() {
            if container.kill_at.is_some_and(|at| at <= now) {
                container.kill_at = None;
                if let Some(pid) = container.helper.or_else(|| container.pid()) {
                    crate::process::kill_now(pid);
                }
            }
        }
    }

    pub(crate) fn on_output(&mut self, id: &ContainerId) {
        self.take_console(id);
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let now = Timestamp::now();
        let (log, attached) = (&mut container.log, &mut container.attached);
        let mut trouble = None;
        container.outputs.retain_mut(|(pump, cutter)| {
            let mut lines = Vec::new();
            let stream = cutter.stream();
            let flow = pump.turn(|bytes| {
                attached.iter_mut().for_each(|one| one.take(stream, bytes));
                lines.extend(cutter.feed(bytes, now));
            });
            if flow == Flow::Ended {
                lines.extend(cutter.finish(now));
            }
            trouble = trouble
                .take()
                .or(log.as_mut().and_then(|log| log.write_or_drop(&lines)));
            flow == Flow::Open
        });
        self.warn(id, trouble);
    }

    fn take_console(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let Some(listener) = &container.console else {
            return;
        };
        match console::receive(listener).and_then(|terminal| terminal.map(Pump::new).transpose()) {
            Ok(Some(pump)) => {
                container.outputs.push((pump, LineCutter::new(Stream::Stdout)));
                container.console = None;
            }
            Ok(None) => {}
            Err(_) => container.console = None, // the container runs on without a log
        }
    }

    pub(crate) fn forget(&mut self, id: &ContainerId) {
        if self
            .containers
            .get(id)
            .is_some_and(|container| container.progress.state == ContainerState::Exited)
        {
            self.containers.remove(id);
        }
    }

    /// The container, if its first process runs.
    pub(crate) fn running(&self, id: &ContainerId) -> Option<&ContainerDir> {
        self.containers
            .get(id)
            .filter(|container| container.pid().is_some())
            .map(|container| &container.dir)
    }

    fn tell_change(&mut self, id: &ContainerId) {
        if let Some(container) = self.containers.get(id) {
            let progress = container.progress.clone();
            self.tell_all(&FromShim::Changed {
                container: id.clone(),
                progress,
            });
        }
    }

    fn warn_on_error(&mut self, id: &ContainerId, written: Result<(), crate::error::RuntimeError>) {
        self.warn(id, written.err().map(|error| error.to_string()));
    }

    fn warn(&mut self, id: &ContainerId, trouble: Option<String>) {
        if let Some(text) = trouble {
            self.tell_all(&FromShim::Warning {
                container: id.clone(),
                text,
            });
        }
    }
}

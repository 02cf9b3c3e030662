//! The shim's loop: one thread that waits for signals, sockets, output and deadlines, and does one thing at a time.
//!
//! Nothing here may wait for somebody else, but for the disk: records are written before they are told.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use rustix::time::{ClockId, clock_gettime};

use crate::container::ContainerId;
use crate::layout::SandboxDir;
use crate::records::{self, ProcessIdentity, SandboxRecord};
use crate::shim::connections::{Asker, Connection};
use crate::shim::containers::Managed;
use crate::shim::ending::Shutdown;
use crate::shim::execs::Session;
use crate::shim::protocol::{Reply, RequestBody};
use crate::shim::streams::Streams;
use crate::shim::{READY, control};

/// What a helper process is at work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Job {
    Start(ContainerId),
    Exec(u64),
}

/// Everything the shim knows.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) dir: SandboxDir,
    pub(crate) sandbox: SandboxRecord,
    pub(crate) containers: BTreeMap<ContainerId, Managed>,
    pub(crate) sessions: BTreeMap<u64, Session>,
    /// How sessions with streams ended that nobody has asked for yet; with the connection they belong to.
    pub(crate) ended: BTreeMap<String, (u64, Reply)>,
    /// Helpers at work, by process number.
    pub(crate) jobs: BTreeMap<u32, Job>,
    /// Ends of processes that no helper has told us of yet.
    pub(crate) early: BTreeMap<u32, i32>,
    pub(crate) next_session: u64,
    pub(crate) listener: UnixListener,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) next_connection: u64,
    pub(crate) shutdown: Shutdown,
}

/// What became ready.
enum Ready {
    Signal,
    Listener,
    Connection(u64),
    Output(ContainerId),
    Attached(ContainerId),
    Session(u64),
}

/// Serves the sandbox until it is shut down.
pub(crate) fn serve(path: &Path) -> io::Result<()> {
    let dir = SandboxDir {
        path: path.to_owned(),
    };
    let sandbox: SandboxRecord = records::read(&dir.record())
        .map_err(io::Error::other)?
        .ok_or_else(|| io::Error::other("the sandbox has no record"))?;
    set_up_pod(&sandbox, &dir)?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.add(Signal::SIGTERM);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut server = Server {
        listener: control::listen(path, control::SOCKET)?,
        dir,
        sandbox,
        containers: BTreeMap::new(),
        sessions: BTreeMap::new(),
        ended: BTreeMap::new(),
        jobs: BTreeMap::new(),
        early: BTreeMap::new(),
        next_session: 0,
        connections: BTreeMap::new(),
        next_connection: 0,
        shutdown: Shutdown::NotAsked,
    };
    let me = ProcessIdentity::of(std::process::id())?;
    records::write_volatile(&server.dir.shim(), &me).map_err(io::Error::other)?;
    announce()?;
    while !server.is_done() {
        server.turn(&signals)?;
    }
    Ok(())
}

/// The pod's own namespaces, which its containers inherit, and its place among the cgroups.
fn set_up_pod(sandbox: &SandboxRecord, dir: &SandboxDir) -> io::Result<()> {
    use nix::sched::{CloneFlags, unshare};
    let cgroup = sandbox.cgroup.child("shim");
    cgroup.make().and_then(|()| cgroup.join()).ok(); // only accounting is lost; the runtime has warned
    if !sandbox.config.host_ipc {
        unshare(CloneFlags::CLONE_NEWIPC)?;
    }
    if !sandbox.config.host_network {
        unshare(CloneFlags::CLONE_NEWUTS)?;
        let hostname = std::fs::read_to_string(dir.path.join("hostname"))?;
        rustix::system::sethostname(hostname.trim().as_bytes())?;
    }
    Ok(())
}

/// Tells the waiting runtime, and lets its pipe go.
fn announce() -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// Time that only goes forward, for deadlines.
pub(crate) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

impl Server {
    fn is_done(&self) -> bool {
        matches!(self.shutdown, Shutdown::Done)
            && self
                .connections
                .values()
                .all(|connection| connection.outbound.is_empty())
    }

    fn turn(&mut self, signals: &SignalFd) -> io::Result<()> {
        let ready = self.wait_for_something(signals)?;
        for one in ready {
            match one {
                Ready::Signal => self.on_signal(signals)?,
                Ready::Listener => self.accept(),
                Ready::Connection(id) => self.on_connection(id),
                Ready::Output(id) => self.on_output(&id),
                Ready::Attached(id) => self.on_attached(&id),
                Ready::Session(id) => self.on_session_output(id),
            }
        }
        let now = monotonic();
        self.containers_on_time(now);
        self.sessions_on_time(now);
        self.finish_shutdown();
        Ok(())
    }

    fn wait_for_something(&self, signals: &SignalFd) -> io::Result<Vec<Ready>> {
        let mut what = vec![Ready::Signal, Ready::Listener];
        let mut fds: Vec<PollFd<'_>> = vec![
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        for (id, connection) in &self.connections {
            let out = if connection.outbound.is_empty() {
                PollFlags::empty()
            } else {
                PollFlags::OUT
            };
            what.push(Ready::Connection(*id));
            fds.push(PollFd::new(&connection.stream, PollFlags::IN | out));
        }
        let mut add = |one: Ready, fd| {
            what.push(one);
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        };
        for (id, container) in &self.containers {
            container
                .outputs()
                .for_each(|fd: BorrowedFd<'_>| add(Ready::Output(id.clone()), fd));
        }
        for (id, session) in &self.sessions {
            session.outputs().for_each(|fd| add(Ready::Session(*id), fd));
        }
        for (id, container) in &self.containers {
            for (fd, flags) in container.attached_polls() {
                what.push(Ready::Attached(id.clone()));
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        let timeout = self.next_deadline().map(|at| {
            let left = at.saturating_sub(monotonic());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let happened: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        Ok(what
            .into_iter()
            .zip(happened)
            .filter_map(|(one, ready)| ready.then_some(one))
            .collect())
    }

    fn next_deadline(&self) -> Option<Duration> {
        let containers = self.containers.values().filter_map(Managed::deadline);
        containers
            .chain(self.sessions.values().filter_map(Session::deadline))
            .min()
    }

    /// All ends are collected before any is acted on: a helper and the process it made may end together.
    fn on_signal(&mut self, signals: &SignalFd) -> io::Result<()> {
        while let Some(signal) = signals.read_signal()? {
            if i32::try_from(signal.ssi_signo) == Ok(Signal::SIGTERM as i32) {
                self.begin_shutdown(None);
            }
        }
        let mut ended = Vec::new();
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => ended.push((number(pid), exit_code(status))),
                Ok(None) | Err(Errno::CHILD) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.early.extend(ended);
        let helpers: Vec<u32> = self
            .early
            .keys()
            .filter(|pid| self.jobs.contains_key(pid))
            .copied()
            .collect();
        for pid in helpers {
            self.early.remove(&pid);
            match self.jobs.remove(&pid) {
                Some(Job::Start(container)) => self.on_start_helper_end(&container),
                Some(Job::Exec(session)) => self.on_exec_helper_end(session),
                None => {}
            }
        }
        self.match_ends();
        if self.jobs.is_empty() {
            // Orphans of containers, and the OCI library's processes.
            self.early.clear();
        }
        Ok(())
    }

    /// Gives ends to the containers and commands whose processes are known by now.
    fn match_ends(&mut self) {
        let containers: Vec<(ContainerId, u32)> = self
            .containers
            .iter()
            .filter_map(|(id, container)| Some((id.clone(), container.pid()?)))
            .collect();
        for (id, pid) in containers {
            if let Some(code) = self.early.remove(&pid) {
                self.on_exit(&id, code);
            }
        }
        let sessions: Vec<(u64, u32)> = self
            .sessions
            .iter()
            .filter_map(|(id, session)| Some((*id, session.pid()?)))
            .collect();
        for (id, pid) in sessions {
            if let Some(code) = self.early.remove(&pid) {
                self.on_session_exit(id, code);
            }
        }
    }

    pub(crate) fn on_request(&mut self, asker: Asker, body: RequestBody) {
        match body {
            RequestBody::Start { container } => self.start(asker, container),
            RequestBody::Stop {
                container,
                signal,
                grace_ms,
            } => {
                self.stop(asker, &container, signal, Duration::from_millis(grace_ms));
            }
            RequestBody::Exec {
                container,
                command,
                timeout_ms,
            } => {
                self.exec(asker, &container, command, timeout_ms.map(Duration::from_millis));
            }
            RequestBody::OpenExec {
                container,
                session,
                command,
                stdin,
                tty,
            } => {
                let streams = Streams {
                    name: session,
                    stdin,
                    tty,
                };
                self.open_exec(asker, &container, command, streams);
            }
            RequestBody::Attach {
                container,
                session,
                stdin,
            } => self.attach(asker, &container, session, stdin),
            RequestBody::Resize {
                container,
                columns,
                rows,
            } => self.resize(asker, &container, columns, rows),
            RequestBody::WaitExec { session } => self.wait_exec(asker, session),
            RequestBody::KillExec { session } => {
                self.kill_exec(&session);
                self.reply(asker, Reply::Done);
            }
            RequestBody::Forget { container } => {
                self.forget(&container);
                self.reply(asker, Reply::Done);
            }
            RequestBody::Shutdown => self.begin_shutdown(Some(asker)),
        }
    }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// Exit status, or 128 and the signal, or-ed with the marker bit so that both can be told apart.
fn exit_code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => SIGNALLED | signal,
        (None, None) => SIGNALLED,
    }
}

/// Marks an end by a signal.
pub(crate) const SIGNALLED: i32 = 1 << 16;

/// Exit code as shells count, and the signal if one ended the process.
pub(crate) fn split_exit(code: i32) -> (i32, Option<i32>) {
    if code & SIGNALLED == 0 {
        (code, None)
    } else {
        (128 + (code & 0xff), Some(code & 0xff))
    }
}

//! Commands run in containers: probes, hooks, and whatever else the kubelet wants to know.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use crate::container::ContainerId;
use crate::records;
use crate::shim::connections::Asker;
use crate::shim::containers::{HELPER_LIMIT, helper_command};
use crate::shim::helper::{ExecOrder, Outcome};
use crate::shim::protocol::{EXEC_OUTPUT_LIMIT_BYTES, Reply};
use crate::shim::pump::{Flow, Pump};
use crate::shim::server::{Job, Server, monotonic, split_exit};
use crate::shim::streams::Streamed;

/// Commands at once in one pod.
const SESSIONS_MAX: usize = 64;

/// One command.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) kind: Kind,
    spool: PathBuf,
    helper: Option<u32>,
    process: Option<u32>,
    kill_at: Option<Duration>,
    has_timeout: bool,
    was_killed: bool,
}

/// What becomes of its output.
#[derive(Debug)]
pub(crate) enum Kind {
    /// It is kept for who asked.
    Kept {
        asker: Asker,
        stdout: Output,
        stderr: Output,
    },
    /// It doesn't come this way.
    Streamed(Streamed),
}

#[derive(Debug)]
pub(crate) struct Output {
    pump: Option<Pump>,
    bytes: Vec<u8>,
}

impl Output {
    fn pipe() -> io::Result<(Self, io::PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        Ok((
            Self {
                pump: Some(Pump::new(reader.into())?),
                bytes: Vec::new(),
            },
            writer,
        ))
    }

    /// Beyond the limit output is read and dropped, so that the command doesn't block on it.
    fn turn(&mut self) {
        let Self { pump, bytes } = self;
        let flow = pump.as_ref().map(|pump| pump.turn(|chunk| keep(bytes, chunk)));
        if flow == Some(Flow::Ended) {
            self.pump = None;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let Self { pump, bytes } = &mut self;
        if let Some(pump) = pump {
            pump.drain(|chunk| keep(bytes, chunk));
        }
        self.bytes
    }
}

fn keep(bytes: &mut Vec<u8>, chunk: &[u8]) {
    let room = EXEC_OUTPUT_LIMIT_BYTES.saturating_sub(bytes.len());
    bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
}

impl Session {
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.kill_at
    }

    pub(crate) fn outputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let kept = match &self.kind {
            Kind::Kept { stdout, stderr, .. } => [Some(stdout), Some(stderr)],
            Kind::Streamed(_) => [None, None],
        };
        kept.into_iter()
            .flatten()
            .filter_map(|output| output.pump.as_ref().map(Pump::fd))
    }

    /// Kills the command, once its helper has told which process it is: that takes a moment.
    pub(crate) fn kill(&mut self) {
        self.was_killed = true;
        if let (None, Some(process)) = (self.helper, self.process) {
            crate::process::kill_tree(process);
        }
    }

    /// Its time is over, and its helper's too.
    fn kill_late(&mut self) {
        self.kill_at = None;
        if let Some(helper) = self.helper {
            crate::process::kill_now(helper);
        }
        self.kill();
    }
}

impl Session {
    /// Sets the helper to work.
    pub(crate) fn spawn(
        kind: Kind,
        spool: PathBuf,
        order: &ExecOrder,
        [stdin, stdout, stderr]: [Stdio; 3],
        timeout: Option<Duration>,
    ) -> io::Result<Session> {
        records::write_volatile(&spool.join("order.json"), order).map_err(io::Error::other)?;
        let mut helper = helper_command("exec", &spool);
        let helper = helper.stdin(stdin).stdout(stdout).stderr(stderr).spawn()?.id();
        Ok(Session {
            kind,
            spool,
            helper: Some(helper),
            process: None,
            kill_at: Some(monotonic() + timeout.unwrap_or(HELPER_LIMIT)),
            has_timeout: timeout.is_some(),
            was_killed: false,
        })
    }
}

impl Server {
    pub(crate) fn exec(
        &mut self,
        asker: Asker,
        container: &ContainerId,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) {
        if let Some(refusal) = self.refuse_exec(container) {
            return self.reply(asker, refusal);
        }
        let number = self.next_session;
        let spool = self.dir.container(container).path.join(format!("exec-{number}"));
        match self.spawn_kept(asker, container, spool, command, timeout) {
            Ok(session) => self.add_session(session),
            Err(error) => self.reply(
                asker,
                Reply::Failed {
                    why: error.to_string(),
                },
            ),
        }
    }

    /// Why no command can be run there.
    pub(crate) fn refuse_exec(&self, container: &ContainerId) -> Option<Reply> {
        if self.running(container).is_none() || self.is_ending() {
            return Some(Reply::NotRunning);
        }
        (self.sessions.len() >= SESSIONS_MAX).then(|| Reply::Failed {
            why: "too many commands at once".to_owned(),
        })
    }

    pub(crate) fn add_session(&mut self, session: Session) {
        let number = self.next_session;
        self.next_session += 1;
        if let Some(helper) = session.helper {
            self.jobs.insert(helper, Job::Exec(number));
        }
        self.sessions.insert(number, session);
    }

    fn spawn_kept(
        &self,
        asker: Asker,
        container: &ContainerId,
        spool: PathBuf,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> io::Result<Session> {
        fs::create_dir(&spool)?;
        let order = ExecOrder {
            container: self.dir.container(container).path,
            command,
            tty: false,
        };
        let result = Output::pipe().and_then(|(stdout, out_writer)| {
            let (stderr, err_writer) = Output::pipe()?;
            let streams = [Stdio::null(), out_writer.into(), err_writer.into()];
            let kind = Kind::Kept {
                asker,
                stdout,
                stderr,
            };
            Session::spawn(kind, spool.clone(), &order, streams, timeout)
        });
        if result.is_err() {
            fs::remove_dir_all(&spool).ok(); // goes with the container at the latest
        }
        result
    }

    pub(crate) fn on_exec_helper_end(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        session.helper = None;
        let why = match records::read::<Outcome>(&session.spool.join("outcome.json")) {
            Ok(Some(Outcome::Executed { pid })) => {
                session.process = Some(pid);
                if session.was_killed {
                    crate::process::kill_tree(pid);
                } else if !session.has_timeout {
                    session.kill_at = None;
                }
                return;
            }
            Ok(Some(Outcome::Failed { why, .. })) => why,
            Ok(Some(Outcome::Started { .. }) | None) => "its helper ended without a result".to_owned(),
            Err(error) => error.to_string(),
        };
        self.kill_strays();
        if let Some(session) = self.sessions.remove(&number) {
            fs::remove_dir_all(&session.spool).ok(); // goes with the container at the latest
            let reply = if session.was_killed {
                Reply::TimedOut
            } else {
                Reply::Failed { why }
            };
            match session.kind {
                Kind::Kept { asker, .. } => self.reply(asker, reply),
                Kind::Streamed(streamed) => self.tell_end(streamed, reply),
            }
        }
    }

    pub(crate) fn on_session_output(&mut self, number: u64) {
        let kind = self.sessions.get_mut(&number).map(|session| &mut session.kind);
        if let Some(Kind::Kept { stdout, stderr, .. }) = kind {
            stdout.turn();
            stderr.turn();
        }
    }

    pub(crate) fn on_session_exit(&mut self, number: u64, status: i32) {
        let Some(session) = self.sessions.remove(&number) else {
            return;
        };
        fs::remove_dir_all(&session.spool).ok(); // goes with the container at the latest
        let (exit_code, _) = split_exit(status);
        let executed = |stdout, stderr| match session.was_killed {
            true => Reply::TimedOut,
            false => Reply::Executed {
                exit_code,
                stdout,
                stderr,
            },
        };
        match session.kind {
            Kind::Kept {
                asker,
                stdout,
                stderr,
            } => self.reply(asker, executed(stdout.finish(), stderr.finish())),
            Kind::Streamed(streamed) => self.tell_end(streamed, executed(Vec::new(), Vec::new())),
        }
    }

    pub(crate) fn sessions_on_time(&mut self, now: Duration) {
        for session in self.sessions.values_mut() {
            if session.kill_at.is_some_and(|at| at <= now) {
                session.kill_late();
            }
        }
    }
}

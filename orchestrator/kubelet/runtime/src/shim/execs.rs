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

/// Commands at once in one pod.
const SESSIONS_MAX: usize = 64;

/// One command.
#[derive(Debug)]
pub(crate) struct Session {
    asker: Asker,
    spool: PathBuf,
    helper: Option<u32>,
    process: Option<u32>,
    stdout: Output,
    stderr: Output,
    kill_at: Option<Duration>,
    has_timeout: bool,
    was_killed: bool,
}

#[derive(Debug)]
struct Output {
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
        [&self.stdout, &self.stderr]
            .into_iter()
            .filter_map(|output| output.pump.as_ref().map(Pump::fd))
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
        if self.running(container).is_none() || self.is_ending() {
            return self.reply(asker, Reply::NotRunning);
        }
        if self.sessions.len() >= SESSIONS_MAX {
            return self.reply(
                asker,
                Reply::Failed {
                    why: "too many commands at once".to_owned(),
                },
            );
        }
        let number = self.next_session;
        self.next_session += 1;
        match self.spawn_exec(asker, container, number, command, timeout) {
            Ok((session, helper)) => {
                self.jobs.insert(helper, Job::Exec(number));
                self.sessions.insert(number, session);
            }
            Err(error) => self.reply(
                asker,
                Reply::Failed {
                    why: error.to_string(),
                },
            ),
        }
    }

    fn spawn_exec(
        &self,
        asker: Asker,
        container: &ContainerId,
        number: u64,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> io::Result<(Session, u32)> {
        let dir = self.dir.container(container);
        let spool = dir.path.join(format!("exec-{number}"));
        fs::create_dir(&spool)?;
        let order = ExecOrder {
            container: dir.path,
            command,
        };
        let result = records::write_volatile(&spool.join("order.json"), &order)
            .map_err(io::Error::other)
            .and_then(|()| {
                let (stdout, out_writer) = Output::pipe()?;
                let (stderr, err_writer) = Output::pipe()?;
                let mut helper = helper_command("exec", &spool);
                let id = helper
                    .stdin(Stdio::null())
                    .stdout(out_writer)
                    .stderr(err_writer)
                    .spawn()?
                    .id();
                Ok((stdout, stderr, id))
            });
        let (stdout, stderr, helper) = match result {
            Ok(parts) => parts,
            Err(error) => {
                fs::remove_dir_all(&spool).ok(); // goes with the container at the latest
                return Err(error);
            }
        };
        let session = Session {
            asker,
            spool,
            helper: Some(helper),
            process: None,
            stdout,
            stderr,
            kill_at: Some(monotonic() + timeout.unwrap_or(HELPER_LIMIT)),
            has_timeout: timeout.is_some(),
            was_killed: false,
        };
        Ok((session, helper))
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
                    crate::process::kill_now(pid);
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
            self.reply(session.asker, reply);
        }
    }

    pub(crate) fn on_session_output(&mut self, number: u64) {
        if let Some(session) = self.sessions.get_mut(&number) {
            session.stdout.turn();
            session.stderr.turn();
        }
    }

    pub(crate) fn on_session_exit(&mut self, number: u64, status: i32) {
        let Some(session) = self.sessions.remove(&number) else {
            return;
        };
        fs::remove_dir_all(&session.spool).ok(); // goes with the container at the latest
        let reply = if session.was_killed {
            Reply::TimedOut
        } else {
            let (exit_code, _) = split_exit(status);
            Reply::Executed {
                exit_code,
                stdout: session.stdout.finish(),
                stderr: session.stderr.finish(),
            }
        };
        self.reply(session.asker, reply);
    }

    pub(crate) fn sessions_on_time(&mut self, now: Duration) {
        for session in self.sessions.values_mut() {
            if session.kill_at.is_some_and(|at| at <= now) {
                session.kill_at = None;
                session.was_killed = true;
                if let Some(pid) = session.helper.or(session.process) {
                    crate::process::kill_now(pid);
                }
            }
        }
    }
}

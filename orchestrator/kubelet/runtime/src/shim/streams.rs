//! Commands whose streams the runtime holds the other ends of: the shim only opens them, and tells how it ended.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::container::ContainerId;
use crate::shim::connections::Asker;
use crate::shim::execs::{Kind, Session};
use crate::shim::helper::ExecOrder;
use crate::shim::protocol::Reply;
use crate::shim::server::Server;

/// Directory of a session, in its container's.
pub(crate) fn directory(session: &str) -> String {
    format!("exec-{session}")
}

/// Which streams a command has.
#[derive(Debug)]
pub(crate) struct Streams {
    /// The session's name.
    pub(crate) name: String,
    pub(crate) stdin: bool,
    pub(crate) tty: bool,
}

/// Who is to hear of a command's end.
#[derive(Debug)]
pub(crate) struct Streamed {
    name: String,
    /// Of the runtime that has the other ends.
    connection: u64,
    waiter: Option<Asker>,
}

impl Server {
    pub(crate) fn open_exec(
        &mut self,
        asker: Asker,
        container: &ContainerId,
        command: Vec<String>,
        streams: Streams,
    ) {
        if let Some(refusal) = self.refuse_exec(container) {
            return self.reply(asker, refusal);
        }
        let dir = self.dir.container(container).path;
        let spool = dir.join(directory(&streams.name));
        let order = ExecOrder {
            container: dir,
            command,
            tty: streams.tty,
        };
        let kind = Kind::Streamed(Streamed {
            name: streams.name.clone(),
            connection: asker.connection,
            waiter: None,
        });
        let opened = open_streams(&spool, &streams);
        let spawned = opened.and_then(|opened| Session::spawn(kind, spool, &order, opened, None));
        let reply = match spawned {
            Ok(session) => {
                self.add_session(session);
                Reply::Done
            }
            Err(error) => Reply::Failed {
                why: error.to_string(),
            },
        };
        self.reply(asker, reply);
    }

    pub(crate) fn wait_exec(&mut self, asker: Asker, name: String) {
        if let Some((_, reply)) = self.ended.remove(&name) {
            return self.reply(asker, reply);
        }
        if self.wait_attached(asker, &name) {
            return;
        }
        match self.streamed_mut(&name) {
            Some(streamed) => streamed.waiter = Some(asker),
            None => self.reply(asker, Reply::NotRunning),
        }
    }

    pub(crate) fn kill_exec(&mut self, name: &str) {
        for session in self.sessions.values_mut() {
            if matches!(&session.kind, Kind::Streamed(streamed) if streamed.name == name) {
                session.kill();
            }
        }
        self.detach(|other, _| other == name);
    }

    /// Nobody hears of them any more.
    pub(crate) fn kill_execs_of(&mut self, connection: u64) {
        self.ended.retain(|_, (owner, _)| *owner != connection);
        for session in self.sessions.values_mut() {
            if matches!(&session.kind, Kind::Streamed(streamed) if streamed.connection == connection) {
                session.kill();
            }
        }
        self.detach(|_, owner| owner == connection);
    }

    pub(crate) fn tell_end(&mut self, streamed: Streamed, reply: Reply) {
        self.tell_end_of(streamed.waiter, streamed.name, streamed.connection, reply);
    }

    /// Now, or once somebody asks.
    pub(crate) fn tell_end_of(&mut self, waiter: Option<Asker>, name: String, connection: u64, reply: Reply) {
        match waiter {
            Some(asker) => self.reply(asker, reply),
            None if self.connections.contains_key(&connection) => {
                self.ended.insert(name, (connection, reply));
            }
            None => {}
        }
    }

    fn streamed_mut(&mut self, name: &str) -> Option<&mut Streamed> {
        self.sessions
            .values_mut()
            .find_map(|session| match &mut session.kind {
                Kind::Streamed(streamed) if streamed.name == name => Some(streamed),
                Kind::Streamed(_) | Kind::Kept { .. } => None,
            })
    }
}

/// The command's ends of its streams. A terminal is made in the container.
fn open_streams(spool: &Path, streams: &Streams) -> io::Result<[Stdio; 3]> {
    if streams.tty {
        return Ok([Stdio::null(), Stdio::null(), Stdio::null()]);
    }
    let stdin = if streams.stdin {
        open(spool, "stdin", OpenOptions::new().read(true))?
    } else {
        Stdio::null()
    };
    let mut write = OpenOptions::new();
    write.write(true);
    Ok([
        stdin,
        open(spool, "stdout", &mut write)?,
        open(spool, "stderr", &mut write)?,
    ])
}

/// Doesn't wait for the other end, which is there; programs expect streams that wait.
fn open(spool: &Path, name: &str, options: &mut OpenOptions) -> io::Result<Stdio> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file: fs::File = options.custom_flags(nonblocking).open(spool.join(name))?;
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file.into())
}

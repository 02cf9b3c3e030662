//! Commands with streams: their pipes or terminal are made here, the shim runs them.
//!
//! Pipes have names in the session's directory for as long as it takes the shim to open its ends. A terminal is made by
//! the OCI library inside of the container, and its other side sent to a socket in that directory.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, mknodat};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};
use tokio::sync::oneshot;

use super::link::{Link, LinkLost};
use super::open::{failed, make_private_dir};
use super::{Inner, blocking};
use crate::container::ContainerId;
use crate::error::RuntimeError;
use crate::exec::{ExecRequest, ExecSession, KillOnDrop, Resize, Sink, Source};
use crate::records::ContainerRecord;
use crate::shim::helper::CONSOLE;
use crate::shim::protocol::{Reply, RequestBody};
use crate::shim::{console, control, streams};

/// Our ends, as far as they are there before the command is.
enum Prepared {
    Pipes {
        /// Keeps the input from ending before our end of it is open.
        stdin: Option<fs::File>,
        stdout: Receiver,
        stderr: Receiver,
    },
    Terminal(UnixListener),
}

/// Our ends.
struct Streams {
    stdin: Option<Sink>,
    stdout: Source,
    stderr: Option<Source>,
    resize: Option<Resize>,
}

type Outcome = Result<Reply, LinkLost>;

/// What is asked of a container.
pub(super) enum Wish {
    /// To run a command.
    Exec(ExecRequest),
    /// To show what it says, and perhaps hear.
    Attach { stdin: bool },
}

impl Inner {
    pub(super) async fn open_session(
        self: &Arc<Self>,
        id: ContainerId,
        wish: Wish,
    ) -> Result<ExecSession, RuntimeError> {
        let (sandbox, link, entry) = self
            .find(&id)
            .ok_or_else(|| RuntimeError::ContainerNotFound(id.clone()))?;
        let link = link.ok_or_else(|| RuntimeError::ContainerNotRunning(id.clone()))?;
        let name = uuid::Uuid::new_v4().simple().to_string();
        let dir = self
            .container_dir(&sandbox, &id)
            .path
            .join(streams::directory(&name));
        let opened = self.open_streams(&entry.record, &link, &name, &dir, &wish).await;
        if opened.is_err() {
            blocking("removing a session", move || fs::remove_dir_all(dir).ok()).await?; // the shim may have been faster
        }
        opened
    }

    async fn open_streams(
        self: &Arc<Self>,
        record: &ContainerRecord,
        link: &Arc<Link>,
        name: &str,
        dir: &Path,
        wish: &Wish,
    ) -> Result<ExecSession, RuntimeError> {
        let id = &record.id;
        let (has_stdin, order) = order(wish, record, name.to_owned());
        let is_terminal = matches!(wish, Wish::Exec(request) if request.tty);
        let prepared = prepare(dir.to_owned(), is_terminal, has_stdin).await?;
        match link.request(order).await {
            Ok(Reply::Done) => {}
            outcome => return Err(failure(id, outcome)),
        }
        let kill = self.killer(link, name);
        let mut ended = self.end_of(link, name);
        let streams = match prepared {
            Prepared::Pipes {
                stdin,
                stdout,
                stderr,
            } => from_pipes(dir, stdin, stdout, stderr),
            Prepared::Terminal(listener) => {
                let terminal = terminal(listener, &mut ended).await;
                terminal.and_then(|master| from_terminal(master, has_stdin))
            }
        };
        let mut streams = match streams {
            Ok(streams) => streams,
            Err(error) => {
                drop(kill);
                // Why the command is gone says more than that its streams are.
                return Err(match ended.await {
                    outcome @ Ok(Reply::Failed { .. }) => failure(id, outcome),
                    _ => failed("open the streams in", dir)(error),
                });
            }
        };
        if matches!(wish, Wish::Attach { .. }) && record.config.tty {
            // All that a terminal says comes as one.
            streams.stderr = None;
            streams.resize = Some(self.resizer(link, id));
        }
        let id = id.clone();
        let ended = async move {
            match ended.await {
                Ok(Reply::Executed { exit_code, .. }) => Ok(exit_code),
                outcome => Err(failure(&id, outcome)),
            }
        };
        Ok(ExecSession {
            stdin: streams.stdin,
            stdout: Some(streams.stdout),
            stderr: streams.stderr,
            resize: streams.resize,
            ended: ended.boxed(),
            kill,
        })
    }

    fn killer(self: &Arc<Self>, link: &Arc<Link>, name: &str) -> KillOnDrop {
        let (tasks, link, session) = (self.tasks.clone(), link.clone(), name.to_owned());
        let runtime = tokio::runtime::Handle::current();
        KillOnDrop::new(move || {
            let kill = async move {
                link.request(RequestBody::KillExec { session }).await.ok(); // a lost shim has killed it
            };
            tasks.spawn_on(kill, &runtime);
        })
    }

    /// The container's own terminal is the shim's.
    fn resizer(self: &Arc<Self>, link: &Arc<Link>, id: &ContainerId) -> Resize {
        let (tasks, link, container) = (self.tasks.clone(), link.clone(), id.clone());
        let runtime = tokio::runtime::Handle::current();
        Box::new(move |columns, rows| {
            let order = RequestBody::Resize {
                container: container.clone(),
                columns,
                rows,
            };
            let link = link.clone();
            let resize = async move {
                link.request(order).await.ok(); // a terminal that is gone has no size
            };
            tasks.spawn_on(resize, &runtime);
            Ok(())
        })
    }

    fn end_of(&self, link: &Arc<Link>, name: &str) -> BoxFuture<'static, Outcome> {
        let (sender, receiver) = oneshot::channel();
        let (link, session) = (link.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let outcome = link.request(RequestBody::WaitExec { session }).await;
            sender.send(outcome).ok(); // nobody wants to know any more
        });
        async move { receiver.await.unwrap_or(Err(LinkLost)) }.boxed()
    }
}

/// What the shim is asked for, and whether there is input.
fn order(wish: &Wish, record: &ContainerRecord, session: String) -> (bool, RequestBody) {
    let container = record.id.clone();
    match wish {
        Wish::Exec(request) => {
            let order = RequestBody::OpenExec {
                container,
                session,
                command: request.command.clone(),
                stdin: request.stdin,
                tty: request.tty,
            };
            (request.stdin, order)
        }
        Wish::Attach { stdin } => {
            let stdin = *stdin && record.config.stdin;
            let order = RequestBody::Attach {
                container,
                session,
                stdin,
            };
            (stdin, order)
        }
    }
}

fn failure(id: &ContainerId, outcome: Outcome) -> RuntimeError {
    let failed = |why: String| RuntimeError::ExecFailed { id: id.clone(), why };
    match outcome {
        Ok(Reply::Failed { why }) => failed(why),
        Ok(Reply::NotRunning) | Err(LinkLost) => RuntimeError::ContainerNotRunning(id.clone()),
        Ok(Reply::TimedOut) => failed("it was killed".to_owned()),
        Ok(other @ (Reply::Done | Reply::Executed { .. })) => failed(format!("unexpected answer {other:?}")),
    }
}

async fn prepare(dir: PathBuf, is_terminal: bool, has_stdin: bool) -> Result<Prepared, RuntimeError> {
    let place = dir.clone();
    let made = blocking("making a session", move || {
        make_private_dir(&dir)?;
        if is_terminal {
            let listener = control::listen_in_private(&dir, CONSOLE);
            return listener
                .map(|listener| (Some(listener), None))
                .map_err(failed("listen in", &dir));
        }
        for name in ["stdin", "stdout", "stderr"] {
            mknodat(CWD, dir.join(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
                .map_err(|errno| failed("make pipes in", &dir)(errno.into()))?;
        }
        let both = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(dir.join("stdin"));
        let both = both.map_err(failed("open pipes in", &dir))?;
        Ok((None, Some(both).filter(|_| has_stdin)))
    });
    match made.await?? {
        (Some(listener), _) => Ok(Prepared::Terminal(listener)),
        (None, stdin) => {
            let open = |name: &str| {
                let receiver = OpenOptions::new().open_receiver(place.join(name));
                receiver.map_err(failed("open pipes in", &place))
            };
            Ok(Prepared::Pipes {
                stdin,
                stdout: open("stdout")?,
                stderr: open("stderr")?,
            })
        }
    }
}

fn from_pipes(dir: &Path, held: Option<fs::File>, stdout: Receiver, stderr: Receiver) -> io::Result<Streams> {
    let stdin = match &held {
        Some(_) => Some(Box::pin(OpenOptions::new().open_sender(dir.join("stdin"))?) as Sink),
        None => None,
    };
    drop(held);
    Ok(Streams {
        stdin,
        stdout: Box::pin(stdout),
        stderr: Some(Box::pin(stderr)),
        resize: None,
    })
}

/// Waits for the terminal, or for the end of a command that never got one.
async fn terminal(listener: UnixListener, ended: &mut BoxFuture<'static, Outcome>) -> io::Result<OwnedFd> {
    let mut terminal = Box::pin(sent_terminal(listener));
    tokio::select! {
        biased;
        taken = &mut terminal => taken,
        outcome = &mut *ended => {
            let was_quick = matches!(outcome, Ok(Reply::Executed { .. }));
            *ended = std::future::ready(outcome).boxed();
            if was_quick {
                // Its terminal is there all the same.
                terminal.await
            } else {
                Err(io::Error::other("the command has no terminal"))
            }
        }
    }
}

async fn sent_terminal(listener: UnixListener) -> io::Result<OwnedFd> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let (stream, _) = listener.accept().await?;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let taken = tokio::task::spawn_blocking(move || console::take(&stream));
    taken.await.map_err(io::Error::other)?
}

fn from_terminal(master: OwnedFd, has_stdin: bool) -> io::Result<Streams> {
    fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
    let stdout = Receiver::from_owned_fd_unchecked(master.as_fd().try_clone_to_owned()?)?;
    let stdin = if has_stdin {
        let sender = Sender::from_owned_fd_unchecked(master.as_fd().try_clone_to_owned()?)?;
        Some(Box::pin(sender) as Sink)
    } else {
        None
    };
    let resize: Resize = Box::new(move |columns, rows| {
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(&master, size)?)
    });
    Ok(Streams {
        stdin,
        stdout: Box::pin(stdout),
        stderr: None,
        resize: Some(resize),
    })
}

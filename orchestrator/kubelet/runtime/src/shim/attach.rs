//! Those who watch a running container, and perhaps type: they hold the other ends of pipes in their session's directory.
//!
//! Nobody is waited for. Output that a slow watcher doesn't take is kept up to a limit, then the watcher is dropped; input
//! that the container doesn't take keeps the watcher waiting.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::container::ContainerId;
use crate::shim::connections::Asker;
use crate::shim::containers::Managed;
use crate::shim::log::Stream;
use crate::shim::protocol::Reply;
use crate::shim::pump::{Flow, Pump};
use crate::shim::server::Server;
use crate::shim::streams::directory;

/// Output kept for a watcher that doesn't take it.
const OUTPUT_KEPT_BYTES: usize = 4 << 20;
/// Watchers of one container at once.
const ATTACHMENTS_MAX: usize = 16;

/// One watcher.
#[derive(Debug)]
pub(crate) struct Attachment {
    name: String,
    connection: u64,
    spool: PathBuf,
    waiter: Option<Asker>,
    input: Option<Pump>,
    /// What the container hasn't taken yet.
    unread: Vec<u8>,
    stdout: Outlet,
    /// Who has no use for it closes it.
    stderr: Option<Outlet>,
    /// The container's exit code once it has ended.
    ended: Option<i32>,
    is_gone: bool,
}

/// One way out.
#[derive(Debug)]
struct Outlet {
    file: File,
    waiting: Vec<u8>,
}

impl Outlet {
    /// False when the other end is closed.
    fn flush(&mut self) -> bool {
        if self.is_closed() {
            return false;
        }
        while !self.waiting.is_empty() {
            match rustix::io::write(&self.file, &self.waiting) {
                Ok(count) => {
                    self.waiting.drain(..count);
                }
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether nobody reads any more.
    fn is_closed(&self) -> bool {
        let mut ends = [PollFd::new(&self.file, PollFlags::empty())];
        let looked = poll(&mut ends, Some(&Timespec::default()));
        looked.is_err() || !ends[0].revents().is_empty()
    }

    fn poll(&self) -> (BorrowedFd<'_>, PollFlags) {
        let wanted = if self.waiting.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::OUT
        };
        (self.file.as_fd(), wanted)
    }
}

impl Attachment {
    fn open(asker: Asker, spool: PathBuf, name: String, has_input: bool) -> io::Result<Self> {
        let outlet = |stream: &str| {
            let file = open(&spool, stream, OpenOptions::new().write(true))?;
            io::Result::Ok(Outlet {
                file,
                waiting: Vec::new(),
            })
        };
        let input = if has_input {
            let file = open(&spool, "stdin", OpenOptions::new().read(true))?;
            Some(Pump::new(file.into())?)
        } else {
            None
        };
        Ok(Attachment {
            name,
            connection: asker.connection,
            waiter: None,
            input,
            unread: Vec::new(),
            stdout: outlet("stdout")?,
            stderr: Some(outlet("stderr")?),
            ended: None,
            is_gone: false,
            spool,
        })
    }

    /// Takes output over.
    pub(crate) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let outlet = match (stream, &mut self.stderr) {
            (Stream::Stdout, _) => &mut self.stdout,
            (Stream::Stderr, Some(stderr)) => stderr,
            (Stream::Stderr, None) => return,
        };
        outlet.waiting.extend_from_slice(bytes);
        self.is_gone |= outlet.waiting.len() > OUTPUT_KEPT_BYTES;
        self.flush();
    }

    /// The container has ended; what is waiting is still handed out.
    pub(crate) fn end(&mut self, exit_code: i32) {
        self.ended = Some(exit_code);
        self.input = None;
    }

    /// Hands output out.
    fn flush(&mut self) {
        self.is_gone |= !self.stdout.flush();
        self.stderr.take_if(|stderr| !stderr.flush());
    }

    /// Hands input in. True when there will be no more.
    fn feed(&mut self, target: Option<BorrowedFd<'_>>) -> bool {
        let Some(input) = &self.input else { return false };
        let mut flow = Flow::Open;
        if self.unread.is_empty() {
            flow = input.turn(|bytes| self.unread.extend_from_slice(bytes));
        }
        match target {
            Some(target) => write_some(target, &mut self.unread),
            None => self.unread.clear(),
        }
        let is_over = flow == Flow::Ended && self.unread.is_empty();
        if is_over {
            self.input = None;
        }
        is_over
    }

    fn is_over(&self) -> bool {
        let mut outlets = [Some(&self.stdout), self.stderr.as_ref()].into_iter().flatten();
        let is_empty = outlets.all(|outlet| outlet.waiting.is_empty());
        self.is_gone || (self.ended.is_some() && is_empty)
    }

    fn poll(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        // While the container takes no input, none is read.
        let input = self.input.iter().filter(|_| self.unread.is_empty());
        let input = input.map(|input| (input.fd(), PollFlags::IN));
        let outlets = [Some(&self.stdout), self.stderr.as_ref()];
        outlets.into_iter().flatten().map(Outlet::poll).chain(input)
    }
}

/// Writes what is taken at once; what nobody takes any more is dropped.
fn write_some(target: BorrowedFd<'_>, bytes: &mut Vec<u8>) {
    while !bytes.is_empty() {
        match rustix::io::write(target, bytes) {
            Ok(count) => {
                bytes.drain(..count);
            }
            Err(Errno::AGAIN) => return,
            Err(Errno::INTR) => {}
            Err(_) => bytes.clear(),
        }
    }
}

/// Without waiting for the other end, which is there.
fn open(spool: &Path, name: &str, options: &mut OpenOptions) -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    options.custom_flags(nonblocking).open(spool.join(name))
}

impl Managed {
    /// What the container's watchers wait for.
    pub(crate) fn attached_polls(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let blocked = self.attached.iter().any(|one| !one.unread.is_empty());
        let target = self.input().filter(|_| blocked).map(|fd| (fd, PollFlags::OUT));
        self.attached.iter().flat_map(Attachment::poll).chain(target)
    }

    /// Where input goes: the held pipe, or the terminal.
    fn input(&self) -> Option<BorrowedFd<'_>> {
        let terminal = self.terminal();
        self.stdin.as_ref().map(OwnedFd::as_fd).or(terminal)
    }
}

impl Server {
    pub(crate) fn attach(&mut self, asker: Asker, id: &ContainerId, name: String, has_input: bool) {
        let Some(spool) = self.running(id).map(|dir| dir.path.join(directory(&name))) else {
            return self.reply(asker, Reply::NotRunning);
        };
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let reply = if container.attached.len() >= ATTACHMENTS_MAX {
            Reply::Failed {
                why: "too many are attached already".to_owned(),
            }
        } else {
            match Attachment::open(asker, spool, name, has_input) {
                Ok(attachment) => {
                    container.attached.push(attachment);
                    Reply::Done
                }
                Err(error) => Reply::Failed {
                    why: error.to_string(),
                },
            }
        };
        self.reply(asker, reply);
    }

    /// Moves what can be moved, and lets those go that are done.
    pub(crate) fn on_attached(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let mut attached = std::mem::take(&mut container.attached);
        let mut input_is_over = false;
        for one in &mut attached {
            one.flush();
            let has_left = one.is_gone && one.input.is_some();
            input_is_over |= one.feed(container.input()) || has_left;
        }
        if input_is_over && container.stdin_once {
            container.stdin = None;
        }
        let (over, left) = attached.into_iter().partition(Attachment::is_over);
        container.attached = left;
        self.let_go(over);
    }

    /// Those of a connection that is gone, or one that is named.
    pub(crate) fn detach(&mut self, is_meant: impl Fn(&str, u64) -> bool) {
        let ids: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for id in ids {
            if let Some(container) = self.containers.get_mut(&id) {
                for one in &mut container.attached {
                    one.is_gone |= is_meant(&one.name, one.connection);
                }
                self.on_attached(&id);
            }
        }
    }

    /// Remembers who is to hear of a watcher's end; false if there is none of that name.
    pub(crate) fn wait_attached(&mut self, asker: Asker, name: &str) -> bool {
        let containers = self.containers.values_mut();
        let mut attached = containers.flat_map(|container| &mut container.attached);
        match attached.find(|one| one.name == name) {
            Some(one) => {
                one.waiter = Some(asker);
                true
            }
            None => false,
        }
    }

    fn let_go(&mut self, over: Vec<Attachment>) {
        for one in over {
            fs::remove_dir_all(&one.spool).ok(); // goes with the container at the latest
            let reply = Reply::Executed {
                exit_code: one.ended.unwrap_or(0),
                stdout: Vec::new(),
                stderr: Vec::new(),
            };
            self.tell_end_of(one.waiter, one.name, one.connection, reply);
        }
    }

    pub(crate) fn resize(&mut self, asker: Asker, id: &ContainerId, columns: u16, rows: u16) {
        let terminal = self.containers.get(id).and_then(Managed::terminal);
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let reply = match terminal.map(|terminal| tcsetwinsize(terminal, size)) {
            Some(Ok(())) => Reply::Done,
            Some(Err(errno)) => Reply::Failed {
                why: errno.to_string(),
            },
            None => Reply::NotRunning,
        };
        self.reply(asker, reply);
    }
}

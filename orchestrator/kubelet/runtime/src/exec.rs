//! A command in a container that somebody talks to while it runs.

use std::fmt;
use std::io;
use std::pin::Pin;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::RuntimeError;

/// What is to run, and how it is talked to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// It reads what is sent to it; without this its input is empty.
    pub stdin: bool,
    /// It gets a terminal, through which all that it writes comes as one.
    pub tty: bool,
}

/// What a command writes.
pub type Source = Pin<Box<dyn AsyncRead + Send>>;

/// What a command reads. Dropped: its input ends.
pub type Sink = Pin<Box<dyn AsyncWrite + Send>>;

/// Sets a terminal's columns and rows.
pub type Resize = Box<dyn Fn(u16, u16) -> io::Result<()> + Send + Sync>;

/// A running command. Dropped before its end: it is killed, with all processes that came of it.
pub struct ExecSession {
    /// Its input, if it was asked for.
    pub stdin: Option<Sink>,
    /// Its output; of a terminal, all output.
    pub stdout: Option<Source>,
    /// Its errors; none of a terminal.
    pub stderr: Option<Source>,
    /// Only of a terminal.
    pub resize: Option<Resize>,
    /// Its exit status once it has ended; 128 + signal number when a signal ended it. What it has written may still be
    /// on its way then.
    pub ended: BoxFuture<'static, Result<i32, RuntimeError>>,
    /// Kills it.
    pub kill: KillOnDrop,
}

impl fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSession").finish_non_exhaustive()
    }
}

/// Does one thing when it goes.
pub struct KillOnDrop(Option<Box<dyn FnOnce() + Send>>);

impl KillOnDrop {
    /// Does `kill` when dropped.
    pub fn new(kill: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(kill)))
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(kill) = self.0.take() {
            kill();
        }
    }
}

impl fmt::Debug for KillOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KillOnDrop")
    }
}

//! Reading what containers write, without ever waiting for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// Read at once, so that one chatty container can't keep the shim from the others.
const CHUNK_BYTES: usize = 16 << 10;

/// Chunks taken per turn of the loop.
const CHUNKS_PER_TURN: usize = 8;

/// Chunks taken at the end at most: a process that left the container's process namespace may write for ever.
const CHUNKS_AT_END: usize = 1024;

/// The reading end of an output stream.
#[derive(Debug)]
pub(crate) struct Pump {
    fd: OwnedFd,
}

/// Whether there may be more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Open,
    Ended,
}

impl Pump {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Self { fd })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes what is there, up to one turn's share.
    pub(crate) fn turn(&self, take: impl FnMut(&[u8])) -> Flow {
        self.read(CHUNKS_PER_TURN, take)
    }

    /// Takes all that is there after the writer has ended.
    pub(crate) fn drain(&self, take: impl FnMut(&[u8])) {
        self.read(CHUNKS_AT_END, take);
    }

    fn read(&self, chunks: usize, mut take: impl FnMut(&[u8])) -> Flow {
        let mut buffer = [0; CHUNK_BYTES];
        for _ in 0..chunks {
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(0) => return Flow::Ended,
                Ok(count) => take(&buffer[..count]),
                Err(Errno::AGAIN) => return Flow::Open,
                Err(Errno::INTR) => {}
                // EIO is how the master of a terminal says that the other side is closed.
                Err(_) => return Flow::Ended,
            }
        }
        Flow::Open
    }
}

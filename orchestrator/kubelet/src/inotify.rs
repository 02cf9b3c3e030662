//! Waiting for changes in directories and files without polling. Says that something changed, never what.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe;

/// An inotify instance on tokio's reactor.
#[derive(Debug)]
pub(crate) struct Watch {
    fd: OwnedFd,
    /// The same inotify instance. For tokio it is something that becomes readable, like a pipe.
    notices: pipe::Receiver,
}

impl Watch {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let notices = pipe::Receiver::from_owned_fd_unchecked(fd.try_clone()?)?;
        Ok(Self { fd, notices })
    }

    /// Entries of `directory` coming and going.
    pub(crate) fn add_directory(&self, directory: &Path) -> io::Result<()> {
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ATTRIB;
        inotify::add_watch(&self.fd, directory, flags | WatchFlags::ONLYDIR)?;
        Ok(())
    }

    /// A file growing, shrinking or going away.
    pub(crate) fn add_file(&self, file: &Path) -> io::Result<()> {
        let flags = WatchFlags::MODIFY | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        inotify::add_watch(&self.fd, file, flags)?;
        Ok(())
    }

    /// Returns once something changed since the last call; any number of changes count as one.
    ///
    /// # Cancel safety
    /// A dropped wait loses nothing: the notices stay in the kernel until read.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        let mut buffer = [0_u8; 4096];
        loop {
            self.notices.readable().await?;
            match self.notices.try_read(&mut buffer) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        loop {
            match self.notices.try_read(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn changes_wake_once() {
        let directory = tempfile::tempdir().unwrap();
        let watch = Watch::new().unwrap();
        watch.add_directory(directory.path()).unwrap();
        std::fs::write(directory.path().join("a"), "1").unwrap();
        std::fs::write(directory.path().join("b"), "2").unwrap();
        let deadline = Duration::from_secs(10);
        tokio::time::timeout(deadline, watch.changed())
            .await
            .unwrap()
            .unwrap();
        assert!(
            futures::FutureExt::now_or_never(watch.changed()).is_none(),
            "nothing new"
        );
        std::fs::remove_file(directory.path().join("a")).unwrap();
        tokio::time::timeout(deadline, watch.changed())
            .await
            .unwrap()
            .unwrap();
    }
}

//! Receiving the master side of a container's terminal from the OCI library.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::shim::control;

/// Listens where the helper tells the library to send the terminal.
pub(crate) fn listen(container_dir: &Path) -> io::Result<UnixListener> {
    control::listen(container_dir, "console.sock")
}

/// Takes the terminal off a connection that is waiting; `None` when there is none.
pub(crate) fn receive(listener: &UnixListener) -> io::Result<Option<OwnedFd>> {
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error),
    };
    take(&stream).map(Some)
}

/// Takes the terminal off a connection; waits for it.
pub(crate) fn take(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 4096];
    recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut name)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let terminal = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    terminal.ok_or_else(|| io::Error::other("the OCI library sent no terminal"))
}

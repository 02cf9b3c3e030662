//! A stream of bytes between two simulated processes, in the place of a unix socket.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::net::{Address, Net};

#[derive(Default)]
struct Half {
    data: BytesMut,
    is_closed: bool,
    waker: Option<Waker>,
}

impl Half {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// One end. Dropped or shut down, the other end reads to the end and no further.
pub(crate) struct SimStream {
    net: Net,
    incoming: Arc<Mutex<Half>>,
    outgoing: Arc<Mutex<Half>>,
    peer: Address,
    last_at: u64,
    is_shut: bool,
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStream")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl SimStream {
    pub(crate) fn pair(net: &Net, left: Address, right: Address) -> (Self, Self) {
        let (to_left, to_right) = (Arc::default(), Arc::default());
        let end = |incoming: &Arc<Mutex<Half>>, outgoing: &Arc<Mutex<Half>>, peer| SimStream {
            net: net.clone(),
            incoming: incoming.clone(),
            outgoing: outgoing.clone(),
            peer,
            last_at: 0,
            is_shut: false,
        };
        (end(&to_left, &to_right, right), end(&to_right, &to_left, left))
    }

    fn shut(&mut self) {
        if !std::mem::replace(&mut self.is_shut, true) {
            let half = self.outgoing.clone();
            self.net.deliver(self.peer, self.last_at + 1, move || {
                let mut half = half.lock();
                half.is_closed = true;
                half.wake();
            });
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.shut();
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut half = self.incoming.lock();
        if half.data.is_empty() && !half.is_closed {
            half.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = half.data.len().min(buffer.remaining());
        buffer.put_slice(&half.data[..count]);
        half.data.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_shut || !self.net.is_alive(self.peer) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let (half, owned) = (self.outgoing.clone(), data.to_vec());
        self.last_at = self.net.deliver(self.peer, self.last_at + 1, move || {
            let mut half = half.lock();
            half.data.extend_from_slice(&owned);
            half.wake();
        });
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut();
        Poll::Ready(Ok(()))
    }
}

impl Connected for SimStream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

//! The runtime's end of a shim's control socket: requests out, answers and notices in.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

use crate::container::ContainerId;
use crate::records::Progress;
use crate::shim::control;
use crate::shim::protocol::{self, FromShim, PROTOCOL, Reply, Request, RequestBody};

/// A live shim answers a connection at once; one that doesn't within this time is taken for dead.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// A connection to a shim, for sending.
#[derive(Debug)]
pub(crate) struct Link {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    /// `None` once the connection is gone.
    pending: Mutex<Option<HashMap<u64, oneshot::Sender<Reply>>>>,
    next_seq: AtomicU64,
}

/// The shim ended, or can't be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkLost;

/// A connection just made, for receiving.
#[derive(Debug)]
pub(crate) struct Incoming {
    reader: OwnedReadHalf,
    buffer: Vec<u8>,
}

/// A notice from the shim.
#[derive(Debug)]
pub(crate) enum Notice {
    Changed {
        container: ContainerId,
        progress: Progress,
    },
    Warning {
        container: ContainerId,
        text: String,
    },
}

/// A connection whose greeting was read, not yet bound to an async runtime.
#[derive(Debug)]
pub(crate) struct Greeted {
    stream: std::os::unix::net::UnixStream,
    buffer: Vec<u8>,
    pub(crate) containers: BTreeMap<ContainerId, Progress>,
}

/// Connects and waits for the greeting. Blocks.
pub(crate) fn greet(sandbox_dir: &Path) -> io::Result<Greeted> {
    let mut stream = control::connect(sandbox_dir)?;
    stream.set_read_timeout(Some(HELLO_LIMIT))?;
    let mut buffer = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        match protocol::decode::<FromShim>(&mut buffer).map_err(io::Error::other)? {
            Some(FromShim::Hello {
                protocol: PROTOCOL,
                containers,
            }) => {
                stream.set_read_timeout(None)?;
                stream.set_nonblocking(true)?;
                return Ok(Greeted {
                    stream,
                    buffer,
                    containers,
                });
            }
            Some(_) => {
                return Err(io::Error::other(
                    "the shim speaks another version of the protocol",
                ));
            }
            None => {}
        }
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => buffer.extend_from_slice(&chunk[..count]),
        }
    }
}

impl Greeted {
    /// Splits into the two directions. Within an async runtime.
    pub(crate) fn split(self) -> io::Result<(Arc<Link>, Incoming)> {
        let (reader, writer) = UnixStream::from_std(self.stream)?.into_split();
        let link = Link {
            writer: tokio::sync::Mutex::new(writer),
            pending: Mutex::new(Some(HashMap::new())),
            next_seq: AtomicU64::new(1),
        };
        Ok((
            Arc::new(link),
            Incoming {
                reader,
                buffer: self.buffer,
            },
        ))
    }
}

impl Link {
    /// Asks and waits for the answer. A request whose future is dropped is still carried out.
    pub(crate) async fn request(&self, body: RequestBody) -> Result<Reply, LinkLost> {
        let seq = self.next_seq.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().as_mut().ok_or(LinkLost)?.insert(seq, sender);
        let frame = protocol::encode(&Request { seq, body }).map_err(|_| LinkLost)?;
        // The lock keeps frames whole; the callers are tracked tasks that nobody drops half-way.
        let written = self.writer.lock().await.write_all(&frame).await;
        if written.is_err() {
            self.close();
        }
        receiver.await.map_err(|_| LinkLost)
    }

    /// Lets everybody who waits know that no answer will come.
    pub(crate) fn close(&self) {
        self.pending.lock().take();
    }

    fn answer(&self, seq: u64, reply: Reply) {
        let waiting = self
            .pending
            .lock()
            .as_mut()
            .and_then(|pending| pending.remove(&seq));
        if let Some(sender) = waiting {
            sender.send(reply).ok(); // the asker went away
        }
    }
}

impl Incoming {
    /// Hands answers to those who wait and returns the next notice; `None` when the connection has ended.
    pub(crate) async fn next(&mut self, link: &Link) -> Option<Notice> {
        loop {
            match protocol::decode::<FromShim>(&mut self.buffer) {
                Ok(Some(FromShim::Reply { seq, reply })) => link.answer(seq, reply),
                Ok(Some(FromShim::Changed { container, progress })) => {
                    return Some(Notice::Changed { container, progress });
                }
                Ok(Some(FromShim::Warning { container, text })) => {
                    return Some(Notice::Warning { container, text });
                }
                Ok(Some(FromShim::Hello { .. })) => {}
                Ok(None) => {
                    if self.reader.read_buf(&mut self.buffer).await.ok()? == 0 {
                        return None;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "Shim sent what can't be understood");
                    return None;
                }
            }
        }
    }
}

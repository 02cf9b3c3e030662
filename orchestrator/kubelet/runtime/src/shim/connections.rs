//! The runtime's connections to the shim: requests read, answers and notices written, never waited for.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use crate::shim::protocol::{self, FrameError, FromShim, PROTOCOL, Reply, Request};
use crate::shim::server::Server;

/// Connections at once; there is one runtime, and the one before it that hasn't noticed its end yet.
const CONNECTIONS_MAX: usize = 8;

/// Who asked, to be answered later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) connection: u64,
    seq: u64,
}

/// A runtime that is connected.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    inbound: Vec<u8>,
    pub(crate) outbound: Vec<u8>,
}

impl Server {
    pub(crate) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() >= CONNECTIONS_MAX || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let id = self.next_connection;
            self.next_connection += 1;
            self.connections.insert(
                id,
                Connection {
                    stream,
                    inbound: Vec::new(),
                    outbound: Vec::new(),
                },
            );
            let containers = self
                .containers
                .iter()
                .map(|(id, container)| (id.clone(), container.progress.clone()))
                .collect();
            self.send(
                id,
                &FromShim::Hello {
                    protocol: PROTOCOL,
                    containers,
                },
            );
        }
    }

    pub(crate) fn on_connection(&mut self, id: u64) {
        self.flush(id);
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let mut buffer = [0; 16 << 10];
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => return self.hang_up(id),
                Ok(count) => connection.inbound.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.hang_up(id),
            }
        }
        loop {
            let Some(connection) = self.connections.get_mut(&id) else {
                return;
            };
            match protocol::decode::<Request>(&mut connection.inbound) {
                Ok(Some(request)) => self.on_request(
                    Asker {
                        connection: id,
                        seq: request.seq,
                    },
                    request.body,
                ),
                Ok(None) => return,
                Err(FrameError::TooLong(_) | FrameError::Json(_)) => return self.hang_up(id),
            }
        }
    }

    /// Work that was asked for goes on, and only its answer is lost; but for commands whose streams lead nowhere now.
    fn hang_up(&mut self, id: u64) {
        self.connections.remove(&id);
        self.kill_execs_of(id);
    }

    pub(crate) fn reply(&mut self, asker: Asker, reply: Reply) {
        self.send(
            asker.connection,
            &FromShim::Reply {
                seq: asker.seq,
                reply,
            },
        );
    }

    pub(crate) fn tell_all(&mut self, message: &FromShim) {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.send(id, message);
        }
    }

    fn send(&mut self, id: u64, message: &FromShim) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match protocol::encode(message) {
            // A runtime that doesn't read can't make the shim grow without end: it connects again and gets a snapshot.
            Ok(_) if connection.outbound.len() > 2 * protocol::FRAME_LIMIT_BYTES => self.hang_up(id),
            Ok(bytes) => {
                connection.outbound.extend_from_slice(&bytes);
                self.flush(id);
            }
            Err(_) => self.hang_up(id),
        }
    }

    fn flush(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        while !connection.outbound.is_empty() {
            match connection.stream.write(&connection.outbound) {
                Ok(count) => {
                    connection.outbound.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.hang_up(id),
            }
        }
    }
}

//! Port forwarding: SPDY frames inside of a WebSocket, two streams for each connection.
//!
//! ```text
//! client: open a stream (streamtype: error, port: 80, requestid: 0)    never sends on it
//! client: open a stream (streamtype: data, port: 80, requestid: 0)     --> a connection to the pod's port 80
//! both:   data ... end                                                 each direction ends by itself
//! server: why it failed, on the error stream; then the end of both
//! ```
//! Pods share the machine's network, so the pod's port is one of this machine's.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::spdy::{self, DATA_BYTES_MAX, Decoder, Encoder, Event, Headers};
use super::websocket::{self, Message, Reader};

/// The protocol's name in the WebSocket's handshake.
pub(crate) const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// Streams at once in one client's forwarding.
const STREAMS_MAX: usize = 1024;
/// Pieces waiting for a slow pod. There is no flow control but the whole connection's.
const PIECES_WAITING: usize = 16;
/// Frames waiting for a slow client.
const FRAMES_WAITING: usize = 16;

/// What a stream is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    /// Hears of failures of the request.
    Error { request: String },
    /// Carries the bytes of the request.
    Data { request: String, port: u16 },
}

fn role(headers: &Headers) -> Option<Role> {
    let value = |name: &str| {
        headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    };
    let request = value("requestid").unwrap_or_default().to_owned();
    let port = value("port")?.parse().ok().filter(|port| *port > 0)?;
    match value("streamtype")? {
        "error" => Some(Role::Error { request }),
        "data" => Some(Role::Data { request, port }),
        _ => None,
    }
}

/// One client.
struct Forwarding {
    encoder: Encoder,
    /// The error streams of requests whose data stream hasn't come.
    errors: HashMap<String, u32>,
    /// Where data of the client goes. Gone once it sends no more.
    open: HashMap<u32, mpsc::Sender<Bytes>>,
    /// A stream that the client resets is cut by this.
    cuts: HashMap<u32, oneshot::Sender<()>>,
    /// To the client.
    frames: Frames,
    /// They end with the client, and tell their data stream's number.
    connections: JoinSet<u32>,
}

/// The way to the client, for all who have something to say.
#[derive(Clone)]
struct Frames(mpsc::Sender<Bytes>);

impl Frames {
    /// Sends a frame of SPDY.
    async fn send(&self, frame: Bytes) -> std::io::Result<()> {
        self.send_plain(websocket::data(&frame)).await
    }

    async fn send_plain(&self, frame: Bytes) -> std::io::Result<()> {
        let gone = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        self.0.send(frame).await.map_err(gone)
    }
}

/// Forwards until the client is gone; its connections to the pod end with it.
pub(crate) async fn serve<S>(stream: S)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, mut write) = tokio::io::split(stream);
    let (frames, mut waiting) = mpsc::channel::<Bytes>(FRAMES_WAITING);
    let talk = async move {
        let frames = Frames(frames);
        if let Err(error) = talk(Reader::new(read), frames.clone()).await {
            tracing::debug!(%error, "A port forwarding ended early");
        }
        frames.send_plain(websocket::close(websocket::NORMAL)).await.ok(); // the client may be gone
    };
    let writer = async {
        while let Some(frame) = waiting.recv().await {
            if write.write_all(&frame).await.is_err() || write.flush().await.is_err() {
                return;
            }
        }
        write.shutdown().await.ok(); // it is over anyway
    };
    tokio::join!(talk, writer);
}

async fn talk<R: AsyncRead + Unpin>(mut reader: Reader<R>, frames: Frames) -> std::io::Result<()> {
    let mut forwarding = Forwarding {
        encoder: Encoder::default(),
        errors: HashMap::new(),
        open: HashMap::new(),
        cuts: HashMap::new(),
        frames,
        connections: JoinSet::new(),
    };
    let mut decoder = Decoder::default();
    loop {
        tokio::select! {
            message = reader.next() => match message? {
                Some(Message::Data(bytes)) => {
                    decoder.buffer.extend_from_slice(&bytes);
                    while let Some(event) = decoder.next().map_err(std::io::Error::other)? {
                        forwarding.on_client(event).await?;
                    }
                }
                Some(Message::Ping(content)) => {
                    forwarding.frames.send_plain(websocket::pong(&content)).await?;
                }
                Some(Message::Close) | None => return Ok(()),
            },
            Some(ended) = forwarding.connections.join_next(), if !forwarding.connections.is_empty() => {
                let stream = ended.map_err(std::io::Error::other)?;
                forwarding.open.remove(&stream);
                forwarding.cuts.remove(&stream);
            }
        }
    }
}

impl Forwarding {
    async fn on_client(&mut self, event: Event) -> std::io::Result<()> {
        match event {
            Event::Open { stream, headers } => self.open(stream, &headers).await?,
            Event::Data { stream, content } => {
                if let Some(pod) = self.open.get(&stream) {
                    pod.send(content).await.ok(); // its connection has failed, which is told
                }
            }
            Event::End { stream } => {
                self.open.remove(&stream);
            }
            Event::Reset { stream } => {
                self.open.remove(&stream);
                self.cuts.remove(&stream);
            }
            Event::Ping { id } => self.frames.send(spdy::ping(id)).await?,
            Event::GoAway => {}
        }
        Ok(())
    }

    async fn open(&mut self, stream: u32, headers: &Headers) -> std::io::Result<()> {
        let accepted = self.encoder.reply(stream);
        self.frames.send(accepted).await?;
        match role(headers) {
            Some(Role::Error { request }) if self.errors.len() < STREAMS_MAX => {
                self.errors.insert(request, stream);
            }
            Some(Role::Data { request, port }) if self.cuts.len() < STREAMS_MAX => {
                let connection = Connection {
                    data: stream,
                    error: self.errors.remove(&request),
                    port,
                    frames: self.frames.clone(),
                };
                let (to_pod, from_client) = mpsc::channel(PIECES_WAITING);
                let (cut, is_cut) = oneshot::channel::<()>();
                self.open.insert(stream, to_pod);
                self.cuts.insert(stream, cut);
                self.connections.spawn(async move {
                    tokio::select! {
                        _ = is_cut => {}
                        // Whoever hears nothing of it is gone.
                        _ = connection.run(from_client) => {}
                    }
                    stream
                });
            }
            // Not understood, or too many: it is over before it has begun.
            Some(_) | None => self.frames.send(spdy::end(stream)).await?,
        }
        Ok(())
    }
}

/// One connection to the pod.
struct Connection {
    data: u32,
    /// Who hears of failures.
    error: Option<u32>,
    port: u16,
    frames: Frames,
}

impl Connection {
    /// Both directions end by themselves; it is over when the pod sends no more.
    async fn run(&self, from_client: mpsc::Receiver<Bytes>) -> std::io::Result<()> {
        let outcome = self.forward(from_client).await;
        if let (Err(error), Some(stream)) = (outcome, self.error) {
            let why = format!("forward to port {} of the pod: {error}", self.port);
            self.frames.send(spdy::data(stream, why.as_bytes())).await?;
        }
        self.frames.send(spdy::end(self.data)).await?;
        match self.error {
            Some(stream) => self.frames.send(spdy::end(stream)).await,
            None => Ok(()),
        }
    }

    async fn forward(&self, mut from_client: mpsc::Receiver<Bytes>) -> std::io::Result<()> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        stream.set_nodelay(true).ok(); // costs time, not correctness
        let (mut read, mut write) = stream.into_split();
        let to_pod = async {
            while let Some(piece) = from_client.recv().await {
                write.write_all(&piece).await?;
            }
            write.shutdown().await
        };
        let from_pod = async {
            let mut buffer = vec![0; DATA_BYTES_MAX];
            loop {
                match read.read(&mut buffer).await? {
                    0 => return std::io::Result::Ok(()),
                    count => self.frames.send(spdy::data(self.data, &buffer[..count])).await?,
                }
            }
        };
        tokio::pin!(from_pod);
        tokio::select! {
            outcome = &mut from_pod => outcome,
            // What the pod still sends is of interest, even if it takes no more.
            _ = to_pod => from_pod.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_of_streams() {
        let headers = |kind: &str, port: &str| -> Headers {
            [("streamtype", kind), ("port", port), ("requestid", "4")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        };
        let request = || "4".to_owned();
        let cases = [
            (headers("error", "80"), Some(Role::Error { request: request() })),
            (
                headers("data", "80"),
                Some(Role::Data {
                    request: request(),
                    port: 80,
                }),
            ),
            (headers("data", "0"), None),
            (headers("data", "http"), None),
            (headers("stdin", "80"), None),
            (Headers::new(), None),
        ];
        for (headers, expected) in cases {
            assert_eq!(role(&headers), expected, "{headers:?}");
        }
    }
}

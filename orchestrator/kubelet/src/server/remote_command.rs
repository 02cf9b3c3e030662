//! Talking to a command over a WebSocket: each message begins with the number of its channel.
//!
//! | channel | direction | what |
//! | --- | --- | --- |
//! | 0 | in | input |
//! | 1, 2 | out | output, errors |
//! | 3 | out | a `Status`, once, at the end |
//! | 4 | in | the terminal's size, `{"Width": 80, "Height": 24}` |
//! | 255 | in | v5 alone: the channel whose number follows is at its end |
//!
//! The client's end is the command's end, whatever it is doing.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use moorline_container_runtime::exec::{Sink, Source};
use moorline_container_runtime::{ExecSession, RuntimeError};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::websocket::{self, Message, Reader};

/// The versions of the protocol, the one to be preferred first.
pub(crate) const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Output read at once.
const CHUNK_BYTES: usize = 32 << 10;
/// Frames waiting for a slow client; the command waits then.
const FRAMES_WAITING: usize = 8;
/// Pieces of input waiting for a slow command; the client waits then.
const PIECES_WAITING: usize = 8;
/// A command has ended, but something it started holds its output: that may stay silent so long.
const SILENCE_AFTER_END: Duration = Duration::from_millis(500);
/// The client is to say that it has seen the end.
const GOODBYE_LIMIT: Duration = Duration::from_secs(5);

/// Why a command is not run, or how it ended.
pub(crate) type Ended = Result<i32, RuntimeError>;

/// The last word to the client.
pub(crate) fn status(ended: &Ended) -> Value {
    match ended {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => {
            let message = format!("error executing command in container: {error}");
            json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {message}"),
                "details": {"causes": [{"message": message}]},
            })
        }
    }
}

/// Who is attached hears of the container's end, not of its exit code: that is in the pod's status.
pub(crate) fn without_exit_code(mut session: ExecSession) -> ExecSession {
    let ended = session.ended;
    session.ended = Box::pin(async move { ended.await.map(|_| 0) });
    session
}

fn frame(channel: u8, content: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(content.len() + 1);
    message.put_u8(channel);
    message.put_slice(content);
    websocket::data(&message)
}

/// What a message asks for.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Stdin(Bytes),
    StdinEnds,
    Resize(u16, u16),
    /// Such as the empty first message of a channel.
    Nothing,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

fn input(mut message: Bytes) -> Input {
    if message.is_empty() {
        return Input::Nothing;
    }
    let content = message.split_off(1);
    match (message[0], &content[..]) {
        (STDIN, [_, ..]) => Input::Stdin(content),
        (CLOSE, [STDIN]) => Input::StdinEnds,
        (RESIZE, text) => match serde_json::from_slice(text) {
            Ok(Size { width, height }) => Input::Resize(width, height),
            Err(_) => Input::Nothing,
        },
        _ => Input::Nothing,
    }
}

/// Talks until the command has ended or the client is gone. `started` is the session, or why there is none.
pub(crate) async fn serve<S>(stream: S, started: Result<ExecSession, RuntimeError>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(stream);
    let (frames, waiting) = mpsc::channel(FRAMES_WAITING);
    tokio::join!(
        talk(Reader::new(read), frames, started),
        write_frames(write, waiting)
    );
}

/// Nothing if the client was gone before the end.
async fn talk<R: AsyncRead + Unpin>(
    mut reader: Reader<R>,
    frames: mpsc::Sender<Bytes>,
    started: Result<ExecSession, RuntimeError>,
) -> Option<()> {
    let ended = match started {
        Ok(session) => run(session, &mut reader, &frames).await?,
        Err(error) => Err(error),
    };
    let last = frame(ERROR, status(&ended).to_string().as_bytes());
    frames.send(last).await.ok()?;
    frames.send(websocket::close(websocket::NORMAL)).await.ok()?;
    let goodbye = until_closed(&mut reader, &frames);
    // It has all it needs, whether it says so or not.
    tokio::time::timeout(GOODBYE_LIMIT, goodbye).await.ok()
}

/// Writes what is waiting; ends early when the client is gone, which those who send notice.
async fn write_frames(mut write: impl AsyncWrite + Unpin, mut waiting: mpsc::Receiver<Bytes>) {
    while let Some(frame) = waiting.recv().await {
        let written = async {
            write.write_all(&frame).await?;
            write.flush().await
        };
        if written.await.is_err() {
            return;
        }
    }
    write.shutdown().await.ok(); // it is over anyway
}

async fn until_closed<R: AsyncRead + Unpin>(reader: &mut Reader<R>, frames: &mpsc::Sender<Bytes>) {
    loop {
        match reader.next().await {
            Ok(Some(Message::Ping(content))) => {
                frames.send(websocket::pong(&content)).await.ok(); // it may be gone
            }
            Ok(Some(Message::Data(_))) => {}
            Ok(Some(Message::Close) | None) | Err(_) => return,
        }
    }
}

/// Runs the session; nothing if the client went away before its end. Then the session is dropped, which kills the command.
async fn run<R: AsyncRead + Unpin>(
    session: ExecSession,
    reader: &mut Reader<R>,
    frames: &mpsc::Sender<Bytes>,
) -> Option<Ended> {
    let ExecSession {
        stdin,
        stdout,
        stderr,
        resize,
        ended,
        kill: _kill,
    } = session;
    let (over, is_over) = watch::channel(false);
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
    let ended = async {
        let ended = ended.await;
        over.send_replace(true);
        ended
    };
    let output = async {
        let outputs = (
            pump(stdout, STDOUT, frames, is_over.clone()),
            pump(stderr, STDERR, frames, is_over.clone()),
        );
        // Input may wait for a command that never reads it, so it is not waited for.
        tokio::join!(outputs.0, outputs.1, ended).2
    };
    tokio::select! {
        ended = output => Some(ended),
        () = read_client(reader, frames, pieces, resize.as_deref()) => None,
        never = feed(stdin, waiting) => match never {},
    }
}

/// Takes the client's messages until it is gone.
async fn read_client<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    frames: &mpsc::Sender<Bytes>,
    pieces: mpsc::Sender<Bytes>,
    resize: Option<&(dyn Fn(u16, u16) -> std::io::Result<()> + Send + Sync)>,
) {
    let mut pieces = Some(pieces);
    loop {
        let message = match reader.next().await {
            Ok(Some(Message::Data(message))) => message,
            Ok(Some(Message::Ping(content))) => {
                if frames.send(websocket::pong(&content)).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(Some(Message::Close) | None) => return,
            Err(error) => return tracing::debug!(%error, "A client of a command is gone"),
        };
        match (input(message), &pieces) {
            (Input::Stdin(piece), Some(open)) => {
                open.send(piece).await.ok(); // the command reads no more
            }
            (Input::StdinEnds, _) => pieces = None,
            (Input::Resize(width, height), _) => {
                if let Some(Err(error)) = resize.map(|resize| resize(width, height)) {
                    tracing::debug!(%error, "A terminal keeps its size");
                }
            }
            (Input::Stdin(_), None) | (Input::Nothing, _) => {}
        }
    }
}

/// Hands input on; its end is the input's end. Never returns.
async fn feed(mut stdin: Option<Sink>, mut waiting: mpsc::Receiver<Bytes>) -> std::convert::Infallible {
    while let Some(piece) = waiting.recv().await {
        let failed = match &mut stdin {
            Some(sink) => sink.write_all(&piece).await.is_err(),
            None => false,
        };
        if failed {
            // It reads no more; the rest is dropped.
            stdin = None;
        }
    }
    if let Some(mut sink) = stdin.take() {
        sink.shutdown().await.ok(); // it is dropped anyway
    }
    std::future::pending().await
}

/// Hands output on until its end, or until it is silent after the command's.
async fn pump(
    source: Option<Source>,
    channel: u8,
    frames: &mpsc::Sender<Bytes>,
    mut is_over: watch::Receiver<bool>,
) {
    let Some(mut source) = source else { return };
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let over = *is_over.borrow_and_update();
        let read = source.read(&mut buffer);
        let read = if over {
            match tokio::time::timeout(SILENCE_AFTER_END, read).await {
                Ok(read) => read,
                Err(_silent) => return,
            }
        } else {
            tokio::select! {
                read = read => read,
                // Losing the read loses no bytes.
                Ok(()) = is_over.changed() => continue,
            }
        };
        match read {
            Ok(count @ 1..) => {
                if frames.send(frame(channel, &buffer[..count])).await.is_err() {
                    return;
                }
            }
            // A terminal's end is an error.
            Ok(0) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs() {
        let bytes = |bytes: &'static [u8]| Bytes::from_static(bytes);
        let cases = [
            (bytes(b""), Input::Nothing),
            (bytes(b"\x00"), Input::Nothing),
            (bytes(b"\x00ls\n"), Input::Stdin(bytes(b"ls\n"))),
            (bytes(b"\xff\x00"), Input::StdinEnds),
            (bytes(b"\xff\x01"), Input::Nothing),
            (bytes(b"\x04{\"Width\":80,\"Height\":24}"), Input::Resize(80, 24)),
            (bytes(b"\x04{\"Width\":-1}"), Input::Nothing),
            (bytes(b"\x09x"), Input::Nothing),
        ];
        for (message, expected) in cases {
            assert_eq!(input(message.clone()), expected, "{message:?}");
        }
    }

    #[test]
    fn last_words() {
        assert_eq!(status(&Ok(0))["status"], "Success");
        let failed = status(&Ok(7));
        assert_eq!(
            (&failed["reason"], &failed["details"]["causes"][0]),
            (
                &json!("NonZeroExitCode"),
                &json!({"reason": "ExitCode", "message": "7"})
            )
        );
        let error = RuntimeError::Lost("the shim");
        assert!(
            status(&Err(error))["message"]
                .as_str()
                .unwrap()
                .contains("the shim ended without")
        );
    }
}

//! What runtime and shim say to each other: messages, and their frames on the socket.
//!
//! A frame is four bytes of length, big end first, and that many bytes of JSON. The runtime sends [`Request`]s; the
//! shim answers each with one [`Reply`] of the same `seq` in any order, and pushes [`FromShim::Changed`] between
//! them. The first frame of a connection is [`FromShim::Hello`].

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::container::ContainerId;
use crate::records::Progress;

/// Raised when a message changes its meaning; a runtime treats a shim of another version as dead to control.
pub(crate) const PROTOCOL: u32 = 1;

/// No message is longer: two streams of exec output in hexadecimal, and room for the rest.
pub(crate) const FRAME_LIMIT_BYTES: usize = 6 << 20;

/// Output of a command kept per stream.
pub(crate) const EXEC_OUTPUT_LIMIT_BYTES: usize = 1 << 20;

/// From the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) seq: u64,
    pub(crate) body: RequestBody,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RequestBody {
    /// Start a created container.
    Start { container: ContainerId },
    /// Send `signal`, then `SIGKILL` after `grace_ms`. Answered once the exit is recorded.
    Stop {
        container: ContainerId,
        signal: i32,
        grace_ms: u64,
    },
    /// Run a command in a running container.
    Exec {
        container: ContainerId,
        command: Vec<String>,
        timeout_ms: Option<u64>,
    },
    /// Run a command in a running container, whose streams the asker holds the other ends of: they are in the session's
    /// directory. Answered once the command's helper is at work. The command is killed when this connection ends.
    OpenExec {
        container: ContainerId,
        session: String,
        command: Vec<String>,
        stdin: bool,
        tty: bool,
    },
    /// Watch a running container, and type to it: as above, but nothing is started, and nothing killed.
    Attach {
        container: ContainerId,
        session: String,
        stdin: bool,
    },
    /// Set the size of a container's terminal.
    Resize {
        container: ContainerId,
        columns: u16,
        rows: u16,
    },
    /// Answered once the command of a session, or the container that is watched, has ended.
    WaitExec { session: String },
    /// Kill a session's command with all that came of it, or stop watching. Answered at once.
    KillExec { session: String },
    /// Forget an exited container.
    Forget { container: ContainerId },
    /// Kill all containers, record their exits, answer, end.
    Shutdown,
}

/// From the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromShim {
    /// First frame of a connection.
    Hello {
        protocol: u32,
        containers: BTreeMap<ContainerId, Progress>,
    },
    /// A container's state changed; on disk already.
    Changed {
        container: ContainerId,
        progress: Progress,
    },
    /// Something a human may want to know.
    Warning { container: ContainerId, text: String },
    /// Answer to the request with this number.
    Reply { seq: u64, reply: Reply },
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Done.
    Done,
    /// Start or exec failed for good.
    Failed { why: String },
    /// The container doesn't run.
    NotRunning,
    /// The command ended.
    Executed {
        exit_code: i32,
        #[serde(with = "hex")]
        stdout: Vec<u8>,
        #[serde(with = "hex")]
        stderr: Vec<u8>,
    },
    /// The command took too long and was killed.
    TimedOut,
}

/// Why a frame can't be used; the connection is closed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("frame is not understood: {0}")]
    Json(#[from] serde_json::Error),
}

/// One message as bytes for the socket.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| FrameError::TooLong(body.len()))?;
    if body.len() > FRAME_LIMIT_BYTES {
        return Err(FrameError::TooLong(body.len()));
    }
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Takes the first whole message off `buffer`; `None` while it isn't all there.
pub(crate) fn decode<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> Result<Option<T>, FrameError> {
    let Some(header) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*header) as usize;
    if length > FRAME_LIMIT_BYTES {
        return Err(FrameError::TooLong(length));
    }
    let Some(body) = buffer.get(4..4 + length) else {
        return Ok(None);
    };
    let message = serde_json::from_slice(body)?;
    buffer.drain(..4 + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(seq: u64) -> Request {
        Request {
            seq,
            body: RequestBody::Start {
                container: ContainerId("c".into()),
            },
        }
    }

    #[test]
    fn messages_come_out_whole_however_the_bytes_arrive() {
        let bytes = [encode(&start(1)).unwrap(), encode(&start(2)).unwrap()].concat();
        for chunk in [1, 3, 7, bytes.len()] {
            let (mut buffer, mut seen) = (Vec::new(), Vec::new());
            for part in bytes.chunks(chunk) {
                buffer.extend_from_slice(part);
                while let Some(message) = decode::<Request>(&mut buffer).unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, [start(1), start(2)], "chunks of {chunk}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn output_survives_any_byte() {
        let all: Vec<u8> = (0..=255).collect();
        let reply = FromShim::Reply {
            seq: 1,
            reply: Reply::Executed {
                exit_code: 3,
                stdout: all.clone(),
                stderr: vec![],
            },
        };
        assert_eq!(decode(&mut encode(&reply).unwrap()).unwrap(), Some(reply));
    }

    #[test]
    fn full_output_fits_a_frame() {
        let full = vec![0; EXEC_OUTPUT_LIMIT_BYTES];
        let reply = Reply::Executed {
            exit_code: 0,
            stdout: full.clone(),
            stderr: full,
        };
        assert!(encode(&FromShim::Reply { seq: u64::MAX, reply }).is_ok());
    }

    #[test]
    fn long_or_strange_frames_are_refused() {
        assert!(matches!(
            decode::<Request>(&mut vec![0xff; 8]),
            Err(FrameError::TooLong(_))
        ));
        let mut strange = vec![0, 0, 0, 2, b'{', b'}'];
        assert!(matches!(
            decode::<Request>(&mut strange),
            Err(FrameError::Json(_))
        ));
    }
}

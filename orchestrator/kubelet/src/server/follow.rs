//! Streams a container's log file, and goes on as it grows when asked to.

use std::convert::Infallible;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use moorline_container_runtime::{ContainerId, ContainerRuntime, ContainerState, ContainerStatus};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::log_lines::{Options, Printer, tail_offset};
use super::{Body, text};
use crate::inotify::Watch;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Chunks waiting for a slow reader.
const CHUNKS_WAITING: usize = 4;

/// A log file and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub path: PathBuf,
    pub id: ContainerId,
}

/// The log of a container's newest attempt, or the one before.
pub(crate) async fn open(
    runtime: &Arc<dyn ContainerRuntime>,
    pod_uid: &str,
    container: &str,
    previous: bool,
) -> Result<Source, String> {
    let listed = runtime
        .list_containers()
        .await
        .map_err(|error| error.to_string())?;
    let mut own: Vec<_> = listed
        .into_iter()
        .filter(|held| held.pod_uid == pod_uid && held.name == container)
        .collect();
    own.sort_by_key(|held| held.attempt);
    if previous && own.len() < 2 {
        return Err(format!("previous terminated container {container:?} not found"));
    }
    let chosen = if previous {
        own.get(own.len().saturating_sub(2))
    } else {
        own.last()
    };
    let chosen = chosen.ok_or_else(|| format!("container {container:?} is waiting to start"))?;
    let status = runtime
        .container_status(&chosen.id)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Source {
        path: status.log_path,
        id: status.id,
    })
}

/// The answer that streams the file.
pub(crate) fn stream(
    source: Source,
    options: Options,
    runtime: Arc<dyn ContainerRuntime>,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Response<Body> {
    let (sender, receiver) = mpsc::channel::<Bytes>(CHUNKS_WAITING);
    tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            // The reader went away.
            () = sender.closed() => {}
            sent = send(&source, &options, &runtime, &sender) => {
                if let Err(error) = sent {
                    tracing::debug!(%error, path = %source.path.display(), "Log could not be sent completely");
                }
            }
        }
    });
    let frames = ReceiverStream::new(receiver).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let mut response = text(StatusCode::OK, String::new());
    *response.body_mut() = BodyExt::boxed(StreamBody::new(frames));
    response
}

async fn send(
    source: &Source,
    options: &Options,
    runtime: &Arc<dyn ContainerRuntime>,
    sender: &mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    let mut events = runtime.events();
    let watch = Watch::new()?;
    let mut file = match File::open(&source.path).await {
        Ok(file) => file,
        // Nothing was written yet, and without following nothing will be.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if options.follow {
        watch.add_file(&source.path)?;
    }
    if let Some(lines) = options.tail_lines {
        let offset = find_tail(&mut file, lines).await?;
        file.seek(SeekFrom::Start(offset)).await?;
    }
    let mut printer = Printer::new(options, Timestamp::now());
    let mut pending: Vec<u8> = Vec::new();
    loop {
        // Asked before reading: what it wrote until its end is read after the answer.
        let may_grow = options.follow && is_alive(runtime, &source.id).await;
        pump(&mut file, &mut pending, &mut printer, sender).await?;
        if printer.is_full() || sender.is_closed() || !may_grow {
            return Ok(());
        }
        tokio::select! {
            changed = watch.changed() => changed?,
            event = events.recv() => {
                if matches!(event, Err(tokio::sync::broadcast::error::RecvError::Closed)) {
                    return Ok(());
                }
            }
        }
    }
}

async fn is_alive(runtime: &Arc<dyn ContainerRuntime>, id: &ContainerId) -> bool {
    let status: Result<ContainerStatus, _> = runtime.container_status(id).await;
    status.is_ok_and(|status| status.state != ContainerState::Exited)
}

/// Offset of the last lines. Whole files are read for this: logs of one container are bounded by rotation.
async fn find_tail(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let mut content = Vec::new();
    file.read_to_end(&mut content).await?;
    Ok(tail_offset(&content, lines) as u64)
}

/// Sends all whole lines there are; what is left of a line stays in `pending`.
async fn pump(
    file: &mut File,
    pending: &mut Vec<u8>,
    printer: &mut Printer,
    sender: &mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    loop {
        let start = pending.len();
        pending.resize(start + CHUNK, 0);
        let read = file.read(&mut pending[start..]).await?;
        pending.truncate(start + read);
        let mut out = Vec::new();
        let whole = pending
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        for line in pending[..whole].split_inclusive(|byte| *byte == b'\n') {
            printer.print(line.strip_suffix(b"\n").unwrap_or(line), &mut out);
        }
        pending.drain(..whole);
        if !out.is_empty() && sender.send(Bytes::from(out)).await.is_err() {
            return Ok(());
        }
        if read == 0 || printer.is_full() {
            return Ok(());
        }
    }
}

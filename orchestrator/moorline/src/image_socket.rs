//! Images of a running cluster: the process that holds the state directory serves a private socket in it, so that
//! `moorline image` works beside `moorline up`. One JSON request a connection, one JSON answer.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use moorline_container_runtime::ImageService;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    time::{Duration, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::state_dir::StateDir;

/// A request is a few words and a path.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;
/// Whoever connects has this long to say what is wanted.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Request {
    /// Load this archive; an absolute path.
    Load(PathBuf),
    /// List all images.
    List,
    /// Remove an image by name.
    Remove(String),
}

/// One image, as `moorline image ls` shows it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) size_bytes: u64,
}

/// What came of it: the images loaded, listed or removed, or why not.
pub(crate) type Answer = Result<Vec<Row>, String>;

/// Does what is asked.
pub(crate) async fn handle(images: &dyn ImageService, request: Request) -> anyhow::Result<Vec<Row>> {
    match request {
        Request::Load(path) => {
            let loaded = images
                .load(&path)
                .await
                .with_context(|| format!("load {}", path.display()))?;
            Ok(loaded
                .into_iter()
                .map(|image| Row {
                    name: image.name,
                    id: image.id,
                    size_bytes: 0,
                })
                .collect())
        }
        Request::List => {
            let all = images.list().await.context("list images")?;
            let rows = all.into_iter().flat_map(|image| {
                let (id, size_bytes) = (image.id, image.size_bytes);
                image.names.into_iter().map(move |name| Row {
                    name,
                    id: id.clone(),
                    size_bytes,
                })
            });
            Ok(rows.collect())
        }
        Request::Remove(name) => {
            images
                .remove(&name)
                .await
                .with_context(|| format!("remove image {name}"))?;
            Ok(vec![Row {
                name,
                id: String::new(),
                size_bytes: 0,
            }])
        }
    }
}

/// Serves the socket until `stop`. The state directory's lock makes this the only server, so that a socket that is there
/// is a dead one's.
pub(crate) async fn serve(
    state: StateDir,
    images: Arc<dyn ImageService>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let path = state.image_socket();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove the stale socket {}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    // Private by the state directory's own mode, 0700.
    let listener = UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, _) = accepted.with_context(|| format!("accept on {}", path.display()))?;
        let images = Arc::clone(&images);
        tasks.spawn(async move {
            if let Err(error) = answer(stream, images.as_ref()).await {
                tracing::warn!(error = format!("{error:#}"), "An image request was not answered");
            }
        });
    }
    tasks.close();
    tasks.wait().await;
    // A socket without a server only makes the next client wait for nothing.
    std::fs::remove_file(&path).ok();
    Ok(())
}

async fn answer(mut stream: UnixStream, images: &dyn ImageService) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    let mut limited = (&mut stream).take(REQUEST_BYTES_MAX);
    timeout(REQUEST_TIMEOUT, limited.read_to_end(&mut bytes))
        .await
        .context("read the request in time")?
        .context("read the request")?;
    let answer: Answer = match serde_json::from_slice(&bytes) {
        Ok(request) => handle(images, request)
            .await
            .map_err(|error| format!("{error:#}")),
        Err(error) => Err(format!("not an image request: {error}")),
    };
    let bytes = serde_json::to_vec(&answer).context("write the answer")?;
    stream.write_all(&bytes).await.context("send the answer")?;
    stream.shutdown().await.context("end the answer")
}

/// Asks the cluster that runs on this state directory; `None` if none does.
pub(crate) async fn ask(socket: &Path, request: &Request) -> anyhow::Result<Option<Vec<Row>>> {
    let mut stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("connect to {}", socket.display())),
    };
    let bytes = serde_json::to_vec(request).context("write the request")?;
    stream.write_all(&bytes).await.context("send the request")?;
    stream.shutdown().await.context("end the request")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.context("read the answer")?;
    let answer: Answer =
        serde_json::from_slice(&bytes).context("read the answer: the cluster ended before it was whole")?;
    match answer {
        Ok(rows) => Ok(Some(rows)),
        Err(why) => bail!(why),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use moorline_container_runtime::{ContainerId, Image, ImageError, ImageRef};

    use super::*;

    /// Knows one image, and fails where the real store would.
    struct OneImage;

    #[async_trait]
    impl ImageService for OneImage {
        async fn ensure_image(&self, image: &str) -> Result<ImageRef, ImageError> {
            Ok(ImageRef {
                id: "sha256:1".into(),
                name: image.into(),
            })
        }
        async fn list(&self) -> Result<Vec<Image>, ImageError> {
            Ok(vec![Image {
                id: "sha256:1".into(),
                names: vec!["a:1".into(), "b:2".into()],
                size_bytes: 7,
                loaded_at: jiff::Timestamp::UNIX_EPOCH,
                user: String::new(),
            }])
        }
        async fn remove(&self, image: &str) -> Result<(), ImageError> {
            Err(ImageError::InUse {
                image: image.into(),
                container_id: ContainerId("c".into()),
            })
        }
        async fn load(&self, _archive: &Path) -> Result<Vec<ImageRef>, ImageError> {
            Ok(vec![ImageRef {
                id: "sha256:1".into(),
                name: "a:1".into(),
            }])
        }
    }

    #[tokio::test]
    async fn requests_are_answered_over_the_socket_and_without_one_nobody_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(&dir.path().join("s")).unwrap();
        let _lock = state.lock().unwrap();
        assert!(
            ask(&state.image_socket(), &Request::List)
                .await
                .unwrap()
                .is_none()
        );
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(serve(state.clone(), Arc::new(OneImage), stop.clone()));
        let mut rows = None;
        while rows.is_none() {
            tokio::task::yield_now().await;
            rows = ask(&state.image_socket(), &Request::List).await.unwrap();
        }
        let names: Vec<String> = rows.unwrap().into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["a:1", "b:2"]);
        let refused = ask(&state.image_socket(), &Request::Remove("a:1".into()))
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("remove image a:1"), "{refused}");
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        assert!(!state.image_socket().exists());
    }
}

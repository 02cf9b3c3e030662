//! Keeps the set of registered drivers equal to the set of sockets in the registry directory.
//!
//! ```text
//!  no socket ──appears──> unregistered ──register──> registered ──socket replaced──> unregistered
//!      ^                       │ failed: backoff          │
//!      └────────gone───────────┴──────deregister──────────┘
//! ```

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use moorline_runtime::{Backoff, Outcome, Queue, run_workers};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::registration::{Registrar, RegistrationError};
use crate::inotify::Watch;

/// A socket that was just made may not be listened on yet, so the first retries come quickly.
const RETRY: Backoff = Backoff {
    min: Duration::from_millis(20),
    max: Duration::from_secs(10),
};
const WORKERS: usize = 4;

/// Tells one incarnation of a socket from the next at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketId {
    device: u64,
    inode: u64,
    changed_seconds: i64,
    changed_nanoseconds: i64,
}

/// A socket whose driver is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registered {
    pub socket: SocketId,
    pub driver_name: String,
    pub endpoint: PathBuf,
}

/// What to do about one path of the registry directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Settled,
    Register(SocketId),
    Deregister(Registered),
}

/// Compares what is there with what is registered. An exchanged socket is deregistered before it is registered anew.
pub(crate) fn decide(found: Option<SocketId>, registered: Option<&Registered>) -> Next {
    match (found, registered) {
        (None, None) => Next::Settled,
        (Some(socket), None) => Next::Register(socket),
        (Some(socket), Some(held)) if held.socket == socket => Next::Settled,
        (None | Some(_), Some(held)) => Next::Deregister(held.clone()),
    }
}

fn find_socket(path: &Path) -> Option<SocketId> {
    let metadata = std::fs::symlink_metadata(path)
        .ok()
        .filter(|metadata| metadata.file_type().is_socket())?;
    Some(SocketId {
        device: metadata.dev(),
        inode: metadata.ino(),
        changed_seconds: metadata.ctime(),
        changed_nanoseconds: metadata.ctime_nsec(),
    })
}

fn sockets_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !is_hidden && entry.file_type()?.is_socket() {
            sockets.push(entry.path());
        }
    }
    Ok(sockets)
}

/// Registers and deregisters drivers until `stop`.
pub(crate) async fn run(
    directory: PathBuf,
    registrar: Arc<Registrar>,
    stop: CancellationToken,
) -> io::Result<()> {
    let watch = Watch::new()?;
    watch.add_directory(&directory)?;
    let registered: Arc<Mutex<HashMap<PathBuf, Registered>>> = Arc::default();
    let queue: Queue<PathBuf> = Queue::new(RETRY);
    let known = registered.clone();
    let workers = run_workers(queue.clone(), WORKERS, stop.clone(), move |path| {
        reconcile(path, registrar.clone(), registered.clone())
    });
    let watching = async {
        loop {
            let mut paths = sockets_in(&directory)?;
            paths.extend(known.lock().keys().cloned());
            for path in paths {
                queue.add(path);
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = watch.changed() => changed?,
            }
        }
    };
    let ((), watched) = tokio::join!(workers, watching);
    watched
}

async fn reconcile(
    path: PathBuf,
    registrar: Arc<Registrar>,
    registered: Arc<Mutex<HashMap<PathBuf, Registered>>>,
) -> Result<Outcome, RegistrationError> {
    loop {
        let held = registered.lock().get(&path).cloned();
        match decide(find_socket(&path), held.as_ref()) {
            Next::Settled => return Ok(Outcome::Settled),
            Next::Deregister(held) => {
                registrar.deregister(&held.driver_name, &held.endpoint).await?;
                registered.lock().remove(&path);
                tracing::info!(driver.name = held.driver_name, "Driver is no longer registered");
            }
            Next::Register(socket) => {
                let driver = match registrar.register(&path).await {
                    Ok(driver) => driver,
                    // Just made and not served yet, or left by a process that was killed.
                    Err(error) if error.is_nobody_there() => {
                        tracing::debug!(%error, "Nobody serves the registration socket");
                        return Ok(Outcome::Retry);
                    }
                    Err(error) => return Err(error),
                };
                let entry = Registered {
                    socket,
                    driver_name: driver.name.clone(),
                    endpoint: driver.endpoint.clone(),
                };
                registered.lock().insert(path.clone(), entry);
                tracing::info!(
                    driver.name = driver.name,
                    node.id = driver.node_id,
                    "Driver is registered"
                );
            }
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod stories;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_registrations_are_compared() {
        let socket = |inode| SocketId {
            device: 1,
            inode,
            changed_seconds: 2,
            changed_nanoseconds: 3,
        };
        let held = Registered {
            socket: socket(1),
            driver_name: "d".into(),
            endpoint: "/d.sock".into(),
        };
        let cases = [
            ("nothing there", None, None, Next::Settled),
            ("new", Some(socket(1)), None, Next::Register(socket(1))),
            ("known", Some(socket(1)), Some(&held), Next::Settled),
            (
                "replaced",
                Some(socket(2)),
                Some(&held),
                Next::Deregister(held.clone()),
            ),
            ("gone", None, Some(&held), Next::Deregister(held.clone())),
        ];
        for (name, found, registered, want) in cases {
            assert_eq!(decide(found, registered), want, "{name}");
        }
    }
}

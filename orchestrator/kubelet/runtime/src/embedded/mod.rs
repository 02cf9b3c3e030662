//! The embedded runtime: pods as shim processes on this machine, without a container daemon.
//!
//! Order of all that is made: record first, then cgroup, then process; of all that is removed: process, cgroup,
//! files, and the record with its directory last. So whatever a crash leaves is found through a record (or is a
//! directory without one) and cleaned when the state directory is opened again.

mod calls;
mod connection;
mod containers;
mod exec;
mod images;
mod link;
mod open;
mod pod_files;
mod sandboxes;
mod shared_memory;
mod shim_life;
mod state;
mod validate;

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cgroup::Hierarchies;
use crate::cri::ContainerEvent;
use crate::error::RuntimeError;
use crate::image::store::ImageStore;
use crate::layout::Layout;
use crate::sandbox::SandboxId;
use state::State;

/// Events a slow receiver may lag behind before it has to look at everything.
const EVENTS_KEPT: usize = 1024;

/// How an [`EmbeddedRuntime`] is set up.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Directory for everything the runtime keeps; made when missing, mode 0700.
    pub state_dir: PathBuf,
    /// The executable that calls [`crate::shim_main`]; `/proc/self/exe` when it is the caller's own.
    pub shim_executable: PathBuf,
    /// Offers the image `moorline.local/host`, which shows this machine's files to pods.
    pub host_image: bool,
    /// Paths that containers of that image must not see, besides `state_dir`.
    pub host_image_hidden: Vec<PathBuf>,
    /// Cgroup under which pods have theirs, relative; such as `moorline`.
    pub cgroup_root: PathBuf,
}

impl EmbeddedConfig {
    /// The usual set-up: this executable is the shim, no host image.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            shim_executable: PathBuf::from("/proc/self/exe"),
            host_image: false,
            host_image_hidden: Vec::new(),
            cgroup_root: PathBuf::from("moorline"),
        }
    }
}

/// Runs pods on this machine. Cheap to clone; all clones are one runtime.
#[derive(Debug, Clone)]
pub struct EmbeddedRuntime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: EmbeddedConfig,
    layout: Layout,
    hierarchies: Hierarchies,
    shared_memory: Option<shared_memory::SharedMemory>,
    images: Arc<ImageStore>,
    state: Mutex<State>,
    /// One call at a time changes a sandbox.
    guards: Mutex<HashMap<SandboxId, Arc<tokio::sync::Mutex<()>>>>,
    events: broadcast::Sender<ContainerEvent>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Keeps the state directory ours.
    _lock: File,
}

impl EmbeddedRuntime {
    /// Opens the state directory: connects to the shims that live, records what was lost with those that don't, and
    /// removes what an earlier run left half made.
    ///
    /// # Errors
    /// [`RuntimeError::NotPermitted`] without the rights to run containers, [`RuntimeError::StateDirectoryInUse`]
    /// while another process has the directory open, [`RuntimeError::Io`] where it can't be read or written.
    pub async fn open(config: EmbeddedConfig) -> Result<Self, RuntimeError> {
        open::check_rights()?;
        let opened = blocking("opening the state directory", move || open::open(config)).await??;
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let inner = Arc::new(Inner {
            config: opened.config,
            layout: opened.layout,
            hierarchies: opened.hierarchies,
            shared_memory: opened.shared_memory,
            images: Arc::new(opened.images),
            state: Mutex::new(State::default()),
            guards: Mutex::new(HashMap::new()),
            events,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            _lock: opened.lock,
        });
        for found in opened.sandboxes {
            inner.adopt(found)?;
        }
        Ok(Self { inner })
    }

    /// Lets go of the state directory. Pods go on; the next [`EmbeddedRuntime::open`] finds them. Waits for calls in
    /// progress.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        // Empty when no pod has one below it.
        self.inner.hierarchies.prune(&self.inner.config.cgroup_root);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Inner {
    fn guard(&self, id: &SandboxId) -> Arc<tokio::sync::Mutex<()>> {
        self.guards.lock().entry(id.clone()).or_default().clone()
    }

    fn announce(&self, event: ContainerEvent) {
        self.events.send(event).ok(); // nobody listens: nobody has to look again
    }
}

/// Runs what may block in the kernel where it is allowed to.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| RuntimeError::Lost(what))
}

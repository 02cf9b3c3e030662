//! The traits the kubelet runs pods through, shaped like CRI's two services; no implementation lives here.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::container::{Container, ContainerConfig, ContainerId, ContainerStatus, ExecOutput};
use crate::error::{ImageError, RuntimeError};
use crate::exec::{ExecRequest, ExecSession};
use crate::image::{Image, ImageRef};
use crate::sandbox::{Sandbox, SandboxConfig, SandboxId};

/// A container changed its state; a hint to look again, never the truth itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// Pod the container belongs to.
    pub pod_uid: String,
    /// Sandbox the container runs in.
    pub sandbox_id: SandboxId,
    /// The container, or `None` when the sandbox itself changed.
    pub container_id: Option<ContainerId>,
}

/// Pods' sandboxes and containers on this machine.
///
/// Every method may be called any number of times and by several tasks at once; calls about one sandbox are put in
/// order by the implementation. Dropping a returned future doesn't undo or half-do a side effect: the work goes on
/// and a repeated call finds its result.
#[async_trait]
pub trait ContainerRuntime: Send + Sync + 'static {
    /// Makes the sandbox of a pod and returns its id. Asked again with the same `(pod_uid, attempt)` it returns the
    /// sandbox that exists; a half-made or dead one of an earlier try is cleaned first.
    async fn run_pod_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError>;

    /// Kills what still runs in the sandbox and ends its shim. Containers stay listed as exited. A sandbox that is
    /// not known is already stopped: success.
    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// Removes the sandbox with all its containers, mounts, cgroups and records (log files stay: the kubelet owns
    /// the log directory). Stops it first where needed. A sandbox that is not known is already removed: success.
    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// All sandboxes with their present state, oldest first.
    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError>;

    /// Makes a container in a ready sandbox without starting it. Asked again with the same `(name, attempt)` it
    /// returns the container that exists; a half-made one is cleaned first.
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError>;

    /// Starts a created container. Success when it runs already or has run.
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Sends the image's stop signal (`SIGTERM` unless it says otherwise), then `SIGKILL` after `grace`, and
    /// returns once the exit is recorded. Success when the container is not known or has exited.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError>;

    /// Kills the container if it runs and removes all that belongs to it but its log file. Success when unknown.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// All containers, oldest first.
    async fn list_containers(&self) -> Result<Vec<Container>, RuntimeError>;

    /// What is known of one container.
    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError>;

    /// Runs `command` in a running container and waits for its end. After `timeout` (if any) it is killed and
    /// [`RuntimeError::ExecTimeout`] returned. Output beyond 1 MiB per stream is cut.
    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Option<Duration>,
    ) -> Result<ExecOutput, RuntimeError>;

    /// Runs a command in a running container and gives the streams to talk to it. A session that is dropped kills its
    /// command; so does the end of this process.
    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<ExecSession, RuntimeError>;

    /// Gives the streams of a running container: its output from now on, and its input if it was made with one and
    /// `stdin` asks for it. A session that is dropped changes nothing for the container; its end is the container's.
    async fn attach(&self, id: &ContainerId, stdin: bool) -> Result<ExecSession, RuntimeError>;

    /// Notices of state changes from now on. A receiver that lags must look at everything again.
    fn events(&self) -> broadcast::Receiver<ContainerEvent>;
}

/// Images that containers are made of.
#[async_trait]
pub trait ImageService: Send + Sync + 'static {
    /// The image a pod names, ready to make containers of. `image` is a reference as in `spec.containers[].image`.
    async fn ensure_image(&self, image: &str) -> Result<ImageRef, ImageError>;

    /// All images of the store, and the built-in one where it is on.
    async fn list(&self) -> Result<Vec<Image>, ImageError>;

    /// Removes an image by name or id; refused while a container uses it.
    async fn remove(&self, image: &str) -> Result<(), ImageError>;

    /// Loads a docker-archive or oci-archive tar file (plain or gzip) and returns the images it held. After an
    /// error nothing of the archive is left in the store.
    async fn load(&self, archive: &Path) -> Result<Vec<ImageRef>, ImageError>;
}

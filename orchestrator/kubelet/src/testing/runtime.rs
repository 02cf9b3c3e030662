//! A container runtime in memory: containers run until the test ends them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use moorline_container_runtime::exec::KillOnDrop;
use moorline_container_runtime::{
    Container, ContainerConfig, ContainerEvent, ContainerId, ContainerRuntime, ContainerState,
    ContainerStatus, ExecOutput, ExecRequest, ExecSession, Image, ImageError, ImageRef, ImageService,
    RuntimeError, Sandbox, SandboxConfig, SandboxId, SandboxState,
};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;

struct State {
    sandboxes: Vec<Sandbox>,
    containers: Vec<ContainerStatus>,
    configs: Vec<ContainerConfig>,
    calls: Vec<String>,
    images: BTreeSet<String>,
    /// Containers that don't end when asked politely.
    is_stubborn: bool,
    log: PathBuf,
}

/// The runtime, as the test sees it.
#[derive(Clone)]
pub(crate) struct Runtime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<ContainerEvent>,
    tasks: TaskTracker,
}

impl Runtime {
    /// Nothing runs; the image `image` is there.
    pub(crate) fn new() -> Self {
        let state = State {
            sandboxes: vec![],
            containers: vec![],
            configs: vec![],
            calls: vec![],
            images: BTreeSet::from(["image".to_owned()]),
            is_stubborn: false,
            log: PathBuf::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            events: broadcast::channel(64).0,
            tasks: TaskTracker::new(),
        }
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// What the newest container was made with.
    pub(crate) fn last_config(&self) -> ContainerConfig {
        self.state.lock().configs.last().cloned().unwrap()
    }

    pub(crate) fn add_image(&self, name: &str) {
        self.state.lock().images.insert(name.to_owned());
    }

    /// Containers made from now on log there.
    pub(crate) fn log_to(&self, file: &Path) {
        self.state.lock().log = file.to_owned();
    }

    pub(crate) fn set_stubborn(&self) {
        self.state.lock().is_stubborn = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().sandboxes.is_empty()
    }

    /// The newest running container of that name ends by itself.
    pub(crate) fn exit(&self, name: &str, code: i32) {
        let id = {
            let state = self.state.lock();
            let found = state.containers.iter().rev().find(|held| held.name == name);
            found
                .filter(|held| held.state == ContainerState::Running)
                .map(|held| held.id.clone())
        };
        self.end(&id.expect("it runs"), code);
    }

    fn end(&self, id: &ContainerId, code: i32) {
        self.change(id, |status| {
            if status.state != ContainerState::Exited {
                status.state = ContainerState::Exited;
                status.exit_code = Some(code);
                status.finished_at = Some(Timestamp::now());
            }
        });
    }

    fn change(&self, id: &ContainerId, change: impl FnOnce(&mut ContainerStatus)) {
        let event = {
            let mut state = self.state.lock();
            let Some(status) = state.containers.iter_mut().find(|held| held.id == *id) else {
                return;
            };
            change(status);
            ContainerEvent {
                pod_uid: status.pod_uid.clone(),
                sandbox_id: status.sandbox_id.clone(),
                container_id: Some(id.clone()),
            }
        };
        self.events.send(event).ok(); // Nobody may be listening.
    }

    fn note(&self, call: String) {
        self.state.lock().calls.push(call);
    }
}

#[async_trait]
impl ContainerRuntime for Runtime {
    async fn run_pod_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let id = SandboxId(format!("{}-{}", config.pod_uid, config.attempt));
        self.note(format!("sandbox {id}"));
        self.state.lock().sandboxes.push(Sandbox {
            id: id.clone(),
            pod_uid: config.pod_uid,
            pod_name: config.pod_name,
            namespace: config.namespace,
            attempt: config.attempt,
            state: SandboxState::Ready,
            created_at: Timestamp::now(),
            labels: config.labels,
            annotations: config.annotations,
        });
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.note(format!("stop sandbox {id}"));
        let mut state = self.state.lock();
        for sandbox in state.sandboxes.iter_mut().filter(|held| held.id == *id) {
            sandbox.state = SandboxState::NotReady;
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.note(format!("remove sandbox {id}"));
        let mut state = self.state.lock();
        state.sandboxes.retain(|held| held.id != *id);
        state.containers.retain(|held| held.sandbox_id != *id);
        Ok(())
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        Ok(self.state.lock().sandboxes.clone())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let id = ContainerId(format!("{sandbox}-{}-{}", config.name, config.attempt));
        self.note(format!("create {} {}", config.name, config.attempt));
        let mut state = self.state.lock();
        let held = state.sandboxes.iter().find(|held| held.id == *sandbox);
        let pod_uid = held
            .ok_or_else(|| RuntimeError::SandboxNotFound(sandbox.clone()))?
            .pod_uid
            .clone();
        state.configs.push(config.clone());
        let log_path = state.log.clone();
        state.containers.push(ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox.clone(),
            pod_uid,
            name: config.name,
            attempt: config.attempt,
            image: config.image,
            log_path,
            ..super::pods::container("", 0)
        });
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.change(id, |status| {
            status.state = ContainerState::Running;
            status.started_at = Some(Timestamp::now());
        });
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        self.note(format!("stop {id}"));
        let is_stubborn = self.state.lock().is_stubborn;
        if is_stubborn {
            tokio::time::sleep(grace).await;
        }
        self.end(id, if is_stubborn { 137 } else { 143 });
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.note(format!("remove {id}"));
        self.state.lock().containers.retain(|held| held.id != *id);
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<Container>, RuntimeError> {
        let held = &self.state.lock().containers;
        Ok(held.iter().map(ContainerStatus::listed).collect())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let state = self.state.lock();
        let found = state.containers.iter().find(|held| held.id == *id);
        found
            .cloned()
            .ok_or_else(|| RuntimeError::ContainerNotFound(id.clone()))
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        _timeout: Option<Duration>,
    ) -> Result<ExecOutput, RuntimeError> {
        self.note(format!("exec {} in {id}", command.join(" ")));
        Ok(ExecOutput {
            exit_code: i32::from(command != ["true"]),
            ..ExecOutput::default()
        })
    }

    /// As a command without a name.
    async fn attach(&self, id: &ContainerId, stdin: bool) -> Result<ExecSession, RuntimeError> {
        let request = ExecRequest {
            stdin,
            ..ExecRequest::default()
        };
        self.exec(id, request).await
    }

    /// Commands echo their input, and end with it.
    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        self.note(format!("exec {} in {id}", request.command.join(" ")));
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (stdout, stdin) = tokio::io::split(ours);
        let (done, is_done) = tokio::sync::oneshot::channel();
        let this = self.clone();
        let killed = KillOnDrop::new(move || this.note("exec over".to_owned()));
        let echo = async move {
            let (mut read, mut write) = tokio::io::split(theirs);
            tokio::io::copy(&mut read, &mut write).await.ok(); // the other side is gone
            write.shutdown().await.ok(); // the same
            done.send(()).ok(); // nobody waits any more
        };
        self.tasks.spawn(echo);
        let code = request
            .command
            .last()
            .and_then(|last| last.parse().ok())
            .unwrap_or(0);
        Ok(ExecSession {
            stdin: Some(Box::pin(stdin)),
            stdout: Some(Box::pin(stdout)),
            stderr: None,
            resize: None,
            ended: Box::pin(async move {
                is_done.await.ok(); // its end is all that counts
                Ok(code)
            }),
            kill: killed,
        })
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }
}

#[async_trait]
impl ImageService for Runtime {
    async fn ensure_image(&self, image: &str) -> Result<ImageRef, ImageError> {
        if !self.state.lock().images.contains(image) {
            return Err(ImageError::NotPresent {
                image: image.to_owned(),
                host_image: false,
            });
        }
        Ok(ImageRef {
            id: format!("id-{image}"),
            name: image.to_owned(),
        })
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(vec![])
    }

    async fn remove(&self, _image: &str) -> Result<(), ImageError> {
        Ok(())
    }

    async fn load(&self, _archive: &Path) -> Result<Vec<ImageRef>, ImageError> {
        Ok(vec![])
    }
}

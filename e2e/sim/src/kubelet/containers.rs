//! Containers that run for as long as their machine does and nobody stops them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moorline_container_runtime::container::ExecOutput;
use moorline_container_runtime::{
    Container, ContainerConfig, ContainerEvent, ContainerId, ContainerRuntime, ContainerState,
    ContainerStatus, ExecRequest, ExecSession, Image, ImageError, ImageRef, ImageService, RuntimeError,
    Sandbox, SandboxConfig, SandboxId, SandboxState,
};
use parking_lot::Mutex;
use tokio::sync::broadcast;

/// What runs on a machine.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    sandboxes: Vec<Sandbox>,
    containers: Vec<ContainerStatus>,
}

impl Containers {
    /// The machine has lost its power: what ran doesn't any more, and is known to have.
    pub(crate) fn die(&mut self) {
        for sandbox in &mut self.sandboxes {
            sandbox.state = SandboxState::NotReady;
        }
        self.containers.iter_mut().for_each(|held| end(held, 255));
    }
}

fn end(status: &mut ContainerStatus, code: i32) {
    if status.state != ContainerState::Exited {
        status.state = ContainerState::Exited;
        status.exit_code = Some(code);
        status.finished_at = Some(Timestamp::now());
    }
}

/// One kubelet's way to them.
pub(super) struct Runtime {
    machine: Arc<Mutex<Containers>>,
    events: broadcast::Sender<ContainerEvent>,
}

impl Runtime {
    pub(super) fn new(machine: Arc<Mutex<Containers>>) -> Self {
        Self {
            machine,
            events: broadcast::Sender::new(64),
        }
    }

    fn change(&self, id: &ContainerId, change: impl FnOnce(&mut ContainerStatus)) {
        let mut machine = self.machine.lock();
        let Some(status) = machine.containers.iter_mut().find(|held| held.id == *id) else {
            return;
        };
        change(status);
        let event = ContainerEvent {
            pod_uid: status.pod_uid.clone(),
            sandbox_id: status.sandbox_id.clone(),
            container_id: Some(id.clone()),
        };
        drop(machine);
        self.events.send(event).ok(); // Nobody may be listening.
    }
}

#[tonic::async_trait]
impl ContainerRuntime for Runtime {
    async fn run_pod_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let id = SandboxId(format!("{}-{}", config.pod_uid, config.attempt));
        let mut machine = self.machine.lock();
        machine
            .sandboxes
            .retain(|held| held.id != id || held.state == SandboxState::Ready);
        if !machine.sandboxes.iter().any(|held| held.id == id) {
            machine.sandboxes.push(Sandbox {
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
        }
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let mut machine = self.machine.lock();
        for sandbox in machine.sandboxes.iter_mut().filter(|held| held.id == *id) {
            sandbox.state = SandboxState::NotReady;
        }
        let mut running = machine.containers.iter_mut();
        running
            .by_ref()
            .filter(|held| held.sandbox_id == *id)
            .for_each(|held| end(held, 137));
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let mut machine = self.machine.lock();
        machine.sandboxes.retain(|held| held.id != *id);
        machine.containers.retain(|held| held.sandbox_id != *id);
        Ok(())
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        Ok(self.machine.lock().sandboxes.clone())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let id = ContainerId(format!("{sandbox}-{}-{}", config.name, config.attempt));
        let mut machine = self.machine.lock();
        let held = machine.sandboxes.iter().find(|held| held.id == *sandbox);
        let held = held.ok_or_else(|| RuntimeError::SandboxNotFound(sandbox.clone()))?;
        let pod_uid = held.pod_uid.clone();
        if machine.containers.iter().any(|held| held.id == id) {
            return Ok(id);
        }
        machine.containers.push(ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox.clone(),
            pod_uid,
            name: config.name,
            attempt: config.attempt,
            state: ContainerState::Created,
            created_at: Timestamp::now(),
            started_at: None,
            finished_at: None,
            exit_code: None,
            signal: None,
            oom_killed: false,
            reason: String::new(),
            message: String::new(),
            termination_message: String::new(),
            log_path: PathBuf::new(),
            image: config.image,
            pid: None,
            labels: config.labels,
            annotations: config.annotations,
        });
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.change(id, |status| {
            if status.state == ContainerState::Created {
                status.state = ContainerState::Running;
                status.started_at = Some(Timestamp::now());
            }
        });
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, _grace: Duration) -> Result<(), RuntimeError> {
        self.change(id, |status| end(status, 143));
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.machine.lock().containers.retain(|held| held.id != *id);
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<Container>, RuntimeError> {
        let held = &self.machine.lock().containers;
        Ok(held.iter().map(ContainerStatus::listed).collect())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let machine = self.machine.lock();
        let found = machine.containers.iter().find(|held| held.id == *id);
        found
            .cloned()
            .ok_or_else(|| RuntimeError::ContainerNotFound(id.clone()))
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        _command: &[String],
        _timeout: Option<Duration>,
    ) -> Result<ExecOutput, RuntimeError> {
        Err(RuntimeError::ContainerNotRunning(id.clone()))
    }

    async fn exec(&self, id: &ContainerId, _request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        Err(RuntimeError::ContainerNotRunning(id.clone()))
    }

    async fn attach(&self, id: &ContainerId, _stdin: bool) -> Result<ExecSession, RuntimeError> {
        Err(RuntimeError::ContainerNotRunning(id.clone()))
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }
}

#[tonic::async_trait]
impl ImageService for Runtime {
    async fn ensure_image(&self, image: &str) -> Result<ImageRef, ImageError> {
        Ok(ImageRef {
            id: format!("id-{image}"),
            name: image.to_owned(),
        })
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(Vec::new())
    }

    async fn remove(&self, _image: &str) -> Result<(), ImageError> {
        Ok(())
    }

    async fn load(&self, _archive: &Path) -> Result<Vec<ImageRef>, ImageError> {
        Ok(Vec::new())
    }
}

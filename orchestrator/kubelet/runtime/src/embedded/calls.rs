//! The runtime's interface over the life cycle: every call that changes something is a task of its own, so that a
//! caller who goes away leaves nothing half done.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::containers::{odd_answer, tail};
use super::exec::Wish;
use super::link::LinkLost;
use super::{EmbeddedRuntime, blocking};
use crate::container::{Container, ContainerConfig, ContainerId, ContainerStatus, ExecOutput};
use crate::cri::{ContainerEvent, ContainerRuntime};
use crate::error::RuntimeError;
use crate::exec::{ExecRequest, ExecSession};
use crate::sandbox::{Sandbox, SandboxConfig, SandboxId};
use crate::shim::protocol::{Reply, RequestBody};

/// What Kubernetes takes of a termination message.
const TERMINATION_MESSAGE_LIMIT_BYTES: u64 = 4096;

/// The shim keeps the time of a command; this is for a shim that doesn't answer.
const EXEC_SLACK: Duration = Duration::from_secs(30);

impl EmbeddedRuntime {
    async fn tracked<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        self.inner
            .tasks
            .spawn(work)
            .await
            .map_err(|_| RuntimeError::Lost("a task of the runtime"))?
    }
}

#[async_trait]
impl ContainerRuntime for EmbeddedRuntime {
    async fn run_pod_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let inner = self.inner.clone();
        self.tracked(async move { inner.run_sandbox(config).await }).await
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let (inner, id) = (self.inner.clone(), id.clone());
        self.tracked(async move { inner.stop_sandbox(&id).await }).await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let (inner, id) = (self.inner.clone(), id.clone());
        self.tracked(async move { inner.remove_sandbox(&id).await }).await
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        Ok(self.inner.state.lock().list_sandboxes())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let (inner, sandbox) = (self.inner.clone(), sandbox.clone());
        self.tracked(async move { inner.create(sandbox, config).await })
            .await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let (inner, id) = (self.inner.clone(), id.clone());
        self.tracked(async move { inner.start(&id).await }).await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let (inner, id) = (self.inner.clone(), id.clone());
        self.tracked(async move { inner.stop_one(&id, grace).await })
            .await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let (inner, id) = (self.inner.clone(), id.clone());
        self.tracked(async move { inner.remove_one(&id).await }).await
    }

    async fn list_containers(&self) -> Result<Vec<Container>, RuntimeError> {
        Ok(self.inner.state.lock().list_containers())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let (sandbox, _, entry) = self
            .inner
            .find(id)
            .ok_or_else(|| RuntimeError::ContainerNotFound(id.clone()))?;
        let message = if entry.is_exited() {
            let path = self.inner.container_dir(&sandbox, id).termination_log();
            blocking("reading a termination message", move || {
                tail(&path, TERMINATION_MESSAGE_LIMIT_BYTES)
            })
            .await?
        } else {
            String::new()
        };
        let state = self.inner.state.lock();
        let sandbox = state
            .sandboxes
            .get(&sandbox)
            .ok_or_else(|| RuntimeError::ContainerNotFound(id.clone()))?;
        Ok(sandbox.status_of(&entry, message))
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Option<Duration>,
    ) -> Result<ExecOutput, RuntimeError> {
        let (sandbox, link, _) = self
            .inner
            .find(id)
            .ok_or_else(|| RuntimeError::ContainerNotFound(id.clone()))?;
        let Some(link) = link else {
            return Err(RuntimeError::ContainerNotRunning(id.clone()));
        };
        let request = RequestBody::Exec {
            container: id.clone(),
            command: command.to_vec(),
            timeout_ms: timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        };
        let patience = timeout.map_or(Duration::MAX, |limit| limit.saturating_add(EXEC_SLACK));
        let id = id.clone();
        self.tracked(async move {
            match tokio::time::timeout(patience, link.request(request)).await {
                Ok(Ok(Reply::Executed {
                    exit_code,
                    stdout,
                    stderr,
                })) => Ok(ExecOutput {
                    exit_code,
                    stdout,
                    stderr,
                }),
                Ok(Ok(Reply::TimedOut)) => Err(RuntimeError::ExecTimeout {
                    timeout: timeout.unwrap_or_default(),
                }),
                Ok(Ok(Reply::Failed { why })) => Err(RuntimeError::ExecFailed { id, why }),
                Ok(Ok(Reply::NotRunning) | Err(LinkLost)) => Err(RuntimeError::ContainerNotRunning(id)),
                Ok(Ok(other @ Reply::Done)) => Err(odd_answer(sandbox, &other)),
                Err(_) => Err(RuntimeError::Shim {
                    sandbox_id: sandbox,
                    why: "it does not answer".to_owned(),
                }),
            }
        })
        .await
    }

    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        let (inner, id) = (self.inner.clone(), id.clone());
        self.tracked(async move { inner.open_session(id, Wish::Exec(request)).await })
            .await
    }

    async fn attach(&self, id: &ContainerId, stdin: bool) -> Result<ExecSession, RuntimeError> {
        let (inner, id) = (self.inner.clone(), id.clone());
        self.tracked(async move { inner.open_session(id, Wish::Attach { stdin }).await })
            .await
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.inner.events.subscribe()
    }
}

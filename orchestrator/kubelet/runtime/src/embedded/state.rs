//! What the runtime remembers of sandboxes and containers: a copy of the records, never more.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::container::{Container, ContainerId, ContainerState, ContainerStatus};
use crate::embedded::link::Link;
use crate::records::{ContainerRecord, Progress, SandboxRecord};
use crate::sandbox::{Sandbox, SandboxId, SandboxState};

/// All sandboxes.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) sandboxes: BTreeMap<SandboxId, SandboxEntry>,
}

/// One sandbox.
#[derive(Debug)]
pub(crate) struct SandboxEntry {
    pub(crate) record: Arc<SandboxRecord>,
    /// The live shim.
    pub(crate) link: Option<Arc<Link>>,
    pub(crate) containers: BTreeMap<ContainerId, ContainerEntry>,
}

/// One container.
#[derive(Debug, Clone)]
pub(crate) struct ContainerEntry {
    pub(crate) record: Arc<ContainerRecord>,
    pub(crate) progress: Progress,
}

impl State {
    pub(crate) fn container(&self, id: &ContainerId) -> Option<(&SandboxEntry, &ContainerEntry)> {
        self.sandboxes
            .values()
            .find_map(|sandbox| Some((sandbox, sandbox.containers.get(id)?)))
    }

    /// Takes news of a container; `false` when it is not known (any more).
    pub(crate) fn update(&mut self, sandbox: &SandboxId, id: &ContainerId, progress: Progress) -> bool {
        let entry = self
            .sandboxes
            .get_mut(sandbox)
            .and_then(|sandbox| sandbox.containers.get_mut(id));
        entry.map(|entry| entry.progress = progress).is_some()
    }

    pub(crate) fn list_sandboxes(&self) -> Vec<Sandbox> {
        let mut all: Vec<Sandbox> = self.sandboxes.values().map(SandboxEntry::listed).collect();
        all.sort_by_key(|one| one.created_at);
        all
    }

    pub(crate) fn list_containers(&self) -> Vec<Container> {
        let entries = self.sandboxes.values().flat_map(|sandbox| {
            sandbox
                .containers
                .values()
                .map(|container| container.listed(&sandbox.record.config.pod_uid))
        });
        let mut all: Vec<Container> = entries.collect();
        all.sort_by_key(|one| one.created_at);
        all
    }
}

impl SandboxEntry {
    fn listed(&self) -> Sandbox {
        let config = &self.record.config;
        Sandbox {
            id: self.record.id.clone(),
            pod_uid: config.pod_uid.clone(),
            pod_name: config.pod_name.clone(),
            namespace: config.namespace.clone(),
            attempt: config.attempt,
            state: if self.link.is_some() {
                SandboxState::Ready
            } else {
                SandboxState::NotReady
            },
            created_at: self.record.created_at,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }
    }

    fn log_path(&self, container: &ContainerRecord) -> PathBuf {
        if container.config.log_path.as_os_str().is_empty() {
            return PathBuf::new();
        }
        self.record.config.log_directory.join(&container.config.log_path)
    }

    pub(crate) fn status_of(
        &self,
        container: &ContainerEntry,
        termination_message: String,
    ) -> ContainerStatus {
        let ContainerEntry { record, progress } = container;
        let config = &record.config;
        ContainerStatus {
            id: record.id.clone(),
            sandbox_id: record.sandbox_id.clone(),
            pod_uid: self.record.config.pod_uid.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            state: progress.state,
            created_at: record.created_at,
            started_at: progress.started_at,
            finished_at: progress.finished_at,
            exit_code: progress.exit_code,
            signal: progress.signal,
            oom_killed: progress.oom_killed,
            reason: progress.reason.clone(),
            message: progress.message.clone(),
            termination_message,
            log_path: self.log_path(record),
            image: config.image.clone(),
            pid: progress.process.as_ref().map(|process| process.pid),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }
    }
}

impl ContainerEntry {
    pub(crate) fn is_exited(&self) -> bool {
        self.progress.state == ContainerState::Exited
    }

    fn listed(&self, pod_uid: &str) -> Container {
        let Self { record, progress } = self;
        Container {
            id: record.id.clone(),
            sandbox_id: record.sandbox_id.clone(),
            pod_uid: pod_uid.to_owned(),
            name: record.config.name.clone(),
            attempt: record.config.attempt,
            state: progress.state,
            created_at: record.created_at,
            image: record.config.image.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }
    }
}

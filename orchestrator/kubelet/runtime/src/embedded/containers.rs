//! Containers made, started, stopped and removed.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::link::{Link, LinkLost};
use super::open::{failed, make_private_dir, remove_dir};
use super::shim_life;
use super::state::ContainerEntry;
use super::{Inner, blocking, images, validate};
use crate::container::{ContainerConfig, ContainerId, ContainerState};
use crate::error::RuntimeError;
use crate::image::config as image_config;
use crate::layout::ContainerDir;
use crate::records::{self, ContainerRecord, Progress};
use crate::sandbox::SandboxId;
use crate::shim::protocol::{Reply, RequestBody};

/// Beyond the grace the shim needs to see the end and write it down.
const STOP_SLACK: Duration = Duration::from_secs(30);

impl Inner {
    pub(super) async fn create(
        self: &Arc<Self>,
        sandbox: SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let guard = self.guard(&sandbox);
        let _held = guard.lock().await;
        let id = records::container_id(&sandbox, &config.name, config.attempt);
        {
            let state = self.state.lock();
            let entry = state
                .sandboxes
                .get(&sandbox)
                .ok_or_else(|| RuntimeError::SandboxNotFound(sandbox.clone()))?;
            if entry.link.is_none() {
                return Err(RuntimeError::SandboxNotReady(sandbox));
            }
            if entry.containers.contains_key(&id) {
                return Ok(id);
            }
        }
        let inner = self.clone();
        let sandbox_id = sandbox.clone();
        let record = blocking("making a container", move || {
            inner.prepare_container(id, sandbox_id, config)
        })
        .await??;
        let id = record.id.clone();
        let entry = ContainerEntry {
            record: Arc::new(record),
            progress: Progress::created(),
        };
        match self.state.lock().sandboxes.get_mut(&sandbox) {
            Some(sandbox) => sandbox.containers.insert(id.clone(), entry),
            None => return Err(RuntimeError::SandboxNotFound(sandbox)),
        };
        Ok(id)
    }

    /// Blocks.
    fn prepare_container(
        &self,
        id: ContainerId,
        sandbox: SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerRecord, RuntimeError> {
        let (image, root) = images::resolve(&self.images, &self.config, &config.image)?;
        validate::container(&config, &image)?;
        let dir = self.layout.sandbox(&sandbox).container(&id);
        remove_dir(&dir.path)?;
        make_private_dir(&dir.path)?;
        let termination = dir.termination_log();
        // Written by whatever user the container runs as.
        fs::write(&termination, b"").map_err(failed("make", &termination))?;
        fs::set_permissions(&termination, fs::Permissions::from_mode(0o666))
            .map_err(failed("set mode of", &termination))?;
        let record = ContainerRecord::new(id, sandbox, Timestamp::now(), config, image, root);
        records::write(&dir.record(), &record)?;
        Ok(record)
    }

    /// The sandbox, the live shim if any, and the container.
    pub(super) fn find(&self, id: &ContainerId) -> Option<(SandboxId, Option<Arc<Link>>, ContainerEntry)> {
        let state = self.state.lock();
        let (sandbox, container) = state.container(id)?;
        Some((sandbox.record.id.clone(), sandbox.link.clone(), container.clone()))
    }

    pub(super) async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let (sandbox, link, entry) = self
            .find(id)
            .ok_or_else(|| RuntimeError::ContainerNotFound(id.clone()))?;
        if entry.progress.state != ContainerState::Created {
            return Ok(());
        }
        let link = link.ok_or(RuntimeError::SandboxNotReady(sandbox.clone()))?;
        match link
            .request(RequestBody::Start {
                container: id.clone(),
            })
            .await
        {
            Ok(Reply::Done) => Ok(()),
            Ok(Reply::Failed { why }) => Err(RuntimeError::StartFailed { id: id.clone(), why }),
            Ok(other) => Err(odd_answer(sandbox, &other)),
            Err(LinkLost) => Err(RuntimeError::SandboxNotReady(sandbox)),
        }
    }

    pub(super) async fn stop_one(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let Some((sandbox, Some(link), entry)) = self.find(id) else {
            return Ok(());
        };
        if entry.is_exited() {
            return Ok(());
        }
        let request = RequestBody::Stop {
            container: id.clone(),
            signal: image_config::stop_signal(&entry.record.image_config),
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        };
        match tokio::time::timeout(grace.saturating_add(STOP_SLACK), link.request(request)).await {
            // A lost shim has taken its containers with it, and that is on record by now.
            Ok(Ok(Reply::Done) | Err(LinkLost)) => Ok(()),
            Ok(Ok(other)) => Err(odd_answer(sandbox, &other)),
            Err(_) => Err(RuntimeError::Shim {
                sandbox_id: sandbox,
                why: format!("container {id} does not end; its process hangs in the kernel"),
            }),
        }
    }

    pub(super) async fn remove_one(self: &Arc<Self>, id: &ContainerId) -> Result<(), RuntimeError> {
        let Some((sandbox, _, _)) = self.find(id) else {
            return Ok(());
        };
        let guard = self.guard(&sandbox);
        let _held = guard.lock().await;
        self.stop_one(id, Duration::ZERO).await?;
        let Some((_, link, _)) = self.find(id) else {
            return Ok(());
        };
        if let Some(link) = link {
            link.request(RequestBody::Forget {
                container: id.clone(),
            })
            .await
            .ok(); // a lost shim has forgotten
        }
        let inner = self.clone();
        let (sandbox_id, container_id) = (sandbox.clone(), id.clone());
        blocking("removing a container", move || {
            inner.erase_container(&sandbox_id, &container_id)
        })
        .await??;
        if let Some(entry) = self.state.lock().sandboxes.get_mut(&sandbox) {
            entry.containers.remove(id);
        }
        Ok(())
    }

    fn erase_container(&self, sandbox: &SandboxId, id: &ContainerId) -> Result<(), RuntimeError> {
        let cgroup = self
            .state
            .lock()
            .sandboxes
            .get(sandbox)
            .map(|entry| entry.record.cgroup.child(&id.0));
        if let Some(cgroup) = cgroup {
            for left in cgroup.end(shim_life::pause) {
                tracing::warn!(container.id = %id, left, "Cgroup is not removed");
            }
        }
        remove_dir(&self.layout.sandbox(sandbox).container(id).path)
    }

    pub(super) fn container_dir(&self, sandbox: &SandboxId, id: &ContainerId) -> ContainerDir {
        self.layout.sandbox(sandbox).container(id)
    }
}

pub(super) fn odd_answer(sandbox_id: SandboxId, reply: &Reply) -> RuntimeError {
    RuntimeError::Shim {
        sandbox_id,
        why: format!("unexpected answer {reply:?}"),
    }
}

/// The end of a file, at most `limit` bytes; empty when there is none. Blocks.
pub(super) fn tail(path: &Path, limit: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

//! Sandboxes made, stopped and removed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::open::{failed, make_private_dir, remove_dir};
use super::shim_life::{self, KILL_LIMIT};
use super::state::SandboxEntry;
use super::{Inner, blocking, pod_files, validate};
use crate::cri::ContainerEvent;
use crate::error::RuntimeError;
use crate::records::{self, SandboxRecord};
use crate::sandbox::{SandboxConfig, SandboxId};
use crate::shim::protocol::{Reply, RequestBody};

/// Killing takes the kernel little; a process stuck in it may never end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

// A kernel that doesn't let go of a killed process within the limit won't do so later either.
const _: () = assert!(KILL_LIMIT.as_secs() < SHUTDOWN_LIMIT.as_secs());

impl Inner {
    pub(super) async fn run_sandbox(
        self: &Arc<Self>,
        config: SandboxConfig,
    ) -> Result<SandboxId, RuntimeError> {
        validate::sandbox(&config)?;
        let id = records::sandbox_id(&config.pod_uid, config.attempt);
        let guard = self.guard(&id);
        let _held = guard.lock().await;
        let known = self
            .state
            .lock()
            .sandboxes
            .get(&id)
            .map(|entry| entry.link.is_some());
        match known {
            Some(true) => return Ok(id),
            Some(false) => self.remove_sandbox_held(&id).await?,
            None => {}
        }
        let record = {
            let inner = self.clone();
            let id = id.clone();
            blocking("making a sandbox", move || inner.prepare_sandbox(id, config)).await??
        };
        let dir = self.layout.sandbox(&id);
        match self.start_shim(&id, &dir).await {
            Ok(shim) => {
                let entry = SandboxEntry {
                    record: Arc::new(record),
                    link: None,
                    containers: BTreeMap::new(),
                };
                self.state.lock().sandboxes.insert(id.clone(), entry);
                self.connect(&id, shim)?;
                Ok(id)
            }
            Err(error) => {
                let inner = self.clone();
                let cleaned = blocking("cleaning a sandbox", move || inner.erase_sandbox(&record)).await;
                if let Err(second) = cleaned.and_then(|result| result) {
                    tracing::warn!(sandbox.id = %id, error = %second, "Half-made sandbox is left for the next start");
                }
                Err(error)
            }
        }
    }

    /// Everything but the process. Blocks.
    fn prepare_sandbox(&self, id: SandboxId, config: SandboxConfig) -> Result<SandboxRecord, RuntimeError> {
        let dir = self.layout.sandbox(&id);
        remove_dir(&dir.path)?;
        make_private_dir(&dir.containers())?;
        let shm_dir = self.shared_memory.as_ref().map(|shared| shared.dir(&id));
        let relative = self.cgroup_of(&config);
        let cgroup = self.hierarchies.path(&relative);
        let record = SandboxRecord::new(id, Timestamp::now(), config, cgroup, shm_dir);
        pod_files::write(&dir.path, &record.config, &pod_files::Machine::read())
            .map_err(failed("write pod files in", &dir.path))?;
        records::write(&dir.record(), &record)?;
        for warning in self
            .hierarchies
            .make(&relative)
            .map_err(failed("make cgroup", &relative))?
        {
            tracing::debug!(warning, "Cgroup controller is not available");
        }
        if let (Some(shared), Some(dir)) = (&self.shared_memory, &record.shm_dir) {
            shared.make(dir)?;
        }
        let logs = &record.config.log_directory;
        fs::create_dir_all(logs).map_err(failed("make directory", logs))?;
        Ok(record)
    }

    fn cgroup_of(&self, config: &SandboxConfig) -> PathBuf {
        let parent = if config.cgroup_parent.is_empty() {
            format!("pod{}", config.pod_uid)
        } else {
            config.cgroup_parent.clone()
        };
        // Two attempts of one pod may exist side by side while the older is taken away.
        self.config
            .cgroup_root
            .join(parent)
            .join(format!("sandbox{}", config.attempt))
    }

    pub(super) async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let guard = self.guard(id);
        let _held = guard.lock().await;
        self.stop_sandbox_held(id).await
    }

    async fn stop_sandbox_held(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let Some(link) = self
            .state
            .lock()
            .sandboxes
            .get(id)
            .and_then(|entry| entry.link.clone())
        else {
            return Ok(());
        };
        let asked = tokio::time::timeout(SHUTDOWN_LIMIT, link.request(RequestBody::Shutdown)).await;
        if !matches!(asked, Ok(Ok(Reply::Done))) {
            tracing::warn!(sandbox.id = %id, "Shim does not end its containers and is killed");
            let dir = self.layout.sandbox(id);
            blocking("killing a shim", move || shim_life::kill_shim_or_say(&dir)).await??;
        }
        // Whichever way it ended: nothing of it may run when this returns.
        self.on_shim_end(id, &link).await;
        Ok(())
    }

    pub(super) async fn remove_sandbox(self: &Arc<Self>, id: &SandboxId) -> Result<(), RuntimeError> {
        let guard = self.guard(id);
        {
            let _held = guard.lock().await;
            self.remove_sandbox_held(id).await?;
        }
        let mut guards = self.guards.lock();
        // The map's and ours: nobody waits for it who would be left with another guard than the next caller's.
        if Arc::strong_count(&guard) == 2 {
            guards.remove(id);
        }
        Ok(())
    }

    async fn remove_sandbox_held(self: &Arc<Self>, id: &SandboxId) -> Result<(), RuntimeError> {
        self.stop_sandbox_held(id).await?;
        let Some(record) = self
            .state
            .lock()
            .sandboxes
            .get(id)
            .map(|entry| entry.record.clone())
        else {
            return Ok(());
        };
        let inner = self.clone();
        let erased = record.clone();
        blocking("removing a sandbox", move || inner.erase_sandbox(&erased)).await??;
        self.state.lock().sandboxes.remove(id);
        self.announce(ContainerEvent {
            pod_uid: record.config.pod_uid.clone(),
            sandbox_id: id.clone(),
            container_id: None,
        });
        Ok(())
    }

    /// All traces of a sandbox whose processes have ended; the record goes last. Blocks.
    fn erase_sandbox(&self, record: &SandboxRecord) -> Result<(), RuntimeError> {
        let dir = self.layout.sandbox(&record.id);
        if !shim_life::kill_shim(&dir)? {
            return Err(RuntimeError::Shim {
                sandbox_id: record.id.clone(),
                why: "its process does not end; it hangs in the kernel".to_owned(),
            });
        }
        for left in record.cgroup.end(shim_life::pause) {
            tracing::warn!(sandbox.id = %record.id, left, "Cgroup is not removed");
        }
        self.hierarchies.prune(&self.cgroup_of(&record.config));
        if let (Some(shared), Some(dir)) = (&self.shared_memory, &record.shm_dir) {
            shared.remove(dir)?;
        }
        remove_dir(&dir.containers())?;
        remove_dir(&dir.path)
    }
}

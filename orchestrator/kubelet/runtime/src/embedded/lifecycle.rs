//! Sandboxes and containers made, started, stopped, removed; what happens when a shim ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::link::{Greeted, Incoming, Link, LinkLost, Notice, greet};
use super::open::{self, Found, KILL_LIMIT, failed, make_private_dir, remove_dir};
use super::state::{ContainerEntry, SandboxEntry};
use super::{Inner, blocking, pod_files, validate};
use crate::container::{ContainerConfig, ContainerId, ContainerState};
use crate::cri::ContainerEvent;
use crate::error::{ImageError, RuntimeError};
use crate::image::config as image_config;
use crate::records::{self, ContainerRecord, Progress, SandboxDir, SandboxRecord};
use crate::sandbox::{SandboxConfig, SandboxId};
use crate::shim::protocol::{Reply, RequestBody};
use crate::shim::{READY, SHIM_NAME};

/// A shim is ready in milliseconds; a machine short of everything may need longer.
const SHIM_START_LIMIT: Duration = Duration::from_secs(30);

/// Killing takes the kernel little; a process stuck in it may never end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

/// Beyond the grace the shim needs to see the end and write it down.
const STOP_SLACK: Duration = Duration::from_secs(30);

impl Inner {
    /// Takes a sandbox of an earlier run over.
    pub(super) fn adopt(self: &Arc<Self>, found: Found) -> Result<(), RuntimeError> {
        let id = found.record.id.clone();
        let entry = SandboxEntry {
            record: found.record.into(),
            link: None,
            containers: found.containers,
        };
        self.state.lock().sandboxes.insert(id.clone(), entry);
        match found.shim {
            Some(shim) => self.connect(&id, shim),
            None => Ok(()),
        }
    }

    fn connect(self: &Arc<Self>, id: &SandboxId, shim: Greeted) -> Result<(), RuntimeError> {
        let (link, incoming) = shim
            .split()
            .map_err(failed("connect to the shim in", &self.layout.sandbox(id).path))?;
        if let Some(entry) = self.state.lock().sandboxes.get_mut(id) {
            entry.link = Some(link.clone());
        }
        // Weak, so that dropping the runtime ends the task rather than the task keeping the runtime.
        let (inner, id, stop) = (Arc::downgrade(self), id.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let listen = Self::listen(&inner, &id, &link, incoming);
            tokio::select! {
                () = stop.cancelled() => link.close(), // every message is handled whole or read again at the next open
                () = listen => {}
            }
        });
        Ok(())
    }

    /// Takes a shim's notices until it ends.
    async fn listen(inner: &std::sync::Weak<Self>, id: &SandboxId, link: &Arc<Link>, mut incoming: Incoming) {
        while let Some(notice) = incoming.next(link).await {
            let Some(inner) = inner.upgrade() else { return };
            match notice {
                Notice::Changed { container, progress } => inner.on_change(id, container, progress),
                Notice::Warning { container, text } => {
                    tracing::warn!(sandbox.id = %id, container.id = %container, text, "Shim reports trouble");
                }
            }
        }
        if let Some(inner) = inner.upgrade() {
            inner.on_shim_end(id, link).await;
        }
    }

    fn on_change(&self, sandbox: &SandboxId, container: ContainerId, progress: Progress) {
        let pod_uid = {
            let mut state = self.state.lock();
            if !state.update(sandbox, &container, progress) {
                return;
            }
            state
                .sandboxes
                .get(sandbox)
                .map(|entry| entry.record.config.pod_uid.clone())
        };
        if let Some(pod_uid) = pod_uid {
            self.announce(ContainerEvent {
                pod_uid,
                sandbox_id: sandbox.clone(),
                container_id: Some(container),
            });
        }
    }

    /// The connection is gone and with it the shim, wanted or not. Containers are settled before those who wait for
    /// an answer hear that none will come.
    async fn on_shim_end(&self, id: &SandboxId, link: &Arc<Link>) {
        let entry = {
            let state = self.state.lock();
            let current = state
                .sandboxes
                .get(id)
                .filter(|entry| entry.link.as_ref().is_some_and(|l| Arc::ptr_eq(l, link)));
            current.map(|entry| (entry.record.clone(), entry.containers.clone()))
        };
        if let Some((record, mut containers)) = entry {
            let dir = self.layout.sandbox(id);
            let settled = blocking("settling containers", {
                let record = record.clone();
                move || {
                    open::kill_shim(&dir)?;
                    open::end_containers(&dir, &record, &mut containers)?;
                    Ok::<_, RuntimeError>(containers)
                }
            });
            match settled.await.and_then(|result| result) {
                Ok(containers) => self.lose(id, &record, containers),
                Err(error) => {
                    tracing::error!(sandbox.id = %id, %error, "Containers of an ended shim are not settled");
                }
            }
        }
        link.close();
    }

    fn lose(
        &self,
        id: &SandboxId,
        record: &SandboxRecord,
        settled: std::collections::BTreeMap<ContainerId, ContainerEntry>,
    ) {
        if let Some(entry) = self.state.lock().sandboxes.get_mut(id) {
            entry.link = None;
            for (container, found) in settled {
                entry
                    .containers
                    .entry(container)
                    .and_modify(|known| known.progress = found.progress);
            }
        }
        self.announce(ContainerEvent {
            pod_uid: record.config.pod_uid.clone(),
            sandbox_id: id.clone(),
            container_id: None,
        });
    }

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
                    containers: Default::default(),
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
        let shm_dir = open::shm_dir(&self.layout, &id);
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
        if let Some(shm) = &record.shm_dir {
            if let Some(parent) = shm.parent() {
                make_private_dir(parent)?;
            }
            fs::create_dir_all(shm).map_err(failed("make directory", shm))?;
            fs::set_permissions(shm, fs::Permissions::from_mode(0o1777))
                .map_err(failed("set mode of", shm))?;
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

    async fn start_shim(self: &Arc<Self>, id: &SandboxId, dir: &SandboxDir) -> Result<Greeted, RuntimeError> {
        let trouble = |why: String| RuntimeError::Shim {
            sandbox_id: id.clone(),
            why,
        };
        let log = fs::File::create(dir.shim_log()).map_err(failed("make", &dir.shim_log()))?;
        let mut child = Command::new(&self.config.shim_executable)
            .arg0(SHIM_NAME)
            .arg("serve")
            .arg(&dir.path)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| {
                trouble(format!(
                    "start {}: {error}",
                    self.config.shim_executable.display()
                ))
            })?;
        let ready = match child.stdout.take() {
            Some(stdout) => {
                let mut line = String::new();
                let mut reader = BufReader::new(stdout);
                tokio::time::timeout(SHIM_START_LIMIT, reader.read_line(&mut line))
                    .await
                    .is_ok()
                    && line.trim_end() == READY
            }
            None => false,
        };
        if !ready {
            child.kill().await.ok(); // it ended by itself already, most likely
            let said = fs::read_to_string(dir.shim_log()).unwrap_or_default();
            return Err(trouble(format!("it did not become ready: {}", said.trim())));
        }
        self.reap(child);
        let path = dir.path.clone();
        blocking("connecting to a shim", move || greet(&path))
            .await?
            .map_err(|error| trouble(error.to_string()))
    }

    /// The shim is our child until we end; somebody must take its exit status.
    fn reap(&self, mut child: Child) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {} // the next parent reaps
                ended = child.wait() => {
                    if let Err(error) = ended {
                        tracing::warn!(%error, "Shim's exit status is lost");
                    }
                }
            }
        });
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
            blocking("killing a shim", move || open::kill_shim(&dir)).await??;
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
        open::kill_shim(&dir)?;
        if !record.cgroup.child("shim").kill_all(open::pause) {
            tracing::error!(sandbox.id = %record.id, "Processes of the shim's cgroup do not end");
        }
        for left in record.cgroup.remove() {
            tracing::warn!(sandbox.id = %record.id, left, "Cgroup is not removed");
        }
        self.hierarchies.prune(&self.cgroup_of(&record.config));
        if let Some(shm) = &record.shm_dir {
            remove_dir(shm)?;
            if let Some(parent) = shm.parent() {
                fs::remove_dir(parent).ok(); // others still have theirs in it
            }
        }
        remove_dir(&dir.containers())?;
        remove_dir(&dir.path)
    }

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
        let (image, root) = self.resolve_image(&config.image)?;
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
    fn find(&self, id: &ContainerId) -> Option<(SandboxId, Option<Arc<Link>>, ContainerEntry)> {
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
            if !cgroup.kill_all(open::pause) {
                tracing::error!(container.id = %id, "Processes of the container's cgroup do not end");
            }
            for left in cgroup.remove() {
                tracing::warn!(container.id = %id, left, "Cgroup is not removed");
            }
        }
        remove_dir(&self.layout.sandbox(sandbox).container(id).path)
    }

    fn resolve_image(
        &self,
        image: &crate::image::ImageRef,
    ) -> Result<(image_config::ImageConfig, records::RootSource), ImageError> {
        super::images::resolve(&self.images, &self.config, image)
    }

    pub(super) fn container_dir(&self, sandbox: &SandboxId, id: &ContainerId) -> records::ContainerDir {
        self.layout.sandbox(sandbox).container(id)
    }

    pub(super) fn found(&self, id: &ContainerId) -> Option<(SandboxId, Option<Arc<Link>>, ContainerEntry)> {
        self.find(id)
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
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

// A kernel that doesn't let go of a killed process within the limit won't do so later either.
const _: () = assert!(KILL_LIMIT.as_secs() < SHUTDOWN_LIMIT.as_secs());

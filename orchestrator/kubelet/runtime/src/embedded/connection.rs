//! Shims started, connected to, listened to, and what is left when one ends.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::link::{Greeted, Incoming, Link, Notice, greet};
use super::open::{self, Found, failed};
use super::shim_life;
use super::state::{ContainerEntry, SandboxEntry};
use super::{Inner, blocking};
use crate::container::ContainerId;
use crate::cri::ContainerEvent;
use crate::error::RuntimeError;
use crate::layout::SandboxDir;
use crate::records::{Progress, SandboxRecord};
use crate::sandbox::SandboxId;
use crate::shim::{READY, SHIM_NAME};

/// A shim is ready in milliseconds; a machine short of everything may need longer.
const SHIM_START_LIMIT: Duration = Duration::from_secs(30);

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

    pub(super) fn connect(self: &Arc<Self>, id: &SandboxId, shim: Greeted) -> Result<(), RuntimeError> {
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
    async fn listen(inner: &Weak<Self>, id: &SandboxId, link: &Arc<Link>, mut incoming: Incoming) {
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
            inner.on_connection_end(id, link).await;
        }
    }

    /// A connection can end without its shim: then another one is made, and what happened meanwhile is in its
    /// greeting. Those who wait for answers are told that none will come; they ask again.
    async fn on_connection_end(self: &Arc<Self>, id: &SandboxId, link: &Arc<Link>) {
        let is_current =
            |entry: &SandboxEntry| entry.link.as_ref().is_some_and(|known| Arc::ptr_eq(known, link));
        if !self.state.lock().sandboxes.get(id).is_some_and(is_current) {
            return link.close();
        }
        let dir = self.layout.sandbox(id);
        let greeted = match blocking("connecting to a shim again", move || greet(&dir.path)).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(_)) | Err(_) => return self.on_shim_end(id, link).await,
        };
        tracing::warn!(sandbox.id = %id, "Connection to the shim was lost and is made again");
        let missed = greeted.containers.clone();
        let connected = self.connect(id, greeted);
        link.close();
        if let Err(error) = connected {
            tracing::error!(sandbox.id = %id, %error, "Shim can't be listened to");
        }
        for (container, progress) in missed {
            self.on_change(id, container, progress);
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
    pub(super) async fn on_shim_end(&self, id: &SandboxId, link: &Arc<Link>) {
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
                    shim_life::kill_shim_or_say(&dir)?;
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

    fn lose(&self, id: &SandboxId, record: &SandboxRecord, settled: BTreeMap<ContainerId, ContainerEntry>) {
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

    pub(super) async fn start_shim(
        self: &Arc<Self>,
        id: &SandboxId,
        dir: &SandboxDir,
    ) -> Result<Greeted, RuntimeError> {
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
            // Its hold on the lock is what tells that it lives.
            .stdin(shim_life::shim_lock(dir)?)
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
}

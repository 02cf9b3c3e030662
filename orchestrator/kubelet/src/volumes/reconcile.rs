//! Does what [`super::decide`] says about one volume, and writes down what came of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moorline_runtime::{Outcome, run_workers};
use tokio_util::sync::CancellationToken;

use super::actual::{ActualMount, Device, MountKind, Mounted};
use super::attach;
use super::csi_mount::Before;
use super::decide::{Action, Attachment, MountSeen, Next, Seen, decide};
use super::desired::WantedMount;
use super::error::{Class, VolumeError, blocking};
use super::expand;
use super::local;
use super::manager::{State, VolumeManager};
use super::spec::{CsiSpec, MountId, Spec, VolumeKey};
use super::subpath;

/// Volumes worked on at once: mounts are mostly waiting for drivers.
const WORKERS: usize = 32;

/// Reconciles volumes until `stop`; running operations are waited for.
pub(crate) async fn run(manager: Arc<VolumeManager>, stop: CancellationToken) {
    let queue = manager.queue.clone();
    run_workers(queue, WORKERS, stop, move |key| {
        let manager = manager.clone();
        async move { manager.reconcile(key).await }
    })
    .await;
}

impl VolumeManager {
    async fn reconcile(&self, key: VolumeKey) -> Result<Outcome, VolumeError> {
        let mut failed: BTreeSet<Action> = BTreeSet::new();
        let mut first_error = None;
        let mut is_told = false;
        loop {
            let seen = self.look(&key);
            match decide(&seen, &failed) {
                Next::Settled => break,
                Next::Wait(why) => {
                    self.note_wait(&key, &why);
                    break;
                }
                Next::Do(action) => {
                    tracing::debug!(volume = %key, ?action, "Volume operation");
                    self.state.lock().driver_missing_since.remove(&key);
                    if let Err(error) = self.apply(&key, &action).await {
                        is_told |= self.report(&key, &action, &error);
                        failed.insert(action);
                        first_error.get_or_insert(error);
                    }
                }
            }
        }
        self.finish(&key);
        match first_error {
            Some(error) if is_told => {
                tracing::debug!(volume = %key, %error, "Volume operation failed, trying again");
                Ok(Outcome::Retry)
            }
            Some(error) => Err(error),
            None => Ok(self.next_refresh(&key)),
        }
    }

    /// Gathers what the decision rests on.
    fn look(&self, key: &VolumeKey) -> Seen {
        let now = Timestamp::now();
        let state = self.state.lock();
        let actual = state.actual.get(key).cloned().unwrap_or_default();
        let wanted = state.desired.mounts(key);
        let mut ids: BTreeSet<&MountId> = actual.mounts.keys().collect();
        ids.extend(wanted.into_iter().flat_map(|wanted| wanted.keys()));
        let mounts: Vec<MountSeen> = ids
            .into_iter()
            .map(|id| {
                let held = actual.mounts.get(id);
                let is_due = state.refresh_at.get(id).is_some_and(|at| *at <= now);
                MountSeen {
                    id: id.clone(),
                    state: held.map_or(Mounted::No, |held| held.state),
                    is_wanted: wanted.is_some_and(|wanted| wanted.contains_key(id)),
                    is_released: state.desired.is_released(&id.pod_uid),
                    is_stale: is_due || held.is_some_and(|held| held.is_stale),
                }
            })
            .collect();
        let csi = wanted
            .and_then(|wanted| wanted.values().find_map(csi_spec))
            .cloned();
        let held_driver = actual.device.as_ref().map(|device| device.driver_name.clone());
        let held_driver = held_driver.or_else(|| actual.mounts.values().find_map(driver_of));
        let driver_name = csi.as_ref().map(|csi| csi.driver_name.clone()).or(held_driver);
        let is_settled = state.is_settled;
        let grown_to = state.grown_to.get(key).copied();
        let is_refused = state.grow_refused.contains(key);
        drop(state);
        let is_inline = csi.as_ref().is_some_and(|csi| csi.inline);
        let driver = driver_name
            .as_ref()
            .and_then(|name| self.csi.drivers.get(name).ok());
        Seen {
            stages: driver.map(|driver| driver.capabilities.stage && !is_inline),
            is_local: driver_name.is_none(),
            attachment: csi
                .as_ref()
                .map_or(Attachment::NotNeeded, |csi| self.attachment(key, csi)),
            device: actual.device_state(),
            mounts,
            is_single_pod: csi.as_ref().is_some_and(CsiSpec::is_single_pod),
            needs_expansion: !is_refused
                && csi
                    .as_ref()
                    .is_some_and(|csi| self.expansion(csi, grown_to) != expand::Next::Nothing),
            is_settled,
        }
    }

    fn attachment(&self, key: &VolumeKey, csi: &CsiSpec) -> Attachment {
        if csi.inline || !self.attach_required(&csi.driver_name) {
            return Attachment::NotNeeded;
        }
        let objects = &self.csi.objects;
        let node = objects.node.get(None, &self.csi.node_name);
        let attachment = objects.attachments.get(None, &self.csi.attachment_name(csi));
        let is_told = self.is_told_in_use(key);
        attach::look(key, is_told, node.as_deref(), attachment.as_deref())
    }

    /// The flat table from actions to what does them.
    async fn apply(&self, key: &VolumeKey, action: &Action) -> Result<(), VolumeError> {
        match action {
            Action::Unpublish(id) => self.unpublish(key, id).await,
            Action::Stage => self.stage(key).await,
            Action::Publish(id) => self.publish(key, id).await,
            Action::Expand => self.expand(key).await,
            Action::Unstage => self.unstage(key).await,
        }
    }

    async fn stage(&self, key: &VolumeKey) -> Result<(), VolumeError> {
        let (id, wanted, before) = {
            let mut state = self.state.lock();
            let first = state
                .desired
                .mounts(key)
                .and_then(|mounts| mounts.first_key_value());
            let Some((id, wanted)) = first.map(|(id, wanted)| (id.clone(), wanted.clone())) else {
                return Ok(());
            };
            let Spec::Csi(csi) = &wanted.spec else {
                return Ok(());
            };
            let is_attachable = self.attach_required(&csi.driver_name);
            let volume = state.actual.volume_mut(key);
            let before = volume.device.clone();
            volume.is_attachable = is_attachable;
            volume.device = Some(Device {
                state: Mounted::Uncertain,
                driver_name: csi.driver_name.clone(),
                volume_handle: csi.volume_handle.clone(),
                block_spec_name: csi.block.then(|| id.spec_name.clone()),
            });
            (id, wanted, before)
        };
        let may_be_mounted = {
            let state = self.state.lock();
            state
                .actual
                .get(key)
                .is_some_and(|volume| volume.mounts.values().any(|held| held.is_reconstructed))
        };
        let result = self
            .csi
            .stage(&wanted, &id.spec_name, Before { may_be_mounted })
            .await;
        let mut state = self.state.lock();
        let volume = state.actual.volume_mut(key);
        match &result {
            Ok(()) => {
                if let Some(device) = &mut volume.device {
                    device.state = Mounted::Yes;
                }
            }
            Err(error) => match error.class() {
                Class::Final if !may_be_mounted => volume.device = None,
                Class::Final | Class::Uncertain => {}
                Class::Transient => volume.device = before,
            },
        }
        result
    }

    async fn publish(&self, key: &VolumeKey, id: &MountId) -> Result<(), VolumeError> {
        let (wanted, before) = {
            let mut state = self.state.lock();
            let Some(wanted) = state.desired.mount(key, id).cloned() else {
                return Ok(());
            };
            let volume = state.actual.volume_mut(key);
            volume.is_attachable = matches!(&wanted.spec, Spec::Csi(csi) if !csi.inline && self.attach_required(&csi.driver_name));
            let before = volume.mounts.get(id).cloned();
            if before.as_ref().is_none_or(|before| before.state == Mounted::No) {
                volume.mounts.insert(id.clone(), new_mount(&wanted));
            }
            (wanted, before)
        };
        let may_be_mounted = before
            .as_ref()
            .is_some_and(|before| before.state == Mounted::Yes || before.is_reconstructed);
        let result = match &wanted.spec {
            Spec::Csi(_) => self
                .csi
                .publish(id, &wanted, Before { may_be_mounted })
                .await
                .map(|()| None),
            Spec::Local(_) => self.local.set_up(&wanted).await,
        };
        let refresh_at = result
            .as_ref()
            .ok()
            .copied()
            .flatten()
            .or_else(|| self.republish_at(&wanted));
        let size = result.is_ok().then(|| self.claim_size(&wanted)).flatten();
        let mut state = self.state.lock();
        if let Some(size) = size {
            state.grown_to.entry(key.clone()).or_insert(size);
        }
        match &result {
            Ok(_) => mark_published(&mut state, key, id, &wanted, refresh_at),
            Err(error) => mark_publish_failed(&mut state, key, id, before, error.class()),
        }
        result.map(|_| ())
    }

    fn republish_at(&self, wanted: &WantedMount) -> Option<Timestamp> {
        let Spec::Csi(csi) = &wanted.spec else { return None };
        let object = self.csi.objects.csi_drivers.get(None, &csi.driver_name)?;
        let is_wanted = object.spec.requires_republish == Some(true);
        is_wanted.then(|| Timestamp::now() + self.republish_interval)
    }

    async fn unpublish(&self, key: &VolumeKey, id: &MountId) -> Result<(), VolumeError> {
        let held = self
            .state
            .lock()
            .actual
            .get(key)
            .and_then(|volume| volume.mounts.get(id).cloned());
        let Some(held) = held else { return Ok(()) };
        let subpaths = self.csi.layout.subpaths(&id.pod_uid).join(&id.spec_name);
        blocking(move || subpath::clean(&subpaths)).await?;
        let result = match &held.kind {
            MountKind::CsiDirectory { .. } | MountKind::CsiBlock { .. } => {
                self.csi.unpublish(id, &held.kind).await
            }
            MountKind::Local { plugin } => {
                let directory = self.csi.layout.pod_volume(&id.pod_uid, plugin, &id.spec_name);
                blocking(move || local::tear_down(&directory)).await
            }
        };
        let mut state = self.state.lock();
        match &result {
            Ok(()) => {
                state.actual.volume_mut(key).mounts.remove(id);
                state.errors.remove(id);
                state.refresh_at.remove(id);
            }
            Err(_) => {
                if let Some(mount) = state.actual.mount_mut(key, id) {
                    mount.state = Mounted::Uncertain;
                }
            }
        }
        result
    }

    async fn unstage(&self, key: &VolumeKey) -> Result<(), VolumeError> {
        let device = self
            .state
            .lock()
            .actual
            .get(key)
            .and_then(|volume| volume.device.clone());
        let Some(device) = device else { return Ok(()) };
        let result = self.csi.unstage(&device).await;
        let mut state = self.state.lock();
        let volume = state.actual.volume_mut(key);
        match &result {
            Ok(()) => volume.device = None,
            Err(_) => {
                if let Some(device) = &mut volume.device {
                    device.state = Mounted::Uncertain;
                }
            }
        }
        result
    }

    /// After a round: forget what is empty, tell the Node, wake the pods.
    fn finish(&self, key: &VolumeKey) {
        let pods: BTreeSet<String> = {
            let mut state = self.state.lock();
            state.actual.tidy(key);
            if state
                .actual
                .get(key)
                .is_none_or(|volume| volume.mounts.is_empty())
            {
                state.grown_to.remove(key);
                state.grow_refused.remove(key);
            }
            let wanted = state
                .desired
                .mounts(key)
                .into_iter()
                .flatten()
                .map(|(id, _)| id.pod_uid.clone());
            let released = state.desired.released().cloned();
            wanted.chain(released).collect()
        };
        self.publish_in_use();
        for uid in pods {
            (self.wake_pod)(&uid);
        }
    }

    fn next_refresh(&self, key: &VolumeKey) -> Outcome {
        let state = self.state.lock();
        let wanted = state.desired.mounts(key).into_iter().flatten();
        match wanted.filter_map(|(id, _)| state.refresh_at.get(id)).min() {
            None => Outcome::Settled,
            Some(at) => {
                let wait = at.duration_since(Timestamp::now());
                Outcome::After(Duration::try_from(wait).unwrap_or(Duration::from_millis(1)))
            }
        }
    }
}

pub(super) fn csi_spec(wanted: &WantedMount) -> Option<&CsiSpec> {
    match &wanted.spec {
        Spec::Csi(csi) => Some(csi),
        Spec::Local(_) => None,
    }
}

pub(super) fn driver_of(mount: &ActualMount) -> Option<String> {
    match &mount.kind {
        MountKind::CsiDirectory { driver_name, .. } | MountKind::CsiBlock { driver_name, .. } => {
            Some(driver_name.clone())
        }
        MountKind::Local { .. } => None,
    }
}

fn new_mount(wanted: &WantedMount) -> ActualMount {
    let kind = match &wanted.spec {
        Spec::Local(local) => MountKind::Local {
            plugin: local.plugin().to_owned(),
        },
        Spec::Csi(csi) => {
            let (driver_name, volume_handle) = (csi.driver_name.clone(), csi.volume_handle.clone());
            if csi.block {
                MountKind::CsiBlock {
                    driver_name,
                    volume_handle,
                }
            } else {
                MountKind::CsiDirectory {
                    driver_name,
                    volume_handle,
                }
            }
        }
    };
    ActualMount {
        state: Mounted::Uncertain,
        kind,
        is_stale: false,
        is_reconstructed: false,
    }
}

fn mark_published(
    state: &mut State,
    key: &VolumeKey,
    id: &MountId,
    wanted: &WantedMount,
    refresh_at: Option<Timestamp>,
) {
    let mount = ActualMount {
        state: Mounted::Yes,
        ..new_mount(wanted)
    };
    state.actual.volume_mut(key).mounts.insert(id.clone(), mount);
    state.errors.remove(id);
    match refresh_at {
        Some(at) => state.refresh_at.insert(id.clone(), at),
        None => state.refresh_at.remove(id),
    };
}

/// What is known after a failure: see the error classes. A mount that may serve containers is never written off.
fn mark_publish_failed(
    state: &mut State,
    key: &VolumeKey,
    id: &MountId,
    before: Option<ActualMount>,
    class: Class,
) {
    let mounts = &mut state.actual.volume_mut(key).mounts;
    let before_state = before.as_ref().map_or(Mounted::No, |before| before.state);
    let is_reconstructed = before.as_ref().is_some_and(|before| before.is_reconstructed);
    match (class, before_state) {
        (Class::Final, Mounted::No | Mounted::Uncertain) if !is_reconstructed => {
            mounts.remove(id);
        }
        (Class::Uncertain, Mounted::No) => {}
        (Class::Transient, Mounted::No) => {
            mounts.remove(id);
        }
        // Stays what it was.
        (Class::Final, _) | (Class::Uncertain | Class::Transient, Mounted::Uncertain | Mounted::Yes) => {}
    }
}

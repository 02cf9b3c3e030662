//! What pods are told about their volumes: failures, and waits that somebody has to end.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use moorline_runtime::EventType;

use super::actual::Mounted;
use super::decide::{Action, Attachment, Why};
use super::desired::WantedMount;
use super::error::VolumeError;
use super::manager::VolumeManager;
use super::reconcile::{csi_spec, driver_of};
use super::spec::{MountId, VolumeKey};
use crate::csi::drivers::NotRegistered;

/// A driver that registers within this time was never missing.
const DRIVER_PATIENCE: SignedDuration = SignedDuration::from_secs(2);

impl VolumeManager {
    /// A failed operation is told to the pods it concerns, in the words users know. Returns whether there are any.
    pub(super) fn report(&self, key: &VolumeKey, action: &Action, error: &VolumeError) -> bool {
        let mut told: Vec<(Option<ObjectReference>, &'static str, String)> = Vec::new();
        {
            let mut state = self.state.lock();
            let wanted = state.desired.mounts(key).cloned().unwrap_or_default();
            match action {
                Action::Publish(id) => {
                    let text = publish_failed(id, wanted.get(id), error);
                    state.errors.insert(id.clone(), text.1.clone());
                    told.push((wanted.get(id).map(pod_reference), text.0, text.1));
                }
                Action::Stage => {
                    for (id, mount) in &wanted {
                        let text = format!(
                            "MountVolume.MountDevice failed for volume {:?} : {error}",
                            id.spec_name
                        );
                        state.errors.insert(id.clone(), text.clone());
                        told.push((Some(pod_reference(mount)), "FailedMount", text));
                    }
                }
                Action::Unpublish(id) => {
                    let text = format!(
                        "UnmountVolume.TearDown failed for volume {:?} : {error}",
                        id.spec_name
                    );
                    state.errors.insert(id.clone(), text);
                }
                // Told where it happens.
                Action::Expand => {}
                // No pod is left to tell.
                Action::Unstage => {}
            }
        }
        let mut is_told = matches!(action, Action::Expand);
        for (reference, reason, text) in told {
            if let Some(reference) = reference {
                is_told = true;
                self.recorder.event(&reference, EventType::Warning, reason, text);
            }
        }
        is_told
    }

    /// Waiting is no failure, but the pods are told why when it is somebody's fault.
    pub(super) fn note_wait(&self, key: &VolumeKey, why: &Why) {
        let text = match why {
            Why::Driver => return self.note_missing_driver(key),
            Why::Attachment(Attachment::Failed(message)) => {
                format!("AttachVolume.Attach failed for volume : {message}")
            }
            Why::SinglePod(_) => {
                "volume uses the ReadWriteOncePod access mode and is already in use by another pod".into()
            }
            Why::Attachment(_) => return,
        };
        self.tell_waiting(key, |_| text.clone());
    }

    /// All pods that wait for the volume hear `text` once, until it changes.
    fn tell_waiting(&self, key: &VolumeKey, text: impl Fn(&MountId) -> String) {
        let mut told = Vec::new();
        {
            let mut state = self.state.lock();
            let actual = state.actual.get(key).cloned().unwrap_or_default();
            let wanted = state.desired.mounts(key).cloned().unwrap_or_default();
            for (id, mount) in wanted {
                let is_there = actual
                    .mounts
                    .get(&id)
                    .is_some_and(|held| held.state == Mounted::Yes);
                let text = text(&id);
                if !is_there && state.errors.insert(id, text.clone()).as_ref() != Some(&text) {
                    told.push((pod_reference(&mount), text));
                }
            }
        }
        for (reference, text) in told {
            self.recorder
                .event(&reference, EventType::Warning, "FailedMount", text);
        }
    }

    /// A driver that stays away is told to pods that come and to pods that go. Right after a restart it is normal.
    fn note_missing_driver(&self, key: &VolumeKey) {
        let now = Timestamp::now();
        let driver = {
            let mut state = self.state.lock();
            let since = *state.driver_missing_since.entry(key.clone()).or_insert(now);
            let left = DRIVER_PATIENCE - now.duration_since(since);
            if left.is_positive() {
                drop(state);
                self.queue
                    .add_after(key.clone(), Duration::try_from(left).unwrap_or_default());
                return;
            }
            let wanted = state
                .desired
                .mounts(key)
                .into_iter()
                .flatten()
                .find_map(|(_, mount)| csi_spec(mount));
            let wanted = wanted.map(|csi| csi.driver_name.clone());
            let held = state
                .actual
                .get(key)
                .and_then(|volume| volume.mounts.values().find_map(driver_of));
            let Some(driver) = wanted.or(held) else { return };
            let leaving: Vec<MountId> = state
                .actual
                .get(key)
                .map(|volume| {
                    volume
                        .mounts
                        .keys()
                        .filter(|id| state.desired.is_released(&id.pod_uid))
                        .cloned()
                        .collect()
                })
                .unwrap_or_default();
            for id in leaving {
                let text = format!(
                    "UnmountVolume.TearDown failed for volume {:?} : {}",
                    id.spec_name,
                    missing(&driver)
                );
                state.errors.insert(id, text);
            }
            driver
        };
        self.tell_waiting(key, |id| {
            format!(
                "MountVolume.MountDevice failed for volume {:?} : {}",
                id.spec_name,
                missing(&driver)
            )
        });
    }
}

fn missing(driver_name: &str) -> String {
    format!("kubernetes.io/csi: {}", NotRegistered(driver_name.to_owned()))
}

fn publish_failed(id: &MountId, wanted: Option<&WantedMount>, error: &VolumeError) -> (&'static str, String) {
    let is_block = wanted.and_then(csi_spec).is_some_and(|csi| csi.block);
    if is_block {
        return (
            "FailedMapVolume",
            format!(
                "MapVolume.MapPodDevice failed for volume {:?} : {error}",
                id.spec_name
            ),
        );
    }
    (
        "FailedMount",
        format!("MountVolume.SetUp failed for volume {:?} : {error}", id.spec_name),
    )
}

/// What an event about a pod refers to.
pub(super) fn pod_reference(wanted: &WantedMount) -> ObjectReference {
    crate::pods::reference(&wanted.pod)
}

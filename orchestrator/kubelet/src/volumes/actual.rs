//! What is mounted, as far as is known: by volume, its device part and its mounts for pods.

use std::collections::{BTreeMap, HashMap};

use super::spec::{MountId, VolumeKey};

/// What is known of something mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mounted {
    #[default]
    No,
    /// Maybe: a call may have had an effect, or the kubelet was restarted.
    Uncertain,
    Yes,
}

/// What a torn-down mount needs to know, also without its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountKind {
    CsiDirectory {
        driver_name: String,
        volume_handle: String,
    },
    CsiBlock {
        driver_name: String,
        volume_handle: String,
    },
    Local {
        plugin: String,
    },
}

/// One mount for one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActualMount {
    pub state: Mounted,
    pub kind: MountKind,
    /// Content or context changed: do it again.
    pub is_stale: bool,
    /// Found after a restart: an error doesn't mean that it is gone.
    pub is_reconstructed: bool,
}

/// The part of a CSI volume that all its mounts on the node share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub state: Mounted,
    pub driver_name: String,
    pub volume_handle: String,
    /// The PV's name when it is a block volume: its staging path is named so.
    pub block_spec_name: Option<String>,
}

/// One volume of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ActualVolume {
    /// None until staging was first tried; never there for drivers that don't stage.
    pub device: Option<Device>,
    pub mounts: BTreeMap<MountId, ActualMount>,
    /// The volume stays in the Node's `volumesInUse` until nothing of it is left.
    pub is_attachable: bool,
}

impl ActualVolume {
    pub(crate) fn device_state(&self) -> Mounted {
        self.device.as_ref().map_or(Mounted::No, |device| device.state)
    }

    /// Something of it was made by that driver.
    pub(crate) fn is_of_driver(&self, name: &str) -> bool {
        let of_kind = |kind: &MountKind| match kind {
            MountKind::CsiDirectory { driver_name, .. } | MountKind::CsiBlock { driver_name, .. } => {
                driver_name == name
            }
            MountKind::Local { .. } => false,
        };
        self.device
            .as_ref()
            .is_some_and(|device| device.driver_name == name)
            || self.mounts.values().any(|mount| of_kind(&mount.kind))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.device_state() == Mounted::No && self.mounts.is_empty()
    }
}

/// All that is mounted.
#[derive(Debug, Default)]
pub(crate) struct Actual {
    volumes: HashMap<VolumeKey, ActualVolume>,
}

impl Actual {
    pub(crate) fn get(&self, key: &VolumeKey) -> Option<&ActualVolume> {
        self.volumes.get(key)
    }

    pub(crate) fn volume_mut(&mut self, key: &VolumeKey) -> &mut ActualVolume {
        self.volumes.entry(key.clone()).or_default()
    }

    /// Takes the volume out when nothing of it is left.
    pub(crate) fn tidy(&mut self, key: &VolumeKey) {
        if self.volumes.get(key).is_some_and(ActualVolume::is_empty) {
            self.volumes.remove(key);
        }
    }

    pub(crate) fn volumes(&self) -> impl Iterator<Item = (&VolumeKey, &ActualVolume)> {
        self.volumes.iter()
    }

    /// The volumes of which something is mounted for the pod.
    pub(crate) fn of_pod(&self, pod_uid: &str) -> Vec<VolumeKey> {
        let has = |volume: &ActualVolume| volume.mounts.keys().any(|id| id.pod_uid == pod_uid);
        self.volumes
            .iter()
            .filter(|(_, volume)| has(volume))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

//! What shall be mounted: the volumes of the pods of this node, by volume.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::spec::{MountId, Spec, VolumeKey};

/// One wanted mount.
#[derive(Debug, Clone)]
pub(crate) struct WantedMount {
    pub pod: Arc<Pod>,
    pub spec: Spec,
    /// What the pod calls the volume; several when it names one claim twice.
    pub outer_names: BTreeSet<String>,
    pub read_only: bool,
    pub requested_at: Timestamp,
}

/// A volume of a pod that can't be worked on yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unresolved {
    pub outer_name: String,
    /// Told to the user; none while waiting is normal.
    pub problem: Option<String>,
}

/// One pod as far as its volumes go.
#[derive(Debug, Clone)]
pub(crate) struct WantedPod {
    pub pod: Arc<Pod>,
    pub mounts: BTreeMap<MountId, VolumeKey>,
    pub unresolved: Vec<Unresolved>,
    pub since: Timestamp,
}

/// All that shall be mounted.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    volumes: HashMap<VolumeKey, BTreeMap<MountId, WantedMount>>,
    pods: HashMap<String, WantedPod>,
    /// Pods whose containers are dead: their mounts go. Kept until nothing of them is mounted.
    released: HashSet<String>,
}

impl Desired {
    /// Takes what a pod wants; returns the volumes to look at.
    pub(crate) fn set_pod(
        &mut self,
        pod: &Arc<Pod>,
        mounts: Vec<(VolumeKey, MountId, WantedMount)>,
        unresolved: Vec<Unresolved>,
        now: Timestamp,
    ) -> Vec<VolumeKey> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if self.released.contains(&uid) {
            return Vec::new();
        }
        let mut look_at = BTreeSet::new();
        let before = self.pods.remove(&uid);
        let wanted: BTreeMap<MountId, VolumeKey> = mounts
            .iter()
            .map(|(key, id, _)| (id.clone(), key.clone()))
            .collect();
        for (id, key) in before.iter().flat_map(|before| &before.mounts) {
            if wanted.get(id) != Some(key) {
                self.drop_mount(key, id);
                look_at.insert(key.clone());
            }
        }
        for (key, id, mut mount) in mounts {
            let slot = self.volumes.entry(key.clone()).or_default();
            match slot.get(&id) {
                Some(held) => {
                    if held.spec != mount.spec
                        || held.pod.metadata.annotations != mount.pod.metadata.annotations
                    {
                        look_at.insert(key.clone());
                    }
                    mount.requested_at = held.requested_at;
                }
                None => {
                    look_at.insert(key.clone());
                }
            }
            slot.insert(id, mount);
        }
        let since = before.map_or(now, |before| before.since);
        self.pods.insert(
            uid,
            WantedPod {
                pod: pod.clone(),
                mounts: wanted,
                unresolved,
                since,
            },
        );
        look_at.into_iter().collect()
    }

    fn drop_mount(&mut self, key: &VolumeKey, id: &MountId) {
        if let Some(slot) = self.volumes.get_mut(key) {
            slot.remove(id);
            if slot.is_empty() {
                self.volumes.remove(key);
            }
        }
    }

    /// The pod's containers are dead: nothing of it is wanted any more. Returns the volumes to look at.
    pub(crate) fn release(&mut self, pod_uid: &str) -> Vec<VolumeKey> {
        self.released.insert(pod_uid.to_owned());
        let Some(pod) = self.pods.remove(pod_uid) else {
            return Vec::new();
        };
        for (id, key) in &pod.mounts {
            self.drop_mount(key, id);
        }
        pod.mounts.into_values().collect()
    }

    /// Nothing of the pod is left.
    pub(crate) fn forget(&mut self, pod_uid: &str) {
        self.released.remove(pod_uid);
    }

    pub(crate) fn is_released(&self, pod_uid: &str) -> bool {
        self.released.contains(pod_uid)
    }

    pub(crate) fn released(&self) -> impl Iterator<Item = &String> {
        self.released.iter()
    }

    pub(crate) fn pod(&self, pod_uid: &str) -> Option<&WantedPod> {
        self.pods.get(pod_uid)
    }

    pub(crate) fn mounts(&self, key: &VolumeKey) -> Option<&BTreeMap<MountId, WantedMount>> {
        self.volumes.get(key)
    }

    pub(crate) fn mount(&self, key: &VolumeKey, id: &MountId) -> Option<&WantedMount> {
        self.volumes.get(key)?.get(id)
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = (&String, &WantedPod)> {
        self.pods.iter()
    }

    pub(crate) fn volumes(&self) -> impl Iterator<Item = (&VolumeKey, &BTreeMap<MountId, WantedMount>)> {
        self.volumes.iter()
    }
}

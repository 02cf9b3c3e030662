//! The volume manager's state and the interface pods have to it. The work is done in [`super::reconcile`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use moorline_runtime::{Backoff, Queue, Recorder};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::actual::{Actual, ActualMount, Mounted};
use super::attach;
use super::csi_mount::CsiVolumes;
use super::desired::{Desired, WantedMount};
use super::local::LocalVolumes;
use super::resolve::resolve_pod;
use super::spec::{LocalSpec, MountId, Spec, VolumeKey};
use crate::config::Timings;
use crate::node::status::InUseListener;

/// Told that something changed for a pod of that uid.
pub(crate) type WakePod = Arc<dyn Fn(&str) + Send + Sync>;

/// What containers get of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountedVolume {
    /// Names the volume's directory of subPaths.
    pub spec_name: String,
    /// The directory or, for a block volume, the device.
    pub path: PathBuf,
    pub is_device: bool,
    pub read_only: bool,
}

/// Where the volumes of a pod stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PodVolumes {
    /// All there, by the pod's names for them.
    Ready(BTreeMap<String, MountedVolume>),
    /// Names of those that are not, and what is wrong if something is.
    Pending {
        unmounted: Vec<String>,
        unresolved: Vec<String>,
        problem: Option<String>,
        since: Timestamp,
    },
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub desired: Desired,
    pub actual: Actual,
    /// Last error per mount, until it succeeds.
    pub errors: HashMap<MountId, String>,
    /// When content must be looked at again.
    pub refresh_at: HashMap<MountId, Timestamp>,
    /// Since when volumes wait for a driver that is not registered.
    pub driver_missing_since: HashMap<VolumeKey, Timestamp>,
    /// Sizes this kubelet grew volumes to.
    pub grown_to: HashMap<VolumeKey, u64>,
    /// Volumes whose driver won't grow them while they are used here.
    pub grow_refused: BTreeSet<VolumeKey>,
    /// The pods of the API are all known.
    pub is_settled: bool,
}

/// Everything mounted on this node, and how it gets there.
pub(crate) struct VolumeManager {
    pub(crate) state: Mutex<State>,
    pub(super) queue: Queue<VolumeKey>,
    pub(super) csi: CsiVolumes,
    pub(super) local: LocalVolumes,
    pub(super) recorder: Recorder,
    pub(super) wake_pod: WakePod,
    pub(super) republish_interval: Duration,
    in_use: watch::Sender<Option<Vec<String>>>,
    /// What the Node is known to call in use. A cached Node may be of the time before it was taken back.
    told_in_use: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for VolumeManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeManager")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl VolumeManager {
    pub(crate) fn new(
        csi: CsiVolumes,
        local: LocalVolumes,
        recorder: Recorder,
        timings: &Timings,
        wake_pod: WakePod,
    ) -> Self {
        let backoff = Backoff {
            min: timings.volume_retry_interval_min,
            max: timings.volume_retry_interval_max,
        };
        Self {
            state: Mutex::default(),
            queue: Queue::new(backoff),
            csi,
            local,
            recorder,
            wake_pod,
            republish_interval: timings.republish_interval,
            in_use: watch::Sender::new(None),
            told_in_use: Mutex::default(),
        }
    }

    /// What the Node's `volumesInUse` should be; none before the pods are known.
    pub(crate) fn in_use(&self) -> watch::Receiver<Option<Vec<String>>> {
        self.in_use.subscribe()
    }

    /// What pods may use of the node.
    pub(crate) fn allocatable(&self) -> &BTreeMap<String, Quantity> {
        &self.local.allocatable
    }

    /// Takes what was found mounted at the start.
    pub(crate) fn adopt(&self, actual: Actual) {
        self.state.lock().actual = actual;
    }

    /// The pods of the API are all known: what none of them wants may go.
    pub(crate) fn settle(&self) {
        let keys: Vec<VolumeKey> = {
            let mut state = self.state.lock();
            state.is_settled = true;
            state.actual.volumes().map(|(key, _)| key.clone()).collect()
        };
        for key in keys {
            self.queue.add(key);
        }
        self.publish_in_use();
    }

    /// Pods of which something was found mounted.
    pub(crate) fn pods_with_mounts(&self) -> BTreeSet<String> {
        let state = self.state.lock();
        let mounts = state
            .actual
            .volumes()
            .flat_map(|(_, volume)| volume.mounts.keys());
        mounts.map(|id| id.pod_uid.clone()).collect()
    }

    /// Has the volumes of a living pod mounted; returns where they stand.
    pub(crate) async fn sync_pod(&self, pod: &Arc<Pod>, now: Timestamp) -> Result<PodVolumes, kube::Error> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let (mounts, unresolved) = resolve_pod(&self.csi.objects, pod, now).await?;
        let look_at = {
            let mut state = self.state.lock();
            let is_changed = state.desired.pod(uid).is_some_and(|before| {
                let (old, new) = (&before.pod.metadata, &pod.metadata);
                old.labels != new.labels || old.annotations != new.annotations
            });
            let mut look_at = state.desired.set_pod(pod, mounts, unresolved, now);
            if is_changed {
                look_at.extend(mark_stale(&mut state, |wanted| {
                    let is_shown = matches!(
                        wanted.spec,
                        Spec::Local(LocalSpec::DownwardApi | LocalSpec::Projected)
                    );
                    is_shown && wanted.pod.metadata.uid.as_deref() == Some(uid)
                }));
            }
            look_at
        };
        if !look_at.is_empty() {
            self.publish_in_use();
        }
        for key in look_at {
            self.queue.add(key);
        }
        Ok(self.pod_volumes(uid, now))
    }

    /// Where the volumes of a pod stand.
    pub(crate) fn pod_volumes(&self, pod_uid: &str, now: Timestamp) -> PodVolumes {
        let state = self.state.lock();
        let Some(pod) = state.desired.pod(pod_uid) else {
            return PodVolumes::Pending {
                unmounted: vec![],
                unresolved: vec![],
                problem: None,
                since: now,
            };
        };
        let mut ready = BTreeMap::new();
        let mut unmounted = Vec::new();
        let mut problem = pod
            .unresolved
            .iter()
            .find_map(|unresolved| unresolved.problem.clone());
        for (id, key) in &pod.mounts {
            let Some(wanted) = state.desired.mount(key, id) else {
                continue;
            };
            let is_there = state.actual.get(key).and_then(|volume| volume.mounts.get(id));
            if is_there.is_some_and(|mount| mount.state == Mounted::Yes) {
                for name in &wanted.outer_names {
                    ready.insert(name.clone(), self.mounted_volume(id, wanted, name));
                }
            } else {
                unmounted.extend(wanted.outer_names.iter().cloned());
                problem = problem.or_else(|| state.errors.get(id).cloned());
            }
        }
        let unresolved: Vec<String> = pod
            .unresolved
            .iter()
            .map(|unresolved| unresolved.outer_name.clone())
            .collect();
        if unmounted.is_empty() && unresolved.is_empty() {
            return PodVolumes::Ready(ready);
        }
        PodVolumes::Pending {
            unmounted,
            unresolved,
            problem,
            since: pod.since,
        }
    }

    fn mounted_volume(&self, id: &MountId, wanted: &WantedMount, outer_name: &str) -> MountedVolume {
        let layout = &self.csi.layout;
        let (path, is_device, read_only) = match &wanted.spec {
            Spec::Csi(csi) if csi.block => (
                layout.pod_device(&id.pod_uid, &id.spec_name),
                true,
                wanted.read_only,
            ),
            Spec::Csi(_) => (
                layout.publish_target(&id.pod_uid, &id.spec_name),
                false,
                wanted.read_only,
            ),
            Spec::Local(LocalSpec::HostPath(source)) => {
                (PathBuf::from(&source.path), false, wanted.read_only)
            }
            Spec::Local(local) => {
                let path = layout.pod_volume(&id.pod_uid, local.plugin(), outer_name);
                (path, false, local.is_refreshed())
            }
        };
        MountedVolume {
            spec_name: id.spec_name.clone(),
            path,
            is_device,
            read_only,
        }
    }

    /// The pod's containers are dead: takes its volumes away. Returns whether nothing is left of them.
    pub(crate) fn release(&self, pod_uid: &str) -> bool {
        let (keys, is_clean) = {
            let mut state = self.state.lock();
            let mut keys: BTreeSet<VolumeKey> = BTreeSet::new();
            if !state.desired.is_released(pod_uid) {
                keys.extend(state.desired.release(pod_uid));
                keys.extend(state.actual.of_pod(pod_uid));
            }
            (keys, state.actual.of_pod(pod_uid).is_empty())
        };
        for key in keys {
            self.queue.add(key);
        }
        is_clean
    }

    /// What keeps a released pod's volumes from going, if something does.
    pub(crate) fn release_problem(&self, pod_uid: &str) -> Option<String> {
        let state = self.state.lock();
        state
            .errors
            .iter()
            .find(|(id, _)| id.pod_uid == pod_uid)
            .map(|(_, error)| error.clone())
    }

    /// Nothing of the pod is left anywhere.
    pub(crate) fn forget_pod(&self, pod_uid: &str) {
        let mut state = self.state.lock();
        state.desired.forget(pod_uid);
        state.errors.retain(|id, _| id.pod_uid != pod_uid);
        state.refresh_at.retain(|id, _| id.pod_uid != pod_uid);
        drop(state);
        self.csi.tokens.forget(pod_uid);
        self.publish_in_use();
    }

    /// Brings `volumesInUse` up to date with desired and actual.
    pub(super) fn publish_in_use(&self) {
        let names: BTreeSet<String> = {
            let state = self.state.lock();
            if !state.is_settled {
                return;
            }
            let wanted = state.desired.volumes().filter(|(_, mounts)| {
                mounts.values().any(|mount| match &mount.spec {
                    Spec::Csi(csi) => !csi.inline && self.attach_required(&csi.driver_name),
                    Spec::Local(_) => false,
                })
            });
            let held = state.actual.volumes().filter(|(_, volume)| volume.is_attachable);
            wanted
                .map(|(key, _)| key.0.clone())
                .chain(held.map(|(key, _)| key.0.clone()))
                .collect()
        };
        let list = Some(names.into_iter().collect::<Vec<_>>());
        self.in_use.send_if_modified(|held| {
            let is_new = *held != list;
            if is_new {
                *held = list;
            }
            is_new
        });
    }

    pub(super) fn attach_required(&self, driver_name: &str) -> bool {
        attach::is_required(self.csi.objects.csi_drivers.get(None, driver_name).as_deref())
    }

    /// Whether the Node is known to call this volume in use.
    pub(super) fn is_told_in_use(&self, key: &VolumeKey) -> bool {
        self.told_in_use.lock().contains(&key.0)
    }

    /// Has the matching volumes looked at.
    pub(crate) fn look_at(&self, matches: impl Fn(&VolumeKey, &WantedMount) -> bool) {
        let keys: Vec<VolumeKey> = {
            let state = self.state.lock();
            let volumes = state.desired.volumes();
            volumes
                .filter(|(key, mounts)| mounts.values().any(|mount| matches(key, mount)))
                .map(|(key, _)| key.clone())
                .collect()
        };
        for key in keys {
            self.queue.add(key);
        }
    }

    /// Has all volumes of a driver looked at, also those that only wait to be taken down.
    pub(crate) fn look_at_driver(&self, driver_name: &str) {
        self.look_at(|_, wanted| matches!(&wanted.spec, Spec::Csi(csi) if csi.driver_name == driver_name));
        let keys: Vec<VolumeKey> = {
            let state = self.state.lock();
            state
                .actual
                .volumes()
                .filter(|(_, held)| held.is_of_driver(driver_name))
                .map(|(key, _)| key.clone())
                .collect()
        };
        for key in keys {
            self.queue.add(key);
        }
        self.publish_in_use();
    }

    /// Has the volume of a VolumeAttachment looked at.
    pub(crate) fn look_at_attachment(&self, attachment_name: &str) {
        self.look_at(|_, wanted| {
            matches!(&wanted.spec, Spec::Csi(csi) if !csi.inline && self.csi.attachment_name(csi) == attachment_name)
        });
    }

    /// Has the volumes looked at that wait for the Node to name them.
    pub(crate) fn look_at_waiting(&self) {
        self.look_at(|_, wanted| {
            matches!(&wanted.spec, Spec::Csi(csi) if !csi.inline && self.attach_required(&csi.driver_name))
        });
    }

    /// The content of the matching volumes changed.
    pub(crate) fn refresh(&self, matches: impl Fn(&WantedMount) -> bool) {
        let keys = mark_stale(&mut self.state.lock(), matches);
        for key in keys {
            self.queue.add(key);
        }
    }

    /// Pods that wait for a claim or PV are to look again.
    pub(crate) fn wake_unresolved(&self) {
        let uids = self.state.lock().desired.unresolved_pods();
        for uid in uids {
            (self.wake_pod)(&uid);
        }
    }
}

impl InUseListener for VolumeManager {
    fn will_be_told(&self, names: &BTreeSet<String>) {
        self.told_in_use.lock().retain(|name| names.contains(name));
    }

    fn was_told(&self, names: BTreeSet<String>, node: Node) {
        *self.told_in_use.lock() = names;
        // What it says of attached volumes may be newer than the watch's word.
        self.csi.objects.node.observe(node);
        self.look_at_waiting();
    }
}

fn mark_stale(state: &mut State, matches: impl Fn(&WantedMount) -> bool) -> Vec<VolumeKey> {
    let mut found: Vec<(VolumeKey, MountId)> = Vec::new();
    for (key, mounts) in state.desired.volumes() {
        let ids = mounts
            .iter()
            .filter(|(_, wanted)| matches(wanted))
            .map(|(id, _)| (key.clone(), id.clone()));
        found.extend(ids);
    }
    for (key, id) in &found {
        // A volume that was never made needs no mark.
        if let Some(mount) = state.actual.mount_mut(key, id) {
            mount.is_stale = true;
        }
    }
    found.into_iter().map(|(key, _)| key).collect()
}

impl Actual {
    pub(super) fn mount_mut(&mut self, key: &VolumeKey, id: &MountId) -> Option<&mut ActualMount> {
        self.get(key)?;
        self.volume_mut(key).mounts.get_mut(id)
    }
}

impl Desired {
    /// Pods some of whose volumes are not resolved.
    pub(super) fn unresolved_pods(&self) -> Vec<String> {
        self.pods()
            .filter(|(_, pod)| !pod.unresolved.is_empty())
            .map(|(uid, _)| uid.clone())
            .collect()
    }
}

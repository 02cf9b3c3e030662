//! Group snapshots: snapshots of several claims at one moment. A VolumeGroupSnapshot and its content are bound to each
//! other as a VolumeSnapshot and its own are; when the driver has cut the group, each member gets objects of its own.
//!
//! ```text
//!   VolumeGroupSnapshot -- selector --> finalizer -> claims held -> content made --+
//!         |                                                                       v
//!         +------- static -----------------> content bound --> members made -> status copied -> ready
//!
//!   deleted:  content marked -> content deleted (policy Delete) -> members deleted -> content gone -> finalizer removed
//! ```

mod members;
mod shell;
mod sync;
mod watch;
mod why;
mod writing;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Client, ResourceExt};
use moorline_model::group_snapshot::{
    API_VERSION, VolumeGroupSnapshot, VolumeGroupSnapshotClass, VolumeGroupSnapshotContent,
};
use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use moorline_runtime::{Cache, Index, Informers, Queue, are_served, run_workers, until_served};
use tokio_util::sync::CancellationToken;

pub use members::{Member, MemberStep};
pub use sync::{Next, Seen, Source, Step, decide};
pub use why::Why;

use super::claim_hold::{Hold, group_hold};
use super::shell::Snapshots;
use crate::key::ObjectKey;
use crate::told::Told;

const KINDS: [&str; 3] = [
    "VolumeGroupSnapshot",
    "VolumeGroupSnapshotContent",
    "VolumeGroupSnapshotClass",
];

/// Whether the API server has the group kinds; `None` when stopped before it says so.
pub(super) async fn is_served(client: &Client, stop: &CancellationToken) -> Option<bool> {
    are_served(client, API_VERSION, &KINDS, stop).await
}

/// What is seen of groups, for the groups themselves, their members and their claims.
#[derive(Clone)]
pub(super) struct GroupCaches {
    pub(super) groups: Cache<VolumeGroupSnapshot>,
    contents: Cache<VolumeGroupSnapshotContent>,
    in_namespace: Arc<Index<String, VolumeGroupSnapshot>>,
    /// Contents by driver and handle.
    by_handle: Arc<Index<String, VolumeGroupSnapshotContent>>,
}

/// A key for what a driver calls by a handle.
fn handle_key(driver: &str, handle: &str) -> String {
    format!("{driver} {handle}")
}

impl GroupCaches {
    /// The name of the group snapshot whose handle the content of a snapshot has.
    pub(super) fn name_of(&self, content: &VolumeSnapshotContent) -> Option<String> {
        let handle = content.status.as_ref()?.volume_group_snapshot_handle.as_deref()?;
        let found = self.by_handle.get(&handle_key(&content.spec.driver, handle));
        let namespace = &content.spec.volume_snapshot_ref.namespace;
        let mut references = found.iter().filter(|content| content.is_bound());
        let here =
            references.find(|content| content.spec.volume_group_snapshot_ref.namespace == *namespace)?;
        here.spec.volume_group_snapshot_ref.name.clone()
    }

    /// Whether some group is being, or about to be, cut of the claim, whose volume is `pv`.
    pub(super) fn hold(&self, claim: &PersistentVolumeClaim, pv: Option<&PersistentVolume>) -> bool {
        let groups = self.in_namespace.get(&claim.namespace().unwrap_or_default());
        groups.iter().any(|group| {
            let name = group.content_name().unwrap_or_default();
            let content = self.contents.get(None, &name);
            group_hold(group, content.as_deref(), claim, pv) == Hold::Held
        })
    }
}

/// The group half of the controller.
pub(super) struct Groups {
    snapshots: Arc<Snapshots>,
    caches: GroupCaches,
    classes: Cache<VolumeGroupSnapshotClass>,
    /// Snapshots by the group that they belong to, as `namespace/name`.
    members: Index<String, VolumeSnapshot>,
    /// PVs by driver and handle.
    by_volume: Index<String, PersistentVolume>,
    group_queue: Queue<ObjectKey>,
    content_queue: Queue<String>,
    told: Told<Why>,
}

impl Groups {
    /// Waits until the API server has the kinds and all is known of groups. `None` when stopped before.
    pub(super) async fn begin(
        snapshots: &Arc<Snapshots>,
        informers: &Informers,
        stop: &CancellationToken,
    ) -> Option<Arc<Self>> {
        if !until_served(informers.client(), API_VERSION, &KINDS, stop).await {
            return None;
        }
        let groups = informers.cache::<VolumeGroupSnapshot>();
        let contents = informers.cache::<VolumeGroupSnapshotContent>();
        let classes = informers.cache::<VolumeGroupSnapshotClass>();
        let all_synced = async { tokio::join!(groups.synced(), contents.synced(), classes.synced()) };
        stop.run_until_cancelled(all_synced).await?;
        let in_namespace = Index::new_until(&groups, stop.clone(), |group: &VolumeGroupSnapshot| {
            group.namespace().into_iter().collect()
        });
        let by_handle = Index::new_until(&contents, stop.clone(), |content: &VolumeGroupSnapshotContent| {
            let key = content
                .handle()
                .map(|handle| handle_key(&content.spec.driver, handle));
            key.into_iter().collect()
        });
        let members = Index::new_until(&snapshots.snapshots, stop.clone(), |snapshot: &VolumeSnapshot| {
            let namespace = snapshot.namespace().unwrap_or_default();
            let group = snapshot
                .group_name()
                .map(|name| ObjectKey::new(namespace, name).to_string());
            group.into_iter().collect()
        });
        let by_volume = Index::new_until(&snapshots.pvs, stop.clone(), |pv: &PersistentVolume| {
            let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
            let key = csi.map(|csi| handle_key(&csi.driver, &csi.volume_handle));
            key.into_iter().collect()
        });
        let caches = GroupCaches {
            groups,
            contents,
            in_namespace: Arc::new(in_namespace),
            by_handle: Arc::new(by_handle),
        };
        let caches = snapshots.groups.get_or_init(|| caches).clone();
        let retry_interval = snapshots.config.retry_interval;
        Some(Arc::new(Self {
            snapshots: snapshots.clone(),
            caches,
            classes,
            members,
            by_volume,
            group_queue: Queue::new(retry_interval),
            content_queue: Queue::new(retry_interval),
            told: Told::default(),
        }))
    }

    /// Works until `stop`.
    pub(super) async fn run(self: Arc<Self>, workers: usize, stop: CancellationToken) {
        self.feed(&stop);
        let worker = self.clone();
        let on_groups = run_workers(self.group_queue.clone(), workers, stop.clone(), move |key| {
            let worker = worker.clone();
            async move { worker.sync_group(&key).await }
        });
        let worker = self.clone();
        let on_contents = run_workers(self.content_queue.clone(), workers, stop, move |name| {
            let worker = worker.clone();
            async move { worker.sync_content(&name).await }
        });
        futures::future::join(on_groups, on_contents).await;
    }
}

#[cfg(test)]
mod tests;

//! What makes the controller look at a group snapshot or its content, and at the members and claims of groups.

use kube::ResourceExt;
use moorline_model::group_snapshot::{VolumeGroupSnapshot, VolumeGroupSnapshotContent};
use moorline_model::keys;
use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotContent, sources_of};
use moorline_runtime::Change;
use tokio_util::sync::CancellationToken;

use super::{Groups, handle_key};
use crate::finalizer;
use crate::key::ObjectKey;

impl Groups {
    /// Puts into the queues what changes, now and until `stop`.
    pub(super) fn feed(&self, stop: &CancellationToken) {
        self.feed_on_groups(stop);
        self.feed_on_contents(stop);
        self.feed_on_members(stop);
        self.feed_on_claims(stop);
        self.feed_on_classes(stop);
    }

    fn feed_on_groups(&self, stop: &CancellationToken) {
        let (queue, content_queue) = (self.group_queue.clone(), self.content_queue.clone());
        let snapshots = self.snapshots.clone();
        self.caches.groups.on_change_until(stop.clone(), move |change| {
            let group = change.object();
            match change {
                Change::Added(_) => queue.add(ObjectKey::of(&**group)),
                Change::Updated { old, new } if is_news(old, new) => queue.add(ObjectKey::of(&**new)),
                // Its status is of our own writing: taking it for news would defeat the backoff.
                Change::Updated { new, .. } => queue.add_unless_failing(ObjectKey::of(&**new)),
                Change::Removed(_) => {
                    // Its members go after it.
                    let held = snapshots.snapshots.list();
                    held.iter()
                        .filter(|snapshot| is_member(snapshot, group))
                        .for_each(|snapshot| snapshots.snapshot_queue.add(ObjectKey::of(&**snapshot)));
                }
            }
            let is_going = group.metadata.deletion_timestamp.is_some();
            if is_going && let Some(name) = group.content_name() {
                content_queue.add_unless_failing(name);
            }
            if is_going || group.is_ready() {
                release_claims(&snapshots, group.namespace().as_deref());
            }
        });
    }

    fn feed_on_contents(&self, stop: &CancellationToken) {
        let (queue, content_queue) = (self.group_queue.clone(), self.content_queue.clone());
        let snapshots = self.snapshots.clone();
        self.caches.contents.on_change_until(stop.clone(), move |change| {
            let content = change.object();
            if !matches!(change, Change::Removed(_)) {
                content_queue.add_unless_failing(content.name_any());
            }
            let key = group_of(content);
            release_claims(&snapshots, Some(&key.namespace));
            queue.add(key);
            if is_newly_known(change) && content.volume_handles().is_empty() {
                // Members that existed before the group's objects may be ready already.
                let held = snapshots.contents.list();
                held.iter()
                    .filter(|own| is_of_group(own, content))
                    .for_each(|own| snapshots.snapshot_queue.add(snapshot_of(own)));
            }
        });
    }

    fn feed_on_members(&self, stop: &CancellationToken) {
        let queue = self.group_queue.clone();
        self.snapshots
            .snapshots
            .on_change_until(stop.clone(), move |change| {
                let snapshot = change.object();
                let namespace = snapshot.namespace().unwrap_or_default();
                if let Some(name) = snapshot.group_name() {
                    queue.add_unless_failing(ObjectKey::new(namespace, name));
                }
            });
    }

    fn feed_on_claims(&self, stop: &CancellationToken) {
        let queue = self.group_queue.clone();
        let (in_namespace, snapshots) = (self.caches.in_namespace.clone(), self.snapshots.clone());
        self.snapshots
            .claims
            .on_change_until(stop.clone(), move |change| {
                let claim = change.object();
                // Groups that wait for the claim to be bound, and those that wait for it to be filled.
                let waiting = in_namespace.get(&claim.namespace().unwrap_or_default());
                let waiting = waiting.iter().map(|group| ObjectKey::of(&**group));
                let restored = sources_of(claim).into_iter();
                let restored = restored.filter_map(|(namespace, name)| {
                    let snapshot = snapshots.snapshots.get(Some(&namespace), &name)?;
                    Some(ObjectKey::new(namespace, snapshot.group_name()?))
                });
                waiting
                    .chain(restored)
                    .filter(|key| queue.failures(key) > 0)
                    .for_each(|key| queue.add(key));
            });
    }

    fn feed_on_classes(&self, stop: &CancellationToken) {
        let (queue, groups) = (self.group_queue.clone(), self.caches.groups.clone());
        self.classes.on_change_until(stop.clone(), move |_| {
            let held = groups.list();
            held.iter()
                .map(|group| ObjectKey::of(&**group))
                .filter(|key| queue.failures(key) > 0)
                .for_each(|key| queue.add(key));
        });
    }
}

/// Has the claims of a namespace looked at that something holds.
fn release_claims(snapshots: &super::Snapshots, namespace: Option<&str>) {
    let held = snapshots.claims.list();
    held.iter()
        .filter(|claim| claim.metadata.namespace.as_deref() == namespace)
        .filter(|claim| finalizer::is_present(&claim.metadata, keys::PVC_AS_SOURCE_PROTECTION))
        .for_each(|claim| snapshots.claim_queue.add_unless_failing(ObjectKey::of(&**claim)));
}

fn is_news(old: &VolumeGroupSnapshot, new: &VolumeGroupSnapshot) -> bool {
    old.spec != new.spec || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
}

/// Whether the content's handle is news.
fn is_newly_known(change: &Change<VolumeGroupSnapshotContent>) -> bool {
    match change {
        Change::Added(content) => content.handle().is_some(),
        Change::Updated { old, new } => old.handle() != new.handle(),
        Change::Removed(_) => false,
    }
}

fn is_member(snapshot: &VolumeSnapshot, group: &VolumeGroupSnapshot) -> bool {
    snapshot.metadata.namespace == group.metadata.namespace
        && snapshot.group_name() == group.metadata.name.as_deref()
}

fn is_of_group(own: &VolumeSnapshotContent, group: &VolumeGroupSnapshotContent) -> bool {
    let status = own.status.as_ref();
    let handle = status.and_then(|status| status.volume_group_snapshot_handle.as_deref());
    let key = |handle: &str| handle_key(&own.spec.driver, handle);
    handle.is_some()
        && handle.map(key)
            == group
                .handle()
                .map(|handle| handle_key(&group.spec.driver, handle))
}

fn group_of(content: &VolumeGroupSnapshotContent) -> ObjectKey {
    let reference = &content.spec.volume_group_snapshot_ref;
    ObjectKey::new(
        reference.namespace.clone().unwrap_or_default(),
        reference.name.clone().unwrap_or_default(),
    )
}

fn snapshot_of(content: &VolumeSnapshotContent) -> ObjectKey {
    let reference = &content.spec.volume_snapshot_ref;
    ObjectKey::new(
        reference.namespace.clone().unwrap_or_default(),
        reference.name.clone().unwrap_or_default(),
    )
}

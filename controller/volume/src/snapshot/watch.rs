//! What makes the controller look at a snapshot, a content or a claim.

use kube::ResourceExt;
use moorline_model::keys;
use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotContent, sources_of};
use moorline_runtime::Change;
use tokio_util::sync::CancellationToken;

use super::shell::Snapshots;
use super::source_claim;
use crate::finalizer;
use crate::key::ObjectKey;

impl Snapshots {
    /// Puts into the queues what changes, now and until `stop`.
    pub(super) fn feed(&self, stop: &CancellationToken) {
        self.feed_on_snapshots(stop);
        self.feed_on_contents(stop);
        self.feed_on_claims(stop);
        self.feed_on_classes(stop);
    }

    fn feed_on_snapshots(&self, stop: &CancellationToken) {
        let (queue, content_queue, claim_queue) = (
            self.snapshot_queue.clone(),
            self.content_queue.clone(),
            self.claim_queue.clone(),
        );
        self.snapshots.on_change_until(stop.clone(), move |change| {
            let snapshot = change.object();
            match change {
                Change::Added(_) => queue.add(ObjectKey::of(&**snapshot)),
                Change::Updated { old, new } if is_news(old, new) => queue.add(ObjectKey::of(&**new)),
                // Its status is of our own writing: taking it for news would defeat the backoff.
                Change::Updated { new, .. } => queue.add_unless_failing(ObjectKey::of(&**new)),
                Change::Removed(_) => {}
            }
            if snapshot.metadata.deletion_timestamp.is_some()
                && let Some(name) = snapshot.content_name()
            {
                content_queue.add_unless_failing(name);
            }
            if let Some(claim) = source_claim(snapshot) {
                claim_queue.add_unless_failing(claim);
            }
        });
    }

    fn feed_on_contents(&self, stop: &CancellationToken) {
        let (queue, content_queue, claim_queue) = (
            self.snapshot_queue.clone(),
            self.content_queue.clone(),
            self.claim_queue.clone(),
        );
        let snapshots = self.snapshots.clone();
        self.contents.on_change_until(stop.clone(), move |change| {
            let content = change.object();
            if !matches!(change, Change::Removed(_)) {
                content_queue.add_unless_failing(content.name_any());
            }
            let key = snapshot_of(content);
            if let Some(claim) = snapshots
                .get(Some(&key.namespace), &key.name)
                .and_then(|snapshot| source_claim(&snapshot))
            {
                claim_queue.add_unless_failing(claim);
            }
            queue.add(key);
        });
    }

    fn feed_on_claims(&self, stop: &CancellationToken) {
        let (queue, claim_queue) = (self.snapshot_queue.clone(), self.claim_queue.clone());
        let by_claim = self.by_claim.clone();
        self.claims.on_change_until(stop.clone(), move |change| {
            let claim = change.object();
            if finalizer::is_present(&claim.metadata, keys::PVC_AS_SOURCE_PROTECTION) {
                claim_queue.add_unless_failing(ObjectKey::of(&**claim));
            }
            // Snapshots that wait for the claim to be bound, and those that wait for it to be filled.
            let taken = by_claim.get(&ObjectKey::of(&**claim).to_string());
            let taken = taken.iter().map(|snapshot| ObjectKey::of(&**snapshot));
            let restored = sources_of(claim).into_iter();
            let restored = restored.map(|(namespace, name)| ObjectKey::new(namespace, name));
            taken
                .chain(restored)
                .filter(|key| queue.failures(key) > 0)
                .for_each(|key| queue.add(key));
        });
    }

    fn feed_on_classes(&self, stop: &CancellationToken) {
        let (queue, snapshots) = (self.snapshot_queue.clone(), self.snapshots.clone());
        self.classes.on_change_until(stop.clone(), move |_| {
            let held = snapshots.list();
            held.iter()
                .map(|snapshot| ObjectKey::of(&**snapshot))
                .filter(|key| queue.failures(key) > 0)
                .for_each(|key| queue.add(key));
        });
    }
}

fn is_news(old: &VolumeSnapshot, new: &VolumeSnapshot) -> bool {
    old.spec != new.spec
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || (old.is_held_as_source() && !new.is_held_as_source())
}

pub(super) fn snapshot_of(content: &VolumeSnapshotContent) -> ObjectKey {
    let reference = &content.spec.volume_snapshot_ref;
    ObjectKey::new(
        reference.namespace.clone().unwrap_or_default(),
        reference.name.clone().unwrap_or_default(),
    )
}

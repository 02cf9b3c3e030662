//! Gathers what snapshots, contents and claims look like, asks the deciders, does what they say.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::Api;
use kube::{Client, ResourceExt};
use moorline_model::group_snapshot::VolumeGroupSnapshot;
use moorline_model::snapshot::{
    VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent, VolumeSnapshotStatus,
};
use moorline_model::{claim, keys};
use moorline_runtime::{Cache, EventType, Index, Outcome, Queue, Recorder};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::claim_hold::{is_waiting, may_release};
use super::content_sync::{self, ContentNext};
use super::group::GroupCaches;
use super::snapshot_sync::{self, Next, Seen, Step};
use super::status::News;
use super::watch::snapshot_of;
use super::why::Why;
use super::writes::{CreateError, STEPS_MAX, Writer, settled_by, trouble};
use super::{Config, source_claim};
use crate::finalizer;
use crate::key::ObjectKey;
use crate::told::{Tell, Told};
use crate::write_error::WriteError;

pub(super) struct Snapshots {
    pub(super) config: Config,
    pub(super) client: Client,
    pub(super) snapshots: Cache<VolumeSnapshot>,
    pub(super) contents: Cache<VolumeSnapshotContent>,
    pub(super) classes: Cache<VolumeSnapshotClass>,
    pub(super) claims: Cache<PersistentVolumeClaim>,
    pub(super) pvs: Cache<PersistentVolume>,
    /// Where contents are labelled with their nodes.
    pub(super) nodes: Option<Cache<Node>>,
    /// Snapshots by the claim that they are taken of, as `namespace/name`.
    pub(super) by_claim: Index<String, VolumeSnapshot>,
    /// Claims by the snapshot that they are filled from, as `namespace/name`.
    pub(super) restores: Index<String, PersistentVolumeClaim>,
    pub(super) snapshot_queue: Queue<ObjectKey>,
    pub(super) content_queue: Queue<String>,
    pub(super) claim_queue: Queue<ObjectKey>,
    pub(super) recorder: Recorder,
    pub(super) told: Told<Why>,
    /// Once there are group snapshots.
    pub(super) groups: OnceLock<GroupCaches>,
}

/// Why an object is looked at again.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyncError {
    #[error("{0}")]
    Refused(Why),
    #[error("exactly one of spec.source.volumeHandle and spec.source.snapshotHandle must be set")]
    ContentSource,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl Snapshots {
    /// Looks at one snapshot and does what there is to do.
    pub(super) async fn sync_snapshot(&self, key: &ObjectKey) -> Result<Outcome, SyncError> {
        for _ in 0..STEPS_MAX {
            let Some(snapshot) = self.snapshots.get(Some(&key.namespace), &key.name) else {
                return Ok(Outcome::Settled);
            };
            let content = self.find_content(&snapshot).await?;
            let group = self.find_group(&snapshot).await?;
            match self.decide(key, &snapshot, content.as_deref(), group.as_deref()) {
                Next::Settled => {
                    self.told.forget(&snapshot.uid().unwrap_or_default());
                    return Ok(Outcome::Settled);
                }
                Next::Wait => return Ok(Outcome::Retry),
                Next::Fail(why) => return self.fail(&snapshot, why).await,
                Next::Do(step) => {
                    tracing::debug!(snapshot.key = %key, ?step, "Writing");
                    let written = Box::pin(self.write(&snapshot, content.as_deref(), step)).await;
                    if let Some(outcome) = settled_by(written)? {
                        return Ok(outcome);
                    }
                }
            }
        }
        tracing::warn!(snapshot.key = %key, "Writes to the snapshot have no effect");
        Ok(Outcome::Retry)
    }

    fn decide(
        &self,
        key: &ObjectKey,
        snapshot: &VolumeSnapshot,
        content: Option<&VolumeSnapshotContent>,
        group: Option<&VolumeGroupSnapshot>,
    ) -> Next {
        let class_name = snapshot.spec.volume_snapshot_class_name.as_deref();
        let class = class_name.and_then(|name| self.classes.get(None, name));
        let classes = match class_name {
            Some(_) => Vec::new(),
            None => self.classes.list(),
        };
        let claim = source_claim(snapshot).and_then(|key| self.claims.get(Some(&key.namespace), &key.name));
        let pv_name = claim.as_deref().and_then(claim::volume_name);
        let pv = pv_name.and_then(|name| self.pvs.get(None, name));
        let nodes = self.nodes.as_ref().map(Cache::list);
        let seen = Seen {
            snapshot,
            content,
            class: class.as_deref(),
            default_classes: classes
                .iter()
                .map(Arc::as_ref)
                .filter(|class| class.is_default())
                .collect(),
            claim: claim.as_deref(),
            pv: pv.as_deref(),
            is_restoring: self.is_restoring(key),
            keeps_volume_mode: self.config.prevent_volume_mode_conversion,
            nodes: nodes.as_deref(),
            group_name: content.and_then(|content| self.groups.get()?.name_of(content)),
            group,
        };
        snapshot_sync::decide(&seen)
    }

    /// Whether an unbound claim waits to be filled from the snapshot.
    fn is_restoring(&self, key: &ObjectKey) -> bool {
        let restores = self.restores.get(&key.to_string());
        restores.iter().any(|claim| is_waiting(claim))
    }

    /// The snapshot's content. Before its absence means anything, the API server is asked: the cache may lag.
    async fn find_content(
        &self,
        snapshot: &VolumeSnapshot,
    ) -> Result<Option<Arc<VolumeSnapshotContent>>, kube::Error> {
        let Some(name) = snapshot.content_name() else {
            return Ok(None);
        };
        let held = self.contents.get(None, &name);
        let matters = snapshot.metadata.deletion_timestamp.is_some() || snapshot.bound_content().is_some();
        if held.is_some() || !matters {
            return Ok(held);
        }
        let api: Api<VolumeSnapshotContent> = Api::all(self.client.clone());
        let content = api.get_opt(&name).await?;
        Ok(content.map(|content| {
            self.contents.observe(content.clone());
            Arc::new(content)
        }))
    }

    /// The group snapshot that the snapshot belongs to. Before its absence means anything, the API server is asked.
    async fn find_group(
        &self,
        snapshot: &VolumeSnapshot,
    ) -> Result<Option<Arc<VolumeGroupSnapshot>>, kube::Error> {
        let Some(name) = snapshot.group_name() else {
            return Ok(None);
        };
        let namespace = snapshot.namespace().unwrap_or_default();
        let found = if snapshot.metadata.deletion_timestamp.is_some() {
            let api: Api<VolumeGroupSnapshot> = Api::namespaced(self.client.clone(), &namespace);
            api.get_opt(name).await?.map(Arc::new)
        } else {
            let caches = self.groups.get();
            caches.and_then(|caches| caches.groups.get(Some(&namespace), name))
        };
        let uid = snapshot.group().map(|owner| owner.uid.as_str());
        Ok(found.filter(|group| uid.is_none() || uid == group.metadata.uid.as_deref()))
    }

    async fn write(
        &self,
        snapshot: &VolumeSnapshot,
        content: Option<&VolumeSnapshotContent>,
        step: Step,
    ) -> Result<(), WriteError> {
        let writer = self.snapshot_writer(snapshot);
        match step {
            Step::AssignClass(name) => {
                let spec = json!({"volumeSnapshotClassName": name});
                writer.merge(snapshot, json!({}), Some(spec)).await
            }
            Step::AddFinalizers(names) => writer.add_finalizers(snapshot, &names).await,
            Step::RemoveFinalizers(names) => writer.remove_finalizers(snapshot, &names).await,
            Step::AddOwner(owner) => {
                let mut owners = snapshot.owner_references().to_vec();
                owners.push(*owner);
                let metadata = json!({"ownerReferences": owners});
                writer.merge(snapshot, metadata, None).await
            }
            Step::HoldClaim => self.hold_claim(snapshot).await,
            Step::CreateContent(content) => self.create_content(snapshot, *content).await,
            Step::BindContent => {
                let Some(content) = content else {
                    return Err(WriteError::Conflict);
                };
                let mut spec = json!({"volumeSnapshotRef": {"uid": snapshot.metadata.uid}});
                if let Some(class) = &snapshot.spec.volume_snapshot_class_name {
                    spec["volumeSnapshotClassName"] = json!(class);
                }
                self.content_writer()
                    .merge_other(content, json!({}), Some(spec))
                    .await
            }
            Step::MarkContentDeleted => match content {
                Some(content) => self.mark_deleted(content).await,
                None => Err(WriteError::Conflict),
            },
            Step::DeleteContent => match content {
                Some(content) => self.delete_content(snapshot, content).await,
                None => Err(WriteError::Conflict),
            },
            Step::WriteStatus(status, news) => self.write_status(snapshot, &status, &news).await,
        }
    }

    async fn hold_claim(&self, snapshot: &VolumeSnapshot) -> Result<(), WriteError> {
        let held = source_claim(snapshot).and_then(|key| self.claims.get(Some(&key.namespace), &key.name));
        let Some(claim) = held else {
            return Err(WriteError::Conflict);
        };
        self.hold(&claim).await
    }

    /// Keeps a claim until what is cut of it is there.
    pub(super) async fn hold(&self, claim: &PersistentVolumeClaim) -> Result<(), WriteError> {
        let writer = self.claim_writer(claim);
        let names = [keys::PVC_AS_SOURCE_PROTECTION];
        match writer.add_finalizers(claim, &names).await {
            // The claim, not the snapshot.
            Err(WriteError::Gone) => Err(WriteError::Conflict),
            written => written,
        }
    }

    fn snapshot_writer(&self, snapshot: &VolumeSnapshot) -> Writer<'_, VolumeSnapshot> {
        let namespace = snapshot.namespace().unwrap_or_default();
        self.snapshot_writer_in(&namespace)
    }

    pub(super) fn snapshot_writer_in(&self, namespace: &str) -> Writer<'_, VolumeSnapshot> {
        Writer {
            api: Api::namespaced(self.client.clone(), namespace),
            cache: &self.snapshots,
        }
    }

    pub(super) fn content_writer(&self) -> Writer<'_, VolumeSnapshotContent> {
        Writer {
            api: Api::all(self.client.clone()),
            cache: &self.contents,
        }
    }

    fn claim_writer(&self, claim: &PersistentVolumeClaim) -> Writer<'_, PersistentVolumeClaim> {
        let namespace = claim.namespace().unwrap_or_default();
        Writer {
            api: Api::namespaced(self.client.clone(), &namespace),
            cache: &self.claims,
        }
    }

    async fn create_content(
        &self,
        snapshot: &VolumeSnapshot,
        content: VolumeSnapshotContent,
    ) -> Result<(), WriteError> {
        if let Err(error) = self.content_writer().create(&content).await {
            if let CreateError::Api(error) = &error {
                let name = content.name_any();
                let message = format!("Error creating VolumeSnapshotContent {name}: {error}");
                let reason = "CreateSnapshotContentFailed";
                self.recorder
                    .event_on(snapshot, EventType::Warning, reason, message);
            }
            return Err(error.into());
        }
        let message = format!(
            "Waiting for a snapshot {} to be created by the CSI driver.",
            ObjectKey::of(snapshot)
        );
        self.recorder
            .event_on(snapshot, EventType::Normal, "CreatingSnapshot", message);
        Ok(())
    }

    async fn mark_deleted(&self, content: &VolumeSnapshotContent) -> Result<(), WriteError> {
        let metadata = json!({"annotations": {keys::SNAPSHOT_BEING_DELETED: keys::YES}});
        self.content_writer().merge_other(content, metadata, None).await
    }

    async fn delete_content(
        &self,
        snapshot: &VolumeSnapshot,
        content: &VolumeSnapshotContent,
    ) -> Result<(), WriteError> {
        let deleted = self.content_writer().delete(content).await;
        if let Err(WriteError::Other(error)) = &deleted {
            let message = format!("Failed to delete snapshot content API object: {error}");
            let reason = "SnapshotContentObjectDeleteError";
            self.recorder
                .event_on(snapshot, EventType::Warning, reason, message);
        }
        deleted
    }

    async fn write_status(
        &self,
        snapshot: &VolumeSnapshot,
        status: &VolumeSnapshotStatus,
        news: &[News],
    ) -> Result<(), WriteError> {
        let written = self
            .snapshot_writer(snapshot)
            .merge_status(snapshot, whole(status))
            .await;
        if let Err(WriteError::Other(error)) = &written {
            let message = format!("Snapshot status update failed, {error}");
            self.recorder.event_on(
                snapshot,
                EventType::Warning,
                "SnapshotStatusUpdateFailed",
                message,
            );
        }
        written?;
        let key = ObjectKey::of(snapshot);
        for news in news {
            let message = news.message(&format!("Snapshot {key}"));
            self.recorder
                .event_on(snapshot, EventType::Normal, news.reason(), message);
        }
        Ok(())
    }

    /// Tells why it goes no further, once, and has it tried again.
    async fn fail(&self, snapshot: &VolumeSnapshot, why: Why) -> Result<Outcome, SyncError> {
        let message = why.to_string();
        if !why.is_in_status() {
            let uid = snapshot.uid().unwrap_or_default();
            let tell = self.told.check(&uid, why.clone(), Duration::ZERO, Instant::now());
            if tell == Tell::Now {
                self.recorder
                    .event_on(snapshot, EventType::Warning, why.reason(), message);
            }
            return Err(SyncError::Refused(why));
        }
        let known = snapshot.status.as_ref().and_then(|status| status.error.as_ref());
        if let Some(status) = trouble(known, snapshot.is_ready(), &message) {
            match self
                .snapshot_writer(snapshot)
                .merge_status(snapshot, status)
                .await
            {
                Ok(()) => self
                    .recorder
                    .event_on(snapshot, EventType::Warning, why.reason(), message),
                written => return Ok(settled_by(written)?.unwrap_or(Outcome::Settled)),
            }
        }
        Err(SyncError::Refused(why))
    }

    /// Looks at one content and does what there is to do.
    pub(super) async fn sync_content(&self, name: &str) -> Result<Outcome, SyncError> {
        for _ in 0..STEPS_MAX {
            let Some(content) = self.contents.get(None, name) else {
                return Ok(Outcome::Settled);
            };
            let reference = &content.spec.volume_snapshot_ref;
            let snapshot = self.snapshots.get(
                reference.namespace.as_deref(),
                reference.name.as_deref().unwrap_or_default(),
            );
            let is_restoring = self.is_restoring(&snapshot_of(&content));
            let written = match content_sync::decide(&content, snapshot.as_deref(), is_restoring) {
                ContentNext::Settled => return Ok(Outcome::Settled),
                ContentNext::Refuse => {
                    let message = SyncError::ContentSource.to_string();
                    self.recorder
                        .event_on(&*content, EventType::Warning, "ContentValidationError", message);
                    return Err(SyncError::ContentSource);
                }
                ContentNext::MarkBeingDeleted => self.mark_deleted(&content).await,
                ContentNext::AddFinalizer => {
                    let names = [keys::SNAPSHOT_CONTENT_BOUND_PROTECTION];
                    self.content_writer().add_finalizers(&content, &names).await
                }
            };
            if let Some(outcome) = settled_by(written)? {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Retry)
    }

    /// Lets a claim go that no snapshot is being cut of any more.
    pub(super) async fn sync_claim(&self, key: &ObjectKey) -> Result<Outcome, SyncError> {
        let Some(claim) = self.claims.get(Some(&key.namespace), &key.name) else {
            return Ok(Outcome::Settled);
        };
        if !finalizer::is_present(&claim.metadata, keys::PVC_AS_SOURCE_PROTECTION) {
            return Ok(Outcome::Settled);
        }
        let snapshots = self.by_claim.get(&key.to_string());
        let contents: Vec<_> = snapshots
            .iter()
            .map(|snapshot| {
                let name = snapshot.content_name().unwrap_or_default();
                self.contents.get(None, &name)
            })
            .collect();
        let pairs = snapshots
            .iter()
            .zip(&contents)
            .map(|(snapshot, content)| (snapshot.as_ref(), content.as_deref()));
        if !may_release(&claim, pairs) || self.is_held_by_group(&claim) {
            return Ok(Outcome::Settled);
        }
        let names = [keys::PVC_AS_SOURCE_PROTECTION];
        let written = self.claim_writer(&claim).remove_finalizers(&claim, &names).await;
        match settled_by(written) {
            Ok(outcome) => Ok(outcome.unwrap_or(Outcome::Settled)),
            Err(error) => {
                let message = format!("Error check and remove PVC Finalizer for VolumeSnapshot: {error}");
                self.recorder
                    .event_on(&*claim, EventType::Warning, "ErrorPVCFinalizer", message);
                Err(error.into())
            }
        }
    }
}

impl Snapshots {
    fn is_held_by_group(&self, claim: &PersistentVolumeClaim) -> bool {
        let pv = claim::volume_name(claim).and_then(|name| self.pvs.get(None, name));
        let caches = self.groups.get();
        caches.is_some_and(|caches| caches.hold(claim, pv.as_deref()))
    }
}

/// A status as a merge patch that leaves nothing of an earlier one.
fn whole(status: &VolumeSnapshotStatus) -> Value {
    json!({
        "boundVolumeSnapshotContentName": status.bound_volume_snapshot_content_name,
        "creationTime": status.creation_time,
        "readyToUse": status.ready_to_use,
        "restoreSize": status.restore_size,
        "error": status.error,
        "volumeGroupSnapshotName": status.volume_group_snapshot_name,
    })
}

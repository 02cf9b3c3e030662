//! Gathers what snapshots, contents and claims look like, asks the deciders, does what they say.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use moorline_model::snapshot::{
    SnapshotError, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent, VolumeSnapshotStatus,
};
use moorline_model::{claim, keys};
use moorline_runtime::{Cache, EventType, Index, Outcome, Queue, Recorder};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::claim_hold::{is_waiting, may_release};
use super::content_sync::{self, ContentNext};
use super::snapshot_sync::{self, Next, Seen, Step};
use super::status::News;
use super::why::Why;
use super::{Config, source_claim};
use crate::finalizer;
use crate::key::ObjectKey;
use crate::told::{Tell, Told};
use crate::write_error::WriteError;

/// More writes than any single look needs; reaching it means that a write didn't have its effect.
const STEPS_MAX: usize = 12;
/// Another look after somebody else was faster.
const CONFLICT_INTERVAL: Duration = Duration::from_millis(50);

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
            match self.decide(key, &snapshot, content.as_deref()) {
                Next::Settled => {
                    self.told.forget(&snapshot.uid().unwrap_or_default());
                    return Ok(Outcome::Settled);
                }
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
            is_restoring: self
                .restores
                .get(&key.to_string())
                .iter()
                .any(|claim| is_waiting(claim)),
            keeps_volume_mode: self.config.prevent_volume_mode_conversion,
            nodes: nodes.as_deref(),
        };
        snapshot_sync::decide(&seen)
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

    async fn write(
        &self,
        snapshot: &VolumeSnapshot,
        content: Option<&VolumeSnapshotContent>,
        step: Step,
    ) -> Result<(), WriteError> {
        match step {
            Step::AssignClass(name) => {
                let patch = json!({
                    "metadata": {"resourceVersion": snapshot.metadata.resource_version},
                    "spec": {"volumeSnapshotClassName": name},
                });
                self.patch_snapshot(snapshot, &Patch::Merge(patch)).await
            }
            Step::AddFinalizers(names) => {
                let operations = finalizer::additions(&snapshot.metadata, &names);
                self.patch_snapshot(snapshot, &finalizer::json_patch::<VolumeSnapshot>(operations))
                    .await
            }
            Step::RemoveFinalizers(names) => {
                let Some(operations) = finalizer::removals(&snapshot.metadata, &names) else {
                    return Ok(());
                };
                self.patch_snapshot(snapshot, &finalizer::json_patch::<VolumeSnapshot>(operations))
                    .await
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
                self.patch_content(content, json!({}), Some(spec)).await
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

    async fn patch_snapshot<P: serde::Serialize + std::fmt::Debug>(
        &self,
        snapshot: &VolumeSnapshot,
        patch: &Patch<P>,
    ) -> Result<(), WriteError> {
        let namespace = snapshot.namespace().unwrap_or_default();
        let api: Api<VolumeSnapshot> = Api::namespaced(self.client.clone(), &namespace);
        let written = api
            .patch(&snapshot.name_any(), &PatchParams::default(), patch)
            .await?;
        self.took(&self.snapshots, written);
        Ok(())
    }

    /// Takes the answer to a write; an object whose last finalizer has gone is gone.
    fn took<K>(&self, cache: &Cache<K>, written: K)
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let meta = written.meta();
        let is_gone = meta.deletion_timestamp.is_some() && meta.finalizers.as_ref().is_none_or(Vec::is_empty);
        if is_gone {
            cache.forget(&written);
        } else {
            cache.observe(written);
        }
    }

    async fn hold_claim(&self, snapshot: &VolumeSnapshot) -> Result<(), WriteError> {
        let held = source_claim(snapshot).and_then(|key| self.claims.get(Some(&key.namespace), &key.name));
        let Some(claim) = held else {
            return Err(WriteError::Conflict);
        };
        let operations = finalizer::additions(&claim.metadata, &[keys::PVC_AS_SOURCE_PROTECTION]);
        match self.patch_claim(&claim, operations).await {
            // The claim, not the snapshot.
            Err(WriteError::Gone) => Err(WriteError::Conflict),
            written => written,
        }
    }

    async fn patch_claim(&self, claim: &PersistentVolumeClaim, operations: Value) -> Result<(), WriteError> {
        let namespace = claim.namespace().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let patch = finalizer::json_patch::<PersistentVolumeClaim>(operations);
        let written = api
            .patch(&claim.name_any(), &PatchParams::default(), &patch)
            .await?;
        self.took(&self.claims, written);
        Ok(())
    }

    async fn create_content(
        &self,
        snapshot: &VolumeSnapshot,
        content: VolumeSnapshotContent,
    ) -> Result<(), WriteError> {
        let api: Api<VolumeSnapshotContent> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &content).await {
            Ok(made) => self.contents.observe(made),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // An earlier try, whose answer was lost: the next look sees whether it is ours.
                let found = api.get_opt(&content.name_any()).await?;
                self.contents.observe(found.ok_or(WriteError::Conflict)?);
            }
            Err(error) => {
                let message = format!(
                    "Error creating VolumeSnapshotContent {}: {error}",
                    content.name_any()
                );
                self.recorder.event_on(
                    snapshot,
                    EventType::Warning,
                    "CreateSnapshotContentFailed",
                    message,
                );
                return Err(error.into());
            }
        }
        let message = format!(
            "Waiting for a snapshot {} to be created by the CSI driver.",
            ObjectKey::of(snapshot)
        );
        self.recorder
            .event_on(snapshot, EventType::Normal, "CreatingSnapshot", message);
        Ok(())
    }

    /// Patches a content as it was seen; `metadata` and `spec` are merged into it.
    async fn patch_content(
        &self,
        content: &VolumeSnapshotContent,
        mut metadata: Value,
        spec: Option<Value>,
    ) -> Result<(), WriteError> {
        metadata["resourceVersion"] = json!(content.metadata.resource_version);
        let mut patch = json!({"metadata": metadata});
        if let Some(spec) = spec {
            patch["spec"] = spec;
        }
        let api: Api<VolumeSnapshotContent> = Api::all(self.client.clone());
        let written = api
            .patch(&content.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match written.map_err(WriteError::from) {
            Ok(written) => {
                self.took(&self.contents, written);
                Ok(())
            }
            // The content, not what it is bound to: to be looked at again.
            Err(WriteError::Gone) => {
                self.contents.forget(content);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn mark_deleted(&self, content: &VolumeSnapshotContent) -> Result<(), WriteError> {
        let metadata = json!({"annotations": {keys::SNAPSHOT_BEING_DELETED: keys::YES}});
        self.patch_content(content, metadata, None).await
    }

    async fn delete_content(
        &self,
        snapshot: &VolumeSnapshot,
        content: &VolumeSnapshotContent,
    ) -> Result<(), WriteError> {
        let api: Api<VolumeSnapshotContent> = Api::all(self.client.clone());
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: content.metadata.uid.clone(),
                resource_version: None,
            }),
            ..Default::default()
        };
        match api.delete(&content.name_any(), &params).await {
            Ok(either) => {
                match either.left() {
                    Some(going) => self.took(&self.contents, going),
                    None => self.contents.forget(content),
                }
                Ok(())
            }
            Err(error) => match WriteError::from(error) {
                WriteError::Gone => {
                    self.contents.forget(content);
                    Ok(())
                }
                WriteError::Conflict => Err(WriteError::Conflict),
                WriteError::Other(error) => {
                    let message = format!("Failed to delete snapshot content API object: {error}");
                    let reason = "SnapshotContentObjectDeleteError";
                    self.recorder
                        .event_on(snapshot, EventType::Warning, reason, message);
                    Err(WriteError::Other(error))
                }
            },
        }
    }

    async fn write_status(
        &self,
        snapshot: &VolumeSnapshot,
        status: &VolumeSnapshotStatus,
        news: &[News],
    ) -> Result<(), WriteError> {
        let written = self.patch_status(snapshot, whole(status)).await;
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
            let message = match news {
                News::Created => format!("Snapshot {key} was successfully created by the CSI driver."),
                News::Ready => format!("Snapshot {key} is ready to use."),
            };
            self.recorder
                .event_on(snapshot, EventType::Normal, news.reason(), message);
        }
        Ok(())
    }

    async fn patch_status(&self, snapshot: &VolumeSnapshot, status: Value) -> Result<(), WriteError> {
        let namespace = snapshot.namespace().unwrap_or_default();
        let api: Api<VolumeSnapshot> = Api::namespaced(self.client.clone(), &namespace);
        // Only for the object that was seen: another one of the same name must not inherit its readiness.
        let patch = json!({
            "metadata": {"resourceVersion": snapshot.metadata.resource_version}, "status": status,
        });
        let written = api
            .patch_status(
                &snapshot.name_any(),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await?;
        self.took(&self.snapshots, written);
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
        if known.and_then(|error| error.message.as_ref()) != Some(&message) || snapshot.is_ready() {
            let error = SnapshotError {
                time: Some(Time(Timestamp::now())),
                message: Some(message.clone()),
            };
            let status = json!({"error": error, "readyToUse": false});
            match self.patch_status(snapshot, status).await {
                Ok(()) => self
                    .recorder
                    .event_on(snapshot, EventType::Warning, why.reason(), message),
                Err(WriteError::Conflict) => return Ok(Outcome::After(CONFLICT_INTERVAL)),
                Err(WriteError::Gone) => return Ok(Outcome::Settled),
                Err(WriteError::Other(error)) => return Err(error.into()),
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
            let written = match content_sync::decide(&content, snapshot.as_deref()) {
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
                    let operations = finalizer::additions(&content.metadata, &names);
                    let patch = finalizer::json_patch::<VolumeSnapshotContent>(operations);
                    let api: Api<VolumeSnapshotContent> = Api::all(self.client.clone());
                    let written = api.patch(name, &PatchParams::default(), &patch).await;
                    written
                        .map(|written| self.took(&self.contents, written))
                        .map_err(WriteError::from)
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
        let Some(operations) = finalizer::removal(&claim.metadata, keys::PVC_AS_SOURCE_PROTECTION) else {
            return Ok(Outcome::Settled);
        };
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
        if !may_release(&claim, pairs) {
            return Ok(Outcome::Settled);
        }
        match settled_by(self.patch_claim(&claim, operations).await) {
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

/// What a write means for the look that made it; `None`: go on.
fn settled_by(written: Result<(), WriteError>) -> Result<Option<Outcome>, kube::Error> {
    match written {
        Ok(()) => Ok(None),
        Err(WriteError::Conflict) => Ok(Some(Outcome::After(CONFLICT_INTERVAL))),
        // Its going wakes whoever has to know.
        Err(WriteError::Gone) => Ok(Some(Outcome::Settled)),
        Err(WriteError::Other(error)) => Err(error),
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

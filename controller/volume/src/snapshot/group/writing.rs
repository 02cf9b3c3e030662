//! Does what was decided about group snapshots.

use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::api::Api;
use moorline_model::group_snapshot::{
    VolumeGroupSnapshot, VolumeGroupSnapshotContent, VolumeGroupSnapshotStatus,
};
use moorline_model::keys;
use moorline_runtime::EventType;
use serde_json::{Value, json};

use super::Groups;
use super::members::MemberStep;
use super::sync::Step;
use crate::finalizer;
use crate::key::ObjectKey;
use crate::snapshot::status::News;
use crate::snapshot::writes::{CreateError, Writer};
use crate::write_error::WriteError;

/// Members of one group that are written at once.
const MEMBERS_AT_ONCE: usize = 8;
const FINALIZER: &str = keys::GROUP_SNAPSHOT_BOUND_PROTECTION;

impl Groups {
    pub(super) async fn write(
        &self,
        group: &VolumeGroupSnapshot,
        content: Option<&VolumeGroupSnapshotContent>,
        step: Step,
    ) -> Result<(), WriteError> {
        let writer = self.group_writer(group);
        match (step, content) {
            (Step::AssignClass(name), _) => {
                let spec = json!({"volumeGroupSnapshotClassName": name});
                writer.merge(group, json!({}), Some(spec)).await
            }
            (Step::AddFinalizer, _) => writer.add_finalizers(group, &[FINALIZER]).await,
            (Step::RemoveFinalizer, _) => writer.remove_finalizers(group, &[FINALIZER]).await,
            (Step::HoldClaims(names), _) => self.hold_claims(group, &names).await,
            (Step::CreateContent(content), _) => self.create_content(group, *content).await,
            (Step::BindContent, Some(content)) => {
                let mut spec = json!({"volumeGroupSnapshotRef": {"uid": group.metadata.uid}});
                if let Some(class) = &group.spec.volume_group_snapshot_class_name {
                    spec["volumeGroupSnapshotClassName"] = json!(class);
                }
                let writer = self.content_writer();
                writer.merge_other(content, json!({}), Some(spec)).await
            }
            (Step::Members(steps), _) => self.write_members(group, steps).await,
            (Step::DeleteMembers(names), _) => self.delete_members(group, names).await,
            (Step::MarkContentDeleted, Some(content)) => self.mark_deleted(content).await,
            (Step::DeleteContent, Some(content)) => self.delete_content(group, content).await,
            (Step::WriteStatus(status, news), _) => self.write_status(group, &status, &news).await,
            (Step::BindContent | Step::MarkContentDeleted | Step::DeleteContent, None) => {
                Err(WriteError::Conflict)
            }
        }
    }

    pub(super) fn group_writer(&self, group: &VolumeGroupSnapshot) -> Writer<'_, VolumeGroupSnapshot> {
        let namespace = group.namespace().unwrap_or_default();
        Writer {
            api: Api::namespaced(self.snapshots.client.clone(), &namespace),
            cache: &self.caches.groups,
        }
    }

    pub(super) fn content_writer(&self) -> Writer<'_, VolumeGroupSnapshotContent> {
        Writer {
            api: Api::all(self.snapshots.client.clone()),
            cache: &self.caches.contents,
        }
    }

    async fn hold_claims(&self, group: &VolumeGroupSnapshot, names: &[String]) -> Result<(), WriteError> {
        let namespace = group.namespace().unwrap_or_default();
        for name in names {
            let held = self.snapshots.claims.get(Some(&namespace), name);
            // Not heard of yet by the watch, which is a moment behind the list.
            let claim = held.ok_or(WriteError::Conflict)?;
            if !finalizer::is_present(&claim.metadata, keys::PVC_AS_SOURCE_PROTECTION) {
                self.snapshots.hold(&claim).await?;
            }
        }
        Ok(())
    }

    async fn create_content(
        &self,
        group: &VolumeGroupSnapshot,
        content: VolumeGroupSnapshotContent,
    ) -> Result<(), WriteError> {
        if let Err(error) = self.content_writer().create(&content).await {
            if let CreateError::Api(error) = &error {
                let name = content.name_any();
                let message = format!("Error creating VolumeGroupSnapshotContent {name}: {error}");
                self.warn(group, "CreateGroupSnapshotContentFailed", message);
            }
            return Err(error.into());
        }
        let message = format!(
            "Waiting for a group snapshot {} to be created by the CSI driver.",
            ObjectKey::of(group)
        );
        let recorder = &self.snapshots.recorder;
        recorder.event_on(group, EventType::Normal, "CreatingGroupSnapshot", message);
        Ok(())
    }

    pub(super) fn warn(&self, group: &VolumeGroupSnapshot, reason: &str, message: String) {
        let recorder = &self.snapshots.recorder;
        recorder.event_on(group, EventType::Warning, reason, message);
    }

    /// Writes for all members, whatever becomes of one of them.
    async fn write_members(
        &self,
        group: &VolumeGroupSnapshot,
        steps: Vec<MemberStep>,
    ) -> Result<(), WriteError> {
        let writes = stream::iter(steps).map(|step| self.write_member(group, step));
        let written: Vec<_> = writes.buffer_unordered(MEMBERS_AT_ONCE).collect().await;
        written.into_iter().collect()
    }

    async fn write_member(&self, group: &VolumeGroupSnapshot, step: MemberStep) -> Result<(), WriteError> {
        let contents = self.snapshots.content_writer();
        let seen = |name: &str| {
            self.snapshots
                .contents
                .get(None, name)
                .ok_or(WriteError::Conflict)
        };
        match step {
            MemberStep::CreateSnapshot(snapshot) => {
                let namespace = group.namespace().unwrap_or_default();
                let writer = self.snapshots.snapshot_writer_in(&namespace);
                writer.create(&*snapshot).await.map_err(WriteError::from)
            }
            MemberStep::CreateContent(content) => contents.create(&*content).await.map_err(WriteError::from),
            MemberStep::Bind { content, uid } => {
                let spec = json!({"volumeSnapshotRef": {"uid": uid}});
                contents
                    .merge_other(&*seen(&content)?, json!({}), Some(spec))
                    .await
            }
            MemberStep::WriteStatus { content, status } => {
                let mut merged = json!(status);
                merged["error"] = json!(status.error);
                contents.merge_status_of_other(&*seen(&content)?, merged).await
            }
        }
    }

    async fn delete_members(
        &self,
        group: &VolumeGroupSnapshot,
        names: Vec<String>,
    ) -> Result<(), WriteError> {
        let namespace = group.namespace().unwrap_or_default();
        let writer = self.snapshots.snapshot_writer_in(&namespace);
        for name in names {
            let Some(snapshot) = self.snapshots.snapshots.get(Some(&namespace), &name) else {
                continue;
            };
            let deleted = writer.delete(&snapshot).await;
            if let Err(WriteError::Other(error)) = &deleted {
                let message = format!("failed to delete snapshot {name} of the group snapshot: {error}");
                self.warn(group, "SnapshotDeleteError", message);
            }
            deleted?;
        }
        Ok(())
    }

    pub(super) async fn mark_deleted(&self, content: &VolumeGroupSnapshotContent) -> Result<(), WriteError> {
        let metadata = json!({"annotations": {keys::GROUP_SNAPSHOT_BEING_DELETED: keys::YES}});
        self.content_writer().merge_other(content, metadata, None).await
    }

    async fn delete_content(
        &self,
        group: &VolumeGroupSnapshot,
        content: &VolumeGroupSnapshotContent,
    ) -> Result<(), WriteError> {
        let deleted = self.content_writer().delete(content).await;
        if let Err(WriteError::Other(error)) = &deleted {
            let message = format!("Failed to delete group snapshot content API object: {error}");
            self.warn(group, "GroupSnapshotContentObjectDeleteError", message);
        }
        deleted
    }

    async fn write_status(
        &self,
        group: &VolumeGroupSnapshot,
        status: &VolumeGroupSnapshotStatus,
        news: &[News],
    ) -> Result<(), WriteError> {
        let written = self.group_writer(group).merge_status(group, whole(status)).await;
        if let Err(WriteError::Other(error)) = &written {
            let message = format!("GroupSnapshot status update failed, {error}");
            self.warn(group, "GroupSnapshotStatusUpdateFailed", message);
        }
        written?;
        let what = format!("GroupSnapshot {}", ObjectKey::of(group));
        for news in news {
            let recorder = &self.snapshots.recorder;
            recorder.event_on(group, EventType::Normal, news.group_reason(), news.message(&what));
        }
        Ok(())
    }
}

/// A status as a merge patch that leaves nothing of an earlier one.
fn whole(status: &VolumeGroupSnapshotStatus) -> Value {
    json!({
        "boundVolumeGroupSnapshotContentName": status.bound_volume_group_snapshot_content_name,
        "creationTime": status.creation_time,
        "readyToUse": status.ready_to_use,
        "error": status.error,
    })
}

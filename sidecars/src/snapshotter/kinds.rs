//! The two kinds of contents: their names, their deciders and the driver's calls.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use moorline_model::group_snapshot::{VolumeGroupSnapshotClass, VolumeGroupSnapshotContent};
use moorline_model::keys;
use moorline_model::snapshot::{SnapshotError, VolumeSnapshotClass, VolumeSnapshotContent};
use moorline_proto::csi::{
    CreateSnapshotRequest, CreateVolumeGroupSnapshotRequest, DeleteSnapshotRequest,
    DeleteVolumeGroupSnapshotRequest, GetVolumeGroupSnapshotRequest, ListSnapshotsRequest,
};
use moorline_runtime::Cache;
use serde_json::Value;
use tonic::Status;

use super::kind::{CallError, Content, Kind, Names, NextOf};
use super::status::AnswerError;
use super::{SnapshotterConfig, content, group, status};
use crate::connection::call;
use crate::discovery::DriverFacts;
use crate::driver::Driver;

/// VolumeSnapshotContents.
pub(crate) struct Snapshots {
    pub(crate) classes: Cache<VolumeSnapshotClass>,
}

/// VolumeGroupSnapshotContents.
pub(crate) struct Groups {
    pub(crate) classes: Cache<VolumeGroupSnapshotClass>,
}

impl Content for VolumeSnapshotContent {
    fn driver(&self) -> &str {
        &self.spec.driver
    }

    fn class_name(&self) -> Option<&str> {
        self.spec.volume_snapshot_class_name.as_deref()
    }

    fn has_spec_of(&self, other: &Self) -> bool {
        self.spec == other.spec
    }

    fn error(&self) -> Option<&SnapshotError> {
        self.status.as_ref()?.error.as_ref()
    }

    fn is_ready(&self) -> bool {
        self.status.as_ref().and_then(|status| status.ready_to_use) == Some(true)
    }

    fn is_being_created(&self) -> bool {
        self.is_being_created()
    }
}

impl Content for VolumeGroupSnapshotContent {
    fn driver(&self) -> &str {
        &self.spec.driver
    }

    fn class_name(&self) -> Option<&str> {
        self.spec.volume_group_snapshot_class_name.as_deref()
    }

    fn has_spec_of(&self, other: &Self) -> bool {
        self.spec == other.spec
    }

    fn error(&self) -> Option<&SnapshotError> {
        self.status.as_ref()?.error.as_ref()
    }

    fn is_ready(&self) -> bool {
        self.is_ready()
    }

    fn is_being_created(&self) -> bool {
        self.is_being_created()
    }
}

impl Kind for Snapshots {
    type Content = VolumeSnapshotContent;
    type Create = CreateSnapshotRequest;
    type Look = ListSnapshotsRequest;
    type Delete = DeleteSnapshotRequest;

    const NAMES: Names = Names {
        what: "volume snapshot content",
        mark: keys::SNAPSHOT_BEING_CREATED,
        finalizer: keys::SNAPSHOT_CONTENT_BOUND_PROTECTION,
        queue: "csi-snapshotter-content",
        create_failed: "SnapshotCreationFailed",
        create_failed_text: "failed to take snapshot of the volume",
        check_failed: "SnapshotContentCheckandUpdateFailed",
        delete_failed: "SnapshotDeleteError",
        delete_failed_text: "Failed to delete snapshot",
        rpcs: ["CreateSnapshot", "ListSnapshots", "DeleteSnapshot"],
    };

    fn decide(
        &self,
        content: &VolumeSnapshotContent,
        driver: &DriverFacts,
        config: &SnapshotterConfig,
    ) -> NextOf<Self> {
        let class = content.class_name().and_then(|name| self.classes.get(None, name));
        content::decide(&content::Seen {
            content,
            class: class.as_deref(),
            driver,
            config,
        })
    }

    async fn create(
        &self,
        driver: &Driver,
        timeout: Duration,
        mut request: CreateSnapshotRequest,
        secrets: HashMap<String, String>,
    ) -> Result<Value, CallError> {
        request.secrets = secrets;
        let mut controller = driver.connection.controller();
        let answer = call(timeout, request, |request| controller.create_snapshot(request)).await?;
        Ok(status::of_snapshot(answer.snapshot.as_ref(), Timestamp::now())?)
    }

    async fn look(
        &self,
        driver: &Driver,
        timeout: Duration,
        mut request: ListSnapshotsRequest,
        secrets: HashMap<String, String>,
    ) -> Result<Value, CallError> {
        request.secrets = secrets;
        let snapshot_id = request.snapshot_id.clone();
        let mut controller = driver.connection.controller();
        let answer = call(timeout, request, |request| controller.list_snapshots(request)).await?;
        let mut listed = answer.entries.iter().filter_map(|entry| entry.snapshot.as_ref());
        match listed.find(|snapshot| snapshot.snapshot_id == snapshot_id) {
            Some(snapshot) => Ok(status::of_snapshot(Some(snapshot), Timestamp::now())?),
            None => Err(AnswerError::NotListed(snapshot_id).into()),
        }
    }

    async fn delete(
        &self,
        driver: &Driver,
        timeout: Duration,
        mut request: DeleteSnapshotRequest,
        secrets: HashMap<String, String>,
    ) -> Result<(), Status> {
        request.secrets = secrets;
        let mut controller = driver.connection.controller();
        let answer = call(timeout, request, |request| controller.delete_snapshot(request)).await;
        answer.map(drop)
    }
}

impl Kind for Groups {
    type Content = VolumeGroupSnapshotContent;
    type Create = CreateVolumeGroupSnapshotRequest;
    type Look = GetVolumeGroupSnapshotRequest;
    type Delete = DeleteVolumeGroupSnapshotRequest;

    const NAMES: Names = Names {
        what: "volume group snapshot content",
        mark: keys::GROUP_SNAPSHOT_BEING_CREATED,
        finalizer: keys::GROUP_SNAPSHOT_CONTENT_BOUND_PROTECTION,
        queue: "csi-snapshotter-groupsnapshotcontent",
        create_failed: "GroupSnapshotCreationFailed",
        create_failed_text: "failed to take group snapshot of the volumes",
        check_failed: "GroupSnapshotContentCheckandUpdateFailed",
        delete_failed: "GroupSnapshotDeleteError",
        delete_failed_text: "Failed to delete group snapshot",
        rpcs: [
            "CreateVolumeGroupSnapshot",
            "GetVolumeGroupSnapshot",
            "DeleteVolumeGroupSnapshot",
        ],
    };

    fn decide(
        &self,
        content: &VolumeGroupSnapshotContent,
        driver: &DriverFacts,
        config: &SnapshotterConfig,
    ) -> NextOf<Self> {
        let class = content.class_name().and_then(|name| self.classes.get(None, name));
        group::decide(&group::Seen {
            content,
            class: class.as_deref(),
            driver,
            config,
        })
    }

    async fn create(
        &self,
        driver: &Driver,
        timeout: Duration,
        mut request: CreateVolumeGroupSnapshotRequest,
        secrets: HashMap<String, String>,
    ) -> Result<Value, CallError> {
        request.secrets = secrets;
        let volume_handles = request.source_volume_ids.clone();
        let mut groups = driver.connection.groups();
        let answer = call(timeout, request, |request| {
            groups.create_volume_group_snapshot(request)
        })
        .await?;
        let group = answer.group_snapshot.as_ref();
        Ok(status::of_group(group, &volume_handles, Timestamp::now())?)
    }

    async fn look(
        &self,
        driver: &Driver,
        timeout: Duration,
        mut request: GetVolumeGroupSnapshotRequest,
        secrets: HashMap<String, String>,
    ) -> Result<Value, CallError> {
        request.secrets = secrets;
        let mut groups = driver.connection.groups();
        let answer = call(timeout, request, |request| {
            groups.get_volume_group_snapshot(request)
        })
        .await?;
        let group = answer.group_snapshot.as_ref();
        Ok(status::of_group(group, &[], Timestamp::now())?)
    }

    async fn delete(
        &self,
        driver: &Driver,
        timeout: Duration,
        mut request: DeleteVolumeGroupSnapshotRequest,
        secrets: HashMap<String, String>,
    ) -> Result<(), Status> {
        request.secrets = secrets;
        let mut groups = driver.connection.groups();
        let answer = call(timeout, request, |request| {
            groups.delete_volume_group_snapshot(request)
        })
        .await;
        answer.map(drop)
    }
}

//! The objects of a group's members: a VolumeSnapshot and its content for each snapshot that the driver cut. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use moorline_model::claim::annotation;
use moorline_model::group_snapshot::{
    VolumeGroupSnapshot, VolumeGroupSnapshotContent, VolumeSnapshotInfo, content_name_of_member, member_name,
};
use moorline_model::keys;
use moorline_model::snapshot::{
    API_VERSION, VolumeSnapshot, VolumeSnapshotContent, VolumeSnapshotContentSource,
    VolumeSnapshotContentSpec, VolumeSnapshotContentStatus, VolumeSnapshotSource, VolumeSnapshotSpec,
};

use super::super::snapshot_sync::owner;
use super::why::Why;

/// What is seen of one member: of the names that follow from group and volume.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// What the driver said of it.
    pub info: &'a VolumeSnapshotInfo,
    /// Its snapshot.
    pub snapshot: Option<&'a VolumeSnapshot>,
    /// Its content.
    pub content: Option<&'a VolumeSnapshotContent>,
    /// The PV that it was cut of.
    pub pv: Option<&'a PersistentVolume>,
}

/// One write for one member.
#[derive(Clone, Debug, PartialEq)]
pub enum MemberStep {
    /// The snapshot, owned by the group.
    CreateSnapshot(Box<VolumeSnapshot>),
    /// The content, bound to the snapshot.
    CreateContent(Box<VolumeSnapshotContent>),
    /// The UID of the snapshot into the content of that name, which another controller made without.
    Bind {
        /// The content.
        content: String,
        /// The snapshot's UID.
        uid: String,
    },
    /// What the driver said, into the status of the content of that name.
    WriteStatus {
        /// The content.
        content: String,
        /// Its status.
        status: Box<VolumeSnapshotContentStatus>,
    },
}

/// What to do next for one member; `None`: all is there.
pub(super) fn next(
    group: &VolumeGroupSnapshot,
    content: &VolumeGroupSnapshotContent,
    member: &Member<'_>,
) -> Result<Option<MemberStep>, Why> {
    let Some(snapshot) = member.snapshot else {
        let made = snapshot_of(group, content, member);
        return Ok(Some(MemberStep::CreateSnapshot(Box::new(made))));
    };
    let uid = snapshot.metadata.uid.clone().unwrap_or_default();
    let Some(own) = member.content else {
        let made = content_of(content, member, snapshot);
        return Ok(Some(MemberStep::CreateContent(Box::new(made))));
    };
    let name = own.metadata.name.clone().unwrap_or_default();
    if !own.points_to(snapshot) {
        return match own.may_bind_to(snapshot) {
            true => Ok(Some(MemberStep::Bind { content: name, uid })),
            false => Err(Why::MemberMisbound(name)),
        };
    }
    let status = status_of(content, member.info, own);
    Ok(
        (own.status.as_ref() != Some(&status)).then(|| MemberStep::WriteStatus {
            content: name,
            status: Box::new(status),
        }),
    )
}

/// Names of the snapshot and of the content of the member for one volume.
pub(super) fn names(group: &VolumeGroupSnapshot, info: &VolumeSnapshotInfo) -> (String, String) {
    let group_uid = group.metadata.uid.as_deref().unwrap_or_default();
    let name = member_name(group_uid, info.volume_handle.as_deref().unwrap_or_default());
    let content = content_name_of_member(&name).unwrap_or_default();
    (name, content)
}

fn snapshot_of(
    group: &VolumeGroupSnapshot,
    content: &VolumeGroupSnapshotContent,
    member: &Member<'_>,
) -> VolumeSnapshot {
    let (name, _) = names(group, member.info);
    let claim = member.pv.and_then(|pv| pv.spec.as_ref()?.claim_ref.as_ref());
    let claim_name = claim.and_then(|claim| claim.name.clone());
    let mut finalizers = vec![
        keys::SNAPSHOT_IN_GROUP_PROTECTION,
        keys::SNAPSHOT_AS_SOURCE_PROTECTION,
    ];
    if content.is_deleting_backend() {
        finalizers.push(keys::SNAPSHOT_BOUND_PROTECTION);
    }
    VolumeSnapshot {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: group.metadata.namespace.clone(),
            owner_references: Some(vec![owner(group)]),
            finalizers: Some(finalizers.into_iter().map(str::to_string).collect()),
            ..Default::default()
        },
        spec: VolumeSnapshotSpec {
            source: VolumeSnapshotSource {
                // Empty where the volume has gone meanwhile: its data is here all the same.
                persistent_volume_claim_name: Some(claim_name.unwrap_or_default()),
                volume_snapshot_content_name: None,
            },
            volume_snapshot_class_name: None,
        },
        ..Default::default()
    }
}

fn content_of(
    group: &VolumeGroupSnapshotContent,
    member: &Member<'_>,
    snapshot: &VolumeSnapshot,
) -> VolumeSnapshotContent {
    let meta = &snapshot.metadata;
    let copied = [
        (
            keys::SNAPSHOT_DELETION_SECRET_NAME,
            keys::GROUP_SNAPSHOT_DELETION_SECRET_NAME,
        ),
        (
            keys::SNAPSHOT_DELETION_SECRET_NAMESPACE,
            keys::GROUP_SNAPSHOT_DELETION_SECRET_NAMESPACE,
        ),
    ];
    let copied = copied
        .into_iter()
        .filter_map(|(key, group_key)| Some((key, annotation(&group.metadata, group_key)?)));
    let handle = (keys::GROUP_SNAPSHOT_HANDLE, group.handle().unwrap_or_default());
    let annotations = copied
        .chain([handle])
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
    VolumeSnapshotContent {
        metadata: ObjectMeta {
            name: meta.name.as_deref().and_then(content_name_of_member),
            annotations: Some(annotations),
            labels: managing_node(group),
            finalizers: Some(vec![keys::SNAPSHOT_CONTENT_BOUND_PROTECTION.to_string()]),
            ..Default::default()
        },
        spec: VolumeSnapshotContentSpec {
            volume_snapshot_ref: ObjectReference {
                api_version: Some(API_VERSION.to_string()),
                kind: Some("VolumeSnapshot".to_string()),
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
                ..Default::default()
            },
            deletion_policy: group.spec.deletion_policy.clone(),
            driver: group.spec.driver.clone(),
            volume_snapshot_class_name: None,
            source: VolumeSnapshotContentSource {
                volume_handle: member.info.volume_handle.clone(),
                snapshot_handle: None,
            },
            source_volume_mode: member.pv.and_then(|pv| pv.spec.as_ref()?.volume_mode.clone()),
        },
        ..Default::default()
    }
}

/// The label of the node whose snapshotter manages the group, for its members.
fn managing_node(group: &VolumeGroupSnapshotContent) -> Option<BTreeMap<String, String>> {
    let labels = group.metadata.labels.as_ref()?;
    let node_name = labels.get(keys::SNAPSHOT_MANAGED_BY)?;
    Some([(keys::SNAPSHOT_MANAGED_BY.to_string(), node_name.clone())].into())
}

/// The status of a member's content: what the driver said with the group, unless the content knows more already.
fn status_of(
    group: &VolumeGroupSnapshotContent,
    info: &VolumeSnapshotInfo,
    own: &VolumeSnapshotContent,
) -> VolumeSnapshotContentStatus {
    let old = own.status.clone().unwrap_or_default();
    let is_ready = old.ready_to_use == Some(true) || info.ready_to_use == Some(true);
    VolumeSnapshotContentStatus {
        snapshot_handle: info.snapshot_handle.clone(),
        creation_time: old.creation_time.or(info.creation_time),
        restore_size: old.restore_size.or(info.restore_size),
        ready_to_use: Some(is_ready),
        error: if is_ready { None } else { old.error },
        volume_group_snapshot_handle: group.handle().map(str::to_string),
    }
}

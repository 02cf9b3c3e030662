//! What to do next about one VolumeGroupSnapshotContent. Pure; [`super::stage`] draws the order of things.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::SecretReference;
use moorline_model::group_snapshot::{NOUN, VolumeGroupSnapshotClass, VolumeGroupSnapshotContent};
use moorline_model::keys;
use moorline_model::snapshot::{SnapshotSecret, SnapshotTokens};
use moorline_proto::csi::{
    CreateVolumeGroupSnapshotRequest, DeleteVolumeGroupSnapshotRequest, GetVolumeGroupSnapshotRequest,
};

use super::SnapshotterConfig;
use super::kind::{self, Call, Refusal, deletion_secret, for_driver, is_of_node};
use super::stage::{Stage, Turn, turn};
use crate::discovery::DriverFacts;

const METADATA_GROUP_NAME: &str = "csi.storage.k8s.io/volumegroupsnapshot/name";
const METADATA_GROUP_NAMESPACE: &str = "csi.storage.k8s.io/volumegroupsnapshot/namespace";
const METADATA_CONTENT_NAME: &str = "csi.storage.k8s.io/volumegroupsnapshotcontent/name";

/// Everything the decision rests on.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) content: &'a VolumeGroupSnapshotContent,
    /// The class that it names.
    pub(crate) class: Option<&'a VolumeGroupSnapshotClass>,
    pub(crate) driver: &'a DriverFacts,
    pub(crate) config: &'a SnapshotterConfig,
}

/// The answer.
pub(crate) type Next = kind::Next<
    CreateVolumeGroupSnapshotRequest,
    GetVolumeGroupSnapshotRequest,
    DeleteVolumeGroupSnapshotRequest,
>;

/// Decides.
pub(crate) fn decide(seen: &Seen<'_>) -> Next {
    let content = seen.content;
    let is_ours =
        content.spec.driver == seen.driver.driver_name && is_of_node(&content.metadata, seen.config);
    let is_foreign = seen
        .class
        .is_some_and(|class| class.driver != content.spec.driver);
    if !is_ours || is_foreign || !content.has_one_source() {
        // What is wrong with one of ours the snapshot controller tells users.
        return Next::Settled;
    }
    next(seen).unwrap_or_else(Next::Refuse)
}

fn next(seen: &Seen<'_>) -> Result<Next, Refusal> {
    Ok(match turn(stage(seen.content)) {
        Turn::Settled => Next::Settled,
        Turn::MarkBeingCreated => {
            // What can't be asked for leaves no mark.
            create(seen)?;
            Next::MarkBeingCreated
        }
        Turn::Create => create(seen)?,
        Turn::Look => look(seen)?,
        Turn::Delete => delete(seen.content)?,
        Turn::Unmark => Next::Unmark,
        Turn::Release => Next::Release,
    })
}

fn stage(content: &VolumeGroupSnapshotContent) -> Stage {
    let meta = &content.metadata;
    let mut finalizers = meta.finalizers.iter().flatten();
    Stage {
        is_static: content.spec.source.group_snapshot_handles.is_some(),
        is_bound: content.is_bound(),
        is_going: meta.deletion_timestamp.is_some(),
        is_protected: finalizers.any(|held| held == keys::GROUP_SNAPSHOT_CONTENT_BOUND_PROTECTION),
        is_being_created: content.is_being_created(),
        is_being_deleted: content.is_being_deleted(),
        has_handle: content.handle().is_some(),
        is_ready: content.is_ready(),
        takes_backend_along: content.is_deleting_backend(),
    }
}

fn tokens(content: &VolumeGroupSnapshotContent) -> SnapshotTokens<'_> {
    SnapshotTokens::of_content(NOUN, &content.metadata, &content.spec.volume_group_snapshot_ref)
}

fn create(seen: &Seen<'_>) -> Result<Next, Refusal> {
    let content = seen.content;
    let named = content.spec.volume_group_snapshot_class_name.as_ref();
    let name = named.ok_or(Refusal::NoClassNamed)?;
    let class = seen.class.ok_or_else(|| Refusal::NoClass(name.clone()))?;
    let tokens = tokens(content);
    let mut parameters = for_driver(class.parameters.iter().flatten())?;
    if seen.config.extra_create_metadata {
        for (key, value) in [
            (METADATA_GROUP_NAME, tokens.name),
            (METADATA_GROUP_NAMESPACE, tokens.namespace),
            (METADATA_CONTENT_NAME, tokens.content_name),
        ] {
            parameters.insert(key.to_string(), value.to_string());
        }
    }
    let uid = content.spec.volume_group_snapshot_ref.uid.as_deref();
    let request = CreateVolumeGroupSnapshotRequest {
        name: seen.config.group_snapshot_name(uid.unwrap_or_default()),
        source_volume_ids: content.volume_handles().to_vec(),
        secrets: HashMap::new(),
        parameters,
    };
    let secret = class.secret(SnapshotSecret::GroupSnapshotter, &tokens)?;
    Ok(Next::Create(Call::boxed(request, secret)))
}

fn look(seen: &Seen<'_>) -> Result<Next, Refusal> {
    let content = seen.content;
    let handles = content
        .spec
        .source
        .group_snapshot_handles
        .clone()
        .unwrap_or_default();
    let named = content.spec.volume_group_snapshot_class_name.as_ref();
    let secret = match (named, seen.class) {
        (Some(_), Some(class)) => class.secret(SnapshotSecret::GroupGet, &tokens(content))?,
        (Some(name), None) => return Err(Refusal::NoClass(name.clone())),
        // A content made by hand needs no class.
        (None, _) => None,
    };
    let request = GetVolumeGroupSnapshotRequest {
        group_snapshot_id: handles.volume_group_snapshot_handle,
        snapshot_ids: handles.volume_snapshot_handles,
        secrets: HashMap::new(),
    };
    Ok(Next::Look(Call::boxed(request, secret)))
}

fn delete(content: &VolumeGroupSnapshotContent) -> Result<Next, Refusal> {
    let made = content
        .members()
        .iter()
        .filter_map(|member| member.snapshot_handle.clone());
    let mut snapshot_ids: Vec<_> = made.collect();
    if snapshot_ids.is_empty() {
        let handles = content.spec.source.group_snapshot_handles.as_ref();
        snapshot_ids = handles.map_or(Vec::new(), |handles| handles.volume_snapshot_handles.clone());
    }
    if snapshot_ids.is_empty() {
        return Err(Refusal::NoMembers);
    }
    let request = DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: content.handle().unwrap_or_default().to_string(),
        snapshot_ids,
        secrets: HashMap::new(),
    };
    Ok(Next::Delete(Call::boxed(request, own_deletion_secret(content))))
}

fn own_deletion_secret(content: &VolumeGroupSnapshotContent) -> Option<SecretReference> {
    let keys = [
        keys::GROUP_SNAPSHOT_DELETION_SECRET_NAME,
        keys::GROUP_SNAPSHOT_DELETION_SECRET_NAMESPACE,
    ];
    deletion_secret(&content.metadata, keys)
}

#[cfg(test)]
mod tests;

//! What to do next about one VolumeSnapshotContent. Pure; [`super::stage`] draws the order of things.

use std::collections::HashMap;

use moorline_model::snapshot::{
    NOUN, SnapshotSecret, SnapshotTokens, VolumeSnapshotClass, VolumeSnapshotContent, class_secret,
};
use moorline_model::{keys, mutant};
use moorline_proto::csi::{CreateSnapshotRequest, DeleteSnapshotRequest, ListSnapshotsRequest};

use super::SnapshotterConfig;
use super::kind::{self, Call, Refusal, deletion_secret, for_driver, is_of_node};
use super::stage::{Stage, Turn, turn};
use crate::discovery::{ControllerCapability, DriverFacts};

const METADATA_SNAPSHOT_NAME: &str = "csi.storage.k8s.io/volumesnapshot/name";
const METADATA_SNAPSHOT_NAMESPACE: &str = "csi.storage.k8s.io/volumesnapshot/namespace";
const METADATA_CONTENT_NAME: &str = "csi.storage.k8s.io/volumesnapshotcontent/name";

/// Everything the decision rests on.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) content: &'a VolumeSnapshotContent,
    /// The class that it names.
    pub(crate) class: Option<&'a VolumeSnapshotClass>,
    pub(crate) driver: &'a DriverFacts,
    pub(crate) config: &'a SnapshotterConfig,
}

/// The answer.
pub(crate) type Next = kind::Next<CreateSnapshotRequest, ListSnapshotsRequest, DeleteSnapshotRequest>;

/// Decides.
pub(crate) fn decide(seen: &Seen<'_>) -> Next {
    let content = seen.content;
    let source = &content.spec.source;
    let is_ours =
        content.spec.driver == seen.driver.driver_name && is_of_node(&content.metadata, seen.config);
    let is_foreign = seen
        .class
        .is_some_and(|class| class.driver != content.spec.driver);
    if !is_ours || is_foreign || source.volume_handle.is_some() == source.snapshot_handle.is_some() {
        // What is wrong with one of ours the snapshot controller tells users.
        return Next::Settled;
    }
    next(seen).unwrap_or_else(Next::Refuse)
}

fn next(seen: &Seen<'_>) -> Result<Next, Refusal> {
    let content = seen.content;
    let is_going = content.metadata.deletion_timestamp.is_some();
    let is_member = content.is_in_group() && content.spec.source.snapshot_handle.is_none() && !is_going;
    Ok(match turn(stage(content)) {
        Turn::Settled => Next::Settled,
        // Created as a part of its group; the group's answer tells its handle.
        Turn::MarkBeingCreated | Turn::Create if is_member => match content.handle() {
            Some(handle) if seen.driver.can(ControllerCapability::ListSnapshots) => look(handle, seen)?,
            // Nobody but the group's answer says how it is.
            Some(_) | None => Next::Settled,
        },
        Turn::MarkBeingCreated if !mutant::is_on("no-snapshot-mark") => {
            // What can't be asked for leaves no mark.
            create(seen)?;
            Next::MarkBeingCreated
        }
        Turn::MarkBeingCreated | Turn::Create => create(seen)?,
        Turn::Look => look(
            content.spec.source.snapshot_handle.as_deref().unwrap_or_default(),
            seen,
        )?,
        Turn::Delete => {
            let request = DeleteSnapshotRequest {
                snapshot_id: content.handle().unwrap_or_default().to_string(),
                secrets: HashMap::new(),
            };
            Next::Delete(Call::boxed(request, own_deletion_secret(content)))
        }
        Turn::Unmark => Next::Unmark,
        Turn::Release => Next::Release,
    })
}

fn stage(content: &VolumeSnapshotContent) -> Stage {
    let meta = &content.metadata;
    let uid = content.spec.volume_snapshot_ref.uid.as_deref();
    let status = content.status.as_ref();
    let mut finalizers = meta.finalizers.iter().flatten();
    Stage {
        is_static: content.spec.source.snapshot_handle.is_some(),
        is_bound: uid.is_some_and(|uid| !uid.is_empty()),
        is_going: meta.deletion_timestamp.is_some(),
        is_protected: finalizers.any(|held| held == keys::SNAPSHOT_CONTENT_BOUND_PROTECTION),
        is_being_created: content.is_being_created(),
        is_being_deleted: content.is_being_deleted(),
        has_handle: content.handle().is_some(),
        is_ready: status.and_then(|status| status.ready_to_use) == Some(true),
        // A member goes with its group.
        takes_backend_along: (content.is_deleting_backend() || mutant::is_on("delete-kept-snapshot"))
            && !content.is_in_group(),
    }
}

fn own_deletion_secret(
    content: &VolumeSnapshotContent,
) -> Option<k8s_openapi::api::core::v1::SecretReference> {
    let keys = [
        keys::SNAPSHOT_DELETION_SECRET_NAME,
        keys::SNAPSHOT_DELETION_SECRET_NAMESPACE,
    ];
    deletion_secret(&content.metadata, keys)
}

fn tokens(content: &VolumeSnapshotContent) -> SnapshotTokens<'_> {
    SnapshotTokens::of_content(NOUN, &content.metadata, &content.spec.volume_snapshot_ref)
}

fn create(seen: &Seen<'_>) -> Result<Next, Refusal> {
    let content = seen.content;
    let named = content.spec.volume_snapshot_class_name.as_ref();
    let name = named.ok_or(Refusal::NoClassNamed)?;
    let class = seen.class.ok_or_else(|| Refusal::NoClass(name.clone()))?;
    let tokens = tokens(content);
    let mut parameters = for_driver(class.parameters.iter().flatten())?;
    if seen.config.extra_create_metadata {
        for (key, value) in [
            (METADATA_SNAPSHOT_NAME, tokens.name),
            (METADATA_SNAPSHOT_NAMESPACE, tokens.namespace),
            (METADATA_CONTENT_NAME, tokens.content_name),
        ] {
            parameters.insert(key.to_string(), value.to_string());
        }
    }
    let uid = content
        .spec
        .volume_snapshot_ref
        .uid
        .as_deref()
        .unwrap_or_default();
    let request = CreateSnapshotRequest {
        source_volume_id: content.spec.source.volume_handle.clone().unwrap_or_default(),
        name: seen.config.snapshot_name(uid),
        secrets: HashMap::new(),
        parameters,
    };
    let secret = class_secret(class, SnapshotSecret::Snapshotter, &tokens)?;
    Ok(Next::Create(Call::boxed(request, secret)))
}

fn look(handle: &str, seen: &Seen<'_>) -> Result<Next, Refusal> {
    if !seen.driver.can(ControllerCapability::ListSnapshots) {
        return Ok(Next::AssumeReady {
            handle: handle.to_string(),
        });
    }
    let content = seen.content;
    // A content made by hand needs no class; one that is named is looked into for the secret.
    let secret = match seen.class {
        Some(class) => class_secret(class, SnapshotSecret::List, &tokens(content))?,
        None if content.is_in_group() => own_deletion_secret(content),
        None => None,
    };
    let request = ListSnapshotsRequest {
        snapshot_id: handle.to_string(),
        ..Default::default()
    };
    Ok(Next::Look(Call::boxed(request, secret)))
}

#[cfg(test)]
mod tests;

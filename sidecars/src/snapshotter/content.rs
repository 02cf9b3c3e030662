//! What to do next about one VolumeSnapshotContent. Pure.
//!
//! ```text
//!   dynamic:  MarkBeingCreated -> Create -> (not ready: Create again) -> Unmark -> Settled
//!   static:   Look (ListSnapshots), or AssumeReady where the driver can't list -> Settled
//!   deleted:  Delete (policy Delete) -> Release -> object gone
//!             while marked: Create first, until there is a final answer
//! ```

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::SecretReference;
use moorline_model::claim::annotation;
use moorline_model::secret_template::TemplateError;
use moorline_model::snapshot::{
    PARAMETER_PREFIX, SnapshotSecret, SnapshotTokens, VolumeSnapshotClass, VolumeSnapshotContent,
    class_secret,
};
use moorline_model::{keys, mutant};
use moorline_proto::csi::{CreateSnapshotRequest, DeleteSnapshotRequest, ListSnapshotsRequest};

use super::SnapshotterConfig;
use crate::discovery::{ControllerCapability, DriverFacts};

const METADATA_SNAPSHOT_NAME: &str = "csi.storage.k8s.io/volumesnapshot/name";
const METADATA_SNAPSHOT_NAMESPACE: &str = "csi.storage.k8s.io/volumesnapshot/namespace";
const METADATA_CONTENT_NAME: &str = "csi.storage.k8s.io/volumesnapshotcontent/name";
/// A snapshot that isn't ready is looked at again within these bounds.
const POLL_MIN: Duration = Duration::from_secs(1);
const POLL_MAX: Duration = Duration::from_secs(15);

/// Everything the decision rests on.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    /// `None` if it is gone.
    pub(crate) content: Option<&'a VolumeSnapshotContent>,
    /// The class that it names.
    pub(crate) class: Option<&'a VolumeSnapshotClass>,
    pub(crate) driver: &'a DriverFacts,
    pub(crate) config: &'a SnapshotterConfig,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    Settled,
    /// Before the driver is asked: a snapshot may exist from here on.
    MarkBeingCreated,
    Create(Box<Call<CreateSnapshotRequest>>),
    /// How an existing snapshot is.
    Look(Box<Call<ListSnapshotsRequest>>),
    /// The driver can't say how snapshots are.
    AssumeReady {
        handle: String,
    },
    Delete(Box<Call<DeleteSnapshotRequest>>),
    /// The mark of a creation that has ended.
    Unmark,
    /// Our finalizer goes, and the object with it.
    Release,
    Refuse(Refusal),
}

/// A call of the driver, but for the content of the secret.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call<R> {
    pub(crate) request: R,
    pub(crate) secret: Option<SecretReference>,
}

/// Why nothing can be asked of the driver now.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("content names no snapshot class")]
    NoClassNamed,
    #[error("snapshot class {0:?} not found")]
    NoClass(String),
    #[error("snapshot class parameter {0:?} is unknown; the prefix {PARAMETER_PREFIX:?} is reserved")]
    Parameter(String),
    #[error(transparent)]
    Secret(#[from] TemplateError),
}

/// Decides.
pub(crate) fn decide(seen: &Seen<'_>) -> Next {
    let Some(content) = seen
        .content
        .filter(|content| content.spec.driver == seen.driver.driver_name && is_of_node(content, seen.config))
    else {
        return Next::Settled;
    };
    let source = &content.spec.source;
    let is_foreign = seen
        .class
        .is_some_and(|class| class.driver != content.spec.driver);
    if is_foreign || source.volume_handle.is_some() == source.snapshot_handle.is_some() {
        // The snapshot controller tells users what is wrong.
        return Next::Settled;
    }
    let next = match content.metadata.deletion_timestamp {
        Some(_) => delete(content, seen),
        None => advance(content, seen),
    };
    next.unwrap_or_else(Next::Refuse)
}

/// Whether this snapshotter is the one for the content's node.
fn is_of_node(content: &VolumeSnapshotContent, config: &SnapshotterConfig) -> bool {
    let Some(node_name) = &config.node_name else {
        return true;
    };
    let labels = content.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(keys::SNAPSHOT_MANAGED_BY)) == Some(node_name)
}

fn is_bound(content: &VolumeSnapshotContent) -> bool {
    let uid = content.spec.volume_snapshot_ref.uid.as_deref();
    uid.is_some_and(|uid| !uid.is_empty())
}

fn delete(content: &VolumeSnapshotContent, seen: &Seen<'_>) -> Result<Next, Refusal> {
    let finalizer = keys::SNAPSHOT_CONTENT_BOUND_PROTECTION;
    let mut finalizers = content.metadata.finalizers.iter().flatten();
    if !finalizers.any(|held| held == finalizer) {
        return Ok(Next::Settled);
    }
    let is_unbound_static = content.spec.source.snapshot_handle.is_some() && !is_bound(content);
    if content.is_being_created() && !is_unbound_static {
        // What the driver may have made is not known yet: deleting now could leave it behind.
        return match content.handle() {
            Some(_) => Ok(Next::Unmark),
            None => create(content, seen),
        };
    }
    if !content.is_being_deleted() && !is_unbound_static {
        // Its snapshot lives: data goes with the snapshot's deletion only.
        return Ok(Next::Settled);
    }
    match content.handle() {
        Some(handle)
            if (content.is_deleting_backend() || mutant::is_on("delete-kept-snapshot"))
                && !content.is_in_group() =>
        {
            Ok(Next::Delete(Box::new(Call {
                request: DeleteSnapshotRequest {
                    snapshot_id: handle.to_string(),
                    secrets: HashMap::new(),
                },
                secret: deletion_secret(content),
            })))
        }
        Some(_) | None => Ok(Next::Release),
    }
}

fn deletion_secret(content: &VolumeSnapshotContent) -> Option<SecretReference> {
    let part = |key| {
        annotation(&content.metadata, key)
            .filter(|value| !value.is_empty())
            .map(str::to_string)
    };
    let name = part(keys::SNAPSHOT_DELETION_SECRET_NAME);
    let namespace = part(keys::SNAPSHOT_DELETION_SECRET_NAMESPACE);
    (name.is_some() && namespace.is_some()).then_some(SecretReference { name, namespace })
}

fn advance(content: &VolumeSnapshotContent, seen: &Seen<'_>) -> Result<Next, Refusal> {
    let status = content.status.as_ref();
    if status.and_then(|status| status.ready_to_use) == Some(true) {
        return Ok(if content.is_being_created() {
            Next::Unmark
        } else {
            Next::Settled
        });
    }
    if let Some(handle) = &content.spec.source.snapshot_handle {
        return look(content, handle, seen);
    }
    if content.is_in_group() {
        // Created as a part of its group; the group's answer tells its handle.
        return content
            .handle()
            .map_or(Ok(Next::Settled), |handle| look(content, handle, seen));
    }
    if content.handle().is_none() && !content.is_being_created() && !mutant::is_on("no-snapshot-mark") {
        // What can't be asked for leaves no mark.
        create(content, seen)?;
        return Ok(Next::MarkBeingCreated);
    }
    // Asking again for one that exists tells how it is.
    create(content, seen)
}

fn tokens(content: &VolumeSnapshotContent) -> SnapshotTokens<'_> {
    let reference = &content.spec.volume_snapshot_ref;
    SnapshotTokens {
        content_name: content.metadata.name.as_deref().unwrap_or_default(),
        namespace: reference.namespace.as_deref().unwrap_or_default(),
        name: reference.name.as_deref().unwrap_or_default(),
    }
}

fn create(content: &VolumeSnapshotContent, seen: &Seen<'_>) -> Result<Next, Refusal> {
    let named = content.spec.volume_snapshot_class_name.as_ref();
    let name = named.ok_or(Refusal::NoClassNamed)?;
    let class = seen.class.ok_or_else(|| Refusal::NoClass(name.clone()))?;
    let tokens = tokens(content);
    let mut parameters = for_driver(class)?;
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
    Ok(Next::Create(Box::new(Call {
        request: CreateSnapshotRequest {
            source_volume_id: content.spec.source.volume_handle.clone().unwrap_or_default(),
            name: seen.config.snapshot_name(uid),
            secrets: HashMap::new(),
            parameters,
        },
        secret: class_secret(class, SnapshotSecret::Snapshotter, &tokens)?,
    })))
}

fn for_driver(class: &VolumeSnapshotClass) -> Result<HashMap<String, String>, Refusal> {
    let mut known = vec![
        "csi.storage.k8s.io/group-snapshotter-secret-name",
        "csi.storage.k8s.io/group-snapshotter-secret-namespace",
    ];
    for secret_use in [SnapshotSecret::Snapshotter, SnapshotSecret::List] {
        let keys = secret_use.keys();
        known.extend([keys.0, keys.1]);
    }
    let mut parameters = HashMap::new();
    for (key, value) in class.parameters.iter().flatten() {
        if !key.starts_with(PARAMETER_PREFIX) {
            parameters.insert(key.clone(), value.clone());
        } else if !known.contains(&key.as_str()) {
            return Err(Refusal::Parameter(key.clone()));
        }
    }
    Ok(parameters)
}

fn look(content: &VolumeSnapshotContent, handle: &str, seen: &Seen<'_>) -> Result<Next, Refusal> {
    if !seen.driver.can(ControllerCapability::ListSnapshots) {
        return Ok(Next::AssumeReady {
            handle: handle.to_string(),
        });
    }
    // A content made by hand needs no class; one that is named is looked into for the secret.
    let secret = match seen.class {
        Some(class) => class_secret(class, SnapshotSecret::List, &tokens(content))?,
        None if content.is_in_group() => deletion_secret(content),
        None => None,
    };
    Ok(Next::Look(Box::new(Call {
        request: ListSnapshotsRequest {
            snapshot_id: handle.to_string(),
            ..Default::default()
        },
        secret,
    })))
}

/// How long until a snapshot that isn't ready is looked at again: a quarter of its age, so that short work is noticed
/// soon and long work isn't asked for all the time.
pub(crate) fn poll_interval(content: &VolumeSnapshotContent, now: Timestamp) -> Duration {
    let made = content.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let age = made
        .and_then(|made| Duration::try_from(now.duration_since(made)).ok())
        .unwrap_or_default();
    (age / 4).clamp(POLL_MIN, POLL_MAX)
}

#[cfg(test)]
mod tests;

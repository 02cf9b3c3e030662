//! Where a new volume's content comes from: nothing, another claim's volume (a clone) or a snapshot (a restore). Pure.
//!
//! Sources in other namespaces need a grant there (`grants`). Any other kind is left to an external populator.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use moorline_model::claim::annotation;
use moorline_model::quantity::Amount;
use moorline_model::snapshot::{self, VolumeSnapshot, VolumeSnapshotContent};
use moorline_model::{claim, keys, volume};
use moorline_proto::csi::VolumeContentSource;
use moorline_proto::csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
use serde::{Deserialize, Serialize};

use super::config::ProvisionerConfig;
use crate::discovery::{ControllerCapability, DriverFacts};

/// The source that a claim names, with what is known of it.
#[derive(Clone, Debug)]
pub(crate) enum Source<'a> {
    None,
    /// Another claim, and the PV that it is bound to.
    Claim {
        name: String,
        claim: Option<&'a PersistentVolumeClaim>,
        pv: Option<&'a PersistentVolume>,
    },
    /// A snapshot, and the content that it names.
    Snapshot {
        name: String,
        snapshot: Option<&'a VolumeSnapshot>,
        content: Option<&'a VolumeSnapshotContent>,
    },
    /// The API server couldn't be asked for it.
    Unreadable(String),
    /// Something in another namespace, which is not asked for here.
    Unsupported(String),
    /// Something in another namespace, whose owner doesn't allow it.
    NotGranted(SourceKey),
    ForPopulator,
}

/// A source that can't be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("data source {0} is not supported by this provisioner")]
    Unsupported(String),
    #[error(
        "data source {0} may not be used from this namespace: no ReferenceGrant in namespace {namespace:?} allows it",
        namespace = .0.namespace
    )]
    NotGranted(SourceKey),
    #[error("data source can't be read: {0}")]
    Unreadable(String),
    #[error("CSI driver can't clone volumes: it lacks CLONE_VOLUME")]
    CannotClone,
    #[error("CSI driver can't restore snapshots: it lacks CREATE_DELETE_SNAPSHOT")]
    CannotRestore,
    #[error("source claim {name:?} can't be cloned: {why}")]
    NotUsable { name: String, why: &'static str },
    #[error("snapshot {name:?} can't be restored: {why}")]
    NotRestorable { name: String, why: &'static str },
}

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum SourceKind {
    #[serde(rename = "PersistentVolumeClaim")]
    Claim,
    #[serde(rename = "VolumeSnapshot")]
    Snapshot,
}

/// An object that volumes are filled from, and that stays while they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SourceKey {
    pub(crate) kind: SourceKind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl SourceKind {
    /// The API group.
    pub(crate) fn group(self) -> &'static str {
        match self {
            Self::Claim => "",
            Self::Snapshot => snapshot::GROUP,
        }
    }

    /// The kind's name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "PersistentVolumeClaim",
            Self::Snapshot => "VolumeSnapshot",
        }
    }
}

impl std::fmt::Display for SourceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// The object that the claim's volume is filled from, if it is one that this provisioner serves.
pub(crate) fn key_of(claim: &PersistentVolumeClaim) -> Option<SourceKey> {
    let (kind, name) = match named(claim) {
        Named::Claim(name) => (SourceKind::Claim, name),
        Named::Snapshot(name) => (SourceKind::Snapshot, name),
        Named::Elsewhere(key) => return Some(key),
        Named::None | Named::ForPopulator => return None,
    };
    let namespace = claim.metadata.namespace.clone().unwrap_or_default();
    Some(SourceKey {
        kind,
        namespace,
        name,
    })
}

/// What kind of source the claim names; the name is returned with it.
pub(crate) fn named(claim: &PersistentVolumeClaim) -> Named {
    let Some(spec) = &claim.spec else {
        return Named::None;
    };
    let (group, kind, name, namespace) = match (&spec.data_source, &spec.data_source_ref) {
        // The API server keeps both alike, but only the second one can name a namespace.
        (_, Some(source)) => (
            source.api_group.clone(),
            source.kind.clone(),
            source.name.clone(),
            source.namespace.clone(),
        ),
        (Some(source), None) => (
            source.api_group.clone(),
            source.kind.clone(),
            source.name.clone(),
            None,
        ),
        (None, None) => return Named::None,
    };
    let elsewhere = namespace
        .filter(|namespace| !namespace.is_empty() && Some(namespace) != claim.metadata.namespace.as_ref());
    let kind = match (group.as_deref().unwrap_or_default(), kind.as_str()) {
        ("", "PersistentVolumeClaim") => SourceKind::Claim,
        (snapshot::GROUP, "VolumeSnapshot") => SourceKind::Snapshot,
        _ => return Named::ForPopulator,
    };
    match (elsewhere, kind) {
        (Some(namespace), kind) => Named::Elsewhere(SourceKey {
            kind,
            namespace,
            name,
        }),
        (None, SourceKind::Claim) => Named::Claim(name),
        (None, SourceKind::Snapshot) => Named::Snapshot(name),
    }
}

/// Answer of [`named`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    None,
    Claim(String),
    Snapshot(String),
    /// In another namespace.
    Elsewhere(SourceKey),
    ForPopulator,
}

/// What `CreateVolume` is told of the source.
pub(crate) fn content_source(
    source: &Source<'_>,
    target: &PersistentVolumeClaim,
    (driver, config): (&DriverFacts, &ProvisionerConfig),
) -> Result<Option<VolumeContentSource>, SourceError> {
    match source {
        Source::None | Source::ForPopulator => Ok(None),
        Source::Unsupported(what) => Err(SourceError::Unsupported(what.clone())),
        Source::NotGranted(key) => Err(SourceError::NotGranted(key.clone())),
        Source::Unreadable(why) => Err(SourceError::Unreadable(why.clone())),
        Source::Snapshot { .. } if !driver.can(ControllerCapability::CreateDeleteSnapshot) => {
            Err(SourceError::CannotRestore)
        }
        Source::Snapshot {
            name,
            snapshot,
            content,
        } => {
            let not_restorable = |why| SourceError::NotRestorable {
                name: name.clone(),
                why,
            };
            let snapshot_id =
                restore_handle(*snapshot, *content, target, &driver.driver_name).map_err(not_restorable)?;
            if config.prevent_volume_mode_conversion {
                content
                    .map_or(Ok(()), |content| check_mode(content, target))
                    .map_err(not_restorable)?;
            }
            Ok(Some(VolumeContentSource {
                r#type: Some(Type::Snapshot(SnapshotSource { snapshot_id })),
            }))
        }
        Source::Claim { .. } if !driver.can(ControllerCapability::CloneVolume) => {
            Err(SourceError::CannotClone)
        }
        Source::Claim { name, claim, pv } => {
            let not_usable = |why| SourceError::NotUsable {
                name: name.clone(),
                why,
            };
            let volume_id = clone_handle(*claim, *pv, target, &driver.driver_name).map_err(not_usable)?;
            Ok(Some(VolumeContentSource {
                r#type: Some(Type::Volume(VolumeSource { volume_id })),
            }))
        }
    }
}

fn clone_handle(
    source: Option<&PersistentVolumeClaim>,
    pv: Option<&PersistentVolume>,
    target: &PersistentVolumeClaim,
    driver_name: &str,
) -> Result<String, &'static str> {
    let source = source.ok_or("it doesn't exist")?;
    if claim::phase(source) != Some(claim::ClaimPhase::Bound) {
        return Err("it is not bound");
    }
    // A clone that has begun goes on: our finalizer keeps the claim until then, and waits for the clone.
    if source.metadata.deletion_timestamp.is_some() && !is_held(&source.metadata, keys::CLONING_PROTECTION) {
        return Err("it is being deleted");
    }
    if claim::class_name(source).is_empty() {
        return Err("it has no storage class");
    }
    let size = |claim: &PersistentVolumeClaim| claim::requested_storage(claim).unwrap_or(Amount::ZERO);
    if size(target) < size(source) {
        return Err("it requests more storage than the new claim");
    }
    if claim::is_block(source) != claim::is_block(target) {
        return Err("its volume mode differs");
    }
    let pv = pv.ok_or("its volume doesn't exist")?;
    let csi = pv
        .spec
        .as_ref()
        .and_then(|spec| spec.csi.as_ref())
        .ok_or("its volume is not a CSI volume")?;
    if csi.driver != driver_name {
        return Err("its volume belongs to another driver");
    }
    if !volume::is_linked_to(pv, source) || volume::phase(pv) != volume::PvPhase::Bound {
        return Err("its volume is not bound to it");
    }
    Ok(csi.volume_handle.clone())
}

fn restore_handle(
    snapshot: Option<&VolumeSnapshot>,
    content: Option<&VolumeSnapshotContent>,
    target: &PersistentVolumeClaim,
    driver_name: &str,
) -> Result<String, &'static str> {
    let snapshot = snapshot.ok_or("it doesn't exist")?;
    let is_protected = is_held(
        &snapshot.metadata,
        keys::SNAPSHOT_SOURCE_PROTECTION_BY_PROVISIONER,
    );
    // A restore that has begun goes on: our finalizer keeps the snapshot until then.
    if snapshot.metadata.deletion_timestamp.is_some() && !is_protected {
        return Err("it is being deleted");
    }
    snapshot
        .bound_content()
        .ok_or("it is not bound to a content yet")?;
    let content = content.ok_or("its content doesn't exist")?;
    if !content.points_to(snapshot) {
        return Err("its content is not bound to it");
    }
    if content.spec.driver != driver_name {
        return Err("it belongs to another driver");
    }
    if !snapshot.is_ready() {
        return Err("it is not ready to use yet");
    }
    let handle = content.handle().ok_or("its content has no handle")?;
    let restore_size = snapshot
        .status
        .as_ref()
        .and_then(|status| status.restore_size.as_ref());
    if let Some(size) = restore_size {
        let size = Amount::try_from(size).map_err(|_| "its restore size is not a quantity")?;
        let requested = claim::requested_storage(target).unwrap_or(Amount::ZERO);
        if requested < size {
            return Err("it needs more storage than the new claim requests");
        }
    }
    Ok(handle.to_string())
}

fn is_held(metadata: &ObjectMeta, finalizer: &str) -> bool {
    metadata.finalizers.iter().flatten().any(|held| held == finalizer)
}

/// A filesystem restored as a block device, or the other way round, can do harm: an admin has to allow it.
fn check_mode(content: &VolumeSnapshotContent, target: &PersistentVolumeClaim) -> Result<(), &'static str> {
    let is_block = content
        .spec
        .source_volume_mode
        .as_ref()
        .map(|mode| mode == "Block");
    let may_change = annotation(&content.metadata, keys::ALLOW_VOLUME_MODE_CHANGE)
        .is_some_and(|value| matches!(value, "true" | "True" | "TRUE" | "t" | "T" | "1"));
    if is_block.is_some_and(|is_block| is_block != claim::is_block(target)) && !may_change {
        return Err(
            "its volume mode differs, and its content lacks the annotation snapshot.storage.kubernetes.io/allow-volume-mode-change",
        );
    }
    Ok(())
}

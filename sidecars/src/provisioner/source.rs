//! Where a new volume's content comes from: nothing, or another claim's volume (a clone). Pure.
//!
//! Snapshots are not served yet. Any other kind is left to an external populator.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use moorline_model::quantity::Amount;
use moorline_model::{claim, volume};
use moorline_proto::csi::VolumeContentSource;
use moorline_proto::csi::volume_content_source::{Type, VolumeSource};

use crate::discovery::{ControllerCapability, DriverFacts};

/// The source that a claim names, with what is known of it.
#[derive(Clone, Debug)]
pub(crate) enum Source<'a> {
    None,
    /// Another claim of the same namespace, and the PV that it is bound to.
    Claim {
        name: String,
        claim: Option<&'a PersistentVolumeClaim>,
        pv: Option<&'a PersistentVolume>,
    },
    /// A snapshot, or a claim in another namespace.
    Unsupported(String),
    ForPopulator,
}

/// A source that can't be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("data source {0} is not supported by this provisioner")]
    Unsupported(String),
    #[error("CSI driver can't clone volumes: it lacks CLONE_VOLUME")]
    CannotClone,
    #[error("source claim {name:?} can't be cloned: {why}")]
    NotUsable { name: String, why: &'static str },
}

/// What kind of source the claim names; the name is returned with it.
pub(crate) fn named(claim: &PersistentVolumeClaim) -> Named {
    let Some(spec) = &claim.spec else {
        return Named::None;
    };
    let (group, kind, name, namespace) = match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), _) => (
            source.api_group.clone(),
            source.kind.clone(),
            source.name.clone(),
            None,
        ),
        (None, Some(source)) => (
            source.api_group.clone(),
            source.kind.clone(),
            source.name.clone(),
            source.namespace.clone(),
        ),
        (None, None) => return Named::None,
    };
    let is_elsewhere = namespace.is_some_and(|namespace| Some(namespace) != claim.metadata.namespace);
    match (group.as_deref().unwrap_or_default(), kind.as_str()) {
        ("", "PersistentVolumeClaim") if !is_elsewhere => Named::Claim(name),
        ("", "PersistentVolumeClaim") => Named::Unsupported(format!("{kind} {name} in another namespace")),
        ("snapshot.storage.k8s.io", "VolumeSnapshot") => Named::Unsupported(format!("{kind} {name}")),
        _ => Named::ForPopulator,
    }
}

/// Answer of [`named`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    None,
    Claim(String),
    Unsupported(String),
    ForPopulator,
}

/// What `CreateVolume` is told of the source.
pub(crate) fn content_source(
    source: &Source<'_>,
    target: &PersistentVolumeClaim,
    driver: &DriverFacts,
) -> Result<Option<VolumeContentSource>, SourceError> {
    match source {
        Source::None | Source::ForPopulator => Ok(None),
        Source::Unsupported(what) => Err(SourceError::Unsupported(what.clone())),
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
    if source.metadata.deletion_timestamp.is_some() {
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

//! What to do next about one PV that is, or was, in use: keep its finalizer right, delete its volume. Pure.
//!
//! ```text
//!   Bound, policy Delete, finalizer missing --------> AddFinalizer
//!   policy Retain or Recycle, finalizer there ------> RemoveFinalizer
//!   Released, policy Delete, still attached --------> Refuse (event, backoff; the attachment's end requeues)
//!   Released, policy Delete, not attached ----------> Delete: DeleteVolume, delete PV, remove finalizer
//! ```

use k8s_openapi::api::core::v1::{PersistentVolume, SecretReference};
use k8s_openapi::api::storage::v1::StorageClass;
use moorline_model::claim::annotation;
use moorline_model::node_affinity::{self, NodeFacts};
use moorline_model::topology::Segments;
use moorline_model::volume::{PvPhase, ReclaimPolicy, claim_ref, phase, reclaim_policy};
use moorline_model::{keys, mutant};

use super::class_parameters::{ParameterError, SecretUse, secret_for};
use crate::discovery::{ControllerCapability, DriverFacts};
use crate::secrets::Tokens;

/// Everything the decision rests on.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    /// `None` if it is gone.
    pub(crate) pv: Option<&'a PersistentVolume>,
    /// The PV's class, for PVs without deletion-secret annotations.
    pub(crate) class: Option<&'a StorageClass>,
    /// Whether a VolumeAttachment names the PV. Looked up only if the driver attaches.
    pub(crate) is_attached: bool,
    /// One provisioner per node: where it is. Volumes elsewhere are others' business.
    pub(crate) node: Option<&'a Segments>,
    pub(crate) driver: &'a DriverFacts,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    Settled,
    AddFinalizer,
    RemoveFinalizer,
    Delete(Deletion),
    Refuse(Refusal),
}

/// A volume to delete.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Deletion {
    pub(crate) volume_id: String,
    pub(crate) secret: Option<SecretReference>,
}

/// Why a volume can't be deleted now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("persistentvolume {0} is still attached to a node")]
    Attached(String),
    #[error("CSI driver lacks CREATE_DELETE_VOLUME")]
    Incapable,
    #[error("secret for deletion has a name without namespace, or the other way round")]
    HalfSecret,
    #[error(transparent)]
    Parameters(#[from] ParameterError),
}

/// Decides.
pub(crate) fn decide(seen: &Seen<'_>) -> Next {
    let is_here = |pv: &&PersistentVolume| {
        seen.node.is_none_or(|labels| {
            let node = NodeFacts { name: "", labels };
            node_affinity::pv_fits_node(pv, node).unwrap_or(false)
        })
    };
    let ours = seen.pv.filter(|pv| is_ours(pv, &seen.driver.driver_name));
    let Some(pv) = ours.filter(is_here) else {
        return Next::Settled;
    };
    let has_finalizer = pv
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == keys::PROVISIONER_FINALIZER);
    let is_deleting = pv.metadata.deletion_timestamp.is_some();
    match (reclaim_policy(pv), phase(pv), has_finalizer, is_deleting) {
        (Some(ReclaimPolicy::Retain), PvPhase::Released, _, _) if mutant::is_on("delete-retained") => {
            delete(pv, seen)
        }
        (_, PvPhase::Bound, _, _) if mutant::is_on("no-pv-finalizer") => Next::Settled,
        // The user keeps the volume: nothing of ours may hold the object.
        (Some(ReclaimPolicy::Retain | ReclaimPolicy::Recycle), _, true, _) => Next::RemoveFinalizer,
        (Some(ReclaimPolicy::Retain | ReclaimPolicy::Recycle) | None, _, _, _) => Next::Settled,
        // Whoever deletes the PV now shall still get its volume deleted.
        (Some(ReclaimPolicy::Delete), PvPhase::Bound, false, false) => Next::AddFinalizer,
        // Our part is done, others still hold the object.
        (Some(ReclaimPolicy::Delete), _, false, true) => Next::Settled,
        (Some(ReclaimPolicy::Delete), PvPhase::Released, _, _) => delete(pv, seen),
        // In use, or not used yet.
        (Some(ReclaimPolicy::Delete), PvPhase::Bound | PvPhase::Available | PvPhase::Pending, _, _) => {
            Next::Settled
        }
        // Somebody else's reclaim failed; that one retries.
        (Some(ReclaimPolicy::Delete), PvPhase::Failed, _, _) => Next::Settled,
    }
}

fn is_ours(pv: &PersistentVolume, driver_name: &str) -> bool {
    let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    let is_of_driver = csi.is_some_and(|csi| csi.driver == driver_name);
    match annotation(&pv.metadata, keys::PROVISIONED_BY) {
        Some(provisioner) => provisioner == driver_name && is_of_driver,
        None => is_of_driver,
    }
}

fn delete(pv: &PersistentVolume, seen: &Seen<'_>) -> Next {
    if !seen.driver.can(ControllerCapability::CreateDeleteVolume) {
        return Next::Refuse(Refusal::Incapable);
    }
    if seen.is_attached {
        return Next::Refuse(Refusal::Attached(pv.metadata.name.clone().unwrap_or_default()));
    }
    let volume_id = pv
        .spec
        .as_ref()
        .and_then(|spec| spec.csi.as_ref())
        .map(|csi| csi.volume_handle.clone());
    match secret(pv, seen.class) {
        Ok(secret) => Next::Delete(Deletion {
            volume_id: volume_id.unwrap_or_default(),
            secret,
        }),
        Err(refusal) => Next::Refuse(refusal),
    }
}

fn secret(pv: &PersistentVolume, class: Option<&StorageClass>) -> Result<Option<SecretReference>, Refusal> {
    let name = annotation(&pv.metadata, keys::DELETION_SECRET_NAME);
    let namespace = annotation(&pv.metadata, keys::DELETION_SECRET_NAMESPACE);
    match (name, namespace) {
        (Some(""), Some("")) => Ok(None),
        (Some(""), Some(_)) | (Some(_), Some("")) => Err(Refusal::HalfSecret),
        (Some(name), Some(namespace)) => Ok(Some(SecretReference {
            name: Some(name.into()),
            namespace: Some(namespace.into()),
        })),
        (None, _) | (_, None) => {
            let Some(parameters) = class.and_then(|class| class.parameters.as_ref()) else {
                return Ok(None);
            };
            let claim = claim_ref(pv);
            let tokens = Tokens {
                pv_name: pv.metadata.name.as_deref().unwrap_or_default(),
                claim_namespace: claim
                    .and_then(|claim| claim.namespace.as_deref())
                    .unwrap_or_default(),
                claim_name: claim.and_then(|claim| claim.name.as_deref()).unwrap_or_default(),
                claim_annotations: None,
            };
            Ok(secret_for(SecretUse::Provisioner, parameters, &tokens)?)
        }
    }
}

#[cfg(test)]
mod tests;

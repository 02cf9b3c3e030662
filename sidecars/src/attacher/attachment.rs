//! What to do next about one VolumeAttachment, and about a PV that attachments hold. Pure.
//!
//! ```text
//!   trivial:  not attached --------------------------------------------> MarkAttached
//!   real:     HoldPv -> Prepare (finalizer, node id) -> Publish -------> status.attached
//!             deleted: Unpublish -> finalizer removed -> object gone
//! ```

use k8s_openapi::api::core::v1::{PersistentVolume, SecretReference};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use moorline_model::access_mode::CombinationError;
use moorline_model::claim::annotation;
use moorline_model::{keys, mutant};
use moorline_proto::csi::{ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest};

use crate::capability::of_pv;
use crate::discovery::{ControllerCapability, DriverFacts, PluginService};

/// Everything the decision rests on.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    /// `None` if it is gone.
    pub(crate) attachment: Option<&'a VolumeAttachment>,
    /// The PV that it names.
    pub(crate) pv: Option<&'a PersistentVolume>,
    /// The driver's id of the node, from its CSINode.
    pub(crate) node_id: Option<String>,
    pub(crate) driver: &'a DriverFacts,
    pub(crate) default_fs_type: &'a str,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    Settled,
    /// The driver doesn't attach: say that it is done.
    MarkAttached,
    /// The PV must outlive the attachment: finalizer on the PV.
    HoldPv,
    /// Finalizer and node id on the attachment, before the driver hears of it.
    Prepare {
        node_id: String,
    },
    Publish(Box<Publication>),
    Unpublish(Box<Unpublication>),
    /// Written into the attachment's status.
    Refuse(Refusal),
}

/// A call of `ControllerPublishVolume`, but for the content of the secret.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Publication {
    pub(crate) request: ControllerPublishVolumeRequest,
    pub(crate) secret: Option<SecretReference>,
}

/// A call of `ControllerUnpublishVolume`, but for the content of the secret.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unpublication {
    pub(crate) request: ControllerUnpublishVolumeRequest,
    pub(crate) secret: Option<SecretReference>,
}

/// Why nothing can be asked of the driver now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("attachment names no persistent volume; inline volumes of in-tree plugins are not supported")]
    NoPvName,
    #[error("persistentvolume {0:?} not found")]
    NoPv(String),
    #[error("persistentvolume {0:?} is marked for deletion")]
    PvDeleting(String),
    #[error("persistentvolume {0:?} is not a volume of this driver")]
    ForeignPv(String),
    #[error("CSINode {0:?} does not contain driver {1:?}")]
    NoNodeId(String, String),
    #[error(transparent)]
    AccessModes(#[from] CombinationError),
}

/// Whether the driver has anything to do for an attachment.
pub(crate) fn is_real(driver: &DriverFacts) -> bool {
    driver.has_service(PluginService::ControllerService)
        && driver.can(ControllerCapability::PublishUnpublishVolume)
}

/// Decides.
pub(crate) fn decide(seen: &Seen<'_>) -> Next {
    let Some(attachment) = seen
        .attachment
        .filter(|held| held.spec.attacher == seen.driver.driver_name)
    else {
        return Next::Settled;
    };
    let is_attached = attachment.status.as_ref().is_some_and(|status| status.attached);
    let is_deleting = attachment.metadata.deletion_timestamp.is_some();
    let finalizer = keys::attacher_finalizer(&seen.driver.driver_name);
    let is_held = attachment
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|name| *name == finalizer);
    let next = match (is_real(seen.driver), is_deleting, is_attached, is_held) {
        // Not attached by us in any way: it may go.
        (_, true, _, false) | (false, true, _, _) => Ok(Next::Settled),
        (false, false, true, _) | (true, false, true, _) => Ok(Next::Settled),
        (false, false, false, _) => Ok(Next::MarkAttached),
        (true, true, _, true) => unpublish(attachment, seen),
        (true, false, false, _) => publish(attachment, is_held, seen),
    };
    next.unwrap_or_else(Next::Refuse)
}

fn publish(attachment: &VolumeAttachment, is_held: bool, seen: &Seen<'_>) -> Result<Next, Refusal> {
    let (name, pv) = named_pv(attachment, seen)?;
    if pv.metadata.deletion_timestamp.is_some() {
        return Err(Refusal::PvDeleting(name));
    }
    let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    let Some(csi) = csi.filter(|csi| csi.driver == seen.driver.driver_name) else {
        return Err(Refusal::ForeignPv(name));
    };
    let finalizer = keys::attacher_finalizer(&seen.driver.driver_name);
    let is_fine_grained = seen.driver.can(ControllerCapability::SingleNodeMultiWriter);
    let capability = of_pv(pv, seen.default_fs_type, is_fine_grained)?;
    let node_id = seen.node_id.clone().ok_or_else(|| no_node_id(attachment, seen))?;
    // Nothing is held before all checks are passed, so that an attachment that can't start can be deleted.
    if !pv
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|name| *name == finalizer)
    {
        return Ok(Next::HoldPv);
    }
    let is_prepared = annotation(&attachment.metadata, keys::ATTACHMENT_NODE_ID) == Some(&node_id);
    if (!is_held || !is_prepared) && !mutant::is_on("no-attachment-finalizer") {
        return Ok(Next::Prepare { node_id });
    }
    let can_be_read_only = seen.driver.can(ControllerCapability::PublishReadonly);
    let request = ControllerPublishVolumeRequest {
        volume_id: csi.volume_handle.clone(),
        node_id,
        volume_capability: Some(capability),
        readonly: can_be_read_only && csi.read_only.unwrap_or(false),
        volume_context: csi
            .volume_attributes
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        ..Default::default()
    };
    let secret = csi.controller_publish_secret_ref.clone();
    Ok(Next::Publish(Box::new(Publication { request, secret })))
}

fn unpublish(attachment: &VolumeAttachment, seen: &Seen<'_>) -> Result<Next, Refusal> {
    let (name, pv) = named_pv(attachment, seen)?;
    let csi = pv
        .spec
        .as_ref()
        .and_then(|spec| spec.csi.as_ref())
        .ok_or(Refusal::ForeignPv(name))?;
    // The CSINode goes with the node; the annotation remembers the id that was used.
    let remembered = annotation(&attachment.metadata, keys::ATTACHMENT_NODE_ID).map(str::to_string);
    let node_id = seen
        .node_id
        .clone()
        .or(remembered)
        .ok_or_else(|| no_node_id(attachment, seen))?;
    let request = ControllerUnpublishVolumeRequest {
        volume_id: csi.volume_handle.clone(),
        node_id,
        ..Default::default()
    };
    let secret = csi.controller_publish_secret_ref.clone();
    Ok(Next::Unpublish(Box::new(Unpublication { request, secret })))
}

fn named_pv<'a>(
    attachment: &VolumeAttachment,
    seen: &Seen<'a>,
) -> Result<(String, &'a PersistentVolume), Refusal> {
    let name = attachment
        .spec
        .source
        .persistent_volume_name
        .clone()
        .ok_or(Refusal::NoPvName)?;
    let pv = seen.pv.ok_or_else(|| Refusal::NoPv(name.clone()))?;
    Ok((name, pv))
}

fn no_node_id(attachment: &VolumeAttachment, seen: &Seen<'_>) -> Refusal {
    Refusal::NoNodeId(attachment.spec.node_name.clone(), seen.driver.driver_name.clone())
}

/// Whether our finalizer on a PV has done its duty: the PV is being deleted and no attachment names it.
pub(crate) fn may_release(pv: &PersistentVolume, is_attached: bool, driver_name: &str) -> bool {
    let finalizer = keys::attacher_finalizer(driver_name);
    let is_held = pv
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|name| *name == finalizer);
    is_held && pv.metadata.deletion_timestamp.is_some() && !is_attached
}

#[cfg(test)]
mod tests;

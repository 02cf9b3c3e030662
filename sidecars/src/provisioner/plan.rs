//! What shall be created for a claim: the request to the driver and the PV to write, made once per claim. Pure.
//!
//! A plan whose call ended uncertain is kept and sent again unchanged until the driver gives a final answer: another
//! request might make a second volume.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeSpec, SecretReference,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use moorline_model::access_mode::{AccessMode, AccessModes, CombinationError};
use moorline_model::quantity::Amount;
use moorline_model::{claim, keys, mutant, topology as places};
use moorline_proto::csi::{CapacityRange, CreateVolumeRequest, CreateVolumeResponse, VolumeCapability};

use super::class_parameters::{self, ClassParameters, ParameterError, SecretUse};
use super::config::ProvisionerConfig;
use super::source::SourceKey;
use super::topology::Segment;
use crate::capability::{Usage, of_modes};
use crate::discovery::{ControllerCapability, DriverFacts};
use crate::secrets::Tokens;

/// In `volumeAttributes`: which provisioner process made the volume. For people who look for traces.
const IDENTITY_ATTRIBUTE: &str = "storage.kubernetes.io/csiProvisionerIdentity";
const METADATA_CLAIM_NAME: &str = "csi.storage.k8s.io/pvc/name";
const METADATA_CLAIM_NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";
const METADATA_PV_NAME: &str = "csi.storage.k8s.io/pv/name";

/// A claim and class that no request can be made of.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("claim's storage request is not a quantity: {0}")]
    Request(String),
    #[error(transparent)]
    AccessModes(#[from] CombinationError),
    #[error(transparent)]
    Parameters(#[from] ParameterError),
}

/// Everything needed to create one volume, but the content of secrets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) request: CreateVolumeRequest,
    pub(crate) secret: Option<SecretReference>,
    pub(crate) requested_bytes: i64,
    /// Set with delayed binding.
    pub(crate) selected_node: Option<String>,
    pub(crate) claim: ObjectReference,
    /// What the volume is filled from: it stays until the call has ended.
    pub(crate) source: Option<SourceKey>,
    pub(crate) class_name: String,
    pub(crate) class_uid: String,
    /// The PV but for what the driver answers.
    pub(super) draft: PersistentVolume,
}

/// Makes the plan; the topology requirement and content source are added by the caller.
pub(crate) fn plan(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    driver: &DriverFacts,
    config: &ProvisionerConfig,
) -> Result<Plan, PlanError> {
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    let name = config.volume_name(uid);
    let tokens = Tokens {
        pv_name: &name,
        claim_namespace: claim.metadata.namespace.as_deref().unwrap_or_default(),
        claim_name: claim.metadata.name.as_deref().unwrap_or_default(),
        claim_annotations: claim.metadata.annotations.as_ref(),
    };
    let no_parameters = BTreeMap::new();
    let parameters = class.parameters.as_ref().unwrap_or(&no_parameters);
    let parameters = class_parameters::parse(parameters, &tokens)?;
    let requested = claim::requested_storage(claim).map_err(|error| PlanError::Request(error.to_string()))?;
    let fs_type = parameters
        .fs_type
        .as_deref()
        .or(config.default_fs_type.as_deref())
        .unwrap_or_default();
    let capabilities = capabilities(claim, class, fs_type, driver)?;
    let is_read_only = config.controller_publish_readonly && is_only_reader(&capabilities);
    let request = CreateVolumeRequest {
        name: name.clone(),
        capacity_range: Some(CapacityRange {
            required_bytes: requested.ceil(),
            limit_bytes: 0,
        }),
        volume_capabilities: capabilities,
        parameters: driver_parameters(&parameters, &tokens, config.extra_create_metadata),
        ..Default::default()
    };
    let resource_version = claim.metadata.resource_version.clone();
    let reference = ObjectReference {
        resource_version,
        ..claim.object_ref(&())
    };
    let fs_type = (!fs_type.is_empty() && !claim::is_block(claim)).then(|| fs_type.to_string());
    let csi = CSIPersistentVolumeSource {
        driver: driver.driver_name.clone(),
        fs_type,
        read_only: is_read_only.then_some(true),
        controller_publish_secret_ref: parameters.secrets.get(&SecretUse::ControllerPublish).cloned(),
        node_stage_secret_ref: parameters.secrets.get(&SecretUse::NodeStage).cloned(),
        node_publish_secret_ref: parameters.secrets.get(&SecretUse::NodePublish).cloned(),
        controller_expand_secret_ref: parameters.secrets.get(&SecretUse::ControllerExpand).cloned(),
        node_expand_secret_ref: parameters.secrets.get(&SecretUse::NodeExpand).cloned(),
        ..Default::default()
    };
    let draft = draft(claim, class, &parameters, csi, (name, reference.clone()));
    Ok(Plan {
        request,
        secret: parameters.secrets.get(&SecretUse::Provisioner).cloned(),
        requested_bytes: requested.ceil(),
        selected_node: None,
        claim: reference,
        source: None,
        class_name: class.metadata.name.clone().unwrap_or_default(),
        class_uid: class.metadata.uid.clone().unwrap_or_default(),
        draft,
    })
}

/// One capability per access mode, as drivers expect it here; but only if the modes can be served together later.
fn capabilities(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    fs_type: &str,
    driver: &DriverFacts,
) -> Result<Vec<VolumeCapability>, CombinationError> {
    let is_fine_grained = driver.can(ControllerCapability::SingleNodeMultiWriter);
    let usage = Usage {
        is_block: claim::is_block(claim),
        fs_type,
        mount_flags: class.mount_options.as_deref().unwrap_or_default(),
    };
    let modes = claim::access_modes(claim);
    of_modes(modes, &usage, is_fine_grained)?;
    AccessMode::ALL
        .into_iter()
        .filter(|mode| modes.contains(*mode))
        .map(|mode| of_modes(AccessModes::from_iter([mode]), &usage, is_fine_grained))
        .collect()
}

fn is_only_reader(capabilities: &[VolumeCapability]) -> bool {
    use moorline_proto::csi::volume_capability::access_mode::Mode;
    let reader = Mode::MultiNodeReaderOnly as i32;
    matches!(capabilities, [only] if only.access_mode.as_ref().is_some_and(|access| access.mode == reader))
}

fn driver_parameters(
    parameters: &ClassParameters,
    tokens: &Tokens<'_>,
    extra_create_metadata: bool,
) -> std::collections::HashMap<String, String> {
    let mut for_driver: std::collections::HashMap<String, String> =
        parameters.for_driver.clone().into_iter().collect();
    if extra_create_metadata {
        for_driver.insert(METADATA_CLAIM_NAME.to_string(), tokens.claim_name.to_string());
        for_driver.insert(
            METADATA_CLAIM_NAMESPACE.to_string(),
            tokens.claim_namespace.to_string(),
        );
        for_driver.insert(METADATA_PV_NAME.to_string(), tokens.pv_name.to_string());
    }
    for_driver
}

fn draft(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    parameters: &ClassParameters,
    csi: CSIPersistentVolumeSource,
    (name, claim_ref): (String, ObjectReference),
) -> PersistentVolume {
    let spec = claim.spec.as_ref();
    let secret_part = |secret_use, part: fn(&SecretReference) -> Option<&String>| {
        parameters
            .secrets
            .get(&secret_use)
            .and_then(part)
            .cloned()
            .unwrap_or_default()
    };
    let name_of: fn(&SecretReference) -> Option<&String> = |secret| secret.name.as_ref();
    let namespace_of: fn(&SecretReference) -> Option<&String> = |secret| secret.namespace.as_ref();
    let mut annotations = BTreeMap::from([
        (keys::PROVISIONED_BY.to_string(), class.provisioner.clone()),
        (
            keys::DELETION_SECRET_NAME.to_string(),
            secret_part(SecretUse::Provisioner, name_of),
        ),
        (
            keys::DELETION_SECRET_NAMESPACE.to_string(),
            secret_part(SecretUse::Provisioner, namespace_of),
        ),
    ]);
    if parameters.secrets.contains_key(&SecretUse::ControllerModify) {
        let modify = SecretUse::ControllerModify;
        annotations.insert(keys::MODIFY_SECRET_NAME.to_string(), secret_part(modify, name_of));
        annotations.insert(
            keys::MODIFY_SECRET_NAMESPACE.to_string(),
            secret_part(modify, namespace_of),
        );
    }
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name),
            annotations: Some(annotations),
            finalizers: (!mutant::is_on("no-pv-finalizer"))
                .then(|| vec![keys::PROVISIONER_FINALIZER.to_string()]),
            ..Default::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.and_then(|spec| spec.access_modes.clone()),
            volume_mode: spec.and_then(|spec| spec.volume_mode.clone()),
            mount_options: class.mount_options.clone(),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_attributes_class_name: spec
                .and_then(|spec| spec.volume_attributes_class_name.clone())
                .filter(|name| !name.is_empty()),
            claim_ref: Some(claim_ref),
            csi: Some(csi),
            ..Default::default()
        }),
        status: None,
    }
}

/// A driver's answer that no PV can be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("driver answered without a volume")]
    NoVolume,
    #[error("driver answered without a volume id")]
    NoVolumeId,
    #[error("created volume {volume_id} has {found} bytes, less than the {requested} requested")]
    TooSmall {
        volume_id: String,
        found: i64,
        requested: i64,
    },
    #[error("created volume {volume_id} is not filled from the requested source")]
    NoContent { volume_id: String },
}

impl Plan {
    /// The PV's and volume's name.
    pub(crate) fn volume_name(&self) -> &str {
        &self.request.name
    }

    /// The PV for the driver's answer.
    pub(crate) fn persistent_volume(
        &self,
        answer: &CreateVolumeResponse,
        identity: &str,
        has_topology: bool,
    ) -> Result<PersistentVolume, AnswerError> {
        let volume = answer.volume.as_ref().ok_or(AnswerError::NoVolume)?;
        let volume_id = volume.volume_id.clone();
        if volume_id.is_empty() {
            return Err(AnswerError::NoVolumeId);
        }
        // 0 means that the driver doesn't know.
        let capacity = if volume.capacity_bytes == 0 {
            self.requested_bytes
        } else {
            volume.capacity_bytes
        };
        if capacity < self.requested_bytes {
            let requested = self.requested_bytes;
            return Err(AnswerError::TooSmall {
                volume_id,
                found: capacity,
                requested,
            });
        }
        if self.request.volume_content_source.is_some() && volume.content_source.is_none() {
            return Err(AnswerError::NoContent { volume_id });
        }
        let mut pv = self.draft.clone();
        let mut spec = pv.spec.take().unwrap_or_default();
        let mut attributes = BTreeMap::from([(IDENTITY_ATTRIBUTE.to_string(), identity.to_string())]);
        attributes.extend(volume.volume_context.clone());
        if let Some(csi) = &mut spec.csi {
            csi.volume_handle = volume_id;
            csi.volume_attributes = Some(attributes);
        }
        spec.capacity = Some(BTreeMap::from([(
            "storage".to_string(),
            Amount::from_bytes(capacity).to_quantity(),
        )]));
        if has_topology {
            let segments: Vec<Segment> = volume
                .accessible_topology
                .iter()
                .map(|topology| topology.segments.clone().into_iter().collect::<Segment>())
                .filter(|segment| !segment.is_empty())
                .collect();
            spec.node_affinity = places::to_node_affinity(&segments);
        }
        pv.spec = Some(spec);
        Ok(pv)
    }
}

#[cfg(test)]
mod tests;

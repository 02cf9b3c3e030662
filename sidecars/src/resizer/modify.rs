//! What to do next about the VolumeAttributesClass of one claim. Pure.
//!
//! ```text
//!   spec.volumeAttributesClassName differs from status.currentVolumeAttributesClassName, or a modification is recorded
//!     -> class missing       Pend: Pending, told; its creation wakes
//!     -> Begin               InProgress with the class as target, condition ModifyingVolume
//!     -> Modify              ControllerModifyVolume
//!          ok                PV's class, then the claim's current class; marks removed
//!          uncertain         InProgress; the target stays, whatever the claim says meanwhile
//!          final             InProgress; the claim may choose another class
//!          invalid argument  Infeasible; the same class is tried again after minutes, another one at once
//!   spec without class, nothing in progress
//!     -> CallOff             condition ModifyingVolume removed; what is recorded stays
//! ```

pub(super) mod shell;
mod status;

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, SecretReference};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use moorline_model::claim::annotation;
use moorline_model::{claim, keys};
use moorline_proto::csi::ControllerModifyVolumeRequest;

use super::held::{Held, held};
use crate::discovery::{ControllerCapability, DriverFacts};

const METADATA_CLAIM_NAME: &str = "csi.storage.k8s.io/pvc/name";
const METADATA_CLAIM_NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";
const METADATA_PV_NAME: &str = "csi.storage.k8s.io/pv/name";
/// The condition of a claim whose volume is being modified.
const MODIFYING: &str = "ModifyingVolume";

/// `status.modifyVolumeStatus.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing is recorded, or the word is unknown.
    Idle,
    Pending,
    InProgress,
    Infeasible,
}

impl Stage {
    const PENDING: &str = "Pending";
    const IN_PROGRESS: &str = "InProgress";
    const INFEASIBLE: &str = "Infeasible";

    fn of(claim: &PersistentVolumeClaim) -> Self {
        let status = claim.status.as_ref();
        let recorded = status.and_then(|status| status.modify_volume_status.as_ref());
        match recorded.map_or("", |recorded| recorded.status.as_str()) {
            Self::PENDING => Stage::Pending,
            Self::IN_PROGRESS => Stage::InProgress,
            Self::INFEASIBLE => Stage::Infeasible,
            _ => Stage::Idle,
        }
    }
}

/// What this process remembers of earlier tries for the claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The class for which the driver's last answer was a no for good: nothing goes on in the backend.
    pub(crate) failed: Option<String>,
    /// Infeasible: no call for the same class before this.
    pub(crate) slow_until: Option<Timestamp>,
    /// What the user was told last, so that it is not said again.
    pub(crate) told: Option<String>,
}

/// Everything the decision rests on.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    /// `None` if it is gone.
    pub(crate) claim: Option<&'a PersistentVolumeClaim>,
    /// The PV that the claim names.
    pub(crate) pv: Option<&'a PersistentVolume>,
    /// The class that the claim asks for.
    pub(crate) wished: Option<&'a VolumeAttributesClass>,
    /// The class that is recorded as the target of a modification.
    pub(crate) recorded: Option<&'a VolumeAttributesClass>,
    pub(crate) marks: Marks,
    pub(crate) driver: &'a DriverFacts,
    /// Whether the driver is told the names of claim and PV.
    pub(crate) has_extra_metadata: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    Settled,
    /// The user no longer wishes for a class, and nothing is under way.
    CallOff,
    /// The class isn't there.
    Pend {
        target: String,
    },
    /// Write down what is going to happen.
    Begin {
        target: String,
    },
    Modify(Box<Modification>),
    /// The class can never be this volume's.
    Reject {
        target: String,
        refusal: Refusal,
    },
    Wait {
        until: Timestamp,
    },
    Refuse(Refusal),
}

/// A modification to be made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Modification {
    pub(crate) target: String,
    pub(crate) request: ControllerModifyVolumeRequest,
    pub(crate) secret: Option<SecretReference>,
}

/// Why the volume can't be modified now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("persistentvolume {0:?} not found")]
    NoPv(String),
    #[error("volume attributes class {0:?} does not exist")]
    NoClass(String),
    #[error("volume attributes class {class:?} is for driver {driver_name:?}")]
    ForeignClass { class: String, driver_name: String },
    #[error("CSI driver can't modify volumes: it lacks MODIFY_VOLUME")]
    Incapable,
}

/// Whether the driver can modify volumes.
pub(crate) fn can_modify(driver: &DriverFacts) -> bool {
    driver.can(ControllerCapability::ModifyVolume)
}

/// The class that the claim asks for; empty and absent are the same.
pub(crate) fn wished(claim: &PersistentVolumeClaim) -> Option<&str> {
    let spec = claim.spec.as_ref()?;
    named(spec.volume_attributes_class_name.as_deref())
}

/// The class that is recorded as the target of a modification.
pub(crate) fn recorded(claim: &PersistentVolumeClaim) -> Option<&str> {
    let status = claim.status.as_ref()?.modify_volume_status.as_ref()?;
    named(status.target_volume_attributes_class_name.as_deref())
}

fn current(claim: &PersistentVolumeClaim) -> Option<&str> {
    let status = claim.status.as_ref()?;
    named(status.current_volume_attributes_class_name.as_deref())
}

fn named(name: Option<&str>) -> Option<&str> {
    name.filter(|name| !name.is_empty())
}

/// Whether there may be something to do: cheap, for change handlers.
pub(crate) fn is_candidate(claim: &PersistentVolumeClaim) -> bool {
    let is_bound = claim::volume_name(claim).is_some();
    is_bound && (Stage::of(claim) != Stage::Idle || wished(claim) != current(claim))
}

/// Decides.
pub(crate) fn decide(seen: &Seen<'_>, now: Timestamp) -> Next {
    let (claim, pv) = match held(seen.claim, seen.pv, seen.driver) {
        Held::Nothing => return Next::Settled,
        Held::Unknown(pv_name) => return Next::Refuse(Refusal::NoPv(pv_name.to_string())),
        Held::Ours(claim, pv) => (claim, pv),
    };
    let (stage, wished, recorded) = (Stage::of(claim), wished(claim), recorded(claim));
    if stage == Stage::Idle && wished == current(claim) {
        return Next::Settled;
    }
    let is_in_progress = stage == Stage::InProgress;
    if is_in_progress
        && let Some(target) = recorded
        && (wished.is_none() || seen.marks.failed.as_deref() != Some(target))
    {
        // It may be under way in the backend: another target now could leave the volume as anything.
        return go_on(claim, pv, target, seen);
    }
    let Some(target) = wished else {
        return if status::is_modifying(claim) {
            Next::CallOff
        } else {
            Next::Settled
        };
    };
    aim(claim, pv, target, seen, now)
}

fn go_on(claim: &PersistentVolumeClaim, pv: &PersistentVolume, target: &str, seen: &Seen<'_>) -> Next {
    if !can_modify(seen.driver) {
        return Next::Refuse(Refusal::Incapable);
    }
    match seen.recorded {
        Some(class) => Next::Modify(Box::new(modification(claim, pv, class, target, seen))),
        None => Next::Refuse(Refusal::NoClass(target.to_string())),
    }
}

/// The claim's own wish, where nothing stands in its way.
fn aim(
    claim: &PersistentVolumeClaim,
    pv: &PersistentVolume,
    target: &str,
    seen: &Seen<'_>,
    now: Timestamp,
) -> Next {
    if !can_modify(seen.driver) {
        return Next::Refuse(Refusal::Incapable);
    }
    let stage = Stage::of(claim);
    let Some(class) = seen.wished else {
        return if stage == Stage::Pending {
            Next::Settled
        } else {
            Next::Pend {
                target: target.to_string(),
            }
        };
    };
    let is_recorded = recorded(claim) == Some(target);
    if class.driver_name != seen.driver.driver_name {
        // What a class is for never changes; another one of its name wakes.
        if stage == Stage::Infeasible && is_recorded {
            return Next::Settled;
        }
        return Next::Reject {
            target: target.to_string(),
            refusal: Refusal::ForeignClass {
                class: target.to_string(),
                driver_name: class.driver_name.clone(),
            },
        };
    }
    match stage {
        Stage::Infeasible if is_recorded => match seen.marks.slow_until.filter(|until| now < *until) {
            Some(until) => Next::Wait { until },
            None => Next::Begin {
                target: target.to_string(),
            },
        },
        Stage::InProgress if is_recorded => {
            Next::Modify(Box::new(modification(claim, pv, class, target, seen)))
        }
        _ => Next::Begin {
            target: target.to_string(),
        },
    }
}

fn modification(
    claim: &PersistentVolumeClaim,
    pv: &PersistentVolume,
    class: &VolumeAttributesClass,
    target: &str,
    seen: &Seen<'_>,
) -> Modification {
    let mut parameters: HashMap<String, String> =
        class.parameters.clone().unwrap_or_default().into_iter().collect();
    if seen.has_extra_metadata {
        for (key, value) in [
            (METADATA_CLAIM_NAME, &claim.metadata.name),
            (METADATA_CLAIM_NAMESPACE, &claim.metadata.namespace),
            (METADATA_PV_NAME, &pv.metadata.name),
        ] {
            parameters.insert(key.to_string(), value.clone().unwrap_or_default());
        }
    }
    let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    Modification {
        target: target.to_string(),
        request: ControllerModifyVolumeRequest {
            volume_id: csi.map(|csi| csi.volume_handle.clone()).unwrap_or_default(),
            secrets: HashMap::new(),
            mutable_parameters: parameters,
        },
        secret: secret(pv),
    }
}

/// The Secret that the provisioner noted for modifications, else that for expansions.
fn secret(pv: &PersistentVolume) -> Option<SecretReference> {
    let part = |key| named(annotation(&pv.metadata, key)).map(str::to_string);
    let name = part(keys::MODIFY_SECRET_NAME);
    let namespace = part(keys::MODIFY_SECRET_NAMESPACE);
    if name.is_some() && namespace.is_some() {
        return Some(SecretReference { name, namespace });
    }
    let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    csi.and_then(|csi| csi.controller_expand_secret_ref.clone())
}

#[cfg(test)]
mod tests;

//! What to do next about the size of one claim. Pure.
//!
//! ```text
//!   request > status.capacity
//!     -> Mark: ControllerResizeInProgress, allocatedResources, condition Resizing
//!     -> Expand: ControllerExpandVolume
//!          ok, node has work    -> PV capacity, NodeResizePending, condition FileSystemResizePending (kubelet goes on)
//!          ok, no work left     -> PV capacity, status.capacity, marks removed
//!          uncertain            -> marks stay, same size again
//!          final                -> condition ControllerResizeError; a lower request is taken up
//!          infeasible           -> and ControllerResizeInfeasible; tried again after minutes
//! ```

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, SecretReference};
use moorline_model::access_mode::CombinationError;
use moorline_model::claim::annotation;
use moorline_model::{Amount, claim, keys, mutant, volume};
use moorline_proto::csi::{CapacityRange, ControllerExpandVolumeRequest};

use super::held::{Held, held};
use super::target::{Sizes, Stage, choose};
use crate::capability::of_pv;
use crate::discovery::{ControllerCapability, DriverFacts};

/// What this process remembers of earlier tries for the claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The last try failed for good.
    pub(crate) has_failed: bool,
    /// The last try failed because the volume is in use.
    pub(crate) is_in_use: bool,
    /// Infeasible: no call before this.
    pub(crate) slow_until: Option<Timestamp>,
}

/// Everything the decision rests on.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    /// `None` if it is gone.
    pub(crate) claim: Option<&'a PersistentVolumeClaim>,
    /// The PV that the claim names.
    pub(crate) pv: Option<&'a PersistentVolume>,
    pub(crate) marks: Marks,
    /// Whether a pod uses the claim. Looked up only with [`Marks::is_in_use`].
    pub(crate) is_used_by_pod: bool,
    pub(crate) driver: &'a DriverFacts,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    Settled,
    /// The node is done: the PV no longer needs to remember the old size.
    RemovePreResizeCapacity,
    /// Write down what is going to happen.
    Mark {
        target: Amount,
    },
    Expand(Box<Expansion>),
    Wait {
        until: Timestamp,
    },
    Refuse(Refusal),
}

/// An expansion to be made, by the driver's controller or (trivially) by the node alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expansion {
    pub(crate) target: Amount,
    /// `None`: only the node expands, nothing is asked of the controller.
    pub(crate) request: Option<ControllerExpandVolumeRequest>,
    pub(crate) secret: Option<SecretReference>,
}

/// Why the claim can't be expanded now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("persistentvolume {0:?} not found")]
    NoPv(String),
    #[error("size is not a quantity: {0}")]
    Quantity(String),
    #[error(
        "volume is in use and the driver supports offline expansion only: stop the pods that use the claim"
    )]
    InUse,
    #[error(transparent)]
    AccessModes(#[from] CombinationError),
}

/// Whether the driver, as seen on the controller's socket, can expand at all.
pub(crate) fn can_expand(driver: &DriverFacts) -> bool {
    driver.can(ControllerCapability::ExpandVolume) || driver.node_expands
}

/// Decides.
pub(crate) fn decide(seen: &Seen<'_>, now: Timestamp) -> Next {
    let (claim, pv) = match held(seen.claim, seen.pv, seen.driver) {
        Held::Nothing => return Next::Settled,
        Held::Unknown(pv_name) => return Next::Refuse(Refusal::NoPv(pv_name.to_string())),
        Held::Ours(claim, pv) => (claim, pv),
    };
    sized(claim, pv, seen, now).unwrap_or_else(Next::Refuse)
}

fn sized(
    claim: &PersistentVolumeClaim,
    pv: &PersistentVolume,
    seen: &Seen<'_>,
    now: Timestamp,
) -> Result<Next, Refusal> {
    let quantity = |error: moorline_model::quantity::ParseAmountError| Refusal::Quantity(error.to_string());
    let requested = claim::requested_storage(claim).map_err(quantity)?;
    let capacity = claim::status_capacity(claim)
        .map_err(quantity)?
        .unwrap_or(Amount::ZERO);
    let pv_capacity = volume::capacity(pv).map_err(quantity)?;
    if requested <= capacity {
        let is_remembered = annotation(&pv.metadata, keys::PRE_RESIZE_CAPACITY).is_some();
        let is_done = is_remembered && capacity >= pv_capacity;
        return Ok(if is_done {
            Next::RemovePreResizeCapacity
        } else {
            Next::Settled
        });
    }
    let status = claim.status.as_ref();
    let allocated = status.and_then(|status| status.allocated_resources.as_ref()?.get("storage"));
    let allocated = allocated.map(Amount::try_from).transpose().map_err(quantity)?;
    let stage = status.and_then(|status| status.allocated_resource_statuses.as_ref()?.get("storage"));
    let stage = Stage::parse(stage.map(String::as_str));
    let sizes = Sizes {
        requested,
        pv: pv_capacity,
        allocated,
        stage,
        has_failed: seen.marks.has_failed,
        waits_for_node: has_condition(claim, "FileSystemResizePending"),
        expands_in_controller: seen.driver.can(ControllerCapability::ExpandVolume),
    };
    let Some(target) = choose(&sizes) else {
        return Ok(Next::Settled);
    };
    let is_known_infeasible = stage == Stage::ControllerInfeasible && allocated == Some(target);
    if is_known_infeasible && let Some(until) = seen.marks.slow_until.filter(|until| now < *until) {
        return Ok(Next::Wait { until });
    }
    let is_marked =
        stage == Stage::ControllerInProgress && allocated == Some(target) && has_condition(claim, "Resizing");
    if !(is_known_infeasible || is_marked) {
        return Ok(Next::Mark { target });
    }
    if seen.marks.is_in_use && seen.is_used_by_pod {
        return Err(Refusal::InUse);
    }
    expansion(pv, target, seen).map(|expansion| Next::Expand(Box::new(expansion)))
}

fn expansion(pv: &PersistentVolume, target: Amount, seen: &Seen<'_>) -> Result<Expansion, Refusal> {
    if !seen.driver.can(ControllerCapability::ExpandVolume) || mutant::is_on("resize-without-driver") {
        return Ok(Expansion {
            target,
            request: None,
            secret: None,
        });
    }
    let is_fine_grained = seen.driver.can(ControllerCapability::SingleNodeMultiWriter);
    let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    let request = ControllerExpandVolumeRequest {
        volume_id: csi.map(|csi| csi.volume_handle.clone()).unwrap_or_default(),
        capacity_range: Some(CapacityRange {
            required_bytes: target.ceil(),
            limit_bytes: 0,
        }),
        volume_capability: Some(of_pv(pv, "", is_fine_grained)?),
        ..Default::default()
    };
    let secret = csi.and_then(|csi| csi.controller_expand_secret_ref.clone());
    Ok(Expansion {
        target,
        request: Some(request),
        secret,
    })
}

fn has_condition(claim: &PersistentVolumeClaim, condition_type: &str) -> bool {
    let conditions = claim
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == condition_type && condition.status == "True")
}

#[cfg(test)]
mod tests;

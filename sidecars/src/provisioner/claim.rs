//! What to do next about one claim. Pure.
//!
//! ```text
//!   (not ours, bound, PV there) -> Settled
//!   ours ----------------------> Create --ok--> PV saved -> Settled
//!                                  |  ^
//!                        uncertain |  | the same plan, whatever becomes of the claim
//!                                  +--+
//!                                  | final            -> Refuse (event, backoff)
//!                                  | infeasible       -> Refuse, then Wait
//!                                  | no room on node  -> Reschedule (selected-node removed)
//! ```

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttributesClass};
use moorline_model::claim;
use moorline_proto::csi::GetCapacityRequest;

use super::config::ProvisionerConfig;
use super::plan::{Plan, PlanError, plan};
use super::source::{Source, SourceError, content_source, key_of};
use super::topology::{ClusterSegments, Inputs, SelectedNode, TopologyError, requirement};
use crate::discovery::{ControllerCapability, DriverFacts, PluginService};

/// A claim whose last request was infeasible isn't tried again before `until`, unless its class was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slow {
    pub(crate) until: Timestamp,
    pub(crate) class_uid: String,
}

/// The VolumeAttributesClass that the claim names.
#[derive(Clone, Debug)]
pub(crate) enum Attributes<'a> {
    NotNamed,
    Missing(String),
    Found(&'a VolumeAttributesClass),
}

/// Everything the decision rests on.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    /// The claim with the UID in question; `None` if it is gone.
    pub(crate) claim: Option<&'a PersistentVolumeClaim>,
    /// The plan of an earlier call whose end is unknown.
    pub(crate) in_progress: Option<Arc<Plan>>,
    pub(crate) slow: Option<Slow>,
    pub(crate) pv_exists: bool,
    pub(crate) class: Option<&'a StorageClass>,
    pub(crate) attributes: Attributes<'a>,
    pub(crate) source: Source<'a>,
    pub(crate) selected_node: Option<SelectedNode>,
    pub(crate) cluster: &'a ClusterSegments,
    pub(crate) driver: &'a DriverFacts,
    pub(crate) config: &'a ProvisionerConfig,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    Settled,
    Create(Arc<Plan>),
    Wait {
        until: Timestamp,
    },
    Refuse(Refusal),
    /// The node can't serve the claim: the scheduler shall choose another.
    Reschedule(Refusal),
    /// One provisioner per node: nobody has the claim, and this node may take it, if it has room.
    Bid(Box<Bid>),
}

/// What to ask of the driver before this node takes a claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Bid {
    /// One with enough room is enough. None: nothing is asked; who takes the claim will say what is wrong.
    pub(crate) questions: Vec<GetCapacityRequest>,
    pub(crate) required: i64,
}

/// Why a claim can't be provisioned now.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("storage class {0:?} not found")]
    NoClass(String),
    #[error("storage class {class:?} is for provisioner {provisioner:?}")]
    ForeignClass { class: String, provisioner: String },
    #[error("CSI driver does not support dynamic provisioning: it lacks {0}")]
    Incapable(&'static str),
    #[error("claim selectors are not supported")]
    Selector,
    #[error("volume attributes class {0:?} not found")]
    NoAttributesClass(String),
    #[error("volume attributes class {class:?} is for driver {driver_name:?}")]
    ForeignAttributesClass { class: String, driver_name: String },
    #[error("error generating accessibility requirements: {0}")]
    Topology(#[from] TopologyError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Refusal {
    /// A missing class isn't worth an event: the binder has already said so.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Refusal::NoClass(_))
    }
}

/// Decides.
pub(crate) fn decide(seen: &Seen<'_>, now: Timestamp) -> Next {
    if seen.pv_exists {
        // Provisioned; what happens to the PV from here on is the binder's and the deletion side's business.
        return Next::Settled;
    }
    if let Some(plan) = &seen.in_progress {
        // A volume may exist. Only a final answer to the same request may end this, even if the claim is gone: the
        // PV of a claim that is gone gets released and reclaimed like any other.
        return Next::Create(plan.clone());
    }
    let Some(claim) = seen.claim.filter(|claim| is_asked(claim, seen)) else {
        return Next::Settled;
    };
    let owner = owner(claim, seen.config);
    if owner == Owner::Other {
        return Next::Settled;
    }
    let class_name = claim::class_name(claim);
    let Some(class) = seen.class else {
        return Next::Refuse(Refusal::NoClass(class_name.to_string()));
    };
    if claim::is_delayed(class) && claim::selected_node(claim).is_none_or(str::is_empty) {
        // The scheduler hasn't chosen yet; its choice will be an update of the claim.
        return Next::Settled;
    }
    if matches!(seen.source, Source::ForPopulator) {
        return Next::Settled;
    }
    if owner == Owner::Nobody {
        return match seen.config.node_immediate_binding {
            true => bid(claim, class, seen),
            false => Next::Settled,
        };
    }
    if let Some(slow) = &seen.slow
        && now < slow.until
        && class.metadata.uid.as_deref() == Some(&slow.class_uid)
    {
        return Next::Wait { until: slow.until };
    }
    match make_plan(claim, class, seen) {
        Ok(plan) => Next::Create(Arc::new(plan)),
        Err(refusal @ Refusal::Topology(TopologyError::NodeGone(_))) => Next::Reschedule(refusal),
        Err(refusal) => Next::Refuse(refusal),
    }
}

/// Whether the binder asked this driver to provision, and nobody has bound the claim otherwise.
fn is_asked(claim: &PersistentVolumeClaim, seen: &Seen<'_>) -> bool {
    let is_asked = claim::storage_provisioner(claim) == Some(&seen.driver.driver_name);
    is_asked && claim::volume_name(claim).is_none()
}

/// Whose a claim is among the provisioners of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    This,
    /// Another node's.
    Other,
    /// No node has it (yet).
    Nobody,
}

/// Tells whose the claim is.
pub(crate) fn owner(claim: &PersistentVolumeClaim, config: &ProvisionerConfig) -> Owner {
    let selected = claim::selected_node(claim).filter(|name| !name.is_empty());
    match (&config.node_name, selected) {
        (None, _) => Owner::This,
        (Some(own), Some(selected)) if own == selected => Owner::This,
        (Some(_), Some(_)) => Owner::Other,
        (Some(_), None) => Owner::Nobody,
    }
}

/// The exact request that would be made here decides whether there is room for it.
fn bid(claim: &PersistentVolumeClaim, class: &StorageClass, seen: &Seen<'_>) -> Next {
    let plan = match make_plan(claim, class, seen) {
        Ok(plan) => plan,
        Err(Refusal::Topology(TopologyError::NotAllowed(_))) => return Next::Settled,
        // If no node took the claim, no one would tell the user.
        Err(_) => return Next::Bid(Box::default()),
    };
    let request = plan.request;
    let required = request
        .capacity_range
        .as_ref()
        .map_or(0, |range| range.required_bytes);
    if required == 0 || !seen.driver.can(ControllerCapability::GetCapacity) {
        return Next::Bid(Box::default());
    }
    let places = request.accessibility_requirements.map(|places| places.requisite);
    let places: Vec<_> = match places {
        Some(places) if !places.is_empty() => places.into_iter().map(Some).collect(),
        _ => vec![None],
    };
    let question = |accessible_topology| GetCapacityRequest {
        volume_capabilities: request.volume_capabilities.clone(),
        parameters: request.parameters.clone(),
        accessible_topology,
    };
    Next::Bid(Box::new(Bid {
        questions: places.into_iter().map(question).collect(),
        required,
    }))
}

fn make_plan(claim: &PersistentVolumeClaim, class: &StorageClass, seen: &Seen<'_>) -> Result<Plan, Refusal> {
    check_driver(seen.driver)?;
    if class.provisioner != seen.driver.driver_name {
        let class_name = class.metadata.name.clone().unwrap_or_default();
        return Err(Refusal::ForeignClass {
            class: class_name,
            provisioner: class.provisioner.clone(),
        });
    }
    if claim.spec.as_ref().is_some_and(|spec| spec.selector.is_some()) {
        return Err(Refusal::Selector);
    }
    let mut plan = plan(claim, class, seen.driver, seen.config)?;
    plan.request.mutable_parameters = mutable_parameters(seen)?;
    plan.request.volume_content_source = content_source(&seen.source, claim, (seen.driver, seen.config))?;
    plan.source = key_of(claim);
    let has_node = claim::is_delayed(class) || seen.config.node_name.is_some();
    if has_node {
        plan.selected_node = claim::selected_node(claim).map(str::to_string);
    }
    if seen.driver.has_topology() {
        let inputs = Inputs {
            claim_name: claim.metadata.name.as_deref().unwrap_or_default(),
            selected: if has_node {
                seen.selected_node.clone()
            } else {
                None
            },
            allowed: class.allowed_topologies.as_deref().unwrap_or_default(),
            cluster: seen.cluster,
            strict: seen.config.strict_topology,
            immediate_topology: seen.config.immediate_topology,
        };
        plan.request.accessibility_requirements = requirement(&inputs)?;
    }
    Ok(plan)
}

fn check_driver(driver: &DriverFacts) -> Result<(), Refusal> {
    if !driver.has_service(PluginService::ControllerService) {
        return Err(Refusal::Incapable("CONTROLLER_SERVICE"));
    }
    if !driver.can(ControllerCapability::CreateDeleteVolume) {
        return Err(Refusal::Incapable("CREATE_DELETE_VOLUME"));
    }
    Ok(())
}

fn mutable_parameters(seen: &Seen<'_>) -> Result<std::collections::HashMap<String, String>, Refusal> {
    match &seen.attributes {
        Attributes::NotNamed => Ok(std::collections::HashMap::new()),
        Attributes::Missing(name) => Err(Refusal::NoAttributesClass(name.clone())),
        Attributes::Found(_) if !seen.driver.can(ControllerCapability::ModifyVolume) => {
            Err(Refusal::Incapable("MODIFY_VOLUME"))
        }
        Attributes::Found(class) if class.driver_name != seen.driver.driver_name => {
            Err(Refusal::ForeignAttributesClass {
                class: class.metadata.name.clone().unwrap_or_default(),
                driver_name: class.driver_name.clone(),
            })
        }
        Attributes::Found(class) => Ok(class.parameters.clone().unwrap_or_default().into_iter().collect()),
    }
}

#[cfg(test)]
mod tests;

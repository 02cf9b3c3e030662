//! The provisioner's refusals with whose move it is; for [`crate::explain`].

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::StorageClass;
use moorline_model::{Actor, Explanation, claim};

use super::claim::{self as claim_decider, Attributes, Refusal};
use super::config::ProvisionerConfig;
use super::source::{Named, Source, named};
use super::topology::ClusterSegments;
use super::volume::{self as volume_decider, Refusal as VolumeRefusal};
use crate::discovery::DriverFacts;
use crate::explain::Provisioning;

pub(crate) fn claim_refusal(seen: &Provisioning<'_>, driver: &DriverFacts) -> Option<Explanation> {
    let claim = seen.claim?;
    let source = match named(claim) {
        Named::None => Source::None,
        Named::Claim(name) => Source::Claim {
            name,
            claim: seen.source_claim,
            pv: seen.source_pv,
        },
        Named::Snapshot(name) => Source::Snapshot {
            name,
            snapshot: seen.snapshot,
            content: seen.content,
        },
        // Only the provisioner knows whether it is granted; its event says so.
        Named::Elsewhere(_) => return None,
        Named::ForPopulator => {
            return Some(Explanation::new(
                "WaitForPopulator",
                "the claim names a data source that a populator has to fill it from",
                Actor::Admin,
                "check that a populator for this kind of source runs",
            ));
        }
    };
    let attributes = match (claim::attributes_class_name(claim), seen.attributes_class) {
        ("", _) => Attributes::NotNamed,
        (name, None) => Attributes::Missing(name.to_string()),
        (_, Some(class)) => Attributes::Found(class),
    };
    let facts = claim_decider::Seen {
        claim: Some(claim),
        in_progress: None,
        slow: None,
        pv_exists: false,
        class: seen.class,
        attributes,
        source,
        selected_node: None,
        cluster: &ClusterSegments::default(),
        driver,
        config: &ProvisionerConfig::new(""),
    };
    match claim_decider::decide(&facts, Timestamp::UNIX_EPOCH) {
        claim_decider::Next::Refuse(refusal) | claim_decider::Next::Reschedule(refusal) => {
            Some(of_claim(&refusal))
        }
        claim_decider::Next::Settled
        | claim_decider::Next::Create(_)
        | claim_decider::Next::Wait { .. }
        | claim_decider::Next::Bid(_) => None,
    }
}

fn of_claim(refusal: &Refusal) -> Explanation {
    let (actor, advice) = match refusal {
        Refusal::NoClass(_) => (Actor::Admin, "create the class"),
        Refusal::ForeignClass { .. } => (
            Actor::Admin,
            "the class was replaced by one of another provisioner: make the claim anew",
        ),
        Refusal::Incapable(_) => (Actor::Admin, "use a class of a driver that can do this"),
        Refusal::Selector => (
            Actor::User,
            "make the claim anew without spec.selector, or create a PersistentVolume that it selects",
        ),
        Refusal::NoAttributesClass(_) => (Actor::Admin, "create the VolumeAttributesClass"),
        Refusal::ForeignAttributesClass { .. } => {
            (Actor::User, "name a VolumeAttributesClass of the volume's driver")
        }
        Refusal::Topology(_) => (
            Actor::Admin,
            "check that the driver is registered on the nodes and that allowedTopologies names some of them",
        ),
        Refusal::Source(_) => (
            Actor::User,
            "make the source usable (there, bound or ready, not larger than the request); the claim goes on by itself",
        ),
        Refusal::Plan(_) => (
            Actor::Admin,
            "correct the class's parameters, or the claim's request and access modes",
        ),
    };
    Explanation::new("ProvisioningFailed", refusal.to_string(), actor, advice)
}

pub(crate) fn volume_refusal(
    pv: &PersistentVolume,
    class: Option<&StorageClass>,
    is_attached: bool,
    driver: &DriverFacts,
) -> Option<Explanation> {
    let seen = volume_decider::Seen {
        pv: Some(pv),
        class,
        is_attached,
        node: None,
        driver,
    };
    let volume_decider::Next::Refuse(refusal) = volume_decider::decide(&seen) else {
        return None;
    };
    let (actor, advice) = match &refusal {
        VolumeRefusal::Attached(_) => (
            Actor::AttachDetach,
            "the volume is deleted once it is detached; see its VolumeAttachments: kubectl get volumeattachments",
        ),
        VolumeRefusal::Incapable => (Actor::Admin, "delete the volume in the storage by hand"),
        VolumeRefusal::HalfSecret | VolumeRefusal::Parameters(_) => (
            Actor::Admin,
            "correct the PV's deletion-secret annotations or the class's parameters",
        ),
    };
    Some(Explanation::new(
        "VolumeFailedDelete",
        refusal.to_string(),
        actor,
        advice,
    ))
}

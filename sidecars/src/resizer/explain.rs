//! The resizer's refusals with whose move it is; for [`crate::explain`].

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use moorline_model::{Actor, Explanation};

use super::claim::{Marks, Next, Refusal, Seen, decide};
use crate::discovery::DriverFacts;

pub(crate) fn refusal(
    claim: &PersistentVolumeClaim,
    pv: Option<&PersistentVolume>,
    driver: &DriverFacts,
    now: Timestamp,
) -> Option<Explanation> {
    let seen = Seen {
        claim: Some(claim),
        pv,
        marks: Marks::default(),
        is_used_by_pod: false,
        driver,
    };
    let target = match decide(&seen, now) {
        Next::Refuse(refusal) => return Some(of(&refusal)),
        Next::Mark { target } => target,
        Next::Expand(expansion) => expansion.target,
        Next::Settled | Next::RemovePreResizeCapacity | Next::Wait { .. } => return None,
    };
    Some(Explanation::new(
        "Resizing",
        format!("the driver has to grow the volume to {}", target.to_quantity().0),
        Actor::Resizer,
        "check that the driver's csi-resizer runs and what it logs",
    ))
}

fn of(refusal: &Refusal) -> Explanation {
    let (actor, advice) = match refusal {
        Refusal::NoPv(_) => (Actor::Admin, "restore the PersistentVolume"),
        Refusal::Quantity(_) | Refusal::AccessModes(_) => (
            Actor::Admin,
            "correct the sizes and access modes of claim and volume",
        ),
        Refusal::InUse => (Actor::User, "stop the pods that use the claim"),
    };
    Explanation::new("VolumeResizeFailed", refusal.to_string(), actor, advice)
}

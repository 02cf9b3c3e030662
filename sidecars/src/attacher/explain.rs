//! The attacher's refusals with whose move it is; for [`crate::explain`].

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::{CSINode, VolumeAttachment};
use moorline_model::{Actor, Explanation};

use super::attachment::{Next, Refusal, Seen, decide};
use crate::discovery::DriverFacts;

pub(crate) fn refusal(
    attachment: &VolumeAttachment,
    pv: Option<&PersistentVolume>,
    csi_node: Option<&CSINode>,
    driver: &DriverFacts,
) -> Option<Explanation> {
    let registered = csi_node.and_then(|node| {
        let mut drivers = node.spec.drivers.iter();
        drivers.find(|registered| registered.name == driver.driver_name)
    });
    let seen = Seen {
        attachment: Some(attachment),
        pv,
        node_id: registered.map(|registered| registered.node_id.clone()),
        driver,
        default_fs_type: "",
    };
    let Next::Refuse(refusal) = decide(&seen) else {
        return None;
    };
    let (actor, advice) = match &refusal {
        Refusal::NoPvName => (Actor::Admin, "delete the VolumeAttachment"),
        Refusal::NoPv(_) | Refusal::PvDeleting(_) => (
            Actor::User,
            "the volume is gone or going: delete the pods that use its claim",
        ),
        Refusal::ForeignPv(_) => (
            Actor::Admin,
            "delete the VolumeAttachment: it names another driver's volume",
        ),
        Refusal::NoNodeId(..) => (
            Actor::Admin,
            "check that the driver's node part and its node-driver-registrar run on the node",
        ),
        Refusal::AccessModes(_) => (Actor::Admin, "correct the PersistentVolume's access modes"),
    };
    Some(Explanation::new(
        "FailedAttachVolume",
        refusal.to_string(),
        actor,
        advice,
    ))
}

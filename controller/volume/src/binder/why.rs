//! Why a claim or PV waits or was refused, and how users are told.

use moorline_model::volume_match::Mismatch;
use moorline_model::{Actor, Explanation};
use moorline_runtime::EventType;

/// The reason for not going on, or for giving up a link. Renders to the event's type, reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The class binds when a pod is scheduled, and no pod wants the claim.
    NoConsumer,
    /// The class binds when a pod is scheduled, and these pods aren't yet.
    PodsNotScheduled(Vec<String>),
    /// No PV fits and no class is given.
    NoMatchNoClass,
    /// A provisioner was asked.
    Provisioning {
        /// Its name.
        provisioner: String,
    },
    /// Provisioning is switched off, only an admin can help.
    ProvisioningOff,
    /// The class doesn't exist.
    ClassMissing {
        /// Its name.
        class: String,
    },
    /// The class names an in-tree provisioner; there is none in this house.
    ProvisionerUnknown {
        /// Its name.
        provisioner: String,
    },
    /// What the claim asks for can't be read.
    RequestUnreadable(String),
    /// The PV that the user named doesn't exist yet.
    PvNotThere {
        /// Its name.
        pv: String,
    },
    /// The PV that the user named can't serve the claim.
    PvUnfit {
        /// Its name.
        pv: String,
        /// What doesn't fit.
        mismatch: Mismatch,
    },
    /// The PV that the user named belongs to somebody else.
    PvTaken {
        /// Its name.
        pv: String,
        /// Software had linked the claim to it, so this should not have happened.
        is_own_link: bool,
    },
    /// The PV has no storage capacity that could be written into the claim.
    PvWithoutCapacity {
        /// Its name.
        pv: String,
    },
    /// The claim was bound and carries no PV's name any more.
    NameLost,
    /// The PV of a bound claim is gone.
    PvLost {
        /// Its name.
        pv: String,
    },
    /// The PV of a bound claim is linked to another claim, or to none in particular.
    Misbound {
        /// Its name.
        pv: String,
    },
    /// PV and claim are a block device and a filesystem.
    VolumeModeDiffers,
    /// Policy Delete, and nobody who would delete such a volume.
    NoDeleter,
    /// Policy Recycle, which nothing here supports.
    NoRecycler,
    /// A reclaim policy that this version doesn't know.
    PolicyUnknown,
    /// Policy Retain and its claim gone: an admin decides. Users aren't told, it is what they asked for.
    Retained,
    /// Policy Delete, and its provisioner has still to delete the volume.
    Deleting,
}

/// What an event says, without the object it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// Normal or Warning.
    pub event_type: EventType,
    /// Upstream's reason word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Why {
    /// The event to write, if users are told at all.
    pub fn telling(&self) -> Option<Telling> {
        Some(Telling {
            event_type: self.event_type()?,
            reason: self.reason(),
            message: self.message(),
        })
    }

    fn event_type(&self) -> Option<EventType> {
        match self {
            Why::NoConsumer | Why::PodsNotScheduled(_) | Why::NoMatchNoClass | Why::Provisioning { .. } => {
                Some(EventType::Normal)
            }
            Why::ClassMissing { .. }
            | Why::ProvisionerUnknown { .. }
            | Why::RequestUnreadable(_)
            | Why::PvUnfit { .. }
            | Why::PvTaken { .. }
            | Why::PvWithoutCapacity { .. }
            | Why::NameLost
            | Why::PvLost { .. }
            | Why::Misbound { .. }
            | Why::VolumeModeDiffers
            | Why::NoDeleter
            | Why::NoRecycler
            | Why::PolicyUnknown => Some(EventType::Warning),
            // What somebody asked for, or what somebody else tells about.
            Why::ProvisioningOff | Why::PvNotThere { .. } | Why::Retained | Why::Deleting => None,
        }
    }

    /// One word; upstream's, where users are told.
    fn reason(&self) -> &'static str {
        match self {
            Why::NoConsumer => "WaitForFirstConsumer",
            Why::PodsNotScheduled(_) => "WaitForPodScheduled",
            Why::Provisioning { .. } => "ExternalProvisioning",
            Why::ProvisioningOff => "ProvisioningOff",
            Why::ClassMissing { .. } | Why::ProvisionerUnknown { .. } => "ProvisioningFailed",
            Why::PvNotThere { .. } => "VolumeMissing",
            Why::PvUnfit { .. } | Why::VolumeModeDiffers => "VolumeMismatch",
            Why::NoMatchNoClass
            | Why::PvTaken { .. }
            | Why::RequestUnreadable(_)
            | Why::PvWithoutCapacity { .. } => "FailedBinding",
            Why::NameLost | Why::PvLost { .. } => "ClaimLost",
            Why::Misbound { .. } => "ClaimMisbound",
            Why::NoDeleter => "VolumeFailedDelete",
            Why::NoRecycler => "VolumeFailedRecycle",
            Why::PolicyUnknown => "VolumeUnknownReclaimPolicy",
            Why::Retained => "Retained",
            Why::Deleting => "AwaitingDeletion",
        }
    }

    /// For people: what is the matter, and what comes or helps next.
    pub fn message(&self) -> String {
        match self {
            Why::NoConsumer => {
                "the volume is chosen when the first pod that uses this claim is scheduled".to_string()
            }
            Why::PodsNotScheduled(pods) => format!(
                "the volume is chosen when a pod is scheduled: {}",
                pods.join(", ")
            ),
            Why::NoMatchNoClass => {
                "no PersistentVolume fits, and without a StorageClass none is provisioned".to_string()
            }
            Why::Provisioning { provisioner } => {
                format!(
                    "{provisioner:?} was asked for a volume; if none comes, check that this provisioner runs"
                )
            }
            Why::ProvisioningOff => {
                "no PersistentVolume fits, and dynamic provisioning is switched off".to_string()
            }
            Why::ClassMissing { class } => format!("StorageClass {class:?} doesn't exist; create it"),
            Why::ProvisionerUnknown { provisioner } => {
                format!(
                    "no PersistentVolume fits, and there is no provisioner {provisioner:?} that could make one"
                )
            }
            Why::RequestUnreadable(problem) => format!("the claim can't be read: {problem}"),
            Why::PvNotThere { pv } => format!("PersistentVolume {pv:?} doesn't exist"),
            Why::PvUnfit { pv, mismatch } => {
                format!("can't bind to the chosen PersistentVolume {pv:?}: {mismatch}")
            }
            Why::PvTaken { pv, .. } => format!("PersistentVolume {pv:?} belongs to another claim"),
            Why::PvWithoutCapacity { pv } => format!("PersistentVolume {pv:?} states no storage capacity"),
            Why::NameLost => {
                "the claim was bound and has lost the name of its PersistentVolume; its data may be gone"
                    .to_string()
            }
            Why::PvLost { pv } => {
                format!("the claim was bound, and its PersistentVolume {pv:?} is gone; its data may be lost")
            }
            Why::Misbound { pv } => format!("PersistentVolume {pv:?} is linked to another claim"),
            Why::VolumeModeDiffers => "claim and PersistentVolume differ in volumeMode".to_string(),
            Why::NoDeleter => {
                "there is nobody to delete volumes of this kind; delete its data and the object by hand"
                    .to_string()
            }
            Why::NoRecycler => {
                "volumes of this kind can't be recycled; use reclaim policy Retain or Delete".to_string()
            }
            Why::PolicyUnknown => "the reclaim policy is unknown; use Retain or Delete".to_string(),
            Why::Retained => {
                "its claim is gone, and reclaim policy Retain keeps the volume with its data".to_string()
            }
            Why::Deleting => "its claim is gone, and the provisioner has to delete the volume".to_string(),
        }
    }

    /// The reason with whose move it is, and what that one can do.
    pub fn explanation(&self) -> Explanation {
        Explanation::new(self.reason(), self.message(), self.actor(), self.advice())
    }

    fn actor(&self) -> Actor {
        match self {
            Why::NoConsumer
            | Why::NoMatchNoClass
            | Why::RequestUnreadable(_)
            | Why::PvUnfit { .. }
            | Why::PvTaken { .. }
            | Why::VolumeModeDiffers => Actor::User,
            Why::PodsNotScheduled(_) => Actor::Scheduler,
            Why::Provisioning { .. } | Why::Deleting => Actor::Provisioner,
            Why::ProvisioningOff
            | Why::ClassMissing { .. }
            | Why::ProvisionerUnknown { .. }
            | Why::PvNotThere { .. }
            | Why::PvWithoutCapacity { .. }
            | Why::NameLost
            | Why::PvLost { .. }
            | Why::Misbound { .. }
            | Why::NoDeleter
            | Why::NoRecycler
            | Why::PolicyUnknown
            | Why::Retained => Actor::Admin,
        }
    }

    fn advice(&self) -> String {
        match self {
            Why::NoConsumer => "create a pod that uses the claim".into(),
            Why::PodsNotScheduled(pods) => format!("see why it has no node: moorline diagnose pod {}", pods.join(" ")),
            Why::NoMatchNoClass => {
                "name a StorageClass in the claim, have one marked as default, or create a PersistentVolume that fits"
                    .into()
            }
            Why::Provisioning { provisioner } => {
                format!("check that the provisioner {provisioner:?} runs and what it logs")
            }
            Why::ProvisionerUnknown { .. } => {
                "create a PersistentVolume that fits; nothing makes one for this class".into()
            }
            Why::Deleting => "check that the driver's csi-provisioner runs and what it logs".into(),
            Why::ProvisioningOff => "create a PersistentVolume that fits, or switch provisioning on".into(),
            Why::ClassMissing { class } => {
                format!("create StorageClass {class:?}, or make the claim anew with a class that exists: kubectl get storageclass")
            }
            Why::RequestUnreadable(_) => "make the claim anew with a request that can be read".into(),
            Why::PvNotThere { pv } => format!("create PersistentVolume {pv:?}, or make the claim anew without spec.volumeName"),
            Why::PvUnfit { pv, .. } => {
                format!("make the claim anew so that it fits {pv:?}, or without spec.volumeName")
            }
            Why::PvTaken { pv, .. } => {
                format!("choose another volume than {pv:?}, or let the admin clear its spec.claimRef if its claim is gone")
            }
            Why::VolumeModeDiffers => "make the claim anew with the volumeMode of the volume".into(),
            Why::PvWithoutCapacity { pv } => format!("set spec.capacity.storage of {pv:?}"),
            Why::NameLost | Why::PvLost { .. } | Why::Misbound { .. } => {
                "restore the PersistentVolume from a backup, or delete the claim; its data is not reachable through it"
                    .into()
            }
            Why::NoDeleter => "delete the data in the storage, then the PersistentVolume".into(),
            Why::NoRecycler | Why::PolicyUnknown => "set spec.persistentVolumeReclaimPolicy to Retain or Delete".into(),
            Why::Retained => {
                "save the data and delete the volume, or clear its spec.claimRef so that another claim can have it".into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn each_reason_names_who_has_to_act_and_what_with() {
        let pv = || "pv1".to_string();
        let provisioner = || "csi.example.com".to_string();
        let taken = |is_own_link| Why::PvTaken {
            pv: pv(),
            is_own_link,
        };
        let cases = [
            (
                Why::NoConsumer,
                "WaitForFirstConsumer",
                Actor::User,
                "create a pod",
            ),
            (
                Why::PodsNotScheduled(vec!["web".to_string()]),
                "WaitForPodScheduled",
                Actor::Scheduler,
                "moorline diagnose pod web",
            ),
            (
                Why::NoMatchNoClass,
                "FailedBinding",
                Actor::User,
                "name a StorageClass",
            ),
            (
                Why::Provisioning {
                    provisioner: provisioner(),
                },
                "ExternalProvisioning",
                Actor::Provisioner,
                "\"csi.example.com\" runs",
            ),
            (
                Why::ProvisioningOff,
                "ProvisioningOff",
                Actor::Admin,
                "switch provisioning on",
            ),
            (
                Why::ClassMissing {
                    class: "fast".to_string(),
                },
                "ProvisioningFailed",
                Actor::Admin,
                "create StorageClass \"fast\"",
            ),
            (
                Why::ProvisionerUnknown {
                    provisioner: provisioner(),
                },
                "ProvisioningFailed",
                Actor::Admin,
                "create a PersistentVolume",
            ),
            (
                Why::RequestUnreadable("size".to_string()),
                "FailedBinding",
                Actor::User,
                "make the claim anew",
            ),
            (
                Why::PvNotThere { pv: pv() },
                "VolumeMissing",
                Actor::Admin,
                "create PersistentVolume \"pv1\"",
            ),
            (
                Why::PvUnfit {
                    pv: pv(),
                    mismatch: Mismatch::TooSmall,
                },
                "VolumeMismatch",
                Actor::User,
                "fits \"pv1\"",
            ),
            (
                taken(false),
                "FailedBinding",
                Actor::User,
                "another volume than \"pv1\"",
            ),
            (
                taken(true),
                "FailedBinding",
                Actor::User,
                "another volume than \"pv1\"",
            ),
            (
                Why::PvWithoutCapacity { pv: pv() },
                "FailedBinding",
                Actor::Admin,
                "spec.capacity.storage of \"pv1\"",
            ),
            (Why::NameLost, "ClaimLost", Actor::Admin, "from a backup"),
            (
                Why::PvLost { pv: pv() },
                "ClaimLost",
                Actor::Admin,
                "from a backup",
            ),
            (
                Why::Misbound { pv: pv() },
                "ClaimMisbound",
                Actor::Admin,
                "from a backup",
            ),
            (
                Why::VolumeModeDiffers,
                "VolumeMismatch",
                Actor::User,
                "with the volumeMode",
            ),
            (
                Why::NoDeleter,
                "VolumeFailedDelete",
                Actor::Admin,
                "delete the data",
            ),
            (
                Why::NoRecycler,
                "VolumeFailedRecycle",
                Actor::Admin,
                "Retain or Delete",
            ),
            (
                Why::PolicyUnknown,
                "VolumeUnknownReclaimPolicy",
                Actor::Admin,
                "Retain or Delete",
            ),
            (Why::Retained, "Retained", Actor::Admin, "save the data"),
            (
                Why::Deleting,
                "AwaitingDeletion",
                Actor::Provisioner,
                "csi-provisioner runs",
            ),
        ];
        for (why, reason, actor, advice) in cases {
            let found = why.explanation();
            assert_eq!((found.reason, found.actor), (reason, actor), "{why:?}");
            assert!(found.advice.contains(advice), "{why:?}: {}", found.advice);
            assert_eq!(found.message, why.message());
            if let Some(telling) = why.telling() {
                assert_eq!((telling.reason, telling.message), (reason, found.message));
            }
        }
    }
}

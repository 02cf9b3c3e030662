//! Why a claim or PV waits or was refused, and how users are told.

use moorline_model::volume_match::Mismatch;
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
        use EventType::{Normal, Warning};
        let (event_type, reason) = match self {
            Why::NoConsumer => (Normal, "WaitForFirstConsumer"),
            Why::PodsNotScheduled(_) => (Normal, "WaitForPodScheduled"),
            Why::NoMatchNoClass => (Normal, "FailedBinding"),
            Why::Provisioning { .. } => (Normal, "ExternalProvisioning"),
            Why::ClassMissing { .. } | Why::ProvisionerUnknown { .. } => (Warning, "ProvisioningFailed"),
            Why::PvUnfit { .. } | Why::VolumeModeDiffers => (Warning, "VolumeMismatch"),
            Why::PvTaken { .. } | Why::RequestUnreadable(_) | Why::PvWithoutCapacity { .. } => {
                (Warning, "FailedBinding")
            }
            Why::NameLost | Why::PvLost { .. } => (Warning, "ClaimLost"),
            Why::Misbound { .. } => (Warning, "ClaimMisbound"),
            Why::NoDeleter => (Warning, "VolumeFailedDelete"),
            Why::NoRecycler => (Warning, "VolumeFailedRecycle"),
            Why::PolicyUnknown => (Warning, "VolumeUnknownReclaimPolicy"),
            Why::ProvisioningOff | Why::PvNotThere { .. } => return None,
        };
        Some(Telling {
            event_type,
            reason,
            message: self.message(),
        })
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
        }
    }
}

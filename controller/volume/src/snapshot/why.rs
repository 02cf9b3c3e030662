//! Why a snapshot gets no further now. The reasons of events are upstream's.

use moorline_model::secret_template::TemplateError;
use moorline_model::{Actor, Explanation};
use thiserror::Error;

/// The trouble with a snapshot; displayed, it is what users read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// Neither source or both.
    #[error(
        "exactly one of spec.source.persistentVolumeClaimName and spec.source.volumeSnapshotContentName must be set"
    )]
    Source,
    /// The named class doesn't exist.
    #[error("VolumeSnapshotClass {0:?} not found")]
    NoClass(String),
    /// No class is named, and the driver has no default one.
    #[error(
        "cannot find default snapshot class: no VolumeSnapshotClass of driver {0:?} is marked as default; name one in spec.volumeSnapshotClassName"
    )]
    NoDefaultClass(String),
    /// No class is named, and the driver has several default ones.
    #[error("{} default snapshot classes were found for driver {driver:?}: {}", .classes.len(), .classes.join(", "))]
    SeveralDefaultClasses {
        /// The volume's driver.
        driver: String,
        /// Names of the classes, sorted.
        classes: Vec<String>,
    },
    /// The content that it is, or shall be, bound to doesn't exist.
    #[error("VolumeSnapshotContent {0:?} is missing")]
    ContentMissing(String),
    /// The content of a bound snapshot points elsewhere.
    #[error("VolumeSnapshotContent {0:?} is not bound to the VolumeSnapshot correctly")]
    Misbound(String),
    /// The content belongs, or is reserved, to another snapshot.
    #[error("VolumeSnapshotContent {content:?} is bound to a different snapshot: {namespace}/{name}")]
    ContentMisbound {
        /// The content's name.
        content: String,
        /// Namespace of the snapshot that it names.
        namespace: String,
        /// Name of the snapshot that it names.
        name: String,
    },
    /// A content to be made by us was expected.
    #[error("VolumeSnapshotContent {0:?} is pre-provisioned while a dynamically provisioned one is expected")]
    ContentIsStatic(String),
    /// A pre-provisioned content was expected.
    #[error("VolumeSnapshotContent {0:?} is dynamically provisioned while a pre-provisioned one is expected")]
    ContentIsDynamic(String),
    /// The source claim doesn't exist.
    #[error("PersistentVolumeClaim {0:?}, the source of the snapshot, is missing")]
    NoClaim(String),
    /// The source claim is going away.
    #[error("failed to create snapshot content: PersistentVolumeClaim {0:?} is being deleted")]
    ClaimDeleting(String),
    /// The source claim has no volume yet.
    #[error("failed to create snapshot content: PersistentVolumeClaim {0:?} is not bound to a volume yet")]
    ClaimNotBound(String),
    /// The source claim's volume doesn't exist, or belongs to another claim.
    #[error(
        "failed to create snapshot content: PersistentVolumeClaim {0:?} and its volume are not bound to each other"
    )]
    VolumeMisbound(String),
    /// The source volume is not a CSI volume.
    #[error("failed to create snapshot content: PersistentVolume {0:?} is not a CSI volume")]
    NotCsi(String),
    /// No node is one that the source volume can be used on.
    #[error("failed to create snapshot content: no node meets the node affinity of PersistentVolume {0:?}")]
    NoNode(String),
    /// The class is for another driver.
    #[error(
        "failed to create snapshot content: VolumeSnapshotClass {class:?} is for driver {class_driver:?}, the volume belongs to driver {volume_driver:?}"
    )]
    ForeignClass {
        /// The class's name.
        class: String,
        /// Its driver.
        class_driver: String,
        /// The volume's driver.
        volume_driver: String,
    },
    /// The class's secrets can't be resolved.
    #[error("failed to create snapshot content: {0}")]
    Secret(#[from] TemplateError),
    /// It can't be deleted: a claim is being filled from it.
    #[error("Snapshot is being used to restore a PVC")]
    Restoring,
    /// It can't be deleted alone.
    #[error(
        "deletion of the individual volume snapshot is not allowed as it belongs to group snapshot {0:?}: deleting the group snapshot deletes all of its snapshots"
    )]
    InGroup(String),
}

impl Why {
    /// The event's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Why::Source => "SnapshotValidationError",
            Why::NoClass(_) => "GetSnapshotClassFailed",
            Why::NoDefaultClass(_) | Why::SeveralDefaultClasses { .. } => "SetDefaultSnapshotClassFailed",
            Why::ContentMissing(_) => "SnapshotContentMissing",
            Why::Misbound(_) => "SnapshotMisbound",
            Why::ContentMisbound { .. } => "SnapshotContentMisbound",
            Why::ContentIsStatic(_) | Why::ContentIsDynamic(_) => "SnapshotContentMismatch",
            Why::NoClaim(_) => "SnapshotPVCSourceMissing",
            Why::ClaimDeleting(_)
            | Why::ClaimNotBound(_)
            | Why::VolumeMisbound(_)
            | Why::NotCsi(_)
            | Why::NoNode(_)
            | Why::ForeignClass { .. }
            | Why::Secret(_) => "SnapshotContentCreationFailed",
            Why::Restoring | Why::InGroup(_) => "SnapshotDeletePending",
        }
    }

    /// Whether it is written into the snapshot's status, with `readyToUse: false`; else it is only told.
    pub fn is_in_status(&self) -> bool {
        !matches!(self, Why::Restoring | Why::InGroup(_))
    }

    /// The reason with whose move it is, and what that one can do.
    pub fn explanation(&self) -> Explanation {
        let (actor, advice) = match self {
            Why::Source => (Actor::User, "make the snapshot anew with exactly one source".to_string()),
            Why::NoClass(class) => (
                Actor::Admin,
                format!("create VolumeSnapshotClass {class:?}, or make the snapshot anew with one that exists"),
            ),
            Why::NoDefaultClass(_) => (
                Actor::User,
                "make the snapshot anew and name a class, or have one marked as default".to_string(),
            ),
            Why::SeveralDefaultClasses { .. } => {
                (Actor::Admin, "leave one of the classes marked as default".to_string())
            }
            Why::ContentMissing(_) | Why::Misbound(_) => (
                Actor::User,
                "the data is gone or belongs to another snapshot: delete the VolumeSnapshot and take a new one".to_string(),
            ),
            Why::ContentMisbound { .. } | Why::ContentIsStatic(_) | Why::ContentIsDynamic(_) => (
                Actor::Admin,
                "make snapshot and content name each other, or delete the one that is wrong".to_string(),
            ),
            Why::NoClaim(claim) | Why::ClaimDeleting(claim) => (
                Actor::User,
                format!("make the snapshot anew of a claim that stays; {claim:?} is gone or going"),
            ),
            Why::ClaimNotBound(claim) | Why::VolumeMisbound(claim) => (
                Actor::User,
                format!("see why the claim has no volume: moorline diagnose pvc {claim}"),
            ),
            Why::NotCsi(_) => (
                Actor::User,
                "only CSI volumes can have snapshots: delete the VolumeSnapshot, and back the data up another way"
                    .to_string(),
            ),
            Why::NoNode(_) => (
                Actor::Admin,
                "bring back a node that the volume's nodeAffinity allows, with the driver on it".to_string(),
            ),
            Why::ForeignClass { volume_driver, .. } => (
                Actor::User,
                format!("make the snapshot anew with a class of driver {volume_driver:?}"),
            ),
            Why::Secret(_) => (Actor::Admin, "correct the secrets in the class's parameters".to_string()),
            Why::Restoring => (
                Actor::Provisioner,
                "wait until the claim that is being filled from it is bound, or delete that claim".to_string(),
            ),
            Why::InGroup(group) => (
                Actor::User,
                format!("delete VolumeGroupSnapshot {group:?}; its snapshots go with it"),
            ),
        };
        Explanation::new(self.reason(), self.to_string(), actor, advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_names_who_has_to_act_and_what_with() {
        let name = || "x".to_string();
        let several = Why::SeveralDefaultClasses {
            driver: name(),
            classes: vec!["a".to_string(), "b".to_string()],
        };
        let misbound = Why::ContentMisbound {
            content: name(),
            namespace: "ns".to_string(),
            name: "s".to_string(),
        };
        let foreign = Why::ForeignClass {
            class: name(),
            class_driver: "d1".to_string(),
            volume_driver: "d2".to_string(),
        };
        let cases = [
            (Why::Source, Actor::User, "exactly one source"),
            (
                Why::NoClass(name()),
                Actor::Admin,
                "create VolumeSnapshotClass \"x\"",
            ),
            (Why::NoDefaultClass(name()), Actor::User, "name a class"),
            (several, Actor::Admin, "leave one"),
            (Why::ContentMissing(name()), Actor::User, "take a new one"),
            (Why::Misbound(name()), Actor::User, "take a new one"),
            (misbound, Actor::Admin, "name each other"),
            (Why::ContentIsStatic(name()), Actor::Admin, "name each other"),
            (Why::ContentIsDynamic(name()), Actor::Admin, "name each other"),
            (Why::NoClaim(name()), Actor::User, "gone or going"),
            (Why::ClaimDeleting(name()), Actor::User, "gone or going"),
            (Why::ClaimNotBound(name()), Actor::User, "moorline diagnose pvc x"),
            (
                Why::VolumeMisbound(name()),
                Actor::User,
                "moorline diagnose pvc x",
            ),
            (Why::NotCsi(name()), Actor::User, "another way"),
            (Why::NoNode(name()), Actor::Admin, "nodeAffinity allows"),
            (foreign, Actor::User, "a class of driver \"d2\""),
            (Why::Restoring, Actor::Provisioner, "being filled"),
            (Why::InGroup(name()), Actor::User, "VolumeGroupSnapshot \"x\""),
        ];
        for (why, actor, advice) in cases {
            let found = why.explanation();
            assert_eq!((found.reason, found.actor), (why.reason(), actor), "{why:?}");
            assert_eq!(found.message, why.to_string());
            assert!(found.advice.contains(advice), "{why:?}: {}", found.advice);
        }
    }
}

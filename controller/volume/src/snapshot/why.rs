//! Why a snapshot gets no further now. The reasons of events are upstream's.

use moorline_model::secret_template::TemplateError;
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
            Why::Restoring => "SnapshotDeletePending",
        }
    }

    /// Whether it is written into the snapshot's status, with `readyToUse: false`; else it is only told.
    pub fn is_in_status(&self) -> bool {
        !matches!(self, Why::Restoring)
    }
}

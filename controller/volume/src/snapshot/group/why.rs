//! Why a group snapshot gets no further now. The reasons of events are upstream's.

use moorline_model::label_selector::SelectorError;
use moorline_model::secret_template::TemplateError;
use thiserror::Error;

use super::super::why::Why as SnapshotWhy;

/// The trouble with a group snapshot; displayed, it is what users read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// Neither source or both.
    #[error("exactly one of spec.source.selector and spec.source.volumeGroupSnapshotContentName must be set")]
    Source,
    /// The selector is malformed.
    #[error("spec.source.selector: {0}")]
    Selector(#[from] SelectorError),
    /// The named class doesn't exist.
    #[error("VolumeGroupSnapshotClass {0:?} not found")]
    NoClass(String),
    /// No class is named, and the driver has no default one.
    #[error(
        "cannot find default group snapshot class: no VolumeGroupSnapshotClass of driver {0:?} is marked as default; name one in spec.volumeGroupSnapshotClassName"
    )]
    NoDefaultClass(String),
    /// No class is named, and the driver has several default ones.
    #[error("{} default group snapshot classes were found for driver {driver:?}: {}", .classes.len(), .classes.join(", "))]
    SeveralDefaultClasses {
        /// The volumes' driver.
        driver: String,
        /// Names of the classes, sorted.
        classes: Vec<String>,
    },
    /// The content that it is, or shall be, bound to doesn't exist.
    #[error("VolumeGroupSnapshotContent {0:?} is missing")]
    ContentMissing(String),
    /// The content of a bound group snapshot points elsewhere.
    #[error("VolumeGroupSnapshotContent {0:?} is not bound to the VolumeGroupSnapshot correctly")]
    Misbound(String),
    /// The content belongs, or is reserved, to another group snapshot.
    #[error(
        "VolumeGroupSnapshotContent {content:?} is bound to a different group snapshot: {namespace}/{name}"
    )]
    ContentMisbound {
        /// The content's name.
        content: String,
        /// Namespace of the group snapshot that it names.
        namespace: String,
        /// Name of the group snapshot that it names.
        name: String,
    },
    /// A content to be made by us was expected.
    #[error(
        "VolumeGroupSnapshotContent {0:?} is pre-provisioned while a dynamically provisioned one is expected"
    )]
    ContentIsStatic(String),
    /// A pre-provisioned content was expected.
    #[error(
        "VolumeGroupSnapshotContent {0:?} is dynamically provisioned while a pre-provisioned one is expected"
    )]
    ContentIsDynamic(String),
    /// No claim of the namespace has the labels.
    #[error("failed to create group snapshot content: spec.source.selector selects no PersistentVolumeClaim")]
    NoClaims,
    /// One of the claims is in the way.
    #[error("group snapshot: {0}")]
    Claim(#[from] SnapshotWhy),
    /// The class is for another driver.
    #[error(
        "failed to create group snapshot content: VolumeGroupSnapshotClass {class:?} is for driver {class_driver:?}, the volume of PersistentVolumeClaim {claim:?} belongs to driver {volume_driver:?}"
    )]
    ForeignClass {
        /// The class's name.
        class: String,
        /// Its driver.
        class_driver: String,
        /// The claim.
        claim: String,
        /// Its volume's driver.
        volume_driver: String,
    },
    /// The class's secrets can't be resolved.
    #[error("failed to create group snapshot content: {0}")]
    Secret(#[from] TemplateError),
    /// The content of a member belongs to another snapshot.
    #[error(
        "VolumeSnapshotContent {0:?}, of a member of the group snapshot, is bound to a different snapshot"
    )]
    MemberMisbound(String),
    /// It can't be deleted: a claim is being filled from one of its members.
    #[error("Snapshot {0} belonging to the group snapshot is being used to restore a PVC")]
    Restoring(String),
}

impl Why {
    /// The event's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Why::Source | Why::Selector(_) => "GroupSnapshotValidationError",
            Why::NoClass(_) => "GetGroupSnapshotClassFailed",
            Why::NoDefaultClass(_) | Why::SeveralDefaultClasses { .. } => {
                "SetDefaultGroupSnapshotClassFailed"
            }
            Why::ContentMissing(_) => "GroupSnapshotContentMissing",
            Why::Misbound(_) => "GroupSnapshotMisbound",
            Why::ContentMisbound { .. } => "GroupSnapshotContentMisbound",
            Why::ContentIsStatic(_) | Why::ContentIsDynamic(_) => "GroupSnapshotContentMismatch",
            Why::NoClaims | Why::Claim(_) | Why::ForeignClass { .. } | Why::Secret(_) => {
                "GroupSnapshotContentCreationFailed"
            }
            Why::MemberMisbound(_) => "GroupSnapshotBindFailed",
            Why::Restoring(_) => "SnapshotDeletePending",
        }
    }

    /// Whether it is written into the group snapshot's status, with `readyToUse: false`; else it is only told.
    pub fn is_in_status(&self) -> bool {
        !matches!(self, Why::Restoring(_))
    }
}

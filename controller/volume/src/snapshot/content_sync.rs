//! What the snapshot controller has to do about one content. Pure.

use moorline_model::keys;
use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotContent};

use crate::finalizer;

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentNext {
    /// Nothing until something changes.
    Settled,
    /// The sidecar takes it off when the snapshot in the backend is dealt with.
    AddFinalizer,
    /// Its snapshot is being deleted: the sidecar may delete, too.
    MarkBeingDeleted,
    /// Neither source or both: told as `ContentValidationError`.
    Refuse,
}

/// Decides. `snapshot` is the one of the name that the content refers to.
pub fn decide(content: &VolumeSnapshotContent, snapshot: Option<&VolumeSnapshot>) -> ContentNext {
    let source = &content.spec.source;
    if source.volume_handle.is_some() == source.snapshot_handle.is_some() {
        return ContentNext::Refuse;
    }
    let reference = &content.spec.volume_snapshot_ref;
    if reference.uid.as_deref().unwrap_or_default().is_empty() {
        // Reserved, and not yet bound.
        return ContentNext::Settled;
    }
    // A snapshot that is not there says nothing: contents copied from another cluster must not lose their data.
    let is_going = snapshot
        .filter(|snapshot| content.points_to(snapshot))
        .is_some_and(|snapshot| snapshot.metadata.deletion_timestamp.is_some());
    if is_going && !content.is_being_deleted() {
        return ContentNext::MarkBeingDeleted;
    }
    let is_protected = finalizer::is_present(&content.metadata, keys::SNAPSHOT_CONTENT_BOUND_PROTECTION);
    if content.metadata.deletion_timestamp.is_none() && !is_protected {
        return ContentNext::AddFinalizer;
    }
    ContentNext::Settled
}

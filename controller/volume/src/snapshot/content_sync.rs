//! What the snapshot controller has to do about one content, of a snapshot or of a group of them. Pure.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use moorline_model::group_snapshot::{VolumeGroupSnapshot, VolumeGroupSnapshotContent};
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

/// What is seen of a content, whatever its kind.
struct Facts<'a> {
    meta: &'a ObjectMeta,
    has_one_source: bool,
    reference: &'a ObjectReference,
    /// Whether what it is bound to is being deleted. What is not there says nothing: contents copied from another cluster
    /// must not lose their data.
    is_wish_going: bool,
    is_being_deleted: bool,
    finalizer: &'static str,
}

/// Decides. `snapshot` is the one of the name that the content refers to; `is_restoring`: an unbound claim waits to be
/// filled from it.
pub fn decide(
    content: &VolumeSnapshotContent,
    snapshot: Option<&VolumeSnapshot>,
    is_restoring: bool,
) -> ContentNext {
    let source = &content.spec.source;
    // A content that somebody has deleted by hand would lose its data with the mark.
    let snapshot = snapshot
        .filter(|snapshot| content.points_to(snapshot) && !is_restoring && !snapshot.is_held_as_source());
    decide_on(&Facts {
        meta: &content.metadata,
        has_one_source: source.volume_handle.is_some() != source.snapshot_handle.is_some(),
        reference: &content.spec.volume_snapshot_ref,
        is_wish_going: snapshot.is_some_and(|snapshot| snapshot.metadata.deletion_timestamp.is_some()),
        is_being_deleted: content.is_being_deleted(),
        finalizer: keys::SNAPSHOT_CONTENT_BOUND_PROTECTION,
    })
}

/// Decides. `group` is the one of the name that the content refers to.
pub fn decide_group(
    content: &VolumeGroupSnapshotContent,
    group: Option<&VolumeGroupSnapshot>,
) -> ContentNext {
    let group = group.filter(|group| content.points_to(group));
    decide_on(&Facts {
        meta: &content.metadata,
        has_one_source: content.has_one_source(),
        reference: &content.spec.volume_group_snapshot_ref,
        is_wish_going: group.is_some_and(|group| group.metadata.deletion_timestamp.is_some()),
        is_being_deleted: content.is_being_deleted(),
        finalizer: keys::GROUP_SNAPSHOT_CONTENT_BOUND_PROTECTION,
    })
}

fn decide_on(facts: &Facts<'_>) -> ContentNext {
    if !facts.has_one_source {
        return ContentNext::Refuse;
    }
    if facts.reference.uid.as_deref().unwrap_or_default().is_empty() {
        // Reserved, and not yet bound.
        return ContentNext::Settled;
    }
    if facts.is_wish_going && !facts.is_being_deleted {
        return ContentNext::MarkBeingDeleted;
    }
    let is_protected = finalizer::is_present(facts.meta, facts.finalizer);
    if facts.meta.deletion_timestamp.is_none() && !is_protected {
        return ContentNext::AddFinalizer;
    }
    ContentNext::Settled
}

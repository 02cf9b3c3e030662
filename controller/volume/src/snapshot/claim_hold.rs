//! How long a claim is kept for the sake of the snapshots that are being cut of it. Pure.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use moorline_model::claim;
use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotContent};

/// Whether a snapshot holds the claim that it is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The volume may be read now, or will be soon.
    Held,
    /// The snapshot is done, or will never be, or has not begun.
    Free,
}

/// Whether one snapshot, with its content if that points back, holds its source claim.
pub(super) fn hold(
    snapshot: &VolumeSnapshot,
    content: Option<&VolumeSnapshotContent>,
    claim: &PersistentVolumeClaim,
) -> Hold {
    let is_going = snapshot.metadata.deletion_timestamp.is_some();
    let is_held = match content.filter(|content| content.points_to(snapshot)) {
        // It can't begin any more once the claim is being deleted.
        None => {
            !is_going && snapshot.bound_content().is_none() && claim.metadata.deletion_timestamp.is_none()
        }
        Some(content) if content.is_being_created() => true,
        Some(_) if is_going || snapshot.is_ready() => false,
        Some(content) => {
            let status = content.status.as_ref();
            let is_refused =
                status.is_some_and(|status| status.error.is_some()) && content.handle().is_none();
            // The driver has said no for good: its next try needs the claim no more than this one did.
            !is_refused && status.and_then(|status| status.ready_to_use) != Some(true)
        }
    };
    if is_held { Hold::Held } else { Hold::Free }
}

/// Whether the claim may go, given the snapshots taken of it with their contents.
pub fn may_release<'a>(
    claim: &PersistentVolumeClaim,
    snapshots: impl IntoIterator<Item = (&'a VolumeSnapshot, Option<&'a VolumeSnapshotContent>)>,
) -> bool {
    snapshots
        .into_iter()
        .all(|(snapshot, content)| hold(snapshot, content, claim) == Hold::Free)
}
/// Whether a claim may still be filled from the snapshot that it names.
pub fn is_waiting(claim: &PersistentVolumeClaim) -> bool {
    claim::volume_name(claim).is_none()
        && matches!(claim::phase(claim), None | Some(claim::ClaimPhase::Pending))
}

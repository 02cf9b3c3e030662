//! How long a claim is kept for the sake of the snapshots that are being cut of it. Pure.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use moorline_model::claim;
use moorline_model::group_snapshot::{VolumeGroupSnapshot, VolumeGroupSnapshotContent};
use moorline_model::label_selector::Selector;
use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotContent};

/// Whether a snapshot holds the claim that it is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The volume may be read now, or will be soon.
    Held,
    /// The snapshot is done, or will never be, or has not begun.
    Free,
}

/// How far a wish for a snapshot, or for a group of them, has come.
struct Cut {
    is_going: bool,
    is_bound: bool,
    is_ready: bool,
    content: Option<CutContent>,
}

/// How far its content has come.
struct CutContent {
    is_being_created: bool,
    has_handle: bool,
    has_error: bool,
    is_ready: bool,
}

fn hold_for(cut: &Cut, claim: &PersistentVolumeClaim) -> Hold {
    let is_held = match &cut.content {
        // It can't begin any more once the claim is being deleted.
        None => !cut.is_going && !cut.is_bound && claim.metadata.deletion_timestamp.is_none(),
        Some(content) if content.is_being_created => true,
        Some(_) if cut.is_going || cut.is_ready => false,
        // The driver has said no for good: its next try needs the claim no more than this one did.
        Some(content) if content.has_error && !content.has_handle => false,
        Some(content) => !content.is_ready,
    };
    if is_held { Hold::Held } else { Hold::Free }
}

/// Whether one snapshot, with its content if that points back, holds its source claim.
pub(super) fn hold(
    snapshot: &VolumeSnapshot,
    content: Option<&VolumeSnapshotContent>,
    claim: &PersistentVolumeClaim,
) -> Hold {
    // The member of a group is cut with the group, which holds the claim.
    if snapshot.group().is_some() {
        return Hold::Free;
    }
    let content = content.filter(|content| content.points_to(snapshot));
    let cut = Cut {
        is_going: snapshot.metadata.deletion_timestamp.is_some(),
        is_bound: snapshot.bound_content().is_some(),
        is_ready: snapshot.is_ready(),
        content: content.map(|content| {
            let status = content.status.as_ref();
            CutContent {
                is_being_created: content.is_being_created(),
                has_handle: content.handle().is_some(),
                has_error: status.is_some_and(|status| status.error.is_some()),
                is_ready: status.and_then(|status| status.ready_to_use) == Some(true),
            }
        }),
    };
    hold_for(&cut, claim)
}

/// Whether one group snapshot, with its content if that points back, holds a claim of its namespace, whose volume is `pv`.
pub fn group_hold(
    group: &VolumeGroupSnapshot,
    content: Option<&VolumeGroupSnapshotContent>,
    claim: &PersistentVolumeClaim,
    pv: Option<&PersistentVolume>,
) -> Hold {
    let content = content.filter(|content| content.points_to(group));
    let is_source = match content {
        Some(content) => pv.is_some_and(|pv| is_source(content, pv)),
        None => {
            let selector = group.spec.source.selector.as_ref();
            let selector = selector.and_then(|selector| Selector::parse(selector).ok());
            selector.is_some_and(|selector| selector.matches(claim.metadata.labels.as_ref()))
        }
    };
    if !is_source {
        return Hold::Free;
    }
    let cut = Cut {
        is_going: group.metadata.deletion_timestamp.is_some(),
        is_bound: group.bound_content().is_some(),
        is_ready: group.is_ready(),
        content: content.map(|content| CutContent {
            is_being_created: content.is_being_created(),
            has_handle: content.handle().is_some(),
            has_error: content
                .status
                .as_ref()
                .is_some_and(|status| status.error.is_some()),
            is_ready: content.is_ready(),
        }),
    };
    hold_for(&cut, claim)
}

fn is_source(content: &VolumeGroupSnapshotContent, pv: &PersistentVolume) -> bool {
    let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    csi.is_some_and(|csi| {
        csi.driver == content.spec.driver && content.volume_handles().contains(&csi.volume_handle)
    })
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

//! What to do next about one volume of the node. Pure.
//!
//! ```text
//!  per mount:   No ──publish──> Yes ──released──> unpublish ──> No
//!                │ └─failed, not final─> Uncertain ─┘ (also: publish again while wanted)
//!  per volume:  No ──stage──> Yes ──no mount left──> unstage ──> No
//! ```

use std::collections::BTreeSet;

use super::actual::Mounted;
use super::spec::MountId;

/// What there is to know about one mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountSeen {
    pub id: MountId,
    pub state: Mounted,
    pub is_wanted: bool,
    /// The pod's containers are dead.
    pub is_released: bool,
    pub is_stale: bool,
}

/// Whether the volume may be used on this node yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attachment {
    /// Not a matter for this volume.
    NotNeeded,
    /// The Node doesn't name it in `volumesInUse` yet.
    NotReportedInUse,
    /// The Node doesn't name it in `volumesAttached`, or its VolumeAttachment isn't there yet.
    Awaited,
    /// Attaching failed; the attacher goes on trying.
    Failed(String),
    Attached,
}

/// Everything a decision about a volume rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The driver stages volumes. None: driver not registered, so neither known.
    pub stages: Option<bool>,
    /// No driver is involved at all.
    pub is_local: bool,
    pub attachment: Attachment,
    pub device: Mounted,
    /// The staged device must be shown to the driver again (a restart lost what we knew).
    pub mounts: Vec<MountSeen>,
    /// Only one pod at a time.
    pub is_single_pod: bool,
    /// A published volume of the node waits for its file system to grow.
    pub needs_expansion: bool,
    /// Pods of the API are all known: what no pod wants may go.
    pub is_settled: bool,
}

/// One step. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Unpublish(MountId),
    Stage,
    Publish(MountId),
    Expand,
    Unstage,
}

/// Why nothing can be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// The driver has to register first.
    Driver,
    /// The Node's status has to name the volume first, or the attacher to act.
    Attachment(Attachment),
    /// Another pod of this node holds it.
    SinglePod(MountId),
}

/// The outcome of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    Settled,
    Do(Action),
    Wait(Why),
}

/// `failed` are the actions that failed in this round: others get their turn before they are tried again.
pub(crate) fn decide(seen: &Seen, failed: &BTreeSet<Action>) -> Next {
    if let Some(action) = tear_down_mount(seen, failed) {
        return needs_driver(seen, action);
    }
    let wanted: Vec<&MountSeen> = seen.mounts.iter().filter(|mount| mount.is_wanted).collect();
    if wanted.is_empty() {
        return tear_down_device(seen, failed);
    }
    let pending: Vec<&MountSeen> = wanted
        .into_iter()
        .filter(|mount| mount.state != Mounted::Yes || mount.is_stale)
        .collect();
    if !pending.is_empty()
        && let Some(next) = set_up(seen, &pending, failed)
    {
        return next;
    }
    let is_published = seen.mounts.iter().any(|mount| mount.state == Mounted::Yes);
    if seen.needs_expansion && is_published && !failed.contains(&Action::Expand) {
        return needs_driver(seen, Action::Expand);
    }
    Next::Settled
}

/// The first mount of a released pod, whatever is known of it.
fn tear_down_mount(seen: &Seen, failed: &BTreeSet<Action>) -> Option<Action> {
    let gone = seen
        .mounts
        .iter()
        .filter(|mount| mount.is_released && !mount.is_wanted && mount.state != Mounted::No);
    gone.map(|mount| Action::Unpublish(mount.id.clone()))
        .find(|action| !failed.contains(action))
}

fn tear_down_device(seen: &Seen, failed: &BTreeSet<Action>) -> Next {
    // A mount whose pod is not released keeps the device: its containers may live.
    let is_used = seen.mounts.iter().any(|mount| mount.state != Mounted::No);
    let is_there = seen.device != Mounted::No;
    if is_used || !is_there || !seen.is_settled || failed.contains(&Action::Unstage) {
        return Next::Settled;
    }
    needs_driver(seen, Action::Unstage)
}

fn needs_driver(seen: &Seen, action: Action) -> Next {
    if seen.is_local || seen.stages.is_some() {
        Next::Do(action)
    } else {
        Next::Wait(Why::Driver)
    }
}

/// The next step towards the pending mounts; `None` when all of them failed in this round.
fn set_up(seen: &Seen, pending: &[&MountSeen], failed: &BTreeSet<Action>) -> Option<Next> {
    let publish = pending
        .iter()
        .map(|mount| Action::Publish(mount.id.clone()))
        .find(|action| !failed.contains(action));
    if seen.is_local {
        return publish.map(Next::Do);
    }
    let Some(stages) = seen.stages else {
        return Some(Next::Wait(Why::Driver));
    };
    match &seen.attachment {
        Attachment::NotNeeded | Attachment::Attached => {}
        waiting => return Some(Next::Wait(Why::Attachment(waiting.clone()))),
    }
    if seen.is_single_pod
        && let Some(holder) = other_holder(seen, pending)
    {
        return Some(Next::Wait(Why::SinglePod(holder)));
    }
    match (stages, seen.device) {
        // Not staged, or not known to be.
        (true, Mounted::No | Mounted::Uncertain) if failed.contains(&Action::Stage) => None,
        (true, Mounted::No | Mounted::Uncertain) => Some(Next::Do(Action::Stage)),
        // Staged, or nothing to stage.
        (true, Mounted::Yes) | (false, Mounted::No | Mounted::Uncertain | Mounted::Yes) => {
            publish.map(Next::Do)
        }
    }
}

/// A pod other than the pending one for which the volume is, or may be, mounted.
fn other_holder(seen: &Seen, pending: &[&MountSeen]) -> Option<MountId> {
    let first = pending.first()?;
    let holds = |mount: &&MountSeen| mount.state != Mounted::No && mount.id.pod_uid != first.id.pod_uid;
    seen.mounts.iter().find(holds).map(|mount| mount.id.clone())
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

//! What the status of a snapshot, or of a group of them, says, given its content. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use moorline_model::group_snapshot::{
    VolumeGroupSnapshot, VolumeGroupSnapshotContent, VolumeGroupSnapshotStatus,
};
use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotContent, VolumeSnapshotStatus};
use moorline_model::{Amount, mutant};

/// What users are told when a status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The snapshot was cut.
    Created,
    /// Volumes can be made from it.
    Ready,
}

impl News {
    /// The event's reason.
    pub fn reason(self) -> &'static str {
        match self {
            News::Created => "SnapshotCreated",
            News::Ready => "SnapshotReady",
        }
    }

    /// The event's reason, of a group snapshot.
    pub fn group_reason(self) -> &'static str {
        match self {
            News::Created => "GroupSnapshotCreated",
            News::Ready => "GroupSnapshotReady",
        }
    }

    /// What is told of what is called `what`.
    pub(super) fn message(self, what: &str) -> String {
        match self {
            News::Created => format!("{what} was successfully created by the CSI driver."),
            News::Ready => format!("{what} is ready to use."),
        }
    }
}

fn news(was_cut: bool, is_cut: bool, was_ready: bool, is_ready: bool) -> Vec<News> {
    let mut news = Vec::new();
    if !was_cut && is_cut {
        news.push(News::Created);
    }
    if is_ready && !was_ready {
        news.push(News::Ready);
    }
    news
}

/// The status of a snapshot that is bound to `content`, both ways, and what is new in it. `group_name` is the group
/// snapshot whose handle the content has.
pub fn project(
    snapshot: &VolumeSnapshot,
    content: &VolumeSnapshotContent,
    group_name: Option<&str>,
) -> (VolumeSnapshotStatus, Vec<News>) {
    let old = snapshot.status.clone().unwrap_or_default();
    let seen = content.status.clone().unwrap_or_default();
    let is_ready = seen.ready_to_use.unwrap_or(false) || mutant::is_on("ready-too-soon");
    let creation_time = seen
        .creation_time
        .and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok())
        .map(in_seconds);
    let status = VolumeSnapshotStatus {
        bound_volume_snapshot_content_name: content.metadata.name.clone(),
        creation_time: creation_time.or_else(|| old.creation_time.clone()),
        ready_to_use: Some(is_ready),
        restore_size: seen
            .restore_size
            .map(|bytes| Amount::from_bytes(bytes).to_quantity())
            .or_else(|| old.restore_size.clone()),
        error: if is_ready { None } else { seen.error },
        volume_group_snapshot_name: snapshot.group_name().or(group_name).map(str::to_string),
    };
    let (was_cut, is_cut) = (old.creation_time.is_some(), status.creation_time.is_some());
    let news = news(was_cut, is_cut, snapshot.is_ready(), is_ready);
    (status, news)
}

/// The same of a group snapshot.
pub fn project_group(
    group: &VolumeGroupSnapshot,
    content: &VolumeGroupSnapshotContent,
) -> (VolumeGroupSnapshotStatus, Vec<News>) {
    let old = group.status.clone().unwrap_or_default();
    let seen = content.status.clone().unwrap_or_default();
    let is_ready = seen.ready_to_use.unwrap_or(false);
    let creation_time = seen.creation_time.map(|time| in_seconds(time.0));
    let status = VolumeGroupSnapshotStatus {
        bound_volume_group_snapshot_content_name: content.metadata.name.clone(),
        creation_time: creation_time.or_else(|| old.creation_time.clone()),
        ready_to_use: Some(is_ready),
        error: if is_ready { None } else { seen.error },
    };
    let (was_cut, is_cut) = (old.creation_time.is_some(), status.creation_time.is_some());
    let news = news(was_cut, is_cut, group.is_ready(), is_ready);
    (status, news)
}

/// The API keeps whole seconds: with more, what was written would never equal what is to be written.
fn in_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

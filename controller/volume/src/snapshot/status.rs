//! What a snapshot's status says, given its content. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
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
}

/// The status of a snapshot that is bound to `content`, both ways, and what is new in it.
pub fn project(
    snapshot: &VolumeSnapshot,
    content: &VolumeSnapshotContent,
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
        volume_group_snapshot_name: old.volume_group_snapshot_name.clone(),
    };
    let mut news = Vec::new();
    if old.creation_time.is_none() && status.creation_time.is_some() {
        news.push(News::Created);
    }
    if is_ready && !snapshot.is_ready() {
        news.push(News::Ready);
    }
    (status, news)
}

/// The API keeps whole seconds: with more, what was written would never equal what is to be written.
fn in_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

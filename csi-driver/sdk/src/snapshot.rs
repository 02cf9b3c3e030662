//! What a driver answers about snapshots.

pub use jiff::Timestamp;
use moorline_proto::csi;

use crate::{
    DriverError,
    request::{GroupSnapshotId, SnapshotId, VolumeId},
    volume::bytes,
};

/// A snapshot as the driver knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id: unique for this driver, never changing.
    pub snapshot_id: SnapshotId,
    /// Of which volume it is; that may be gone.
    pub source_volume_id: VolumeId,
    /// A volume made from it has at least this size. 0: not known.
    pub size_bytes: u64,
    /// When it was cut. Never changes.
    pub created_at: Timestamp,
    /// Can volumes be made from it already? It is cut in any case.
    pub is_ready: bool,
    /// The group that it was cut with.
    pub group_snapshot_id: Option<GroupSnapshotId>,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotPage {
    /// The entries.
    pub entries: Vec<Snapshot>,
    /// Where the next page begins, if there is one.
    pub next_token: Option<String>,
}

/// Snapshots of several volumes, cut at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSnapshot {
    /// Its id: unique for this driver, never changing.
    pub group_snapshot_id: GroupSnapshotId,
    /// Its members; their `group_snapshot_id` is this one.
    pub snapshots: Vec<Snapshot>,
    /// When it was cut.
    pub created_at: Timestamp,
    /// Can volumes be made from all of them already?
    pub is_ready: bool,
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    // Before 1970 jiff counts both fields downwards, protobuf wants the nanoseconds upwards.
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        prost_types::Timestamp {
            seconds: seconds - 1,
            nanos: nanos + 1_000_000_000,
        }
    } else {
        prost_types::Timestamp { seconds, nanos }
    }
}

impl TryFrom<Snapshot> for csi::Snapshot {
    type Error = DriverError;

    fn try_from(snapshot: Snapshot) -> Result<Self, DriverError> {
        Ok(csi::Snapshot {
            size_bytes: bytes(snapshot.size_bytes)?,
            snapshot_id: snapshot.snapshot_id.into(),
            source_volume_id: snapshot.source_volume_id.into(),
            creation_time: Some(timestamp(snapshot.created_at)),
            ready_to_use: snapshot.is_ready,
            group_snapshot_id: snapshot.group_snapshot_id.map(String::from).unwrap_or_default(),
        })
    }
}

impl TryFrom<GroupSnapshot> for csi::VolumeGroupSnapshot {
    type Error = DriverError;

    fn try_from(group: GroupSnapshot) -> Result<Self, DriverError> {
        let snapshots = group.snapshots.into_iter().map(|snapshot| {
            csi::Snapshot::try_from(Snapshot {
                group_snapshot_id: Some(group.group_snapshot_id.clone()),
                ..snapshot
            })
        });
        Ok(csi::VolumeGroupSnapshot {
            snapshots: snapshots.collect::<Result<_, _>>()?,
            group_snapshot_id: group.group_snapshot_id.into(),
            creation_time: Some(timestamp(group.created_at)),
            ready_to_use: group.is_ready,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_are_spelled_as_protobuf_wants() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("1970-01-01T00:00:01.5Z", 1, 500_000_000),
            ("1969-12-31T23:59:58.5Z", -2, 500_000_000),
        ];
        for (text, seconds, nanos) in cases {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!(
                timestamp(time),
                prost_types::Timestamp { seconds, nanos },
                "{text}"
            );
        }
    }
}

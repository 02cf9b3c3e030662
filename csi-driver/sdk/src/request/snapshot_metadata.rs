//! Requests to the snapshot metadata service.

use moorline_proto::csi;

use super::{Secrets, SnapshotId, field};
use crate::DriverError;

/// From where, and how much in one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockWindow {
    /// Ranges that end at or before this offset in bytes are not wanted; 0 for all, more to go on after a break.
    pub starting_offset: u64,
    /// At most this many ranges in a message. The sink sees to it.
    pub max_results: Option<usize>,
}

impl BlockWindow {
    fn parse(starting_offset: i64, max_results: i32) -> Result<Self, DriverError> {
        Ok(BlockWindow {
            starting_offset: u64::try_from(starting_offset).map_err(|_| {
                DriverError::invalid(format!("starting_offset {starting_offset} is negative"))
            })?,
            max_results: field::optional_count("max_results", max_results)?,
        })
    }
}

/// Which ranges of a snapshot hold data?
#[derive(Clone, Debug)]
pub struct AllocatedBlocks {
    /// Of which snapshot.
    pub snapshot_id: SnapshotId,
    /// Which of them.
    pub window: BlockWindow,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::GetMetadataAllocatedRequest> for AllocatedBlocks {
    type Error = DriverError;

    fn try_from(request: csi::GetMetadataAllocatedRequest) -> Result<Self, DriverError> {
        Ok(AllocatedBlocks {
            snapshot_id: SnapshotId::parse(request.snapshot_id)?,
            window: BlockWindow::parse(request.starting_offset, request.max_results)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// Which ranges of a snapshot differ from an earlier one of the same volume?
#[derive(Clone, Debug)]
pub struct ChangedBlocks {
    /// The earlier snapshot.
    pub base_snapshot_id: SnapshotId,
    /// The later one.
    pub target_snapshot_id: SnapshotId,
    /// Which of them.
    pub window: BlockWindow,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::GetMetadataDeltaRequest> for ChangedBlocks {
    type Error = DriverError;

    fn try_from(request: csi::GetMetadataDeltaRequest) -> Result<Self, DriverError> {
        Ok(ChangedBlocks {
            base_snapshot_id: SnapshotId::parse_field("base_snapshot_id", request.base_snapshot_id)?,
            target_snapshot_id: SnapshotId::parse_field("target_snapshot_id", request.target_snapshot_id)?,
            window: BlockWindow::parse(request.starting_offset, request.max_results)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

//! GetMetadataAllocated and GetMetadataDelta: which blocks of snapshots hold data, and which have changed.

use std::{path::PathBuf, sync::Arc};

use moorline_driver_sdk::{
    BlockKind, BlockSink, DriverError, ErrorKind, async_trait,
    request::{AllocatedBlocks, ChangedBlocks},
    traits::SnapshotMetadata,
};
use tokio_util::sync::CancellationToken;

use super::LocalController;
use crate::{
    backend::{self, Files},
    blocks::{self, BlocksError},
    record::SnapshotRecord,
};

impl LocalController {
    /// The snapshot and the file that holds its blocks.
    fn blocks_of(&self, snapshot_id: &str) -> Result<(Arc<SnapshotRecord>, PathBuf), DriverError> {
        let (member, record) = self.find::<SnapshotRecord>(snapshot_id)?;
        let directory = member.pool.snapshots.directory(snapshot_id);
        let files = Files {
            directory: &directory,
            content: record.content,
        };
        let image = backend::of_content(record.content).image(files);
        let image = image.ok_or_else(|| {
            DriverError::precondition(format!(
                "snapshot {snapshot_id} is {}, which has no blocks to tell of",
                record.content
            ))
        })?;
        Ok((record, image))
    }
}

fn check_offset(record: &SnapshotRecord, starting_offset: u64) -> Result<(), DriverError> {
    if starting_offset <= record.size_bytes {
        return Ok(());
    }
    Err(DriverError::out_of_range(format!(
        "starting_offset {starting_offset} is behind the end of the snapshot's {} bytes",
        record.size_bytes
    )))
}

/// Can the changes from one to the other be told? Pure.
fn check_pair(base: &SnapshotRecord, target: &SnapshotRecord) -> Result<(), DriverError> {
    if base.source_volume_id != target.source_volume_id {
        return Err(DriverError::invalid(format!(
            "snapshot {} is of volume {}, snapshot {} of {}",
            base.snapshot_id, base.source_volume_id, target.snapshot_id, target.source_volume_id
        )));
    }
    // A volume may have been removed and made again under its name.
    if base.content != target.content {
        return Err(DriverError::invalid(format!(
            "snapshot {} is {}, snapshot {} is {}",
            base.snapshot_id, base.content, target.snapshot_id, target.content
        )));
    }
    if base.created_at > target.created_at {
        return Err(DriverError::invalid(format!(
            "snapshot {} is younger than snapshot {}",
            base.snapshot_id, target.snapshot_id
        )));
    }
    Ok(())
}

fn answer(error: BlocksError) -> DriverError {
    match error {
        BlocksError::CallerGone(gone) => gone.into(),
        other => DriverError::new(ErrorKind::Internal, "find the blocks").caused_by(other),
    }
}

#[async_trait]
impl SnapshotMetadata for LocalController {
    async fn allocated_blocks(&self, request: AllocatedBlocks, to: BlockSink) -> Result<(), DriverError> {
        let (record, image) = self.blocks_of(request.snapshot_id.as_str())?;
        let start = request.window.starting_offset;
        check_offset(&record, start)?;
        to.set_layout(BlockKind::VariableLength, record.size_bytes);
        let work = move || {
            blocks::allocated(&image, start, record.size_bytes, |range| to.send_blocking(range))
                .map_err(answer)
        };
        self.blocking.run("find the allocated blocks", work).await?
    }

    async fn changed_blocks(&self, request: ChangedBlocks, to: BlockSink) -> Result<(), DriverError> {
        let (base, base_image) = self.blocks_of(request.base_snapshot_id.as_str())?;
        let (target, target_image) = self.blocks_of(request.target_snapshot_id.as_str())?;
        check_pair(&base, &target)?;
        let start = request.window.starting_offset;
        check_offset(&target, start)?;
        to.set_layout(BlockKind::VariableLength, target.size_bytes);
        // The caller's going drops this future, and that ends a search that finds nothing to send.
        let gone = CancellationToken::new();
        let _ends_with_the_caller = gone.clone().drop_guard();
        let work = move || {
            let go_on = || !gone.is_cancelled();
            let give = |range| to.send_blocking(range);
            blocks::changed(
                [&base_image, &target_image],
                start,
                target.size_bytes,
                go_on,
                give,
            )
            .map_err(answer)
        };
        self.blocking.run("find the changed blocks", work).await?
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::record::Content;

    #[test]
    fn changes_are_told_of_one_volume_forwards() {
        let snapshot = |source: &str, content, second| SnapshotRecord {
            source_volume_id: source.into(),
            content,
            created_at: Timestamp::from_second(second).unwrap(),
            ..crate::record::snapshot::tests::snapshot("s")
        };
        let block = Content::Block;
        let cases = [
            ("forwards", snapshot("v", block, 1), snapshot("v", block, 2), None),
            ("the same", snapshot("v", block, 1), snapshot("v", block, 1), None),
            (
                "backwards",
                snapshot("v", block, 2),
                snapshot("v", block, 1),
                Some("is younger than"),
            ),
            (
                "of two volumes",
                snapshot("v", block, 1),
                snapshot("w", block, 2),
                Some("is of volume v"),
            ),
            (
                "of a volume made again",
                snapshot("v", block, 1),
                snapshot("v", Content::Ext4, 2),
                Some("is a block device"),
            ),
        ];
        for (name, base, target, expected) in cases {
            match (check_pair(&base, &target), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(expected)) => {
                    assert!(error.to_string().contains(expected), "{name}: {error}")
                }
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }
}

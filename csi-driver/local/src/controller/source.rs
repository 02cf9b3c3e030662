//! Where the content of a new volume comes from: a snapshot or another volume.

use std::{path::PathBuf, sync::Arc};

use moorline_driver_sdk::DriverError;

use super::{LocalController, Member};
use crate::{
    backend::{self, Files, NewData},
    copying::Copying,
    cutting::Subject,
    record::{Content, Record, SnapshotRecord, Source},
};

/// A source that is there.
pub(super) enum FoundSource {
    Snapshot {
        record: Arc<SnapshotRecord>,
        directory: PathBuf,
    },
    Volume {
        member: Arc<Member>,
        record: Arc<Record>,
    },
}

impl LocalController {
    pub(super) fn find_source(&self, source: &Source) -> Result<FoundSource, DriverError> {
        match source {
            Source::Snapshot(snapshot_id) => {
                let (member, record) = self.find::<SnapshotRecord>(snapshot_id)?;
                let directory = member.pool.snapshots.directory(snapshot_id);
                Ok(FoundSource::Snapshot { record, directory })
            }
            Source::Volume(volume_id) => {
                let (member, record) = self.find::<Record>(volume_id)?;
                let member = Arc::clone(member);
                Ok(FoundSource::Volume { member, record })
            }
        }
    }
}

impl FoundSource {
    pub(super) fn size_bytes(&self) -> u64 {
        match self {
            FoundSource::Snapshot { record, .. } => record.size_bytes,
            FoundSource::Volume { record, .. } => record.capacity_bytes,
        }
    }

    pub(super) fn content(&self) -> Content {
        match self {
            FoundSource::Snapshot { record, .. } => record.content,
            FoundSource::Volume { record, .. } => record.content,
        }
    }

    /// Makes the data of a volume in `member` from it. Blocks.
    pub(super) fn fill(
        &self,
        member: &Member,
        files: Files<'_>,
        new: NewData,
        copying: &mut Copying,
    ) -> Result<(), DriverError> {
        let backend = backend::of_content(files.content);
        match self {
            FoundSource::Snapshot { record, directory } => {
                let from = Files {
                    directory,
                    content: record.content,
                };
                let made = backend.make_from(files, from, new, copying);
                made.map_err(|error| error.into_driver_error("make the volume from the snapshot"))
            }
            FoundSource::Volume {
                member: holder,
                record,
            } => {
                let subject = Subject::look(&holder.pool, record, &member.pool, false)?;
                subject.take(copying, |from, copying| {
                    backend.make_from(files, from, new, copying)
                })
            }
        }
    }
}

//! The controller's calls, a module each by what they are about.

mod capacity;
mod create;
mod delete;
mod expansion;
mod groups;
mod listing;
mod metadata;
mod reservation;
mod snapshots;
mod source;

use std::sync::Arc;

use moorline_driver_sdk::{
    DriverError,
    request::{ContentSource, SnapshotId, Topology, VolumeId},
    volume::Volume,
};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Files,
    blocking::Blocking,
    catalog::{Catalog, Kept},
    copying::{CopiedBytes, Copying},
    pool::Pool,
    record::{Record, Source},
};

pub(crate) struct LocalController {
    members: Vec<Arc<Member>>,
    blocking: Blocking,
    here: Topology,
    /// Long copies end with the driver.
    stop: CancellationToken,
    copied: CopiedBytes,
}

/// A pool, on disk and in memory.
pub(crate) struct Member {
    pub(crate) pool: Arc<Pool>,
    pub(crate) catalog: Catalog,
}

impl LocalController {
    pub(crate) fn new(
        members: Vec<Arc<Member>>,
        blocking: Blocking,
        here: Topology,
        stop: CancellationToken,
    ) -> Self {
        LocalController {
            members,
            blocking,
            here,
            stop,
            copied: CopiedBytes::default(),
        }
    }

    /// The pool with this name.
    fn member(&self, pool: &str) -> Result<&Arc<Member>, DriverError> {
        let found = self.members.iter().find(|member| member.pool.name() == pool);
        found.ok_or_else(|| {
            let names: Vec<_> = self.members.iter().map(|member| member.pool.name()).collect();
            DriverError::invalid(format!("there is no pool {pool}; there are {}", names.join(", ")))
        })
    }

    /// The pool that has this thing, served or not.
    fn member_with<R: Kept>(&self, id: &str) -> Option<&Arc<Member>> {
        self.members.iter().find(|member| member.catalog.has::<R>(id))
    }

    /// Something that is served, and its pool.
    fn find<R: Kept>(&self, id: &str) -> Result<(&Arc<Member>, Arc<R>), DriverError> {
        let member = self
            .member_with::<R>(id)
            .ok_or_else(|| DriverError::not_found(format!("there is no {} {id}", R::NOUN)))?;
        Ok((member, member.catalog.get(id)?))
    }

    /// The volume as the caller sees it.
    fn volume(&self, record: &Record) -> Result<Volume, DriverError> {
        let volume_id = VolumeId::parse(record.volume_id.to_string())?;
        let mut volume = Volume::new(volume_id, record.capacity_bytes);
        volume.accessible_topology = vec![self.here.clone()];
        volume.content_source = record.source.as_deref().map(content_source).transpose()?;
        Ok(volume)
    }

    fn copying(&self) -> Copying {
        Copying::new(self.stop.clone(), self.copied.clone())
    }
}

fn content_source(source: &Source) -> Result<ContentSource, DriverError> {
    Ok(match source {
        Source::Snapshot(snapshot_id) => ContentSource::Snapshot(SnapshotId::parse(snapshot_id.clone())?),
        Source::Volume(volume_id) => ContentSource::Volume(VolumeId::parse(volume_id.clone())?),
    })
}

/// The volume's directory and what is in it.
fn files_in<'a>(directory: &'a std::path::Path, record: &Record) -> Files<'a> {
    Files {
        directory,
        content: record.content,
    }
}

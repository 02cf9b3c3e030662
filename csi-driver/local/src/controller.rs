//! The controller's calls, a module each by what they are about.

mod attachment;
mod capacity;
mod create;
mod delete;
mod expansion;
mod groups;
mod leaving;
mod listing;
mod metadata;
mod modification;
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

pub(crate) use self::leaving::Leaving;
use crate::{
    backend::Files,
    blocking::Blocking,
    catalog::{Catalog, Kept},
    copying::{CopiedBytes, Copying},
    leases::Leases,
    pool::Pool,
    reach::Reach,
    record::{Record, Source},
};

pub(crate) struct LocalController {
    members: Vec<Arc<Member>>,
    blocking: Blocking,
    /// Where volumes can be made: this place alone.
    here: Topology,
    reach: Reach,
    /// Where several nodes share the pools.
    leases: Option<Arc<Leases>>,
    /// Long copies end with the driver.
    stop: CancellationToken,
    copied: CopiedBytes,
}

/// A pool, on disk and in memory.
pub(crate) struct Member {
    pub(crate) pool: Arc<Pool>,
    pub(crate) catalog: Catalog,
    pub(crate) leaving: Leaving,
}

impl Member {
    pub(crate) fn new(pool: Arc<Pool>, catalog: Catalog) -> Self {
        Member {
            pool,
            catalog,
            leaving: Leaving::default(),
        }
    }
}

impl LocalController {
    /// Reads the leases, where there are any. Blocks.
    pub(crate) fn new(
        members: Vec<Arc<Member>>,
        blocking: Blocking,
        reach: Reach,
        stop: CancellationToken,
        copied: CopiedBytes,
    ) -> Result<Self, DriverError> {
        let pools = || members.iter().map(|member| member.pool.as_ref());
        let here = reach.of_all(pools())?;
        let has_volume = |pool: &Pool, volume_id: &str| {
            let mut members = members.iter().filter(|member| member.pool.name() == pool.name());
            members.any(|member| member.catalog.has::<Record>(volume_id))
        };
        let leases = reach.is_shared().then(|| Leases::open(pools(), has_volume));
        let leases = leases.transpose()?.map(Arc::new);
        Ok(LocalController {
            members,
            blocking,
            here,
            reach,
            leases,
            stop,
            copied,
        })
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
        volume.accessible_topology = vec![match self.member_with::<Record>(&record.volume_id) {
            Some(member) => self.reach.of_pool(&member.pool)?,
            // It has just been deleted.
            None => self.here.clone(),
        }];
        volume.content_source = record.source.as_deref().map(content_source).transpose()?;
        Ok(volume)
    }

    /// Returns once the data of all volumes that are deleted by now has gone, but for what can't be removed: their room is
    /// free then.
    pub(crate) async fn all_have_left(&self) {
        for member in &self.members {
            member.all_have_left(&self.blocking).await;
        }
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

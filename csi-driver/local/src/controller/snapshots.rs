//! CreateSnapshot, DeleteSnapshot, ListSnapshots, GetSnapshot.

use std::{path::Path, sync::Arc};

use jiff::Timestamp;
use moorline_driver_sdk::{
    DriverError, async_trait,
    request::{
        CreateSnapshot, DeleteSnapshot, GetSnapshot, GroupSnapshotId, SnapshotId, SnapshotQuery, VolumeId,
    },
    snapshot::{Snapshot, SnapshotPage},
    traits::{SnapshotListing, SnapshotLookup, Snapshots},
};

use super::{LocalController, Member, listing, reservation::Reservation};
use crate::{
    backend::{self, Files},
    catalog::{Begin, Deleted, Promise},
    class::own_parameters,
    copying::Copying,
    cutting::Subject,
    failpoint,
    ids::snapshot_id_of,
    record::{Membership, Provisioning, Record, SnapshotRecord},
    room::Purpose,
};

/// The snapshot as the caller sees it.
pub(super) fn snapshot(record: &SnapshotRecord) -> Result<Snapshot, DriverError> {
    let group = record.group.as_deref();
    Ok(Snapshot {
        snapshot_id: SnapshotId::parse(record.snapshot_id.to_string())?,
        source_volume_id: VolumeId::parse(record.source_volume_id.to_string())?,
        size_bytes: record.size_bytes,
        created_at: record.created_at,
        is_ready: true,
        group_snapshot_id: group
            .map(|group| GroupSnapshotId::parse(group.group_id.clone()))
            .transpose()?,
    })
}

/// This driver's snapshots have no parameters: any is a mistake.
pub(super) fn refuse_parameters(
    parameters: moorline_driver_sdk::request::StringMap,
) -> Result<(), DriverError> {
    match own_parameters(parameters).keys().next() {
        None => Ok(()),
        Some(key) => Err(DriverError::invalid(format!(
            "parameter {key} is unknown; snapshots of this driver have none"
        ))),
    }
}

/// Is the snapshot that has the name the one that is asked for? Pure.
fn check_same(record: &SnapshotRecord, name: &str, source_volume_id: &str) -> Result<(), DriverError> {
    let differs = |what: String| {
        Err(DriverError::already_exists(format!(
            "snapshot {} exists, but {what}",
            record.name
        )))
    };
    if *record.name != *name {
        return differs(format!("not with the name {name}"));
    }
    if *record.source_volume_id != *source_volume_id {
        return differs(format!("of volume {}", record.source_volume_id));
    }
    Ok(())
}

/// A snapshot to be.
pub(super) struct Draft {
    pub(super) snapshot_id: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) group: Option<Box<Membership>>,
}

impl Draft {
    /// Reserves what it may come to hold, unless it is there. Blocks.
    pub(super) fn begin(
        &self,
        member: &Member,
        source: &Record,
    ) -> Result<Begin<SnapshotRecord>, DriverError> {
        let directory = member.pool.directory(&source.volume_id);
        let files = Files {
            directory: &directory,
            content: source.content,
        };
        let bytes = backend::of_content(source.content)
            .allocated_bytes(files)
            .map_err(|error| error.into_driver_error("measure the source volume"))?;
        let space = member.pool.space()?;
        // What a thick volume shares it must be able to get again.
        if source.provisioning == Provisioning::Thick && space.available_bytes < bytes {
            return Err(DriverError::exhausted(format!(
                "the pool has {} bytes free, not the {bytes} that a snapshot of a thick volume needs",
                space.available_bytes
            )));
        }
        let promise = Promise {
            purpose: Purpose::Snapshot,
            bytes,
        };
        member.catalog.begin_create(&self.snapshot_id, promise, space)
    }

    /// Puts the snapshot's data into `directory`, while the caller holds the source; gives its record. Blocks.
    pub(super) fn fill(
        &self,
        member: &Member,
        subject: &Subject,
        directory: &Path,
        copying: &mut Copying,
    ) -> Result<SnapshotRecord, DriverError> {
        let source = &subject.record;
        let backend = backend::of_content(source.content);
        let files = Files {
            directory,
            content: source.content,
        };
        let created_at = Timestamp::now();
        subject.take_held(copying, |from, copying| backend.cut(files, from, copying))?;
        let reserved_bytes = backend
            .allocated_bytes(files)
            .map_err(|error| error.into_driver_error("measure the snapshot"))?;
        Ok(SnapshotRecord {
            snapshot_id: Arc::clone(&self.snapshot_id),
            name: Arc::clone(&self.name),
            pool: member.pool.id(),
            source_volume_id: Arc::clone(&source.volume_id),
            size_bytes: source.capacity_bytes,
            reserved_bytes,
            content: source.content,
            group: self.group.clone(),
            created_at,
        })
    }
}

/// Cuts the snapshot, or finds it. Blocks.
fn create(
    member: &Arc<Member>,
    draft: &Draft,
    source: &Arc<Record>,
    copying: &mut Copying,
) -> Result<Arc<SnapshotRecord>, DriverError> {
    match draft.begin(member, source)? {
        Begin::Exists(found) => {
            check_same(&found, &draft.name, &source.volume_id)?;
            return Ok(found);
        }
        Begin::Create => {}
    }
    let reservation = Reservation::new(member, &draft.snapshot_id);
    let mut made = None;
    member.pool.snapshots.create(&draft.snapshot_id, |directory| {
        let subject = Subject::look(&member.pool, source, &member.pool, false)?;
        let held = subject.hold(copying)?;
        let record = draft.fill(member, &subject, directory, copying)?;
        failpoint::hit("cut::after_cut")?;
        held.release()?;
        failpoint::hit("cut::after_thaw")?;
        let bytes = record.to_bytes();
        made = Some(record);
        Ok(bytes)
    })?;
    let record = match made {
        Some(record) => record,
        // An earlier try was not sure of its success.
        None => member
            .pool
            .snapshots
            .read(&draft.snapshot_id, SnapshotRecord::read_of)?,
    };
    let record = reservation.made(record);
    check_same(&record, &draft.name, &source.volume_id)?;
    tracing::info!(
        snapshot.id = &*record.snapshot_id,
        volume.id = &*source.volume_id,
        pool = member.pool.name(),
        reserved_bytes = record.reserved_bytes,
        "Snapshot cut"
    );
    Ok(record)
}

#[async_trait]
impl Snapshots for LocalController {
    async fn create_snapshot(&self, request: CreateSnapshot) -> Result<Snapshot, DriverError> {
        refuse_parameters(request.parameters)?;
        let snapshot_id: Arc<str> = snapshot_id_of(&request.name).into();
        let source_volume_id = request.source_volume_id.as_str();
        if let Some(holder) = self.member_with::<SnapshotRecord>(&snapshot_id)
            && let Ok(record) = holder.catalog.get::<SnapshotRecord>(&snapshot_id)
        {
            // Also when its volume has gone since.
            check_same(&record, &request.name, source_volume_id)?;
            return snapshot(&record);
        }
        let (member, source) = self.find::<Record>(source_volume_id)?;
        let member = Arc::clone(member);
        let draft = Draft {
            name: if request.name == *snapshot_id {
                Arc::clone(&snapshot_id)
            } else {
                request.name.into()
            },
            snapshot_id,
            group: None,
        };
        member.all_have_left(&self.blocking).await;
        let mut copying = self.copying();
        let work = move || create(&member, &draft, &source, &mut copying);
        let record = self.blocking.run("cut the snapshot", work).await??;
        snapshot(&record)
    }

    async fn delete_snapshot(&self, request: DeleteSnapshot) -> Result<(), DriverError> {
        let snapshot_id = request.snapshot_id.as_str();
        let Some(member) = self.member_with::<SnapshotRecord>(snapshot_id) else {
            return self.delete_unlisted_snapshot(snapshot_id).await;
        };
        if let Ok(record) = member.catalog.get::<SnapshotRecord>(snapshot_id)
            && let Some(group) = record.group.as_deref()
        {
            return Err(DriverError::invalid(format!(
                "snapshot {snapshot_id} is part of group snapshot {} and goes with it",
                group.group_id
            )));
        }
        let Some(record) = member.catalog.begin_delete::<SnapshotRecord>(snapshot_id)? else {
            return Ok(());
        };
        let (deleting, taken) = (Arc::clone(member), Arc::clone(&record));
        let deleted = self
            .blocking
            .run("delete the snapshot", move || delete(&deleting, &taken))
            .await;
        let (end, result) = deleted.unwrap_or_else(|error| (Deleted::Left, Err(error)));
        member.catalog.finish_delete(&record, end);
        result?;
        tracing::info!(
            snapshot.id = snapshot_id,
            pool = member.pool.name(),
            "Snapshot deleted"
        );
        Ok(())
    }
}

impl LocalController {
    /// A cut whose end nobody knows may have left a snapshot that is in no catalog until the next start. Those of a group
    /// go with it.
    async fn delete_unlisted_snapshot(&self, snapshot_id: &str) -> Result<(), DriverError> {
        let members = self.members.clone();
        let snapshot_id = snapshot_id.to_owned();
        let work = move || {
            for member in members {
                match member.pool.snapshots.read(&snapshot_id, SnapshotRecord::read_of) {
                    Err(error) if error.is_not_there() => {}
                    Err(error) => return Err(error.into()),
                    Ok(record) if record.group.is_some() => {}
                    Ok(record) => delete(&member, &record).1?,
                }
            }
            Ok(())
        };
        self.blocking.run("delete what is in no catalog", work).await?
    }
}

/// Removes a snapshot from the pool. Blocks.
pub(super) fn delete(member: &Member, record: &SnapshotRecord) -> (Deleted, Result<(), DriverError>) {
    let shelf = &member.pool.snapshots;
    match shelf.delete(&record.snapshot_id) {
        Ok(()) => (Deleted::Gone, Ok(())),
        Err(error) if shelf.directory(&record.snapshot_id).exists() => (Deleted::Kept, Err(error.into())),
        Err(error) => (Deleted::Left, Err(error.into())),
    }
}

#[async_trait]
impl SnapshotListing for LocalController {
    async fn list_snapshots(&self, query: SnapshotQuery) -> Result<SnapshotPage, DriverError> {
        if let Some(snapshot_id) = &query.snapshot_id {
            let is_wanted = |record: &Arc<SnapshotRecord>| {
                let source = query.source_volume_id.as_ref();
                source.is_none_or(|source| *record.source_volume_id == *source.as_str())
            };
            let found = self.find::<SnapshotRecord>(snapshot_id.as_str());
            let found = found.ok().map(|(_, record)| record).filter(is_wanted);
            return Ok(SnapshotPage {
                entries: found
                    .iter()
                    .map(|record| snapshot(record))
                    .collect::<Result<_, _>>()?,
                next_token: None,
            });
        }
        let (start, count) = (listing::start(&query.page)?, listing::count(&query.page));
        let page_of = |member: &Arc<Member>| match &query.source_volume_id {
            Some(source) => member.catalog.page_of(source.as_str(), start, count),
            None => member.catalog.page(start, count),
        };
        let pages = self.members.iter().map(page_of).collect();
        let (records, next_token) =
            listing::merge(pages, count, |record: &SnapshotRecord| &record.snapshot_id);
        let entries = records.iter().map(|record| snapshot(record));
        Ok(SnapshotPage {
            entries: entries.collect::<Result<_, _>>()?,
            next_token,
        })
    }
}

#[async_trait]
impl SnapshotLookup for LocalController {
    async fn get_snapshot(&self, request: GetSnapshot) -> Result<Snapshot, DriverError> {
        let (_, record) = self.find::<SnapshotRecord>(request.snapshot_id.as_str())?;
        snapshot(&record)
    }
}

#[cfg(test)]
mod tests {
    use moorline_driver_sdk::ErrorKind;

    use super::*;

    #[test]
    fn a_name_that_is_taken_fits_or_is_a_conflict() {
        let record = crate::record::snapshot::tests::snapshot("s");
        let cases = [
            ("the same", "s", "pvc-1", None),
            ("a name of the same id", "t", "pvc-1", Some("not with the name t")),
            ("another volume", "s", "pvc-2", Some("of volume pvc-1")),
        ];
        for (name, asked, source, expected) in cases {
            match (check_same(&record, asked, source), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(expected)) => {
                    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{name}");
                    assert!(error.to_string().contains(expected), "{name}: {error}");
                }
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }
}

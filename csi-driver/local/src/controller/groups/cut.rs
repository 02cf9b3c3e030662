//! Cutting a group: all or nothing, at one moment.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use moorline_driver_sdk::{DriverError, ErrorKind};

use crate::{
    catalog::{Begin, Kept as _},
    controller::{Member, reservation::Reservation, snapshots::Draft},
    copying::Copying,
    cutting::{Held, Subject},
    failpoint,
    ids::member_id_of,
    pool::PoolError,
    record::{GroupRecord, Membership, Record, SnapshotRecord},
};

/// One volume of a group to be, and the id of its snapshot.
pub(super) struct Part {
    member: Arc<Member>,
    source: Arc<Record>,
    snapshot_id: Arc<str>,
}

/// A group to be.
pub(super) struct GroupDraft {
    /// The pool that keeps the group's record.
    pub(super) home: Arc<Member>,
    pub(super) group_id: Arc<str>,
    pub(super) name: String,
    pub(super) parts: Vec<Part>,
}

impl Part {
    pub(super) fn new(group_id: &str, member: &Arc<Member>, source: Arc<Record>) -> Self {
        Part {
            member: Arc::clone(member),
            snapshot_id: member_id_of(group_id, &source.volume_id).into(),
            source,
        }
    }

    pub(super) fn is_in(&self, member: &Arc<Member>) -> bool {
        Arc::ptr_eq(&self.member, member)
    }

    /// Removes what there is of it.
    fn undo(&self) -> Result<(), PoolError> {
        let shelf = &self.member.pool.snapshots;
        shelf.remove_new(&self.snapshot_id)?;
        shelf.delete(&self.snapshot_id)
    }
}

impl GroupDraft {
    /// Cuts the group. Blocks.
    pub(super) fn create(&self, copying: &mut Copying) -> Result<Arc<GroupRecord>, DriverError> {
        let record = GroupRecord {
            group_id: Arc::clone(&self.group_id),
            name: self.name.clone(),
            snapshot_ids: self
                .parts
                .iter()
                .map(|part| Arc::clone(&part.snapshot_id))
                .collect(),
            created_at: Timestamp::now(),
        };
        let groups = &self.home.pool.groups;
        // An earlier try was not sure of its success: this one brings it to its end.
        let is_made = groups.directory(&self.group_id).exists();
        let space = self.home.pool.space()?;
        let begun = self
            .home
            .catalog
            .begin_create::<GroupRecord>(&self.group_id, record.promise(), space)?;
        if let Begin::Exists(found) = begun {
            return Ok(found);
        }
        let group = Reservation::new(&self.home, &self.group_id);
        // What may survive a crash is no longer given up by an error.
        let uncertain = |error: DriverError| {
            DriverError::new(ErrorKind::Uncertain, "make the group durable").caused_by(error)
        };
        let (record, reservations, made) = if is_made {
            let (record, made) = self.found(&record)?;
            let (_, reservations) = self.reserve(&record).map_err(uncertain)?;
            (record, reservations, made)
        } else {
            let (drafts, reservations) = self.reserve(&record)?;
            let made = self.make(&record, &drafts, copying)?;
            (record, reservations, made)
        };
        failpoint::hit("group::after_rename").map_err(|error| uncertain(error.into()))?;
        groups.make_durable()?;
        failpoint::hit("group::after_sync").map_err(|error| uncertain(error.into()))?;
        for (reservation, record) in reservations.into_iter().zip(made) {
            reservation.made(record);
        }
        tracing::info!(
            group.id = &*self.group_id,
            snapshots = self.parts.len(),
            "Group of snapshots cut"
        );
        Ok(group.made(record))
    }

    /// Cuts and records it, all or nothing.
    fn make(
        &self,
        record: &GroupRecord,
        drafts: &[Draft],
        copying: &mut Copying,
    ) -> Result<Vec<SnapshotRecord>, DriverError> {
        let subjects = self.subjects()?;
        let made = self.write_intent(record).and_then(|()| {
            let made = self.cut(drafts, &subjects, copying)?;
            self.home.pool.groups.commit(&self.group_id)?;
            Ok(made)
        });
        made.map_err(|error| self.undo(error))
    }

    /// What an earlier try has made, if it is what is wanted.
    fn found(&self, wanted: &GroupRecord) -> Result<(GroupRecord, Vec<SnapshotRecord>), DriverError> {
        let record = self.home.pool.groups.read(&self.group_id, GroupRecord::read_of)?;
        let ids =
            |group: &GroupRecord| -> BTreeSet<Arc<str>> { group.snapshot_ids.iter().cloned().collect() };
        if record.name != wanted.name || ids(&record) != ids(wanted) {
            return Err(DriverError::already_exists(format!(
                "group snapshot {} exists, but of other volumes or with another name",
                self.group_id
            )));
        }
        let read = |part: &Part| {
            let shelf = &part.member.pool.snapshots;
            shelf.read(&part.snapshot_id, SnapshotRecord::read_of)
        };
        let members = self.parts.iter().map(read).collect::<Result<_, _>>()?;
        Ok((record, members))
    }

    /// Sets ids and bytes aside for all members.
    fn reserve(
        &self,
        group: &GroupRecord,
    ) -> Result<(Vec<Draft>, Vec<Reservation<SnapshotRecord>>), DriverError> {
        let (mut drafts, mut reservations) = (Vec::new(), Vec::new());
        for part in &self.parts {
            let membership = Membership {
                group_id: self.group_id.to_string(),
                group_name: self.name.clone(),
                members: self.parts.len(),
                created_at: group.created_at,
            };
            let draft = Draft {
                name: Arc::clone(&part.snapshot_id),
                snapshot_id: Arc::clone(&part.snapshot_id),
                group: Some(Box::new(membership)),
            };
            match draft.begin(&part.member, &part.source)? {
                Begin::Create => reservations.push(Reservation::new(&part.member, &part.snapshot_id)),
                Begin::Exists(_) => {
                    return Err(DriverError::already_exists(format!(
                        "snapshot {} exists without its group; run `moorline driver check`",
                        part.snapshot_id
                    )));
                }
            }
            drafts.push(draft);
        }
        Ok((drafts, reservations))
    }

    fn subjects(&self) -> Result<Vec<Subject>, DriverError> {
        let is_one_moment = self.parts.len() > 1;
        let parts = self.parts.iter();
        parts
            .map(|part| Subject::look(&part.member.pool, &part.source, &part.member.pool, is_one_moment))
            .collect()
    }

    fn write_intent(&self, record: &GroupRecord) -> Result<(), DriverError> {
        let groups = &self.home.pool.groups;
        // What a removal of that name has left would take the new snapshots with it at the next start.
        groups.remove_gone(&self.group_id)?;
        groups.prepare(&self.group_id, |_| Ok(record.to_bytes()))?;
        groups.make_durable()?;
        Ok(failpoint::hit("group::after_intent")?)
    }

    fn cut(
        &self,
        drafts: &[Draft],
        subjects: &[Subject],
        copying: &mut Copying,
    ) -> Result<Vec<SnapshotRecord>, DriverError> {
        let mut made = Vec::new();
        let held = Held::hold(subjects, copying)?;
        for ((part, draft), subject) in self.parts.iter().zip(drafts).zip(subjects) {
            part.member
                .pool
                .snapshots
                .prepare(&part.snapshot_id, |directory| {
                    let record = draft.fill(&part.member, subject, directory, copying)?;
                    let bytes = record.to_bytes();
                    made.push(record);
                    Ok(bytes)
                })?;
            failpoint::hit("group::after_member_cut")?;
        }
        held.release()?;
        failpoint::hit("group::after_thaw")?;
        for part in &self.parts {
            part.member.pool.snapshots.commit(&part.snapshot_id)?;
            failpoint::hit("group::after_member_rename")?;
        }
        for part in &self.parts {
            part.member.pool.snapshots.make_durable()?;
        }
        failpoint::hit("group::after_member_sync")?;
        Ok(made)
    }

    /// Removes everything that a try has made: the snapshots first, the intent last.
    fn undo(&self, error: DriverError) -> DriverError {
        let undone = self.parts.iter().try_for_each(Part::undo);
        match undone.and_then(|()| self.home.pool.groups.remove_new(&self.group_id)) {
            Ok(()) => error,
            Err(left) => {
                tracing::error!(group.id = &*self.group_id, %error, "A group of snapshots failed, and can't be undone");
                DriverError::new(ErrorKind::Uncertain, "undo the group of snapshots").caused_by(left)
            }
        }
    }
}

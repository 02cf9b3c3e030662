//! CreateVolumeGroupSnapshot, DeleteVolumeGroupSnapshot, GetVolumeGroupSnapshot.
//!
//! ```text
//! intent (groups/.new-<id>) -> hold all -> cut all (snapshots/.new-..) -> let go -> rename all -> groups/<id>
//! ```
//! Until the last rename the snapshots belong to nobody: a start that finds the intent removes them. A removal takes the
//! group away first (`groups/.del-<id>`), then its snapshots; a start that finds that goes on with it.

mod cut;

use std::{collections::BTreeSet, sync::Arc};

use moorline_driver_sdk::{
    DriverError, async_trait,
    request::{
        CreateGroupSnapshot, DeleteGroupSnapshot, GetGroupSnapshot, GroupSnapshotId, SnapshotId, VolumeId,
    },
    snapshot::GroupSnapshot,
    traits::GroupSnapshots,
};

use self::cut::{GroupDraft, Part};
use super::{
    LocalController, Member,
    snapshots::{self, refuse_parameters, snapshot},
};
use crate::{
    catalog::Deleted,
    ids::group_id_of,
    record::{GroupRecord, Record, SnapshotRecord},
};

impl LocalController {
    fn members_of(&self, group: &GroupRecord) -> Result<Vec<Arc<SnapshotRecord>>, DriverError> {
        let find = |snapshot_id: &Arc<str>| {
            let found = self.find::<SnapshotRecord>(snapshot_id);
            found.map(|(_, record)| record).map_err(|error| {
                DriverError::precondition(format!(
                    "snapshot {snapshot_id} of group snapshot {} can't be used",
                    group.group_id
                ))
                .caused_by(error)
            })
        };
        group.snapshot_ids.iter().map(find).collect()
    }

    fn group_snapshot(&self, group: &GroupRecord) -> Result<GroupSnapshot, DriverError> {
        let members = self.members_of(group)?;
        Ok(GroupSnapshot {
            group_snapshot_id: GroupSnapshotId::parse(group.group_id.to_string())?,
            snapshots: members
                .iter()
                .map(|record| snapshot(record))
                .collect::<Result<_, _>>()?,
            created_at: group.created_at,
            is_ready: true,
        })
    }
}

/// Is the group that has the name the one that is asked for? Pure.
fn check_same(
    group: &GroupRecord,
    members: &[Arc<SnapshotRecord>],
    name: &str,
    sources: &[VolumeId],
) -> Result<(), DriverError> {
    if group.name != name {
        return Err(DriverError::already_exists(format!(
            "group snapshot {} exists, but not with the name {name}",
            group.name
        )));
    }
    let has: BTreeSet<&str> = members.iter().map(|member| &*member.source_volume_id).collect();
    let wanted: BTreeSet<&str> = sources.iter().map(VolumeId::as_str).collect();
    if has != wanted {
        return Err(DriverError::already_exists(format!(
            "group snapshot {name} exists, but of other volumes"
        )));
    }
    Ok(())
}

/// Who names snapshots of a group must name all of them. Pure.
fn check_members(group: &GroupRecord, named: &[SnapshotId]) -> Result<(), DriverError> {
    let has: BTreeSet<&str> = group.snapshot_ids.iter().map(|id| &**id).collect();
    let named: BTreeSet<&str> = named.iter().map(SnapshotId::as_str).collect();
    if named.is_empty() || named == has {
        return Ok(());
    }
    let has: Vec<_> = has.into_iter().collect();
    Err(DriverError::invalid(format!(
        "group snapshot {} has the snapshots {}, not those named",
        group.group_id,
        has.join(", ")
    )))
}

#[async_trait]
impl GroupSnapshots for LocalController {
    async fn create_group_snapshot(
        &self,
        request: CreateGroupSnapshot,
    ) -> Result<GroupSnapshot, DriverError> {
        refuse_parameters(request.parameters)?;
        let group_id: Arc<str> = group_id_of(&request.name).into();
        if let Some(holder) = self.member_with::<GroupRecord>(&group_id)
            && let Ok(group) = holder.catalog.get::<GroupRecord>(&group_id)
        {
            let members = self.members_of(&group)?;
            check_same(&group, &members, &request.name, &request.source_volume_ids)?;
            return self.group_snapshot(&group);
        }
        let find = |volume_id: &VolumeId| {
            let (member, source) = self.find::<Record>(volume_id.as_str())?;
            Ok(Part::new(&group_id, member, source))
        };
        let sources = request.source_volume_ids.iter();
        let parts: Vec<Part> = sources.map(find).collect::<Result<_, DriverError>>()?;
        let is_home = |member: &&Arc<Member>| parts.iter().any(|part| part.is_in(member));
        let home = self.members.iter().find(is_home);
        let home = Arc::clone(home.ok_or_else(|| DriverError::invalid("source_volume_ids is missing"))?);
        let draft = GroupDraft {
            home,
            group_id,
            name: request.name,
            parts,
        };
        self.all_have_left().await;
        let mut copying = self.copying();
        let work = move || draft.create(&mut copying);
        let group = self.blocking.run("cut the group of snapshots", work).await??;
        self.group_snapshot(&group)
    }

    async fn delete_group_snapshot(&self, request: DeleteGroupSnapshot) -> Result<(), DriverError> {
        let group_id = request.group_snapshot_id.as_str();
        let Some(home) = self.member_with::<GroupRecord>(group_id) else {
            return Ok(());
        };
        if let Ok(group) = home.catalog.get::<GroupRecord>(group_id) {
            check_members(&group, &request.snapshot_ids)?;
        }
        let Some(group) = home.catalog.begin_delete::<GroupRecord>(group_id)? else {
            return Ok(());
        };
        let members = match self.begin_delete_members(&group) {
            Ok(members) => members,
            Err(error) => {
                home.catalog.finish_delete(&group, Deleted::Kept);
                return Err(error);
            }
        };
        let work = {
            let (home, group) = (Arc::clone(home), Arc::clone(&group));
            move || delete(&home, &group, members)
        };
        let deleted = self.blocking.run("delete the group of snapshots", work).await;
        let (end, result) = deleted.unwrap_or_else(|error| (Deleted::Left, Err(error)));
        home.catalog.finish_delete(&group, end);
        result?;
        tracing::info!(group.id = group_id, "Group of snapshots deleted");
        Ok(())
    }

    async fn get_group_snapshot(&self, request: GetGroupSnapshot) -> Result<GroupSnapshot, DriverError> {
        let (_, group) = self.find::<GroupRecord>(request.group_snapshot_id.as_str())?;
        check_members(&group, &request.snapshot_ids)?;
        self.group_snapshot(&group)
    }
}

/// A snapshot that is being removed: kept unless it is said how that ended.
struct Leaving {
    member: Arc<Member>,
    record: Arc<SnapshotRecord>,
    end: Deleted,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.member.catalog.finish_delete(&self.record, self.end);
    }
}

impl LocalController {
    fn begin_delete_members(&self, group: &GroupRecord) -> Result<Vec<Leaving>, DriverError> {
        let mut members = Vec::new();
        for snapshot_id in &group.snapshot_ids {
            let Some(member) = self.member_with::<SnapshotRecord>(snapshot_id) else {
                continue; // An earlier try has removed it.
            };
            if let Some(record) = member.catalog.begin_delete::<SnapshotRecord>(snapshot_id)? {
                members.push(Leaving {
                    member: Arc::clone(member),
                    record,
                    end: Deleted::Kept,
                });
            }
        }
        Ok(members)
    }
}

/// Blocks.
fn delete(home: &Member, group: &GroupRecord, members: Vec<Leaving>) -> (Deleted, Result<(), DriverError>) {
    let shelf = &home.pool.groups;
    if let Err(error) = shelf.take_away(&group.group_id) {
        let is_there = shelf.directory(&group.group_id).exists();
        return (
            if is_there { Deleted::Kept } else { Deleted::Left },
            Err(error.into()),
        );
    }
    for mut leaving in members {
        let (end, result) = snapshots::delete(&leaving.member, &leaving.record);
        // Without its group it is nobody's: the next try or start goes on.
        leaving.end = if end == Deleted::Gone { end } else { Deleted::Left };
        if let Err(error) = result {
            return (Deleted::Left, Err(error));
        }
    }
    match shelf.remove_gone(&group.group_id) {
        Ok(()) => (Deleted::Gone, Ok(())),
        Err(error) => (Deleted::Left, Err(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use moorline_driver_sdk::ErrorKind;

    use super::*;

    fn group() -> GroupRecord {
        GroupRecord {
            group_id: "g".into(),
            name: "g".into(),
            snapshot_ids: vec!["s1".into(), "s2".into()],
            created_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn of(snapshot_id: &str, source: &str) -> Arc<SnapshotRecord> {
        Arc::new(SnapshotRecord {
            source_volume_id: source.into(),
            ..crate::record::snapshot::tests::snapshot(snapshot_id)
        })
    }

    #[test]
    fn a_name_that_is_taken_fits_or_is_a_conflict() {
        let volumes = |ids: &[&str]| -> Vec<VolumeId> {
            ids.iter()
                .map(|id| VolumeId::parse((*id).to_owned()).unwrap())
                .collect()
        };
        let members = [of("s1", "v1"), of("s2", "v2")];
        let cases = [
            ("the same", "g", volumes(&["v1", "v2"]), None),
            ("in another order", "g", volumes(&["v2", "v1"]), None),
            (
                "a name of the same id",
                "h",
                volumes(&["v1", "v2"]),
                Some("not with the name h"),
            ),
            ("one less", "g", volumes(&["v1"]), Some("of other volumes")),
            (
                "one more",
                "g",
                volumes(&["v1", "v2", "v3"]),
                Some("of other volumes"),
            ),
        ];
        for (name, asked, sources, expected) in cases {
            match (check_same(&group(), &members, asked, &sources), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(expected)) => {
                    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{name}");
                    assert!(error.to_string().contains(expected), "{name}: {error}");
                }
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }

    #[test]
    fn who_names_members_names_all_of_them() {
        let snapshots = |ids: &[&str]| -> Vec<SnapshotId> {
            ids.iter()
                .map(|id| SnapshotId::parse((*id).to_owned()).unwrap())
                .collect()
        };
        let cases: [(&str, &[&str], bool); 5] = [
            ("none named", &[], true),
            ("all", &["s1", "s2"], true),
            ("all, in another order", &["s2", "s1"], true),
            ("one is missing", &["s1"], false),
            ("another one", &["s1", "s2", "s3"], false),
        ];
        for (name, named, expected) in cases {
            assert_eq!(
                check_members(&group(), &snapshots(named)).is_ok(),
                expected,
                "{name}"
            );
        }
    }
}

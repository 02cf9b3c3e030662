//! The durable records of snapshots and of groups of them. Pure: bytes to record and back.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Content, RecordError, envelope, text};

pub(crate) const SNAPSHOT: envelope::Kind = envelope::Kind {
    noun: "snapshot",
    magic: "moorline-snapshot",
    version: 1,
};
pub(crate) const GROUP: envelope::Kind = envelope::Kind {
    noun: "group snapshot",
    magic: "moorline-group",
    version: 1,
};

/// What is known about a snapshot. It outlives its volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotRecord {
    pub(crate) snapshot_id: Arc<str>,
    /// The name it was created by.
    pub(crate) name: Arc<str>,
    #[serde(with = "text::uuid")]
    pub(crate) pool: Uuid,
    pub(crate) source_volume_id: Arc<str>,
    /// The size of the volume when it was cut, and the least of one that is made from it.
    pub(crate) size_bytes: u64,
    /// What it can come to hold alone: what the volume had allocated.
    pub(crate) reserved_bytes: u64,
    pub(crate) content: Content,
    pub(crate) group: Option<Box<Membership>>,
    #[serde(with = "text::timestamp")]
    pub(crate) created_at: Timestamp,
}

/// The group that a snapshot was cut with: enough to write the group's record again from its members'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Membership {
    pub(crate) group_id: String,
    pub(crate) group_name: String,
    /// How many there are.
    pub(crate) members: usize,
    #[serde(with = "text::timestamp")]
    pub(crate) created_at: Timestamp,
}

impl SnapshotRecord {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        SNAPSHOT.seal(self)
    }

    /// The record of the snapshot that it was found with.
    pub(crate) fn read_of(snapshot_id: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        let (_, body) = SNAPSHOT.open(bytes)?;
        let mut record: Self = envelope::read(body)?;
        envelope::check_owner(&record.snapshot_id, snapshot_id)?;
        if record.name == record.snapshot_id {
            record.name = Arc::clone(&record.snapshot_id);
        }
        Ok(record)
    }
}

/// What is known about a group of snapshots that were cut at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupRecord {
    pub(crate) group_id: Arc<str>,
    /// The name it was created by.
    pub(crate) name: String,
    pub(crate) snapshot_ids: Vec<Arc<str>>,
    #[serde(with = "text::timestamp")]
    pub(crate) created_at: Timestamp,
}

impl GroupRecord {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        GROUP.seal(self)
    }

    /// The record of the group that it was found with.
    pub(crate) fn read_of(group_id: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        let (_, body) = GROUP.open(bytes)?;
        let record: Self = envelope::read(body)?;
        envelope::check_owner(&record.group_id, group_id)?;
        Ok(record)
    }

    /// The record of a group from those of its snapshots, if all are there and say the same.
    pub(crate) fn from_members(members: &[Arc<SnapshotRecord>]) -> Option<Self> {
        let mut memberships = members.iter().map(|member| member.group.as_deref());
        let first = memberships.next()??;
        let is_whole = first.members == members.len() && memberships.all(|other| other == Some(first));
        is_whole.then(|| GroupRecord {
            group_id: first.group_id.as_str().into(),
            name: first.group_name.clone(),
            snapshot_ids: members
                .iter()
                .map(|member| Arc::clone(&member.snapshot_id))
                .collect(),
            created_at: first.created_at,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn snapshot(snapshot_id: &str) -> SnapshotRecord {
        SnapshotRecord {
            snapshot_id: snapshot_id.into(),
            name: snapshot_id.into(),
            pool: Uuid::nil(),
            source_volume_id: "pvc-1".into(),
            size_bytes: 1 << 30,
            reserved_bytes: 4096,
            content: Content::Block,
            group: None,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn member(snapshot_id: &str, members: usize) -> Arc<SnapshotRecord> {
        let group = Membership {
            group_id: "g".into(),
            group_name: "the group".into(),
            members,
            created_at: Timestamp::UNIX_EPOCH,
        };
        Arc::new(SnapshotRecord {
            group: Some(Box::new(group)),
            ..snapshot(snapshot_id)
        })
    }

    #[test]
    fn records_survive_the_disk_and_belong_to_one_id() {
        let written = SnapshotRecord::clone(&member("s", 2));
        let bytes = written.to_bytes();
        assert!(bytes.starts_with(b"moorline-snapshot 1 "));
        assert_eq!(SnapshotRecord::read_of("s", &bytes).unwrap(), written);
        SnapshotRecord::read_of("t", &bytes).expect_err("of another snapshot");
        GroupRecord::read_of("s", &bytes).expect_err("of another kind");
        let group = GroupRecord::from_members(&[member("s", 1)]).unwrap();
        assert_eq!(GroupRecord::read_of("g", &group.to_bytes()).unwrap(), group);
    }

    #[test]
    fn a_group_is_known_from_all_of_its_members_or_not_at_all() {
        let other = Arc::new(SnapshotRecord {
            group: Some(Box::new(Membership {
                group_name: "another name".into(),
                ..*member("b", 2).group.clone().unwrap()
            })),
            ..snapshot("b")
        });
        let cases = [
            ("none", vec![], None),
            ("all", vec![member("a", 2), member("b", 2)], Some(2)),
            ("one is missing", vec![member("a", 2)], None),
            ("one too many", vec![member("a", 1), member("b", 1)], None),
            (
                "one of no group",
                vec![member("a", 2), Arc::new(snapshot("b"))],
                None,
            ),
            ("they disagree", vec![member("a", 2), other], None),
        ];
        for (name, members, expected) in cases {
            let group = GroupRecord::from_members(&members);
            assert_eq!(group.map(|group| group.snapshot_ids.len()), expected, "{name}");
        }
    }
}

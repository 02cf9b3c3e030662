//! What `fuzz/` and the tests feed with arbitrary bytes: a durable record of any kind. Panics when something does not hold
//! that must hold whatever the bytes are.

use std::{fmt::Debug, sync::Arc};

use crate::{
    lease::{self, Lease},
    nodes::{self, NodeRecord},
    record::{
        self, GroupRecord, Record, RecordError, SnapshotRecord,
        envelope::Kind,
        snapshot::{GROUP, SNAPSHOT},
    },
};

/// The id that no record of the fuzzer's has.
const STRANGER: &str = "another one's\0";

/// The first byte says which kind of record, and how the rest is meant: as a file, or as the body of one whose checksum
/// is right, which no fuzzer would find. True if there was a record in it.
pub fn record(input: &[u8]) -> bool {
    let Some((choice, rest)) = input.split_first() else {
        return false;
    };
    let (kind, version) = (choice % 5, choice / 5 % 3);
    match kind {
        0 => check(rest, version, &VOLUME).is_some(),
        1 => check(rest, version, &SNAPSHOTS).map(check_membership).is_some(),
        2 => check(rest, version, &GROUPS).is_some(),
        3 => check(rest, version, &LEASES).is_some(),
        _ => check(rest, version, &NODES).is_some(),
    }
}

/// The functions of one kind of record.
struct Format<T> {
    kind: Kind,
    read_of: fn(&str, &[u8]) -> Result<T, RecordError>,
    to_bytes: fn(&T) -> Vec<u8>,
}

const VOLUME: Format<Record> = Format {
    kind: record::KIND,
    read_of: Record::read_of,
    to_bytes: Record::to_bytes,
};
const SNAPSHOTS: Format<SnapshotRecord> = Format {
    kind: SNAPSHOT,
    read_of: SnapshotRecord::read_of,
    to_bytes: SnapshotRecord::to_bytes,
};
const GROUPS: Format<GroupRecord> = Format {
    kind: GROUP,
    read_of: GroupRecord::read_of,
    to_bytes: GroupRecord::to_bytes,
};
const LEASES: Format<Lease> = Format {
    kind: lease::KIND,
    read_of: Lease::read_of,
    to_bytes: Lease::to_bytes,
};
const NODES: Format<NodeRecord> = Format {
    kind: nodes::KIND,
    read_of: NodeRecord::read_of,
    to_bytes: NodeRecord::to_bytes,
};

/// Reads a record without knowing whose it is: a refusal for the wrong owner says who the right one is.
fn read<T>(format: &Format<T>, file: &[u8]) -> Option<(String, T)> {
    let owner = match (format.read_of)(STRANGER, file) {
        Err(RecordError::OtherOwner { found, .. }) => found,
        Ok(_) => STRANGER.to_owned(),
        Err(_) => return None,
    };
    let record = (format.read_of)(&owner, file).expect("the owner is the one that was named");
    Some((owner, record))
}

/// `version` 0: `input` is a whole file; otherwise the body of a file of that version.
fn check<T: PartialEq + Debug>(input: &[u8], version: u8, format: &Format<T>) -> Option<T> {
    let file = match version {
        0 => input.to_vec(),
        _ => format.kind.wrap(version.into(), std::str::from_utf8(input).ok()?),
    };
    let (owner, record) = read(format, &file)?;
    let written = (format.to_bytes)(&record);
    let (version, _) = format.kind.open(&written).expect("just written");
    assert_eq!(version, format.kind.version, "always the latest");
    let again = (format.read_of)(&owner, &written).expect("just written");
    assert_eq!(again, record);
    assert_eq!(
        (format.to_bytes)(&again),
        written,
        "one record is always the same bytes"
    );
    // Where damage is, follows from the content, so that a finding can be repeated.
    let at = written.iter().fold(0, |sum: usize, byte| {
        sum.wrapping_mul(31).wrapping_add((*byte).into())
    });
    check_damage(format, &record, &owner, &written, at % written.len());
    check_damage(format, &record, &owner, &file, at % file.len());
    Some(record)
}

/// A flipped bit is seen or without effect; a file that was cut off or is too long is no record.
fn check_damage<T: PartialEq + Debug>(format: &Format<T>, record: &T, owner: &str, file: &[u8], at: usize) {
    let read = |file: &[u8]| (format.read_of)(owner, file).ok();
    let mut flipped = file.to_vec();
    flipped[at] ^= 1 << (at % 8);
    if let Some(other) = read(&flipped) {
        assert_eq!(&other, record, "bit {} of byte {at} changes it", at % 8);
    }
    assert_eq!(read(&file[..at]), None, "cut off at {at}");
    assert_eq!(read(&[file, b"\n"].concat()), None, "one more line");
}

/// What a snapshot says of its group is enough for the group's record, which survives the disk as well.
fn check_membership(snapshot: SnapshotRecord) {
    let is_whole = snapshot.group.as_ref().is_some_and(|group| group.members == 1);
    let group = GroupRecord::from_members(&[Arc::new(snapshot)]);
    assert_eq!(group.is_some(), is_whole);
    if let Some(group) = group {
        let again = GroupRecord::read_of(&group.group_id, &group.to_bytes()).expect("just written");
        assert_eq!(again, group);
    }
}

#[cfg(test)]
mod tests;

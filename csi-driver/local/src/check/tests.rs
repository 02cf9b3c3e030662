//! A pool with one of each trouble: all reported, nothing changed, what can be is put right.

use std::{collections::BTreeMap, fs, path::Path};

use jiff::Timestamp;

use super::*;
use crate::{
    config::BackendKind,
    pool::Pool,
    record::{Content, Membership, Record, SnapshotRecord},
};

fn record(volume_id: &str) -> Record {
    Record {
        content: Content::Directory,
        ..crate::record::tests::record(volume_id)
    }
}

fn make(pool: &Pool, record: Record) {
    pool.create(record, |directory| {
        fs::create_dir(directory.join("data")).unwrap();
        Ok(())
    })
    .unwrap();
}

fn cut(pool: &Pool, snapshot_id: &str, group: Option<(&str, usize)>) {
    let record = SnapshotRecord {
        content: Content::Directory,
        group: group.map(|(group_id, members)| {
            Box::new(Membership {
                group_id: group_id.into(),
                group_name: group_id.into(),
                members,
                created_at: Timestamp::UNIX_EPOCH,
            })
        }),
        ..crate::record::snapshot::tests::snapshot(snapshot_id)
    };
    let fill = |directory: &Path| {
        fs::create_dir(directory.join("data")).unwrap();
        Ok(record.to_bytes())
    };
    pool.snapshots.create(snapshot_id, fill).unwrap();
}

/// One of each, with the id that it is at.
fn damage(root: &Path) -> BTreeMap<PathBuf, Trouble> {
    let volumes = root.join("volumes");
    let reason = |id: &str| format!("the record of volume {id}: is not a volume record");
    for half in [".new-a", ".del-b", "orphan", "lost+found"] {
        fs::create_dir(volumes.join(half)).unwrap();
    }
    fs::write(volumes.join("no-record/record"), "x").unwrap();
    fs::remove_file(volumes.join("no-copy/record.copy")).unwrap();
    for file in ["record", "record.copy"] {
        fs::write(volumes.join("damaged").join(file), "x").unwrap();
    }
    let stranger = Record {
        pool: uuid::Uuid::from_u128(7),
        ..record("stranger")
    };
    for file in ["record", "record.copy"] {
        fs::write(volumes.join("stranger").join(file), stranger.to_bytes()).unwrap();
    }
    fs::remove_dir(volumes.join("faulty/data")).unwrap();
    fs::write(root.join("frozen/whole"), "").unwrap();
    fs::create_dir(root.join("leases")).unwrap();
    fs::write(root.join("leases/nobody"), "").unwrap();
    fs::write(root.join("leases/whole"), "").unwrap();
    let missing = format!(
        "the directory {} is missing",
        volumes.join("faulty/data").display()
    );
    BTreeMap::from([
        (volumes.join(".new-a"), Trouble::HalfMade),
        (volumes.join(".del-b"), Trouble::HalfGone),
        (volumes.join("orphan"), Trouble::Orphan),
        (volumes.join("lost+found"), Trouble::Foreign),
        (volumes.join("no-record"), Trouble::RecordLost),
        (volumes.join("no-copy"), Trouble::CopyLost),
        (volumes.join("damaged"), Trouble::Damaged(reason("damaged"))),
        (volumes.join("stranger"), Trouble::OfAnotherPool),
        (volumes.join("faulty"), Trouble::Faulty(missing)),
        (root.join("groups/lost"), Trouble::GroupLost),
        (root.join("groups/torn"), Trouble::GroupTorn),
        (root.join("frozen/whole"), Trouble::Frozen),
        (root.join("leases/nobody"), Trouble::LeaseOfNobody),
    ])
}

fn found(report: &Report) -> BTreeMap<PathBuf, Trouble> {
    let findings = report.findings.iter();
    findings
        .map(|finding| (finding.path.clone(), finding.trouble.clone()))
        .collect()
}

/// All files and what is in them.
fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut contents = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path.clone());
                contents.insert(path, Vec::new());
            } else {
                contents.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    contents
}

#[test]
fn all_trouble_is_told_and_what_can_be_is_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let configs = [PoolConfig::new("default", root, BackendKind::Dir)];
    let pool = Pool::open(&configs[0], true).unwrap();
    for id in ["whole", "no-record", "no-copy", "damaged", "stranger", "faulty"] {
        make(&pool, record(id));
    }
    cut(&pool, "lost-1", Some(("lost", 1)));
    cut(&pool, "torn-1", Some(("torn", 2)));
    assert!(open_for_check(&configs).unwrap()[0].is_in_use);
    assert!(matches!(repair(&configs), Err(PoolError::Locked(_))));
    drop(pool);

    let expected = damage(root);
    let before = contents(root);
    let report = open_for_check(&configs).unwrap().remove(0);
    assert_eq!(found(&report), expected);
    assert_eq!((report.volumes, report.snapshots, report.groups), (5, 2, 0));
    assert!(!report.is_in_use);
    assert_eq!(contents(root), before, "looking changes nothing");

    let report = repair(&configs).unwrap().remove(0);
    let left: BTreeMap<_, _> = expected
        .into_iter()
        .filter(|(_, trouble)| !trouble.is_repairable())
        .collect();
    assert_eq!(found(&report), left);
    assert_eq!((report.volumes, report.snapshots, report.groups), (5, 2, 1));
    assert!(root.join("leases/whole").exists());
}

#[test]
fn twins_are_told_of_in_the_second_pool() {
    let dir = tempfile::tempdir().unwrap();
    let configs = ["one", "two"].map(|name| PoolConfig::new(name, dir.path().join(name), BackendKind::Dir));
    for config in &configs {
        make(&Pool::open(config, true).unwrap(), record("a"));
    }
    let reports = open_for_check(&configs).unwrap();
    assert_eq!(reports[0].findings, []);
    let twin = Finding {
        path: dir.path().join("two/volumes/a"),
        trouble: Trouble::Twin("one".into()),
    };
    assert_eq!(reports[1].findings, [twin]);
}

#[test]
fn a_pool_that_is_not_there_is_empty_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let configs = [PoolConfig::new(
        "default",
        dir.path().join("pool"),
        BackendKind::Dir,
    )];
    let report = open_for_check(&configs).unwrap().remove(0);
    assert_eq!(
        (report.volumes, report.findings.len(), report.is_in_use),
        (0, 0, false)
    );
    assert!(!dir.path().join("pool").exists());
}

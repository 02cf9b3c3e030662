//! The seeds of the target `record`: every kind and version, as a file and as a body, and some that are refused.

use std::{env, fs, path::Path};

use jiff::Timestamp;
use moorline_driver_sdk::request::{AccessMode, StringMap};

use super::*;
use crate::lease::Holder;
use crate::record::{Membership, snapshot, tests};

/// Sets `MOORLINE_BLESS` to write the corpus instead of comparing with it.
const BLESS: &str = "MOORLINE_BLESS";
const VERSION_1: &str = r#"{"volume_id":"v","name":"n","capacity_bytes":4096,"content":"xfs","parameters":{"a":"b"},"created_at":"2026-01-01T00:00:00.5Z"}"#;

fn body(file: &[u8]) -> &[u8] {
    let start = file.iter().position(|byte| *byte == b'\n').expect("a head") + 1;
    &file[start..file.len() - 1]
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let volume = Record {
        parameters: StringMap::from([("pool".into(), "fast \"µ\"\n".into())]).into(),
        mutable_parameters: StringMap::from([("directIO".into(), "true".into())]).into(),
        source: Some(Box::new(record::Source::Snapshot("s".into()))),
        ..tests::record("pvc-1")
    };
    let snapshot = SnapshotRecord {
        group: Some(Box::new(Membership {
            group_id: "g".into(),
            group_name: "the group".into(),
            members: 1,
            created_at: Timestamp::MAX,
        })),
        created_at: Timestamp::MIN,
        ..snapshot::tests::snapshot("snap-1")
    };
    let group = GroupRecord::from_members(&[Arc::new(snapshot.clone())]).expect("whole");
    let (volume, snapshot, group) = (volume.to_bytes(), snapshot.to_bytes(), group.to_bytes());
    let lease = Lease {
        volume_id: "pvc-1".into(),
        generation: u64::MAX,
        holders: vec![Holder {
            node_id: "n1".into(),
            generation: 7,
            is_read_only: true,
            access_mode: AccessMode::MultiNodeReaderOnly,
        }],
    };
    let node = NodeRecord {
        node_id: "n1".into(),
        max_volumes: Some(8),
    };
    let (lease, node) = (lease.to_bytes(), node.to_bytes());
    let with = |kind: u8, version: u8, bytes: &[u8]| [&[kind + 5 * version][..], bytes].concat();
    vec![
        ("ok-volume-file", with(0, 0, &volume)),
        ("ok-snapshot-file", with(1, 0, &snapshot)),
        ("ok-group-file", with(2, 0, &group)),
        ("ok-lease-file", with(3, 0, &lease)),
        ("ok-node-file", with(4, 0, &node)),
        ("ok-volume-body", with(0, 2, body(&volume))),
        ("ok-snapshot-body", with(1, 1, body(&snapshot))),
        ("ok-group-body", with(2, 1, body(&group))),
        ("ok-lease-body", with(3, 1, body(&lease))),
        ("ok-node-body", with(4, 1, body(&node))),
        ("ok-volume-version-1-body", with(0, 1, VERSION_1.as_bytes())),
        ("bad-another-kind", with(1, 0, &volume)),
        ("bad-version-2-as-1", with(0, 1, body(&volume))),
        ("bad-version-1-as-2", with(0, 2, VERSION_1.as_bytes())),
        ("bad-later-version", with(1, 2, body(&snapshot))),
        ("bad-cut-off", with(0, 0, &volume[..volume.len() - 1])),
        ("bad-empty", vec![]),
    ]
}

#[test]
fn the_corpus_is_accepted_and_refused_as_named() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/record");
    for (name, bytes) in seeds() {
        if env::var_os(BLESS).is_some() {
            fs::write(folder.join(name), &bytes).expect("the corpus can be written");
        }
        let committed = fs::read(folder.join(name)).expect(name);
        assert_eq!(
            committed, bytes,
            "{name}: run the test with {BLESS}=1 if it should change"
        );
    }
    for file in fs::read_dir(&folder).expect("the corpus") {
        let path = file.expect("a seed").path();
        let is_ok = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("ok-"));
        assert_eq!(
            record(&fs::read(&path).expect("readable")),
            is_ok,
            "{}",
            path.display()
        );
    }
}

#[test]
fn no_single_bit_changes_a_record_unnoticed() {
    let seeds = seeds();
    for (name, bytes) in seeds.iter().filter(|(name, _)| name.ends_with("-file")) {
        let file = &bytes[1..];
        for at in 0..file.len() {
            match bytes[0] {
                0 => flip(&VOLUME, file, at, name),
                1 => flip(&SNAPSHOTS, file, at, name),
                2 => flip(&GROUPS, file, at, name),
                3 => flip(&LEASES, file, at, name),
                _ => flip(&NODES, file, at, name),
            }
        }
    }
}

fn flip<T>(format: &Format<T>, file: &[u8], at: usize, name: &str) {
    for bit in 0..8 {
        let mut flipped = file.to_vec();
        flipped[at] ^= 1 << bit;
        assert!(read(format, &flipped).is_none(), "{name}: bit {bit} of byte {at}");
    }
}

//! Requests about snapshots, groups of them, and their blocks.

use super::*;

#[test]
fn create_snapshot() {
    let base = csi::CreateSnapshotRequest {
        name: "snap-1".into(),
        source_volume_id: "v".into(),
        ..Default::default()
    };
    check::<_, CreateSnapshot>(&base, &required_text!(name));
    check::<_, CreateSnapshot>(&base, &required_text!(source_volume_id));
    check::<_, CreateSnapshot>(&base, &map!(parameters));
    check::<_, CreateSnapshot>(&base, &map!(secrets));
}

#[test]
fn delete_and_get_snapshot() {
    let base = csi::DeleteSnapshotRequest {
        snapshot_id: "s".into(),
        ..Default::default()
    };
    check::<_, DeleteSnapshot>(&base, &required_text!(snapshot_id));
    check::<_, DeleteSnapshot>(&base, &map!(secrets));
    let base = csi::GetSnapshotRequest {
        snapshot_id: "s".into(),
        ..Default::default()
    };
    check::<_, GetSnapshot>(&base, &required_text!(snapshot_id));
    check::<_, GetSnapshot>(&base, &map!(secrets));
}

#[test]
fn list_snapshots() {
    let base = csi::ListSnapshotsRequest::default();
    check::<_, SnapshotQuery>(&base, &map!(secrets));
    let cases: [Case<csi::ListSnapshotsRequest>; 6] = [
        ("of one volume", |r| r.source_volume_id = "v".into(), None),
        (
            "too long a volume id",
            |r| r.source_volume_id = "v".repeat(129),
            Some("source_volume_id has 129 bytes"),
        ),
        (
            "too long a snapshot id",
            |r| r.snapshot_id = "s".repeat(129),
            Some("snapshot_id has 129 bytes"),
        ),
        (
            "nul in the snapshot id",
            |r| r.snapshot_id = "\0".into(),
            Some("snapshot_id has control characters"),
        ),
        (
            "negative count",
            |r| r.max_entries = -2,
            Some("max_entries -2 is negative"),
        ),
        (
            "too long a token",
            |r| r.starting_token = "x".repeat(129),
            Some("starting_token has 129 bytes"),
        ),
    ];
    check::<_, SnapshotQuery>(&base, &cases);
    let query = SnapshotQuery::try_from(base).unwrap();
    assert_eq!((query.source_volume_id, query.snapshot_id), (None, None));
}

#[test]
fn create_volume_group_snapshot() {
    let base = csi::CreateVolumeGroupSnapshotRequest {
        name: "group-1".into(),
        source_volume_ids: vec!["v".into(), "w".into()],
        ..Default::default()
    };
    check::<_, CreateGroupSnapshot>(&base, &required_text!(name));
    check::<_, CreateGroupSnapshot>(&base, &map!(parameters));
    check::<_, CreateGroupSnapshot>(&base, &map!(secrets));
    let cases: [Case<csi::CreateVolumeGroupSnapshotRequest>; 4] = [
        (
            "no volumes",
            |r| r.source_volume_ids.clear(),
            Some("source_volume_ids is missing"),
        ),
        (
            "an empty id",
            |r| r.source_volume_ids.push(String::new()),
            Some("source_volume_ids is missing"),
        ),
        (
            "one volume twice",
            |r| r.source_volume_ids.push("v".into()),
            Some("source_volume_ids has v twice"),
        ),
        (
            "too long an id",
            |r| r.source_volume_ids.push("v".repeat(129)),
            Some("source_volume_ids has 129 bytes"),
        ),
    ];
    check::<_, CreateGroupSnapshot>(&base, &cases);
}

#[test]
fn delete_and_get_volume_group_snapshot() {
    let base = csi::DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: "g".into(),
        snapshot_ids: vec!["s".into()],
        ..Default::default()
    };
    check::<_, DeleteGroupSnapshot>(&base, &required_text!(group_snapshot_id));
    check::<_, DeleteGroupSnapshot>(&base, &map!(secrets));
    let cases: [Case<csi::DeleteVolumeGroupSnapshotRequest>; 3] = [
        ("members not named", |r| r.snapshot_ids.clear(), None),
        (
            "one member twice",
            |r| r.snapshot_ids.push("s".into()),
            Some("snapshot_ids has s twice"),
        ),
        (
            "nul in a member",
            |r| r.snapshot_ids.push("\0".into()),
            Some("snapshot_ids has control characters"),
        ),
    ];
    check::<_, DeleteGroupSnapshot>(&base, &cases);
    let base = csi::GetVolumeGroupSnapshotRequest {
        group_snapshot_id: "g".into(),
        snapshot_ids: vec!["s".into()],
        ..Default::default()
    };
    check::<_, GetGroupSnapshot>(&base, &required_text!(group_snapshot_id));
    check::<_, GetGroupSnapshot>(&base, &map!(secrets));
    let cases: [Case<csi::GetVolumeGroupSnapshotRequest>; 1] = [(
        "one member twice",
        |r| r.snapshot_ids.push("s".into()),
        Some("snapshot_ids has s twice"),
    )];
    check::<_, GetGroupSnapshot>(&base, &cases);
}

#[test]
fn get_metadata_allocated() {
    let base = csi::GetMetadataAllocatedRequest {
        snapshot_id: "s".into(),
        ..Default::default()
    };
    check::<_, AllocatedBlocks>(&base, &required_text!(snapshot_id));
    check::<_, AllocatedBlocks>(&base, &map!(secrets));
    let cases: [Case<csi::GetMetadataAllocatedRequest>; 4] = [
        (
            "negative offset",
            |r| r.starting_offset = -1,
            Some("starting_offset -1 is negative"),
        ),
        ("far offset", |r| r.starting_offset = i64::MAX, None),
        (
            "negative count",
            |r| r.max_results = -1,
            Some("max_results -1 is negative"),
        ),
        ("large count", |r| r.max_results = i32::MAX, None),
    ];
    check::<_, AllocatedBlocks>(&base, &cases);
}

#[test]
fn get_metadata_delta() {
    let base = csi::GetMetadataDeltaRequest {
        base_snapshot_id: "a".into(),
        target_snapshot_id: "b".into(),
        ..Default::default()
    };
    check::<_, ChangedBlocks>(&base, &required_text!(base_snapshot_id));
    check::<_, ChangedBlocks>(&base, &required_text!(target_snapshot_id));
    check::<_, ChangedBlocks>(&base, &map!(secrets));
    let cases: [Case<csi::GetMetadataDeltaRequest>; 2] = [
        (
            "negative offset",
            |r| r.starting_offset = -1,
            Some("starting_offset -1 is negative"),
        ),
        (
            "negative count",
            |r| r.max_results = -1,
            Some("max_results -1 is negative"),
        ),
    ];
    check::<_, ChangedBlocks>(&base, &cases);
}

//! The seeds of the target `request`: one accepted message of each type, and some that are refused.

use std::{collections::HashMap, env, fs, path::Path};

use moorline_proto::csi::{self, volume_capability as wire};
use prost::Message;

use super::*;

/// Sets `MOORLINE_BLESS` to write the corpus instead of comparing with it.
const BLESS: &str = "MOORLINE_BLESS";

fn seed(expected: &str, kind: &str, message: &impl Message) -> (String, Vec<u8>) {
    let number = REQUESTS
        .iter()
        .position(|(name, _)| *name == kind)
        .expect("a known type");
    let mut bytes = vec![u8::try_from(number).expect("few types")];
    message.encode(&mut bytes).expect("room");
    (format!("{expected}-{kind}"), bytes)
}

fn one(key: &str, value: &str) -> HashMap<String, String> {
    HashMap::from([(key.to_owned(), value.to_owned())])
}

fn mount() -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_mode: Some(wire::AccessMode { mode: 7 }),
        access_type: Some(wire::AccessType::Mount(wire::MountVolume {
            fs_type: "ext4".into(),
            mount_flags: vec!["noatime".into(), "nosuid,nodev".into()],
            volume_mount_group: "1000".into(),
        })),
    }
}

fn place(value: &str) -> csi::Topology {
    csi::Topology {
        segments: one("topology.example.org/zone", value),
    }
}

macro_rules! seed {
    ($expected:literal, $kind:ident { $($field:ident $(: $value:expr)?),* $(,)? }) => {{
        #[allow(clippy::needless_update, reason = "some seeds name every field, most don't")]
        let message = csi::$kind { $($field $(: $value)?,)* ..Default::default() };
        seed($expected, stringify!($kind), &message)
    }};
}

#[expect(clippy::too_many_lines, reason = "one flat table")]
fn accepted_of_volumes() -> Vec<(String, Vec<u8>)> {
    let volume_id = || "pvc-1".to_owned();
    let secrets = || one("password", "hunter2");
    let capacity_range = Some(csi::CapacityRange {
        required_bytes: 1 << 30,
        limit_bytes: 2 << 30,
    });
    let block = csi::VolumeCapability {
        access_mode: Some(wire::AccessMode { mode: 1 }),
        access_type: Some(wire::AccessType::Block(wire::BlockVolume {})),
    };
    let source = csi::volume_content_source::Type::Snapshot(csi::volume_content_source::SnapshotSource {
        snapshot_id: "s".into(),
    });
    let requirement = csi::TopologyRequirement {
        requisite: vec![place("a"), place("b")],
        preferred: vec![place("b")],
    };
    vec![
        seed!(
            "ok",
            CreateVolumeRequest {
                name: volume_id(),
                capacity_range,
                volume_capabilities: vec![mount(), block.clone()],
                parameters: one("pool", "fast"),
                secrets: secrets(),
                mutable_parameters: one("directIO", "true"),
                volume_content_source: Some(csi::VolumeContentSource { r#type: Some(source) }),
                accessibility_requirements: Some(requirement),
            }
        ),
        seed!(
            "ok",
            DeleteVolumeRequest {
                volume_id: volume_id(),
                secrets: secrets()
            }
        ),
        seed!(
            "ok",
            ValidateVolumeCapabilitiesRequest {
                volume_id: volume_id(),
                volume_capabilities: vec![block],
                volume_context: one("a", "b"),
            }
        ),
        seed!(
            "ok",
            GetCapacityRequest {
                accessible_topology: Some(place("a")),
                parameters: one("pool", "fast")
            }
        ),
        seed!(
            "ok",
            ListVolumesRequest {
                max_entries: 10,
                starting_token: "pvc-0".into()
            }
        ),
        seed!(
            "ok",
            ControllerExpandVolumeRequest {
                volume_id: volume_id(),
                capacity_range,
                volume_capability: Some(mount()),
            }
        ),
        seed!(
            "ok",
            ControllerPublishVolumeRequest {
                volume_id: volume_id(),
                node_id: "n1".into(),
                volume_capability: Some(mount()),
                readonly: true,
            }
        ),
        seed!(
            "ok",
            ControllerUnpublishVolumeRequest {
                volume_id: volume_id(),
                node_id: "n1".into()
            }
        ),
        seed!(
            "ok",
            ControllerModifyVolumeRequest {
                volume_id: volume_id(),
                mutable_parameters: one("discard", "true"),
            }
        ),
        seed!(
            "ok",
            NodeStageVolumeRequest {
                volume_id: volume_id(),
                staging_target_path: "/var/lib/stage".into(),
                volume_capability: Some(mount()),
                publish_context: one("lease", "7"),
                secrets: secrets(),
            }
        ),
        seed!(
            "ok",
            NodeUnstageVolumeRequest {
                volume_id: volume_id(),
                staging_target_path: "/var//lib/stage/./".into(),
            }
        ),
        seed!(
            "ok",
            NodePublishVolumeRequest {
                volume_id: volume_id(),
                staging_target_path: "/var/lib/stage".into(),
                target_path: "/pods/1/mount".into(),
                volume_capability: Some(mount()),
                readonly: true,
            }
        ),
        seed!(
            "ok",
            NodeUnpublishVolumeRequest {
                volume_id: volume_id(),
                target_path: "/pods/1/mount".into()
            }
        ),
        seed!(
            "ok",
            NodeGetVolumeStatsRequest {
                volume_id: volume_id(),
                volume_path: "some/../where".into()
            }
        ),
        seed!(
            "ok",
            NodeExpandVolumeRequest {
                volume_id: volume_id(),
                volume_path: "/pods/1/mount".into(),
                capacity_range
            }
        ),
    ]
}

fn accepted_of_snapshots() -> Vec<(String, Vec<u8>)> {
    let snapshot_id = || "snap-1".to_owned();
    vec![
        seed!(
            "ok",
            CreateSnapshotRequest {
                name: snapshot_id(),
                source_volume_id: "pvc-1".into(),
                parameters: one("a", "b"),
            }
        ),
        seed!(
            "ok",
            DeleteSnapshotRequest {
                snapshot_id: snapshot_id()
            }
        ),
        seed!(
            "ok",
            ListSnapshotsRequest {
                max_entries: 1,
                starting_token: snapshot_id(),
                snapshot_id: snapshot_id()
            }
        ),
        seed!(
            "ok",
            GetSnapshotRequest {
                snapshot_id: snapshot_id()
            }
        ),
        seed!(
            "ok",
            CreateVolumeGroupSnapshotRequest {
                name: "g".into(),
                source_volume_ids: vec!["pvc-1".into(), "pvc-2".into()],
            }
        ),
        seed!(
            "ok",
            DeleteVolumeGroupSnapshotRequest {
                group_snapshot_id: "g".into(),
                snapshot_ids: vec![snapshot_id()],
            }
        ),
        seed!(
            "ok",
            GetVolumeGroupSnapshotRequest {
                group_snapshot_id: "g".into()
            }
        ),
        seed!(
            "ok",
            GetMetadataAllocatedRequest {
                snapshot_id: snapshot_id(),
                starting_offset: 4096,
                max_results: 5
            }
        ),
        seed!(
            "ok",
            GetMetadataDeltaRequest {
                base_snapshot_id: snapshot_id(),
                target_snapshot_id: "snap-2".into()
            }
        ),
    ]
}

fn refused() -> Vec<(String, Vec<u8>)> {
    vec![
        seed!(
            "bad",
            DeleteVolumeRequest {
                volume_id: "a\0b".into()
            }
        ),
        seed!(
            "bad",
            ControllerExpandVolumeRequest {
                volume_id: "v".into(),
                capacity_range: Some(csi::CapacityRange {
                    required_bytes: 2,
                    limit_bytes: 1
                }),
            }
        ),
        seed!(
            "bad",
            NodeUnpublishVolumeRequest {
                volume_id: "v".into(),
                target_path: "/pods/../etc".into()
            }
        ),
        // Every character of the key takes six in the refusal.
        seed!(
            "bad",
            ControllerModifyVolumeRequest {
                volume_id: "v".into(),
                mutable_parameters: one(&"\u{85}".repeat(400), "x"),
            }
        ),
        ("bad-not-protobuf".to_owned(), vec![0, 0xff, 0xff]),
        ("bad-empty".to_owned(), vec![]),
    ]
}

#[test]
fn the_corpus_is_accepted_and_refused_as_named() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/request");
    let accepted = [accepted_of_volumes(), accepted_of_snapshots()].concat();
    assert_eq!(accepted.len(), REQUESTS.len(), "a message of each type");
    for (name, bytes) in accepted.into_iter().chain(refused()) {
        if env::var_os(BLESS).is_some() {
            fs::write(folder.join(&name), &bytes).expect("the corpus can be written");
        }
        let committed = fs::read(folder.join(&name)).expect(&name);
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
            request(&fs::read(&path).expect("readable")),
            is_ok,
            "{}",
            path.display()
        );
    }
}

#[test]
fn messages_with_one_byte_changed_keep_the_rules() {
    for (name, bytes) in [accepted_of_volumes(), accepted_of_snapshots()].concat() {
        for position in 1..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[position] ^= 1 << bit;
                let outcome = std::panic::catch_unwind(|| request(&changed));
                assert!(outcome.is_ok(), "{name}: bit {bit} of byte {position}");
            }
        }
    }
}

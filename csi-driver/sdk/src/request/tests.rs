//! One table per request: what is refused, with which words, before a driver sees it.

use std::collections::HashMap;

use moorline_proto::csi::{self, volume_capability as wire};

use super::*;
use crate::{DriverError, ErrorKind};

fn mount_capability() -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_type: Some(wire::AccessType::Mount(wire::MountVolume::default())),
        access_mode: Some(wire::AccessMode {
            mode: wire::access_mode::Mode::SingleNodeWriter.into(),
        }),
    }
}

fn create() -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: "pvc-1".into(),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: 10,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![mount_capability()],
        ..Default::default()
    }
}

fn message_of<T: std::fmt::Debug>(result: Result<T, DriverError>) -> Option<String> {
    let error = result.err()?;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    Some(error.to_string())
}

fn big_map() -> HashMap<String, String> {
    HashMap::from([("k".to_owned(), "v".repeat(4096))])
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn a_create_is_checked_field_by_field() {
    type Change = fn(&mut csi::CreateVolumeRequest);
    let cases: [(&str, Change, Option<&str>); 21] = [
        ("as it should be", |_| {}, None),
        ("no name", |r| r.name.clear(), Some("name is missing")),
        ("longest name", |r| r.name = "n".repeat(128), None),
        (
            "too long a name",
            |r| r.name = "n".repeat(129),
            Some("name has 129 bytes"),
        ),
        (
            "nul in the name",
            |r| r.name = "a\0b".into(),
            Some("name has control characters"),
        ),
        (
            "C1 in the name",
            |r| r.name = "a\u{85}b".into(),
            Some("name has control characters"),
        ),
        ("unicode in the name", |r| r.name = "größe ✓".into(), None),
        (
            "no capabilities",
            |r| r.volume_capabilities.clear(),
            Some("volume_capabilities is missing"),
        ),
        (
            "no access type",
            |r| r.volume_capabilities[0].access_type = None,
            Some("neither block nor mount"),
        ),
        (
            "no access mode",
            |r| r.volume_capabilities[0].access_mode = None,
            Some("access_mode is missing"),
        ),
        (
            "unknown access mode",
            |r| r.volume_capabilities[0].access_mode = Some(wire::AccessMode { mode: 0 }),
            Some("access_mode 0 is unknown"),
        ),
        (
            "access mode of the future",
            |r| r.volume_capabilities[0].access_mode = Some(wire::AccessMode { mode: 99 }),
            Some("access_mode 99 is unknown"),
        ),
        ("no size asked for", |r| r.capacity_range = None, None),
        (
            "empty range",
            |r| r.capacity_range = Some(csi::CapacityRange::default()),
            Some("neither required_bytes nor limit_bytes"),
        ),
        (
            "negative size",
            |r| {
                r.capacity_range = Some(csi::CapacityRange {
                    required_bytes: -1,
                    limit_bytes: 0,
                })
            },
            Some("required_bytes is negative"),
        ),
        (
            "negative limit",
            |r| {
                r.capacity_range = Some(csi::CapacityRange {
                    required_bytes: 1,
                    limit_bytes: -1,
                })
            },
            Some("limit_bytes is negative"),
        ),
        (
            "limit below the size",
            |r| {
                r.capacity_range = Some(csi::CapacityRange {
                    required_bytes: 2,
                    limit_bytes: 1,
                })
            },
            Some("less than required_bytes"),
        ),
        (
            "too many parameters",
            |r| r.parameters = big_map(),
            Some("parameters has 4097 bytes"),
        ),
        (
            "too many secrets",
            |r| r.secrets = big_map(),
            Some("secrets has 4097 bytes"),
        ),
        (
            "source without a type",
            |r| r.volume_content_source = Some(csi::VolumeContentSource::default()),
            Some("neither snapshot nor volume"),
        ),
        (
            "too many mount flags",
            |r| {
                let mount = wire::MountVolume {
                    mount_flags: vec!["f".repeat(4097)],
                    ..Default::default()
                };
                r.volume_capabilities[0].access_type = Some(wire::AccessType::Mount(mount));
            },
            Some("mount_flags have 4097 bytes"),
        ),
    ];
    for (name, change, expected) in cases {
        let mut request = create();
        change(&mut request);
        let message = message_of(CreateVolume::try_from(request));
        match (message, expected) {
            (None, None) => {}
            (Some(message), Some(expected)) => assert!(message.contains(expected), "{name}: {message}"),
            (message, expected) => panic!("{name}: {message:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn paths_are_absolute_and_have_no_dots() {
    let cases = [
        ("plain", "/a/b", None),
        ("doubled and trailing slashes", "/a//b/", None),
        ("missing", "", Some("target_path is missing")),
        ("relative", "a/b", Some("is not absolute")),
        ("upwards", "/a/../b", Some("has a ..")),
        ("nul", "/a\0", Some("control characters")),
    ];
    let request = |path: &str| csi::NodeUnpublishVolumeRequest {
        volume_id: "v".into(),
        target_path: path.into(),
    };
    for (name, path, expected) in cases {
        match (NodeUnpublishVolume::try_from(request(path)), expected) {
            (Ok(request), None) => assert_eq!(request.target_path.as_os_str(), "/a/b", "{name}"),
            (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{name}: {error}"),
            (got, _) => panic!("{name}: {got:?}"),
        }
    }
    let long = format!("/{}", "x".repeat(4094));
    assert!(NodeUnpublishVolume::try_from(request(&long)).is_ok());
    assert!(NodeUnpublishVolume::try_from(request(&(long + "x"))).is_err());
}

#[test]
fn a_volume_may_be_looked_for_anywhere() {
    let query = |path: &str| {
        VolumeStatsQuery::try_from(csi::NodeGetVolumeStatsRequest {
            volume_id: "v".into(),
            volume_path: path.into(),
            ..Default::default()
        })
    };
    assert!(query("some/path").is_ok());
    assert!(query("").is_err());
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn each_required_field_is_missed() {
    let missing: [(&str, Option<String>); 12] = [
        (
            "volume_id",
            message_of(DeleteVolume::try_from(csi::DeleteVolumeRequest::default())),
        ),
        (
            "volume_id",
            message_of(NodeStageVolume::try_from(csi::NodeStageVolumeRequest::default())),
        ),
        (
            "staging_target_path",
            message_of(NodeStageVolume::try_from(csi::NodeStageVolumeRequest {
                volume_id: "v".into(),
                ..Default::default()
            })),
        ),
        (
            "volume_capability",
            message_of(NodeStageVolume::try_from(csi::NodeStageVolumeRequest {
                volume_id: "v".into(),
                staging_target_path: "/s".into(),
                ..Default::default()
            })),
        ),
        (
            "target_path",
            message_of(NodePublishVolume::try_from(csi::NodePublishVolumeRequest {
                volume_id: "v".into(),
                ..Default::default()
            })),
        ),
        (
            "volume_capability",
            message_of(NodePublishVolume::try_from(csi::NodePublishVolumeRequest {
                volume_id: "v".into(),
                target_path: "/t".into(),
                ..Default::default()
            })),
        ),
        (
            "target_path",
            message_of(NodeUnpublishVolume::try_from(csi::NodeUnpublishVolumeRequest {
                volume_id: "v".into(),
                ..Default::default()
            })),
        ),
        (
            "staging_target_path",
            message_of(NodeUnstageVolume::try_from(csi::NodeUnstageVolumeRequest {
                volume_id: "v".into(),
                ..Default::default()
            })),
        ),
        (
            "volume_path",
            message_of(NodeExpandVolume::try_from(csi::NodeExpandVolumeRequest {
                volume_id: "v".into(),
                ..Default::default()
            })),
        ),
        (
            "capacity_range",
            message_of(ExpandVolume::try_from(csi::ControllerExpandVolumeRequest {
                volume_id: "v".into(),
                ..Default::default()
            })),
        ),
        (
            "node_id",
            message_of(PublishToNode::try_from(csi::ControllerPublishVolumeRequest {
                volume_id: "v".into(),
                ..Default::default()
            })),
        ),
        (
            "volume_capabilities",
            message_of(ValidateCapabilities::try_from(
                csi::ValidateVolumeCapabilitiesRequest {
                    volume_id: "v".into(),
                    ..Default::default()
                },
            )),
        ),
    ];
    for (field, message) in missing {
        assert_eq!(message, Some(format!("{field} is missing")));
    }
}

#[test]
fn a_list_takes_no_negative_count() {
    let page = |max_entries| {
        ListPage::try_from(csi::ListVolumesRequest {
            max_entries,
            ..Default::default()
        })
    };
    assert_eq!(page(0).unwrap().max_entries, None);
    assert_eq!(page(7).unwrap().max_entries, Some(7));
    assert!(page(-1).is_err());
}

#[test]
fn secrets_are_never_printed() {
    let mut request = create();
    request.secrets = HashMap::from([("password".into(), "hunter2".into())]);
    let request = CreateVolume::try_from(request).unwrap();
    assert!(!format!("{request:?}").contains("hunter2"));
    assert_eq!(request.secrets.get("password"), Some("hunter2"));
}

//! Requests to the controller service, snapshots apart.

use super::*;

fn create() -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: "pvc-1".into(),
        capacity_range: range(10, 0),
        volume_capabilities: vec![plain_mount()],
        ..Default::default()
    }
}

#[test]
fn create_volume() {
    type Request = csi::CreateVolumeRequest;
    check::<_, CreateVolume>(&create(), &required_text!(name));
    check::<_, CreateVolume>(&create(), &map!(parameters));
    check::<_, CreateVolume>(&create(), &map!(mutable_parameters));
    check::<_, CreateVolume>(&create(), &map!(secrets));
    check::<_, CreateVolume>(&create(), &capacity!());
    let cases: [Case<Request>; 6] = [
        ("unicode in the name", |r| r.name = "größe ✓".into(), None),
        ("no size asked for", |r| r.capacity_range = None, None),
        (
            "no capabilities",
            |r| r.volume_capabilities.clear(),
            Some("volume_capabilities is missing"),
        ),
        (
            "one broken capability",
            |r| r.volume_capabilities.push(csi::VolumeCapability::default()),
            Some("neither block nor mount"),
        ),
        (
            "a source without a type",
            |r| r.volume_content_source = Some(csi::VolumeContentSource::default()),
            Some("neither snapshot nor volume"),
        ),
        (
            "a control character in a parameter",
            |r| r.parameters = HashMap::from([("k".to_owned(), "\u{1b}[31m".to_owned())]),
            Some("parameters has control characters"),
        ),
    ];
    check::<_, CreateVolume>(&create(), &cases);
}

#[test]
fn create_volume_with_contradictory_capabilities() {
    fn typed(fs_type: &str, group: &str) -> csi::VolumeCapability {
        mount(wire::MountVolume {
            fs_type: fs_type.to_owned(),
            volume_mount_group: group.to_owned(),
            ..Default::default()
        })
    }
    fn block() -> csi::VolumeCapability {
        csi::VolumeCapability {
            access_type: Some(wire::AccessType::Block(wire::BlockVolume {})),
            ..plain_mount()
        }
    }
    let cases: [Case<csi::CreateVolumeRequest>; 5] = [
        (
            "two filesystems",
            |r| r.volume_capabilities = vec![typed("ext4", ""), plain_mount(), typed("xfs", "")],
            Some("contradict each other: fs_type \"ext4\" and \"xfs\""),
        ),
        (
            "two groups",
            |r| r.volume_capabilities = vec![typed("", "1000"), typed("", "2000")],
            Some("contradict each other: volume_mount_group"),
        ),
        (
            "one filesystem, and any",
            |r| r.volume_capabilities = vec![typed("ext4", ""), typed("ext4", "1000"), plain_mount()],
            None,
        ),
        (
            "a disk that is also mounted",
            |r| r.volume_capabilities = vec![block(), typed("ext4", "")],
            None,
        ),
        ("a disk", |r| r.volume_capabilities = vec![block()], None),
    ];
    check::<_, CreateVolume>(&create(), &cases);
}

#[test]
fn create_volume_from_a_source() {
    use csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
    fn from(source: Type) -> Option<csi::VolumeContentSource> {
        Some(csi::VolumeContentSource { r#type: Some(source) })
    }
    fn snapshot(id: &str) -> Option<csi::VolumeContentSource> {
        from(Type::Snapshot(SnapshotSource {
            snapshot_id: id.to_owned(),
        }))
    }
    fn volume(id: &str) -> Option<csi::VolumeContentSource> {
        from(Type::Volume(VolumeSource {
            volume_id: id.to_owned(),
        }))
    }
    let cases: [Case<csi::CreateVolumeRequest>; 5] = [
        ("a snapshot", |r| r.volume_content_source = snapshot("s"), None),
        ("a volume", |r| r.volume_content_source = volume("v"), None),
        (
            "a snapshot without id",
            |r| r.volume_content_source = snapshot(""),
            Some("snapshot_id is missing"),
        ),
        (
            "a volume without id",
            |r| r.volume_content_source = volume(""),
            Some("volume_id is missing"),
        ),
        (
            "a snapshot with too long an id",
            |r| r.volume_content_source = snapshot(&"x".repeat(129)),
            Some("snapshot_id has 129 bytes"),
        ),
    ];
    check::<_, CreateVolume>(&create(), &cases);
}

#[test]
fn create_volume_at_a_place() {
    fn at(requisite: &[&[(&str, &str)]], preferred: &[&[(&str, &str)]]) -> Option<csi::TopologyRequirement> {
        Some(csi::TopologyRequirement {
            requisite: requisite.iter().map(|segments| place(segments)).collect(),
            preferred: preferred.iter().map(|segments| place(segments)).collect(),
        })
    }
    let cases: [Case<csi::CreateVolumeRequest>; 11] = [
        (
            "a place",
            |r| r.accessibility_requirements = at(&[&[("topology.example.com/zone", "Z-1.a_b")]], &[]),
            None,
        ),
        (
            "no prefix",
            |r| r.accessibility_requirements = at(&[&[("zone", "z1")]], &[]),
            None,
        ),
        (
            "only a wish",
            |r| r.accessibility_requirements = at(&[], &[&[("zone", "z1")]]),
            None,
        ),
        (
            "a wish among the terms",
            |r| {
                r.accessibility_requirements =
                    at(&[&[("zone", "z1")], &[("zone", "z2")]], &[&[("zone", "z2")]])
            },
            None,
        ),
        (
            "a wish beside the terms",
            |r| r.accessibility_requirements = at(&[&[("zone", "z1")]], &[&[("zone", "z2")]]),
            Some("preferred has a term that is not in requisite"),
        ),
        (
            "an empty key",
            |r| r.accessibility_requirements = at(&[&[("", "z1")]], &[]),
            Some("requisite key \"\" is not"),
        ),
        (
            "an empty value",
            |r| r.accessibility_requirements = at(&[&[("zone", "")]], &[]),
            Some("requisite value \"\" is not"),
        ),
        (
            "a long value",
            |r| r.accessibility_requirements = at(&[], &[&[("zone", &"z".repeat(64))]]),
            Some("preferred value"),
        ),
        (
            "a prefix that is no domain",
            |r| r.accessibility_requirements = at(&[&[("-a.example/zone", "z1")]], &[]),
            Some("key \"-a.example/zone\" is not"),
        ),
        (
            "two slashes",
            |r| r.accessibility_requirements = at(&[&[("a/b/c", "z1")]], &[]),
            Some("key \"a/b/c\" is not"),
        ),
        (
            "one key in two cases",
            |r| r.accessibility_requirements = at(&[&[("Zone", "z1"), ("zone", "z1")]], &[]),
            Some("only in upper and lower case"),
        ),
    ];
    check::<_, CreateVolume>(&create(), &cases);
}

#[test]
fn delete_volume() {
    let base = csi::DeleteVolumeRequest {
        volume_id: "v".into(),
        ..Default::default()
    };
    check::<_, DeleteVolume>(&base, &required_text!(volume_id));
    check::<_, DeleteVolume>(&base, &map!(secrets));
}

#[test]
fn validate_volume_capabilities() {
    let base = csi::ValidateVolumeCapabilitiesRequest {
        volume_id: "v".into(),
        volume_capabilities: vec![plain_mount()],
        ..Default::default()
    };
    check::<_, ValidateCapabilities>(&base, &required_text!(volume_id));
    check::<_, ValidateCapabilities>(&base, &map!(volume_context));
    check::<_, ValidateCapabilities>(&base, &map!(parameters));
    check::<_, ValidateCapabilities>(&base, &map!(mutable_parameters));
    check::<_, ValidateCapabilities>(&base, &map!(secrets));
    let cases: [Case<csi::ValidateVolumeCapabilitiesRequest>; 1] = [(
        "no capabilities",
        |r| r.volume_capabilities.clear(),
        Some("volume_capabilities is missing"),
    )];
    check::<_, ValidateCapabilities>(&base, &cases);
}

#[test]
fn get_capacity() {
    let base = csi::GetCapacityRequest::default();
    check::<_, CapacityQuery>(&base, &map!(parameters));
    let cases: [Case<csi::GetCapacityRequest>; 3] = [
        (
            "a broken capability",
            |r| r.volume_capabilities.push(csi::VolumeCapability::default()),
            Some("neither block nor mount"),
        ),
        (
            "a place",
            |r| r.accessible_topology = Some(place(&[("zone", "z1")])),
            None,
        ),
        (
            "a broken place",
            |r| r.accessible_topology = Some(place(&[("zone", "/")])),
            Some("accessible_topology value"),
        ),
    ];
    check::<_, CapacityQuery>(&base, &cases);
}

#[test]
fn list_volumes() {
    let base = csi::ListVolumesRequest {
        max_entries: 7,
        starting_token: "t".into(),
    };
    let cases: [Case<csi::ListVolumesRequest>; 4] = [
        ("no limit, from the beginning", |r| *r = Default::default(), None),
        (
            "negative count",
            |r| r.max_entries = -1,
            Some("max_entries -1 is negative"),
        ),
        (
            "too long a token",
            |r| r.starting_token = "x".repeat(129),
            Some("starting_token has 129 bytes"),
        ),
        (
            "nul in the token",
            |r| r.starting_token = "\0".into(),
            Some("starting_token has control characters"),
        ),
    ];
    check::<_, ListPage>(&base, &cases);
    let page = ListPage::try_from(csi::ListVolumesRequest::default()).unwrap();
    assert_eq!((page.max_entries, page.starting_token), (None, None));
    let page = ListPage::try_from(base).unwrap();
    assert_eq!(
        (page.max_entries, page.starting_token.as_deref()),
        (Some(7), Some("t"))
    );
}

#[test]
fn controller_expand_volume() {
    let base = csi::ControllerExpandVolumeRequest {
        volume_id: "v".into(),
        capacity_range: range(10, 0),
        volume_capability: Some(plain_mount()),
        ..Default::default()
    };
    check::<_, ExpandVolume>(&base, &required_text!(volume_id));
    check::<_, ExpandVolume>(&base, &capacity!());
    check::<_, ExpandVolume>(&base, &capability!(volume_capability));
    check::<_, ExpandVolume>(&base, &map!(secrets));
    let cases: [Case<csi::ControllerExpandVolumeRequest>; 2] = [
        (
            "no size",
            |r| r.capacity_range = None,
            Some("capacity_range is missing"),
        ),
        ("no capability", |r| r.volume_capability = None, None),
    ];
    check::<_, ExpandVolume>(&base, &cases);
}

#[test]
fn controller_publish_and_unpublish_volume() {
    let base = csi::ControllerPublishVolumeRequest {
        volume_id: "v".into(),
        node_id: "n".into(),
        volume_capability: Some(plain_mount()),
        ..Default::default()
    };
    check::<_, PublishToNode>(&base, &required_text!(volume_id));
    check::<_, PublishToNode>(&base, &capability!(volume_capability));
    check::<_, PublishToNode>(&base, &map!(volume_context));
    check::<_, PublishToNode>(&base, &map!(secrets));
    let cases: [Case<csi::ControllerPublishVolumeRequest>; 4] = [
        ("no node", |r| r.node_id.clear(), Some("node_id is missing")),
        ("longest node id", |r| r.node_id = "n".repeat(256), None),
        (
            "too long a node id",
            |r| r.node_id = "n".repeat(257),
            Some("node_id has 257 bytes; at most 256"),
        ),
        (
            "no capability",
            |r| r.volume_capability = None,
            Some("volume_capability is missing"),
        ),
    ];
    check::<_, PublishToNode>(&base, &cases);

    let base = csi::ControllerUnpublishVolumeRequest {
        volume_id: "v".into(),
        node_id: "n".into(),
        ..Default::default()
    };
    check::<_, UnpublishFromNode>(&base, &required_text!(volume_id));
    check::<_, UnpublishFromNode>(&base, &map!(secrets));
    let cases: [Case<csi::ControllerUnpublishVolumeRequest>; 2] = [
        ("from all nodes", |r| r.node_id.clear(), None),
        (
            "too long a node id",
            |r| r.node_id = "n".repeat(257),
            Some("node_id has 257 bytes"),
        ),
    ];
    check::<_, UnpublishFromNode>(&base, &cases);
}

#[test]
fn controller_modify_volume() {
    let base = csi::ControllerModifyVolumeRequest {
        volume_id: "v".into(),
        mutable_parameters: HashMap::from([("k".to_owned(), "v".to_owned())]),
        ..Default::default()
    };
    check::<_, ModifyVolume>(&base, &required_text!(volume_id));
    check::<_, ModifyVolume>(&base, &map!(mutable_parameters));
    check::<_, ModifyVolume>(&base, &map!(secrets));
}

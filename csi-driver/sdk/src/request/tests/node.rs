//! Requests to the node service.

use super::*;

#[test]
fn node_stage_and_unstage_volume() {
    let base = csi::NodeStageVolumeRequest {
        volume_id: "v".into(),
        staging_target_path: "/s".into(),
        volume_capability: Some(plain_mount()),
        publish_context: HashMap::from([("k".to_owned(), "v".to_owned())]),
        ..Default::default()
    };
    check::<_, NodeStageVolume>(&base, &required_text!(volume_id));
    check::<_, NodeStageVolume>(&base, &path!(staging_target_path));
    check::<_, NodeStageVolume>(&base, &capability!(volume_capability));
    check::<_, NodeStageVolume>(&base, &map!(publish_context));
    check::<_, NodeStageVolume>(&base, &map!(volume_context));
    check::<_, NodeStageVolume>(&base, &map!(secrets));
    let cases: [Case<csi::NodeStageVolumeRequest>; 2] = [
        (
            "no path",
            |r| r.staging_target_path.clear(),
            Some("staging_target_path is missing"),
        ),
        (
            "no capability",
            |r| r.volume_capability = None,
            Some("volume_capability is missing"),
        ),
    ];
    check::<_, NodeStageVolume>(&base, &cases);
    let request = NodeStageVolume::try_from(base).unwrap();
    assert_eq!(request.publish_context.get("k").map(String::as_str), Some("v"));

    let base = csi::NodeUnstageVolumeRequest {
        volume_id: "v".into(),
        staging_target_path: "/s".into(),
    };
    check::<_, NodeUnstageVolume>(&base, &required_text!(volume_id));
    check::<_, NodeUnstageVolume>(&base, &path!(staging_target_path));
    let cases: [Case<csi::NodeUnstageVolumeRequest>; 1] = [(
        "no path",
        |r| r.staging_target_path.clear(),
        Some("staging_target_path is missing"),
    )];
    check::<_, NodeUnstageVolume>(&base, &cases);
}

#[test]
fn node_publish_volume() {
    let base = csi::NodePublishVolumeRequest {
        volume_id: "v".into(),
        staging_target_path: "/s".into(),
        target_path: "/t".into(),
        volume_capability: Some(plain_mount()),
        publish_context: HashMap::from([("k".to_owned(), "v".to_owned())]),
        ..Default::default()
    };
    check::<_, NodePublishVolume>(&base, &required_text!(volume_id));
    check::<_, NodePublishVolume>(&base, &path!(target_path));
    check::<_, NodePublishVolume>(&base, &path!(staging_target_path));
    check::<_, NodePublishVolume>(&base, &capability!(volume_capability));
    check::<_, NodePublishVolume>(&base, &map!(publish_context));
    check::<_, NodePublishVolume>(&base, &map!(volume_context));
    check::<_, NodePublishVolume>(&base, &map!(secrets));
    let cases: [Case<csi::NodePublishVolumeRequest>; 4] = [
        (
            "no path",
            |r| r.target_path.clear(),
            Some("target_path is missing"),
        ),
        ("not staged", |r| r.staging_target_path.clear(), None),
        (
            "staged where it is published",
            |r| r.staging_target_path = "//t/".into(),
            Some("target_path and staging_target_path are the same"),
        ),
        (
            "no capability",
            |r| r.volume_capability = None,
            Some("volume_capability is missing"),
        ),
    ];
    check::<_, NodePublishVolume>(&base, &cases);
    let request = NodePublishVolume::try_from(base).unwrap();
    assert_eq!(request.publish_context.get("k").map(String::as_str), Some("v"));
}

#[test]
fn node_unpublish_volume() {
    let base = csi::NodeUnpublishVolumeRequest {
        volume_id: "v".into(),
        target_path: "/t".into(),
    };
    check::<_, NodeUnpublishVolume>(&base, &required_text!(volume_id));
    check::<_, NodeUnpublishVolume>(&base, &path!(target_path));
    let cases: [Case<csi::NodeUnpublishVolumeRequest>; 1] = [(
        "no path",
        |r| r.target_path.clear(),
        Some("target_path is missing"),
    )];
    check::<_, NodeUnpublishVolume>(&base, &cases);
    // One path is spelled one way, so that the claim on it is one claim.
    let request = NodeUnpublishVolume::try_from(csi::NodeUnpublishVolumeRequest {
        target_path: "/a//b/./".into(),
        ..base
    });
    assert_eq!(request.unwrap().target_path.as_os_str(), "/a/b");
}

#[test]
fn node_get_volume_stats() {
    let base = csi::NodeGetVolumeStatsRequest {
        volume_id: "v".into(),
        volume_path: "/p".into(),
        staging_target_path: "/s".into(),
    };
    check::<_, VolumeStatsQuery>(&base, &required_text!(volume_id));
    check::<_, VolumeStatsQuery>(&base, &path!(staging_target_path));
    let cases: [Case<csi::NodeGetVolumeStatsRequest>; 4] = [
        (
            "no path",
            |r| r.volume_path.clear(),
            Some("volume_path is missing"),
        ),
        (
            "looked for anywhere",
            |r| r.volume_path = "some/../path".into(),
            None,
        ),
        (
            "too long a path",
            |r| r.volume_path = "x".repeat(4096),
            Some("volume_path has 4096 bytes"),
        ),
        ("no staging path", |r| r.staging_target_path.clear(), None),
    ];
    check::<_, VolumeStatsQuery>(&base, &cases);
}

#[test]
fn node_expand_volume() {
    let base = csi::NodeExpandVolumeRequest {
        volume_id: "v".into(),
        volume_path: "/p".into(),
        volume_capability: Some(plain_mount()),
        ..Default::default()
    };
    check::<_, NodeExpandVolume>(&base, &required_text!(volume_id));
    check::<_, NodeExpandVolume>(&base, &capacity!());
    check::<_, NodeExpandVolume>(&base, &path!(staging_target_path));
    check::<_, NodeExpandVolume>(&base, &capability!(volume_capability));
    check::<_, NodeExpandVolume>(&base, &map!(secrets));
    let cases: [Case<csi::NodeExpandVolumeRequest>; 2] = [
        (
            "no path",
            |r| r.volume_path.clear(),
            Some("volume_path is missing"),
        ),
        ("no size", |r| r.capacity_range = None, None),
    ];
    check::<_, NodeExpandVolume>(&base, &cases);
}

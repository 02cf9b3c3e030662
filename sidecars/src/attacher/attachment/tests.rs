//! The table of what is done about attachments.

use serde_json::{Value, json};

use super::*;
use crate::testing::{DRIVER, driver, merged, object, pv};

const FINALIZER: &str = "external-attacher/d-csi-example";

fn attachment(patch: Value) -> VolumeAttachment {
    let base = json!({
        "metadata": {"name": "va"},
        "spec": {"attacher": DRIVER, "nodeName": "n", "source": {"persistentVolumeName": "pvc-u1"}},
        "status": {"attached": false},
    });
    object(merged(base, patch))
}

fn held_pv() -> Option<PersistentVolume> {
    Some(pv(json!({"metadata": {"finalizers": [FINALIZER]}})))
}

fn render(next: Next) -> String {
    match next {
        Next::Settled => "settled".into(),
        Next::MarkAttached => "mark attached".into(),
        Next::HoldPv => "hold pv".into(),
        Next::Prepare { node_id } => format!("prepare {node_id}"),
        Next::Publish(call) => format!("publish {} {}", call.request.volume_id, call.request.node_id),
        Next::Unpublish(call) => format!("unpublish {} {}", call.request.volume_id, call.request.node_id),
        Next::Refuse(refusal) => format!("refuse: {refusal}"),
    }
}

fn next(patch: Value, pv: Option<PersistentVolume>, node_id: Option<&str>, attaches: bool) -> String {
    let capabilities: &[_] = if attaches {
        &[ControllerCapability::PublishUnpublishVolume]
    } else {
        &[]
    };
    let facts = driver(capabilities);
    let attachment = attachment(patch);
    let node_id = node_id.map(str::to_string);
    render(decide(&Seen {
        attachment: Some(&attachment),
        pv: pv.as_ref(),
        node_id,
        driver: &facts,
        default_fs_type: "ext4",
    }))
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn attachments_and_what_is_done_about_them() {
    let prepared = || json!({"metadata": {"finalizers": [FINALIZER], "annotations": {"csi.alpha.kubernetes.io/node-id": "id"}}});
    let deleting = || {
        merged(
            prepared(),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        )
    };
    let attached = || merged(prepared(), json!({"status": {"attached": true}}));
    let leaving_pv = Some(pv(
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    ));
    let cases = [
        (
            "another's",
            json!({"spec": {"attacher": "x"}}),
            held_pv(),
            Some("id"),
            "settled",
        ),
        (
            "first, the PV",
            json!({}),
            Some(pv(json!({}))),
            Some("id"),
            "hold pv",
        ),
        (
            "then the attachment",
            json!({}),
            held_pv(),
            Some("id"),
            "prepare id",
        ),
        (
            "then the driver",
            prepared(),
            held_pv(),
            Some("id"),
            "publish vol-1 id",
        ),
        (
            "the node's id has changed",
            prepared(),
            held_pv(),
            Some("id2"),
            "prepare id2",
        ),
        ("attached", attached(), held_pv(), Some("id"), "settled"),
        (
            "no PV",
            json!({}),
            None,
            Some("id"),
            "refuse: persistentvolume \"pvc-u1\" not found",
        ),
        (
            "PV leaving",
            json!({}),
            leaving_pv,
            Some("id"),
            "refuse: persistentvolume \"pvc-u1\" is marked for deletion",
        ),
        (
            "no CSINode",
            json!({}),
            held_pv(),
            None,
            "refuse: CSINode \"n\" does not contain driver \"d.csi.example\"",
        ),
        (
            "another driver's PV",
            json!({}),
            Some(pv(json!({"spec": {"csi": {"driver": "x"}}}))),
            Some("id"),
            "refuse: persistentvolume \"pvc-u1\" is not a volume of this driver",
        ),
        (
            "inline volume",
            json!({"spec": {"source": {"persistentVolumeName": null}}}),
            None,
            Some("id"),
            "refuse: attachment names no persistent volume; inline volumes of in-tree plugins are not supported",
        ),
        (
            "deleted, never prepared",
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            None,
            None,
            "settled",
        ),
        (
            "deleted, perhaps attached",
            deleting(),
            held_pv(),
            Some("id"),
            "unpublish vol-1 id",
        ),
        (
            "deleted, node gone",
            deleting(),
            held_pv(),
            None,
            "unpublish vol-1 id",
        ),
        (
            "deleted, PV gone",
            deleting(),
            None,
            Some("id"),
            "refuse: persistentvolume \"pvc-u1\" not found",
        ),
    ];
    for (name, patch, pv, node_id, expected) in cases {
        assert_eq!(next(patch, pv, node_id, true), expected, "{name}");
    }
}

#[test]
fn without_the_capability_a_yes_is_enough() {
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    assert_eq!(next(json!({}), None, None, false), "mark attached");
    assert_eq!(
        next(json!({"status": {"attached": true}}), None, None, false),
        "settled"
    );
    assert_eq!(next(deleting, None, None, false), "settled");
}

#[test]
fn read_only_and_filesystem_reach_the_call() {
    let publish = ControllerCapability::PublishUnpublishVolume;
    let prepared = attachment(json!({"metadata": {"finalizers": [FINALIZER],
        "annotations": {"csi.alpha.kubernetes.io/node-id": "id"}}}));
    let pv = pv(json!({"metadata": {"finalizers": [FINALIZER]}, "spec": {"csi": {"readOnly": true}}}));
    let call = |capabilities: &[ControllerCapability]| {
        let facts = driver(capabilities);
        let seen = Seen {
            attachment: Some(&prepared),
            pv: Some(&pv),
            node_id: Some("id".into()),
            driver: &facts,
            default_fs_type: "ext4",
        };
        match decide(&seen) {
            Next::Publish(call) => call.request,
            other => panic!("{other:?}"),
        }
    };
    assert!(!call(&[publish]).readonly);
    let request = call(&[publish, ControllerCapability::PublishReadonly]);
    assert!(request.readonly);
    let capability = request.volume_capability.expect("capability");
    let Some(moorline_proto::csi::volume_capability::AccessType::Mount(mount)) = capability.access_type
    else {
        panic!("not a mount")
    };
    assert_eq!(mount.fs_type, "ext4");
}

#[test]
fn a_pv_is_released_after_its_last_attachment() {
    let leaving =
        pv(json!({"metadata": {"finalizers": [FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    let staying = pv(json!({"metadata": {"finalizers": [FINALIZER]}}));
    let free = pv(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    let cases = [
        (&leaving, false, true),
        (&leaving, true, false),
        (&staying, false, false),
        (&free, false, false),
    ];
    for (pv, is_attached, expected) in cases {
        assert_eq!(may_release(pv, is_attached, DRIVER), expected);
    }
}

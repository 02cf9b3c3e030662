//! Snapshots.

use super::*;

/// The snapshot `s1` of the claim `data`, made just now by class `quick`.
pub(super) fn snapshot(patch: Value) -> Value {
    let base = json!({
        "metadata": {"namespace": "ns", "creationTimestamp": JUST, "finalizers": [
            "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection",
            "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection",
        ]},
        "spec": {"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": "quick"},
    });
    let class = json!({"apiVersion": "snapshot.storage.k8s.io/v1"});
    object("VolumeSnapshot", "s1", &[class, base, patch])
}

fn content(patch: Value) -> Value {
    let base = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "metadata": {"creationTimestamp": JUST, "finalizers": [
            "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"]},
        "spec": {
            "driver": "d", "deletionPolicy": "Delete", "volumeSnapshotClassName": "quick",
            "source": {"volumeHandle": "h"},
            "volumeSnapshotRef": {"namespace": "ns", "name": "s1", "uid": "s1"},
        },
    });
    object("VolumeSnapshotContent", "snapcontent-s1", &[base, patch])
}

fn class(patch: Value) -> Value {
    let base = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "driver": "d", "deletionPolicy": "Delete",
    });
    object("VolumeSnapshotClass", "quick", &[base, patch])
}

/// The snapshot as a member of the group `g`.
fn member(patch: Value) -> Value {
    let mut base = json!({
        "metadata": {"ownerReferences": [{"apiVersion": "groupsnapshot.storage.k8s.io/v1",
            "kind": "VolumeGroupSnapshot", "name": "g", "uid": "g"}]},
        "spec": {"volumeSnapshotClassName": null},
    });
    merge(&mut base, &patch);
    base
}

fn group(patch: Value) -> Value {
    let base = json!({
        "apiVersion": "groupsnapshot.storage.k8s.io/v1", "metadata": {"namespace": "ns"},
        "spec": {"source": {"selector": {}}},
    });
    object("VolumeGroupSnapshot", "g", &[base, patch])
}

fn of_volume(more: Objects) -> Objects {
    let mut objects = vec![
        claim("data", bound_to("pv1")),
        pv("pv1", json!({})),
        class(json!({})),
    ];
    objects.extend(more);
    objects
}

fn ready() -> Value {
    json!({"status": {"boundVolumeSnapshotContentName": "snapcontent-s1", "readyToUse": true}})
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn snapshots() {
    let failed = json!({"status": {"error": {"time": JUST, "message": "rpc error: code = FailedPrecondition desc = x"}}});
    let cut = json!({"status": {"snapshotHandle": "sh", "readyToUse": false}});
    let bound = json!({"status": {"boundVolumeSnapshotContentName": "snapcontent-s1", "readyToUse": false}});
    let going = deleting(&["snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"]);
    let mut content_going =
        deleting(&["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"]);
    merge(
        &mut content_going,
        &json!({"metadata": {"annotations": {"snapshot.storage.kubernetes.io/volumesnapshot-being-deleted": "yes"}}}),
    );
    let mut going_and_bound = going.clone();
    merge(&mut going_and_bound, &ready());
    let restore = claim(
        "copy",
        json!({"spec": {"dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s1"}}}),
    );
    let unbound = vec![claim("data", json!({})), class(json!({})), snapshot(json!({}))];
    check(
        Kind::VolumeSnapshot,
        "s1",
        vec![
            (
                "ready",
                of_volume(vec![snapshot(ready()), content(cut.clone())]),
                &["Healthy"],
            ),
            (
                "ready, and its content is gone",
                of_volume(vec![snapshot(ready())]),
                &["ActionNeeded", "s1 SnapshotContentMissing user"],
            ),
            (
                "class missing",
                vec![
                    claim("data", bound_to("pv1")),
                    pv("pv1", json!({})),
                    snapshot(json!({})),
                ],
                &["ActionNeeded", "s1 GetSnapshotClassFailed admin"],
            ),
            (
                "source missing",
                vec![class(json!({})), snapshot(json!({}))],
                &["ActionNeeded", "s1 SnapshotPVCSourceMissing user"],
            ),
            (
                "source has no volume",
                unbound,
                &[
                    "ActionNeeded",
                    "s1 SnapshotContentCreationFailed snapshot-controller",
                    "data ProvisioningFailed admin",
                ],
            ),
            (
                "the controller's turn",
                of_volume(vec![snapshot(json!({}))]),
                &["Waiting", "s1 SnapshotDue snapshot-controller"],
            ),
            (
                "the sidecar's turn",
                of_volume(vec![snapshot(json!({})), content(json!({}))]),
                &["Waiting", "snapcontent-s1 SnapshotCutting csi-snapshotter"],
            ),
            (
                "cut, not ready",
                of_volume(vec![snapshot(bound), content(cut)]),
                &["Waiting", "snapcontent-s1 SnapshotNotReady csi-snapshotter"],
            ),
            (
                "the driver refuses",
                of_volume(vec![snapshot(json!({})), content(failed)]),
                &["ActionNeeded", "snapcontent-s1 SnapshotFailed admin"],
            ),
            (
                "deleted while a claim is filled from it",
                of_volume(vec![
                    snapshot(going_and_bound.clone()),
                    content(json!({})),
                    restore,
                ]),
                &["Waiting", "s1 SnapshotDeletePending csi-provisioner"],
            ),
            (
                "deleted, and the sidecar has to delete the data",
                of_volume(vec![snapshot(going_and_bound), content(content_going)]),
                &["Waiting", "snapcontent-s1 SnapshotDeleting csi-snapshotter"],
            ),
            (
                "a member of a group, without its content",
                vec![snapshot(member(json!({})))],
                &["Waiting", "s1 GroupSnapshotDue snapshot-controller"],
            ),
            (
                "a member, deleted alone",
                vec![
                    snapshot(member(going.clone())),
                    group(json!({})),
                    content(json!({})),
                ],
                &["ActionNeeded", "s1 SnapshotDeletePending user"],
            ),
            (
                "a member, deleted with its group",
                vec![
                    snapshot(member(going.clone())),
                    group(deleting(&["x"])),
                    content(json!({})),
                ],
                &["Waiting", "s1 GroupSnapshotDeleting csi-snapshotter"],
            ),
            (
                "deleted, and nothing is left of it",
                of_volume(vec![snapshot(going)]),
                &["Waiting", "s1 SnapshotDue snapshot-controller"],
            ),
        ],
    );
}

#[test]
fn the_state_names_source_and_content() {
    for (patch, expected) in [
        (ready(), "of claim data, ready, bound to snapcontent-s1"),
        (json!({}), "of claim data, not ready, bound to no content"),
        (
            json!({"spec": {"source": {"persistentVolumeClaimName": null, "volumeSnapshotContentName": "c"}}}),
            "of VolumeSnapshotContent c, not ready, bound to no content",
        ),
    ] {
        let report = of(Kind::VolumeSnapshot, "s1", &[snapshot(patch)]);
        assert_eq!(report.state, expected);
    }
}

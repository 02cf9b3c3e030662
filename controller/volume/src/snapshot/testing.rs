//! Objects for the tables and stories of snapshots: sane defaults, each case states only what matters.

use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use serde_json::{Value, json};

use crate::testing::{merge, object};

pub(super) fn snapshot_json(other: &Value) -> Value {
    let mut base = json!({
        "metadata": {"namespace": "ns", "name": "s", "uid": "su", "resourceVersion": "5", "finalizers": [
            "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection",
            "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection",
        ]},
        "spec": {"source": {"persistentVolumeClaimName": "c"}, "volumeSnapshotClassName": "snap"},
    });
    merge(&mut base, other);
    base
}

/// The snapshot `ns/s` with UID `su` of the claim `c`, with its finalizers, of class `snap`.
pub(super) fn snapshot(other: Value) -> VolumeSnapshot {
    object(snapshot_json(&other), &json!({}))
}

pub(super) fn content_json(other: &Value) -> Value {
    let mut base = json!({
        "metadata": {"name": "snapcontent-su", "uid": "ku", "resourceVersion": "6", "finalizers": [
            "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection",
        ]},
        "spec": {
            "volumeSnapshotRef": {"namespace": "ns", "name": "s", "uid": "su"},
            "deletionPolicy": "Delete", "driver": "d", "volumeSnapshotClassName": "snap",
            "source": {"volumeHandle": "h"},
        },
    });
    merge(&mut base, other);
    base
}

/// The content that is made for [`snapshot`], bound to it, without status.
pub(super) fn content(other: Value) -> VolumeSnapshotContent {
    object(content_json(&other), &json!({}))
}

pub(super) fn class_json(other: &Value) -> Value {
    let mut base = json!({
        "metadata": {"name": "snap"}, "driver": "d", "deletionPolicy": "Delete",
    });
    merge(&mut base, other);
    base
}

/// The class `snap` of the driver `d`, policy Delete.
pub(super) fn class(other: Value) -> VolumeSnapshotClass {
    object(class_json(&other), &json!({}))
}

/// The claim that [`snapshot`] is taken of: bound to `pv1`, held for the snapshot.
pub(super) fn source(other: Value) -> Value {
    let mut base = json!({
        "metadata": {"namespace": "ns", "name": "c", "uid": "u", "resourceVersion": "7", "finalizers": [
            "snapshot.storage.kubernetes.io/pvc-as-source-protection",
        ]},
        "spec": {"volumeName": "pv1", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Bound"},
    });
    merge(&mut base, &other);
    base
}

/// The PV of [`source`].
pub(super) fn source_pv(other: Value) -> Value {
    let mut base = json!({
        "metadata": {"name": "pv1", "uid": "pu"},
        "spec": {
            "claimRef": {"namespace": "ns", "name": "c", "uid": "u"}, "volumeMode": "Filesystem",
            "capacity": {"storage": "1Gi"}, "csi": {"driver": "d", "volumeHandle": "h"},
        },
        "status": {"phase": "Bound"},
    });
    merge(&mut base, &other);
    base
}

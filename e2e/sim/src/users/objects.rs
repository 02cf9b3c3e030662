//! The objects that users make.

use moorline_model::snapshot::{API_VERSION, GROUP};
use serde_json::{Value, json};

use crate::driver::NAME;
use crate::plan::{Class, Origin};

/// The snapshot kinds, as a cluster of `moorline up` has them.
const SNAPSHOT_KINDS: [&str; 3] = [
    include_str!("../../../../orchestrator/moorline/definitions/volumesnapshotclasses.yaml"),
    include_str!("../../../../orchestrator/moorline/definitions/volumesnapshotcontents.yaml"),
    include_str!("../../../../orchestrator/moorline/definitions/volumesnapshots.yaml"),
];

pub(super) fn snapshot_kinds() -> Vec<Value> {
    let definitions = SNAPSHOT_KINDS.iter();
    definitions
        .map(|text| serde_saphyr::from_str(text).expect("the definitions are YAML"))
        .collect()
}

pub(super) fn policy(retain: bool) -> &'static str {
    if retain { "Retain" } else { "Delete" }
}

pub(super) fn storage_class(class: Class) -> Value {
    let is_later = class == Class::Later;
    json!({
        "metadata": {"name": class.name()},
        "provisioner": NAME,
        "allowVolumeExpansion": true,
        "reclaimPolicy": policy(class == Class::Keep),
        "volumeBindingMode": if is_later { "WaitForFirstConsumer" } else { "Immediate" },
        "parameters": {
            "csi.storage.k8s.io/provisioner-secret-name": "driver-secret",
            "csi.storage.k8s.io/provisioner-secret-namespace": "kube-system",
        },
    })
}

pub(super) fn node(name: &str) -> Value {
    let room = json!({"cpu": "64", "memory": "64Gi", "pods": "500", "ephemeral-storage": "100Gi"});
    json!({
        "metadata": {"name": name, "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "status": {
            "capacity": room, "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Sim", "message": ""}],
        },
    })
}

pub(super) fn claim(n: u32, class: Class, gib: u32, origin: Origin) -> Value {
    let mut claim = json!({
        "metadata": {"name": format!("c{n}")},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": class.name(),
            "resources": {"requests": {"storage": format!("{gib}Gi")}},
        },
    });
    let source = match origin {
        Origin::Blank => return claim,
        Origin::Snapshot(n) => {
            json!({"apiGroup": GROUP, "kind": "VolumeSnapshot", "name": format!("s{n}")})
        }
        Origin::Claim(n) => json!({"kind": "PersistentVolumeClaim", "name": format!("c{n}")}),
    };
    claim["spec"]["dataSource"] = source;
    claim
}

pub(super) fn pod(n: u32, claim: u32) -> Value {
    json!({
        "metadata": {"name": format!("p{n}")},
        "spec": {
            // The kubelet would mount it, and everything else of the volume is more interesting.
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main", "image": "sim",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": format!("c{claim}")}}],
        },
    })
}

pub(super) fn static_pv(n: u32, handle: &str, retain: bool, claim: Option<u32>) -> Value {
    let mut pv = json!({
        "metadata": {"name": format!("static{n}")},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "8Gi"},
            "storageClassName": Class::Static.name(),
            "persistentVolumeReclaimPolicy": policy(retain),
            "csi": {"driver": NAME, "volumeHandle": handle},
        },
    });
    if let Some(claim) = claim {
        pv["spec"]["claimRef"] = json!({"namespace": "default", "name": format!("c{claim}")});
    }
    pv
}

fn snapshot_class_name(keep: bool) -> &'static str {
    if keep { "snap-keep" } else { "snap" }
}

pub(super) fn snapshot_class(keep: bool) -> Value {
    json!({
        "kind": "VolumeSnapshotClass",
        "apiVersion": API_VERSION,
        "metadata": {"name": snapshot_class_name(keep)},
        "driver": NAME,
        "deletionPolicy": policy(keep),
        "parameters": {
            "csi.storage.k8s.io/snapshotter-secret-name": "driver-secret",
            "csi.storage.k8s.io/snapshotter-secret-namespace": "kube-system",
        },
    })
}

pub(super) fn snapshot(n: u32, source: Value, keep: Option<bool>) -> Value {
    let mut snapshot = json!({
        "kind": "VolumeSnapshot",
        "apiVersion": API_VERSION,
        "metadata": {"name": format!("s{n}")},
        "spec": {"source": source},
    });
    if let Some(keep) = keep {
        snapshot["spec"]["volumeSnapshotClassName"] = json!(snapshot_class_name(keep));
    }
    snapshot
}

pub(super) fn content(n: u32, handle: &str, keep: bool) -> Value {
    json!({
        "kind": "VolumeSnapshotContent",
        "apiVersion": API_VERSION,
        "metadata": {"name": format!("content{n}")},
        "spec": {
            "deletionPolicy": policy(keep),
            "driver": NAME,
            "source": {"snapshotHandle": handle},
            "volumeSnapshotRef": {"namespace": "default", "name": format!("s{n}")},
        },
    })
}

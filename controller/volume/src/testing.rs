//! Objects for tests: sane defaults, each case states only what matters.

pub(crate) mod api;
pub(crate) mod running;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Puts `patch` over `base`, member by member; null removes, as in a JSON merge patch.
pub(crate) fn merge(base: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *base = patch.clone();
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            base.as_object_mut().map(|base| base.remove(key));
        } else {
            merge(&mut base[key], value);
        }
    }
}

pub(crate) fn object<K: DeserializeOwned>(mut base: Value, other: &Value) -> K {
    merge(&mut base, other);
    serde_json::from_value(base).unwrap()
}

/// The claim `ns/c` with UID `u`, Pending, 1Gi ReadWriteOnce, without class.
pub(crate) fn claim(other: Value) -> Arc<PersistentVolumeClaim> {
    let base = json!({
        "metadata": {"namespace": "ns", "name": "c", "uid": "u", "resourceVersion": "7"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    });
    Arc::new(object(base, &other))
}

/// The PV `pv1`, Available, 10Gi ReadWriteOnce, without class, policy Retain.
pub(crate) fn pv(other: Value) -> Arc<PersistentVolume> {
    let base = json!({
        "metadata": {"name": "pv1", "uid": "pv1-uid", "resourceVersion": "9"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "csi": {"driver": "d", "volumeHandle": "h"},
        },
        "status": {"phase": "Available"},
    });
    Arc::new(object(base, &other))
}

/// The class `fast` of the provisioner `csi.example.com`.
pub(crate) fn class(other: Value) -> Arc<StorageClass> {
    let base = json!({
        "metadata": {"name": "fast"}, "provisioner": "csi.example.com", "volumeBindingMode": "Immediate",
    });
    Arc::new(object(base, &other))
}

//! Builders for the deciders' tables: sane defaults, each case states what matters.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::discovery::{ControllerCapability, DriverFacts, PluginService};

/// The driver of all tables.
pub(crate) const DRIVER: &str = "d.csi.example";

/// An object from JSON.
pub(crate) fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("a valid object")
}

/// `value` with `patch` merged into it (`null` removes).
pub(crate) fn merged(mut value: Value, patch: Value) -> Value {
    merge(&mut value, patch);
    value
}

fn merge(value: &mut Value, patch: Value) {
    let Value::Object(fields) = patch else {
        *value = patch;
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    for (name, patch) in fields {
        match patch {
            Value::Null => {
                value.as_object_mut().and_then(|fields| fields.remove(&name));
            }
            patch => merge(&mut value[name], patch),
        }
    }
}

/// A claim handed to the driver, with `patch` applied.
pub(crate) fn claim(patch: Value) -> PersistentVolumeClaim {
    let base = json!({
        "metadata": {"name": "data", "namespace": "ns", "uid": "u1", "resourceVersion": "7",
            "annotations": {"volume.kubernetes.io/storage-provisioner": DRIVER}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    });
    object(merged(base, patch))
}

/// A class of the driver, with `patch` applied.
pub(crate) fn class(patch: Value) -> StorageClass {
    let base = json!({
        "metadata": {"name": "fast", "uid": "sc1"}, "provisioner": DRIVER,
        "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate",
    });
    object(merged(base, patch))
}

/// A PV of the driver bound to [`claim`], with `patch` applied.
pub(crate) fn pv(patch: Value) -> PersistentVolume {
    let base = json!({
        "metadata": {"name": "pvc-u1", "uid": "pv1", "resourceVersion": "9",
            "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"],
            "annotations": {
                "pv.kubernetes.io/provisioned-by": DRIVER,
                "volume.kubernetes.io/provisioner-deletion-secret-name": "",
                "volume.kubernetes.io/provisioner-deletion-secret-namespace": "",
            }},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "fast",
            "claimRef": {"namespace": "ns", "name": "data", "uid": "u1"},
            "csi": {"driver": DRIVER, "volumeHandle": "vol-1"}},
        "status": {"phase": "Bound"},
    });
    object(merged(base, patch))
}

/// A driver with a controller service and these capabilities.
pub(crate) fn driver(capabilities: &[ControllerCapability]) -> DriverFacts {
    DriverFacts {
        driver_name: DRIVER.to_string(),
        services: [PluginService::ControllerService as i32].into(),
        controller: capabilities.iter().map(|capability| *capability as i32).collect(),
        node_expands: false,
        takes_groups: false,
    }
}

/// The moment of all tables, moved by some seconds.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::new(1_800_000_000 + seconds, 0).expect("a valid time")
}

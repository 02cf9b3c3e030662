//! Volumes, claims, classes and drivers.

use serde_json::{Map, Value};

use super::{child, existing, pods};
use crate::object::{set_default, set_if_empty, text};

pub(super) fn pv(pv: &mut Map<String, Value>) {
    if let Some(status) = child(pv, "status") {
        set_if_empty(status, "phase", "Pending");
    }
    let Some(spec) = child(pv, "spec") else { return };
    set_if_empty(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_default(spec, "volumeMode", "Filesystem");
    pods::source(spec);
}

pub(super) fn claim(claim: &mut Map<String, Value>) {
    if let Some(status) = child(claim, "status") {
        set_if_empty(status, "phase", "Pending");
    }
    let Some(spec) = child(claim, "spec") else { return };
    set_default(spec, "volumeMode", "Filesystem");
    data_source(spec);
}

/// Where a volume's data comes from has an old field, which knows claims and snapshots alone, and a new one. Each is
/// mirrored into the other, but for sources in other namespaces, which the old field can't name.
fn data_source(spec: &mut Map<String, Value>) {
    match (
        spec.get("dataSource").cloned(),
        spec.get("dataSourceRef").cloned(),
    ) {
        (Some(old), None) => {
            let source = (text(&old, &["apiGroup"]), text(&old, &["kind"]));
            if matches!(
                source,
                ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
            ) {
                spec.insert("dataSourceRef".to_owned(), old);
            } else {
                spec.remove("dataSource");
            }
        }
        (None, Some(Value::Object(new))) if !new.contains_key("namespace") => {
            spec.insert("dataSource".to_owned(), Value::Object(new));
        }
        _ => {}
    }
}

pub(super) fn class(class: &mut Map<String, Value>) {
    set_default(class, "reclaimPolicy", "Delete");
    set_default(class, "volumeBindingMode", "Immediate");
}

/// A volume that has no object of its own is described inside.
pub(super) fn attachment(attachment: &mut Map<String, Value>) {
    let source = existing(attachment, "spec").and_then(|spec| existing(spec, "source"));
    if let Some(volume) = source.and_then(|source| existing(source, "inlineVolumeSpec")) {
        pods::source(volume);
    }
}

pub(super) fn csi_driver(driver: &mut Map<String, Value>) {
    let Some(spec) = child(driver, "spec") else { return };
    set_default(spec, "attachRequired", true);
    set_default(spec, "podInfoOnMount", false);
    set_default(spec, "storageCapacity", false);
    set_default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    set_if_empty(spec, "volumeLifecycleModes", vec!["Persistent"]);
    set_default(spec, "requiresRepublish", false);
    set_default(spec, "seLinuxMount", false);
}

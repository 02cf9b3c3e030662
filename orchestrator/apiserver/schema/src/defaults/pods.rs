//! Pods and their volumes.

use serde_json::{Map, Value};

use super::{child, containers, elements, existing};
use crate::object::{is_empty, set_default, set_if_empty};

/// Mode of files from secrets and the like: 0644.
const FILE_MODE: i32 = 0o644;

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

pub(super) fn pod(pod: &mut Map<String, Value>) {
    template(pod);
    let Some(spec) = child(pod, "spec") else { return };
    set_default(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    for list in CONTAINER_LISTS {
        for container in elements(spec, list) {
            if list != "ephemeralContainers" {
                containers::requests(container);
            }
            if host_network {
                containers::host_ports(container);
            }
        }
    }
}

/// What pods and the templates of pods have in common.
pub(super) fn template(template: &mut Map<String, Value>) {
    let Some(spec) = child(template, "spec") else {
        return;
    };
    set_if_empty(spec, "restartPolicy", "Always");
    set_if_empty(spec, "dnsPolicy", "ClusterFirst");
    set_if_empty(spec, "schedulerName", "default-scheduler");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "securityContext", Map::new());
    service_account(spec);
    for list in CONTAINER_LISTS {
        for container in elements(spec, list) {
            containers::container(container);
        }
    }
    for volume in elements(spec, "volumes") {
        pod_volume(volume);
    }
}

/// The account has an old name, kept for old clients: both fields say the same.
fn service_account(spec: &mut Map<String, Value>) {
    if is_empty(spec.get("serviceAccountName")) {
        if let Some(old) = spec
            .get("serviceAccount")
            .filter(|name| !is_empty(Some(name)))
            .cloned()
        {
            spec.insert("serviceAccountName".to_owned(), old);
        }
    } else if let Some(name) = spec.get("serviceAccountName").cloned() {
        spec.insert("serviceAccount".to_owned(), name);
    }
}

fn pod_volume(volume: &mut Map<String, Value>) {
    if volume.keys().all(|name| name == "name") {
        volume.insert("emptyDir".to_owned(), Map::new().into());
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, source) {
            set_default(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(downward) = existing(volume, "downwardAPI") {
        field_references(downward);
    }
    if let Some(projected) = existing(volume, "projected") {
        for source in elements(projected, "sources") {
            if let Some(token) = existing(source, "serviceAccountToken") {
                set_default(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = existing(source, "downwardAPI") {
                field_references(downward);
            }
        }
    }
    if let Some(image) = existing(volume, "image") {
        let reference = image
            .get("reference")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        set_if_empty(image, "pullPolicy", containers::pull_policy(&reference));
    }
    let template = existing(volume, "ephemeral").and_then(|source| existing(source, "volumeClaimTemplate"));
    if let Some(spec) = template.and_then(|template| existing(template, "spec")) {
        set_default(spec, "volumeMode", "Filesystem");
    }
    source(volume);
}

/// Items that name a field of the pod do so in a version.
fn field_references(downward: &mut Map<String, Value>) {
    for item in elements(downward, "items") {
        if let Some(reference) = existing(item, "fieldRef") {
            set_if_empty(reference, "apiVersion", "v1");
        }
    }
}

/// Sources that pods and persistent volumes share.
pub(super) fn source(volume: &mut Map<String, Value>) {
    if let Some(host_path) = existing(volume, "hostPath") {
        set_default(host_path, "type", "");
    }
    if let Some(iscsi) = existing(volume, "iscsi") {
        set_if_empty(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = existing(volume, "rbd") {
        set_if_empty(rbd, "pool", "rbd");
        set_if_empty(rbd, "user", "admin");
        set_if_empty(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = existing(volume, "azureDisk") {
        set_default(disk, "cachingMode", "ReadWrite");
        set_default(disk, "kind", "Shared");
        set_default(disk, "fsType", "ext4");
        set_default(disk, "readOnly", false);
    }
    if let Some(scale_io) = existing(volume, "scaleIO") {
        set_if_empty(scale_io, "storageMode", "ThinProvisioned");
        set_if_empty(scale_io, "fsType", "xfs");
    }
}

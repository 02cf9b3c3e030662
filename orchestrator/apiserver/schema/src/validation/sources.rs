//! Sources of volumes, as pods and persistent volumes name them.

use serde_json::Value;

use super::faults::Faults;
use super::metadata::csi_driver_name;
use crate::names;
use crate::object::{at, text};
use crate::place::Place;

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// A driver's name, required.
pub(super) fn driver(place: &Place<'_>, name: &str, faults: &mut Faults) {
    if name.is_empty() {
        faults.required(place, "");
    } else if name.len() > names::LABEL_LENGTH_MAX {
        faults.too_long(place, names::LABEL_LENGTH_MAX);
    } else {
        faults.invalid_each(place, name, &csi_driver_name(name));
    }
}

/// The `csi` source of a persistent volume.
pub(super) fn csi_volume(place: &Place<'_>, source: &Value, faults: &mut Faults) {
    driver(&place.field("driver"), text(source, &["driver"]), faults);
    if text(source, &["volumeHandle"]).is_empty() {
        faults.required(&place.field("volumeHandle"), "");
    }
    let secrets = [
        "controllerPublishSecretRef",
        "nodePublishSecretRef",
        "controllerExpandSecretRef",
        "nodeExpandSecretRef",
    ];
    for (name, secret) in secrets
        .iter()
        .filter_map(|name| Some((name, at(source, &[name])?)))
    {
        let place = place.field(name);
        for field in ["name", "namespace"] {
            if text(secret, &[field]).is_empty() {
                faults.required(&place.field(field), "");
            }
        }
    }
}

/// A path that doesn't lead upwards, required.
pub(super) fn path(place: &Place<'_>, path: &str, faults: &mut Faults) {
    if path.is_empty() {
        faults.required(place, "");
    }
    no_backsteps(place, path, faults);
}

/// A path that doesn't lead upwards.
pub(super) fn no_backsteps(place: &Place<'_>, path: &str, faults: &mut Faults) {
    if path.split('/').any(|part| part == "..") {
        faults.invalid(place, path, "must not contain '..'");
    }
}

/// A relative path that doesn't lead upwards.
pub(super) fn descending(place: &Place<'_>, path: &str, faults: &mut Faults) {
    if path.starts_with('/') {
        faults.invalid(place, path, "must be a relative path");
    }
    no_backsteps(place, path, faults);
}

/// A relative path to a file of a volume, required; names beginning with two dots are the kubelet's.
pub(super) fn file_path(place: &Place<'_>, path: &str, faults: &mut Faults) {
    if path.is_empty() {
        return faults.required(place, "");
    }
    descending(place, path, faults);
    if path.starts_with("..") && !path.starts_with("../") {
        faults.invalid(place, path, "must not start with '..'");
    }
}

/// Sources that pods and persistent volumes have in common.
pub(super) fn shared(place: &Place<'_>, name: &str, source: &Value, faults: &mut Faults) {
    let mut required = |fields: &[&str]| {
        for field in fields.iter().filter(|field| text(source, &[field]).is_empty()) {
            faults.required(&place.field(field), "");
        }
    };
    match name {
        "hostPath" => {
            path(&place.field("path"), text(source, &["path"]), faults);
            let kind = text(source, &["type"]);
            if !HOST_PATH_TYPES.contains(&kind) {
                faults.not_supported(&place.field("type"), kind, &HOST_PATH_TYPES);
            }
        }
        "nfs" => {
            required(&["server", "path"]);
            let path = text(source, &["path"]);
            if !path.is_empty() && !path.starts_with('/') {
                faults.invalid(&place.field("path"), path, "must be an absolute path");
            }
        }
        "iscsi" => required(&["targetPortal", "iqn"]),
        "gcePersistentDisk" => required(&["pdName"]),
        "awsElasticBlockStore" | "cinder" => required(&["volumeID"]),
        "glusterfs" => required(&["endpoints", "path"]),
        "rbd" => required(&["image"]),
        "cephfs" if crate::object::list(source, &["monitors"]).is_empty() => {
            faults.required(&place.field("monitors"), "");
        }
        "flexVolume" => required(&["driver"]),
        "azureFile" => required(&["secretName", "shareName"]),
        "azureDisk" => required(&["diskName", "diskURI"]),
        "vsphereVolume" => required(&["volumePath"]),
        "quobyte" => required(&["registry", "volume"]),
        "portworxVolume" => required(&["volumeID"]),
        "scaleIO" => required(&["gateway", "system", "volumeName"]),
        "photonPersistentDisk" => required(&["pdID"]),
        _ => {}
    }
}

//! Persistent volumes.

use serde_json::{Map, Value};

use super::faults::Faults;
use super::{resources, selectors, sources};
use crate::names;
use crate::object::{at, list, map, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");
pub(super) const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
pub(super) const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// The fields of `spec` that name where the volume is, in the order in which a second one is found.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "azureDisk",
    "portworxVolume",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// Topology labels that were renamed when they left beta.
const RENAMED_LABELS: [(&str, &str); 5] = [
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
    ),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
];

/// Modes of a volume or claim: known ones, at least one, and the one for a single pod alone.
pub(super) fn access_modes(place: &Place<'_>, modes: &[Value], detail: &str, faults: &mut Faults) {
    if modes.is_empty() {
        faults.required(place, detail);
    }
    let modes: Vec<&str> = modes.iter().filter_map(Value::as_str).collect();
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(mode)) {
        faults.not_supported(place, *mode, &ACCESS_MODES);
    }
    let single_pod = modes.contains(&"ReadWriteOncePod");
    if single_pod
        && modes
            .iter()
            .any(|&mode| mode != "ReadWriteOncePod" && ACCESS_MODES.contains(&mode))
    {
        faults.forbidden(place, "may not use ReadWriteOncePod with other access modes");
    }
}

pub(super) fn pv(pv: &Value, faults: &mut Faults) {
    let empty = Value::Object(Map::new());
    let spec = at(pv, &["spec"]).unwrap_or(&empty);
    access_modes(
        &SPEC.field("accessModes"),
        list(spec, &["accessModes"]),
        "",
        faults,
    );
    capacity(spec, faults);
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = text(spec, &["persistentVolumeReclaimPolicy"]);
    faults.one_of_if_set(&SPEC.field("persistentVolumeReclaimPolicy"), policy, &policies);
    let has_affinity = node_affinity(spec, faults);
    source(spec, has_affinity, faults);
    if policy == "Recycle"
        && text(spec, &["hostPath", "path"]).trim_end_matches('/').is_empty()
        && spec.get("hostPath").is_some()
    {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        faults.forbidden(&SPEC.field("persistentVolumeReclaimPolicy"), detail);
    }
    let class = text(spec, &["storageClassName"]);
    if !class.is_empty() {
        faults.invalid_each(
            &SPEC.field("storageClassName"),
            class,
            &names::dns1123_subdomain(class),
        );
    }
    faults.one_of_if_there(
        &SPEC.field("volumeMode"),
        at(spec, &["volumeMode"]),
        &VOLUME_MODES,
    );
    attributes_class(spec, faults);
}

fn capacity(spec: &Value, faults: &mut Faults) {
    let place = SPEC.field("capacity");
    let Some(capacity) = map(spec, &["capacity"]).filter(|capacity| !capacity.is_empty()) else {
        faults.required(&place, "");
        return faults.not_supported(&place, Value::Null, &["storage"]);
    };
    if capacity.len() > 1 || !capacity.contains_key("storage") {
        faults.not_supported(&place, capacity.clone(), &["storage"]);
    }
    for (name, amount) in capacity {
        resources::positive(&place.key(name), amount, faults);
    }
}

fn node_affinity(spec: &Value, faults: &mut Faults) -> bool {
    let Some(affinity) = at(spec, &["nodeAffinity"]) else {
        return false;
    };
    let place = SPEC.field("nodeAffinity");
    match at(affinity, &["required"]) {
        Some(required) => selectors::nodes(&place.field("required"), required, faults),
        None => faults.required(&place.field("required"), "must specify required node constraints"),
    }
    true
}

fn source(spec: &Value, has_affinity: bool, faults: &mut Faults) {
    let mut given = SOURCES
        .iter()
        .filter_map(|name| Some((*name, at(spec, &[name])?)));
    let Some((name, source)) = given.next() else {
        return faults.required(&SPEC, "must specify a volume type");
    };
    for (other, _) in given {
        faults.forbidden(&SPEC.field(other), "may not specify more than 1 volume type");
    }
    let place = SPEC.field(name);
    match name {
        "csi" => sources::csi_volume(&place, source, faults),
        "local" => {
            sources::path(&place.field("path"), text(source, &["path"]), faults);
            if !has_affinity {
                faults.required(&SPEC.field("nodeAffinity"), "Local volume requires node affinity");
            }
        }
        _ => sources::shared(&place, name, source, faults),
    }
}

fn attributes_class(spec: &Value, faults: &mut Faults) {
    let Some(class) = at(spec, &["volumeAttributesClassName"]).and_then(Value::as_str) else {
        return;
    };
    let place = SPEC.field("volumeAttributesClassName");
    if class.is_empty() {
        faults.required(&place, "an empty string is disallowed");
    } else {
        faults.invalid_each(&place, class, &names::dns1123_subdomain(class));
    }
    if at(spec, &["csi"]).is_none() {
        faults.required(
            &SPEC.field("csi"),
            "has to be specified when using volumeAttributesClassName",
        );
    }
}

pub(super) fn update(old: &Value, new: &Value, faults: &mut Faults) {
    if is_source_changed(old, new) {
        let place = SPEC.field("persistentvolumesource");
        faults.forbidden(&place, "spec.persistentvolumesource is immutable after creation");
    }
    faults.immutable(
        &Place::top("volumeMode"),
        at(old, &["spec", "volumeMode"]),
        at(new, &["spec", "volumeMode"]),
    );
    let affinity = ["spec", "nodeAffinity"];
    if let Some(before) = at(old, &affinity)
        && !at(new, &affinity).is_some_and(|after| is_same_but_renamed(before, after))
    {
        let after = at(new, &affinity).cloned().unwrap_or_default();
        let detail = "field is immutable, except for updating from beta label to GA";
        faults.invalid(&Place::top("nodeAffinity"), after, detail);
    }
    let path = ["spec", "volumeAttributesClassName"];
    if at(old, &path).is_some() && at(new, &path).is_none() {
        let place = SPEC.field("volumeAttributesClassName");
        faults.forbidden(&place, "update from non-nil value to nil is forbidden");
    }
}

/// Whether the source differs in more than a secret for expansion, which may be added.
fn is_source_changed(old: &Value, new: &Value) -> bool {
    const ADDED: &str = "controllerExpandSecretRef";
    SOURCES.iter().any(
        |name| match (*name, at(old, &["spec", name]), at(new, &["spec", name])) {
            ("csi", Some(Value::Object(old)), Some(Value::Object(new))) if !old.contains_key(ADDED) => {
                let mut without = new.clone();
                without.remove(ADDED);
                without != *old
            }
            (_, old, new) => old != new,
        },
    )
}

/// Where a volume can be used is set once; afterwards only labels that left beta may be given their new names.
fn is_same_but_renamed(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let is_same = |(name, old): (&String, &Value)| match (name.as_str(), old, new.get(name)) {
                ("key", Value::String(old), Some(Value::String(new))) => old == new || is_renamed(old, new),
                (_, old, Some(new)) => is_same_but_renamed(old, new),
                (_, _, None) => false,
            };
            old.len() == new.len() && old.iter().all(is_same)
        }
        (Value::Array(old), Value::Array(new)) => {
            old.len() == new.len()
                && old
                    .iter()
                    .zip(new)
                    .all(|(old, new)| is_same_but_renamed(old, new))
        }
        (old, new) => old == new,
    }
}

fn is_renamed(old: &str, new: &str) -> bool {
    RENAMED_LABELS.contains(&(old, new))
}

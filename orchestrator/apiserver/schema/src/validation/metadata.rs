//! Names, labels, annotations, owners and finalizers: the same for all kinds.

use serde_json::Value;

use super::faults::Faults;
use crate::names;
use crate::object::{list, map, text};
use crate::place::Place;
use crate::registry::{Gvk, Registry};

/// Annotations of one object, keys and values together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
const METADATA: Place<'static> = Place::top("metadata");

/// What a kind's names have to look like.
fn name_faults(gvk: Gvk<'_>, name: &str) -> Vec<String> {
    match (gvk.group, gvk.kind) {
        ("", "Namespace") => names::dns1123_label(name),
        ("", "Service") => names::dns1035_label(name),
        // An address, which is checked as one.
        ("networking.k8s.io", "IPAddress") => Vec::new(),
        ("certificates.k8s.io", _) => names::path_segment(name),
        ("rbac.authorization.k8s.io", _) => names::path_segment(name),
        ("storage.k8s.io", "CSIDriver") => csi_driver_name(name),
        _ => names::dns1123_subdomain(name),
    }
}

/// A driver's name: a DNS subdomain in upper or lower case, not longer than a label.
pub(super) fn csi_driver_name(name: &str) -> Vec<String> {
    let mut faults = names::dns1123_subdomain(&name.to_lowercase());
    if name.len() > names::LABEL_LENGTH_MAX {
        faults.push(format!("may not be more than {} bytes", names::LABEL_LENGTH_MAX));
    }
    faults
}

pub(crate) fn create(registry: &Registry, gvk: Gvk<'_>, object: &Value, faults: &mut Faults) {
    let name = text(object, &["metadata", "name"]);
    if name.is_empty() {
        faults.required(&METADATA.field("name"), "name or generateName is required");
    } else {
        faults.invalid_each(&METADATA.field("name"), name, &name_faults(gvk, name));
    }
    let resource = registry.resource_by_kind(gvk.group, gvk.version, gvk.kind);
    create_in(gvk, resource.map(|resource| resource.namespaced), object, faults);
}

/// The metadata of a new custom object.
pub(crate) fn create_custom(namespaced: bool, object: &Value, faults: &mut Faults) {
    let gvk = Gvk {
        group: "custom",
        version: "",
        kind: "",
    };
    let name = text(object, &["metadata", "name"]);
    if name.is_empty() {
        faults.required(&METADATA.field("name"), "name or generateName is required");
    } else {
        faults.invalid_each(&METADATA.field("name"), name, &name_faults(gvk, name));
    }
    create_in(gvk, Some(namespaced), object, faults);
}

fn create_in(gvk: Gvk<'_>, namespaced: Option<bool>, object: &Value, faults: &mut Faults) {
    let namespace = text(object, &["metadata", "namespace"]);
    let place = METADATA.field("namespace");
    match namespaced {
        Some(true) if namespace.is_empty() => faults.required(&place, ""),
        Some(true) => faults.invalid_each(&place, namespace, &names::dns1123_label(namespace)),
        Some(false) if !namespace.is_empty() => faults.forbidden(&place, "not allowed on this type"),
        _ => {}
    }
    let prefix = text(object, &["metadata", "generateName"]);
    if !prefix.is_empty() {
        // What comes behind it makes up for a hyphen at its end.
        let as_name = prefix
            .strip_suffix('-')
            .filter(|rest| !rest.is_empty())
            .unwrap_or(prefix);
        faults.invalid_each(
            &METADATA.field("generateName"),
            prefix,
            &name_faults(gvk, as_name),
        );
    }
    common(object, faults);
    finalizers(object, faults);
    standard_finalizers(gvk, object, faults);
}

pub(crate) fn update(old: &Value, new: &Value, faults: &mut Faults) {
    for name in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
    ] {
        let before = old.get("metadata").and_then(|metadata| metadata.get(name));
        let after = new.get("metadata").and_then(|metadata| metadata.get(name));
        if before.is_some_and(|value| !value.is_null()) {
            faults.immutable(&METADATA.field(name), before, after);
        }
    }
    if old.get("metadata") != new.get("metadata") {
        common(new, faults);
        finalizers(new, faults);
    }
}

fn common(object: &Value, faults: &mut Faults) {
    if let Some(labels) = map(object, &["metadata", "labels"]) {
        self::labels(&METADATA.field("labels"), labels, faults);
    }
    if let Some(annotations) = map(object, &["metadata", "annotations"]) {
        self::annotations(&METADATA.field("annotations"), annotations, faults);
    }
    owner_references(object, faults);
}

/// Labels, here and in selectors by labels.
pub(super) fn labels(place: &Place<'_>, labels: &serde_json::Map<String, Value>, faults: &mut Faults) {
    for (key, value) in labels {
        let value = value.as_str().unwrap_or_default();
        faults.invalid_each(place, key, &names::qualified_name(key));
        faults.invalid_each(place, value, &names::label_value(value));
    }
}

/// Annotations, here and in the templates of pods.
pub(super) fn annotations(
    place: &Place<'_>,
    annotations: &serde_json::Map<String, Value>,
    faults: &mut Faults,
) {
    let mut bytes = 0;
    for (key, value) in annotations {
        // Keys are compared without regard to case, so upper case is allowed.
        faults.invalid_each(place, key, &names::qualified_name(&key.to_lowercase()));
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        faults.too_long(place, ANNOTATIONS_BYTES_MAX);
    }
}

fn owner_references(object: &Value, faults: &mut Faults) {
    let owners = list(object, &["metadata", "ownerReferences"]);
    let place = METADATA.field("ownerReferences");
    for owner in owners {
        for name in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &[name]).is_empty() {
                let detail = if name == "apiVersion" {
                    "version must not be empty"
                } else {
                    "must not be empty"
                };
                faults.invalid(&place.field(name), "", detail);
            }
        }
        if (text(owner, &["apiVersion"]), text(owner, &["kind"])) == ("v1", "Event") {
            faults.invalid(
                &place,
                owner.clone(),
                "/v1, Kind=Event is disallowed from being an owner",
            );
        }
    }
    let is_controller = |owner: &&Value| owner.get("controller").and_then(Value::as_bool) == Some(true);
    if owners.iter().filter(is_controller).count() > 1 {
        let all = Value::Array(owners.to_vec());
        let detail = "Only one reference can have Controller set to true. Found \"true\" in references for several owners";
        faults.invalid(&place, all, detail);
    }
}

/// Finalizers of the older groups belong to somebody, by prefix, or are upstream's own.
fn standard_finalizers(gvk: Gvk<'_>, object: &Value, faults: &mut Faults) {
    if !matches!(gvk.group, "" | "storage.k8s.io") {
        return;
    }
    let place = METADATA.field("finalizers");
    let all = list(object, &["metadata", "finalizers"])
        .iter()
        .filter_map(Value::as_str)
        .enumerate();
    for (index, name) in all.filter(|(_, name)| !name.contains('/')) {
        if !matches!(name, "orphan" | "foregroundDeletion" | "kubernetes") {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            faults.invalid(&place.index(index), name, detail);
        }
    }
}

fn finalizers(object: &Value, faults: &mut Faults) {
    let place = METADATA.field("finalizers");
    let all: Vec<&str> = list(object, &["metadata", "finalizers"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for name in &all {
        faults.invalid_each(&place, name, &names::qualified_name(name));
    }
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        faults.invalid(&place, all.clone(), detail);
    }
}

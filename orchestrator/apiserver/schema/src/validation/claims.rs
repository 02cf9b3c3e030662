//! Persistent volume claims.

use serde_json::{Map, Value};

use super::faults::Faults;
use super::{resources, selectors, volumes};
use crate::names;
use crate::object::{at, list, map, text};
use crate::place::Place;
use crate::quantity::Quantity;

const SPEC: Place<'static> = Place::top("spec");
const STATUS: Place<'static> = Place::top("status");
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const RESIZE_STATUSES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizePending",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
];

pub(super) fn claim(claim: &Value, faults: &mut Faults) {
    let empty = Value::Object(Map::new());
    spec(&SPEC, at(claim, &["spec"]).unwrap_or(&empty), faults);
}

/// The spec of a claim, or of the template of one.
pub(super) fn spec(place: &Place<'_>, spec: &Value, faults: &mut Faults) {
    let modes = list(spec, &["accessModes"]);
    volumes::access_modes(
        &place.field("accessModes"),
        modes,
        "at least 1 access mode is required",
        faults,
    );
    if let Some(selector) = at(spec, &["selector"]) {
        selectors::labels(&place.field("selector"), selector, faults);
    }
    match at(spec, &["resources", "requests", "storage"]) {
        Some(storage) => resources::positive(&place.field("resources").key("storage"), storage, faults),
        None => faults.required(&place.field("resources").key("storage"), ""),
    }
    for name in ["storageClassName", "volumeAttributesClassName"] {
        let class = text(spec, &[name]);
        if !class.is_empty() {
            faults.invalid_each(&place.field(name), class, &names::dns1123_subdomain(class));
        }
    }
    faults.one_of_if_there(
        &place.field("volumeMode"),
        at(spec, &["volumeMode"]),
        &volumes::VOLUME_MODES,
    );
    data_sources(place, spec, faults);
}

fn data_sources(place: &Place<'_>, spec: &Value, faults: &mut Faults) {
    let (old, new) = (at(spec, &["dataSource"]), at(spec, &["dataSourceRef"]));
    for (name, source) in [("dataSource", old), ("dataSourceRef", new)] {
        if let Some(source) = source {
            data_source(&place.field(name), source, faults);
        }
    }
    let (Some(old), Some(new)) = (old, new) else {
        return;
    };
    if !text(new, &["namespace"]).is_empty() {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        faults.invalid(place, Map::new(), detail);
    } else if ["apiGroup", "kind", "name"]
        .iter()
        .any(|field| text(old, &[field]) != text(new, &[field]))
    {
        faults.invalid(place, Map::new(), "must match dataSourceRef");
    }
}

fn data_source(place: &Place<'_>, source: &Value, faults: &mut Faults) {
    for field in ["name", "kind"] {
        if text(source, &[field]).is_empty() {
            faults.required(&place.field(field), "");
        }
    }
    let (group, kind) = (text(source, &["apiGroup"]), text(source, &["kind"]));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        faults.invalid(
            place,
            kind,
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        );
    }
    if !group.is_empty() {
        faults.invalid_each(&place.field("apiGroup"), group, &names::dns1123_subdomain(group));
    }
}

pub(super) fn update(old: &Value, new: &Value, faults: &mut Faults) {
    let empty = Map::new();
    let before = map(old, &["spec"]).unwrap_or(&empty);
    let after = map(new, &["spec"]).unwrap_or(&empty);
    let is_bound = text(old, &["status", "phase"]) == "Bound";
    if comparable(after, old, new, is_bound) != *before {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        faults.forbidden(&SPEC, detail);
    }
    size_update(old, new, faults);
    let mode = ["spec", "volumeMode"];
    faults.immutable(&Place::top("volumeMode"), at(old, &mode), at(new, &mode));
    annotation_update(old, new, faults);
    if is_bound {
        attributes_class_update(old, new, faults);
    }
}

/// The new spec with everything that may have changed put back to what it was.
fn comparable(after: &Map<String, Value>, old: &Value, new: &Value, is_bound: bool) -> Map<String, Value> {
    let mut comparable = after.clone();
    let mut restore = |name: &str| match at(old, &["spec", name]) {
        Some(value) => {
            comparable.insert(name.to_owned(), value.clone());
        }
        None => {
            comparable.remove(name);
        }
    };
    // The volume is named once.
    if text(old, &["spec", "volumeName"]).is_empty() {
        restore("volumeName");
    }
    if is_class_assigned(old, new) {
        restore("storageClassName");
    }
    if is_bound {
        restore("volumeAttributesClassName");
        let requests = at(old, &["spec", "resources", "requests", "storage"]).cloned();
        let resources = comparable
            .get_mut("resources")
            .and_then(|resources| resources.get_mut("requests"));
        if let (Some(Value::Object(requests)), Some(before)) = (resources, requests)
            && requests.contains_key("storage")
        {
            requests.insert("storage".to_owned(), before);
        }
    }
    comparable
}

/// A claim without a class may get one later, and one that names it by annotation may get it in the field.
fn is_class_assigned(old: &Value, new: &Value) -> bool {
    let (before, after) = (
        at(old, &["spec", "storageClassName"]),
        at(new, &["spec", "storageClassName"]),
    );
    let annotation = |claim| at(claim, &["metadata", "annotations", CLASS_ANNOTATION]);
    match (before, after, annotation(old)) {
        (None, Some(_), None) => annotation(new).is_none(),
        (None, Some(class), Some(annotated)) => class == annotated,
        _ => false,
    }
}

/// A bound claim may grow; it may shrink again as long as it stays larger than what there is already.
fn size_update(old: &Value, new: &Value, faults: &mut Faults) {
    let amount = |claim, path: &[&str]| Quantity::parse(text(claim, path)).ok();
    let request = ["spec", "resources", "requests", "storage"];
    let (Some(before), Some(after)) = (amount(old, &request), amount(new, &request)) else {
        return;
    };
    let actual = amount(old, &["status", "capacity", "storage"]);
    if after < before && actual.is_none_or(|actual| after <= actual) {
        let place = SPEC.field("resources");
        let place = place.field("requests");
        faults.forbidden(
            &place.field("storage"),
            "field can not be less than status.capacity",
        );
    }
}

/// The class named by annotation stays, unless the field takes it over.
fn annotation_update(old: &Value, new: &Value, faults: &mut Faults) {
    let annotation = |claim| at(claim, &["metadata", "annotations", CLASS_ANNOTATION]);
    let (before, after) = (annotation(old), annotation(new));
    let is_moved = after.is_none() && at(new, &["spec", "storageClassName"]) == before;
    if before.is_some() && before != after && !is_moved {
        let place = Place::top("metadata");
        let place = place.field("annotations");
        faults.immutable(&place.field(CLASS_ANNOTATION), before, after);
    }
}

fn attributes_class_update(old: &Value, new: &Value, faults: &mut Faults) {
    let path = ["spec", "volumeAttributesClassName"];
    let in_use = !text(old, &["status", "currentVolumeAttributesClassName"]).is_empty();
    if !in_use || at(old, &path) == at(new, &path) {
        return;
    }
    let what = match at(new, &path).and_then(Value::as_str) {
        None => "nil",
        Some("") => "empty string",
        Some(_) => return,
    };
    let detail =
        format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
    faults.forbidden(&SPEC.field("volumeAttributesClassName"), &detail);
}

pub(super) fn status(claim: &Value, faults: &mut Faults) {
    for mode in list(claim, &["status", "accessModes"])
        .iter()
        .filter_map(Value::as_str)
    {
        faults.one_of(&STATUS.field("accessModes"), mode, &volumes::ACCESS_MODES);
    }
    let amounts = |name| map(claim, &["status", name]).into_iter().flatten();
    for (name, amount) in amounts("capacity") {
        resources::non_negative(&STATUS.field("capacity").key(name), amount, faults);
    }
    for (name, amount) in amounts("allocatedResources") {
        resource_name(&STATUS.field("allocatedResources"), name, faults);
        resources::non_negative(&STATUS.field("allocatedResources").key(name), amount, faults);
    }
    for (name, status) in amounts("allocatedResourceStatuses") {
        let place = STATUS.field("allocatedResourceStatuses");
        resource_name(&place, name, faults);
        faults.one_of(
            &place.key(name),
            status.as_str().unwrap_or_default(),
            &RESIZE_STATUSES,
        );
    }
}

/// `storage`, or the qualified name of something else.
fn resource_name(place: &Place<'_>, name: &str, faults: &mut Faults) {
    if name != "storage" && (!name.contains('/') || !names::qualified_name(name).is_empty()) {
        faults.not_supported(place, name, &["storage"]);
    }
}

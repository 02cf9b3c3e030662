//! Classes, drivers, attachments and capacities.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::faults::Faults;
use super::{resources, selectors, sources};
use crate::names;
use crate::object::{at, list, map, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
const NODE_ID_BYTES_MAX: usize = 256;
const ERROR_MESSAGE_BYTES_MAX: usize = 1024;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const UPDATE_PERIOD_SECONDS_MIN: i64 = 10;

pub(super) fn class(class: &Value, faults: &mut Faults) {
    provisioner(&Place::top("provisioner"), text(class, &["provisioner"]), faults);
    parameters(map(class, &["parameters"]), false, faults);
    let policy = text(class, &["reclaimPolicy"]);
    faults.one_of_if_set(&Place::top("reclaimPolicy"), policy, &["Delete", "Retain"]);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    faults.one_of(
        &Place::top("volumeBindingMode"),
        text(class, &["volumeBindingMode"]),
        &modes,
    );
    selectors::topologies(
        &Place::top("allowedTopologies"),
        list(class, &["allowedTopologies"]),
        faults,
    );
}

fn provisioner(place: &Place<'_>, name: &str, faults: &mut Faults) {
    if name.is_empty() {
        faults.required(place, "");
    } else {
        faults.invalid_each(place, name, &names::qualified_name(&name.to_lowercase()));
    }
}

fn parameters(parameters: Option<&Map<String, Value>>, one_at_least: bool, faults: &mut Faults) {
    let place = Place::top("parameters");
    let Some(parameters) = parameters.filter(|parameters| !parameters.is_empty()) else {
        if one_at_least {
            faults.required(&place, "must contain at least one key/value pair");
        }
        return;
    };
    if parameters.len() > PARAMETERS_MAX {
        faults.too_long(&place, PARAMETERS_MAX);
    }
    if parameters.contains_key("") {
        faults.invalid(&place, "", "field can not be empty.");
    }
    let bytes: usize = parameters
        .iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if bytes > PARAMETERS_BYTES_MAX {
        faults.too_long(&place, PARAMETERS_BYTES_MAX);
    }
}

pub(super) fn class_update(old: &Value, new: &Value, faults: &mut Faults) {
    for name in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        faults.immutable(&Place::top(name), at(old, &[name]), at(new, &[name]));
    }
}

pub(super) fn csi_driver(driver: &Value, faults: &mut Faults) {
    let empty = Value::Object(Map::new());
    let spec = at(driver, &["spec"]).unwrap_or(&empty);
    for name in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
        if at(spec, &[name]).is_none() {
            faults.required(&SPEC.field(name_in_faults(name)), "");
        }
    }
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    faults.one_of_if_there(
        &SPEC.field("fsGroupPolicy"),
        at(spec, &["fsGroupPolicy"]),
        &policies,
    );
    for mode in list(spec, &["volumeLifecycleModes"]) {
        faults.one_of_if_there(
            &SPEC.field("volumeLifecycleModes"),
            Some(mode),
            &["Persistent", "Ephemeral"],
        );
    }
    token_requests(list(spec, &["tokenRequests"]), faults);
    let in_secrets = at(spec, &["serviceAccountTokenInSecrets"]);
    if let Some(flag) = in_secrets.filter(|_| list(spec, &["tokenRequests"]).is_empty()) {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        faults.invalid(&SPEC.field("serviceAccountTokenInSecrets"), flag.clone(), detail);
    }
    let period = at(spec, &["nodeAllocatableUpdatePeriodSeconds"]).and_then(Value::as_i64);
    if let Some(period) = period.filter(|&period| period < UPDATE_PERIOD_SECONDS_MIN) {
        let place = SPEC.field("nodeAllocatableUpdatePeriodSeconds");
        faults.invalid(&place, period, "must be greater than or equal to 10 seconds");
    }
}

/// Upstream spells one field otherwise in its faults.
fn name_in_faults(name: &str) -> &str {
    if name == "attachRequired" {
        "attachedRequired"
    } else {
        name
    }
}

fn token_requests(requests: &[Value], faults: &mut Faults) {
    let place = SPEC.field("tokenRequests");
    let mut audiences = BTreeSet::new();
    for (index, request) in requests.iter().enumerate() {
        let place = place.index(index);
        let audience = text(request, &["audience"]);
        if !audiences.insert(audience) {
            faults.duplicate(&place.field("audience"), audience);
        }
        let Some(seconds) = at(request, &["expirationSeconds"]).and_then(Value::as_i64) else {
            continue;
        };
        let place = place.field("expirationSeconds");
        if seconds < TOKEN_SECONDS_MIN {
            faults.invalid(&place, seconds, "may not specify a duration less than 10 minutes");
        } else if seconds > TOKEN_SECONDS_MAX {
            faults.invalid(
                &place,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            );
        }
    }
}

pub(super) fn csi_driver_update(old: &Value, new: &Value, faults: &mut Faults) {
    for name in ["attachRequired", "volumeLifecycleModes"] {
        faults.immutable(
            &SPEC.field(name_in_faults(name)),
            at(old, &["spec", name]),
            at(new, &["spec", name]),
        );
    }
}

pub(super) fn csi_node(node: &Value, faults: &mut Faults) {
    let place = SPEC.field("drivers");
    let mut seen = BTreeSet::new();
    for (index, driver) in list(node, &["spec", "drivers"]).iter().enumerate() {
        let place = place.index(index);
        let name = text(driver, &["name"]);
        sources::driver(&place.field("name"), name, faults);
        if !seen.insert(name) {
            faults.duplicate(&place.field("name"), name);
        }
        match text(driver, &["nodeID"]) {
            "" => faults.required(&place.field("nodeID"), ""),
            id if id.len() > NODE_ID_BYTES_MAX => {
                faults.invalid(
                    &place.field("nodeID"),
                    id,
                    &format!("must be {NODE_ID_BYTES_MAX} characters or less"),
                );
            }
            _ => {}
        }
        topology_keys(&place, list(driver, &["topologyKeys"]), faults);
        let allocatable = place.field("allocatable");
        faults.non_negative(&allocatable.field("count"), at(driver, &["allocatable", "count"]));
    }
}

fn topology_keys(place: &Place<'_>, keys: &[Value], faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for key in keys.iter().filter_map(Value::as_str) {
        if !seen.insert(key) {
            faults.duplicate(place, key);
        }
        faults.invalid_each(place, key, &names::qualified_name(key));
    }
}

/// What a driver said about a node stays as long as it is registered, but for how many volumes it takes.
pub(super) fn csi_node_update(old: &Value, new: &Value, faults: &mut Faults) {
    let place = SPEC.field("drivers");
    for driver in list(new, &["spec", "drivers"]) {
        let name = text(driver, &["name"]);
        let before = list(old, &["spec", "drivers"])
            .iter()
            .find(|one| text(one, &["name"]) == name);
        let fixed = ["nodeID", "topologyKeys"];
        if before.is_some_and(|before| fixed.iter().any(|field| before.get(field) != driver.get(field))) {
            faults.invalid(&place, driver.clone(), "field is immutable");
        }
    }
}

pub(super) fn attachment(attachment: &Value, faults: &mut Faults) {
    sources::driver(
        &SPEC.field("attacher"),
        text(attachment, &["spec", "attacher"]),
        faults,
    );
    let place = SPEC.field("source");
    let inline = at(attachment, &["spec", "source", "inlineVolumeSpec"]);
    let pv = at(attachment, &["spec", "source", "persistentVolumeName"]).and_then(Value::as_str);
    match (inline, pv) {
        (None, None) => {
            faults.required(
                &place,
                "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            );
        }
        (Some(_), Some(_)) => {
            faults.forbidden(
                &place,
                "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            );
        }
        (None, Some("")) => {
            faults.required(
                &place.field("persistentVolumeName"),
                "must specify non empty persistentVolumeName",
            );
        }
        _ => {}
    }
    let node = text(attachment, &["spec", "nodeName"]);
    faults.invalid_each(&SPEC.field("nodeName"), node, &names::dns1123_subdomain(node));
    attachment_status(attachment, faults);
}

pub(super) fn attachment_status(attachment: &Value, faults: &mut Faults) {
    let status = Place::top("status");
    let metadata = map(attachment, &["status", "attachmentMetadata"])
        .into_iter()
        .flatten();
    let bytes: usize = metadata
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if bytes > PARAMETERS_BYTES_MAX {
        faults.too_long(&status.field("attachmentMetadata"), PARAMETERS_BYTES_MAX);
    }
    for name in ["attachError", "detachError"] {
        let place = status.field(name);
        if text(attachment, &["status", name, "message"]).len() > ERROR_MESSAGE_BYTES_MAX {
            // The number that upstream tells is the one of the metadata.
            faults.too_long(&place.field("message"), PARAMETERS_BYTES_MAX);
        }
        faults.non_negative(
            &place.field("errorCode"),
            at(attachment, &["status", name, "errorCode"]),
        );
    }
}

pub(super) fn attachment_update(old: &Value, new: &Value, faults: &mut Faults) {
    faults.immutable(&SPEC, at(old, &["spec"]), at(new, &["spec"]));
}

pub(super) fn capacity(capacity: &Value, faults: &mut Faults) {
    let class = text(capacity, &["storageClassName"]);
    faults.invalid_each(
        &Place::top("storageClassName"),
        class,
        &names::dns1123_subdomain(class),
    );
    for name in ["capacity", "maximumVolumeSize"] {
        if let Some(amount) = at(capacity, &[name]) {
            resources::non_negative(&Place::top(name), amount, faults);
        }
    }
    if let Some(topology) = at(capacity, &["nodeTopology"]) {
        selectors::labels(&Place::top("nodeTopology"), topology, faults);
    }
}

pub(super) fn capacity_update(old: &Value, new: &Value, faults: &mut Faults) {
    for name in ["nodeTopology", "storageClassName"] {
        faults.immutable(&Place::top(name), at(old, &[name]), at(new, &[name]));
    }
}

pub(super) fn attributes(class: &Value, faults: &mut Faults) {
    provisioner(&Place::top("driverName"), text(class, &["driverName"]), faults);
    parameters(map(class, &["parameters"]), true, faults);
}

pub(super) fn attributes_update(old: &Value, new: &Value, faults: &mut Faults) {
    for name in ["driverName", "parameters"] {
        if at(old, &[name]) != at(new, &[name]) {
            faults.forbidden(&Place::top(name), &format!("updates to {name} are forbidden."));
        }
    }
}

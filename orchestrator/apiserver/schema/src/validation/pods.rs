//! Pods: the spec as a whole and its volumes.

use serde_json::{Map, Value};

use super::faults::Faults;
use super::{affinity, claims, containers, metadata, security, sources};
use crate::names;
use crate::object::{at, list, map, text};
use crate::place::Place;
use crate::quantity::Quantity;

const SPEC: Place<'static> = Place::top("spec");
const DEADLINE_SECONDS_MAX: i64 = i32::MAX as i64;
const DOWNWARD_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// What a pod can have only later.
pub(super) fn new_pod(pod: &Value, faults: &mut Faults) {
    if !list(pod, &["spec", "ephemeralContainers"]).is_empty() {
        faults.forbidden(&SPEC.field("ephemeralContainers"), "cannot be set on create");
    }
    let is_gated = !list(pod, &["spec", "schedulingGates"]).is_empty();
    if is_gated && !text(pod, &["spec", "nodeName"]).is_empty() {
        faults.forbidden(
            &SPEC.field("nodeName"),
            "cannot be set until all schedulingGates have been cleared",
        );
    }
}

pub(super) fn pod(pod: &Value, faults: &mut Faults) {
    let empty = Value::Object(Map::new());
    let spec = at(pod, &["spec"]).unwrap_or(&empty);
    let volumes = self::volumes(list(spec, &["volumes"]), faults);
    containers::all(spec, &volumes, faults);
    faults.one_of(
        &SPEC.field("restartPolicy"),
        text(spec, &["restartPolicy"]),
        &["Always", "OnFailure", "Never"],
    );
    dns(spec, faults);
    names_of_others(spec, faults);
    affinity::pod(spec, faults);
    security::pod(spec, faults);
    let deadline = at(spec, &["activeDeadlineSeconds"]).and_then(Value::as_i64);
    if let Some(seconds) = deadline.filter(|seconds| !(1..=DEADLINE_SECONDS_MAX).contains(seconds)) {
        let detail = format!("must be between 1 and {DEADLINE_SECONDS_MAX}, inclusive");
        faults.invalid(&SPEC.field("activeDeadlineSeconds"), seconds, &detail);
    }
    gates(spec, faults);
}

fn dns(spec: &Value, faults: &mut Faults) {
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    let policy = text(spec, &["dnsPolicy"]);
    faults.one_of(&SPEC.field("dnsPolicy"), policy, &policies);
    if policy == "None" && list(spec, &["dnsConfig", "nameservers"]).is_empty() {
        let place = SPEC.field("dnsConfig");
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        faults.required(&place.field("nameservers"), detail);
    }
    for name in ["hostname", "subdomain"] {
        let value = text(spec, &[name]);
        if !value.is_empty() {
            faults.invalid_each(&SPEC.field(name), value, &names::dns1123_label(value));
        }
    }
}

/// Names of objects that the pod refers to.
fn names_of_others(spec: &Value, faults: &mut Faults) {
    for name in [
        "nodeName",
        "serviceAccountName",
        "priorityClassName",
        "runtimeClassName",
    ] {
        let value = text(spec, &[name]);
        if !value.is_empty() {
            faults.invalid_each(&SPEC.field(name), value, &names::dns1123_subdomain(value));
        }
    }
    if let Some(selector) = map(spec, &["nodeSelector"]) {
        metadata::labels(&SPEC.field("nodeSelector"), selector, faults);
    }
}

fn gates(spec: &Value, faults: &mut Faults) {
    let place = SPEC.field("readinessGates");
    for (index, gate) in list(spec, &["readinessGates"]).iter().enumerate() {
        let kind = text(gate, &["conditionType"]);
        faults.invalid_each(
            &place.index(index).field("conditionType"),
            kind,
            &names::qualified_name(kind),
        );
    }
    let place = SPEC.field("schedulingGates");
    let gates = list(spec, &["schedulingGates"]);
    for (index, gate) in gates.iter().enumerate() {
        let name = text(gate, &["name"]);
        faults.invalid_each(&place.index(index), name, &names::qualified_name(name));
        if gates[..index].contains(gate) {
            faults.duplicate(&place.index(index), name);
        }
    }
}

/// Which volumes a pod has, and whether each may be used as a block device.
pub(super) type VolumeNames<'a> = Vec<(&'a str, bool)>;

fn volumes<'a>(volumes: &'a [Value], faults: &mut Faults) -> VolumeNames<'a> {
    let place = SPEC.field("volumes");
    let mut known: VolumeNames<'a> = Vec::with_capacity(volumes.len());
    for (index, volume) in volumes.iter().enumerate() {
        let here = place.index(index);
        let name = text(volume, &["name"]);
        if name.is_empty() {
            faults.required(&here.field("name"), "");
        } else {
            faults.invalid_each(&here.field("name"), name, &names::dns1123_label(name));
            if known.iter().any(|(other, _)| *other == name) {
                faults.duplicate(&here.field("name"), name);
            }
        }
        let is_claim = ["persistentVolumeClaim", "ephemeral"]
            .iter()
            .any(|source| at(volume, &[source]).is_some());
        known.push((name, is_claim));
        source(&here, volume, faults);
    }
    known
}

fn source(place: &Place<'_>, volume: &Value, faults: &mut Faults) {
    let fields = volume.as_object().into_iter().flatten();
    let mut given = fields.filter(|(name, source)| *name != "name" && !source.is_null());
    let Some((name, source)) = given.next() else {
        return faults.required(place, "must specify a volume type");
    };
    for (other, _) in given {
        faults.forbidden(&place.field(other), "may not specify more than 1 volume type");
    }
    let here = place.field(name);
    match name.as_str() {
        "emptyDir" => {
            let is_negative = |limit: &str| Quantity::parse(limit).is_ok_and(|limit| limit.signum() < 0);
            if is_negative(text(source, &["sizeLimit"])) {
                let detail = "SizeLimit field must be a valid resource quantity";
                faults.forbidden(&here.field("sizeLimit"), detail);
            }
        }
        "secret" => named_files(&here, source, "secretName", faults),
        "configMap" => named_files(&here, source, "name", faults),
        "downwardAPI" => downward(&here, source, faults),
        "projected" => projected(&here, source, faults),
        "persistentVolumeClaim" => {
            if text(source, &["claimName"]).is_empty() {
                faults.required(&here.field("claimName"), "");
            }
        }
        "csi" => sources::driver(&here.field("driver"), text(source, &["driver"]), faults),
        "ephemeral" => {
            let template = here.field("volumeClaimTemplate");
            match at(source, &["volumeClaimTemplate", "spec"]) {
                Some(spec) => claims::spec(&template.field("spec"), spec, faults),
                None => faults.required(&template, ""),
            }
        }
        "image" => {
            if text(source, &["reference"]).is_empty() {
                faults.required(&here.field("reference"), "");
            }
            let policy = text(source, &["pullPolicy"]);
            faults.one_of_if_set(&here.field("pullPolicy"), policy, &containers::PULL_POLICIES);
        }
        name => sources::shared(&here, name, source, faults),
    }
}

fn mode(place: &Place<'_>, mode: Option<&Value>, faults: &mut Faults) {
    if let Some(mode) = mode
        .and_then(Value::as_i64)
        .filter(|mode| !(0..=0o777).contains(mode))
    {
        faults.invalid(
            place,
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}

fn key_paths(place: &Place<'_>, source: &Value, faults: &mut Faults) {
    let place = place.field("items");
    for (index, item) in list(source, &["items"]).iter().enumerate() {
        let here = place.index(index);
        if text(item, &["key"]).is_empty() {
            faults.required(&here.field("key"), "");
        }
        sources::file_path(&here.field("path"), text(item, &["path"]), faults);
        mode(&here.field("mode"), at(item, &["mode"]), faults);
    }
}

/// A secret or config map whose keys become files.
fn named_files(place: &Place<'_>, source: &Value, name: &str, faults: &mut Faults) {
    if text(source, &[name]).is_empty() {
        faults.required(&place.field(name), "");
    }
    mode(&place.field("defaultMode"), at(source, &["defaultMode"]), faults);
    key_paths(place, source, faults);
}

fn downward(place: &Place<'_>, source: &Value, faults: &mut Faults) {
    mode(&place.field("defaultMode"), at(source, &["defaultMode"]), faults);
    for item in list(source, &["items"]) {
        sources::file_path(&place.field("path"), text(item, &["path"]), faults);
        let (field, resource) = (at(item, &["fieldRef"]), at(item, &["resourceFieldRef"]));
        match (field, resource) {
            (Some(_), Some(_)) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                faults.invalid(place, "resource", detail);
            }
            (None, None) => faults.required(place, "one of fieldRef and resourceFieldRef is required"),
            (Some(field), None) => {
                containers::field_reference(&place.field("fieldRef"), field, &DOWNWARD_FIELDS, faults)
            }
            (None, Some(resource)) => {
                if text(resource, &["resource"]).is_empty() {
                    faults.required(&place.field("resourceFieldRef").field("resource"), "");
                }
            }
        }
        mode(&place.field("mode"), at(item, &["mode"]), faults);
    }
}

fn projected(place: &Place<'_>, source: &Value, faults: &mut Faults) {
    mode(&place.field("defaultMode"), at(source, &["defaultMode"]), faults);
    let sources = place.field("sources");
    for (index, one) in list(source, &["sources"]).iter().enumerate() {
        let here = sources.index(index);
        let kinds: Vec<(&String, &Value)> = one.as_object().into_iter().flatten().collect();
        if kinds.len() > 1 {
            faults.forbidden(
                &here.field(kinds[1].0),
                "may not specify more than 1 volume type per source",
            );
        }
        let Some((name, one)) = kinds.first() else {
            continue;
        };
        let here = here.field(name);
        match name.as_str() {
            "secret" | "configMap" => {
                if text(one, &["name"]).is_empty() {
                    faults.required(&here.field("name"), "");
                }
                key_paths(&here, one, faults);
            }
            "downwardAPI" => downward(&here, one, faults),
            "serviceAccountToken" => {
                let seconds = at(one, &["expirationSeconds"])
                    .and_then(Value::as_i64)
                    .unwrap_or(3600);
                if seconds < 600 {
                    let detail = "may not specify a duration less than 10 minutes";
                    faults.invalid(&here.field("expirationSeconds"), seconds, detail);
                }
                sources::file_path(&here.field("path"), text(one, &["path"]), faults);
            }
            _ => {}
        }
    }
}

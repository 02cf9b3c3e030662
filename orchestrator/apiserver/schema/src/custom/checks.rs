//! Whether a definition, or its change, is allowed: names, versions, conversion. Schemas are in `schemas`.

mod schemas;

use serde_json::Value;

use super::jsonpath::Path;
use super::naming;
use crate::names;
use crate::object::{is_empty, list, map, text};
use crate::place::Place;
use crate::validation::faults::Faults;

/// Says who approved an API in a group of Kubernetes itself.
pub(crate) const APPROVED: &str = "api-approved.kubernetes.io";
const SPEC: Place<'static> = Place::top("spec");

/// Whether a group belongs to Kubernetes itself.
pub(crate) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')))
}

/// All faults of a definition, but those of its name's form.
pub(crate) fn definition(object: &Value, faults: &mut Faults) {
    let group = text(object, &["spec", "group"]);
    let plural = text(object, &["spec", "names", "plural"]);
    let name = text(object, &["metadata", "name"]);
    if name != format!("{plural}.{group}") {
        faults.invalid(
            &Place::top("metadata").field("name"),
            name,
            "must be spec.names.plural+\".\"+spec.group",
        );
    }
    if group.is_empty() {
        faults.required(&SPEC.field("group"), "");
    } else {
        faults.invalid_each(&SPEC.field("group"), group, &names::dns1123_subdomain(group));
        if !group.contains('.') {
            faults.invalid(
                &SPEC.field("group"),
                group,
                "should be a domain with at least one dot",
            );
        }
    }
    let scope = text(object, &["spec", "scope"]);
    faults.one_of(&SPEC.field("scope"), scope, &["Cluster", "Namespaced"]);
    names_of(&object["spec"]["names"], &SPEC.field("names"), faults);
    if object["spec"]["preserveUnknownFields"] == Value::Bool(true) {
        let detail = "must be false; use x-kubernetes-preserve-unknown-fields in the schema";
        faults.invalid(&SPEC.field("preserveUnknownFields"), true, detail);
    }
    versions(object, faults);
    conversion(object, faults);
    approval(object, group, faults);
}

fn approval(object: &Value, group: &str, faults: &mut Faults) {
    if !is_protected(group) {
        return;
    }
    let annotations = Place::top("metadata");
    let annotations = annotations.field("annotations");
    let place = annotations.key(APPROVED);
    let stated = text(object, &["metadata", "annotations", APPROVED]);
    let help = "see https://github.com/kubernetes/enhancements/pull/1111";
    if stated.is_empty() {
        faults.required(
            &place,
            &format!("protected groups must have approval annotation {APPROVED:?}, {help}"),
        );
    } else if !stated.starts_with("unapproved") && !stated.contains("://") {
        let detail = format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {help}"
        );
        faults.invalid(&place, stated, &detail);
    }
}

fn names_of(stated: &Value, place: &Place<'_>, faults: &mut Faults) {
    let label = |field: &str, value: &str, faults: &mut Faults| {
        let wrong = names::dns1035_label(value);
        if !wrong.is_empty() {
            faults.invalid(&place.field(field), value, &wrong.join(","));
        }
    };
    for field in ["plural", "kind"] {
        if text(stated, &[field]).is_empty() {
            faults.required(&place.field(field), "");
        }
    }
    for field in ["plural", "singular"] {
        let value = text(stated, &[field]);
        if !value.is_empty() {
            label(field, value, faults);
        }
    }
    for field in ["kind", "listKind"] {
        let value = text(stated, &[field]);
        let wrong = names::dns1035_label(&value.to_lowercase());
        if !value.is_empty() && !wrong.is_empty() {
            let detail = format!(
                "may have mixed case, but should otherwise match: {}",
                wrong.join(",")
            );
            faults.invalid(&place.field(field), value, &detail);
        }
    }
    for field in ["shortNames", "categories"] {
        let list_place = place.field(field);
        for (index, value) in list(stated, &[field]).iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            let wrong = names::dns1035_label(value);
            if !wrong.is_empty() {
                faults.invalid(&list_place.index(index), value, &wrong.join(","));
            }
        }
    }
    let (kind, list_kind) = (text(stated, &["kind"]), text(stated, &["listKind"]));
    if !kind.is_empty() && kind == list_kind {
        faults.invalid(
            &place.field("listKind"),
            list_kind,
            "kind and listKind may not be the same",
        );
    }
}

fn versions(object: &Value, faults: &mut Faults) {
    let versions = list(object, &["spec", "versions"]);
    let place = SPEC.field("versions");
    if versions.is_empty() {
        faults.required(&place, "");
        return;
    }
    let version_names: Vec<&str> = versions.iter().map(|version| text(version, &["name"])).collect();
    let is_twice =
        (1..version_names.len()).any(|index| version_names[..index].contains(&version_names[index]));
    if is_twice {
        faults.invalid(&place, version_names.clone(), "must contain unique version names");
    }
    let storage = versions
        .iter()
        .filter(|version| version["storage"] == Value::Bool(true))
        .count();
    if storage != 1 {
        let detail = "must have exactly one version marked as storage version";
        faults.invalid(&place, version_names, detail);
    }
    for (index, version) in versions.iter().enumerate() {
        self::version(version, &place.index(index), faults);
    }
}

fn version(version: &Value, place: &Place<'_>, faults: &mut Faults) {
    let name = text(version, &["name"]);
    let wrong = names::dns1035_label(name);
    if !wrong.is_empty() {
        faults.invalid(&place.field("name"), name, &wrong.join(","));
    }
    let schema_place = place.field("schema");
    let schema_place = schema_place.field("openAPIV3Schema");
    match version["schema"]
        .get("openAPIV3Schema")
        .filter(|schema| schema.is_object())
    {
        None => faults.required(&schema_place, "schemas are required"),
        Some(schema) => schemas::root(schema, &schema_place, faults),
    }
    if let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) {
        if version["deprecated"] != Value::Bool(true) {
            let detail = "can only be set for deprecated versions";
            faults.invalid(&place.field("deprecationWarning"), warning, detail);
        }
        if warning.is_empty() || warning.len() > 256 || warning.contains(char::is_control) {
            let detail = "must be 1 to 256 characters without control characters";
            faults.invalid(&place.field("deprecationWarning"), warning, detail);
        }
    }
    columns(version, &place.field("additionalPrinterColumns"), faults);
    scale(version, place, faults);
    selectable(version, &place.field("selectableFields"), faults);
}

fn columns(version: &Value, place: &Place<'_>, faults: &mut Faults) {
    const TYPES: [&str; 5] = ["integer", "number", "string", "boolean", "date"];
    const FORMATS: [&str; 9] = [
        "int32",
        "int64",
        "float",
        "double",
        "byte",
        "date",
        "date-time",
        "password",
        "name",
    ];
    for (index, column) in list(version, &["additionalPrinterColumns"]).iter().enumerate() {
        let place = place.index(index);
        if text(column, &["name"]).is_empty() {
            faults.required(&place.field("name"), "");
        }
        faults.one_of(&place.field("type"), text(column, &["type"]), &TYPES);
        faults.one_of_if_set(&place.field("format"), text(column, &["format"]), &FORMATS);
        let path = text(column, &["jsonPath"]);
        if path.is_empty() {
            faults.required(&place.field("jsonPath"), "");
        } else if Path::parse(path).is_err() {
            faults.invalid(&place.field("jsonPath"), path, "is not a valid json path");
        }
    }
}

fn scale(version: &Value, place: &Place<'_>, faults: &mut Faults) {
    let scale = &version["subresources"]["scale"];
    if !scale.is_object() {
        return;
    }
    let place = place.field("subresources");
    let place = place.field("scale");
    for (field, roots, needed) in [
        ("specReplicasPath", &["spec"][..], true),
        ("statusReplicasPath", &["status"], true),
        ("labelSelectorPath", &["status", "spec"], false),
    ] {
        let path = text(scale, &[field]);
        if path.is_empty() {
            if needed {
                faults.required(&place.field(field), "");
            }
            continue;
        }
        let parsed = Path::parse(path).ok();
        match parsed.as_ref().and_then(Path::fields) {
            None => faults.invalid(
                &place.field(field),
                path,
                "should be a json path of fields, without brackets",
            ),
            Some(fields) if !fields.first().is_some_and(|first| roots.contains(first)) => {
                let roots: Vec<String> = roots.iter().map(|root| format!(".{root}")).collect();
                faults.invalid(
                    &place.field(field),
                    path,
                    &format!("should be a json path under {}", roots.join(" or ")),
                );
            }
            Some(_) => {}
        }
    }
}

fn selectable(version: &Value, place: &Place<'_>, faults: &mut Faults) {
    let fields = list(version, &["selectableFields"]);
    if fields.len() > 8 {
        faults.too_many(place, fields.len() as u64, 8);
    }
    let mut seen = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let place = place.index(index);
        let place = place.field("jsonPath");
        let path = text(field, &["jsonPath"]);
        if path.is_empty() {
            faults.required(&place, "");
            continue;
        }
        let parsed = Path::parse(path).ok();
        let Some(fields) = parsed.as_ref().and_then(Path::fields) else {
            faults.invalid(
                &place,
                path,
                "is an invalid path: must be a simple path of fields",
            );
            continue;
        };
        if fields.first() == Some(&"metadata") {
            faults.invalid(&place, path, "must not point to fields in metadata");
        }
        let schema = &version["schema"]["openAPIV3Schema"];
        let found = fields
            .iter()
            .try_fold(schema, |schema, name| schema["properties"].get(*name));
        match found.map(|found| text(found, &["type"])) {
            None => faults.invalid(
                &place,
                path,
                "is an invalid path: does not refer to a valid field",
            ),
            Some("string" | "boolean" | "integer") => {}
            Some(_) => faults.invalid(
                &place,
                path,
                "must point to a field of type string, boolean or integer",
            ),
        }
        if seen.contains(&path) {
            faults.duplicate(&place, path);
        }
        seen.push(path);
    }
}

fn conversion(object: &Value, faults: &mut Faults) {
    let stated = &object["spec"]["conversion"];
    let place = SPEC.field("conversion");
    if stated.is_null() {
        return;
    }
    let webhook = map(stated, &["webhook"]);
    match text(stated, &["strategy"]) {
        "None" => {
            if webhook.is_some() {
                faults.forbidden(
                    &place.field("webhook"),
                    "should not be set when strategy is not set to Webhook",
                );
            }
        }
        "Webhook" => {
            // With one version there is nothing to convert.
            if list(object, &["spec", "versions"]).len() > 1 {
                faults.forbidden(
                    &place.field("strategy"),
                    "this server doesn't call webhooks that convert yet: versions have to convert by their name alone (None)",
                );
            }
            let place = place.field("webhook");
            let Some(webhook) = webhook else {
                faults.required(&place, "required when strategy is set to Webhook");
                return;
            };
            let versions = list(stated, &["webhook", "conversionReviewVersions"]);
            let versions_place = place.field("conversionReviewVersions");
            if versions.is_empty() {
                faults.required(&versions_place, "");
            } else if !versions.iter().any(|one| one == "v1") {
                faults.invalid(
                    &versions_place,
                    versions.to_vec(),
                    "must include at least one of v1",
                );
            }
            client(
                webhook.get("clientConfig").unwrap_or(&Value::Null),
                &place.field("clientConfig"),
                faults,
            );
        }
        other => faults.one_of(&place.field("strategy"), other, &["None", "Webhook"]),
    }
}

fn client(config: &Value, place: &Place<'_>, faults: &mut Faults) {
    if !config.is_object() {
        faults.required(place, "required when strategy is set to Webhook");
        return;
    }
    let (url, service) = (text(config, &["url"]), map(config, &["service"]));
    match (url.is_empty(), service) {
        (true, None) | (false, Some(_)) => {
            faults.required(place, "exactly one of url or service is required");
        }
        (false, None) if !url.starts_with("https://") => {
            faults.invalid(&place.field("url"), url, "'https' is the only allowed URL scheme");
        }
        (true, Some(_)) => {
            for field in ["namespace", "name"] {
                if text(config, &["service", field]).is_empty() {
                    faults.required(&place.field("service").field(field), "");
                }
            }
        }
        (false, None) => {}
    }
}

/// What must not change, and what must go on to be there.
pub(crate) fn update(old: &Value, new: &Value, faults: &mut Faults) {
    let at = |object, path: &[&str]| crate::object::at(object, path).cloned();
    let mut keep = |place: &Place<'_>, path: &[&str]| {
        faults.immutable(place, at(old, path).as_ref(), at(new, path).as_ref());
    };
    let names = SPEC.field("names");
    keep(&SPEC.field("group"), &["spec", "group"]);
    keep(&names.field("plural"), &["spec", "names", "plural"]);
    if naming::is_true(old, "Established") {
        keep(&SPEC.field("scope"), &["spec", "scope"]);
        keep(&names.field("kind"), &["spec", "names", "kind"]);
    }
    stored_versions(new, faults);
}

/// A version in which objects may still be stored must stay.
pub(crate) fn stored_versions(object: &Value, faults: &mut Faults) {
    let versions = list(object, &["spec", "versions"]);
    let place = Place::top("status");
    let place = place.field("storedVersions");
    let stored = list(object, &["status", "storedVersions"]);
    for (index, version) in stored.iter().enumerate() {
        if !versions.iter().any(|one| one["name"] == *version) {
            faults.invalid(
                &place.index(index),
                version.clone(),
                "must appear in spec.versions",
            );
        }
    }
    let storage = versions
        .iter()
        .find(|version| version["storage"] == Value::Bool(true));
    if let Some(storage) =
        storage.filter(|storage| !stored.contains(&storage["name"]) && !is_empty(Some(&storage["name"])))
    {
        let detail = format!("must have the storage version {}", storage["name"]);
        faults.invalid(&place, stored.to_vec(), &detail);
    }
}

#[cfg(test)]
mod tests;

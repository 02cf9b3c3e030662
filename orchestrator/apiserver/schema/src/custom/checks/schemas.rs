//! Whether a schema is structural: every place says what it is, and junctors only add checks to what is said.

use serde_json::{Map, Value};

use crate::custom::structural::{JsonType, Schema};
use crate::custom::{defaulting, pruning, validation};
use crate::object::{list, text};
use crate::place::Place;
use crate::validation::faults::Faults;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

/// Fields of a schema that may not stand in junctors.
const STRUCTURE: [&str; 12] = [
    "default",
    "description",
    "title",
    "type",
    "additionalProperties",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];
const UNSUPPORTED: [(&str, &str); 8] = [
    ("$ref", "$ref is not supported"),
    ("id", "id is not supported"),
    ("$schema", "$schema is not supported"),
    ("additionalItems", "additionalItems is not supported"),
    ("patternProperties", "patternProperties is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("$defs", "$defs is not supported"),
];
const JUNCTORS: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// All faults of the schema of a whole object.
pub(super) fn root(schema: &Value, place: &Place<'_>, faults: &mut Faults) {
    let before = faults.len();
    node(schema, Level::Root, place, faults);
    match text(schema, &["type"]) {
        "" | "object" => {}
        other => faults.invalid(&place.field("type"), other, "must be object at the root"),
    }
    if schema["nullable"] == Value::Bool(true) {
        faults.forbidden(&place.field("nullable"), "nullable cannot be true at the root");
    }
    metadata(schema, place, faults);
    if faults.len() > before {
        return;
    }
    // What is structural compiles but for patterns and rules.
    match Schema::compile_root(schema) {
        Err(error) => faults.invalid_at(place, &error.path, at_path(schema, &error.path), &error.message),
        Ok(compiled) => defaults(schema, &compiled, place, faults),
    }
}

/// The value at a path of a schema error, for the message.
fn at_path(schema: &Value, path: &str) -> Value {
    let mut value = schema;
    for step in path
        .split('.')
        .flat_map(|part| part.split(['[', ']']))
        .filter(|step| !step.is_empty())
    {
        let next = match step.parse::<usize>() {
            Ok(index) if value.is_array() => value.get(index),
            _ => value.get(step),
        };
        match next {
            Some(next) => value = next,
            None => return Value::Null,
        }
    }
    value.clone()
}

fn metadata(schema: &Value, place: &Place<'_>, faults: &mut Faults) {
    let Some(stated) = schema["properties"]["metadata"].as_object() else {
        return;
    };
    let allowed = |name: &str| matches!(name, "type" | "properties" | "description" | "title");
    let fields = stated.get("properties").and_then(Value::as_object);
    let is_known = fields.is_none_or(|fields| {
        fields
            .keys()
            .all(|name| matches!(name.as_str(), "name" | "generateName"))
    });
    if !is_known || !stated.keys().all(|name| allowed(name)) {
        let place = place.field("properties");
        faults.forbidden(
            &place.key("metadata"),
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        );
    }
}

fn node(schema: &Value, level: Level, place: &Place<'_>, faults: &mut Faults) {
    let flag = |name: &str| schema[name] == Value::Bool(true);
    let kind = text(schema, &["type"]);
    let preserves = flag("x-kubernetes-preserve-unknown-fields");
    for (field, detail) in UNSUPPORTED
        .iter()
        .filter(|(field, _)| schema.get(*field).is_some_and(|found| !found.is_null()))
    {
        faults.forbidden(&place.field(field), detail);
    }
    if flag("uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        faults.forbidden(&place.field("uniqueItems"), detail);
    }
    if schema["additionalProperties"] == Value::Bool(false) {
        faults.forbidden(
            &place.field("additionalProperties"),
            "additionalProperties cannot be set to false",
        );
    }
    let has_properties = schema["properties"]
        .as_object()
        .is_some_and(|properties| !properties.is_empty());
    let has_additional = schema["additionalProperties"].is_object() || flag("additionalProperties");
    if has_properties && has_additional {
        faults.forbidden(
            &place.field("additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        );
    }
    if level == Level::Root && has_additional {
        faults.forbidden(
            &place.field("additionalProperties"),
            "must not be used at the root",
        );
    }
    kinds(schema, kind, level, place, faults);
    if flag("x-kubernetes-embedded-resource") {
        if kind != "object" {
            faults.invalid(
                &place.field("type"),
                kind,
                "must be object if x-kubernetes-embedded-resource is true",
            );
        }
        if !preserves && !has_properties {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            faults.required(&place.field("properties"), detail);
        }
    }
    list_type(schema, kind, place, faults);
    junctors(schema, schema, place, faults);
    below(schema, place, faults);
}

fn kinds(schema: &Value, kind: &str, level: Level, place: &Place<'_>, faults: &mut Faults) {
    let flag = |name: &str| schema[name] == Value::Bool(true);
    let is_free = flag("x-kubernetes-int-or-string")
        || (flag("x-kubernetes-preserve-unknown-fields") && level != Level::Root);
    if kind.is_empty() && !is_free {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Field => "must not be empty for specified object fields",
            Level::Item => "must not be empty for specified array items",
        };
        faults.required(&place.field("type"), detail);
    } else if !kind.is_empty() && JsonType::parse(kind).is_none() {
        faults.not_supported(
            &place.field("type"),
            kind,
            &["array", "boolean", "integer", "number", "object", "string"],
        );
    }
    if flag("x-kubernetes-preserve-unknown-fields") && !matches!(kind, "" | "object") {
        let detail = "must be object if x-kubernetes-preserve-unknown-fields is true";
        faults.invalid(&place.field("type"), kind, detail);
    }
    if kind == "array" && schema.get("items").is_none_or(Value::is_null) {
        faults.required(&place.field("items"), "must be specified");
    }
    if schema["items"].is_array() {
        faults.forbidden(
            &place.field("items"),
            "items must be a schema object and not an array",
        );
    }
}

fn list_type(schema: &Value, kind: &str, place: &Place<'_>, faults: &mut Faults) {
    let list_type = text(schema, &["x-kubernetes-list-type"]);
    let here = place.field("x-kubernetes-list-type");
    faults.one_of_if_set(&here, list_type, &["atomic", "set", "map"]);
    if !list_type.is_empty() && kind != "array" {
        faults.invalid(
            &place.field("type"),
            kind,
            "must be array if x-kubernetes-list-type is specified",
        );
    }
    let map_type = text(schema, &["x-kubernetes-map-type"]);
    faults.one_of_if_set(
        &place.field("x-kubernetes-map-type"),
        map_type,
        &["granular", "atomic"],
    );
    if !map_type.is_empty() && kind != "object" {
        faults.invalid(
            &place.field("type"),
            kind,
            "must be object if x-kubernetes-map-type is specified",
        );
    }
    map_keys(schema, list_type, place, faults);
}

/// The keys of a list that is a map are fields that each element has.
fn map_keys(schema: &Value, list_type: &str, place: &Place<'_>, faults: &mut Faults) {
    let keys = list(schema, &["x-kubernetes-list-map-keys"]);
    let keys_place = place.field("x-kubernetes-list-map-keys");
    if list_type != "map" {
        if !keys.is_empty() {
            faults.forbidden(&keys_place, "must be empty if x-kubernetes-list-type is not map");
        }
        return;
    }
    let items = &schema["items"];
    if text(items, &["type"]) != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        faults.invalid(
            &place.field("items").field("type"),
            text(items, &["type"]),
            detail,
        );
    }
    if keys.is_empty() {
        faults.required(&keys_place, "must not be empty if x-kubernetes-list-type is map");
    }
    let required = list(items, &["required"]);
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let here = keys_place.index(index);
        let Some(field) = items["properties"].get(name) else {
            faults.invalid(&here, name, "does not exist as property in the items");
            continue;
        };
        if matches!(text(field, &["type"]), "object" | "array") {
            faults.invalid(&here, name, "must be a scalar property of the items");
        }
        let has_default = field.get("default").is_some_and(|default| !default.is_null());
        if !required.contains(key) && !has_default {
            let detail = "this property must have a default or be a required property";
            let items_place = place.field("items");
            faults.required(
                &items_place.field("properties").key(name).field("default"),
                detail,
            );
        }
        if field["nullable"] == Value::Bool(true) {
            let items_place = place.field("items");
            faults.forbidden(
                &items_place.field("properties").key(name).field("nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            );
        }
    }
}

fn below(schema: &Value, place: &Place<'_>, faults: &mut Faults) {
    let properties_place = place.field("properties");
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        node(field, Level::Field, &properties_place.key(name), faults);
    }
    if schema["items"].is_object() {
        node(&schema["items"], Level::Item, &place.field("items"), faults);
    }
    if schema["additionalProperties"].is_object() {
        node(
            &schema["additionalProperties"],
            Level::Field,
            &place.field("additionalProperties"),
            faults,
        );
    }
}

/// What stands below junctors adds checks to fields that are specified outside of them.
fn junctors(inner: &Value, outer: &Value, place: &Place<'_>, faults: &mut Faults) {
    for name in JUNCTORS {
        let list_place = place.field(name);
        for (index, one) in list(inner, &[name]).iter().enumerate() {
            checks_only(one, outer, &list_place.index(index), faults);
        }
    }
    if inner["not"].is_object() {
        checks_only(&inner["not"], outer, &place.field("not"), faults);
    }
}

fn checks_only(inner: &Value, outer: &Value, place: &Place<'_>, faults: &mut Faults) {
    let is_set = |name: &str| {
        inner
            .get(name)
            .is_some_and(|found| !found.is_null() && *found != Value::Bool(false))
    };
    // The pair of types that int-or-string stands for may be spelled out.
    let spells_type = outer["x-kubernetes-int-or-string"] == Value::Bool(true);
    for name in STRUCTURE
        .iter()
        .filter(|name| is_set(name) && !(spells_type && **name == "type"))
    {
        faults.forbidden(&place.field(name), "must be empty to be structural");
    }
    if is_set("x-kubernetes-validations") {
        faults.forbidden(
            &place.field("x-kubernetes-validations"),
            "must be empty to be structural",
        );
    }
    let empty = Map::new();
    let properties_place = place.field("properties");
    for (name, field) in inner["properties"].as_object().unwrap_or(&empty) {
        let here = properties_place.key(name);
        let specified = outer["properties"].get(name).or_else(|| {
            outer
                .get("additionalProperties")
                .filter(|found| found.is_object())
        });
        match specified {
            Some(specified) => checks_only(field, specified, &here, faults),
            None if outer["additionalProperties"] == Value::Bool(true) => {}
            None => faults.required(
                &here,
                &format!("because it is defined in {here}, it must be specified outside of it too"),
            ),
        }
    }
    if inner["items"].is_object() {
        match outer.get("items").filter(|items| items.is_object()) {
            Some(items) => checks_only(&inner["items"], items, &place.field("items"), faults),
            None => {
                let here = place.field("items");
                faults.required(
                    &here,
                    &format!("because it is defined in {here}, it must be specified outside of it too"),
                );
            }
        }
    }
    junctors(inner, outer, place, faults);
}

/// Defaults are valid themselves and say nothing the schema doesn't know.
fn defaults(source: &Value, schema: &Schema, place: &Place<'_>, faults: &mut Faults) {
    if let Some(default) = &schema.default {
        let here = place.field("default");
        let mut pruned = default.clone();
        let mut unknown = Vec::new();
        pruning::prune(schema, &mut pruned, |path| unknown.push(path));
        for path in unknown {
            faults.invalid(
                &here,
                default.clone(),
                &format!("must not have unknown field {path}"),
            );
        }
        let mut filled = default.clone();
        defaulting::apply(schema, &mut filled);
        validation::check_values(schema, &filled, &here, faults);
    }
    let properties_place = place.field("properties");
    for (name, field) in &schema.properties {
        defaults(
            &source["properties"][name],
            field,
            &properties_place.key(name),
            faults,
        );
    }
    if let Some(items) = &schema.items {
        defaults(&source["items"], items, &place.field("items"), faults);
    }
    if let Some(additional) = schema
        .additional
        .as_deref()
        .filter(|_| source["additionalProperties"].is_object())
    {
        defaults(
            &source["additionalProperties"],
            additional,
            &place.field("additionalProperties"),
            faults,
        );
    }
}

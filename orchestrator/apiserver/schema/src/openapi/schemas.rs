//! Component schemas: a type and all it refers to.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::registry::{Cardinality, Field, Kind, ListType, Registry, Type, TypeId};

const PREFIX: &str = "#/components/schemas/";

/// A reference to a type's schema.
pub(super) fn reference(registry: &Registry, type_id: TypeId) -> Value {
    json!({ "$ref": format!("{PREFIX}{}", name(registry.get(type_id))) })
}

/// The schema's name: the published one, or for the few types that have none one made alike.
fn name(facts: &Type) -> String {
    facts.openapi.map_or_else(
        || format!("io.k8s.api.{}", facts.name.replace('/', ".")),
        str::to_owned,
    )
}

/// Gives the schemas of some types and of all that they refer to, each once, with its name.
///
/// # Errors
/// What `give` fails with.
pub(super) fn each_reachable<E>(
    registry: &Registry,
    roots: BTreeSet<TypeId>,
    mut give: impl FnMut(&str, Value) -> Result<(), E>,
) -> Result<(), E> {
    let mut waiting: Vec<TypeId> = roots.iter().copied().collect();
    let mut seen = roots;
    while let Some(type_id) = waiting.pop() {
        let facts = registry.get(type_id);
        give(&name(facts), schema(registry, facts))?;
        for field in &facts.json {
            waiting.extend(component(registry, field.kind).filter(|&inner| seen.insert(inner)));
        }
    }
    Ok(())
}

/// The type whose schema a value of a kind refers to.
fn component(registry: &Registry, kind: Kind) -> Option<TypeId> {
    let id = match kind {
        Kind::Message(id) | Kind::Inline(id) => return Some(id),
        Kind::SchemaOrArray(id) | Kind::SchemaOrBool(id) | Kind::SchemaOrStrings(id) => return Some(id),
        Kind::Quantity => "resource.Quantity",
        Kind::Time => "meta/v1.Time",
        Kind::MicroTime => "meta/v1.MicroTime",
        Kind::IntOrString => "intstr.IntOrString",
        Kind::RawObject => "runtime.RawExtension",
        _ => return None,
    };
    registry.type_by_id(id)
}

fn schema(registry: &Registry, facts: &Type) -> Value {
    match facts.name {
        "resource.Quantity" => return json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }),
        "intstr.IntOrString" => {
            return json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] });
        }
        "meta/v1.Time" | "meta/v1.MicroTime" => return json!({ "type": "string", "format": "date-time" }),
        "runtime.RawExtension" => return json!({ "type": "object" }),
        _ => {}
    }
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    let properties = facts
        .json
        .iter()
        .map(|one| (one.name.to_owned(), property(registry, one)));
    let properties: Map<String, Value> = properties.collect();
    if !properties.is_empty() {
        schema.insert("properties".into(), properties.into());
    }
    let required: Vec<&str> = facts
        .json
        .iter()
        .filter(|field| field.required)
        .map(|field| field.name)
        .collect();
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    if facts.atomic {
        schema.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if !facts.gvks.is_empty() {
        let gvks = facts.gvks.iter();
        let gvks =
            gvks.map(|(group, version, kind)| json!({ "group": group, "version": version, "kind": kind }));
        schema.insert("x-kubernetes-group-version-kind".into(), gvks.collect());
    }
    Value::Object(schema)
}

fn property(registry: &Registry, field: &Field) -> Value {
    let inner = || {
        let mut inner = single(registry, field.kind);
        if !field.values.is_empty() {
            inner.insert("enum".into(), field.values.to_vec().into());
        }
        inner
    };
    let mut schema = match field.cardinality {
        Cardinality::One => inner(),
        Cardinality::List => {
            Map::from_iter([("type".into(), "array".into()), ("items".into(), inner().into())])
        }
        Cardinality::Map => Map::from_iter([
            ("type".into(), "object".into()),
            ("additionalProperties".into(), inner().into()),
        ]),
    };
    if let Some(default) = &field.default {
        schema.insert("default".into(), default.clone());
    }
    // A reference with anything beside it has to stand in a list of its own.
    if schema.len() > 1
        && let Some(reference) = schema.remove("$ref")
    {
        schema.insert("allOf".into(), json!([{ "$ref": reference }]));
    }
    add_markers(field, &mut schema);
    Value::Object(schema)
}

fn add_markers(field: &Field, schema: &mut Map<String, Value>) {
    let mut mark = |name: &str, value: Value| {
        schema.insert(format!("x-kubernetes-{name}"), value);
    };
    if let Some(list_type) = field.list_type {
        let name = match list_type {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        mark("list-type", name.into());
    }
    if !field.list_keys.is_empty() {
        mark("list-map-keys", field.list_keys.to_vec().into());
    }
    if let Some(map_type) = field.map_type {
        mark("map-type", map_type.into());
    }
    let patch = field.patch;
    let strategies = [
        (patch.merge, "merge"),
        (patch.replace, "replace"),
        (patch.retain_keys, "retainKeys"),
    ];
    let strategies: Vec<&str> = strategies
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, name)| *name)
        .collect();
    if !strategies.is_empty() {
        mark("patch-strategy", strategies.join(",").into());
    }
    if let Some(key) = patch.merge_key {
        mark("patch-merge-key", key.into());
    }
}

fn single(registry: &Registry, kind: Kind) -> Map<String, Value> {
    let of = |json_type: &str, format: &str| {
        let mut schema = Map::from_iter([("type".to_owned(), json_type.into())]);
        if !format.is_empty() {
            schema.insert("format".into(), format.into());
        }
        schema
    };
    match kind {
        Kind::String | Kind::Duration => of("string", ""),
        Kind::Bytes => of("string", "byte"),
        Kind::Bool => of("boolean", ""),
        Kind::Int32 => of("integer", "int32"),
        Kind::Int64 => of("integer", "int64"),
        Kind::Double => of("number", "double"),
        Kind::StringList => {
            let mut schema = of("array", "");
            schema.insert("items".into(), json!({ "type": "string" }));
            schema
        }
        Kind::AnyJson | Kind::SchemaOrArray(_) | Kind::SchemaOrBool(_) | Kind::SchemaOrStrings(_) => {
            Map::new()
        }
        Kind::Message(_)
        | Kind::Inline(_)
        | Kind::Quantity
        | Kind::Time
        | Kind::MicroTime
        | Kind::IntOrString
        | Kind::RawObject => match component(registry, kind).map(|id| reference(registry, id)) {
            Some(Value::Object(reference)) => reference,
            _ => Map::new(),
        },
    }
}

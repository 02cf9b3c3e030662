//! What the schema alone asks of an object: texts that must be there, and values out of closed sets.

use serde_json::{Map, Value};

use super::faults::Faults;
use crate::object::is_empty;
use crate::place::Place;
use crate::registry::{Cardinality, Field, Gvk, Kind, Registry, TypeId};

/// Checks all of an object but its metadata and status.
pub(super) fn object(registry: &Registry, gvk: Gvk<'_>, object: &Value, faults: &mut Faults) {
    let Some(id) = registry.type_by_gvk(gvk.group, gvk.version, gvk.kind) else {
        return;
    };
    let is_content = |name: &str| !matches!(name, "metadata" | "status" | "kind" | "apiVersion");
    let fields = registry.get(id).json.iter();
    for field in fields.filter(|field| is_content(field.name)) {
        self::field(registry, &Place::ROOT, field, object.get(field.name), faults);
    }
}

fn message(registry: &Registry, place: &Place<'_>, id: TypeId, object: &Value, faults: &mut Faults) {
    for field in &registry.get(id).json {
        self::field(registry, place, field, object.get(field.name), faults);
    }
}

fn field(registry: &Registry, place: &Place<'_>, field: &Field, value: Option<&Value>, faults: &mut Faults) {
    let here = place.field(field.name);
    let value = value.filter(|value| !value.is_null());
    match (field.cardinality, value) {
        (Cardinality::One, value) => one(registry, &here, field, value, faults),
        (Cardinality::List, Some(Value::Array(items))) => {
            for (index, item) in items.iter().enumerate() {
                inner(registry, &here.index(index), field, item, faults);
            }
        }
        (Cardinality::Map, Some(Value::Object(entries))) => {
            for (key, item) in entries {
                inner(registry, &here.key(key), field, item, faults);
            }
        }
        (Cardinality::List | Cardinality::Map, _) => {}
    }
}

fn one(registry: &Registry, here: &Place<'_>, field: &Field, value: Option<&Value>, faults: &mut Faults) {
    match (field.kind, value) {
        (Kind::String | Kind::Bytes, value) if field.required && is_empty(value) => faults.required(here, ""),
        (Kind::Message(_), None) if field.required && field.pointer => faults.required(here, ""),
        (Kind::Message(id), None) if field.required => {
            message(registry, here, id, &Value::Object(Map::new()), faults);
        }
        (_, Some(value)) => inner(registry, here, field, value, faults),
        (_, None) => {}
    }
}

/// One value of a field.
fn inner(registry: &Registry, here: &Place<'_>, field: &Field, value: &Value, faults: &mut Faults) {
    match (field.kind, value) {
        (Kind::Message(id), value) => message(registry, here, id, value, faults),
        (Kind::String, Value::String(text)) => {
            let is_known = field.values.is_empty() || field.values.contains(&text.as_str());
            if !is_known && !text.is_empty() {
                faults.not_supported(here, text.as_str(), &field.values);
            }
        }
        _ => {}
    }
}

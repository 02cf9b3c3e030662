//! Objects of any type, grown from a string of bytes.

use serde_json::{Map, Value, json};

use crate::registry::{Cardinality, Field, Kind, Registry, TypeId};

struct Entropy<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl Entropy<'_> {
    fn next(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }
}

/// An object of some type that has both encodings.
pub(super) fn object(registry: &Registry, at: usize, entropy: &[u8]) -> (TypeId, Value) {
    let types = registry
        .types()
        .filter(|facts| facts.openapi.is_some() && !facts.proto.is_empty());
    let types: Vec<TypeId> = types
        .filter(|facts| !facts.json.is_empty())
        .map(|facts| facts.id)
        .collect();
    let type_id = types[at % types.len()];
    let mut entropy = Entropy {
        bytes: entropy.iter(),
    };
    (type_id, message(registry, type_id, &mut entropy, 0))
}

fn message(registry: &Registry, type_id: TypeId, entropy: &mut Entropy<'_>, depth: u32) -> Value {
    let mut object = Map::new();
    for field in &registry.get(type_id).json {
        // Type names stand in the envelope alone; numberless fields are in JSON alone.
        let in_both = field.number != 0;
        if in_both && depth < 6 && entropy.next() > 160 {
            object.insert(field.name.to_owned(), values(registry, field, entropy, depth));
        }
    }
    Value::Object(object)
}

fn values(registry: &Registry, field: &Field, entropy: &mut Entropy<'_>, depth: u32) -> Value {
    match field.cardinality {
        Cardinality::One => single(registry, field.kind, entropy, depth),
        Cardinality::List => {
            let count = entropy.next() % 3;
            (0..count)
                .map(|_| single(registry, field.kind, entropy, depth))
                .collect()
        }
        Cardinality::Map => {
            let count = entropy.next() % 3;
            let entries = (0..count).map(|_| (text(entropy), single(registry, field.kind, entropy, depth)));
            Value::Object(entries.collect())
        }
    }
}

fn single(registry: &Registry, kind: Kind, entropy: &mut Entropy<'_>, depth: u32) -> Value {
    let byte = entropy.next();
    match kind {
        Kind::String => text(entropy).into(),
        Kind::Bytes => ["", "AA==", "AAEC"][usize::from(byte) % 3].into(),
        Kind::Bool => (byte & 1 == 1).into(),
        Kind::Int32 => [0, 1, -1, i32::MAX, i32::MIN][usize::from(byte) % 5].into(),
        Kind::Int64 => [0, 1, -1, i64::MAX, i64::MIN][usize::from(byte) % 5].into(),
        Kind::Double => [0.0, 1.5, -2.25][usize::from(byte) % 3].into(),
        Kind::Message(id) | Kind::Inline(id) => message(registry, id, entropy, depth + 1),
        Kind::Quantity => ["0", "1Gi", "500m", "1024Mi", "3"][usize::from(byte) % 5].into(),
        Kind::Time => ["2024-01-02T03:04:05Z", "1969-12-31T23:59:59Z"][usize::from(byte) % 2].into(),
        Kind::MicroTime => {
            ["2024-01-02T03:04:05.600000Z", "1969-12-31T23:59:58.250000Z"][usize::from(byte) % 2].into()
        }
        Kind::Duration => ["0s", "1m30s"][usize::from(byte) % 2].into(),
        Kind::IntOrString => [json!(0), json!(80), json!("http"), json!("")][usize::from(byte) % 4].clone(),
        Kind::RawObject => json!({"f:a": {"b": [1, "c", byte]}}),
        Kind::AnyJson => {
            [json!({"a": byte}), json!([1]), json!("x"), json!(true)][usize::from(byte) % 4].clone()
        }
        Kind::StringList => vec![text(entropy), text(entropy)].into(),
        Kind::SchemaOrBool(_) if byte & 1 == 1 => (byte & 2 == 2).into(),
        Kind::SchemaOrArray(id) if byte & 1 == 1 => vec![message(registry, id, entropy, depth + 1)].into(),
        Kind::SchemaOrStrings(_) if byte & 1 == 1 => vec![text(entropy)].into(),
        Kind::SchemaOrArray(id) | Kind::SchemaOrBool(id) | Kind::SchemaOrStrings(id) => {
            message(registry, id, entropy, depth + 1)
        }
    }
}

fn text(entropy: &mut Entropy<'_>) -> String {
    let byte = entropy.next();
    ["", "a", "b-c", "ünï \"quoted\"", "line\nbreak"][usize::from(byte) % 5].to_owned()
}

/// Protobuf can't tell an absent list from an empty one, nor an absent struct where Go has no pointer.
pub(super) fn without_empty_structs(registry: &Registry, type_id: TypeId, value: &Value) -> Value {
    let Value::Object(object) = value else {
        return value.clone();
    };
    let facts = registry.get(type_id);
    let mut result = Map::new();
    for (name, value) in object {
        let field = facts.field(name).unwrap();
        if field.cardinality != Cardinality::One && crate::object::is_empty(Some(value)) {
            continue;
        }
        let inner = match field.kind {
            Kind::Message(id)
            | Kind::SchemaOrArray(id)
            | Kind::SchemaOrBool(id)
            | Kind::SchemaOrStrings(id) => id,
            _ => {
                result.insert(name.clone(), value.clone());
                continue;
            }
        };
        let cleaned = match (field.cardinality, value) {
            (Cardinality::Map, Value::Object(map)) => Value::Object(
                map.iter()
                    .map(|(k, v)| (k.clone(), without_empty_structs(registry, inner, v)))
                    .collect(),
            ),
            (_, Value::Array(list)) => list
                .iter()
                .map(|v| without_empty_structs(registry, inner, v))
                .collect(),
            (_, value) => without_empty_structs(registry, inner, value),
        };
        let one = field.cardinality == Cardinality::One;
        if !(one && !field.pointer && cleaned == json!({})) {
            result.insert(name.clone(), cleaned);
        }
    }
    Value::Object(result)
}

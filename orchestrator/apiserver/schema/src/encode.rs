//! Objects into protobuf, in Kubernetes' envelope.
//!
//! Fields that the type doesn't know are not written; values are expected in the forms that [`crate::decode`] gives.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::registry::{Cardinality, Kind, Registry, TypeId};
use crate::time;
use crate::wire::{MAGIC, put_bytes, put_fixed64, put_number};

/// Encodes an object as a protobuf body: `k8s\0`, `runtime.Unknown` with the given names, the message inside.
#[must_use]
pub fn protobuf(
    registry: &Registry,
    type_id: TypeId,
    api_version: &str,
    kind: &str,
    value: &Value,
) -> Vec<u8> {
    let raw = message(registry, type_id, value);
    let mut names = Vec::with_capacity(api_version.len() + kind.len() + 4);
    put_bytes(&mut names, 1, api_version.as_bytes());
    put_bytes(&mut names, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + names.len() + 16);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &names);
    put_bytes(&mut out, 2, &raw);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

/// Encodes an object as a bare message, as it stands inside another one.
#[must_use]
pub fn message(registry: &Registry, type_id: TypeId, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    if let Value::Object(object) = value {
        put_fields(registry, type_id, object, &mut out);
    }
    out
}

fn put_fields(registry: &Registry, type_id: TypeId, object: &Map<String, Value>, out: &mut Vec<u8>) {
    for field in &registry.get(type_id).proto {
        if let Kind::Inline(inner) = field.kind {
            let mut bytes = Vec::new();
            put_fields(registry, inner, object, &mut bytes);
            if !bytes.is_empty() {
                put_bytes(out, field.number, &bytes);
            }
            continue;
        }
        let Some(value) = object.get(field.name) else {
            continue;
        };
        match (field.cardinality, value) {
            (Cardinality::One, value) => put_value(registry, field.number, field.kind, value, out),
            (Cardinality::List, Value::Array(list)) => {
                for item in list {
                    put_value(registry, field.number, field.kind, item, out);
                }
            }
            (Cardinality::Map, Value::Object(map)) => {
                for (key, item) in map {
                    let mut bytes = Vec::new();
                    put_bytes(&mut bytes, 1, key.as_bytes());
                    put_value(registry, 2, field.kind, item, &mut bytes);
                    put_bytes(out, field.number, &bytes);
                }
            }
            // Not decoded by us, so not in the forms promised; there is nothing right to write.
            (Cardinality::List | Cardinality::Map, _) => {}
        }
    }
}

fn put_value(registry: &Registry, number: u32, kind: Kind, value: &Value, out: &mut Vec<u8>) {
    match (kind, value) {
        (Kind::RawObject | Kind::AnyJson, value) => {
            let mut bytes = Vec::new();
            put_bytes(&mut bytes, 1, value.to_string().as_bytes());
            put_bytes(out, number, &bytes);
        }
        (_, Value::Null) => {}
        (Kind::Bool, Value::Bool(flag)) => put_number(out, number, u64::from(*flag)),
        (Kind::Int32 | Kind::Int64, Value::Number(value)) => {
            put_number(out, number, value.as_i64().unwrap_or_default().cast_unsigned());
        }
        (Kind::Double, Value::Number(value)) => {
            put_fixed64(out, number, value.as_f64().unwrap_or_default().to_bits());
        }
        (Kind::IntOrString, Value::Number(value)) => {
            let mut bytes = Vec::new();
            put_number(&mut bytes, 1, 0);
            put_number(&mut bytes, 2, value.as_i64().unwrap_or_default().cast_unsigned());
            put_bytes(out, number, &bytes);
        }
        (_, Value::String(text)) => put_text(number, kind, text, out),
        (Kind::Message(inner) | Kind::Inline(inner), value) => {
            put_bytes(out, number, &message(registry, inner, value));
        }
        (Kind::StringList, Value::Array(list)) => {
            let mut bytes = Vec::new();
            for item in list.iter().filter_map(Value::as_str) {
                put_bytes(&mut bytes, 1, item.as_bytes());
            }
            put_bytes(out, number, &bytes);
        }
        (Kind::SchemaOrArray(schema) | Kind::SchemaOrBool(schema) | Kind::SchemaOrStrings(schema), value) => {
            put_bytes(out, number, &schema_or(registry, kind, schema, value));
        }
        _ => {}
    }
}

fn put_text(number: u32, kind: Kind, text: &str, out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    match kind {
        Kind::String => return put_bytes(out, number, text.as_bytes()),
        Kind::Bytes => return put_bytes(out, number, &STANDARD.decode(text).unwrap_or_default()),
        Kind::Quantity => put_bytes(&mut bytes, 1, text.as_bytes()),
        Kind::Time => put_instant(time::parse(text), false, &mut bytes),
        Kind::MicroTime => put_instant(time::parse(text), true, &mut bytes),
        Kind::Duration => {
            put_number(
                &mut bytes,
                1,
                time::parse_duration(text).unwrap_or_default().cast_unsigned(),
            );
        }
        Kind::IntOrString => {
            put_number(&mut bytes, 1, 1);
            put_number(&mut bytes, 2, 0);
            put_bytes(&mut bytes, 3, text.as_bytes());
        }
        _ => return,
    }
    put_bytes(out, number, &bytes);
}

fn put_instant(time: Option<Timestamp>, fine: bool, out: &mut Vec<u8>) {
    let Some(time) = time else { return };
    let nanos = if fine {
        i64::from(time.subsec_nanosecond())
    } else {
        0
    };
    // jiff counts both parts towards the sign; protobuf wants nanoseconds forward from whole seconds.
    let (seconds, nanos) = if nanos < 0 {
        (time.as_second() - 1, nanos + 1_000_000_000)
    } else {
        (time.as_second(), nanos)
    };
    put_number(out, 1, seconds.cast_unsigned());
    put_number(out, 2, nanos.cast_unsigned());
}

fn schema_or(registry: &Registry, kind: Kind, schema: TypeId, value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (kind, value) {
        (Kind::SchemaOrBool(_), Value::Bool(allows)) => put_number(&mut bytes, 1, u64::from(*allows)),
        (Kind::SchemaOrBool(_), Value::Object(_)) => {
            put_number(&mut bytes, 1, 1);
            put_bytes(&mut bytes, 2, &message(registry, schema, value));
        }
        (_, Value::Object(_)) => put_bytes(&mut bytes, 1, &message(registry, schema, value)),
        (_, Value::Array(list)) => {
            for item in list {
                match item {
                    Value::String(text) => put_bytes(&mut bytes, 2, text.as_bytes()),
                    item => put_bytes(&mut bytes, 2, &message(registry, schema, item)),
                }
            }
        }
        _ => {}
    }
    bytes
}

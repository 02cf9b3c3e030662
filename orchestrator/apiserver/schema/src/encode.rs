//! Objects into protobuf, in Kubernetes' envelope.
//!
//! Fields that the type doesn't know are not written; values are expected in the forms that [`crate::decode`] gives.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::registry::{Cardinality, Gvk, Kind, Registry, TypeId};
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
    enveloped(api_version, kind, &message(registry, type_id, value))
}

/// Encodes an object that names its own type as a protobuf body; nothing for a type that has no protobuf form.
#[must_use]
pub fn named(registry: &Registry, value: &Value) -> Option<Vec<u8>> {
    let name = |field: &str| value.get(field).and_then(Value::as_str);
    let (api_version, kind) = (name("apiVersion")?, name("kind")?);
    let gvk = Gvk::new(api_version, kind);
    let type_id = registry.type_by_gvk(gvk.group, gvk.version, gvk.kind)?;
    // Some kinds are made for JSON alone, and then no field of theirs has a number.
    let has_form = !registry.get(type_id).proto.is_empty();
    has_form.then(|| protobuf(registry, type_id, api_version, kind, value))
}

/// A list that is encoded item by item, so that never more than one of them is there as a tree.
#[derive(Debug)]
pub struct ListEncoder<'r> {
    registry: &'r Registry,
    number: u32,
    item: TypeId,
    raw: Vec<u8>,
}

impl<'r> ListEncoder<'r> {
    /// Begins a list of this type with its metadata; nothing if the type is no list of messages.
    #[must_use]
    pub fn new(registry: &'r Registry, list: TypeId, metadata: &Value) -> Option<Self> {
        let items = registry.get(list).field("items")?;
        let Kind::Message(item) = items.kind else {
            return None;
        };
        let mut head = Map::new();
        head.insert("metadata".to_owned(), metadata.clone());
        Some(ListEncoder {
            registry,
            number: items.number,
            item,
            raw: message(registry, list, &head.into()),
        })
    }

    /// Adds an item.
    pub fn push(&mut self, item: &Value) {
        let bytes = message(self.registry, self.item, item);
        put_bytes(&mut self.raw, self.number, &bytes);
    }

    /// The whole list, in its envelope.
    #[must_use]
    pub fn finish(self, api_version: &str, kind: &str) -> Vec<u8> {
        enveloped(api_version, kind, &self.raw)
    }
}

/// Encodes an event of a watch about a finished body: a frame of its own, its length in front.
#[must_use]
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 8);
    put_bytes(&mut raw, 1, object);
    let mut event = Vec::with_capacity(raw.len() + kind.len() + 8);
    put_bytes(&mut event, 1, kind.as_bytes());
    put_bytes(&mut event, 2, &raw);
    // An object is limited to some megabytes, far below what four bytes count.
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(event.len() + 4);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&event);
    frame
}

fn enveloped(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut names = Vec::with_capacity(api_version.len() + kind.len() + 4);
    put_bytes(&mut names, 1, api_version.as_bytes());
    put_bytes(&mut names, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + names.len() + 16);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &names);
    put_bytes(&mut out, 2, raw);
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

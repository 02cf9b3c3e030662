//! Protobuf messages into trees, guided by a type's facts.
//!
//! Go's encoder writes every field that is no pointer, also when it is empty; such fields are dropped here where the
//! JSON form leaves them out, so that both encodings of an object give the same tree.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::DecodeError;
use crate::object::is_empty;
use crate::quantity::Quantity;
use crate::registry::{Cardinality, Field, Gvk, Kind, Registry, TypeId};
use crate::time;
use crate::wire::{MAGIC, Reader, Wire, WireError};

/// Schemas nest without bound; nothing real comes near this.
const DEPTH_MAX: u32 = 128;

pub(super) fn enveloped(registry: &Registry, body: &[u8]) -> Result<(String, String, Value), DecodeError> {
    let wire = |error: WireError| DecodeError::Protobuf(error.to_string());
    let body = body
        .strip_prefix(MAGIC)
        .ok_or_else(|| DecodeError::Protobuf("the prefix is missing".to_owned()))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader::new(body);
    while let Some((field, value)) = reader.next_field().map_err(wire)? {
        match (field, value) {
            (1, Wire::Bytes(bytes)) => {
                let mut names = Reader::new(bytes);
                while let Some((field, value)) = names.next_field().map_err(wire)? {
                    match (field, value) {
                        (1, Wire::Bytes(name)) => text(1, name).map_err(wire)?.clone_into(&mut api_version),
                        (2, Wire::Bytes(name)) => text(2, name).map_err(wire)?.clone_into(&mut kind),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let gvk = Gvk::new(&api_version, &kind);
    let Some(type_id) = registry.type_by_gvk(gvk.group, gvk.version, gvk.kind) else {
        return Err(DecodeError::UnknownKind { api_version, kind });
    };
    let mut value = bare(registry, type_id, raw)?;
    let facts = registry.get(type_id);
    if facts.field("kind").is_some_and(|field| field.number == 0) {
        value["apiVersion"] = api_version.as_str().into();
        value["kind"] = kind.as_str().into();
    }
    Ok((api_version, kind, value))
}

/// Decodes a bare message, as it stands inside another one.
pub(crate) fn bare(registry: &Registry, type_id: TypeId, bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut object = Map::new();
    let decoded = message(registry, type_id, bytes, &mut object, 0);
    decoded.map_err(|error| DecodeError::Protobuf(error.to_string()))?;
    Ok(Value::Object(object))
}

fn message(
    registry: &Registry,
    type_id: TypeId,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), WireError> {
    let facts = registry.get(type_id);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        let Some(field) = facts.proto_field(number) else {
            continue;
        };
        if depth > DEPTH_MAX {
            return Err(WireError::Depth { field: number });
        }
        match (field.cardinality, field.kind) {
            (_, Kind::Inline(inner)) => message(
                registry,
                inner,
                length_delimited(number, wire)?,
                object,
                depth + 1,
            )?,
            (Cardinality::Map, kind) => {
                let (key, value) = map_entry(registry, number, kind, wire, depth)?;
                if let Value::Object(map) = entry(object, field, || Map::new().into()) {
                    map.insert(key, value);
                }
            }
            (Cardinality::List, kind) => {
                let value = list_items(registry, number, kind, wire, depth)?;
                if let Value::Array(list) = entry(object, field, || Vec::<Value>::new().into()) {
                    list.extend(value);
                }
            }
            (Cardinality::One, kind) => {
                let value = single(registry, number, kind, wire, depth)?;
                if !left_out(field, &value) {
                    object.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(())
}

fn entry<'o>(
    object: &'o mut Map<String, Value>,
    field: &Field,
    empty: impl FnOnce() -> Value,
) -> &'o mut Value {
    object.entry(field.name).or_insert_with(empty)
}

/// Whether the JSON form leaves a value out: an empty value that is no pointer in Go.
fn left_out(field: &Field, value: &Value) -> bool {
    value.is_null() || (!field.pointer && !field.keep_empty && is_empty(Some(value)) && not_raw(field.kind))
}

fn not_raw(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::AnyJson | Kind::RawObject | Kind::Quantity | Kind::IntOrString
    )
}

/// One value on the wire; several where numbers are packed.
fn list_items(
    registry: &Registry,
    number: u32,
    kind: Kind,
    wire: Wire<'_>,
    depth: u32,
) -> Result<Vec<Value>, WireError> {
    match (kind, wire) {
        (Kind::Int32 | Kind::Int64 | Kind::Bool, Wire::Bytes(packed)) => {
            // A packed list is varints without tags; a tag in front of each makes it readable as fields.
            let mut values = Vec::new();
            let mut rest = packed;
            while !rest.is_empty() {
                let end = rest
                    .iter()
                    .position(|&byte| byte < 0x80)
                    .ok_or(WireError::Truncated)?
                    + 1;
                let mut tagged = vec![0x08];
                tagged.extend_from_slice(&rest[..end]);
                if let Some((_, wire)) = Reader::new(&tagged).next_field()? {
                    values.push(single(registry, number, kind, wire, depth)?);
                }
                rest = &rest[end..];
            }
            Ok(values)
        }
        _ => {
            let value = single(registry, number, kind, wire, depth)?;
            Ok(vec![if value.is_null() {
                super::scalar::zero(kind)
            } else {
                value
            }])
        }
    }
}

fn map_entry(
    registry: &Registry,
    number: u32,
    kind: Kind,
    wire: Wire<'_>,
    depth: u32,
) -> Result<(String, Value), WireError> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader::new(length_delimited(number, wire)?);
    while let Some((part, wire)) = reader.next_field()? {
        match (part, wire) {
            (1, Wire::Bytes(bytes)) => text(number, bytes)?.clone_into(&mut key),
            (2, wire) => value = Some(single(registry, number, kind, wire, depth)?),
            _ => {}
        }
    }
    Ok((
        key,
        value
            .filter(|value| !value.is_null())
            .unwrap_or_else(|| super::scalar::zero(kind)),
    ))
}

fn single(
    registry: &Registry,
    number: u32,
    kind: Kind,
    wire: Wire<'_>,
    depth: u32,
) -> Result<Value, WireError> {
    match (kind, wire) {
        (Kind::Bool, Wire::Varint(value)) => Ok((value != 0).into()),
        (Kind::Int32, Wire::Varint(value)) => Ok(truncated(value).into()),
        (Kind::Int64, Wire::Varint(value)) => Ok(value.cast_signed().into()),
        (Kind::Double, Wire::Fixed64(bits)) => {
            Ok(Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number))
        }
        (_, Wire::Bytes(bytes)) => from_bytes(registry, number, kind, bytes, depth),
        _ => Err(WireError::Mismatch { field: number }),
    }
}

/// Protobuf widens negative 32-bit numbers to ten bytes; what is above 32 bits is to be ignored.
fn truncated(value: u64) -> i32 {
    let bytes = value.to_le_bytes();
    i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn from_bytes(
    registry: &Registry,
    number: u32,
    kind: Kind,
    bytes: &[u8],
    depth: u32,
) -> Result<Value, WireError> {
    match kind {
        Kind::String => Ok(text(number, bytes)?.into()),
        Kind::Bytes => Ok(STANDARD.encode(bytes).into()),
        Kind::Message(inner) | Kind::Inline(inner) => {
            let mut object = Map::new();
            message(registry, inner, bytes, &mut object, depth + 1)?;
            Ok(Value::Object(object))
        }
        Kind::Quantity => quantity(number, bytes),
        Kind::Time => Ok(instant(number, bytes)?.map_or(Value::Null, |time| time::seconds(time).into())),
        Kind::MicroTime => Ok(instant(number, bytes)?.map_or(Value::Null, |time| time::micros(time).into())),
        Kind::Duration => match Reader::new(bytes).next_field()? {
            Some((1, Wire::Varint(nanos))) => Ok(time::duration(nanos.cast_signed()).into()),
            _ => Ok("0s".into()),
        },
        Kind::IntOrString => int_or_string(number, bytes),
        Kind::RawObject | Kind::AnyJson => raw(number, bytes),
        Kind::StringList => {
            let mut list = Vec::new();
            let mut reader = Reader::new(bytes);
            while let Some((item, wire)) = reader.next_field()? {
                list.push(text(item, length_delimited(item, wire)?)?.into());
            }
            Ok(Value::Array(list))
        }
        Kind::SchemaOrArray(schema) | Kind::SchemaOrBool(schema) | Kind::SchemaOrStrings(schema) => {
            schema_or(registry, kind, schema, bytes, depth)
        }
        Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Double => Err(WireError::Mismatch { field: number }),
    }
}

fn quantity(number: u32, bytes: &[u8]) -> Result<Value, WireError> {
    let found = field_bytes(bytes, 1)?.unwrap_or_default();
    let text = text(number, found)?;
    // Go writes the canonical form already; anything else is brought into it, and what is no amount counts as zero.
    Ok(Quantity::parse(text).map_or_else(|_| "0".into(), |quantity| quantity.to_string().into()))
}

/// Seconds and nanoseconds since 1970; nothing for Go's zero time, which is an empty message.
fn instant(number: u32, bytes: &[u8]) -> Result<Option<Timestamp>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field {
            (1, Wire::Varint(value)) => seconds = value.cast_signed(),
            (2, Wire::Varint(value)) => nanos = truncated(value),
            _ => {}
        }
    }
    Timestamp::new(seconds, nanos)
        .map(Some)
        .map_err(|_| WireError::Mismatch { field: number })
}

fn int_or_string(number: u32, bytes: &[u8]) -> Result<Value, WireError> {
    let (mut is_text, mut value, mut name) = (false, 0, "");
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        match field {
            (1, Wire::Varint(kind)) => is_text = kind != 0,
            (2, Wire::Varint(bits)) => value = truncated(bits),
            (3, Wire::Bytes(bytes)) => name = text(number, bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { name.into() } else { value.into() })
}

/// JSON bytes inside a message. What isn't JSON (a nested protobuf body) can't be kept in a tree.
fn raw(number: u32, bytes: &[u8]) -> Result<Value, WireError> {
    match field_bytes(bytes, 1)? {
        None | Some([]) => Ok(Value::Null),
        Some(json) => serde_json::from_slice(json).map_err(|_| WireError::Json { field: number }),
    }
}

fn schema_or(
    registry: &Registry,
    kind: Kind,
    schema: TypeId,
    bytes: &[u8],
    depth: u32,
) -> Result<Value, WireError> {
    let mut found = Value::Null;
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        match (kind, number, wire) {
            (Kind::SchemaOrBool(_), 1, Wire::Varint(allows)) if found.is_null() => {
                found = (allows != 0).into()
            }
            (Kind::SchemaOrBool(_), 2, Wire::Bytes(inner)) | (_, 1, Wire::Bytes(inner)) => {
                found = from_bytes(registry, number, Kind::Message(schema), inner, depth + 1)?;
            }
            (Kind::SchemaOrStrings(_), 2, Wire::Bytes(name)) => list.push(text(number, name)?.into()),
            (_, 2, Wire::Bytes(inner)) => {
                list.push(from_bytes(
                    registry,
                    number,
                    Kind::Message(schema),
                    inner,
                    depth + 1,
                )?);
            }
            _ => {}
        }
    }
    Ok(if found.is_null() && !list.is_empty() {
        Value::Array(list)
    } else {
        found
    })
}

fn field_bytes(bytes: &[u8], wanted: u32) -> Result<Option<&[u8]>, WireError> {
    let mut found = None;
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        if number == wanted {
            found = Some(length_delimited(number, wire)?);
        }
    }
    Ok(found)
}

fn length_delimited(number: u32, wire: Wire<'_>) -> Result<&[u8], WireError> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        Wire::Varint(_) | Wire::Fixed64(_) | Wire::Fixed32(_) => Err(WireError::Mismatch { field: number }),
    }
}

fn text(number: u32, bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Text { field: number })
}

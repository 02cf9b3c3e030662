//! Single values: which forms a kind takes, and its canonical form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use crate::quantity::{Quantity, QuantityError};
use crate::registry::{Cardinality, Kind, Registry};
use crate::time;

/// A value given as text; nothing where the kind takes no text.
pub(super) fn from_text(kind: Kind, text: &str) -> Option<Result<Value, String>> {
    match kind {
        Kind::String | Kind::IntOrString | Kind::AnyJson | Kind::RawObject => Some(Ok(text.into())),
        Kind::Bytes => Some(bytes(text)),
        Kind::Quantity => Some(quantity(text)),
        Kind::Time => Some(point(text, "2006-01-02T15:04:05Z07:00", time::seconds)),
        Kind::MicroTime => Some(point(text, "2006-01-02T15:04:05.000000Z07:00", time::micros)),
        Kind::Duration => Some(length(text)),
        Kind::Bool
        | Kind::Int32
        | Kind::Int64
        | Kind::Double
        | Kind::Message(_)
        | Kind::Inline(_)
        | Kind::StringList
        | Kind::SchemaOrArray(_)
        | Kind::SchemaOrBool(_)
        | Kind::SchemaOrStrings(_) => None,
    }
}

/// A value given as number; nothing where the kind takes no such number.
pub(super) fn from_number(kind: Kind, number: &Number) -> Option<Result<Value, String>> {
    let fits32 = |number: &Number| number.as_i64().is_some_and(|value| i32::try_from(value).is_ok());
    match kind {
        Kind::Int32 | Kind::IntOrString => fits32(number).then(|| Ok(number.clone().into())),
        Kind::Int64 => number.is_i64().then(|| Ok(number.clone().into())),
        Kind::Double | Kind::AnyJson | Kind::RawObject => Some(Ok(number.clone().into())),
        Kind::Quantity => Some(quantity(&number.to_string())),
        _ => None,
    }
}

/// What null means inside a list or map: the zero value.
pub(super) fn zero(kind: Kind) -> Value {
    match kind {
        Kind::String | Kind::Bytes => "".into(),
        Kind::Bool => false.into(),
        Kind::Int32 | Kind::Int64 | Kind::Double | Kind::IntOrString => 0.into(),
        Kind::Quantity => "0".into(),
        Kind::Duration => "0s".into(),
        Kind::Message(_) | Kind::Inline(_) => Map::new().into(),
        Kind::StringList => Vec::<Value>::new().into(),
        Kind::Time
        | Kind::MicroTime
        | Kind::RawObject
        | Kind::AnyJson
        | Kind::SchemaOrArray(_)
        | Kind::SchemaOrBool(_)
        | Kind::SchemaOrStrings(_) => Value::Null,
    }
}

pub(super) fn quantity_format_error() -> String {
    QuantityError::Format.to_string()
}

fn quantity(text: &str) -> Result<Value, String> {
    let parsed = Quantity::parse(text.trim()).map_err(|error| error.to_string())?;
    Ok(parsed.to_string().into())
}

fn bytes(text: &str) -> Result<Value, String> {
    if text.bytes().any(|byte| byte == b'\n' || byte == b'\r') {
        let joined: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
        return bytes(&joined);
    }
    match STANDARD.decode(text) {
        Ok(_) => Ok(text.into()),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(format!("illegal base64 data at input byte {at}"))
        }
        Err(_) => Err(format!(
            "illegal base64 data at input byte {}",
            text.len() / 4 * 4
        )),
    }
}

fn point(text: &str, layout: &str, form: fn(jiff::Timestamp) -> String) -> Result<Value, String> {
    match time::parse(text) {
        Some(time) => Ok(form(time).into()),
        None => Err(format!(
            "parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""
        )),
    }
}

fn length(text: &str) -> Result<Value, String> {
    match time::parse_duration(text) {
        Some(nanos) => Ok(time::duration(nanos).into()),
        None => Err(format!("time: invalid duration {text:?}")),
    }
}

/// The name of a field's type in the reference server's errors.
pub(super) fn go_type(registry: &Registry, kind: Kind, cardinality: Cardinality) -> String {
    let one = match kind {
        Kind::String => "string".to_owned(),
        Kind::Bytes => "[]uint8".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::Int32 | Kind::IntOrString => "int32".to_owned(),
        Kind::Int64 => "int64".to_owned(),
        Kind::Double => "float64".to_owned(),
        Kind::Message(id) | Kind::Inline(id) => {
            let name = registry.get(id).name;
            name.rsplit_once('/').map_or(name, |(_, short)| short).to_owned()
        }
        Kind::Quantity => "resource.Quantity".to_owned(),
        Kind::Time | Kind::MicroTime | Kind::Duration => "string".to_owned(),
        Kind::RawObject => "runtime.RawExtension".to_owned(),
        Kind::AnyJson => "interface {}".to_owned(),
        Kind::StringList => "[]string".to_owned(),
        Kind::SchemaOrArray(_) => "v1.JSONSchemaPropsOrArray".to_owned(),
        Kind::SchemaOrBool(_) => "v1.JSONSchemaPropsOrBool".to_owned(),
        Kind::SchemaOrStrings(_) => "v1.JSONSchemaPropsOrStringArray".to_owned(),
    };
    match cardinality {
        Cardinality::One => one,
        Cardinality::List => format!("[]{one}"),
        Cardinality::Map => format!("map[string]{one}"),
    }
}

//! Values of CEL. Objects and lists of the checked object are looked into where they stand, with their schema at hand.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::ask::{Access, Decision};
use crate::custom::structural::{JsonType, ListKind, Schema};
use crate::custom::{formats, go_duration};
use crate::quantity::Quantity;

/// A value while an expression is evaluated.
#[derive(Clone, Debug)]
pub(crate) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Arc<[u8]>),
    List(Arc<Vec<Val<'a>>>),
    Map(Arc<BTreeMap<Key, Val<'a>>>),
    /// An object or list of the checked object.
    Json(&'a Value, Option<&'a Schema>),
    Optional(Option<Arc<Val<'a>>>),
    /// Nanoseconds.
    Duration(i64),
    Time(Timestamp),
    Quantity(Arc<Quantity>),
    Url(Arc<Url>),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Semver(Arc<[u64; 3]>, Arc<str>),
    /// A named format.
    Format(Arc<str>),
    /// A question about somebody's rights, as far as it is put.
    Access(Access<'a>),
    /// Its answer.
    Decision(Arc<Decision>),
    Type(&'static str),
}

/// What a map can be looked up by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Key {
    Bool(bool),
    Int(i64),
    Text(String),
}

/// The parts of a URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Url {
    pub(super) text: String,
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: String,
}

/// Names that CEL has taken; such fields are written between two pairs of underscores.
const RESERVED: [&str; 20] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
];

/// The name of a field, from how an expression has to write it.
pub(super) fn unescape(name: &str) -> Cow<'_, str> {
    let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    if let Some(inner) = inner.filter(|inner| RESERVED.contains(inner) || *inner == "while") {
        return Cow::Borrowed(inner);
    }
    if !name.contains("__") {
        return Cow::Borrowed(name);
    }
    let mut out = String::new();
    let mut rest = name;
    const PARTS: [(&str, &str); 4] = [
        ("__underscores__", "__"),
        ("__dot__", "."),
        ("__dash__", "-"),
        ("__slash__", "/"),
    ];
    while let Some(c) = rest.chars().next() {
        if let Some((part, plain)) = PARTS.iter().find(|(part, _)| rest.starts_with(part)) {
            out.push_str(plain);
            rest = &rest[part.len()..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Cow::Owned(out)
}

impl<'a> Val<'a> {
    pub(super) fn text(text: impl Into<String>) -> Val<'a> {
        Val::Text(Cow::Owned(text.into()))
    }

    pub(super) fn list(items: Vec<Val<'a>>) -> Val<'a> {
        Val::List(Arc::new(items))
    }

    pub(super) fn some(value: Val<'a>) -> Val<'a> {
        Val::Optional(Some(Arc::new(value)))
    }

    /// A value of the checked object, in the type that its schema gives it.
    pub(crate) fn of(value: &'a Value, schema: Option<&'a Schema>) -> Val<'a> {
        match value {
            Value::Null => Val::Null,
            Value::Bool(flag) => Val::Bool(*flag),
            Value::Number(number) => {
                let is_double = schema.is_some_and(|schema| schema.kind == Some(JsonType::Number));
                match number.as_i64().filter(|_| !is_double) {
                    Some(number) => Val::Int(number),
                    None => {
                        let number = number.as_f64().unwrap_or_default();
                        let is_whole = schema.is_some_and(|schema| schema.kind == Some(JsonType::Integer));
                        if is_whole {
                            to_int(number).map_or(Val::Double(number), Val::Int)
                        } else {
                            Val::Double(number)
                        }
                    }
                }
            }
            Value::String(text) => formatted(text, schema),
            Value::Array(_) | Value::Object(_) => Val::Json(value, schema),
        }
    }

    /// As messages name its type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Val::Null => "null_type",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Uint(_) => "uint",
            Val::Double(_) => "double",
            Val::Text(_) => "string",
            Val::Bytes(_) => "bytes",
            Val::List(_) | Val::Json(Value::Array(_), _) => "list",
            Val::Map(_) | Val::Json(..) => "map",
            Val::Optional(_) => "optional_type",
            Val::Duration(_) => "google.protobuf.Duration",
            Val::Time(_) => "google.protobuf.Timestamp",
            Val::Quantity(_) => "kubernetes.Quantity",
            Val::Url(_) => "kubernetes.URL",
            Val::Ip(_) => "net.IP",
            Val::Cidr(..) => "net.CIDR",
            Val::Semver(..) => "kubernetes.Semver",
            Val::Format(_) => "kubernetes.NamedFormat",
            Val::Access(_) => "kubernetes.authorization.Authorizer",
            Val::Decision(_) => "kubernetes.authorization.Decision",
            Val::Type(_) => "type",
        }
    }

    /// The elements of a list.
    pub(super) fn items(&self) -> Option<Vec<Val<'a>>> {
        match self {
            Val::List(items) => Some(items.to_vec()),
            Val::Json(Value::Array(items), schema) => {
                let inner = schema.and_then(|schema| schema.items.as_deref());
                Some(items.iter().map(|item| Val::of(item, inner)).collect())
            }
            _ => None,
        }
    }

    /// The entries of a map or object, by key.
    pub(super) fn entries(&self) -> Option<Vec<(Val<'a>, Val<'a>)>> {
        match self {
            Val::Map(map) => Some(
                map.iter()
                    .map(|(key, value)| (key.to_val(), value.clone()))
                    .collect(),
            ),
            Val::Json(Value::Object(map), schema) => {
                let entry = |(name, value): (&'a String, &'a Value)| {
                    let inner = schema.and_then(|schema| schema.field(name));
                    (Val::Text(Cow::Borrowed(name.as_str())), Val::of(value, inner))
                };
                Some(map.iter().map(entry).collect())
            }
            _ => None,
        }
    }

    /// How many elements, entries, characters or bytes there are.
    pub(super) fn size(&self) -> Option<usize> {
        Some(match self {
            Val::Text(text) => text.chars().count(),
            Val::Bytes(bytes) => bytes.len(),
            Val::List(items) => items.len(),
            Val::Map(map) => map.len(),
            Val::Json(Value::Array(items), _) => items.len(),
            Val::Json(Value::Object(map), _) => map.len(),
            _ => return None,
        })
    }

    /// About how much work it is to look at all of it.
    pub(super) fn weight(&self) -> u64 {
        fn of_json(value: &Value) -> u64 {
            match value {
                Value::String(text) => 1 + text.len() as u64 / 10,
                Value::Array(list) => 1 + list.iter().map(of_json).sum::<u64>(),
                Value::Object(map) => 1 + map.values().map(of_json).sum::<u64>(),
                _ => 1,
            }
        }
        match self {
            Val::Text(text) => 1 + text.len() as u64 / 10,
            Val::Bytes(bytes) => 1 + bytes.len() as u64 / 10,
            Val::List(items) => 1 + items.iter().map(Val::weight).sum::<u64>(),
            Val::Map(map) => 1 + map.values().map(Val::weight).sum::<u64>(),
            Val::Json(value, _) => of_json(value),
            _ => 1,
        }
    }

    /// A field of an object or entry of a map; nothing if it isn't there.
    pub(super) fn field(&self, name: &str) -> Option<Val<'a>> {
        match self {
            Val::Access(access) => access.field(name),
            Val::Map(map) => map.get(&Key::Text(name.to_owned())).cloned(),
            Val::Json(Value::Object(map), schema) => {
                let is_map =
                    schema.is_some_and(|schema| schema.additional.is_some() && schema.properties.is_empty());
                let unescaped = if is_map {
                    Cow::Borrowed(name)
                } else {
                    unescape(name)
                };
                let value = map.get(unescaped.as_ref())?;
                Some(Val::of(value, schema.and_then(|schema| schema.field(&unescaped))))
            }
            _ => None,
        }
    }

    /// CEL's equality: numbers by value, lists that are sets or maps without regard to order.
    pub(super) fn equals(&self, other: &Val<'a>) -> bool {
        if let Some(order) = self.compare_numbers(other) {
            return order == Some(Ordering::Equal);
        }
        match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Text(a), Val::Text(b)) => a == b,
            (Val::Bytes(a), Val::Bytes(b)) => a == b,
            (Val::Duration(a), Val::Duration(b)) => a == b,
            (Val::Time(a), Val::Time(b)) => a == b,
            (Val::Quantity(a), Val::Quantity(b)) => a == b,
            (Val::Url(a), Val::Url(b)) => a.text == b.text,
            (Val::Ip(a), Val::Ip(b)) => a == b,
            (Val::Cidr(a, bits), Val::Cidr(b, others)) => a == b && bits == others,
            (Val::Semver(a, pre), Val::Semver(b, others)) => a == b && pre == others,
            (Val::Format(a), Val::Format(b)) => a == b,
            (Val::Type(a), Val::Type(b)) => a == b,
            (Val::Optional(a), Val::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.equals(b),
                _ => false,
            },
            (Val::Json(a, schema), Val::Json(b, _)) if !is_unordered(*schema) && std::ptr::eq(*a, *b) => true,
            _ => self.equals_container(other),
        }
    }

    fn equals_container(&self, other: &Val<'a>) -> bool {
        if let (Some(a), Some(b)) = (self.items(), other.items()) {
            let is_set = matches!(self, Val::Json(_, schema) if is_unordered(*schema))
                || matches!(other, Val::Json(_, schema) if is_unordered(*schema));
            return a.len() == b.len()
                && if is_set {
                    a.iter().all(|one| b.iter().any(|two| one.equals(two)))
                } else {
                    a.iter().zip(&b).all(|(one, two)| one.equals(two))
                };
        }
        let (Some(a), Some(b)) = (self.entries(), other.entries()) else {
            return false;
        };
        let value_in = |key: &Val<'a>| {
            b.iter()
                .find(|(found, _)| found.equals(key))
                .map(|(_, value)| value)
        };
        a.len() == b.len()
            && a.iter()
                .all(|(key, value)| value_in(key).is_some_and(|found| found.equals(value)))
    }

    /// Numbers of all types compare by value; nothing if one is no number, `Some(None)` for not-a-number.
    fn compare_numbers(&self, other: &Val<'a>) -> Option<Option<Ordering>> {
        let wide = |value: &Val<'a>| match value {
            Val::Int(number) => Some(i128::from(*number)),
            Val::Uint(number) => Some(i128::from(*number)),
            _ => None,
        };
        let double = |value: &Val<'a>| match value {
            Val::Double(number) => Some(*number),
            #[expect(clippy::cast_precision_loss, reason = "as CEL compares ints with doubles")]
            other => wide(other).map(|number| number as f64),
        };
        match (wide(self), wide(other)) {
            (Some(a), Some(b)) => Some(Some(a.cmp(&b))),
            _ => Some(double(self)?.partial_cmp(&double(other)?)),
        }
    }

    /// The order of two values; nothing if they have none.
    pub(super) fn compare(&self, other: &Val<'a>) -> Option<Ordering> {
        if let Some(order) = self.compare_numbers(other) {
            return order;
        }
        match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Val::Text(a), Val::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Val::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
            (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
            (Val::Time(a), Val::Time(b)) => Some(a.cmp(b)),
            (Val::Quantity(a), Val::Quantity(b)) => a.partial_cmp(b),
            (Val::Semver(a, pre), Val::Semver(b, others)) => {
                Some(super::kubernetes::compare_semver((a, pre), (b, others)))
            }
            _ => None,
        }
    }
}

impl Key {
    pub(super) fn of(value: &Val<'_>) -> Option<Key> {
        Some(match value {
            Val::Bool(flag) => Key::Bool(*flag),
            Val::Int(number) => Key::Int(*number),
            Val::Uint(number) => Key::Int(i64::try_from(*number).ok()?),
            Val::Double(number) => Key::Int(to_int(*number).filter(|_| number.fract() == 0.0)?),
            Val::Text(text) => Key::Text(text.to_string()),
            _ => return None,
        })
    }

    pub(super) fn to_val<'a>(&self) -> Val<'a> {
        match self {
            Key::Bool(flag) => Val::Bool(*flag),
            Key::Int(number) => Val::Int(*number),
            Key::Text(text) => Val::text(text.clone()),
        }
    }
}

fn is_unordered(schema: Option<&Schema>) -> bool {
    let kind = schema.and_then(|schema| schema.list_kind.as_ref());
    matches!(kind, Some(ListKind::Set | ListKind::Map(_)))
}

/// The whole part of a number, if it fits.
pub(super) fn to_int(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    (number.abs() < 9.223_372_036_854_775e18).then_some(number as i64)
}

/// A text in the type that its format gives it.
fn formatted<'a>(text: &'a str, schema: Option<&Schema>) -> Val<'a> {
    let plain = Val::Text(Cow::Borrowed(text));
    match schema.map(|schema| schema.format.as_str()) {
        Some("date-time" | "datetime") if formats::holds("date-time", text) => {
            text.parse().map_or(plain, Val::Time)
        }
        Some("date") => format!("{text}T00:00:00Z").parse().map_or(plain, Val::Time),
        Some("duration") => go_duration::parse(text).map_or(plain, Val::Duration),
        Some("byte") => {
            use base64::Engine;
            let decoded = base64::prelude::BASE64_STANDARD.decode(text);
            decoded.map_or(plain, |bytes| Val::Bytes(bytes.into()))
        }
        _ => plain,
    }
}

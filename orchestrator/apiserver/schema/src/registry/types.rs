//! A type's fields as both encodings need them, decoded from its record in the facts.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::facts::Place;
use super::{Registry, TypeId};

/// What one value of a field is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Text.
    String,
    /// Bytes; base64 in JSON.
    Bytes,
    /// True or false.
    Bool,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating point number.
    Double,
    /// An object with fields of its own.
    Message(TypeId),
    /// A message in protobuf whose fields stand directly in the outer JSON object.
    Inline(TypeId),
    /// An amount such as `1Gi`.
    Quantity,
    /// RFC 3339 with whole seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// A length of time such as `1m30s`.
    Duration,
    /// An integer or a text.
    IntOrString,
    /// Any JSON object, kept as it is.
    RawObject,
    /// Any JSON value, kept as it is.
    AnyJson,
    /// A list of texts that is a message in protobuf.
    StringList,
    /// A schema, or a list of schemas.
    SchemaOrArray(TypeId),
    /// A schema, or a boolean.
    SchemaOrBool(TypeId),
    /// A schema, or a list of texts.
    SchemaOrStrings(TypeId),
}

/// How many values a field has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cardinality {
    /// At most one.
    One,
    /// A list.
    List,
    /// An object of values by text.
    Map,
}

/// How a list is merged by server-side apply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListType {
    /// Replaced as a whole.
    Atomic,
    /// A set of scalars.
    Set,
    /// Objects by their keys.
    Map,
}

/// How a field is merged by a strategic merge patch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Patch {
    /// Lists are merged, element by element.
    pub merge: bool,
    /// The value is replaced, also if it is an object.
    pub replace: bool,
    /// `$retainKeys` is heeded.
    pub retain_keys: bool,
    /// The key by which elements are the same.
    pub merge_key: Option<&'static str>,
}

/// A field of a type.
#[derive(Clone, Debug)]
pub struct Field {
    /// JSON name; empty for an inlined message.
    pub name: &'static str,
    /// Protobuf number; 0 where the field is in JSON only.
    pub number: u32,
    /// What one value is.
    pub kind: Kind,
    /// How many values there are.
    pub cardinality: Cardinality,
    /// The schema calls it required.
    pub required: bool,
    /// The reference server keeps it in JSON also when it is empty.
    pub keep_empty: bool,
    /// Absent and empty differ: the reference server's field is a pointer.
    pub pointer: bool,
    /// The schema's default.
    pub default: Option<Value>,
    /// The schema's closed set of values; of the elements, for lists and maps.
    pub values: Box<[&'static str]>,
    /// How server-side apply merges it.
    pub list_type: Option<ListType>,
    /// Keys of a list of type map.
    pub list_keys: Box<[&'static str]>,
    /// `atomic` or `granular`, for objects.
    pub map_type: Option<&'static str>,
    /// How a strategic merge patch merges it.
    pub patch: Patch,
}

/// A field as JSON knows it.
pub type JsonField = Arc<Field>;
/// A field as protobuf knows it.
pub type ProtoField = Arc<Field>;

/// One type: what stands in its JSON object and in its protobuf message.
#[derive(Debug)]
pub struct Type {
    /// Its own id.
    pub id: TypeId,
    /// Name in the facts, such as `core/v1.Pod`.
    pub name: &'static str,
    /// Name in published OpenAPI documents.
    pub openapi: Option<&'static str>,
    /// Group, version, kind under which the type is known.
    pub gvks: Box<[(&'static str, &'static str, &'static str)]>,
    /// Name as the reference server calls it in errors, such as `PodSpec`.
    pub short_name: &'static str,
    /// The object is one unit for server-side apply.
    pub atomic: bool,
    /// All fields of the JSON object, inlined ones too, sorted by name.
    pub json: Box<[JsonField]>,
    /// All fields of the protobuf message, sorted by number.
    pub proto: Box<[ProtoField]>,
    /// The JSON fields that the reference server has in every object of the type, with their empty values, sorted by
    /// name.
    pub implied: Box<[(&'static str, Value)]>,
}

impl Type {
    /// Finds a field by its JSON name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self.json.binary_search_by(|field| field.name.cmp(name)).ok()?;
        Some(&self.json[at])
    }

    /// Finds a field by its protobuf number.
    #[must_use]
    pub fn proto_field(&self, number: u32) -> Option<&Field> {
        let at = self
            .proto
            .binary_search_by(|field| field.number.cmp(&number))
            .ok()?;
        Some(&self.proto[at])
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawType {
    #[serde(borrow)]
    openapi: Option<&'static str>,
    #[serde(rename = "mapType", borrow)]
    map_type: Option<&'static str>,
    fields: Vec<RawField>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawField {
    #[serde(borrow)]
    name: Option<&'static str>,
    num: u32,
    #[serde(borrow)]
    pkind: Option<&'static str>,
    #[serde(borrow)]
    card: Option<&'static str>,
    #[serde(borrow)]
    special: Option<&'static str>,
    #[serde(flatten)]
    json: RawItem,
    items: Option<RawItem>,
    values: Option<RawItem>,
    required: bool,
    #[serde(rename = "keepEmpty")]
    keep_empty: bool,
    pointer: bool,
    default: Option<Value>,
    #[serde(rename = "listType", borrow)]
    list_type: Option<&'static str>,
    #[serde(rename = "listKeys", borrow)]
    list_keys: Vec<&'static str>,
    #[serde(rename = "mapType", borrow)]
    map_type: Option<&'static str>,
    #[serde(borrow)]
    patch: Option<&'static str>,
    #[serde(rename = "mergeKey", borrow)]
    merge_key: Option<&'static str>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawItem {
    #[serde(rename = "type", borrow)]
    json_type: Option<&'static str>,
    #[serde(borrow)]
    format: Option<&'static str>,
    #[serde(borrow, rename = "ref")]
    reference: Option<&'static str>,
    #[serde(borrow, rename = "enum")]
    values: Vec<&'static str>,
}

/// Decodes a record. The facts are part of the program and a test decodes all of them, so a record that can't be read
/// is a fault of the build.
pub(super) fn decode(registry: &Registry, id: TypeId, place: &Place) -> Type {
    let raw: RawType = serde_json::from_str(place.record).expect("embedded facts are well-formed");
    let mut json: Vec<JsonField> = Vec::with_capacity(raw.fields.len());
    let mut proto: Vec<ProtoField> = Vec::with_capacity(raw.fields.len());
    for field in raw.fields {
        let field = Arc::new(decode_field(registry, field));
        if let Kind::Inline(inner) = field.kind {
            json.extend(registry.get(inner).json.iter().cloned());
        } else if !field.name.is_empty() {
            json.push(Arc::clone(&field));
        }
        if field.number != 0 {
            proto.push(field);
        }
    }
    json.sort_by_key(|field| field.name);
    proto.sort_by_key(|field| field.number);
    let implied = json
        .iter()
        .filter_map(|field| Some((field.name, implied(field)?)));
    let implied = implied.collect();
    Type {
        implied,
        id,
        name: place.id,
        openapi: raw.openapi,
        gvks: place.gvks().collect(),
        short_name: place.id.rsplit_once('.').map_or(place.id, |(_, name)| name),
        atomic: raw.map_type == Some("atomic"),
        json: json.into_boxed_slice(),
        proto: proto.into_boxed_slice(),
    }
}

/// The value a field has in an object that doesn't write it; none if it is left out when empty.
fn implied(field: &Field) -> Option<Value> {
    if field.pointer {
        return field.keep_empty.then_some(Value::Null);
    }
    match (field.cardinality, field.kind) {
        (Cardinality::One, Kind::Message(_)) => Some(json!({})),
        (Cardinality::One, Kind::Quantity) => Some(json!("0")),
        (Cardinality::One, Kind::IntOrString) => Some(json!(0)),
        (Cardinality::One, Kind::Duration) => Some(json!("0s")),
        (Cardinality::One, Kind::Time | Kind::MicroTime) => Some(Value::Null),
        (_, _) if !field.keep_empty => None,
        (Cardinality::One, Kind::String) => Some(json!("")),
        (Cardinality::One, Kind::Bool) => Some(json!(false)),
        (Cardinality::One, Kind::Int32 | Kind::Int64 | Kind::Double) => Some(json!(0)),
        _ => Some(Value::Null),
    }
}

fn decode_field(registry: &Registry, mut raw: RawField) -> Field {
    let cardinality = cardinality(&raw);
    let kind = kind(registry, &raw, cardinality);
    let patch = raw.patch.unwrap_or_default();
    let item = match cardinality {
        Cardinality::One => &mut raw.json,
        Cardinality::List => raw.items.get_or_insert_default(),
        Cardinality::Map => raw.values.get_or_insert_default(),
    };
    Field {
        name: raw.name.unwrap_or_default(),
        number: raw.num,
        kind,
        cardinality,
        required: raw.required,
        keep_empty: raw.keep_empty,
        pointer: raw.pointer,
        default: raw.default,
        values: std::mem::take(&mut item.values).into_boxed_slice(),
        list_type: raw.list_type.and_then(|name| match name {
            "atomic" => Some(ListType::Atomic),
            "set" => Some(ListType::Set),
            "map" => Some(ListType::Map),
            _ => None,
        }),
        list_keys: raw.list_keys.into_boxed_slice(),
        map_type: raw.map_type,
        patch: Patch {
            merge: patch.split(',').any(|part| part == "merge"),
            replace: patch.split(',').any(|part| part == "replace"),
            retain_keys: patch.split(',').any(|part| part == "retainKeys"),
            merge_key: raw.merge_key,
        },
    }
}

fn cardinality(raw: &RawField) -> Cardinality {
    match (raw.card, raw.special) {
        (Some("repeated"), _) => Cardinality::List,
        (Some(_), _) => Cardinality::Map,
        (None, Some("string-list")) => Cardinality::One,
        (None, _) if raw.pkind.is_none() && raw.items.is_some() => Cardinality::List,
        (None, _) => Cardinality::One,
    }
}

fn kind(registry: &Registry, raw: &RawField, cardinality: Cardinality) -> Kind {
    let referred = |id: &str| registry.type_by_id(id);
    if raw.special == Some("inline") {
        return raw.pkind.and_then(referred).map_or(Kind::AnyJson, Kind::Inline);
    }
    let name = raw.pkind.or_else(|| match cardinality {
        Cardinality::One => raw.json.reference,
        Cardinality::List => raw.items.as_ref().and_then(|item| item.reference),
        Cardinality::Map => raw.values.as_ref().and_then(|item| item.reference),
    });
    match name {
        Some(name) => named_kind(registry, name),
        None => json_kind(if cardinality == Cardinality::List {
            raw.items.as_ref()
        } else {
            Some(&raw.json)
        }),
    }
}

/// The kind that a protobuf kind or a reference names. Special types are told by name: they have no fields in JSON.
fn named_kind(registry: &Registry, name: &str) -> Kind {
    let schema = |package: &str| registry.type_by_id(&format!("{package}.JSONSchemaProps"));
    let (package, short) = name.rsplit_once('.').unwrap_or(("", name));
    match (package, short) {
        ("", "string") => Kind::String,
        ("", "bytes") => Kind::Bytes,
        ("", "bool") => Kind::Bool,
        ("", "int32") => Kind::Int32,
        ("", "int64") => Kind::Int64,
        ("", "double") => Kind::Double,
        ("resource", "Quantity" | "QuantityValue") => Kind::Quantity,
        ("intstr", "IntOrString") => Kind::IntOrString,
        ("meta/v1", "Time") => Kind::Time,
        ("meta/v1", "MicroTime") => Kind::MicroTime,
        ("meta/v1", "Duration") => Kind::Duration,
        ("meta/v1", "FieldsV1") | ("runtime", "RawExtension") => Kind::RawObject,
        ("meta/v1", "Verbs") | (_, "ExtraValue") => Kind::StringList,
        ("apiextensions/v1" | "apiextensions/v1beta1", "JSON") => Kind::AnyJson,
        (_, "JSONSchemaPropsOrArray") => schema(package).map_or(Kind::AnyJson, Kind::SchemaOrArray),
        (_, "JSONSchemaPropsOrBool") => schema(package).map_or(Kind::AnyJson, Kind::SchemaOrBool),
        (_, "JSONSchemaPropsOrStringArray") => schema(package).map_or(Kind::AnyJson, Kind::SchemaOrStrings),
        _ => registry.type_by_id(name).map_or(Kind::AnyJson, Kind::Message),
    }
}

fn json_kind(item: Option<&RawItem>) -> Kind {
    match item.map(|item| {
        (
            item.json_type.unwrap_or_default(),
            item.format.unwrap_or_default(),
        )
    }) {
        Some(("string", "byte")) => Kind::Bytes,
        Some(("string", _)) => Kind::String,
        Some(("boolean", _)) => Kind::Bool,
        Some(("integer", "int64")) => Kind::Int64,
        Some(("integer", _)) => Kind::Int32,
        Some(("number", _)) => Kind::Double,
        _ => Kind::AnyJson,
    }
}

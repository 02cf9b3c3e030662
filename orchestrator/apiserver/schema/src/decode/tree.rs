//! JSON and YAML into trees, guided by a type's facts.
//!
//! One pass over the body: unknown and duplicate fields are noted with their paths, values are checked against their
//! kinds and brought into canonical form, nulls and what the reference server would leave out are dropped.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::scalar;
use crate::object::is_empty;
use crate::place::Place;
use crate::registry::{Cardinality, Field, Kind, Registry, TypeId};

/// Problems beyond this number are not reported, as upstream does.
const PROBLEMS_MAX: usize = 100;

/// What all levels of one body share.
pub(super) struct Body<'r> {
    pub(super) registry: &'r Registry,
    pub(super) report: bool,
    pub(super) problems: RefCell<Vec<String>>,
    /// The first type error; the deserializer's own error then only carries it out.
    pub(super) failure: RefCell<Option<String>>,
}

impl<'r> Body<'r> {
    pub(super) fn new(registry: &'r Registry, report: bool) -> Self {
        Body {
            registry,
            report,
            problems: RefCell::default(),
            failure: RefCell::default(),
        }
    }

    /// Notes a problem, once.
    fn problem(&self, what: &str, place: &Place<'_>) {
        let mut problems = self.problems.borrow_mut();
        if self.report && problems.len() < PROBLEMS_MAX {
            let problem = format!("{what} field \"{place}\"");
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
}

/// Decodes one value of a kind. Gives null for null: the container knows what that means.
#[derive(Clone, Copy)]
pub(super) struct Seed<'a> {
    pub(super) body: &'a Body<'a>,
    pub(super) place: &'a Place<'a>,
    pub(super) shape: Shape<'a>,
    /// The type around it, for type errors.
    pub(super) owner: &'a str,
}

/// What a value shall be.
#[derive(Clone, Copy)]
pub(super) enum Shape<'a> {
    Field(&'a Field),
    One(Kind),
}

impl Shape<'_> {
    fn kind(&self) -> Kind {
        match self {
            Shape::Field(field) => field.kind,
            Shape::One(kind) => *kind,
        }
    }

    fn cardinality(&self) -> Cardinality {
        match self {
            Shape::Field(field) => field.cardinality,
            Shape::One(_) => Cardinality::One,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.shape.cardinality() == Cardinality::One
            && matches!(self.shape.kind(), Kind::RawObject | Kind::AnyJson)
        {
            return serde::Deserialize::deserialize(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

impl Seed<'_> {
    fn fail<T, E: serde::de::Error>(&self, message: String) -> Result<T, E> {
        self.body.failure.borrow_mut().get_or_insert(message);
        Err(E::custom("type error"))
    }

    fn wrong_type<T, E: serde::de::Error>(&self, found: &str) -> Result<T, E> {
        let expected = scalar::go_type(self.body.registry, self.shape.kind(), self.shape.cardinality());
        let path = self.place.struct_path();
        if path.is_empty() {
            return self.fail(format!(
                "json: cannot unmarshal {found} into Go value of type {expected}"
            ));
        }
        let owner = self.owner;
        self.fail(format!(
            "json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {expected}"
        ))
    }

    fn inner(&self, kind: Kind) -> Self {
        Seed {
            shape: Shape::One(kind),
            ..*self
        }
    }

    fn message<'de, A: MapAccess<'de>>(&self, type_id: TypeId, mut access: A) -> Result<Value, A::Error> {
        let facts = self.body.registry.get(type_id);
        let mut object = Map::new();
        let mut seen: u128 = 0;
        while let Some(name) = access.next_key_seed(Key)? {
            let Ok(at) = facts.json.binary_search_by(|field| field.name.cmp(name.as_ref())) else {
                self.body.problem("unknown", &self.place.field(&name));
                access.next_value::<IgnoredAny>()?;
                continue;
            };
            let field = &*facts.json[at];
            let place = self.place.field(field.name);
            let bit = 1u128 << (at & 127);
            if seen & bit != 0 {
                self.body.problem("duplicate", &place);
            }
            seen |= bit;
            let seed = Seed {
                body: self.body,
                place: &place,
                shape: Shape::Field(field),
                owner: facts.short_name,
            };
            let value = access.next_value_seed(seed)?;
            if !left_out(field, &value) {
                object.insert(field.name.to_owned(), value);
            } else if !value.is_null() {
                object.remove(field.name);
            }
        }
        Ok(Value::Object(object))
    }

    fn map<'de, A: MapAccess<'de>>(&self, kind: Kind, mut access: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = access.next_key_seed(Key)? {
            let place = self.place.entry(&name);
            let seed = Seed {
                place: &place,
                ..self.inner(kind)
            };
            let value = access.next_value_seed(seed)?;
            let value = if value.is_null() {
                scalar::zero(kind)
            } else {
                value
            };
            if object.contains_key(name.as_ref()) {
                self.body.problem("duplicate", &place);
            }
            object.insert(name.into_owned(), value);
        }
        Ok(Value::Object(object))
    }

    fn list<'de, A: SeqAccess<'de>>(&self, kind: Kind, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::with_capacity(access.size_hint().unwrap_or(0).min(1024));
        loop {
            let place = self.place.index(list.len());
            let seed = Seed {
                place: &place,
                ..self.inner(kind)
            };
            match access.next_element_seed(seed)? {
                Some(Value::Null) => list.push(scalar::zero(kind)),
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }
}

/// What the reference server would not write: null, and the empty where empty means absent.
fn left_out(field: &Field, value: &Value) -> bool {
    if value.is_null() {
        return true;
    }
    // An empty list of owners says that they are to be forgotten.
    if field.name == "managedFields" {
        return false;
    }
    let plain = field.cardinality != Cardinality::One
        || matches!(
            field.kind,
            Kind::String
                | Kind::Bytes
                | Kind::Bool
                | Kind::Int32
                | Kind::Int64
                | Kind::Double
                | Kind::StringList
        );
    plain && !field.pointer && !field.keep_empty && is_empty(Some(value))
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the API")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        match (self.shape.cardinality(), self.shape.kind()) {
            (Cardinality::One, Kind::Bool | Kind::AnyJson | Kind::RawObject | Kind::SchemaOrBool(_)) => {
                Ok(Value::Bool(value))
            }
            (Cardinality::One, Kind::Quantity) => self.fail(scalar::quantity_format_error()),
            _ => self.wrong_type("bool"),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.number(Number::from(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.number(Number::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match Number::from_f64(value) {
            Some(number) => self.number(number),
            None => self.wrong_type("number"),
        }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        if self.shape.cardinality() != Cardinality::One {
            return self.wrong_type("string");
        }
        match scalar::from_text(self.shape.kind(), value) {
            Some(Ok(value)) => Ok(value),
            Some(Err(message)) => self.fail(message),
            None => self.wrong_type("string"),
        }
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        match (self.shape.cardinality(), self.shape.kind()) {
            (Cardinality::One, Kind::String) => Ok(Value::String(value)),
            _ => self.visit_str(&value),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        match (self.shape.cardinality(), self.shape.kind()) {
            (Cardinality::List, kind) => self.list(kind, access),
            (Cardinality::One, Kind::StringList | Kind::SchemaOrStrings(_)) => {
                self.list(Kind::String, access)
            }
            (Cardinality::One, Kind::SchemaOrArray(schema)) => self.list(Kind::Message(schema), access),
            (Cardinality::One, Kind::Quantity) => self.fail(scalar::quantity_format_error()),
            _ => self.wrong_type("array"),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        match (self.shape.cardinality(), self.shape.kind()) {
            (Cardinality::Map, kind) => self.map(kind, access),
            (
                Cardinality::One,
                Kind::Message(id)
                | Kind::SchemaOrArray(id)
                | Kind::SchemaOrBool(id)
                | Kind::SchemaOrStrings(id),
            ) => self.message(id, access),
            (Cardinality::One, Kind::Quantity) => self.fail(scalar::quantity_format_error()),
            _ => self.wrong_type("object"),
        }
    }
}

impl Seed<'_> {
    fn number<E: serde::de::Error>(self, number: Number) -> Result<Value, E> {
        if self.shape.cardinality() != Cardinality::One {
            return self.wrong_type("number");
        }
        match scalar::from_number(self.shape.kind(), &number) {
            Some(Ok(value)) => Ok(value),
            Some(Err(message)) => self.fail(message),
            None if matches!(self.shape.kind(), Kind::Int32 | Kind::Int64 | Kind::IntOrString) => {
                self.wrong_type(&format!("number {number}"))
            }
            None => self.wrong_type("number"),
        }
    }
}

/// A field name; not copied where the body allows that.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = std::borrow::Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = std::borrow::Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(name.into())
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(name.to_owned().into())
    }
}

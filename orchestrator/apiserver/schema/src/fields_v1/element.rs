//! One step of a path, its order and its text.

use std::cmp::Ordering;
use std::fmt::{self, Write};

use serde_json::{Number, Value};

/// One step from a value into it.
#[derive(Clone, Debug)]
pub enum Element {
    /// A field of an object, or an entry of a map.
    Field(Box<str>),
    /// The element of a list whose keys have these values; sorted by name.
    Key(Box<[(Box<str>, Value)]>),
    /// The element of a list that is this scalar.
    Value(Box<Value>),
    /// The element of a list at this place.
    Index(i64),
}

impl Element {
    /// A field.
    #[must_use]
    pub fn field(name: &str) -> Element {
        Element::Field(name.into())
    }

    /// The list element with these keys, in any order.
    #[must_use]
    pub fn key(mut keys: Vec<(Box<str>, Value)>) -> Element {
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        Element::Key(keys.into())
    }

    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Key(a), Element::Key(b)) => compare_keys(a, b),
            (Element::Value(a), Element::Value(b)) => compare_values(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Element {}

/// As error messages name it: `.spec`, `[name="a"]`, `[="a"]`, `[3]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(keys) => {
                f.write_char('[')?;
                for (index, (name, value)) in keys.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{name}=")?;
                    display_value(f, value)?;
                }
                f.write_char(']')
            }
            Element::Value(value) => {
                f.write_str("[=")?;
                display_value(f, value)?;
                f.write_char(']')
            }
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}

fn display_value(f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::String(text) => write!(f, "{text:?}"),
        other => write!(f, "{other}"),
    }
}

/// A path from the root of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Path(pub Vec<Element>);

impl Path {
    /// A path of fields.
    #[must_use]
    pub fn fields(names: &[&str]) -> Path {
        Path(names.iter().map(|name| Element::field(name)).collect())
    }
}

/// As error messages name it: `.spec.containers[name="a"].image`.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}

fn compare_keys(a: &[(Box<str>, Value)], b: &[(Box<str>, Value)]) -> Ordering {
    let pairs = a.iter().zip(b);
    pairs
        .map(|(a, b)| a.0.cmp(&b.0).then_with(|| compare_values(&a.1, &b.1)))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// A total order of values: numbers, texts, booleans, lists, objects, null.
fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let pairs = a.iter().zip(b).map(|(a, b)| compare_values(a, b));
            first_difference(pairs).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let pairs = a
                .iter()
                .zip(b)
                .map(|(a, b)| a.0.cmp(b.0).then_with(|| compare_values(a.1, b.1)));
            first_difference(pairs).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => kind_rank(a).cmp(&kind_rank(b)),
    }
}

fn first_difference(mut orders: impl Iterator<Item = Ordering>) -> Option<Ordering> {
    orders.find(|order| order.is_ne())
}

fn kind_rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let float = |number: &Number| number.as_f64().unwrap_or_default();
            float(a).total_cmp(&float(b))
        }
    }
}

/// Whether two values are the same; `1` and `1.0` are.
pub(crate) fn values_equal(a: &Value, b: &Value) -> bool {
    a == b || (kind_rank(a) == kind_rank(b) && compare_values(a, b).is_eq())
}

//! Merging by schema: what server-side apply does to objects, and which fields a change touches.
//!
//! | function | question it answers |
//! | --- | --- |
//! | [`check`] | is this object as its schema says, its lists without doubles? |
//! | [`merge`] | what results when this configuration is laid over that object? |
//! | [`compare`] | which fields did a change add, modify, remove? |
//! | [`is_same`] | does it change nothing? |
//! | [`field_set`] | which fields does this object have? |
//! | [`remove`] | what is left without these fields? |
//! | [`reconcile`] | which fields does an owner have after its schema changed to atomic? |
//!
//! All work on one walk: a value is a scalar, a list or an object; atomic ones are one field, others are gone into.

mod check;
mod compare;
mod field_set;
mod items;
mod merge;
mod reconcile;
mod remove;

use serde_json::Value;

use crate::merge_schema::{Forms, ListRule, MapRule};

pub use check::check;
pub use compare::{Comparison, compare, is_same};
pub use field_set::field_set;
pub use merge::merge;
pub use reconcile::reconcile;
pub use remove::remove;

/// What is wrong with a value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", if .path.is_empty() { .why.clone() } else { format!("{}: {}", .path, .why) })]
pub struct Fault {
    /// Such as `.spec.containers[name="a"]`.
    pub path: String,
    /// Such as `field not declared in schema`.
    pub why: String,
}

/// Everything that is wrong with an object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Faults(pub Vec<Fault>);

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0[..] {
            [one] => one.fmt(f),
            many => {
                f.write_str("errors:")?;
                many.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl std::error::Error for Faults {}

/// What is done with a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Scalar,
    /// One field, whatever is in it.
    Atomic,
    List(ListRule),
    Map,
}

/// The shape of a value under a schema that may allow several; null and misfits take the first that is allowed.
fn shape(forms: Forms, value: Option<&Value>) -> Shape {
    let found = match value {
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) if forms.scalar.is_some() => Forms {
            scalar: forms.scalar,
            ..Forms::default()
        },
        Some(Value::Array(_)) if forms.list.is_some() => Forms {
            list: forms.list,
            ..Forms::default()
        },
        Some(Value::Object(_)) if forms.map.is_some() => Forms {
            map: forms.map,
            ..Forms::default()
        },
        _ => forms,
    };
    match found {
        Forms {
            map: Some(MapRule::Granular),
            ..
        } => Shape::Map,
        Forms {
            map: Some(MapRule::Atomic),
            ..
        } => Shape::Atomic,
        Forms { scalar: Some(_), .. } => Shape::Scalar,
        Forms {
            list: Some(ListRule::Atomic),
            ..
        } => Shape::Atomic,
        Forms { list: Some(rule), .. } => Shape::List(rule),
        Forms { .. } => Shape::Atomic,
    }
}

/// The shape of two values of which one may be absent; if both are there, the second decides.
fn shape_of_both(forms: Forms, old: Option<&Value>, new: Option<&Value>) -> Shape {
    shape(forms, new.or(old))
}

/// Whether a value has nothing in it that could be gone into.
fn is_hollow(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests;

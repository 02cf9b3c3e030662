//! An object without some of its fields.

use serde_json::{Map, Value};

use super::items::element_of;
use super::{Shape, shape};
use crate::fields_v1::{Element, Set};
use crate::merge_schema::{ListRule, MergeSchema};

/// Takes fields out of an object. What is left empty by that becomes null, which decoding drops.
#[must_use]
pub fn remove<'s, S: MergeSchema<'s>>(schema: S, value: &Value, fields: &Set) -> Value {
    if fields.is_empty() {
        return value.clone();
    }
    match shape(schema.forms(), Some(value)) {
        Shape::Map => objects(schema, value, fields),
        Shape::List(rule) => lists(schema, rule, value, fields),
        Shape::Atomic if value.is_object() || value.is_array() => Value::Null,
        Shape::Scalar | Shape::Atomic => value.clone(),
    }
}

fn objects<'s, S: MergeSchema<'s>>(schema: S, value: &Value, fields: &Set) -> Value {
    let Some(object) = value.as_object() else {
        return value.clone();
    };
    let mut rest = Map::new();
    for (name, value) in object {
        let inner = schema.field(name).or_else(|| schema.entry());
        let kept = match (fields.branch(&Element::field(name)), inner) {
            (Some(branch), _) if branch.is_member => continue,
            (Some(branch), Some(inner)) => remove(inner, value, &branch.below),
            (Some(_), None) | (None, _) => value.clone(),
        };
        rest.insert(name.clone(), kept);
    }
    if rest.is_empty() {
        Value::Null
    } else {
        Value::Object(rest)
    }
}

fn lists<'s, S: MergeSchema<'s>>(schema: S, rule: ListRule, value: &Value, fields: &Set) -> Value {
    let Some(items) = value.as_array() else {
        return value.clone();
    };
    let mut rest = Vec::with_capacity(items.len());
    for item in items {
        let step = element_of(schema, rule, item).ok();
        match step.and_then(|step| fields.branch(&step)) {
            Some(branch) if branch.is_member => {}
            Some(branch) => rest.push(remove(schema.element(), item, &branch.below)),
            None => rest.push(item.clone()),
        }
    }
    if rest.is_empty() {
        Value::Null
    } else {
        Value::Array(rest)
    }
}

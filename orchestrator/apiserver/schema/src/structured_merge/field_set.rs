//! The fields an object has.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Shape, items, shape};
use crate::fields_v1::{Branch, Element, Set};
use crate::merge_schema::{ListRule, MergeSchema};

/// All fields of an object that can have an owner: scalars, atomic lists and objects, entries of maps, elements of
/// lists, and what is empty. Structs are not among them, for they are only the way to their fields.
#[must_use]
pub fn field_set<'s, S: MergeSchema<'s>>(schema: S, value: &Value) -> Set {
    branch(Some(schema), value).below
}

fn branch<'s, S: MergeSchema<'s>>(schema: Option<S>, value: &Value) -> Branch {
    let Some(schema) = schema else {
        return Branch::leaf();
    };
    match shape(schema.forms(), Some(value)) {
        Shape::Scalar | Shape::Atomic => Branch::leaf(),
        Shape::Map => objects(schema, value),
        Shape::List(rule) => lists(schema, rule, value),
    }
}

fn objects<'s, S: MergeSchema<'s>>(schema: S, value: &Value) -> Branch {
    let mut found = Branch::default();
    for (name, value) in value.as_object().into_iter().flatten() {
        let declared = schema.field(name);
        let mut inner = branch(declared.or_else(|| schema.entry()), value);
        let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        inner.is_member |= is_empty || declared.is_none();
        found.below.push(|| Element::field(name), inner);
    }
    found
}

/// An element that stands there twice is one field.
fn lists<'s, S: MergeSchema<'s>>(schema: S, rule: ListRule, value: &Value) -> Branch {
    let mut elements: BTreeMap<Element, Option<&Value>> = BTreeMap::new();
    for (step, item) in items::steps(schema, rule, Some(value)) {
        elements
            .entry(step)
            .and_modify(|found| *found = None)
            .or_insert(Some(item));
    }
    let mut found = Branch::default();
    for (step, item) in elements {
        let mut inner = item.map_or_else(Branch::default, |item| branch(Some(schema.element()), item));
        inner.is_member = true;
        found.below.push(|| step, inner);
    }
    found
}

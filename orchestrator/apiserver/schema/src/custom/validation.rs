//! Checks objects against a schema, in the words of the reference server.
//!
//! An update is held to less: what stands unchanged where it stood is not checked again, so that a definition can
//! become stricter without locking out the objects it already has.

use serde_json::{Number, Value};

use super::rules::Budget;
use super::structural::{Bounds, JsonType, ListKind, Schema};
use super::{formats, list_types, rules};
use crate::place::Place;
use crate::validation::Cause;
use crate::validation::faults::Faults;

/// All faults of an object; `old` is its state before, if it is updated.
#[must_use]
pub fn check(schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut faults = Faults::default();
    check_at(schema, new, old, &Place::ROOT, &mut faults);
    check_lists(schema, new, old, &Place::ROOT, &mut faults);
    if faults.is_empty() && schema.has_rules {
        rules::check(schema, new, old, &mut Budget::of_object(), &mut faults);
    }
    faults.into_causes()
}

/// The checks of types and values alone.
pub(super) fn check_values(schema: &Schema, value: &Value, place: &Place<'_>, faults: &mut Faults) {
    check_at(schema, value, None, place, faults);
    check_lists(schema, value, None, place, faults);
}

fn check_at(schema: &Schema, new: &Value, old: Option<&Value>, place: &Place<'_>, faults: &mut Faults) {
    if old == Some(new) {
        return;
    }
    if new.is_null() && schema.nullable {
        return;
    }
    if !check_kind(schema, new, place, faults) {
        return;
    }
    if !schema.values.is_empty() && !schema.values.contains(new) {
        faults.not_among(place, new, &schema.values);
    }
    match new {
        Value::String(text) => check_text(schema, text, place, faults),
        Value::Number(number) => check_number(schema, number, place, faults),
        Value::Array(list) => check_list(schema, list, old, place, faults),
        Value::Object(_) => check_object(schema, new, old, place, faults),
        Value::Bool(_) | Value::Null => {}
    }
    check_junctors(schema, new, place, faults);
}

/// The type of a value as messages name it.
fn kind_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if is_whole(number) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn check_kind(schema: &Schema, value: &Value, place: &Place<'_>, faults: &mut Faults) -> bool {
    let found = kind_name(value);
    let fits = |kind: JsonType| kind.name() == found || (kind == JsonType::Number && found == "integer");
    let expected = match schema.kind {
        _ if schema.int_or_string && matches!(found, "integer" | "string") => return true,
        _ if schema.int_or_string => "integer,string",
        Some(kind) if !fits(kind) => kind.name(),
        _ => return true,
    };
    let message = format!("{place} in body must be of type {expected}: {found:?}");
    faults.type_invalid(place, found, &message);
    false
}

fn check_text(schema: &Schema, text: &str, place: &Place<'_>, faults: &mut Faults) {
    let length = text.chars().count() as u64;
    if let Some(max) = schema.length.max.filter(|&max| length > max) {
        faults.too_long(place, usize::try_from(max).unwrap_or(usize::MAX));
    }
    if let Some(min) = schema.length.min.filter(|&min| length < min) {
        faults.invalid(
            place,
            text,
            &format!("{place} in body should be at least {min} chars long"),
        );
    }
    if let Some(pattern) = schema
        .pattern
        .as_ref()
        .filter(|pattern| !pattern.regex.is_match(text))
    {
        faults.invalid(
            place,
            text,
            &format!("{place} in body should match '{}'", pattern.text),
        );
    }
    if !formats::holds(&schema.format, text) {
        let format = &schema.format;
        faults.type_invalid(
            place,
            text,
            &format!("{place} in body must be of type {format}: {text:?}"),
        );
    }
}

fn check_number(schema: &Schema, number: &Number, place: &Place<'_>, faults: &mut Faults) {
    let value = number.as_f64().unwrap_or(f64::NAN);
    let mut fail = |what: String| {
        faults.invalid(
            place,
            Value::Number(number.clone()),
            &format!("{place} in body should be {what}"),
        )
    };
    match schema.maximum {
        Some((bound, true)) if value >= bound => fail(format!("less than {bound}")),
        Some((bound, false)) if value > bound => fail(format!("less than or equal to {bound}")),
        _ => {}
    }
    match schema.minimum {
        Some((bound, true)) if value <= bound => fail(format!("greater than {bound}")),
        Some((bound, false)) if value < bound => fail(format!("greater than or equal to {bound}")),
        _ => {}
    }
    if let Some(factor) = schema.multiple_of.filter(|&factor| factor > 0.0)
        && (value / factor).fract() != 0.0
    {
        fail(format!("a multiple of {factor}"));
    }
    let fits = match schema.format.as_str() {
        "int32" => {
            number.as_i64().is_none_or(|number| i32::try_from(number).is_ok()) && !number.is_u64()
                || number
                    .as_u64()
                    .is_some_and(|number| i32::try_from(number).is_ok())
        }
        "int64" => !is_whole(number) || number.is_i64() || value.abs() < 9.2e18,
        _ => true,
    };
    if !fits {
        let format = &schema.format;
        faults.invalid(
            place,
            Value::Number(number.clone()),
            &format!("Checked value must be {place} with format {format}"),
        );
    }
}

fn check_list(schema: &Schema, list: &[Value], old: Option<&Value>, place: &Place<'_>, faults: &mut Faults) {
    let items = schema.items.as_deref();
    for (index, item) in list.iter().enumerate() {
        let Some(items) = items else { break };
        let before = old_item(schema, item, old);
        check_at(items, item, before, &place.index(index), faults);
    }
    let count = list.len() as u64;
    check_count(schema.items_count, count, "items", place, faults);
    if schema.unique_items && (1..list.len()).any(|index| list[..index].contains(&list[index])) {
        faults.invalid(
            place,
            Value::Array(list.to_vec()),
            &format!("{place} in body shouldn't contain duplicates"),
        );
    }
}

/// The element that an element of a list was before: only maps say which it is.
pub(super) fn old_item<'v>(schema: &Schema, item: &Value, old: Option<&'v Value>) -> Option<&'v Value> {
    let (Some(ListKind::Map(keys)), Some(Value::Array(old))) = (&schema.list_kind, old) else {
        return None;
    };
    let key = list_types::key_of(keys, schema, item);
    let mut same = old
        .iter()
        .filter(|before| list_types::key_of(keys, schema, before) == key);
    same.next().filter(|_| same.next().is_none())
}

fn check_count(bounds: Bounds, count: u64, what: &str, place: &Place<'_>, faults: &mut Faults) {
    if let Some(max) = bounds.max.filter(|&max| count > max) {
        faults.too_many(place, count, max);
    }
    if let Some(min) = bounds.min.filter(|&min| count < min) {
        faults.invalid(
            place,
            count,
            &format!("{place} in body should have at least {min} {what}"),
        );
    }
}

fn check_object(schema: &Schema, new: &Value, old: Option<&Value>, place: &Place<'_>, faults: &mut Faults) {
    let Some(map) = new.as_object() else { return };
    let is_root = place.to_string().is_empty();
    if schema.embedded && !is_root {
        for name in ["apiVersion", "kind"] {
            if map
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .is_empty()
            {
                faults.required(&place.field(name), "must not be empty");
            }
        }
    }
    for name in schema.required.iter().filter(|name| !map.contains_key(*name)) {
        faults.required(&place.field(name), "");
    }
    for (name, value) in map {
        // Metadata has rules of its own; a schema may add some for the name.
        if let Some(field) = schema.field(name) {
            let before = old.and_then(|old| old.get(name));
            check_at(field, value, before, &place.field(name), faults);
        }
    }
    check_count(
        schema.properties_count,
        map.len() as u64,
        "properties",
        place,
        faults,
    );
}

/// How many faults a value has under a schema, and which.
fn faults_of(schema: &Schema, value: &Value, place: &Place<'_>) -> Vec<Cause> {
    let mut faults = Faults::default();
    check_at(schema, value, None, place, &mut faults);
    faults.into_causes()
}

fn check_junctors(schema: &Schema, value: &Value, place: &Place<'_>, faults: &mut Faults) {
    let path = place.to_string();
    if !schema.any_of.is_empty() {
        let mut failed: Vec<Vec<Cause>> = schema
            .any_of
            .iter()
            .map(|one| faults_of(one, value, place))
            .collect();
        if !failed.iter().any(Vec::is_empty) {
            faults.of_whole(&format!("{path:?} must validate at least one schema (anyOf)"));
            faults.extend(closest(&mut failed));
        }
    }
    if !schema.one_of.is_empty() {
        let mut failed: Vec<Vec<Cause>> = schema
            .one_of
            .iter()
            .map(|one| faults_of(one, value, place))
            .collect();
        let held = failed.iter().filter(|faults| faults.is_empty()).count();
        if held != 1 {
            let found = if held == 0 {
                "Found none valid".to_owned()
            } else {
                format!("Found {held} valid alternatives")
            };
            faults.of_whole(&format!(
                "{path:?} must validate one and only one schema (oneOf). {found}"
            ));
        }
        if held == 0 {
            faults.extend(closest(&mut failed));
        }
    }
    if !schema.all_of.is_empty() {
        let failed: Vec<Vec<Cause>> = schema
            .all_of
            .iter()
            .map(|one| faults_of(one, value, place))
            .collect();
        let held = failed.iter().filter(|faults| faults.is_empty()).count();
        faults.extend(failed.into_iter().flatten().collect());
        if held < schema.all_of.len() {
            let none = if held == 0 { ". None validated" } else { "" };
            faults.of_whole(&format!("{path:?} must validate all the schemas (allOf){none}"));
        }
    }
    if let Some(not) = &schema.not
        && faults_of(not, value, place).is_empty()
    {
        faults.of_whole(&format!("{path:?} must not validate the schema (not)"));
    }
}

/// The faults under the alternative that was missed by least.
fn closest(failed: &mut [Vec<Cause>]) -> Vec<Cause> {
    failed
        .iter_mut()
        .min_by_key(|faults| faults.len())
        .map(std::mem::take)
        .unwrap_or_default()
}

/// Sets and maps have each element once.
fn check_lists(schema: &Schema, new: &Value, old: Option<&Value>, place: &Place<'_>, faults: &mut Faults) {
    if old == Some(new) {
        return;
    }
    match new {
        Value::Array(list) => {
            if let Some(kind) = &schema.list_kind {
                list_types::check(kind, schema, list, place, faults);
            }
            let Some(items) = schema.items.as_deref() else {
                return;
            };
            for (index, item) in list.iter().enumerate() {
                check_lists(
                    items,
                    item,
                    old_item(schema, item, old),
                    &place.index(index),
                    faults,
                );
            }
        }
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(field) = schema.field(name) {
                    check_lists(
                        field,
                        value,
                        old.and_then(|old| old.get(name)),
                        &place.field(name),
                        faults,
                    );
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;

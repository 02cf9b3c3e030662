//! Lists that are sets or maps have each element once.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::structural::{ListKind, Schema};
use crate::place::Place;
use crate::validation::faults::Faults;

/// Finds elements that are twice in a set or map.
pub(super) fn check(
    kind: &ListKind,
    schema: &Schema,
    list: &[Value],
    place: &Place<'_>,
    faults: &mut Faults,
) {
    match kind {
        ListKind::Atomic => {}
        ListKind::Set => {
            let mut seen = HashSet::new();
            for (index, item) in list.iter().enumerate() {
                if !seen.insert(item.to_string()) {
                    faults.duplicate(&place.index(index), item.clone());
                }
            }
        }
        ListKind::Map(keys) => {
            let mut seen = HashSet::new();
            for (index, item) in list.iter().enumerate() {
                let key = key_of(keys, schema, item);
                if !seen.insert(Value::Object(key.clone()).to_string()) {
                    faults.duplicate(&place.index(index), Value::Object(key));
                }
            }
        }
    }
}

/// The fields by which an element is known; absent ones are left out.
pub(super) fn key_of(keys: &[String], _schema: &Schema, item: &Value) -> Map<String, Value> {
    let field = |key: &String| item.get(key).map(|value| (key.clone(), value.clone()));
    keys.iter().filter_map(field).collect()
}

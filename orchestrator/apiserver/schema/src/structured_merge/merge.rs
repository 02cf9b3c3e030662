//! One object laid over another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::items::element_of;
use super::{Fault, Faults, Shape, is_hollow, shape_of_both};
use crate::fields_v1::{Element, Path};
use crate::merge_schema::{ListRule, MergeSchema};

/// Lays `new` over `old`: what `new` has is taken from there, all else stays. Elements of sets and keyed lists that
/// both have are merged; the order is that of `new`, with elements only `old` has kept in their places.
///
/// # Errors
/// Elements that can't be told apart.
pub fn merge<'s, S: MergeSchema<'s>>(schema: S, old: &Value, new: &Value) -> Result<Value, Faults> {
    let mut walk = Walk {
        path: Path::default(),
        faults: Vec::new(),
    };
    let merged = walk.value(Some(schema), Some(old), Some(new));
    if walk.faults.is_empty() {
        Ok(merged.unwrap_or(Value::Null))
    } else {
        Err(Faults(walk.faults))
    }
}

struct Walk {
    path: Path,
    faults: Vec<Fault>,
}

impl Walk {
    fn fault(&mut self, why: String) {
        self.faults.push(Fault {
            path: self.path.to_string(),
            why,
        });
    }

    fn value<'s, S: MergeSchema<'s>>(
        &mut self,
        schema: Option<S>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Option<Value> {
        let is_leaf = is_hollow(old) && is_hollow(new);
        match schema.map(|schema| (schema, shape_of_both(schema.forms(), old, new))) {
            Some((schema, Shape::Map)) if !is_leaf => self.objects(schema, old, new),
            Some((schema, Shape::List(rule))) if !is_leaf => self.lists(schema, rule, old, new),
            _ => new.or(old).cloned(),
        }
    }

    fn inside<'s, S: MergeSchema<'s>>(
        &mut self,
        step: Element,
        schema: Option<S>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Option<Value> {
        self.path.0.push(step);
        let merged = self.value(schema, old, new);
        self.path.0.pop();
        merged
    }

    fn objects<'s, S: MergeSchema<'s>>(
        &mut self,
        schema: S,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Option<Value> {
        let empty = Map::new();
        let old = old.and_then(Value::as_object).unwrap_or(&empty);
        let new = new.and_then(Value::as_object).unwrap_or(&empty);
        let added = new.keys().filter(|name| !old.contains_key(*name));
        let mut merged = Map::new();
        for name in old.keys().chain(added) {
            let inner = schema.field(name).or_else(|| schema.entry());
            if let Some(value) = self.inside(Element::field(name), inner, old.get(name), new.get(name)) {
                merged.insert(name.clone(), value);
            }
        }
        (!merged.is_empty()).then_some(Value::Object(merged))
    }

    fn lists<'s, S: MergeSchema<'s>>(
        &mut self,
        schema: S,
        rule: ListRule,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Option<Value> {
        let old = self.index(schema, rule, old);
        let new = self.index(schema, rule, new);
        if let Some(step) = new.first_double() {
            self.fault(format!("duplicate entries for key {step}"));
            return None;
        }
        let mut merged = Vec::with_capacity(old.items.len().max(new.items.len()));
        for (step, only_old) in order(&old, &new) {
            let (old_item, new_item) = match only_old {
                // Taken by its place, as it may stand there twice.
                Some(at) => (Some(old.items[at].1), None),
                None => (old.single(step), new.single(step)),
            };
            merged.extend(self.inside(step.clone(), Some(schema.element()), old_item, new_item));
        }
        (!merged.is_empty()).then_some(Value::Array(merged))
    }

    fn index<'s, 'v, S: MergeSchema<'s>>(
        &mut self,
        schema: S,
        rule: ListRule,
        list: Option<&'v Value>,
    ) -> Indexed<'v> {
        let mut indexed = Indexed::default();
        let items = list.and_then(Value::as_array).into_iter().flatten();
        for (index, item) in items.enumerate() {
            match element_of(schema, rule, item) {
                Ok(step) => {
                    let places = indexed.places.entry(step.clone()).or_default();
                    places.push(indexed.items.len());
                    indexed.items.push((step, item));
                }
                Err(why) => self.fault(format!("element {index}: {why}")),
            }
        }
        indexed
    }
}

/// A list with the places of its elements.
#[derive(Default)]
struct Indexed<'v> {
    items: Vec<(Element, &'v Value)>,
    places: BTreeMap<Element, Vec<usize>>,
}

impl<'v> Indexed<'v> {
    fn has(&self, step: &Element) -> bool {
        self.places.contains_key(step)
    }

    /// The element, if it stands there once.
    fn single(&self, step: &Element) -> Option<&'v Value> {
        match self.places.get(step).map(Vec::as_slice) {
            Some([at]) => Some(self.items[*at].1),
            _ => None,
        }
    }

    fn first_double(&self) -> Option<&Element> {
        let double = self.places.iter().find(|(_, at)| at.len() > 1);
        double.map(|(step, _)| step)
    }
}

/// The order of a merged list: the new list's, in which an element that only the old list has comes before the shared
/// one that followed it. For each element its place in the old list, if only that has it.
fn order<'i>(old: &'i Indexed<'_>, new: &'i Indexed<'_>) -> Vec<(&'i Element, Option<usize>)> {
    let mut order = Vec::with_capacity(old.items.len() + new.items.len());
    let shared = new.items.iter().map(|(step, _)| step);
    let mut shared = shared.filter(|step| old.has(step)).peekable();
    let mut merged: BTreeSet<&Element> = BTreeSet::new();
    let (mut left, mut right) = (0, 0);
    while left < old.items.len() || right < new.items.len() {
        let from_old = old.items.get(left).map(|(step, _)| step);
        let from_new = new.items.get(right).map(|(step, _)| step);
        if let (Some(a), Some(b)) = (from_old, from_new) {
            if a == b {
                merged.insert(b);
                order.push((b, None));
                (left, right) = (left + 1, right + 1);
                shared.next();
                continue;
            }
            // It is shared, but another shared one has to come first.
            if new.has(a) && shared.peek().is_some_and(|next| *next != a) {
                left += 1;
                continue;
            }
        }
        if let Some(a) = from_old {
            if !new.has(a) {
                order.push((a, Some(left)));
                left += 1;
                continue;
            }
            if merged.contains(a) {
                left += 1;
            }
        }
        if let Some(b) = from_new {
            merged.insert(b);
            order.push((b, None));
            right += 1;
            shared.next_if(|next| *next == b);
        }
    }
    order
}

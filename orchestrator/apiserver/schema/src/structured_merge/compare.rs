//! Which fields a change touches.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Shape, is_hollow, items, shape_of_both};
use crate::fields_v1::{Branch, Element, Set, values_equal};
use crate::merge_schema::{ListRule, MergeSchema};

/// What differs between two objects. No field is in two of the sets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Comparison {
    /// Only the new object has them.
    pub added: Set,
    /// Both have them, with different values.
    pub modified: Set,
    /// Only the old object has them.
    pub removed: Set,
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// The comparison without some fields and all below them.
    #[must_use]
    pub fn without(self, fields: &Set) -> Comparison {
        if fields.is_empty() || self.is_same() {
            return self;
        }
        Comparison {
            added: self.added.difference_below(fields),
            modified: self.modified.difference_below(fields),
            removed: self.removed.difference_below(fields),
        }
    }

    /// What the new object has otherwise than the old one.
    #[must_use]
    pub fn changed(&self) -> Set {
        self.added.union(&self.modified)
    }
}

/// Compares two objects; an absent one has no fields. Elements that stand twice in a list are compared as one field.
#[must_use]
pub fn compare<'s, S: MergeSchema<'s>>(schema: S, old: Option<&Value>, new: Option<&Value>) -> Comparison {
    let found = values(Some(schema), old, new);
    Comparison {
        added: found.added.below,
        modified: found.modified.below,
        removed: found.removed.below,
    }
}

/// What differs at and below one path.
#[derive(Default)]
struct Delta {
    added: Branch,
    modified: Branch,
    removed: Branch,
}

impl Delta {
    fn modified(is_member: bool) -> Delta {
        let modified = Branch {
            is_member,
            below: Set::default(),
        };
        Delta {
            modified,
            ..Delta::default()
        }
    }

    /// Takes in what differs below one step.
    fn take(&mut self, step: impl Fn() -> Element, inner: Delta) {
        self.added.below.push(&step, inner.added);
        self.modified.below.push(&step, inner.modified);
        self.removed.below.push(&step, inner.removed);
    }
}

fn values<'s, S: MergeSchema<'s>>(schema: Option<S>, old: Option<&Value>, new: Option<&Value>) -> Delta {
    let is_leaf = is_hollow(old) && is_hollow(new);
    let mut delta = match schema.map(|schema| (schema, shape_of_both(schema.forms(), old, new))) {
        Some((schema, Shape::Map)) if !is_leaf => objects(schema, old, new),
        Some((schema, Shape::List(rule))) if !is_leaf => lists(schema, rule, old, new),
        _ => {
            Delta::modified(matches!((old, new), (Some(old), Some(new)) if !is_same_value(schema, old, new)))
        }
    };
    delta.added.is_member |= old.is_none();
    delta.removed.is_member |= old.is_some() && new.is_none();
    delta
}

/// Whether two objects are the same: what one leaves out, and is implied, the other may state.
#[must_use]
pub fn is_same<'s, S: MergeSchema<'s>>(schema: S, old: &Value, new: &Value) -> bool {
    is_same_value(Some(schema), old, new)
}

fn is_same_value<'s, S: MergeSchema<'s>>(schema: Option<S>, old: &Value, new: &Value) -> bool {
    match (schema, old, new) {
        (Some(schema), Value::Object(a), Value::Object(b)) => {
            let implied = schema.implied();
            let mut names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            names.all(|name| {
                let always = implied
                    .iter()
                    .find(|(other, _)| other == name)
                    .map(|(_, value)| value);
                let inner = schema.field(name).or_else(|| schema.entry());
                match (a.get(name).or(always), b.get(name).or(always)) {
                    (Some(old), Some(new)) => is_same_value(inner, old, new),
                    _ => false,
                }
            })
        }
        (Some(schema), Value::Array(a), Value::Array(b)) if schema.forms().list.is_some() => {
            let element = Some(schema.element());
            a.len() == b.len() && a.iter().zip(b).all(|(old, new)| is_same_value(element, old, new))
        }
        _ => values_equal(old, new),
    }
}

/// Both objects are sorted by name, so they are walked side by side. Fields that are implied are there in an object
/// that doesn't write them, but not in an object that isn't there.
fn objects<'s, S: MergeSchema<'s>>(schema: S, old: Option<&Value>, new: Option<&Value>) -> Delta {
    let empty = Map::new();
    let fields = |value: Option<&'_ Value>| value.and_then(Value::as_object).is_some();
    let (has_old, has_new) = (fields(old), fields(new));
    let old = old.and_then(Value::as_object).unwrap_or(&empty);
    let new = new.and_then(Value::as_object).unwrap_or(&empty);
    let (mut left, mut right) = (old.iter().peekable(), new.iter().peekable());
    let mut implied = schema.implied().iter().peekable();
    let mut delta = Delta::default();
    loop {
        let names = [
            left.peek().map(|(name, _)| name.as_str()),
            right.peek().map(|(name, _)| name.as_str()),
            implied.peek().map(|(name, _)| *name),
        ];
        let Some(name) = names.into_iter().flatten().min() else {
            return delta;
        };
        let old = left.next_if(|(other, _)| *other == name).map(|(_, value)| value);
        let new = right.next_if(|(other, _)| *other == name).map(|(_, value)| value);
        let always = implied
            .next_if(|(other, _)| *other == name)
            .map(|(_, value)| value);
        let old = old.or(always.filter(|_| has_old));
        let new = new.or(always.filter(|_| has_new));
        let inner = schema.field(name).or_else(|| schema.entry());
        delta.take(|| Element::field(name), values(inner, old, new));
    }
}

fn lists<'s, S: MergeSchema<'s>>(
    schema: S,
    rule: ListRule,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Delta {
    let mut delta = Delta::default();
    if old == new {
        return delta;
    }
    let mut elements: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for (step, item) in items::steps(schema, rule, old) {
        elements.entry(step).or_default().0.push(item);
    }
    for (step, item) in items::steps(schema, rule, new) {
        elements.entry(step).or_default().1.push(item);
    }
    let element = Some(schema.element());
    for (step, (old, new)) in elements {
        let (first_old, first_new) = (old.first().copied(), new.first().copied());
        let inner = match (old.len(), new.len()) {
            (0 | 1, 0 | 1) => values(element, first_old, first_new),
            (2.., 2..) => Delta::modified(old != new),
            // The double is gone; what is left of it is new.
            (2.., _) => {
                let mut inner = first_new.map_or_else(Delta::default, |new| values(element, None, Some(new)));
                inner.removed.is_member = true;
                inner
            }
            (_, 2..) => {
                let mut inner = first_old.map_or_else(Delta::default, |old| values(element, Some(old), None));
                inner.added.is_member = true;
                inner
            }
        };
        delta.take(|| step.clone(), inner);
    }
    delta
}

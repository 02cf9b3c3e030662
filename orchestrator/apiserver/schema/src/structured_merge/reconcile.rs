//! Owned fields after a schema changed: where a list or object became atomic, its owners own it as a whole.

use crate::fields_v1::{Branch, Element, Set};
use crate::merge_schema::{ListRule, MapRule, MergeSchema};

/// The fields an owner has under a schema, given those it had when they were written. Changes from granular to atomic
/// are followed; the other way round needs nothing.
#[must_use]
pub fn reconcile<'s, S: MergeSchema<'s>>(schema: S, fields: &Set) -> Set {
    let mut found = Set::default();
    for (step, branch) in fields.branches() {
        found.push(|| step.clone(), inside(schema, step, branch));
    }
    found
}

fn inside<'s, S: MergeSchema<'s>>(schema: S, step: &Element, branch: &Branch) -> Branch {
    let forms = schema.forms();
    let inner = match step {
        Element::Field(name) if forms.map.is_some() => schema.field(name).or_else(|| schema.entry()),
        Element::Key(_) | Element::Value(_) if forms.list.is_some() => Some(schema.element()),
        Element::Field(_) | Element::Key(_) | Element::Value(_) | Element::Index(_) => None,
    };
    let Some(inner) = inner.filter(|_| !branch.below.is_empty()) else {
        return branch.clone();
    };
    let forms = inner.forms();
    // Without a schema nothing says what became atomic.
    let is_untyped = forms.scalar.is_some() && forms.list.is_some() && forms.map.is_some();
    let is_atomic = match (forms.map, forms.list) {
        (Some(rule), _) => rule == MapRule::Atomic,
        (None, Some(rule)) => rule == ListRule::Atomic,
        (None, None) => false,
    };
    if is_atomic && !is_untyped {
        return Branch::leaf();
    }
    Branch {
        is_member: branch.is_member,
        below: reconcile(inner, &branch.below),
    }
}

//! Whether an object is as its schema says.

use std::collections::BTreeSet;

use serde_json::Value;

use super::items::element_of;
use super::{Fault, Faults};
use crate::fields_v1::{Element, Path};
use crate::merge_schema::{Forms, ListRule, MergeSchema, Scalar};

/// Checks an object that is to be applied: fields are declared, values have their forms, elements of sets and keyed
/// lists have their keys and stand there once.
///
/// # Errors
/// All faults, each with its path.
pub fn check<'s, S: MergeSchema<'s>>(schema: S, value: &Value) -> Result<(), Faults> {
    let mut walk = Walk {
        path: Path::default(),
        faults: Vec::new(),
    };
    walk.value(schema, value);
    if walk.faults.is_empty() {
        Ok(())
    } else {
        Err(Faults(walk.faults))
    }
}

struct Walk {
    path: Path,
    faults: Vec<Fault>,
}

impl Walk {
    fn fault(&mut self, why: impl Into<String>) {
        self.faults.push(Fault {
            path: self.path.to_string(),
            why: why.into(),
        });
    }

    fn inside<'s, S: MergeSchema<'s>>(&mut self, step: Element, schema: S, value: &Value) {
        self.path.0.push(step);
        self.value(schema, value);
        self.path.0.pop();
    }

    fn value<'s, S: MergeSchema<'s>>(&mut self, schema: S, value: &Value) {
        let forms = schema.forms();
        match (value, forms) {
            // It stands for the absence of whatever belongs here.
            (Value::Null, _) => {}
            (Value::Object(object), Forms { map: Some(_), .. }) => self.fields(schema, object),
            (Value::Array(items), Forms { list: Some(rule), .. }) => self.items(schema, rule, items),
            (
                found,
                Forms {
                    map: Some(_),
                    scalar: None,
                    ..
                },
            ) => {
                self.fault(format!("expected map, got {}", shown(found)));
            }
            (
                found,
                Forms {
                    scalar: Some(scalar), ..
                },
            ) => self.scalar(scalar, found),
            (found, _) => self.fault(format!("expected list, got {}", shown(found))),
        }
    }

    fn fields<'s, S: MergeSchema<'s>>(&mut self, schema: S, object: &serde_json::Map<String, Value>) {
        for (name, value) in object {
            let step = Element::field(name);
            if let Some(inner) = schema.field(name).or_else(|| schema.entry()) {
                self.inside(step, inner, value);
            } else {
                self.path.0.push(step);
                self.fault("field not declared in schema");
                self.path.0.pop();
            }
        }
    }

    fn scalar(&mut self, scalar: Scalar, value: &Value) {
        let (fits, expected) = match scalar {
            Scalar::Text => (value.is_string(), "string"),
            Scalar::Number => (value.is_number(), "numeric (int or float)"),
            Scalar::Boolean => (value.is_boolean(), "boolean"),
            Scalar::Any => (!value.is_object() && !value.is_array(), "any scalar"),
        };
        if !fits {
            self.fault(format!("expected {expected}, got {}", shown(value)));
        }
    }

    fn items<'s, S: MergeSchema<'s>>(&mut self, schema: S, rule: ListRule, items: &[Value]) {
        let mut seen = BTreeSet::new();
        for (index, item) in (0i64..).zip(items) {
            let step = match rule {
                ListRule::Atomic => Element::Index(index),
                ListRule::Set | ListRule::Keyed => match element_of(schema, rule, item) {
                    Ok(step) => step,
                    // Without its step nothing below can be named.
                    Err(why) => return self.fault(format!("element {index}: {why}")),
                },
            };
            if rule != ListRule::Atomic && !seen.insert(step.clone()) {
                self.fault(format!("duplicate entries for key {step}"));
            }
            self.inside(step, schema.element(), item);
        }
    }
}

/// A value as messages show it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

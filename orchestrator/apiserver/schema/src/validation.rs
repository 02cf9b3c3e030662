//! Whether an object, or a change of one, is allowed; upstream's rules in upstream's words.

use serde_json::Value;

use crate::registry::{Gvk, Registry};

/// One fault of an object: goes into `details.causes` of a 422 answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cause {
    /// Such as `FieldValueRequired`.
    pub reason: &'static str,
    /// Such as `Required value: must be set`.
    pub message: String,
    /// Such as `spec.accessModes`.
    pub field: String,
}

/// All faults of an object to be created; empty if it is allowed.
#[must_use]
pub fn create(registry: &Registry, gvk: Gvk<'_>, object: &Value) -> Vec<Cause> {
    let _ = (registry, gvk, object);
    Vec::new()
}

/// All faults of a change of the main resource; `new` as it would be stored.
#[must_use]
pub fn update(registry: &Registry, gvk: Gvk<'_>, old: &Value, new: &Value) -> Vec<Cause> {
    let _ = (registry, gvk, old, new);
    Vec::new()
}

/// All faults of a change through the status subresource; `new` as it would be stored.
#[must_use]
pub fn status_update(registry: &Registry, gvk: Gvk<'_>, old: &Value, new: &Value) -> Vec<Cause> {
    let _ = (registry, gvk, old, new);
    Vec::new()
}

/// The message of a 422 answer: `Pod "x" is invalid: spec.containers: Required value`, several causes in brackets.
#[must_use]
pub fn summary(kind: &str, name: &str, causes: &[Cause]) -> String {
    let texts: Vec<String> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    let joined = if texts.len() == 1 {
        texts.concat()
    } else {
        format!("[{}]", texts.join(", "))
    };
    format!("{kind} {name:?} is invalid: {joined}")
}

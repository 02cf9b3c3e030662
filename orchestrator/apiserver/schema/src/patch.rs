//! Patches on trees: strategic merge patch and JSON merge patch.

mod strategic;

use serde_json::Value;

use crate::registry::{Registry, TypeId};

/// Why a strategic merge patch can't be applied (400 Bad Request).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PatchError {
    /// Patch or base is no object where one is needed.
    #[error("expected an object at {path:?}")]
    NotAnObject {
        /// Where.
        path: String,
    },
    /// An element of a list lacks the key by which elements are matched.
    #[error("an element of {path:?} does not contain declared merge key: {key}")]
    MissingMergeKey {
        /// The list.
        path: String,
        /// The key.
        key: &'static str,
    },
    /// A value of `$patch` that isn't known.
    #[error("unknown patch directive {directive} at {path:?}")]
    UnknownDirective {
        /// Where.
        path: String,
        /// What stands there.
        directive: String,
    },
    /// A directive's value has the wrong form.
    #[error("{directive} at {path:?} must be a list of {expected}")]
    MalformedDirective {
        /// Where.
        path: String,
        /// Such as `$retainKeys`.
        directive: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// `$retainKeys` doesn't name a field that the patch sets.
    #[error("$retainKeys at {path:?} doesn't contain {field:?}, which is in the patch")]
    NotRetained {
        /// Where.
        path: String,
        /// The field.
        field: String,
    },
}

/// Applies a strategic merge patch with all directives: `$patch`, `$retainKeys`, `$setElementOrder/<list>`,
/// `$deleteFromPrimitiveList/<list>`. Fields that the type doesn't know are merged like JSON: the result is still to
/// be checked with [`crate::decode::value`].
///
/// # Errors
/// [`PatchError`]: the patch is malformed.
pub fn strategic_merge(
    registry: &Registry,
    type_id: TypeId,
    base: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    strategic::merge(registry, type_id, base, patch)
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

#[cfg(test)]
mod tests;

//! What a failed write means for the one who tried it.

use kube::core::Status;
use thiserror::Error;

/// The class of a failed write.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    /// The object has changed since it was read, or already is what was to be made: look again.
    #[error("the object has changed meanwhile")]
    Conflict,
    /// The object is gone.
    #[error("the object is gone")]
    Gone,
    /// Anything else; the write may or may not have happened.
    #[error(transparent)]
    Other(kube::Error),
}

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if is_conflict(status) => WriteError::Conflict,
            kube::Error::Api(status) if status.code == 404 => WriteError::Gone,
            _ => WriteError::Other(error),
        }
    }
}

/// A guarded JSON patch whose `test` fails is answered with 422: upstream names no cause then, Moorline's API server
/// names the patch. A refused value has its field as cause.
fn is_conflict(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let is_patch_failed = causes.into_iter().all(|cause| cause.field == "patch");
    status.code == 409 || (status.code == 422 && is_patch_failed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conflicts_are_told_from_refusals() {
        let cases = [
            ("version", json!({"code": 409}), true),
            (
                "failed test, upstream",
                json!({"code": 422, "reason": "Invalid", "details": {}}),
                true,
            ),
            (
                "failed test, ours",
                json!({"code": 422, "details": {"causes": [{"field": "patch"}]}}),
                true,
            ),
            (
                "refused value",
                json!({"code": 422, "details": {"causes": [{"field": "spec.capacity"}]}}),
                false,
            ),
            ("forbidden", json!({"code": 403}), false),
        ];
        for (name, status, expected) in cases {
            assert_eq!(
                is_conflict(&serde_json::from_value(status).unwrap()),
                expected,
                "{name}"
            );
        }
    }
}

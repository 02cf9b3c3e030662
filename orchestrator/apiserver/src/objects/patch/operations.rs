//! JSON patches as the reference server applies them: it knows fewer missing members than RFC 6902.

use json_patch::{AddOperation, PatchErrorKind, PatchOperation};
use serde_json::Value;

/// An operation that can't be done, by its place in the patch. Its value isn't told: it may be secret.
#[derive(Debug, thiserror::Error)]
#[error("operation {index} at path {path:?}: {kind}")]
pub(super) struct OperationError {
    index: usize,
    path: String,
    kind: PatchErrorKind,
}

/// Does the operations one after another. When one fails, those before it are done.
pub(super) fn apply(object: &mut Value, patch: &json_patch::Patch) -> Result<(), OperationError> {
    for (index, operation) in patch.0.iter().enumerate() {
        let lenient = lenient(object, operation);
        let Some(operation) = lenient.as_ref().map_or(Some(operation), Option::as_ref) else {
            continue;
        };
        json_patch::patch(object, std::slice::from_ref(operation)).map_err(|error| OperationError {
            index,
            path: error.path.to_string(),
            kind: error.kind,
        })?;
    }
    Ok(())
}

/// What stands for an operation on a member that its object doesn't have: one is added where it should be replaced, and
/// it equals null where it is tested. Nothing if the operation stands as it is.
fn lenient(object: &Value, operation: &PatchOperation) -> Option<Option<PatchOperation>> {
    let path = operation.path();
    let (parent, _) = path.as_str().rsplit_once('/')?;
    let is_missing_member =
        object.pointer(parent).is_some_and(Value::is_object) && object.pointer(path.as_str()).is_none();
    match operation {
        PatchOperation::Replace(replace) if is_missing_member => {
            Some(Some(PatchOperation::Add(AddOperation {
                path: replace.path.clone(),
                value: replace.value.clone(),
            })))
        }
        PatchOperation::Test(test) if is_missing_member && test.value.is_null() => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_that_are_missing() {
        let base = json!({"metadata": {"name": "a", "finalizers": ["f"]}});
        let cases = [
            (
                "replace adds it",
                json!([{"op": "replace", "path": "/metadata/annotations", "value": {"k": "v"}}]),
                Some(json!({"metadata": {"name": "a", "finalizers": ["f"], "annotations": {"k": "v"}}})),
            ),
            (
                "replace changes what is there",
                json!([{"op": "replace", "path": "/metadata/name", "value": "b"}]),
                Some(json!({"metadata": {"name": "b", "finalizers": ["f"]}})),
            ),
            (
                "replace in what an operation before it added",
                json!([{"op": "add", "path": "/metadata/labels", "value": {}},
                    {"op": "replace", "path": "/metadata/labels/a~1b", "value": "c"}]),
                Some(json!({"metadata": {"name": "a", "finalizers": ["f"], "labels": {"a/b": "c"}}})),
            ),
            (
                "replace below a missing object",
                json!([{"op": "replace", "path": "/metadata/labels/a", "value": "b"}]),
                None,
            ),
            (
                "replace behind a list's end",
                json!([{"op": "replace", "path": "/metadata/finalizers/1", "value": "g"}]),
                None,
            ),
            (
                "test for null",
                json!([{"op": "test", "path": "/status", "value": null}]),
                Some(base.clone()),
            ),
            (
                "test for a value",
                json!([{"op": "test", "path": "/status", "value": {}}]),
                None,
            ),
            ("remove", json!([{"op": "remove", "path": "/status"}]), None),
            (
                "remove behind a list's end",
                json!([{"op": "remove", "path": "/metadata/finalizers/1"}]),
                None,
            ),
        ];
        for (case, patch, expected) in cases {
            let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
            let mut object = base.clone();
            let outcome = apply(&mut object, &patch).map(|()| object);
            assert_eq!(outcome.ok(), expected, "{case}");
        }
    }

    #[test]
    fn the_error_names_the_operation() {
        let patch = json!([{"op": "test", "path": "/a", "value": 1}, {"op": "remove", "path": "/b"}]);
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        let error = apply(&mut json!({"a": 1}), &patch).unwrap_err().to_string();
        assert_eq!(error, "operation 1 at path \"/b\": path is invalid");
    }
}

//! Adds and removes single finalizers without touching those of others.
//!
//! The patches test what they rest on, so a stale view makes them fail instead of undoing somebody else's change. The
//! UID is tested too: the name may meanwhile belong to another object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Patch;
use serde_json::{Value, json};

/// Whether the object carries the finalizer.
pub(crate) fn is_present(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|held| held == finalizer)
}

/// The operations that append `finalizer`.
pub(crate) fn addition(meta: &ObjectMeta, finalizer: &str) -> Value {
    let held = meta.finalizers.as_deref().unwrap_or_default();
    let uid = json!({"op": "test", "path": "/metadata/uid", "value": meta.uid});
    if held.is_empty() {
        // Made by two at once, the later one would wipe out the earlier one's: the version guards against that.
        let version =
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": meta.resource_version});
        let add = json!({"op": "add", "path": "/metadata/finalizers", "value": [finalizer]});
        return json!([uid, version, add]);
    }
    json!([uid, {"op": "add", "path": "/metadata/finalizers/-", "value": finalizer}])
}

/// The operations that remove `finalizer`, if the object carries it.
pub(crate) fn removal(meta: &ObjectMeta, finalizer: &str) -> Option<Value> {
    let held = meta.finalizers.as_deref().unwrap_or_default();
    let place = held.iter().position(|held| held == finalizer)?;
    let path = format!("/metadata/finalizers/{place}");
    Some(json!([
        {"op": "test", "path": "/metadata/uid", "value": meta.uid},
        {"op": "test", "path": path, "value": finalizer},
        {"op": "remove", "path": path},
    ]))
}

/// A list of operations as a patch.
pub(crate) fn json_patch<K: serde::Serialize>(operations: Value) -> Patch<K> {
    Patch::Json(serde_json::from_value(operations).expect("operations are made above, well-formed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(finalizers: &[&str]) -> ObjectMeta {
        ObjectMeta {
            uid: Some("u".to_string()),
            resource_version: Some("7".to_string()),
            finalizers: Some(finalizers.iter().map(|f| f.to_string()).collect()),
            ..Default::default()
        }
    }

    #[test]
    fn removal_names_the_place_and_tests_it() {
        let expected = json!([
            {"op": "test", "path": "/metadata/uid", "value": "u"},
            {"op": "test", "path": "/metadata/finalizers/1", "value": "b"},
            {"op": "remove", "path": "/metadata/finalizers/1"},
        ]);
        assert_eq!(removal(&meta(&["a", "b"]), "b"), Some(expected));
        assert_eq!(removal(&meta(&["a"]), "b"), None);
        assert_eq!(removal(&ObjectMeta::default(), "b"), None);
    }

    #[test]
    fn addition_appends_or_makes_the_list() {
        let appended = addition(&meta(&["a"]), "b");
        assert_eq!(
            appended[1],
            json!({"op": "add", "path": "/metadata/finalizers/-", "value": "b"})
        );
        let made = addition(&meta(&[]), "b");
        assert_eq!(
            made[1],
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"})
        );
        assert_eq!(
            made[2],
            json!({"op": "add", "path": "/metadata/finalizers", "value": ["b"]})
        );
    }
}

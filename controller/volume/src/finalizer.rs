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

/// The operations that append all of `finalizers`, none of which the object carries.
pub(crate) fn additions(meta: &ObjectMeta, finalizers: &[&str]) -> Value {
    let held = meta.finalizers.as_deref().unwrap_or_default();
    let mut operations = vec![json!({"op": "test", "path": "/metadata/uid", "value": meta.uid})];
    if held.is_empty() {
        operations
            .push(json!({"op": "test", "path": "/metadata/resourceVersion", "value": meta.resource_version}));
        operations.push(json!({"op": "add", "path": "/metadata/finalizers", "value": finalizers}));
    } else {
        let appended = finalizers
            .iter()
            .map(|name| json!({"op": "add", "path": "/metadata/finalizers/-", "value": name}));
        operations.extend(appended);
    }
    Value::Array(operations)
}

/// The operations that remove those of `finalizers` that the object carries; `None` if it carries none of them.
pub(crate) fn removals(meta: &ObjectMeta, finalizers: &[&str]) -> Option<Value> {
    let held = meta.finalizers.as_deref().unwrap_or_default();
    let mut operations = vec![json!({"op": "test", "path": "/metadata/uid", "value": meta.uid})];
    // From the end, so that the places before it stay what they are.
    for (place, name) in held.iter().enumerate().rev() {
        if finalizers.contains(&name.as_str()) {
            let path = format!("/metadata/finalizers/{place}");
            operations.push(json!({"op": "test", "path": path, "value": name}));
            operations.push(json!({"op": "remove", "path": path}));
        }
    }
    (operations.len() > 1).then_some(Value::Array(operations))
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
    fn several_at_once() {
        let test = |place: u32, name: &str| json!({"op": "test", "path": format!("/metadata/finalizers/{place}"), "value": name});
        let remove = |place: u32| json!({"op": "remove", "path": format!("/metadata/finalizers/{place}")});
        let uid = json!({"op": "test", "path": "/metadata/uid", "value": "u"});
        let expected = json!([uid, test(2, "c"), remove(2), test(0, "a"), remove(0)]);
        assert_eq!(
            removals(&meta(&["a", "b", "c"]), &["a", "c", "d"]),
            Some(expected)
        );
        assert_eq!(removals(&meta(&["b"]), &["a"]), None);
        let append = |name: &str| json!({"op": "add", "path": "/metadata/finalizers/-", "value": name});
        assert_eq!(
            additions(&meta(&["z"]), &["a", "b"]),
            json!([uid, append("a"), append("b")])
        );
        assert_eq!(additions(&meta(&[]), &["a", "b"])[2]["value"], json!(["a", "b"]));
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

//! What happens to definitions before they are stored. Pure.

use moorline_schema::custom::{CLEANUP_FINALIZER, naming};
use serde_json::{Value, json};

use crate::objects::tree;

/// The status of a new definition: nothing but the version its objects will be stored in.
pub(super) fn first_status(object: &Value) -> Value {
    let mut status =
        json!({ "acceptedNames": { "kind": "", "plural": "" }, "conditions": [], "storedVersions": [] });
    add_storage_version(object, &mut status);
    status
}

/// Notes that objects may be stored in the definition's storage version from now on.
pub(super) fn note_storage_version(object: &mut Value) {
    let mut status = object["status"].clone();
    if !status.is_object() {
        status = first_status(object);
    }
    add_storage_version(object, &mut status);
    tree::map_mut(object, &[]).insert("status".to_owned(), status);
}

fn add_storage_version(object: &Value, status: &mut Value) {
    let mut versions = tree::list(object, &["spec", "versions"]).iter();
    let Some(storage) = versions.find(|version| version["storage"] == Value::Bool(true)) else {
        return;
    };
    if !status["storedVersions"].is_array() {
        status["storedVersions"] = json!([]);
    }
    if let Some(stored) = status["storedVersions"].as_array_mut()
        && !stored.contains(&storage["name"])
    {
        stored.push(storage["name"].clone());
    }
}

/// A deleted definition stays until its instances are gone, and says so.
pub(crate) fn mark_deleted(object: &mut Value) {
    let metadata = tree::map_mut(object, &["metadata"]);
    let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers
        .as_array_mut()
        .filter(|list| !list.contains(&json!(CLEANUP_FINALIZER)))
    {
        list.push(json!(CLEANUP_FINALIZER));
    }
    let now = tree::text(object, &["metadata", "deletionTimestamp"]).to_owned();
    let mut status = object["status"].clone();
    if !status.is_object() {
        status = first_status(object);
    }
    let message =
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon".to_owned();
    naming::set_condition(
        &mut status,
        ("Terminating", true, "InstanceDeletionPending", message),
        &now,
    );
    tree::map_mut(object, &[]).insert("status".to_owned(), status);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_versions_are_only_added() {
        let versions = |storage: &str| json!([{"name": "v1", "storage": storage == "v1"}, {"name": "v2", "storage": storage == "v2"}]);
        let mut object = json!({"spec": {"versions": versions("v1")}});
        object["status"] = first_status(&object);
        assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
        object["spec"]["versions"] = versions("v2");
        note_storage_version(&mut object);
        note_storage_version(&mut object);
        assert_eq!(object["status"]["storedVersions"], json!(["v1", "v2"]));
    }

    #[test]
    fn a_deleted_definition_waits_for_its_instances() {
        let mut object = json!({"metadata": {"deletionTimestamp": "t"}, "spec": {"versions": []}});
        mark_deleted(&mut object);
        mark_deleted(&mut object);
        assert_eq!(object["metadata"]["finalizers"], json!([CLEANUP_FINALIZER]));
        assert_eq!(
            object["status"]["conditions"][0]["reason"],
            "InstanceDeletionPending"
        );
        assert_eq!(object["status"]["conditions"].as_array().unwrap().len(), 1);
    }
}

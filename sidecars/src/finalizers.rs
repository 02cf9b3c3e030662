//! Adds and removes one finalizer without touching those of others: JSON patches guarded by `test`.
//!
//! Writing the whole list from a cached copy brings back finalizers that others have removed, which the API server
//! refuses on an object that is being deleted; the object then hangs. A guard that fails means: read again.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::{code, get, json_patch};

/// Times an object is read again because a guard failed.
const REREADS: u32 = 3;

/// [`add`] or [`remove`].
pub(crate) type Edit = fn(&ObjectMeta, &str) -> Option<Vec<Value>>;

/// What became of an object whose finalizers were edited.
#[derive(Debug)]
pub(crate) enum Edited<K> {
    /// It is as it was: nothing was to be done.
    Unchanged,
    Changed(K),
    /// Its last finalizer was taken, or somebody else was faster.
    Gone,
}

/// Edits one finalizer of `object`, reading it again when somebody else has changed the list meanwhile.
pub(crate) async fn apply<K>(
    client: &Client,
    object: &K,
    key: (Option<&str>, &str),
    finalizer: &str,
    edit: Edit,
) -> Result<Edited<K>, kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone,
{
    let mut meta = object.meta().clone();
    for reread in 0..=REREADS {
        let Some(operations) = edit(&meta, finalizer) else {
            return Ok(Edited::Unchanged);
        };
        match json_patch::<K>(client, key, None, operations).await {
            Ok(edited) => {
                let meta = edited.meta();
                let is_gone =
                    meta.deletion_timestamp.is_some() && meta.finalizers.as_ref().is_none_or(Vec::is_empty);
                return Ok(if is_gone {
                    Edited::Gone
                } else {
                    Edited::Changed(edited)
                });
            }
            Err(error) if code(&error) == Some(404) => return Ok(Edited::Gone),
            Err(error) if matches!(code(&error), Some(409 | 422)) && reread < REREADS => {
                match get::<K>(client, key).await? {
                    Some(current) if current.meta().uid == meta.uid => meta = current.meta().clone(),
                    Some(_) | None => return Ok(Edited::Gone),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Edited::Unchanged)
}

/// JSON patch operations that add `finalizer` to the object with that metadata; `None` if it is there.
pub(crate) fn add(meta: &ObjectMeta, finalizer: &str) -> Option<Vec<Value>> {
    const LIST: &str = "/metadata/finalizers";
    let held = meta.finalizers.as_deref().unwrap_or_default();
    if held.iter().any(|name| name == finalizer) {
        return None;
    }
    if held.is_empty() {
        // The whole list is written, so nothing else may have been written meanwhile.
        return Some(vec![
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": meta.resource_version}),
            json!({"op": "add", "path": LIST, "value": [finalizer]}),
        ]);
    }
    Some(vec![
        json!({"op": "add", "path": format!("{LIST}/-"), "value": finalizer}),
    ])
}

/// JSON patch operations that remove `finalizer`; `None` if it isn't there.
pub(crate) fn remove(meta: &ObjectMeta, finalizer: &str) -> Option<Vec<Value>> {
    let index = meta
        .finalizers
        .as_ref()?
        .iter()
        .position(|name| name == finalizer)?;
    let path = format!("/metadata/finalizers/{index}");
    Some(vec![
        json!({"op": "test", "path": path, "value": finalizer}),
        json!({"op": "remove", "path": path}),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn add_and_remove_touch_one_element() {
        let meta = |names: Option<&[&str]>| ObjectMeta {
            resource_version: Some("7".into()),
            finalizers: names.map(|names| names.iter().map(|name| (*name).to_string()).collect()),
            ..Default::default()
        };
        let fresh = Some(vec![
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}),
            json!({"op": "add", "path": "/metadata/finalizers", "value": ["f"]}),
        ]);
        let cases = [
            ("no list", add(&meta(None), "f"), fresh.clone()),
            ("empty list", add(&meta(Some(&[])), "f"), fresh),
            ("there already", add(&meta(Some(&["a", "f"])), "f"), None),
            (
                "others only",
                add(&meta(Some(&["a"])), "f"),
                Some(vec![
                    json!({"op": "add", "path": "/metadata/finalizers/-", "value": "f"}),
                ]),
            ),
            ("remove from no list", remove(&meta(None), "f"), None),
            ("remove what isn't there", remove(&meta(Some(&["a"])), "f"), None),
            (
                "remove the second",
                remove(&meta(Some(&["a", "f", "b"])), "f"),
                Some(vec![
                    json!({"op": "test", "path": "/metadata/finalizers/1", "value": "f"}),
                    json!({"op": "remove", "path": "/metadata/finalizers/1"}),
                ]),
            ),
        ];
        for (name, actual, expected) in cases {
            assert_eq!(actual, expected, "{name}");
        }
    }
}

//! The rules for `metadata` that hold for every kind. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree;
use crate::http::Cause;

/// The characters of generated names: none that look alike, and no vowels that could make a word.
const NAME_CHARACTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_SUFFIX_LEN: usize = 5;
const NAME_PREFIX_LEN_MAX: usize = 63 - NAME_SUFFIX_LEN;

/// A name from a prefix and a random number.
pub(crate) fn generated_name(prefix: &str, mut random: u64) -> String {
    let cut = prefix
        .char_indices()
        .map(|(at, _)| at)
        .chain([prefix.len()])
        .take_while(|&at| at <= NAME_PREFIX_LEN_MAX);
    let mut name = prefix[..cut.last().unwrap_or(0)].to_owned();
    for _ in 0..NAME_SUFFIX_LEN {
        let count = NAME_CHARACTERS.len() as u64;
        let index = usize::try_from(random % count).unwrap_or(0);
        name.push(char::from(NAME_CHARACTERS[index]));
        random /= count;
    }
    name
}

/// What the server sets on a new object, whatever the client said.
pub(crate) fn fill_new(object: &mut Value, name: &str, namespace: Option<&str>, uid: &str, now: Timestamp) {
    let metadata = tree::map_mut(object, &["metadata"]);
    metadata.insert("name".to_owned(), name.into());
    tree::set(metadata, "namespace", namespace.map(Into::into));
    metadata.insert("uid".to_owned(), uid.into());
    metadata.insert("creationTimestamp".to_owned(), tree::time(now));
    for gone in [
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
        "generation",
    ] {
        metadata.remove(gone);
    }
}

/// Takes over what an update may leave out, and names what it must not change.
pub(crate) fn fill_update(object: &mut Value, old: &Value) -> Vec<Cause> {
    const KEPT: [&str; 7] = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ];
    let mut causes = Vec::new();
    let metadata = tree::map_mut(object, &["metadata"]);
    for field in KEPT {
        let before = old["metadata"].get(field).filter(|value| !value.is_null());
        let after = metadata.get(field).filter(|value| !tree::is_empty(Some(value)));
        let may_differ = field == "generation";
        match (before, after) {
            (before, None) => tree::set(metadata, field, before.cloned()),
            (Some(before), Some(after)) if before == after => {}
            (before, Some(_)) if may_differ => tree::set(metadata, field, before.cloned()),
            (_, Some(after)) => causes.push(Cause {
                reason: "FieldValueInvalid",
                message: format!("Invalid value: {after}: field is immutable"),
                field: format!("metadata.{field}"),
            }),
        }
    }
    for gone in ["selfLink", "managedFields", "resourceVersion"] {
        metadata.remove(gone);
    }
    causes.extend(added_finalizers(object, old));
    causes
}

/// An object on its way out takes no new finalizers.
fn added_finalizers(new: &Value, old: &Value) -> Option<Cause> {
    if !is_deleting(old) {
        return None;
    }
    let before = tree::list(old, &["metadata", "finalizers"]);
    let added: Vec<&str> = tree::list(new, &["metadata", "finalizers"])
        .iter()
        .filter(|one| !before.contains(one))
        .filter_map(Value::as_str)
        .collect();
    (!added.is_empty()).then(|| Cause {
        reason: "FieldValueForbidden",
        message: format!("Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"),
        field: "metadata.finalizers".to_owned(),
    })
}

/// Whether deletion was asked for.
pub(crate) fn is_deleting(object: &Value) -> bool {
    tree::at(object, &["metadata", "deletionTimestamp"]).is_some()
}

/// Adds one to the generation.
pub(crate) fn raise_generation(object: &mut Value) {
    let metadata = tree::map_mut(object, &["metadata"]);
    let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(0);
    metadata.insert("generation".to_owned(), json!(generation + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names() {
        let name = generated_name("pvc-", 12_345);
        assert!(name.starts_with("pvc-") && name.len() == 9, "{name}");
        assert_eq!(generated_name(&"x".repeat(80), 1).len(), 63);
        assert_ne!(generated_name("a-", 1), generated_name("a-", 2));
    }

    #[test]
    fn updates() {
        let old =
            json!({"metadata": {"name": "a", "uid": "u", "creationTimestamp": "t", "finalizers": ["f"]}});
        let mut deleting = old.clone();
        deleting["metadata"]["deletionTimestamp"] = json!("d");
        let cases: [(&str, &Value, Value, &[&str]); 6] = [
            (
                "left out",
                &old,
                json!({"metadata": {"name": "a", "finalizers": ["f"]}}),
                &[],
            ),
            ("same", &old, old.clone(), &[]),
            (
                "other uid",
                &old,
                json!({"metadata": {"uid": "v"}}),
                &["metadata.uid"],
            ),
            (
                "sets deletion",
                &old,
                json!({"metadata": {"deletionTimestamp": "x"}}),
                &["metadata.deletionTimestamp"],
            ),
            (
                "removes finalizer in deletion",
                &deleting,
                json!({"metadata": {}}),
                &[],
            ),
            (
                "adds finalizer in deletion",
                &deleting,
                json!({"metadata": {"finalizers": ["f", "g"]}}),
                &["metadata.finalizers"],
            ),
        ];
        for (case, old, mut new, expected) in cases {
            let causes = fill_update(&mut new, old);
            let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields, expected, "{case}");
            if expected.is_empty() {
                assert_eq!(new["metadata"]["creationTimestamp"], "t", "{case}");
            }
        }
    }
}

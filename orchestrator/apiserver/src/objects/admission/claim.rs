//! Admission of claims and volumes: the default class, protection, growth. Pure.

use moorline_schema::quantity;
use serde_json::{Value, json};

use crate::objects::tree;

pub(super) const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
pub(super) const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
const IS_DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Whether a claim leaves the choice of its class to the cluster.
pub(super) fn names_no_class(claim: &Value) -> bool {
    tree::at(claim, &["spec", "storageClassName"]).is_none()
        && tree::at(claim, &["metadata", "annotations", BETA_CLASS]).is_none()
}

/// Gives a claim that names no class the default one; of several, the newest, then the first by name.
pub(super) fn set_default_class(claim: &mut Value, classes: &[Value]) {
    if !names_no_class(claim) {
        return;
    }
    let is_default = |class: &&Value| {
        IS_DEFAULT_CLASS
            .iter()
            .any(|key| tree::text(class, &["metadata", "annotations", key]) == "true")
    };
    let created = |class: &Value| tree::text(class, &["metadata", "creationTimestamp"]).to_owned();
    let name = |class: &Value| tree::text(class, &["metadata", "name"]).to_owned();
    let newest = classes
        .iter()
        .filter(is_default)
        .min_by_key(|class| (std::cmp::Reverse(created(class)), name(class)));
    if let Some(class) = newest {
        tree::map_mut(claim, &["spec"]).insert("storageClassName".to_owned(), name(class).into());
    }
}

/// Adds the finalizer that keeps an object while it is in use.
pub(super) fn protect(object: &mut Value, finalizer: &str) {
    let metadata = tree::map_mut(object, &["metadata"]);
    let list = metadata.entry("finalizers").or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list
        .as_array_mut()
        .filter(|list| !list.contains(&json!(finalizer)))
    {
        list.push(json!(finalizer));
    }
}

/// Refuses growth that nobody could carry out. The class is asked only about growth.
pub(super) fn check_growth(
    old: &Value,
    new: &Value,
    class_allows: impl FnOnce() -> bool,
) -> Result<(), &'static str> {
    let size = |claim: &Value| {
        let text = tree::text(claim, &["spec", "resources", "requests", "storage"]).to_owned();
        quantity::Quantity::parse(&text).ok()
    };
    let (Some(before), Some(after)) = (size(old), size(new)) else {
        return Ok(());
    };
    if after <= before {
        return Ok(());
    }
    if tree::text(old, &["status", "phase"]) != "Bound" {
        return Err("Only bound persistent volume claims can be expanded");
    }
    if !class_allows() {
        return Err(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_classes() {
        let class = |name: &str, default: &str, created: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": created,
                "annotations": {"storageclass.kubernetes.io/is-default-class": default}}})
        };
        let (old, new) = (
            class("old", "true", "2026-01-01T00:00:00Z"),
            class("new", "true", "2026-02-01T00:00:00Z"),
        );
        let other = class("other", "false", "2026-03-01T00:00:00Z");
        let cases = [
            ("none there", json!({"spec": {}}), vec![], Value::Null),
            (
                "none is default",
                json!({"spec": {}}),
                vec![other.clone()],
                Value::Null,
            ),
            (
                "the newest",
                json!({"spec": {}}),
                vec![old.clone(), new.clone(), other],
                json!("new"),
            ),
            (
                "own class",
                json!({"spec": {"storageClassName": "mine"}}),
                vec![new.clone()],
                json!("mine"),
            ),
            (
                "no class wanted",
                json!({"spec": {"storageClassName": ""}}),
                vec![new],
                json!(""),
            ),
        ];
        for (case, mut claim, classes, expected) in cases {
            set_default_class(&mut claim, &classes);
            assert_eq!(
                claim["spec"].get("storageClassName").cloned().unwrap_or_default(),
                expected,
                "{case}"
            );
        }
    }

    #[test]
    fn protection_is_added_once() {
        let mut claim = json!({"metadata": {"finalizers": ["a"]}});
        protect(&mut claim, CLAIM_PROTECTION);
        protect(&mut claim, CLAIM_PROTECTION);
        assert_eq!(claim["metadata"]["finalizers"], json!(["a", CLAIM_PROTECTION]));
    }

    #[test]
    fn growth() {
        let claim = |size: &str, phase: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}, "status": {"phase": phase}});
        let cases = [
            ("same", "1Gi", "1024Mi", "Pending", false, true),
            ("grows", "1Gi", "2Gi", "Bound", true, true),
            ("class does not allow", "1Gi", "2Gi", "Bound", false, false),
            ("not bound", "1Gi", "2Gi", "Pending", true, false),
            ("shrinks: left to validation", "2Gi", "1Gi", "Bound", false, true),
        ];
        for (case, before, after, phase, allows, expected) in cases {
            let outcome = check_growth(&claim(before, phase), &claim(after, phase), || allows);
            assert_eq!(outcome.is_ok(), expected, "{case}");
        }
    }
}

//! Workloads before they are stored: how a Job finds its pods, how often a DaemonSet's template changed. Pure.

use serde_json::{Value, json};

use crate::objects::tree;

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The same under their old names, which others still look for.
const OLD_CONTROLLER_UID: &str = "controller-uid";
const OLD_JOB_NAME: &str = "job-name";
/// Where a DaemonSet says how often its template changed.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Marks the pods of a new Job as its own and selects them, unless somebody wants to do that by hand. What is there
/// already stays: validation tells of it.
pub(super) fn select_own_pods(job: &mut Value) {
    if tree::at(job, &["spec", "manualSelector"]).and_then(Value::as_bool) == Some(true) {
        return;
    }
    let metadata = |field: &str| tree::at(job, &["metadata", field]).cloned().unwrap_or_default();
    let (uid, name) = (metadata("uid"), metadata("name"));
    let labels = tree::map_mut(job, &["spec", "template", "metadata", "labels"]);
    for (label, value) in [
        (CONTROLLER_UID, &uid),
        (OLD_CONTROLLER_UID, &uid),
        (JOB_NAME, &name),
        (OLD_JOB_NAME, &name),
    ] {
        labels.entry(label).or_insert_with(|| value.clone());
    }
    let selected = tree::map_mut(job, &["spec", "selector", "matchLabels"]);
    selected.entry(CONTROLLER_UID).or_insert(uid);
}

/// Counts the templates of a DaemonSet in its annotation; `old` is absent for a new one.
pub(super) fn count_templates(old: Option<&Value>, new: &mut Value) {
    let counted = |object: &Value| -> Option<i64> {
        tree::text(object, &["metadata", "annotations", TEMPLATE_GENERATION])
            .parse()
            .ok()
    };
    let template = ["spec", "template"];
    let count = match old {
        None => counted(new).filter(|&count| count > 0).unwrap_or(1),
        Some(old) => {
            let is_same = tree::at(old, &template) == tree::at(new, &template);
            counted(old).unwrap_or(0) + i64::from(!is_same)
        }
    };
    tree::map_mut(new, &["metadata", "annotations"])
        .insert(TEMPLATE_GENERATION.to_owned(), json!(count.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_finds_its_own_pods() {
        let job = |spec: Value| json!({"metadata": {"name": "j", "uid": "u"}, "spec": spec});
        let mut made = job(json!({"template": {"metadata": {"labels": {"a": "b", "job-name": "mine"}}}}));
        select_own_pods(&mut made);
        assert_eq!(
            made["spec"]["selector"],
            json!({"matchLabels": {CONTROLLER_UID: "u"}})
        );
        let labels = json!({"a": "b", CONTROLLER_UID: "u", OLD_CONTROLLER_UID: "u", JOB_NAME: "j", OLD_JOB_NAME: "mine"});
        assert_eq!(made["spec"]["template"]["metadata"]["labels"], labels);
        let by_hand = job(json!({"manualSelector": true, "selector": {}, "template": {}}));
        let mut kept = by_hand.clone();
        select_own_pods(&mut kept);
        assert_eq!(kept, by_hand);
    }

    #[test]
    fn a_new_template_is_counted() {
        let set = |template: &str, count: Option<&str>| {
            let annotations = count.map_or(json!({}), |count| json!({TEMPLATE_GENERATION: count}));
            json!({"metadata": {"annotations": annotations}, "spec": {"template": template}})
        };
        let cases = [
            ("new", None, set("a", None), "1"),
            ("new with a count", None, set("a", Some("7")), "7"),
            (
                "same template",
                Some(set("a", Some("3"))),
                set("a", Some("9")),
                "3",
            ),
            ("new template", Some(set("a", Some("3"))), set("b", None), "4"),
        ];
        for (case, old, mut new, expected) in cases {
            count_templates(old.as_ref(), &mut new);
            assert_eq!(
                new["metadata"]["annotations"][TEMPLATE_GENERATION], expected,
                "{case}"
            );
        }
    }
}

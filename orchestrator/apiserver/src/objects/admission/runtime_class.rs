//! What the runtime class of a pod adds to it: overhead, and where it can run. Pure.

use serde_json::{Value, json};

use crate::objects::tree;

/// Completes a new pod by its class, `None` if there is no class of that name.
pub(super) fn apply(pod: &mut Value, class: Option<&Value>) -> Result<(), String> {
    let name = tree::text(pod, &["spec", "runtimeClassName"]).to_owned();
    let stated = tree::at(pod, &["spec", "overhead"]).filter(|overhead| !tree::is_empty(Some(overhead)));
    if name.is_empty() {
        return match stated {
            None => Ok(()),
            Some(_) => Err(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                    .to_owned(),
            ),
        };
    }
    let class = class.ok_or_else(|| format!("pod rejected: RuntimeClass {name:?} not found"))?;
    let defined = tree::at(class, &["overhead", "podFixed"]);
    match (stated, defined) {
        (Some(_), None) => {
            return Err(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                    .to_owned(),
            );
        }
        (Some(stated), Some(defined)) if stated != defined => {
            return Err(
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned(),
            );
        }
        (None, Some(defined)) => {
            let defined = defined.clone();
            tree::map_mut(pod, &["spec"]).insert("overhead".to_owned(), defined);
        }
        _ => {}
    }
    place(pod, class)
}

fn place(pod: &mut Value, class: &Value) -> Result<(), String> {
    let wanted = tree::at(class, &["scheduling", "nodeSelector"]).and_then(Value::as_object);
    for (key, value) in wanted.into_iter().flatten() {
        let own = tree::text(pod, &["spec", "nodeSelector", key]);
        if !own.is_empty() && own != value.as_str().unwrap_or_default() {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}, pod.spec.nodeSelector[{key}] = {own}",
                value.as_str().unwrap_or_default()
            ));
        }
        tree::map_mut(pod, &["spec", "nodeSelector"]).insert(key.clone(), value.clone());
    }
    let mut tolerations = tree::list(pod, &["spec", "tolerations"]).to_vec();
    let more = tree::list(class, &["scheduling", "tolerations"]);
    let count = tolerations.len();
    for toleration in more {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if tolerations.len() > count {
        tree::map_mut(pod, &["spec"]).insert("tolerations".to_owned(), json!(tolerations));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_a_class() {
        let class = json!({"metadata": {"name": "vm"}, "overhead": {"podFixed": {"cpu": "250m"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}});
        let bare = json!({"metadata": {"name": "plain"}});
        let pod = |spec: Value| json!({"spec": spec});
        let named = |more: Value| {
            let mut spec = more;
            spec["runtimeClassName"] = json!("vm");
            json!({"spec": spec})
        };
        let full = json!({"runtimeClassName": "vm", "overhead": {"cpu": "250m"}, "nodeSelector": {"vm": "yes"},
            "tolerations": [{"key": "vm", "operator": "Exists"}]});
        let without = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        let cases = [
            ("none", pod(json!({})), None, Ok(pod(json!({})))),
            (
                "overhead alone",
                pod(json!({"overhead": {"cpu": "1"}})),
                None,
                Err(without),
            ),
            ("completed", named(json!({})), Some(&class), Ok(pod(full.clone()))),
            ("stated alike", pod(full.clone()), Some(&class), Ok(pod(full))),
            (
                "stated otherwise",
                named(json!({"overhead": {"cpu": "1"}})),
                Some(&class),
                Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"),
            ),
            (
                "class without overhead",
                named(json!({"overhead": {"cpu": "1"}})),
                Some(&bare),
                Err(without),
            ),
            (
                "elsewhere",
                named(json!({"nodeSelector": {"vm": "no"}})),
                Some(&class),
                Err(
                    "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes, pod.spec.nodeSelector[vm] = no",
                ),
            ),
            (
                "no such class",
                named(json!({})),
                None,
                Err("pod rejected: RuntimeClass \"vm\" not found"),
            ),
        ];
        for (case, mut pod, class, expected) in cases {
            let outcome = apply(&mut pod, class);
            match expected {
                Ok(expected) => assert_eq!((outcome, pod), (Ok(()), expected), "{case}"),
                Err(why) => assert_eq!(outcome, Err(why.to_owned()), "{case}"),
            }
        }
    }
}

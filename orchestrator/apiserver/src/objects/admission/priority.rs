//! Classes of priority: which one a pod gets, and which classes there may be. Pure.

use serde_json::{Value, json};

use crate::objects::tree;

/// The server's own classes.
pub(crate) const SYSTEM_CLASSES: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

fn name(class: &Value) -> &str {
    tree::text(class, &["metadata", "name"])
}

fn is_default(class: &&Value) -> bool {
    tree::at(class, &["globalDefault"]).and_then(Value::as_bool) == Some(true)
}

/// Gives a pod the priority of its class; without one, that of the default class.
pub(super) fn set(pod: &mut Value, classes: &[Value]) -> Result<(), String> {
    let wanted = tree::text(pod, &["spec", "priorityClassName"]).to_owned();
    let found = if wanted.is_empty() {
        // Of several defaults, which can be only for a moment, the lowest counts.
        let defaults = classes.iter().filter(is_default);
        defaults.min_by_key(|class| class["value"].as_i64().unwrap_or(0))
    } else {
        classes.iter().find(|class| name(class) == wanted)
    };
    let system = SYSTEM_CLASSES.iter().find(|(name, _)| *name == wanted);
    let priority = match (found, system) {
        (Some(class), _) => class["value"].as_i64().unwrap_or(0),
        (None, Some((_, priority))) => *priority,
        (None, None) if wanted.is_empty() => 0,
        (None, None) => return Err(format!("no PriorityClass with name {wanted} was found")),
    };
    let stated = tree::at(pod, &["spec", "priority"]).and_then(Value::as_i64);
    if stated.is_some_and(|stated| stated != priority) {
        return Err("the integer value of priority must not be provided in pod spec; priority admission controller computed another value".to_owned());
    }
    let policy = found.map_or("", |class| tree::text(class, &["preemptionPolicy"]));
    let policy = if policy.is_empty() {
        "PreemptLowerPriority"
    } else {
        policy
    };
    let spec = tree::map_mut(pod, &["spec"]);
    if let Some(class) = found {
        spec.insert("priorityClassName".to_owned(), class["metadata"]["name"].clone());
    }
    spec.insert("priority".to_owned(), priority.into());
    spec.entry("preemptionPolicy").or_insert_with(|| json!(policy));
    Ok(())
}

/// There is one default class at most.
pub(super) fn check(class: &Value, others: &[Value]) -> Result<(), String> {
    let is_other = |other: &&Value| name(other) != name(class);
    let default = others.iter().filter(is_default).find(is_other);
    match default.filter(|_| is_default(&class)) {
        None => Ok(()),
        Some(default) => Err(format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            name(default)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, value: i64, default: bool) -> Value {
        json!({"metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": "Never"})
    }

    #[test]
    fn priorities() {
        let (none, mine) = (vec![], vec![class("mine", 7, false)]);
        let usual = vec![class("mine", 7, false), class("usual", 3, true)];
        let cases = [
            ("no classes", "", &none, Ok((0, "PreemptLowerPriority"))),
            ("a class", "mine", &mine, Ok((7, "Never"))),
            ("no default", "", &mine, Ok((0, "PreemptLowerPriority"))),
            ("a default", "", &usual, Ok((3, "Never"))),
            (
                "the server's own",
                "system-node-critical",
                &none,
                Ok((2_000_001_000, "PreemptLowerPriority")),
            ),
            ("unknown", "other", &mine, Err(())),
        ];
        for (case, wanted, classes, expected) in cases {
            let mut pod = json!({"spec": {}});
            if !wanted.is_empty() {
                pod["spec"]["priorityClassName"] = json!(wanted);
            }
            let outcome = set(&mut pod, classes).map_err(|_| ());
            let expected = expected.map(|(priority, policy)| (json!(priority), json!(policy)));
            let found = outcome.map(|()| {
                (
                    pod["spec"]["priority"].clone(),
                    pod["spec"]["preemptionPolicy"].clone(),
                )
            });
            assert_eq!(found, expected, "{case}");
        }
        let mut stated = json!({"spec": {"priority": 1}});
        assert!(set(&mut stated, &none).is_err());
    }

    #[test]
    fn one_class_is_the_default() {
        let others = [class("usual", 3, true)];
        assert!(check(&class("usual", 3, true), &others).is_ok());
        assert!(check(&class("mine", 3, false), &others).is_ok());
        assert!(check(&class("mine", 3, true), &others).is_err());
    }
}

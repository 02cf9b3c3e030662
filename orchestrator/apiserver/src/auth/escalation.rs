//! What somebody would give away without having it, told as upstream tells it. Pure.

use super::User;
use super::rbac::{Attributes, Policy, Rule};

/// The single rights in `rules` that somebody does not have in a namespace, put together again; empty if they have all.
pub(crate) fn missing(policy: &Policy, user: &User, namespace: &str, rules: &[Rule]) -> Vec<Rule> {
    let mut missing: Vec<Rule> = Vec::new();
    for rule in rules {
        for single in singles(rule) {
            if !policy.covers(user, namespace, &single) {
                add(&mut missing, single);
            }
        }
    }
    missing
}

/// The rule taken apart: one verb for one thing each.
fn singles(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    let one = |text: &String| vec![text.clone()];
    let names: Vec<Vec<String>> = if rule.resource_names.is_empty() {
        vec![Vec::new()]
    } else {
        rule.resource_names.iter().map(one).collect()
    };
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                out.extend(names.iter().map(|name| Rule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names: name.clone(),
                    non_resource_urls: Vec::new(),
                }));
            }
        }
    }
    for path in &rule.non_resource_urls {
        out.extend(rule.verbs.iter().map(|verb| Rule {
            verbs: one(verb),
            non_resource_urls: one(path),
            ..Rule::default()
        }));
    }
    out
}

/// Verbs for the same resource stand in one rule; paths stay apart.
fn add(rules: &mut Vec<Rule>, single: Rule) {
    let is_same = |rule: &&mut Rule| {
        single.non_resource_urls.is_empty()
            && (&rule.api_groups, &rule.resources, &rule.resource_names)
                == (&single.api_groups, &single.resources, &single.resource_names)
    };
    match rules.iter_mut().find(is_same) {
        Some(rule) => rule.verbs.extend(single.verbs),
        None => rules.push(single),
    }
}

/// The refusal of somebody who gives what they don't have.
pub(crate) fn refusal(user: &User, missing: &[Rule]) -> String {
    let mut texts: Vec<String> = missing.iter().map(describe).collect();
    texts.sort();
    texts.dedup();
    format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        texts.join("\n")
    )
}

fn describe(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let told = parts.iter().filter(|(_, list)| !list.is_empty());
    let told: Vec<String> = told
        .map(|(name, list)| format!("{name}:{}", quoted(list)))
        .collect();
    format!("{{{}}}", told.join(", "))
}

fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// Whether somebody may do everything.
pub(crate) fn has_everything(policy: &Policy, user: &User, namespace: &str) -> bool {
    let all = Attributes {
        verb: "*",
        group: "*",
        resource: "*",
        namespace,
        ..Attributes::default()
    };
    let paths = Attributes {
        verb: "*",
        path: "*",
        ..Attributes::default()
    };
    policy.allows(user, &all) && policy.allows(user, &paths)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        let role = json!({"metadata": {"name": "r"}, "rules": [
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]});
        let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "User", "name": "anna"}]});
        let policy = Policy::new([role].into_iter(), [binding].into_iter());
        let anna = User::authenticated("anna", ["devs".to_owned()]);
        let cases: [(&str, Value, &[&str]); 4] = [
            (
                "own",
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
                &[],
            ),
            (
                "verbs are put together",
                json!({"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods", "secrets"]}),
                &[
                    r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#,
                    r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list" "watch"]}"#,
                ],
            ),
            (
                "a name",
                json!({"verbs": ["get"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["x"]}),
                &[r#"{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["x"], Verbs:["get"]}"#],
            ),
            (
                "paths",
                json!({"verbs": ["get", "post"], "nonResourceURLs": ["/metrics"]}),
                &[r#"{NonResourceURLs:["/metrics"], Verbs:["post"]}"#],
            ),
        ];
        for (case, rule, expected) in cases {
            let rule: Rule = serde_json::from_value(rule).unwrap();
            let found = missing(&policy, &anna, "", &[rule]);
            let found: Vec<String> = found.iter().map(describe).collect();
            assert_eq!(found, expected, "{case}");
        }
        assert!(!has_everything(&policy, &anna, ""));
        let text = refusal(&anna, &[]);
        assert!(
            text.starts_with(r#"user "anna" (groups=["devs" "system:authenticated"]) is attempting"#),
            "{text}"
        );
    }
}

//! Tests of the roles that every cluster has.

use super::*;

fn find(plural: &str, name: &str) -> Value {
    let all = wanted();
    let found = all
        .iter()
        .find(|one| one.plural == plural && one.object["metadata"]["name"] == name);
    found.map(|one| one.object.clone()).expect(name)
}

#[test]
fn every_line_of_the_facts_makes_sense() {
    let all = roles();
    assert!(all.len() > 70, "{}", all.len());
    for role in &all {
        let is_made_of_others = role.from.is_some();
        assert_eq!(role.rules.is_empty(), is_made_of_others, "{}", role.name);
        for rule in &role.rules {
            let is_path = !rule.non_resource_urls.is_empty();
            let is_resource = !rule.api_groups.is_empty() && !rule.resources.is_empty();
            assert!(
                is_path != is_resource && !rule.verbs.is_empty(),
                "{}: {rule:?}",
                role.name
            );
        }
    }
    let mut paths: Vec<String> = wanted()
        .iter()
        .map(|one| format!("{} {}", one.plural, one.path()))
        .collect();
    let count = paths.len();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), count, "a name twice");
}

#[test]
fn roles_are_made_of_others() {
    let rules = |name: &str| -> Vec<Rule> {
        serde_json::from_value(find("clusterroles", name)["rules"].clone()).unwrap()
    };
    let (view, edit, admin) = (rules("view"), rules("edit"), rules("admin"));
    assert_eq!(view, rules_of("system:aggregate-to-view"));
    assert!(view.iter().all(|rule| edit.contains(rule)));
    assert!(edit.iter().all(|rule| admin.contains(rule)) && admin.len() > edit.len());
    let selector = json!([{"matchLabels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}}]);
    assert_eq!(
        find("clusterroles", "edit")["aggregationRule"]["clusterRoleSelectors"],
        selector
    );
}

#[test]
fn bindings() {
    let cases = [
        (
            "clusterrolebindings",
            "cluster-admin",
            json!([{"apiGroup": GROUP, "kind": "Group", "name": "system:masters"}]),
        ),
        ("clusterrolebindings", "system:node", Value::Null),
        (
            "clusterrolebindings",
            "system:controller:job-controller",
            json!([{"kind": "ServiceAccount", "namespace": "kube-system", "name": "job-controller"}]),
        ),
        (
            "rolebindings",
            "system::extension-apiserver-authentication-reader",
            json!([{"apiGroup": GROUP, "kind": "User", "name": "system:kube-controller-manager"},
                {"apiGroup": GROUP, "kind": "User", "name": "system:kube-scheduler"}]),
        ),
    ];
    for (plural, name, subjects) in cases {
        let binding = find(plural, name);
        assert_eq!(
            binding.get("subjects").cloned().unwrap_or_default(),
            subjects,
            "{name}"
        );
    }
}

#[test]
fn what_stored_objects_lack() {
    let wanted = json!({"metadata": {"name": "r", "labels": {"l": "1"}, "annotations": {AUTO_UPDATE: "true"}},
        "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]});
    let change = |edit: &dyn Fn(&mut Value)| {
        let mut object = wanted.clone();
        edit(&mut object);
        object
    };
    let more = json!({"verbs": ["*"], "apiGroups": ["x"], "resources": ["y"]});
    let less = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
    let wide = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
    let both = |extra: &Value| json!([extra, wanted["rules"][0]]);
    let cases = [
        ("the same", wanted.clone(), Lack::Nothing),
        (
            "more rules",
            change(&|role| role["rules"] = both(&more)),
            Lack::Nothing,
        ),
        (
            "a wider rule",
            change(&|role| role["rules"] = json!([wide])),
            Lack::Nothing,
        ),
        (
            "less",
            change(&|role| role["rules"] = json!([less])),
            Lack::Change(change(&|role| role["rules"] = both(&less))),
        ),
        (
            "no label",
            change(&|role| role["metadata"]["labels"] = json!({"own": "2"})),
            Lack::Change(change(&|role| {
                role["metadata"]["labels"] = json!({"own": "2", "l": "1"})
            })),
        ),
        (
            "left alone",
            change(&|role| {
                role["rules"] = json!([]);
                role["metadata"]["annotations"][AUTO_UPDATE] = json!("false");
            }),
            Lack::Nothing,
        ),
    ];
    for (case, stored, expected) in cases {
        assert_eq!(lack(&stored, &wanted), expected, "{case}");
    }
}

#[test]
fn bindings_keep_subjects_and_are_made_anew_for_another_role() {
    let binding = |role: &str, names: &[&str]| {
        let subjects: Vec<Value> = names
            .iter()
            .map(|name| json!({"kind": "User", "name": name}))
            .collect();
        json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects})
    };
    let wanted = binding("r", &["a", "b"]);
    assert_eq!(
        lack(&binding("r", &["b", "c"]), &wanted),
        Lack::Change(binding("r", &["b", "c", "a"]))
    );
    assert_eq!(lack(&binding("r", &["c", "b", "a"]), &wanted), Lack::Nothing);
    assert_eq!(lack(&binding("other", &["a", "b"]), &wanted), Lack::Replace);
}

#[test]
fn selectors_are_added_and_rules_left_to_the_aggregation() {
    let role = |labels: &[&str], rules: Value| {
        let selectors: Vec<Value> = labels
            .iter()
            .map(|label| json!({"matchLabels": {*label: "true"}}))
            .collect();
        json!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": rules})
    };
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    let wanted = role(&["a"], rules);
    assert_eq!(lack(&role(&["a", "b"], json!([])), &wanted), Lack::Nothing);
    assert_eq!(
        lack(&role(&["b"], json!([])), &wanted),
        Lack::Change(role(&["b", "a"], json!([])))
    );
}

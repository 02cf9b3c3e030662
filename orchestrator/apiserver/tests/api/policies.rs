//! Admission policies, seen from outside.

use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::config_map;
use crate::webhooks::{MAPS, message, rule, started};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

fn policy(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("matchConstraints").is_none() {
        spec["matchConstraints"] = json!({"resourceRules": [rule("configmaps", &["CREATE", "UPDATE"])]});
    }
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec})
}

fn binding(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["policyName"] = json!(name);
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn policies_hold_where_they_are_bound() {
    let server = started().await;
    let small = policy(
        "small",
        json!({
            "variables": [{"name": "size", "expression": "size(object.data)"}],
            "validations": [{"expression": "variables.size <= 1", "messageExpression": "'too many: ' + string(variables.size)", "reason": "Forbidden"}],
        }),
    );
    let made = server.post(POLICIES, &small).await;
    assert_eq!(
        (made.code, made.headers.get("warning")),
        (StatusCode::CREATED, None),
        "{}",
        made.text
    );
    let mut large = config_map("large");
    large["data"]["b"] = json!("2");
    assert_eq!(
        server.post(&format!("{MAPS}?dryRun=All"), &large).await.code,
        StatusCode::CREATED,
        "nothing is bound yet"
    );
    let bound = server
        .post(
            BINDINGS,
            &binding("small", json!({"validationActions": ["Deny"]})),
        )
        .await;
    assert_eq!(bound.code, StatusCode::CREATED, "{}", bound.text);
    let refused = server.post(MAPS, &large).await;
    let words = "configmaps \"large\" is forbidden: ValidatingAdmissionPolicy 'small' with binding 'small' denied request: too many: 2";
    assert_eq!(
        (refused.code, message(&refused)),
        (StatusCode::FORBIDDEN, words),
        "{}",
        refused.text
    );
    assert_eq!(
        server.post(MAPS, &config_map("small")).await.code,
        StatusCode::CREATED
    );
    let grown = server
        .merge(&format!("{MAPS}/small"), &json!({"data": {"b": "2"}}))
        .await;
    assert_eq!(grown.code, StatusCode::FORBIDDEN, "{}", grown.text);
    let warns = json!({"validationActions": ["Warn"]});
    let mut changed = server.get(&format!("{BINDINGS}/small")).await.json;
    changed["spec"]["validationActions"] = warns["validationActions"].clone();
    assert_eq!(
        server.put(&format!("{BINDINGS}/small"), &changed).await.code,
        StatusCode::OK
    );
    let warned = server.post(MAPS, &large).await;
    assert_eq!(warned.code, StatusCode::CREATED, "{}", warned.text);
    let warning = warned.headers["warning"].to_str().unwrap();
    assert!(
        warning.contains(
            "Validation failed for ValidatingAdmissionPolicy 'small' with binding 'small': too many: 2"
        ),
        "{warning}"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn policies_have_parameters() {
    let server = started().await;
    let limited = policy(
        "limited",
        json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConditions": [{"name": "not-the-limit", "expression": "object.metadata.name != 'limit'"}],
            "validations": [{"expression": "size(object.data) <= int(params.data.max) || namespaceObject.metadata.name != 'default'"}],
        }),
    );
    assert_eq!(server.post(POLICIES, &limited).await.code, StatusCode::CREATED);
    let param = json!({"name": "limit", "parameterNotFoundAction": "Deny"});
    let bound = binding(
        "limited",
        json!({"validationActions": ["Deny"], "paramRef": param}),
    );
    assert_eq!(server.post(BINDINGS, &bound).await.code, StatusCode::CREATED);
    let refused = server.post(MAPS, &config_map("a")).await;
    assert!(
        message(&refused).contains("no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{}",
        refused.text
    );
    server.delete(&format!("{BINDINGS}/limited")).await;
    let mut limit = config_map("limit");
    limit["data"] = json!({"max": "1"});
    assert_eq!(server.post(MAPS, &limit).await.code, StatusCode::CREATED);
    assert_eq!(server.post(BINDINGS, &bound).await.code, StatusCode::CREATED);
    assert_eq!(
        server.post(MAPS, &config_map("a")).await.code,
        StatusCode::CREATED
    );
    let mut large = config_map("large");
    large["data"]["b"] = json!("2");
    let refused = server.post(MAPS, &large).await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
    assert!(
        message(&refused).contains("failed expression: size(object.data) <="),
        "{}",
        refused.text
    );
    let elsewhere = server
        .post("/api/v1/namespaces/kube-system/configmaps", &large)
        .await;
    // The parameter is looked for in the namespace of the request.
    assert!(
        message(&elsewhere).contains("no params found"),
        "{}",
        elsewhere.text
    );
    server.shut_down().await;
}

#[tokio::test]
async fn policies_that_can_not_be_evaluated() {
    let server = started().await;
    let odd = policy(
        "odd",
        json!({"validations": [{"expression": "object.nothing.("}]}),
    );
    let refused = server.post(POLICIES, &odd).await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
    assert!(
        refused.text.contains("spec.validations[0].expression")
            && refused.text.contains("compilation failed: ERROR: <input>:1:"),
        "{}",
        refused.text
    );
    for (failure, expected) in [
        ("Fail", StatusCode::UNPROCESSABLE_ENTITY),
        ("Ignore", StatusCode::CREATED),
    ] {
        let name = failure.to_lowercase();
        let broken = policy(
            &name,
            json!({"failurePolicy": failure, "validations": [{"expression": "object.nothing == 1"}]}),
        );
        assert_eq!(server.post(POLICIES, &broken).await.code, StatusCode::CREATED);
        assert_eq!(
            server
                .post(BINDINGS, &binding(&name, json!({"validationActions": ["Deny"]})))
                .await
                .code,
            StatusCode::CREATED
        );
        let reply = server.post(MAPS, &config_map("a")).await;
        assert_eq!(reply.code, expected, "{}", reply.text);
        server.delete(&format!("{BINDINGS}/{name}")).await;
    }
    server.shut_down().await;
}

#[tokio::test]
async fn policies_change_objects() {
    let server = started().await;
    let path = |kind: &str| format!("/apis/admissionregistration.k8s.io/v1/{kind}");
    let policy = |name: &str, mutation: Value| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name}, "spec": {
            "matchConstraints": {"resourceRules": [rule("configmaps", &["CREATE"])]}, "reinvocationPolicy": "Never",
            "variables": [{"name": "size", "expression": "string(size(object.data))"}], "mutations": [mutation]}})
    };
    let binding = |name: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name}})
    };
    let apply = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {
        "expression": "Object{metadata: Object.metadata{labels: {'size': variables.size}}}"}});
    let patch = json!({"patchType": "JSONPatch", "jsonPatch": {
        "expression": "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('x.y'), value: variables.size}]"}});
    for (name, mutation) in [("a-apply", apply), ("b-patch", patch)] {
        let made = server
            .post(&path("mutatingadmissionpolicies"), &policy(name, mutation))
            .await;
        assert_eq!(
            (made.code, made.headers.get("warning")),
            (StatusCode::CREATED, None),
            "{}",
            made.text
        );
        let bound = server
            .post(&path("mutatingadmissionpolicybindings"), &binding(name))
            .await;
        assert_eq!(bound.code, StatusCode::CREATED, "{}", bound.text);
    }
    let mut map = config_map("a");
    map["metadata"]["labels"] = json!({"own": "yes"});
    let made = server.post(MAPS, &map).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    assert_eq!(
        made.json["metadata"]["labels"],
        json!({"own": "yes", "size": "1"})
    );
    assert_eq!(made.json["data"], json!({"a": "1", "x.y": "1"}));
    let broken = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/none/there'}]"}});
    server
        .post(&path("mutatingadmissionpolicies"), &policy("broken", broken))
        .await;
    server
        .post(&path("mutatingadmissionpolicybindings"), &binding("broken"))
        .await;
    let refused = server.post(MAPS, &config_map("b")).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN, "{}", refused.text);
    assert!(
        message(&refused).starts_with("policy 'broken' with binding 'broken' denied request: JSON Patch:"),
        "{}",
        refused.text
    );
    let odd = policy(
        "odd",
        json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Pod{a: 1}"}}),
    );
    let refused = server.post(&path("mutatingadmissionpolicies"), &odd).await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
    server.shut_down().await;
}

//! CEL rules of definitions, seen from outside.

use http::StatusCode;
use serde_json::{Value, json};

use crate::custom_resources::{DEFINITIONS, WIDGETS, define, definition, widget};
use crate::harness::Server;

fn with_rules(rules: Value) -> Value {
    let mut definition = definition();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] =
        rules;
    definition
}

#[tokio::test]
async fn rules_decide_about_objects_and_changes() {
    let server = Server::start().await;
    let rules = json!([
        {"rule": "self.size == oldSelf.size", "message": "size is immutable"},
        {"rule": "!has(self.replicas) || self.replicas <= self.size", "messageExpression": "'at most %d replicas'.format([self.size])",
            "fieldPath": ".replicas"},
    ]);
    define(&server, &with_rules(rules)).await;
    let refused = server
        .post(WIDGETS, &widget("a", json!({"size": 2, "replicas": 3})))
        .await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
    let cause = json!({"reason": "FieldValueInvalid", "field": "spec.replicas", "message": "Invalid value: \"object\": at most 2 replicas"});
    assert_eq!(refused.json["details"]["causes"], json!([cause]));
    assert_eq!(
        server.post(WIDGETS, &widget("a", json!({"size": 2}))).await.code,
        StatusCode::CREATED
    );
    let path = format!("{WIDGETS}/a");
    let refused = server.merge(&path, &json!({"spec": {"size": 3}})).await;
    assert!(
        refused
            .text
            .contains("spec: Invalid value: \\\"object\\\": size is immutable"),
        "{}",
        refused.text
    );
    let scaled = server
        .merge(&format!("{path}/scale"), &json!({"spec": {"replicas": 3}}))
        .await;
    assert_eq!(scaled.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", scaled.text);
    assert_eq!(
        server
            .merge(&path, &json!({"spec": {"color": "green"}}))
            .await
            .code,
        StatusCode::OK
    );
    server.shut_down().await;
}

#[tokio::test]
async fn definitions_with_bad_rules_are_refused() {
    let server = Server::start().await;
    let reply = server
        .post(DEFINITIONS, &with_rules(json!([{"rule": "self.nothing == 1"}])))
        .await;
    assert_eq!(reply.code, StatusCode::UNPROCESSABLE_ENTITY);
    let cause = &reply.json["details"]["causes"][0];
    let place = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    assert_eq!(cause["field"], place, "{}", reply.text);
    assert!(
        cause["message"]
            .as_str()
            .unwrap()
            .contains("undefined field 'nothing'"),
        "{cause}"
    );
    server.shut_down().await;
}

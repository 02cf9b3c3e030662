//! Each class of errors, with upstream's code, reason and words.

use http::{Method, Request};
use kube::client::Body;
use serde_json::{Value, json};

use crate::harness::{Server, claim, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Case {
    name: &'static str,
    method: Method,
    path: String,
    content_type: &'static str,
    body: String,
    code: u16,
    reason: &'static str,
    /// Part of the message.
    message: &'static str,
}

fn case(
    name: &'static str,
    method: Method,
    path: &str,
    body: &Value,
    expected: (u16, &'static str, &'static str),
) -> Case {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let (code, reason, message) = expected;
    Case {
        name,
        method,
        path: path.to_owned(),
        content_type: "application/json",
        body,
        code,
        reason,
        message,
    }
}

#[expect(clippy::too_many_lines, reason = "one flat table")]
fn cases() -> Vec<Case> {
    let none = Value::Null;
    let there = config_map("there");
    let mut stale = config_map("there");
    stale["metadata"]["resourceVersion"] = json!("1");
    let mut other_uid = config_map("there");
    other_uid["metadata"]["uid"] = json!("x");
    let mut elsewhere = config_map("new");
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    let mut versioned = config_map("new");
    versioned["metadata"]["resourceVersion"] = json!("5");
    let unknown = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "u"}, "nonsense": 1});
    let at = |name: &str| format!("{MAPS}/{name}");
    vec![
        case(
            "missing object",
            Method::GET,
            &at("gone"),
            &none,
            (404, "NotFound", "configmaps \"gone\" not found"),
        ),
        case(
            "missing object, deleted",
            Method::DELETE,
            &at("gone"),
            &none,
            (404, "NotFound", "not found"),
        ),
        case(
            "missing object, patched",
            Method::PATCH,
            &at("gone"),
            &json!({}),
            (415, "UnsupportedMediaType", ""),
        ),
        case(
            "missing object, put",
            Method::PUT,
            &at("gone"),
            &config_map("gone"),
            (404, "NotFound", "not found"),
        ),
        case(
            "unknown resource",
            Method::GET,
            "/api/v1/nonsenses",
            &none,
            (404, "NotFound", "could not find the requested resource"),
        ),
        case(
            "unknown path",
            Method::GET,
            "/nonsense",
            &none,
            (404, "NotFound", "could not find"),
        ),
        case(
            "unknown subresource",
            Method::GET,
            &format!("{}/nonsense", at("there")),
            &none,
            (404, "NotFound", ""),
        ),
        case(
            "put to a collection",
            Method::PUT,
            MAPS,
            &there,
            (405, "MethodNotAllowed", ""),
        ),
        case(
            "post to an object",
            Method::POST,
            &at("there"),
            &there,
            (405, "MethodNotAllowed", ""),
        ),
        case(
            "exists",
            Method::POST,
            MAPS,
            &there,
            (409, "AlreadyExists", "configmaps \"there\" already exists"),
        ),
        case(
            "stale revision",
            Method::PUT,
            &at("there"),
            &stale,
            (409, "Conflict", "the object has been modified"),
        ),
        case(
            "other uid",
            Method::PUT,
            &at("there"),
            &other_uid,
            (409, "Conflict", "UID in precondition: x"),
        ),
        case(
            "other name",
            Method::PUT,
            &at("there"),
            &config_map("other"),
            (400, "BadRequest", "does not match the name on the URL"),
        ),
        case(
            "other namespace",
            Method::POST,
            MAPS,
            &elsewhere,
            (400, "BadRequest", "does not match the namespace"),
        ),
        case(
            "no namespace",
            Method::POST,
            "/api/v1/configmaps",
            &config_map("n"),
            (400, "BadRequest", "namespace"),
        ),
        case(
            "revision on create",
            Method::POST,
            MAPS,
            &versioned,
            (400, "BadRequest", "resourceVersion should not be set"),
        ),
        case(
            "missing namespace",
            Method::POST,
            "/api/v1/namespaces/none/configmaps",
            &config_map("a"),
            (404, "NotFound", "namespaces \"none\" not found"),
        ),
        case(
            "other kind",
            Method::POST,
            MAPS,
            &claim("a"),
            (400, "BadRequest", "cannot be handled as a ConfigMap"),
        ),
        case(
            "other version",
            Method::POST,
            MAPS,
            &json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "a"}}),
            (400, "BadRequest", "does not match the expected API version (v1)"),
        ),
        case(
            "unknown field",
            Method::POST,
            &format!("{MAPS}?fieldValidation=Strict"),
            &unknown,
            (
                400,
                "BadRequest",
                "strict decoding error: unknown field \"nonsense\"",
            ),
        ),
        case(
            "no name",
            Method::POST,
            MAPS,
            &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}),
            (422, "Invalid", "name or generateName is required"),
        ),
        case(
            "bad name",
            Method::POST,
            MAPS,
            &config_map("Bad_Name"),
            (422, "Invalid", "metadata.name: Invalid value: \"Bad_Name\""),
        ),
        case(
            "bad selector",
            Method::GET,
            &format!("{MAPS}?labelSelector=a%20b"),
            &none,
            (400, "BadRequest", ""),
        ),
        case(
            "unknown field selector",
            Method::GET,
            &format!("{MAPS}?fieldSelector=spec.x%3D1"),
            &none,
            (400, "BadRequest", ""),
        ),
        case(
            "bad limit",
            Method::GET,
            &format!("{MAPS}?limit=x"),
            &none,
            (400, "BadRequest", "limit"),
        ),
        case(
            "bad dry run",
            Method::POST,
            &format!("{MAPS}?dryRun=some"),
            &config_map("d"),
            (400, "BadRequest", "dryRun"),
        ),
        case(
            "bad propagation",
            Method::DELETE,
            &format!("{MAPS}/there?propagationPolicy=x"),
            &none,
            (422, "Invalid", "propagationPolicy"),
        ),
        case(
            "future revision",
            Method::GET,
            &format!("{MAPS}?resourceVersion=999999999"),
            &none,
            (504, "Timeout", "Too large resource version"),
        ),
        case(
            "permanent namespace",
            Method::DELETE,
            "/api/v1/namespaces/default",
            &none,
            (403, "Forbidden", "this namespace may not be deleted"),
        ),
        case(
            "not JSON",
            Method::POST,
            MAPS,
            &json!("text"),
            (400, "BadRequest", ""),
        ),
    ]
}

#[tokio::test]
async fn each_has_its_status() {
    let server = Server::start().await;
    assert_eq!(server.post(MAPS, &config_map("there")).await.code, 201);
    for case in cases() {
        let request = Request::builder()
            .method(case.method)
            .uri(&case.path)
            .header("content-type", case.content_type);
        let reply = server
            .send(request.body(Body::from(case.body.into_bytes())).unwrap())
            .await;
        let status = &reply.json;
        assert_eq!(reply.code, case.code, "{}: {}", case.name, reply.text);
        assert_eq!(status["kind"], "Status", "{}", case.name);
        assert_eq!(
            (&status["status"], &status["code"]),
            (&json!("Failure"), &json!(case.code)),
            "{}",
            case.name
        );
        assert_eq!(status["reason"], case.reason, "{}: {}", case.name, reply.text);
        assert!(
            status["message"].as_str().unwrap().contains(case.message),
            "{}: {}",
            case.name,
            reply.text
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn media_types() {
    let server = Server::start().await;
    let send = async |accept: &str, content_type: &str| {
        let request = Request::post(MAPS)
            .header("accept", accept)
            .header("content-type", content_type);
        server
            .send(
                request
                    .body(Body::from(config_map("m").to_string().into_bytes()))
                    .unwrap(),
            )
            .await
    };
    assert_eq!(send("text/html", "application/json").await.code, 406);
    assert_eq!(send("application/json", "text/plain").await.code, 415);
    assert_eq!(
        send(
            "application/vnd.kubernetes.protobuf,application/json",
            "application/json"
        )
        .await
        .code,
        201
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_body_that_is_too_large() {
    let server = Server::start().await;
    let mut object = config_map("big");
    object["data"]["a"] = json!("x".repeat(3 * 1024 * 1024));
    let reply = server.post(MAPS, &object).await;
    assert_eq!(
        (reply.code.as_u16(), &reply.json["reason"]),
        (413, &json!("RequestEntityTooLarge"))
    );
    server.shut_down().await;
}

#[tokio::test]
async fn warnings_name_unknown_fields() {
    let server = Server::start().await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "w"}, "nonsense": 1});
    let reply = server.post(MAPS, &object).await;
    assert_eq!(reply.code, 201);
    assert_eq!(
        reply.headers["warning"],
        "299 - \"unknown field \\\"nonsense\\\"\""
    );
    assert_eq!(reply.json.get("nonsense"), None);
    server.shut_down().await;
}

#[tokio::test]
async fn causes_are_listed() {
    let server = Server::start().await;
    let mut object = claim("c");
    object["spec"]["accessModes"] = json!([]);
    let reply = server
        .post("/api/v1/namespaces/default/persistentvolumeclaims", &object)
        .await;
    assert_eq!(
        (reply.code.as_u16(), &reply.json["reason"]),
        (422, &json!("Invalid")),
        "{}",
        reply.text
    );
    let details = &reply.json["details"];
    assert_eq!(
        (&details["kind"], &details["name"]),
        (&json!("PersistentVolumeClaim"), &json!("c"))
    );
    assert_eq!(details["causes"][0]["field"], "spec.accessModes");
    assert_eq!(details["causes"][0]["reason"], "FieldValueRequired");
    server.shut_down().await;
}

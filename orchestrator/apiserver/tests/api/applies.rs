//! Server-side apply and owners of fields, over HTTP and with kube-rs.

use http::{Method, Request, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::client::Body;
use serde_json::{Value, json};

use crate::custom_resources::{WIDGETS, define, definition, widget};
use crate::harness::{Reply, Server, claim, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

impl Server {
    async fn apply(&self, path: &str, parameters: &str, body: &Value) -> Reply {
        let path = format!("{path}?{parameters}");
        self.write(Method::PATCH, &path, "application/apply-patch+yaml", body)
            .await
    }

    /// As a client that calls itself so.
    async fn write_as(&self, agent: &str, method: Method, path: &str, body: &Value) -> Reply {
        let kind = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind);
        let request = request.header("user-agent", agent);
        self.send(request.body(Body::from(body.to_string().into_bytes())).unwrap())
            .await
    }
}

/// `manager operation subresource fields` of each entry; every entry has a time.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten();
    let shown = entries.map(|entry| {
        assert!(
            entry["time"].is_string() && entry["fieldsType"] == "FieldsV1",
            "{entry}"
        );
        let text = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
        format!(
            "{} {} {} {} {}",
            text("manager"),
            text("operation"),
            text("apiVersion"),
            text("subresource"),
            entry["fieldsV1"]
        )
    });
    shown.collect()
}

#[tokio::test]
async fn every_write_keeps_owners() {
    let server = Server::start().await;
    let path = format!("{MAPS}/a");
    let created = server
        .write_as("kubectl/v1.32 (linux)", Method::POST, MAPS, &config_map("a"))
        .await;
    let data = r#"{"f:data":{".":{},"f:a":{}}}"#;
    assert_eq!(owners(&created.json), [format!("kubectl Update v1 - {data}")]);
    let merged = server
        .write_as(
            "x",
            Method::PATCH,
            &format!("{path}?fieldManager=ctl"),
            &json!({"data": {"b": "2"}}),
        )
        .await;
    let both = [
        format!("ctl Update v1 - {}", r#"{"f:data":{"f:b":{}}}"#),
        format!("kubectl Update v1 - {data}"),
    ];
    assert_eq!(owners(&merged.json), both);
    // Who replaces the object without naming owners changes only what he changes.
    let mut body = config_map("a");
    body["data"] = json!({"a": "1", "b": "3"});
    let replaced = server.write_as("late/1", Method::PUT, &path, &body).await;
    let by_late = format!("late Update v1 - {}", r#"{"f:data":{"f:b":{}}}"#);
    assert_eq!(owners(&replaced.json), [both[1].clone(), by_late]);
    let json = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]);
    let reset = server
        .write(Method::PATCH, &path, "application/json-patch+json", &json)
        .await;
    assert_eq!(owners(&reset.json), [""; 0]);
    let strategic = json!({"data": {"c": "1"}});
    let kind = "application/strategic-merge-patch+json";
    let unowned = server.write(Method::PATCH, &path, kind, &strategic).await;
    assert_eq!(owners(&unowned.json), [""; 0], "updates alone begin no owners");
    server.shut_down().await;
}

#[tokio::test]
async fn a_second_apply_writes_nothing() {
    let server = Server::start().await;
    let path = format!("{MAPS}/a");
    let made = server.apply(&path, "fieldManager=m", &config_map("a")).await;
    assert_eq!(made.code, StatusCode::CREATED);
    assert_eq!(owners(&made.json), [r#"m Apply v1 - {"f:data":{"f:a":{}}}"#]);
    let again = server.apply(&path, "fieldManager=m", &config_map("a")).await;
    assert_eq!((again.code, &again.json), (StatusCode::OK, &made.json));
    // Also of a kind with defaults, and with what admission adds.
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims/c";
    let made = server.apply(claims, "fieldManager=m", &claim("c")).await;
    let again = server.apply(claims, "fieldManager=m", &claim("c")).await;
    assert_eq!(again.json, made.json);
    assert_eq!(
        again.json["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
    let pods = "/api/v1/namespaces/default/pods/p";
    let made = server.apply(pods, "fieldManager=m", &pod("p")).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    let again = server.apply(pods, "fieldManager=m", &pod("p")).await;
    assert_eq!(again.json, made.json);
    // And an update that says what is there.
    let mut same = made.json.clone();
    same["metadata"].as_object_mut().unwrap().remove("managedFields");
    let updated = server.put(&format!("{pods}?fieldManager=other"), &same).await;
    assert_eq!(updated.json, made.json, "{}", updated.text);
    server.shut_down().await;
}

#[tokio::test]
async fn conflicts_name_the_manager() {
    let server = Server::start().await;
    let path = format!("{MAPS}/a");
    server.apply(&path, "fieldManager=first", &config_map("a")).await;
    let mut other = config_map("a");
    other["data"]["a"] = json!("2");
    let conflict = server.apply(&path, "fieldManager=second", &other).await;
    let message = "Apply failed with 1 conflict: conflict with \"first\": .data.a";
    let expected = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": "Conflict", "code": 409,
        "details": {"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"first\"", "field": ".data.a"}]},
    });
    assert_eq!((conflict.code, &conflict.json), (StatusCode::CONFLICT, &expected));
    let forced = server
        .apply(&path, "fieldManager=second&force=true", &other)
        .await;
    assert_eq!(
        owners(&forced.json),
        [r#"second Apply v1 - {"f:data":{"f:a":{}}}"#]
    );
    let dry = server
        .apply(
            &path,
            "fieldManager=third&force=true&dryRun=All",
            &config_map("a"),
        )
        .await;
    assert_eq!(owners(&dry.json), [r#"third Apply v1 - {"f:data":{"f:a":{}}}"#]);
    assert_eq!(server.get(&path).await.json, forced.json);
    // Nothing applied any more: the field goes, and with it its owner.
    let empty = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let bare = server.apply(&path, "fieldManager=second", &empty).await;
    assert_eq!(
        (bare.json.get("data"), owners(&bare.json).len()),
        (None, 0),
        "{}",
        bare.text
    );
    server.shut_down().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
async fn applies_that_are_refused() {
    let server = Server::start().await;
    let path = format!("{MAPS}/a");
    let with = |edit: fn(&mut Value)| {
        let mut body = config_map("a");
        edit(&mut body);
        body
    };
    let cases = [
        (
            "no manager",
            "force=true",
            config_map("a"),
            422,
            "fieldManager: Required value: is required for apply patch",
        ),
        (
            "a long name",
            "fieldManager=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            config_map("a"),
            422,
            "Too long: may not be more than 128 bytes",
        ),
        (
            "another type",
            "fieldManager=m",
            with(|body| body["kind"] = json!("Pod")),
            400,
            "invalid object type: /v1, Kind=Pod",
        ),
        (
            "another name",
            "fieldManager=m",
            config_map("b"),
            400,
            "does not match the name on the URL (a)",
        ),
        (
            "owners",
            "fieldManager=m",
            with(|body| body["metadata"]["managedFields"] = json!([])),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            "an unknown field",
            "fieldManager=m",
            with(|body| body["nonsense"] = json!(1)),
            500,
            ".nonsense: field not declared in schema",
        ),
        (
            "a revision of nothing",
            "fieldManager=m",
            with(|body| body["metadata"]["resourceVersion"] = json!("7")),
            409,
            "no existing object was found",
        ),
        (
            "no object",
            "fieldManager=m",
            json!([]),
            400,
            "error decoding YAML",
        ),
    ];
    for (case, parameters, body, code, message) in cases {
        let reply = server.apply(&path, parameters, &body).await;
        assert_eq!(reply.code.as_u16(), code, "{case}: {}", reply.text);
        assert!(
            reply.json["message"].as_str().unwrap().contains(message),
            "{case}: {}",
            reply.text
        );
    }
    let status = "/api/v1/namespaces/default/persistentvolumeclaims/none/status";
    assert_eq!(
        server.apply(status, "fieldManager=m", &claim("none")).await.code,
        StatusCode::NOT_FOUND
    );
    let forced = server
        .write(
            Method::PATCH,
            &format!("{path}?force=true"),
            "application/merge-patch+json",
            &json!({}),
        )
        .await;
    assert_eq!(forced.code, StatusCode::UNPROCESSABLE_ENTITY);
    server.apply(&path, "fieldManager=m", &config_map("a")).await;
    let stale = with(|body| body["metadata"]["resourceVersion"] = json!("1"));
    assert_eq!(
        server.apply(&path, "fieldManager=m", &stale).await.code,
        StatusCode::CONFLICT
    );
    server.shut_down().await;
}

#[tokio::test]
async fn yaml_is_applied_and_its_doubles_are_told() {
    let server = Server::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  a: \"1\"\n  a: \"2\"\n";
    let request = |parameters: &str| {
        let path = format!("{MAPS}/a?fieldManager=m{parameters}");
        let request = Request::patch(path).header("content-type", "application/apply-patch+yaml");
        request.body(Body::from(yaml.as_bytes().to_vec())).unwrap()
    };
    let strict = server.send(request("&fieldValidation=Strict")).await;
    assert_eq!(strict.code, StatusCode::BAD_REQUEST);
    assert!(
        strict.text.contains("duplicate field \\\"data.a\\\""),
        "{}",
        strict.text
    );
    let warned = server.send(request("")).await;
    assert_eq!(warned.json["data"], json!({"a": "2"}));
    assert!(
        warned.headers["warning"]
            .to_str()
            .unwrap()
            .contains("duplicate field")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn spec_and_status_have_owners_of_their_own() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/persistentvolumeclaims/c";
    let mut body = claim("c");
    body["status"] = json!({"phase": "Bound"});
    server.apply(path, "fieldManager=user", &body).await;
    let status = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"volumeName": "ignored"}, "status": {"phase": "Bound"}});
    let applied = server
        .apply(&format!("{path}/status"), "fieldManager=ctl", &status)
        .await;
    assert_eq!(applied.json["status"]["phase"], "Bound", "{}", applied.text);
    assert!(applied.json["spec"].get("volumeName").is_none());
    let merge = json!({"status": {"capacity": {"storage": "1Gi"}}});
    let merged = server
        .merge(&format!("{path}/status?fieldManager=plugin"), &merge)
        .await;
    let spec = r#"{"f:spec":{"f:accessModes":{},"f:resources":{"f:requests":{"f:storage":{}}},"f:storageClassName":{}}}"#;
    assert_eq!(
        owners(&merged.json),
        [
            r#"ctl Apply v1 status {"f:status":{"f:phase":{}}}"#.to_owned(),
            format!("user Apply v1 - {spec}"),
            r#"plugin Update v1 status {"f:status":{"f:capacity":{".":{},"f:storage":{}}}}"#.to_owned(),
        ]
    );
    server.shut_down().await;
}

#[tokio::test]
async fn kube_rs_applies() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.admin(), "default");
    let parameters = PatchParams::apply("controller");
    let made = maps
        .patch("a", &parameters, &Patch::Apply(config_map("a")))
        .await
        .unwrap();
    let entries = made.metadata.managed_fields.unwrap();
    assert_eq!(entries[0].manager.as_deref(), Some("controller"));
    assert_eq!(entries[0].operation.as_deref(), Some("Apply"));
    let mut other = config_map("a");
    other["data"]["a"] = json!("2");
    let other = Patch::Apply(other);
    let refused = maps
        .patch("a", &PatchParams::apply("other"), &other)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("conflict with \"controller\""),
        "{refused}"
    );
    maps.patch("a", &PatchParams::apply("other").force(), &other)
        .await
        .unwrap();
    let merged = maps
        .patch(
            "a",
            &PatchParams {
                field_manager: Some("merger".to_owned()),
                ..PatchParams::default()
            },
            &Patch::Merge(json!({"data": {"b": "1"}})),
        )
        .await
        .unwrap();
    let managers: Vec<_> = merged
        .metadata
        .managed_fields
        .unwrap()
        .into_iter()
        .filter_map(|entry| entry.manager)
        .collect();
    assert_eq!(managers, ["other", "merger"]);
    server.shut_down().await;
}

#[tokio::test]
async fn events_have_owners_in_both_versions() {
    let server = Server::start().await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-03-01T12:00:00.000000Z", "reportingController": "c", "reportingInstance": "c-0",
        "action": "Act", "reason": "Why", "type": "Normal", "note": "first", "regarding": {"kind": "Pod", "name": "p"},
    });
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    let made = server.post(&format!("{new}?fieldManager=a"), &event).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    let core = "/api/v1/namespaces/default/events/e?fieldManager=b";
    let changed = server.merge(core, &json!({"message": "second"})).await;
    let found = owners(&changed.json);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("a Update events.k8s.io/v1 - "), "{found:?}");
    assert!(
        found[0].contains("f:reason") && !found[0].contains("f:note"),
        "{found:?}"
    );
    assert_eq!(found[1], r#"b Update v1 - {"f:message":{}}"#);
    server.shut_down().await;
}

#[tokio::test]
async fn lists_of_custom_objects_are_merged_as_their_schema_says() {
    let server = Server::start().await;
    define(&server, &definition()).await;
    let path = format!("{WIDGETS}/w");
    let config = |spec: Value| widget("w", spec);
    let part = |name: &str, weight: u32| json!({"name": name, "weight": weight});
    let first = config(json!({"size": 1, "parts": [part("a", 1), part("b", 1)]}));
    let made = server.apply(&path, "fieldManager=one", &first).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    // Another manager adds an element, and states a size that is the same.
    let second = config(json!({"size": 1, "parts": [part("c", 3)]}));
    let both = server.apply(&path, "fieldManager=two", &second).await;
    assert_eq!(
        both.json["spec"]["parts"],
        json!([part("a", 1), part("b", 1), part("c", 3)]),
        "{}",
        both.text
    );
    let owned = owners(&both.json);
    let element = r#""k:{\"name\":\"c\"}":{".":{},"f:name":{},"f:weight":{}}"#;
    assert!(
        owned[1].starts_with("two Apply") && owned[1].contains(element),
        "{owned:?}"
    );
    // What is somebody else's is a conflict of that element alone.
    let stolen = config(json!({"parts": [part("a", 2), part("c", 3)]}));
    let refused = server.apply(&path, "fieldManager=two", &stolen).await;
    assert_eq!(refused.code, StatusCode::CONFLICT, "{}", refused.text);
    assert_eq!(
        refused.json["details"]["causes"][0]["field"],
        r#".spec.parts[name="a"].weight"#
    );
    // What a manager doesn't state any more goes, and nothing else.
    let less = config(json!({"size": 1, "parts": [part("b", 1)]}));
    let left = server.apply(&path, "fieldManager=one", &less).await;
    assert_eq!(left.json["spec"]["parts"], json!([part("b", 1), part("c", 3)]));
    // The fields of the schema are the only ones, but where it leaves them open.
    let unknown = config(json!({"size": 1, "nonsense": 1}));
    let refused = server.apply(&path, "fieldManager=one", &unknown).await;
    assert!(
        refused
            .text
            .contains(".spec.nonsense: field not declared in schema"),
        "{}",
        refused.text
    );
    let free = config(json!({"size": 1, "free": {"any": {"thing": [1, 2]}}}));
    let applied = server.apply(&path, "fieldManager=three", &free).await;
    assert_eq!(
        applied.json["spec"]["free"]["any"]["thing"],
        json!([1, 2]),
        "{}",
        applied.text
    );
    // The status endpoint leaves all else alone.
    let mut status = widget("w", json!({"size": 7}));
    status["status"] = json!({"phase": "Ready"});
    let applied = server
        .apply(&format!("{path}/status"), "fieldManager=ctl", &status)
        .await;
    assert_eq!(applied.json["spec"]["size"], 1, "{}", applied.text);
    let owned = owners(&applied.json);
    assert!(
        owned
            .iter()
            .any(|one| one == r#"ctl Apply example.com/v1 status {"f:status":{"f:phase":{}}}"#),
        "{owned:?}"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn who_scales_owns_the_field_that_is_scaled() {
    let server = Server::start().await;
    define(&server, &definition()).await;
    let path = format!("{WIDGETS}/w");
    let config = widget("w", json!({"size": 1, "replicas": 1}));
    server.apply(&path, "fieldManager=one", &config).await;
    let scale = format!("{path}/scale");
    let read = server.get(&scale).await;
    let replicas = r#"{"f:spec":{"f:replicas":{}}}"#;
    assert_eq!(
        owners(&read.json),
        [format!("one Apply autoscaling/v1 - {replicas}")]
    );
    let scaled = server
        .write_as("hpa/1", Method::PATCH, &scale, &json!({"spec": {"replicas": 3}}))
        .await;
    assert_eq!(scaled.json["spec"]["replicas"], 3, "{}", scaled.text);
    assert_eq!(
        owners(&scaled.json),
        [format!("hpa Update autoscaling/v1 scale {replicas}")]
    );
    let object = server.get(&path).await;
    assert_eq!(
        owners(&object.json),
        [
            r#"one Apply example.com/v1 - {"f:spec":{"f:size":{}}}"#.to_owned(),
            format!("hpa Update example.com/v1 scale {replicas}"),
        ]
    );
    // It is a conflict now, as with any other owner.
    let refused = server.apply(&path, "fieldManager=one", &config).await;
    assert_eq!(refused.code, StatusCode::CONFLICT, "{}", refused.text);
    server.shut_down().await;
}

#[tokio::test]
async fn scales_are_applied() {
    let server = Server::start().await;
    define(&server, &definition()).await;
    let path = format!("{WIDGETS}/w");
    server
        .apply(
            &path,
            "fieldManager=one",
            &widget("w", json!({"size": 1, "replicas": 1})),
        )
        .await;
    let scale = format!("{path}/scale");
    let config = |replicas: i64| {
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "w", "namespace": "default"},
            "spec": {"replicas": replicas}})
    };
    let refused = server.apply(&scale, "fieldManager=two", &config(4)).await;
    assert_eq!(refused.code, StatusCode::CONFLICT, "{}", refused.text);
    assert!(
        refused.text.contains("conflict with \\\"one\\\""),
        "{}",
        refused.text
    );
    let applied = server
        .apply(&scale, "fieldManager=two&force=true", &config(4))
        .await;
    assert_eq!(applied.code, StatusCode::OK, "{}", applied.text);
    assert_eq!(applied.json["spec"]["replicas"], 4);
    let replicas = r#"{"f:spec":{"f:replicas":{}}}"#;
    let object = server.get(&path).await;
    assert_eq!(object.json["spec"]["replicas"], 4);
    assert_eq!(
        owners(&object.json),
        [
            r#"one Apply example.com/v1 - {"f:spec":{"f:size":{}}}"#.to_owned(),
            format!("two Apply example.com/v1 scale {replicas}"),
        ]
    );
    let again = server.apply(&scale, "fieldManager=two", &config(4)).await;
    assert_eq!(
        again.json["metadata"]["resourceVersion"],
        applied.json["metadata"]["resourceVersion"]
    );
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(
        server.post(deployments, &deployment).await.code,
        StatusCode::CREATED
    );
    let mut config = config(3);
    config["metadata"]["name"] = json!("d");
    let path = format!("{deployments}/d/scale");
    let applied = server.apply(&path, "fieldManager=two&force=true", &config).await;
    assert_eq!(applied.json["spec"]["replicas"], 3, "{}", applied.text);
    let other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
    let refused = server.apply(&path, "fieldManager=two", &other).await;
    assert_eq!(refused.code, StatusCode::BAD_REQUEST, "{}", refused.text);
    server.shut_down().await;
}

#[tokio::test]
async fn patches_may_look_at_owners() {
    let server = Server::start().await;
    let path = format!("{MAPS}/a");
    server.post(MAPS, &config_map("a")).await;
    let patch = |op: Value| {
        let (server, path) = (&server, &path);
        async move {
            server
                .write(Method::PATCH, path, "application/json-patch+json", &json!([op]))
                .await
        }
    };
    let there =
        patch(json!({"op": "test", "path": "/metadata/managedFields/0/operation", "value": "Update"})).await;
    assert_eq!(there.code, StatusCode::OK, "{}", there.text);
    let gone = patch(json!({"op": "remove", "path": "/metadata/managedFields/0"})).await;
    assert_eq!(gone.code, StatusCode::OK, "{}", gone.text);
    assert_eq!(owners(&gone.json), Vec::<String>::new());
    server.shut_down().await;
}

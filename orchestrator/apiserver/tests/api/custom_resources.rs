//! CustomResourceDefinitions and their objects, as clients see them.

use std::sync::Arc;

use futures::TryStreamExt;
use http::{Method, Request, StatusCode};
use kube::api::{
    ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::client::Body;
use moorline_store::{MemoryStore, Store};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use crate::harness::{PATIENCE, Reply, Server};

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

/// A definition with a bit of everything.
pub(crate) fn definition() -> Value {
    let spec = json!({"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer", "minimum": 1},
        "color": {"type": "string", "default": "red", "enum": ["red", "green"]},
        "replicas": {"type": "integer"},
        "port": {"x-kubernetes-int-or-string": true},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "weight": {"type": "integer"}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    let status = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"}, "phase": {"type": "string"}, "selector": {"type": "string"}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "description": "A thing.", "properties": {"spec": spec, "status": status}}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase", "priority": 1},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
                "selectableFields": [{"jsonPath": ".spec.color"}],
            }],
        },
    })
}

pub(crate) fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

/// Whether a condition of a definition holds.
fn holds(reply: &Reply, kind: &str) -> bool {
    let conditions = reply.json["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|one| one["type"] == kind && one["status"] == "True")
}

/// Creates a definition and waits until it is established.
pub(crate) async fn define(server: &Server, definition: &Value) {
    let reply = server.post(DEFINITIONS, definition).await;
    assert_eq!(reply.code, StatusCode::CREATED, "{}", reply.text);
    let path = format!(
        "{DEFINITIONS}/{}",
        definition["metadata"]["name"].as_str().unwrap()
    );
    server
        .until(&path, "Established", |reply| holds(reply, "Established"))
        .await;
}

#[tokio::test]
async fn what_is_established_can_be_used_at_once() {
    let server = Server::start().await;
    assert_eq!(server.get(WIDGETS).await.code, StatusCode::NOT_FOUND);
    define(&server, &definition()).await;
    let made = server.post(WIDGETS, &widget("a", json!({"size": 1}))).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.json["spec"], json!({"size": 1, "color": "red"}));
    assert_eq!(
        (&made.json["metadata"]["generation"], &made.json["kind"]),
        (&json!(1), &json!("Widget"))
    );
    let found = server
        .get(&format!("{DEFINITIONS}/widgets.example.com"))
        .await
        .json;
    assert_eq!(found["status"]["acceptedNames"]["singular"], "widget");
    assert_eq!(found["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(found["metadata"]["generation"], 1);
    let list = server.get("/apis/example.com/v1/widgets").await.json;
    assert_eq!(
        (&list["kind"], list["items"].as_array().unwrap().len()),
        (&json!("WidgetList"), 1)
    );
    server.shut_down().await;
}

#[tokio::test]
async fn discovery_and_openapi_follow_at_once() {
    let server = Server::start().await;
    define(&server, &definition()).await;
    let list = server.get("/apis/example.com/v1").await.json;
    let names: Vec<&str> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["wd"]));
    assert_eq!(list["resources"][2]["group"], "autoscaling");
    assert_eq!(
        server.get("/apis/example.com").await.json["preferredVersion"]["version"],
        "v1"
    );
    let aggregated = Request::get("/apis").header(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    );
    let aggregated = server.send(aggregated.body(Body::empty()).unwrap()).await.json;
    let groups: Vec<&str> = aggregated["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(groups.last(), Some(&"example.com"));
    let index = server.get("/openapi/v3").await.json;
    let address = index["paths"]["apis/example.com/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    let document = server.get(&address).await.json;
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(
        schema["properties"]["spec"]["properties"]["size"]["type"],
        "integer"
    );
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    let patch = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    assert!(
        patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == "fieldValidation")
    );
    let mut changed = server
        .get(&format!("{DEFINITIONS}/widgets.example.com"))
        .await
        .json;
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["new"] =
        json!({"type": "string"});
    assert_eq!(
        server
            .put(&format!("{DEFINITIONS}/widgets.example.com"), &changed)
            .await
            .code,
        StatusCode::OK
    );
    let is_new = |reply: &Reply| reply.text.contains("example.com/v1") && !reply.text.contains(&address);
    server.until("/openapi/v3", "another hash", is_new).await;
    server.shut_down().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, step by step")]
async fn bodies_are_pruned_defaulted_and_checked() {
    let server = Server::start().await;
    define(&server, &definition()).await;
    let cases = [
        ("Ignore", json!({"size": 1, "x": 1}), 201, ""),
        ("Warn", json!({"size": 1, "x": 1}), 201, ""),
        (
            "Strict",
            json!({"size": 1, "x": 1}),
            400,
            "strict decoding error: unknown field \\\"spec.x\\\"",
        ),
        ("Strict", json!({"size": 1, "free": {"x": 1}}), 201, ""),
        (
            "Strict",
            json!({"size": 0}),
            422,
            "spec.size in body should be greater than or equal to 1",
        ),
        ("Strict", json!({}), 422, "spec.size: Required value"),
        (
            "Strict",
            json!({"size": 1, "color": "blue"}),
            422,
            "supported values: \\\"red\\\", \\\"green\\\"",
        ),
        (
            "Strict",
            json!({"size": "1"}),
            422,
            "must be of type integer: \\\"string\\\"",
        ),
        (
            "Strict",
            json!({"size": 1, "port": 1.5}),
            422,
            "must be of type integer,string",
        ),
        (
            "Strict",
            json!({"size": 1, "parts": [{"name": "a"}, {"name": "a"}]}),
            422,
            "Duplicate value",
        ),
    ];
    for (index, (mode, spec, code, text)) in cases.into_iter().enumerate() {
        let path = format!("{WIDGETS}?fieldValidation={mode}");
        let reply = server
            .post(&path, &widget(&format!("w{index}"), spec.clone()))
            .await;
        assert_eq!(reply.code.as_u16(), code, "{mode} {spec}: {}", reply.text);
        assert!(reply.text.contains(text), "{mode} {spec}: {}", reply.text);
        let warns = reply.headers.get("warning").and_then(|value| value.to_str().ok());
        assert_eq!(
            warns,
            (mode == "Warn").then_some("299 - \"unknown field \\\"spec.x\\\"\""),
            "{mode} {spec}"
        );
        if code == 201 {
            assert_eq!(reply.json["spec"].get("x"), None);
        }
    }
    let twice = r#"{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "t"}, "spec": {"size": 1, "size": 2}}"#;
    let request =
        Request::post(format!("{WIDGETS}?fieldValidation=Strict")).header("content-type", "application/json");
    let reply = server
        .send(request.body(Body::from(twice.as_bytes().to_vec())).unwrap())
        .await;
    assert!(
        reply.text.contains("duplicate field \\\"spec.size\\\""),
        "{}",
        reply.text
    );
    let metadata = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "t", "labels": {"a": 1}}, "spec": {"size": 1}});
    assert_eq!(
        server.post(WIDGETS, &metadata).await.code,
        StatusCode::BAD_REQUEST
    );
    let bad_name = server.post(WIDGETS, &widget("A_B", json!({"size": 1}))).await;
    assert_eq!(
        bad_name.code,
        StatusCode::UNPROCESSABLE_ENTITY,
        "{}",
        bad_name.text
    );
    let protobuf = server
        .write(
            Method::POST,
            WIDGETS,
            "application/vnd.kubernetes.protobuf",
            &json!({}),
        )
        .await;
    assert_eq!(protobuf.code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let strategic = server
        .write(
            Method::PATCH,
            &format!("{WIDGETS}/w0"),
            "application/strategic-merge-patch+json",
            &json!({}),
        )
        .await;
    assert_eq!(
        strategic.code,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "{}",
        strategic.text
    );
    server.shut_down().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, step by step")]
async fn verbs_subresources_and_selectors() {
    let server = Server::start().await;
    define(&server, &definition()).await;
    for (name, color) in [("a", "red"), ("b", "green")] {
        let mut object = widget(name, json!({"size": 1, "color": color}));
        object["status"] = json!({"phase": "Ignored"});
        let made = server.post(WIDGETS, &object).await;
        assert_eq!(
            made.json.get("status"),
            None,
            "status is written through its subresource"
        );
    }
    let green = server
        .get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dgreen"))
        .await
        .json;
    assert_eq!(green["items"][0]["metadata"]["name"], "b");
    assert_eq!(green["items"].as_array().unwrap().len(), 1);
    let unknown = server
        .get(&format!("{WIDGETS}?fieldSelector=spec.size%3D1"))
        .await;
    assert_eq!(unknown.code, StatusCode::BAD_REQUEST);
    let patched = server
        .merge(
            &format!("{WIDGETS}/a"),
            &json!({"spec": {"size": 2}, "status": {"phase": "No"}}),
        )
        .await
        .json;
    assert_eq!(
        (&patched["metadata"]["generation"], patched.get("status")),
        (&json!(2), None)
    );
    let status = server
        .merge(
            &format!("{WIDGETS}/a/status"),
            &json!({"spec": {"size": 9}, "status": {"phase": "Ready", "replicas": 3, "selector": "a=b"}}),
        )
        .await
        .json;
    assert_eq!(
        (
            &status["spec"]["size"],
            &status["status"]["phase"],
            &status["metadata"]["generation"]
        ),
        (&json!(2), &json!("Ready"), &json!(2))
    );
    let bad = server
        .merge(
            &format!("{WIDGETS}/a/status"),
            &json!({"status": {"replicas": "x"}}),
        )
        .await;
    assert_eq!(bad.code, StatusCode::UNPROCESSABLE_ENTITY);
    let scale = server.get(&format!("{WIDGETS}/a/scale")).await.json;
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]),
        (
            &json!("Scale"),
            &json!(0),
            &json!({"replicas": 3, "selector": "a=b"})
        )
    );
    let scaled = server
        .merge(&format!("{WIDGETS}/a/scale"), &json!({"spec": {"replicas": 5}}))
        .await;
    assert_eq!(scaled.json["spec"]["replicas"], 5, "{}", scaled.text);
    let mut put = scaled.json.clone();
    put["spec"]["replicas"] = json!(7);
    assert_eq!(
        server.put(&format!("{WIDGETS}/a/scale"), &put).await.json["spec"]["replicas"],
        7
    );
    assert_eq!(
        server.put(&format!("{WIDGETS}/a/scale"), &put).await.code,
        StatusCode::CONFLICT,
        "an old revision"
    );
    assert_eq!(
        server.get(&format!("{WIDGETS}/a")).await.json["spec"]["replicas"],
        7
    );
    let table = Request::get(WIDGETS).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table = server.send(table.body(Body::empty()).unwrap()).await.json;
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["Name", "Size", "Phase", "Age"]);
    assert_eq!(
        (&table["rows"][0]["cells"][1], &table["rows"][0]["cells"][2]),
        (&json!(2), &json!("Ready"))
    );
    assert_eq!(
        server.delete(&format!("{WIDGETS}/b")).await.json["status"],
        "Success"
    );
    assert_eq!(server.delete(WIDGETS).await.code, StatusCode::OK);
    assert_eq!(server.get(WIDGETS).await.json["items"], json!([]));
    server.shut_down().await;
}

#[tokio::test]
async fn a_deleted_definition_takes_its_instances_with_it() {
    let server = Server::start().await;
    define(&server, &definition()).await;
    let mut held = widget("held", json!({"size": 1}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    for object in [held, widget("free", json!({"size": 1}))] {
        assert_eq!(server.post(WIDGETS, &object).await.code, StatusCode::CREATED);
    }
    let path = format!("{DEFINITIONS}/widgets.example.com");
    assert_eq!(server.delete(&path).await.code, StatusCode::OK);
    server
        .until(WIDGETS, "the free one gone", |reply| {
            reply.json["items"]
                .as_array()
                .is_some_and(|items| items.len() == 1)
        })
        .await;
    server
        .until(&path, "Terminating", |reply| holds(reply, "Terminating"))
        .await;
    let refused = server.post(WIDGETS, &widget("new", json!({"size": 1}))).await;
    assert_eq!(refused.code, StatusCode::METHOD_NOT_ALLOWED, "{}", refused.text);
    assert!(
        refused
            .text
            .contains("create not allowed while custom resource definition is terminating")
    );
    server
        .merge(
            &format!("{WIDGETS}/held"),
            &json!({"metadata": {"finalizers": null}}),
        )
        .await;
    server
        .until(&path, "gone", |reply| reply.code == StatusCode::NOT_FOUND)
        .await;
    server
        .until(WIDGETS, "gone", |reply| reply.code == StatusCode::NOT_FOUND)
        .await;
    server
        .until("/apis/example.com", "gone", |reply| {
            reply.code == StatusCode::NOT_FOUND
        })
        .await;
    // The same again, with nothing left of before.
    define(&server, &definition()).await;
    assert_eq!(server.get(WIDGETS).await.json["items"], json!([]));
    server.shut_down().await;
}

#[tokio::test]
async fn names_are_given_once() {
    let server = Server::start().await;
    define(&server, &definition()).await;
    let mut second = definition();
    second["metadata"]["name"] = json!("gadgets.example.com");
    second["spec"]["names"] = json!({"plural": "gadgets", "kind": "Gadget", "shortNames": ["wd"]});
    assert_eq!(server.post(DEFINITIONS, &second).await.code, StatusCode::CREATED);
    let path = format!("{DEFINITIONS}/gadgets.example.com");
    let has_conflict = |reply: &Reply| reply.text.contains("ShortNamesConflict");
    let found = server.until(&path, "a conflict", has_conflict).await;
    assert!(
        !holds(&found, "Established") && found.text.contains("\\\"wd\\\" is already in use"),
        "{}",
        found.text
    );
    assert_eq!(
        server.get("/apis/example.com/v1/gadgets").await.code,
        StatusCode::NOT_FOUND
    );
    // Once the name is free, the second gets it.
    assert_eq!(
        server
            .delete(&format!("{DEFINITIONS}/widgets.example.com"))
            .await
            .code,
        StatusCode::OK
    );
    server
        .until(&path, "Established", |reply| holds(reply, "Established"))
        .await;
    assert_eq!(
        server.get("/apis/example.com/v1/gadgets").await.code,
        StatusCode::OK
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_restart_serves_what_was_there() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let server = Server::start_on(Arc::clone(&store), |_| {}).await;
    define(&server, &definition()).await;
    let made = server.post(WIDGETS, &widget("a", json!({"size": 1}))).await.json;
    server.shut_down().await;
    let server = Server::start_on(store, |_| {}).await;
    // No waiting: it was established before.
    assert_eq!(server.get(&format!("{WIDGETS}/a")).await.json, made);
    assert_eq!(
        server.post(WIDGETS, &widget("b", json!({"size": 1}))).await.code,
        StatusCode::CREATED
    );
    server.shut_down().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, step by step")]
async fn versions_are_converted_by_name_alone() {
    let server = Server::start().await;
    let mut both = definition();
    let mut v2 = both["spec"]["versions"][0].clone();
    v2["name"] = json!("v2");
    v2["storage"] = json!(false);
    v2["deprecated"] = json!(true);
    v2["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["extra"] =
        json!({"type": "string", "default": "e"});
    both["spec"]["versions"].as_array_mut().unwrap().push(v2);
    define(&server, &both).await;
    let second = "/apis/example.com/v2/namespaces/default/widgets";
    assert_eq!(
        server.post(WIDGETS, &widget("a", json!({"size": 1}))).await.code,
        StatusCode::CREATED
    );
    let read = server.get(&format!("{second}/a")).await;
    assert_eq!(read.json["apiVersion"], "example.com/v2");
    assert_eq!(read.json["spec"]["extra"], "e");
    assert_eq!(
        read.headers["warning"],
        "299 - \"example.com/v2 Widget is deprecated\""
    );
    let list = server.get(second).await.json;
    assert_eq!(
        (&list["apiVersion"], &list["items"][0]["apiVersion"]),
        (&json!("example.com/v2"), &json!("example.com/v2"))
    );
    let mut object = widget("b", json!({"size": 2}));
    object["apiVersion"] = json!("example.com/v2");
    let made = server.post(second, &object).await;
    assert_eq!(
        (&made.json["apiVersion"], &made.json["spec"]["extra"]),
        (&json!("example.com/v2"), &json!("e")),
        "{}",
        made.text
    );
    assert_eq!(
        server.get(&format!("{WIDGETS}/b")).await.json["apiVersion"],
        "example.com/v1"
    );
    // The storage version moves; what is stored is read all the same, and noted as stored.
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let mut moved = server.get(&path).await.json;
    moved["spec"]["versions"][0]["storage"] = json!(false);
    moved["spec"]["versions"][1]["storage"] = json!(true);
    let moved = server.put(&path, &moved).await;
    assert_eq!(
        moved.json["status"]["storedVersions"],
        json!(["v1", "v2"]),
        "{}",
        moved.text
    );
    let stored = |revision: u64| {
        let store = Arc::clone(&server.store);
        async move {
            let range = moorline_store::Range::prefix(b"/registry/example.com/widgets/default/b");
            let found = store.range(range).await.unwrap();
            assert!(found.revision.0 >= revision);
            serde_json::from_slice::<Value>(&found.kvs[0].value).unwrap()
        }
    };
    assert_eq!(stored(0).await["apiVersion"], "example.com/v1");
    // An update that changes nothing brings the object into the new version, as storage migration relies on.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while stored(0).await["apiVersion"] != "example.com/v2" {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the object is not migrated"
        );
        let same = server.get(&format!("{WIDGETS}/b")).await.json;
        let put = server.put(&format!("{WIDGETS}/b"), &same).await;
        assert!(
            put.code == StatusCode::OK || put.code == StatusCode::CONFLICT,
            "{}",
            put.text
        );
    }
    assert_eq!(server.get(&format!("{WIDGETS}/b")).await.json["spec"]["size"], 2);
    server.shut_down().await;
}

#[tokio::test]
async fn watchers_survive_a_changed_definition() {
    let server = Server::start().await;
    define(&server, &definition()).await;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Widget"));
    let api: kube::Api<DynamicObject> = kube::Api::namespaced_with(server.admin(), "default", &resource);
    let object =
        |name: &str| serde_json::from_value::<DynamicObject>(widget(name, json!({"size": 1}))).unwrap();
    api.create(&PostParams::default(), &object("a")).await.unwrap();
    let watcher = TaskTracker::new().spawn(names_seen(api.clone(), 3));
    // Another schema for what is stored: connected watches end, and go on with a new list.
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let mut changed = server.get(&path).await.json;
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["late"] =
        json!({"type": "string", "default": "x"});
    assert_eq!(server.put(&path, &changed).await.code, StatusCode::OK);
    api.create(&PostParams::default(), &object("b")).await.unwrap();
    let has_default = |reply: &Reply| reply.json["spec"]["late"] == "x";
    server
        .until(
            &format!("{WIDGETS}/a"),
            "the default of the new schema",
            has_default,
        )
        .await;
    let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    api.create(&PostParams::default(), &object("c")).await.unwrap();
    let seen = tokio::time::timeout(PATIENCE, watcher)
        .await
        .expect("all objects are seen")
        .unwrap();
    assert_eq!(seen, ["a", "b", "c"]);
    server.shut_down().await;
}

/// Lists and watches as informers do, until so many objects were seen.
async fn names_seen(api: kube::Api<DynamicObject>, count: usize) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let list = api.list(&Default::default()).await.unwrap();
        seen.extend(list.items.iter().filter_map(|one| one.metadata.name.clone()));
        if seen.len() >= count {
            return seen.into_iter().collect();
        }
        let revision = list.metadata.resource_version.unwrap_or_default();
        let Ok(events) = api.watch(&WatchParams::default(), &revision).await else {
            continue;
        };
        let mut events = std::pin::pin!(events);
        while let Ok(Some(event)) = events.try_next().await {
            match event {
                WatchEvent::Added(one) | WatchEvent::Modified(one) => seen.extend(one.metadata.name.clone()),
                WatchEvent::Error(_) => break,
                _ => {}
            }
            if seen.len() >= count {
                return seen.into_iter().collect();
            }
        }
    }
}

#[tokio::test]
async fn owners_may_be_custom_and_namespaces_take_custom_objects_along() {
    let server = Server::start().await;
    define(&server, &definition()).await;
    let owner = server
        .post(WIDGETS, &widget("owner", json!({"size": 1})))
        .await
        .json;
    let mut owned = crate::harness::config_map("owned");
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "owner", "uid": owner["metadata"]["uid"]}]);
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(server.post(maps, &owned).await.code, StatusCode::CREATED);
    server.delete(&format!("{WIDGETS}/owner")).await;
    server
        .until(&format!("{maps}/owned"), "collected", |reply| {
            reply.code == StatusCode::NOT_FOUND
        })
        .await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    assert_eq!(
        server.post("/api/v1/namespaces", &namespace).await.code,
        StatusCode::CREATED
    );
    let there = "/apis/example.com/v1/namespaces/other/widgets";
    assert_eq!(
        server.post(there, &widget("a", json!({"size": 1}))).await.code,
        StatusCode::CREATED
    );
    server.delete("/api/v1/namespaces/other").await;
    server
        .until("/api/v1/namespaces/other", "gone", |reply| {
            reply.code == StatusCode::NOT_FOUND
        })
        .await;
    assert_eq!(
        server.get("/apis/example.com/v1/widgets").await.json["items"],
        json!([])
    );
    server.shut_down().await;
}

//! Answers in protobuf: objects, lists, watches, failures, and what has no such form.

use futures::StreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use moorline_schema::{Registry, decode};
use serde_json::{Map, Value, json};

use crate::custom_resources::DEFINITIONS;
use crate::harness::{PATIENCE, Server, claim, config_map, pod};

pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
pub(crate) const GO: &str = "application/vnd.kubernetes.protobuf,application/json";
const METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const METADATA_LIST: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// An answer: code, content type, and the object in it, whichever form it has.
pub(crate) async fn ask(
    server: &Server,
    method: Method,
    path: &str,
    accept: &str,
    body: Value,
) -> (u16, String, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("accept", accept)
        .header("content-type", "application/json");
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let request = request.body(Body::from(body.into_bytes())).unwrap();
    let answer = server.admin().send(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    let content_type = parts.headers["content-type"].to_str().unwrap().to_owned();
    let bytes = body.collect_bytes().await.unwrap();
    let object = if content_type == PROTOBUF {
        object(&bytes)
    } else {
        serde_json::from_slice(&bytes).unwrap_or_default()
    };
    (parts.status.as_u16(), content_type, object)
}

fn object(bytes: &[u8]) -> Value {
    let (_, _, value) = decode::protobuf(Registry::builtin(), bytes).expect("a protobuf body");
    value
}

/// Without what protobuf doesn't tell: the names of the items' type, which stand once in the list, and empty parts of a
/// status, which are there for each reader.
pub(crate) fn as_told(mut object: Value) -> Value {
    for item in object["items"].as_array_mut().into_iter().flatten() {
        let item = item.as_object_mut().unwrap();
        item.remove("kind");
        item.remove("apiVersion");
        drop_empty_status(item);
    }
    if let Some(fields) = object.as_object_mut() {
        drop_empty_status(fields);
    }
    object
}

fn drop_empty_status(object: &mut Map<String, Value>) {
    let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.retain(|_, value| !is_empty(value));
    }
    if object.get("status").is_some_and(is_empty) {
        object.remove("status");
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table")]
async fn every_kind_of_answer() {
    let server = Server::start().await;
    server.post(MAPS, &config_map("there")).await;
    let get = Method::GET;
    let version = "/version";
    let missing = format!("{MAPS}/missing");
    let there = format!("{MAPS}/there");
    let cases = [
        (
            "object",
            get.clone(),
            &*there,
            GO,
            Value::Null,
            200,
            PROTOBUF,
            "ConfigMap",
        ),
        (
            "list",
            get.clone(),
            MAPS,
            GO,
            Value::Null,
            200,
            PROTOBUF,
            "ConfigMapList",
        ),
        (
            "metadata",
            get.clone(),
            &there,
            METADATA,
            Value::Null,
            200,
            PROTOBUF,
            "PartialObjectMetadata",
        ),
        (
            "list of metadata",
            get.clone(),
            MAPS,
            METADATA_LIST,
            Value::Null,
            200,
            PROTOBUF,
            "PartialObjectMetadataList",
        ),
        (
            "nothing else taken",
            get.clone(),
            &there,
            PROTOBUF,
            Value::Null,
            200,
            PROTOBUF,
            "ConfigMap",
        ),
        (
            "JSON first",
            get.clone(),
            &there,
            "application/json,application/vnd.kubernetes.protobuf",
            Value::Null,
            200,
            "application/json",
            "ConfigMap",
        ),
        (
            "failure",
            get.clone(),
            &missing,
            GO,
            Value::Null,
            404,
            PROTOBUF,
            "Status",
        ),
        (
            "no such path",
            get.clone(),
            "/apis/none/v1/things",
            GO,
            Value::Null,
            404,
            PROTOBUF,
            "Status",
        ),
        (
            "made",
            Method::POST,
            MAPS,
            GO,
            config_map("made"),
            201,
            PROTOBUF,
            "ConfigMap",
        ),
        (
            "made twice",
            Method::POST,
            MAPS,
            GO,
            config_map("made"),
            409,
            PROTOBUF,
            "Status",
        ),
        (
            "review",
            Method::POST,
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            GO,
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}),
            201,
            PROTOBUF,
            "SelfSubjectAccessReview",
        ),
        (
            "deleted",
            Method::DELETE,
            &there,
            GO,
            Value::Null,
            200,
            PROTOBUF,
            "Status",
        ),
        (
            "all deleted",
            Method::DELETE,
            MAPS,
            GO,
            Value::Null,
            200,
            PROTOBUF,
            "Status",
        ),
        (
            "no object of the API",
            get,
            version,
            GO,
            Value::Null,
            200,
            "application/json",
            "",
        ),
    ];
    for (case, method, path, accept, body, code, content_type, kind) in cases {
        let answer = ask(&server, method, path, accept, body).await;
        let found = (
            answer.0,
            &*answer.1,
            answer.2["kind"].as_str().unwrap_or_default(),
        );
        assert_eq!(found, (code, content_type, kind), "{case}: {}", answer.2);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn both_forms_say_the_same() {
    let server = Server::start().await;
    let bound = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
        "spec": {"capacity": {"storage": "1536Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
            "csi": {"driver": "d", "volumeHandle": "h", "volumeAttributes": {"a": "b"}}}});
    let made = [
        ("/api/v1/namespaces/default/pods", pod("p")),
        ("/api/v1/namespaces/default/persistentvolumeclaims", claim("c")),
        ("/api/v1/persistentvolumes", bound),
        (
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}, "provisioner": "d",
                "parameters": {"a": "b"}, "allowVolumeExpansion": true, "volumeBindingMode": "WaitForFirstConsumer"}),
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
                "spec": {"holderIdentity": "me", "renewTime": "2026-01-02T03:04:05.678901Z", "leaseDurationSeconds": 15}}),
        ),
        (
            "/api/v1/namespaces/default/secrets",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "AAEC/w=="}}),
        ),
    ];
    for (path, body) in &made {
        let reply = server.post(path, body).await;
        assert_eq!(reply.code, StatusCode::CREATED, "{path}: {}", reply.text);
    }
    let served: Vec<String> = Registry::builtin()
        .resources()
        .filter(|facts| facts.allows("list"))
        .map(|facts| match facts.group {
            "" => format!("/api/{}/{}", facts.version, facts.plural),
            group => format!("/apis/{group}/{}/{}", facts.version, facts.plural),
        })
        .collect();
    let names = made
        .iter()
        .map(|(path, body)| format!("{path}/{}", body["metadata"]["name"].as_str().unwrap()));
    for path in served.into_iter().chain(names) {
        let (_, in_json, mut expected) =
            ask(&server, Method::GET, &path, "application/json", Value::Null).await;
        let (_, in_protobuf, mut found) = ask(&server, Method::GET, &path, GO, Value::Null).await;
        assert_eq!(
            (&*in_json, &*in_protobuf),
            ("application/json", PROTOBUF),
            "{path}"
        );
        if expected.get("items").is_some() {
            // Other writers go on meanwhile; and protobuf has no empty lists.
            expected["metadata"] = Value::Null;
            found["metadata"] = Value::Null;
            found.as_object_mut().unwrap().entry("items").or_insert(json!([]));
        }
        assert_eq!(as_told(found), as_told(expected), "{path}");
    }
    server.shut_down().await;
}

/// The events of an answer in protobuf: type and object.
fn events(frames: &mut Vec<u8>) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    while let Some(length) = frames
        .first_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes) as usize)
    {
        if frames.len() < 4 + length {
            break;
        }
        let frame: Vec<u8> = frames.drain(..4 + length).skip(4).collect();
        // WatchEvent: the type as field 1, a RawExtension as field 2, the object as its field 1.
        let magic = frame
            .windows(4)
            .position(|window| window == b"k8s\0")
            .expect("an object");
        let kind = String::from_utf8(frame[2..2 + usize::from(frame[1])].to_vec()).unwrap();
        found.push((kind, object(&frame[magic..])));
    }
    found
}

#[tokio::test]
async fn a_watch_is_frames() {
    let server = Server::start().await;
    server.post(MAPS, &config_map("a")).await;
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true\
                 &fieldSelector=metadata.name%21%3Dkube-root-ca.crt";
    let request = Request::get(format!("{MAPS}?{query}")).header("accept", GO);
    let answer = server
        .admin()
        .send(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "application/vnd.kubernetes.protobuf;stream=watch"
    );
    server
        .merge(&format!("{MAPS}/a"), &json!({"data": {"a": "2"}}))
        .await;
    server.delete(&format!("{MAPS}/a")).await;
    let mut pieces = answer.into_body().into_data_stream();
    let (mut frames, mut seen) = (Vec::new(), Vec::new());
    while seen.len() < 4 {
        let piece = tokio::time::timeout(PATIENCE, pieces.next()).await.unwrap();
        frames.extend_from_slice(&piece.expect("the watch goes on").unwrap());
        seen.extend(events(&mut frames));
    }
    let told: Vec<_> = seen
        .iter()
        .map(|(kind, object)| (&**kind, object["data"]["a"].as_str().unwrap_or_default()))
        .collect();
    // The writes may be in the initial state already, or come after its end.
    assert_eq!(told.last(), Some(&("DELETED", "2")), "{told:?}");
    assert!(told.contains(&("BOOKMARK", "")), "{told:?}");
    let bookmark = seen.iter().find(|(kind, _)| kind == "BOOKMARK").unwrap();
    assert_eq!(
        bookmark.1["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    let far_back = format!("{MAPS}?watch=true&resourceVersion=1");
    let request = Request::get(far_back).header("accept", PROTOBUF);
    let answer = server
        .admin()
        .send(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    server.shut_down().await;
}

#[tokio::test]
async fn custom_objects_have_metadata_alone_in_protobuf() {
    let server = Server::start().await;
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let reply = server.post(DEFINITIONS, &definition).await;
    assert_eq!(reply.code, StatusCode::CREATED, "{}", reply.text);
    let things = "/apis/example.com/v1/things";
    server
        .until(things, "served", |reply| reply.code == StatusCode::OK)
        .await;
    let thing =
        json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"a": 1}});
    server.post(things, &thing).await;
    let one = "/apis/example.com/v1/things/t";
    let cases = [
        (one, GO, 200, "application/json", "Thing"),
        (things, GO, 200, "application/json", "ThingList"),
        (one, PROTOBUF, 406, PROTOBUF, "Status"),
        (one, METADATA, 200, PROTOBUF, "PartialObjectMetadata"),
        (things, METADATA_LIST, 200, PROTOBUF, "PartialObjectMetadataList"),
    ];
    for (path, accept, code, content_type, kind) in cases {
        let answer = ask(&server, Method::GET, path, accept, Value::Null).await;
        let found = (
            answer.0,
            &*answer.1,
            answer.2["kind"].as_str().unwrap_or_default(),
        );
        assert_eq!(found, (code, content_type, kind), "{path} {accept}");
    }
    server.shut_down().await;
}

//! The definitions that the CSI community publishes, taken as they are from a directory.

use std::path::PathBuf;

use http::{Method, Request, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use crate::custom_resources::DEFINITIONS;
use crate::harness::{Reply, Server, skipped};

/// Names the directory with the published YAML files.
const DIRECTORY: &str = "MOORLINE_PUBLISHED_CRDS";

fn files(test: &str) -> Vec<PathBuf> {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        skipped(
            test,
            &format!("{DIRECTORY} names no directory with published definitions"),
        );
        return Vec::new();
    };
    let entries = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{DIRECTORY} holds no YAML files");
    files
}

async fn install(server: &Server, files: &[PathBuf]) -> Vec<String> {
    let mut installed = Vec::new();
    for file in files {
        let text = std::fs::read(file).unwrap();
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{DEFINITIONS}?fieldValidation=Strict"))
            .header("content-type", "application/yaml");
        let reply = server.send(request.body(Body::from(text)).unwrap()).await;
        assert_eq!(
            reply.code,
            StatusCode::CREATED,
            "{}: {}",
            file.display(),
            reply.text
        );
        let name = reply.json["metadata"]["name"].as_str().unwrap().to_owned();
        let is_established = |reply: &Reply| {
            let conditions = reply.json["status"]["conditions"].as_array();
            conditions
                .into_iter()
                .flatten()
                .any(|one| one["type"] == "Established" && one["status"] == "True")
        };
        server
            .until(&format!("{DEFINITIONS}/{name}"), "Established", is_established)
            .await;
        installed.push(name);
    }
    installed
}

fn content(spec: Value) -> Value {
    let mut whole = json!({"deletionPolicy": "Delete", "driver": "d", "volumeSnapshotRef": {"name": "s", "namespace": "default"},
        "source": {"volumeHandle": "v"}});
    for (name, value) in spec.as_object().unwrap() {
        whole[name] = value.clone();
    }
    json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": "c"}, "spec": whole})
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, step by step")]
async fn published_definitions_install_and_validate() {
    let files = files("published_definitions_install_and_validate");
    if files.is_empty() {
        return;
    }
    let server = Server::start().await;
    let installed = install(&server, &files).await;
    let has = |name: &str| installed.iter().any(|one| one == name);
    if has("volumesnapshotcontents.snapshot.storage.k8s.io") {
        let path = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents";
        let bad = [
            (
                json!({"deletionPolicy": "Keep"}),
                "supported values: \\\"Delete\\\", \\\"Retain\\\"",
            ),
            (
                json!({"volumeSnapshotRef": {"name": "s"}}),
                "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must be set",
            ),
            (
                json!({"source": {}}),
                "exactly one of volumeHandle and snapshotHandle must be set",
            ),
            (
                json!({"source": {"volumeHandle": "v", "snapshotHandle": "s"}}),
                "exactly one of volumeHandle and snapshotHandle must be set",
            ),
            (json!({"driver": 1}), "spec.driver in body must be of type string"),
            (json!({"driver": null}), "spec.driver: Required value"),
        ];
        for (change, expected) in bad {
            let reply = server.post(path, &content(change.clone())).await;
            assert_eq!(
                reply.code,
                StatusCode::UNPROCESSABLE_ENTITY,
                "{change}: {}",
                reply.text
            );
            assert!(reply.text.contains(expected), "{change}: {}", reply.text);
        }
        let made = server
            .post(path, &content(json!({"sourceVolumeMode": "Filesystem"})))
            .await;
        assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
        let changes = [
            (
                json!({"spec": {"source": {"volumeHandle": "w"}}}),
                "volumeHandle is immutable",
            ),
            (
                json!({"spec": {"source": {"volumeHandle": null, "snapshotHandle": "s"}}}),
                "volumeHandle is required once set",
            ),
            (
                json!({"spec": {"sourceVolumeMode": "Block"}}),
                "sourceVolumeMode is immutable",
            ),
            (
                json!({"spec": {"sourceVolumeMode": null}}),
                "sourceVolumeMode is required once set",
            ),
        ];
        for (change, expected) in changes {
            let reply = server.merge(&format!("{path}/c"), &change).await;
            assert_eq!(
                reply.code,
                StatusCode::UNPROCESSABLE_ENTITY,
                "{change}: {}",
                reply.text
            );
            assert!(reply.text.contains(expected), "{change}: {}", reply.text);
        }
        let status = json!({"status": {"readyToUse": true, "restoreSize": 1024, "snapshotHandle": "h"}});
        let reply = server.merge(&format!("{path}/c/status"), &status).await;
        assert_eq!(reply.json["status"]["readyToUse"], true, "{}", reply.text);
        let bad = server
            .merge(
                &format!("{path}/c/status"),
                &json!({"status": {"restoreSize": -1}}),
            )
            .await;
        assert_eq!(bad.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", bad.text);
    }
    if has("volumesnapshots.snapshot.storage.k8s.io") {
        let path = "/apis/snapshot.storage.k8s.io/v1/namespaces/default/volumesnapshots";
        let snapshot = |source: Value| json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": "s"}, "spec": {"source": source}});
        let bad = server.post(path, &snapshot(json!({}))).await;
        assert!(
            bad.text.contains(
                "exactly one of volumeSnapshotContentName and persistentVolumeClaimName must be set"
            ),
            "{}",
            bad.text
        );
        let made = server
            .post(path, &snapshot(json!({"persistentVolumeClaimName": "c"})))
            .await;
        assert_eq!(made.code, StatusCode::CREATED, "{}", made.text);
        let bad = server
            .merge(
                &format!("{path}/s"),
                &json!({"spec": {"source": {"persistentVolumeClaimName": "d"}}}),
            )
            .await;
        assert!(
            bad.text.contains("persistentVolumeClaimName is immutable"),
            "{}",
            bad.text
        );
        let table = Request::get(path).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
        let table = server.send(table.body(Body::empty()).unwrap()).await.json;
        assert_eq!(table["columnDefinitions"][1]["name"], "ReadyToUse");
        assert_eq!(table["rows"][0]["cells"][2], "c");
    }
    if has("volumesnapshotclasses.snapshot.storage.k8s.io") {
        let path = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses";
        let class = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "metadata": {"name": "k"},
            "driver": "d", "deletionPolicy": "Delete", "parameters": {"a": "b"}});
        assert_eq!(server.post(path, &class).await.code, StatusCode::CREATED);
        let bad = server
            .merge(&format!("{path}/k"), &json!({"parameters": {"a": 1}}))
            .await;
        assert_eq!(bad.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", bad.text);
    }
    let index = server.get("/openapi/v3").await;
    for name in &installed {
        let group = name.split_once('.').unwrap().1;
        assert!(index.text.contains(&format!("apis/{group}/")), "{group}");
    }
    for name in &installed {
        assert_eq!(
            server.delete(&format!("{DEFINITIONS}/{name}")).await.code,
            StatusCode::OK
        );
    }
    for name in &installed {
        server
            .until(&format!("{DEFINITIONS}/{name}"), "gone", |reply| {
                reply.code == StatusCode::NOT_FOUND
            })
            .await;
    }
    server.shut_down().await;
}

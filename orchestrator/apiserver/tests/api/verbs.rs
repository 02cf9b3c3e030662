//! Each verb on its own: what goes in, what comes out, what is stored.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Server, claim, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn create_sets_what_belongs_to_the_server() {
    let server = Server::start().await;
    let mut object = config_map("a");
    object["metadata"]["uid"] = json!("mine");
    object["metadata"]["creationTimestamp"] = json!("2000-01-01T00:00:00Z");
    let reply = server.post(MAPS, &object).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    let metadata = &reply.json["metadata"];
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert_ne!(metadata["creationTimestamp"], "2000-01-01T00:00:00Z");
    assert_eq!(metadata["namespace"], "default");
    assert!(
        metadata["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 0
    );
    assert_eq!(server.get(&format!("{MAPS}/a")).await.json, reply.json);
    server.shut_down().await;
}

#[tokio::test]
async fn generated_names_differ() {
    let server = Server::start().await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "x-"}});
    let names = [server.post(MAPS, &object).await, server.post(MAPS, &object).await];
    let names = names.map(|reply| reply.json["metadata"]["name"].as_str().unwrap().to_owned());
    assert!(
        names.iter().all(|name| name.starts_with("x-") && name.len() == 7),
        "{names:?}"
    );
    assert_ne!(names[0], names[1]);
    server.shut_down().await;
}

#[tokio::test]
async fn claims_and_pods_start_in_their_first_state() {
    let server = Server::start().await;
    let reply = server.post(CLAIMS, &claim("c")).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    assert_eq!(reply.json["status"], json!({"phase": "Pending"}));
    assert_eq!(
        reply.json["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
    assert_eq!(reply.json["spec"]["volumeMode"], "Filesystem");
    let reply = server.post(PODS, &pod("p")).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    let pod = &reply.json;
    assert_eq!(
        (&pod["status"]["phase"], &pod["status"]["qosClass"]),
        (&json!("Pending"), &json!("BestEffort"))
    );
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    assert_eq!(pod["spec"]["restartPolicy"], "Always");
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert!(
        pod["spec"]["volumes"][0]["name"]
            .as_str()
            .unwrap()
            .starts_with("kube-api-access-")
    );
    assert_eq!(pod["metadata"]["generation"], 1);
    server.shut_down().await;
}

#[tokio::test]
async fn update_replaces_and_keeps_what_it_must() {
    let server = Server::start().await;
    let created = server.post(MAPS, &config_map("a")).await.json;
    let mut changed = config_map("a");
    changed["data"] = json!({"b": "2"});
    let reply = server.put(&format!("{MAPS}/a"), &changed).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(reply.json["data"], json!({"b": "2"}));
    for kept in ["uid", "creationTimestamp"] {
        assert_eq!(reply.json["metadata"][kept], created["metadata"][kept]);
    }
    assert_ne!(
        reply.json["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_write_that_changes_nothing_writes_nothing() {
    let server = Server::start().await;
    let created = server.post(MAPS, &config_map("a")).await.json;
    let same = server.put(&format!("{MAPS}/a"), &created).await.json;
    assert_eq!(same, created);
    let patched = server
        .merge(&format!("{MAPS}/a"), &json!({"data": {"a": "1"}}))
        .await
        .json;
    assert_eq!(patched, created);
    server.shut_down().await;
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = Server::start().await;
    server.post(CLAIMS, &claim("c")).await;
    let path = format!("{CLAIMS}/c");
    let patch = json!({"metadata": {"labels": {"l": "1"}}, "status": {"phase": "Bound"}});
    let main = server.merge(&path, &patch).await;
    assert_eq!(
        (
            &main.json["status"]["phase"],
            &main.json["metadata"]["labels"]["l"]
        ),
        (&json!("Pending"), &json!("1"))
    );
    let patch = json!({"spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
    let status = server.merge(&format!("{path}/status"), &patch).await;
    assert_eq!(status.code, 200, "{}", status.text);
    assert_eq!(status.json["status"]["phase"], "Bound");
    assert_eq!(status.json["spec"].get("volumeName"), None);
    server.shut_down().await;
}

#[tokio::test]
async fn patches_of_each_kind() {
    let server = Server::start().await;
    server.post(PODS, &pod("p")).await;
    let path = format!("{PODS}/p");
    let cases: [(&str, Value, &str, Value); 4] = [
        (
            "application/merge-patch+json",
            json!({"metadata": {"labels": {"m": "1"}}}),
            "/metadata/labels/m",
            json!("1"),
        ),
        (
            "application/json-patch+json",
            json!([{"op": "add", "path": "/metadata/labels/j", "value": "1"}]),
            "/metadata/labels/j",
            json!("1"),
        ),
        (
            "application/strategic-merge-patch+json",
            json!({"spec": {"containers": [{"name": "main", "image": "other"}]}}),
            "/spec/containers/0/image",
            json!("other"),
        ),
        (
            "application/merge-patch+json",
            json!({"metadata": {"labels": {"m": null}}}),
            "/metadata/labels/m",
            Value::Null,
        ),
    ];
    for (content_type, patch, pointer, expected) in cases {
        let reply = server.write(Method::PATCH, &path, content_type, &patch).await;
        assert_eq!(reply.code, 200, "{content_type}: {}", reply.text);
        let found = reply.json.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{content_type} {patch}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn dry_run_stores_nothing() {
    let server = Server::start().await;
    let reply = server.post(&format!("{MAPS}?dryRun=All"), &config_map("a")).await;
    assert_eq!(reply.code, 201);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 404);
    let created = server.post(MAPS, &config_map("a")).await.json;
    let reply = server
        .merge(&format!("{MAPS}/a?dryRun=All"), &json!({"data": {"a": "2"}}))
        .await;
    assert_eq!(reply.json["data"]["a"], "2");
    server.delete(&format!("{MAPS}/a?dryRun=All")).await;
    assert_eq!(server.get(&format!("{MAPS}/a")).await.json, created);
    server.shut_down().await;
}

#[tokio::test]
async fn delete_removes_or_waits() {
    let server = Server::start().await;
    server.post(MAPS, &config_map("plain")).await;
    let reply = server.delete(&format!("{MAPS}/plain")).await;
    assert_eq!(
        (reply.code.as_u16(), &reply.json["status"]),
        (200, &json!("Success"))
    );
    assert_eq!(reply.json["details"]["kind"], "configmaps");
    assert_eq!(server.get(&format!("{MAPS}/plain")).await.code, 404);

    server.post(CLAIMS, &claim("held")).await;
    let path = format!("{CLAIMS}/held");
    let reply = server.delete(&path).await;
    assert!(
        reply.json["metadata"]["deletionTimestamp"].is_string(),
        "{}",
        reply.text
    );
    assert_eq!(server.get(&path).await.code, 200);
    let reply = server
        .merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(server.get(&path).await.code, 404);
    server.shut_down().await;
}

#[tokio::test]
async fn pods_are_given_time() {
    let server = Server::start().await;
    server.post(PODS, &pod("waiting")).await;
    let reply = server.delete(&format!("{PODS}/waiting")).await;
    assert_eq!(reply.json["kind"], "Pod");
    assert_eq!(
        server.get(&format!("{PODS}/waiting")).await.code,
        404,
        "a pod without a node is gone at once"
    );

    server.post(PODS, &pod("placed")).await;
    let path = format!("{PODS}/placed");
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "placed"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(server.post(&format!("{path}/binding"), &binding).await.code, 201);
    assert_eq!(server.post(&format!("{path}/binding"), &binding).await.code, 409);
    let bound = server.get(&path).await.json;
    assert_eq!(
        (
            &bound["spec"]["nodeName"],
            &bound["status"]["conditions"][0]["type"]
        ),
        (&json!("n1"), &json!("PodScheduled"))
    );
    let reply = server.delete(&path).await;
    assert_eq!(reply.json["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(server.get(&path).await.code, 200);
    let shorter = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        "preconditions": {"uid": bound["metadata"]["uid"]}});
    let reply = server
        .write(Method::DELETE, &path, "application/json", &shorter)
        .await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(server.get(&path).await.code, 404);
    server.shut_down().await;
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let server = Server::start().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"l": label});
        server.post(MAPS, &object).await;
    }
    assert_eq!(
        server.delete(&format!("{MAPS}?labelSelector=l%3Dx")).await.code,
        200
    );
    let left = server.get(&format!("{MAPS}?labelSelector=l")).await.json;
    let names: Vec<&Value> = left["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["metadata"]["name"])
        .collect();
    assert_eq!(names, ["b"]);
    server.shut_down().await;
}

#[tokio::test]
async fn events_have_two_forms() {
    let server = Server::start().await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-03-01T12:00:00.000000Z", "reportingController": "c", "reportingInstance": "i",
        "action": "Did", "reason": "Because", "note": "words", "type": "Normal",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default", "uid": "u1"},
    });
    let reply = server
        .post("/apis/events.k8s.io/v1/namespaces/default/events", &event)
        .await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    assert_eq!(reply.json["note"], "words");
    let core = server
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.uid%3Du1")
        .await
        .json;
    assert_eq!(
        (&core["items"][0]["message"], &core["items"][0]["apiVersion"]),
        (&json!("words"), &json!("v1"))
    );
    let other = server
        .get("/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector=regarding.uid%3Du1")
        .await
        .json;
    assert_eq!(other["items"][0]["regarding"]["name"], "p");
    server.shut_down().await;
}

#[tokio::test]
async fn leases_are_created_by_update() {
    let server = Server::start().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/l";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}});
    assert_eq!(server.put(path, &lease).await.code, 201);
    assert_eq!(server.put(path, &lease).await.code, 200);
    server.shut_down().await;
}

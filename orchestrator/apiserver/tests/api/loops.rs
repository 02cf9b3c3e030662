//! The loops behind the API: namespaces, garbage, ServiceAccounts, events that end.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Server, claim, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn owned(name: &str, owner: &Value, blocks: bool) -> Value {
    let mut object = config_map(name);
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "blockOwnerDeletion": blocks,
    }]);
    object
}

#[tokio::test]
async fn a_cluster_starts_with_its_first_objects() {
    let server = Server::start().await;
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let path = format!("/api/v1/namespaces/{namespace}");
        let found = server.get(&path).await;
        assert_eq!(found.json["status"]["phase"], "Active", "{}", found.text);
        assert_eq!(
            found.json["metadata"]["labels"]["kubernetes.io/metadata.name"],
            namespace
        );
        server
            .until(
                &format!("{path}/serviceaccounts/default"),
                "an account",
                |reply| reply.code == 200,
            )
            .await;
        let config_map = format!("{path}/configmaps/kube-root-ca.crt");
        let found = server
            .until(&config_map, "the authority", |reply| reply.code == 200)
            .await;
        assert_eq!(found.json["data"]["ca.crt"], server.server.pki().ca_pem());
    }
    let service = server
        .get("/api/v1/namespaces/default/services/kubernetes")
        .await
        .json;
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(
        server
            .get("/api/v1/namespaces/default/endpoints/kubernetes")
            .await
            .code,
        200
    );
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_taken_from_a_namespace_is_put_back() {
    let server = Server::start().await;
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    let before = server
        .until(account, "an account", |reply| reply.code == 200)
        .await
        .json;
    server.delete(account).await;
    let uid = before["metadata"]["uid"].clone();
    server
        .until(account, "a new account", |reply| {
            reply.code == 200 && reply.json["metadata"]["uid"] != uid
        })
        .await;
    let path = format!("{MAPS}/kube-root-ca.crt");
    server
        .until(&path, "the authority", |reply| reply.code == 200)
        .await;
    server.merge(&path, &json!({"data": {"ca.crt": "false"}})).await;
    let pem = server.server.pki().ca_pem().to_owned();
    server
        .until(&path, "the right authority", |reply| {
            reply.json["data"]["ca.crt"] == *pem
        })
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_deleted_namespace_is_emptied_first() {
    let server = Server::start().await;
    server
        .post(
            "/api/v1/namespaces",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}),
        )
        .await;
    let (path, inside) = (
        "/api/v1/namespaces/n",
        "/api/v1/namespaces/n/persistentvolumeclaims",
    );
    assert_eq!(
        server
            .post(&format!("{path}/configmaps"), &config_map("a"))
            .await
            .code,
        201
    );
    assert_eq!(server.post(inside, &claim("held")).await.code, 201);
    let reply = server.delete(path).await;
    assert_eq!(reply.json["status"]["phase"], "Terminating", "{}", reply.text);
    let refused = server.post(&format!("{path}/configmaps"), &config_map("b")).await;
    assert_eq!(
        (
            refused.code.as_u16(),
            &refused.json["details"]["causes"][0]["reason"]
        ),
        (403, &json!("NamespaceTerminating"))
    );
    let told = server
        .until(path, "conditions", |reply| {
            reply.json["status"]["conditions"]
                .as_array()
                .is_some_and(|list| !list.is_empty())
        })
        .await;
    assert!(
        told.text.contains("kubernetes.io/pvc-protection"),
        "{}",
        told.text
    );
    server
        .merge(
            &format!("{inside}/held"),
            &json!({"metadata": {"finalizers": null}}),
        )
        .await;
    server.until(path, "the end", |reply| reply.code == 404).await;
    assert_eq!(server.get(&format!("{path}/configmaps/a")).await.code, 404);
    server.shut_down().await;
}

#[tokio::test]
async fn what_belongs_to_something_gone_goes() {
    let server = Server::start().await;
    let owner = server.post(MAPS, &config_map("owner")).await.json;
    server.post(MAPS, &owned("part", &owner, false)).await;
    let part = server.get(&format!("{MAPS}/part")).await.json;
    server.post(MAPS, &owned("part-of-part", &part, false)).await;
    server.delete(&format!("{MAPS}/owner")).await;
    server
        .until(&format!("{MAPS}/part"), "collection", |reply| reply.code == 404)
        .await;
    server
        .until(&format!("{MAPS}/part-of-part"), "collection", |reply| {
            reply.code == 404
        })
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn an_owner_that_never_was_is_gone() {
    let server = Server::start().await;
    let mut owner = config_map("never");
    owner["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    assert_eq!(server.post(MAPS, &owned("part", &owner, false)).await.code, 201);
    server
        .until(&format!("{MAPS}/part"), "collection", |reply| reply.code == 404)
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn orphans_stay() {
    let server = Server::start().await;
    let owner = server.post(MAPS, &config_map("owner")).await.json;
    server.post(MAPS, &owned("part", &owner, true)).await;
    server
        .delete(&format!("{MAPS}/owner?propagationPolicy=Orphan"))
        .await;
    server
        .until(&format!("{MAPS}/owner"), "the owner's end", |reply| {
            reply.code == 404
        })
        .await;
    let part = server.get(&format!("{MAPS}/part")).await;
    assert_eq!(
        (part.code.as_u16(), part.json["metadata"].get("ownerReferences")),
        (200, None)
    );
    server.shut_down().await;
}

#[tokio::test]
async fn in_the_foreground_parts_go_first() {
    let server = Server::start().await;
    let owner = server.post(MAPS, &config_map("owner")).await.json;
    let mut part = owned("part", &owner, true);
    part["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(MAPS, &part).await;
    server
        .delete(&format!("{MAPS}/owner?propagationPolicy=Foreground"))
        .await;
    let path = format!("{MAPS}/part");
    server
        .until(&path, "deletion", |reply| {
            reply.json["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
    assert_eq!(server.get(&format!("{MAPS}/owner")).await.code, 200);
    let release = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    let reply = server
        .write(Method::PATCH, &path, "application/json-patch+json", &release)
        .await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    server
        .until(&format!("{MAPS}/owner"), "the owner's end", |reply| {
            reply.code == 404
        })
        .await;
    assert_eq!(server.get(&path).await.code, 404);
    server.shut_down().await;
}

#[tokio::test]
async fn events_end_by_themselves() {
    let server = Server::start_with(|config| config.event_ttl = Duration::from_secs(1)).await;
    let path = "/api/v1/namespaces/default/events";
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "m", "reason": "R", "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}});
    assert_eq!(server.post(path, &event).await.code, 201);
    server
        .until(&format!("{path}/e"), "its end", |reply| reply.code == 404)
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn old_revisions_are_forgotten() {
    let server = Server::start_with(|config| config.compaction_interval = Duration::from_millis(50)).await;
    let created = server.post(MAPS, &config_map("a")).await.json;
    let revision = created["metadata"]["resourceVersion"].as_str().unwrap();
    server
        .merge(&format!("{MAPS}/a"), &json!({"data": {"a": "2"}}))
        .await;
    let path = format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    let expired = server.until(&path, "compaction", |reply| reply.code == 410).await;
    assert_eq!(expired.json["reason"], "Expired");
    server.shut_down().await;
}

#[tokio::test]
async fn claims_get_the_default_class_and_grow_only_where_allowed() {
    let server = Server::start().await;
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "x", "allowVolumeExpansion": false,
        "metadata": {"name": "std", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    server
        .post("/apis/storage.k8s.io/v1/storageclasses", &class)
        .await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let mut object = claim("c");
    object["spec"].as_object_mut().unwrap().remove("storageClassName");
    let created = server.post(claims, &object).await.json;
    assert_eq!(created["spec"]["storageClassName"], "std");
    let path = format!("{claims}/c");
    server
        .merge(&format!("{path}/status"), &json!({"status": {"phase": "Bound"}}))
        .await;
    let grow = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let refused = server.merge(&path, &grow).await;
    assert_eq!(refused.code, 403, "{}", refused.text);
    server
        .merge(
            "/apis/storage.k8s.io/v1/storageclasses/std",
            &json!({"allowVolumeExpansion": true}),
        )
        .await;
    let grown = server.merge(&path, &grow).await;
    assert_eq!(grown.code, 200, "{}", grown.text);
    server.shut_down().await;
}

#[tokio::test]
async fn pods_wait_for_the_account_of_a_new_namespace() {
    let server = Server::start().await;
    server
        .post(
            "/api/v1/namespaces",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fresh"}}),
        )
        .await;
    let reply = server.post("/api/v1/namespaces/fresh/pods", &pod("p")).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    server.shut_down().await;
}

//! Lists: pages, revisions, selectors, tables.

use http::Request;
use kube::client::Body;
use serde_json::{Value, json};

use crate::harness::{Reply, Server, config_map};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque"})
}

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

async fn accepting(server: &Server, path: &str, accept: &str) -> Reply {
    server
        .send(
            Request::get(path)
                .header("accept", accept)
                .body(Body::empty())
                .unwrap(),
        )
        .await
}

#[tokio::test]
async fn pages_show_one_revision() {
    let server = Server::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        server.post(SECRETS, &secret(name)).await;
    }
    let first = server.get(&format!("{SECRETS}?limit=2")).await.json;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // What changes between two pages is not seen.
    server.delete(&format!("{SECRETS}/c")).await;
    server.post(SECRETS, &secret("bb")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server
        .get(&format!("{SECRETS}?limit=2&continue={token}"))
        .await
        .json;
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = server
        .get(&format!("{SECRETS}?limit=2&continue={token}"))
        .await
        .json;
    assert_eq!(names(&third), ["e"]);
    assert_eq!(third["metadata"].get("continue"), None);
    server.shut_down().await;
}

#[tokio::test]
async fn an_expired_page_says_how_to_go_on() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.post(SECRETS, &secret(name)).await;
    }
    let first = server.get(&format!("{SECRETS}?limit=1")).await.json;
    server.delete(&format!("{SECRETS}/b")).await;
    server
        .store
        .compact(server.store.current_revision())
        .await
        .unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let expired = server.get(&format!("{SECRETS}?limit=1&continue={token}")).await;
    assert_eq!(
        (expired.code.as_u16(), &expired.json["reason"]),
        (410, &json!("Expired")),
        "{}",
        expired.text
    );
    let token = expired.json["metadata"]["continue"].as_str().unwrap();
    let rest = server
        .get(&format!("{SECRETS}?limit=1&continue={token}"))
        .await
        .json;
    assert_eq!(names(&rest), ["c"]);
    server.shut_down().await;
}

#[tokio::test]
async fn exact_revisions() {
    let server = Server::start().await;
    let created = server.post(SECRETS, &secret("a")).await.json;
    server.post(SECRETS, &secret("b")).await;
    let revision = created["metadata"]["resourceVersion"].as_str().unwrap();
    let then = server
        .get(&format!(
            "{SECRETS}?resourceVersion={revision}&resourceVersionMatch=Exact"
        ))
        .await
        .json;
    assert_eq!(
        (
            names(&then),
            then["metadata"]["resourceVersion"].as_str().unwrap()
        ),
        (vec!["a"], revision)
    );
    let now = server
        .get(&format!("{SECRETS}?resourceVersion={revision}"))
        .await
        .json;
    assert_eq!(names(&now), ["a", "b"]);
    server.shut_down().await;
}

#[tokio::test]
async fn selectors() {
    let server = Server::start().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "z")] {
        let mut object = secret(name);
        object["metadata"]["labels"] = json!({"l": label});
        object["type"] = json!(format!("example.com/{label}"));
        server.post(SECRETS, &object).await;
    }
    let cases = [
        ("labelSelector=l%3Dx", vec!["a"]),
        ("labelSelector=l%20in%20(x%2Cy)", vec!["a", "b"]),
        ("labelSelector=l!%3Dx", vec!["b", "c"]),
        ("labelSelector=!l", vec![]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.name!%3Db", vec!["a", "c"]),
        ("fieldSelector=type%3Dexample.com/z", vec!["c"]),
        ("fieldSelector=metadata.name%3Db&labelSelector=l%3Dx", vec![]),
    ];
    for (query, expected) in cases {
        let list = server.get(&format!("{SECRETS}?{query}")).await.json;
        assert_eq!(names(&list), expected, "{query}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn tables_and_metadata() {
    let server = Server::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    server.post(maps, &config_map("a")).await;
    let table = accepting(&server, &format!("{maps}/a"), TABLE).await.json;
    assert_eq!(
        (&table["kind"], &table["apiVersion"]),
        (&json!("Table"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let list = accepting(
        &server,
        maps,
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    )
    .await
    .json;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(
        (
            list["items"][0]["metadata"]["name"].as_str(),
            list["items"][0].get("data")
        ),
        (Some("a"), None)
    );
    server.shut_down().await;
}

#[tokio::test]
async fn discovery_in_both_forms() {
    let server = Server::start().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let reply = accepting(&server, "/apis", aggregated).await;
    assert!(
        reply.headers["content-type"]
            .to_str()
            .unwrap()
            .contains("as=APIGroupDiscoveryList")
    );
    let tag = reply.headers["etag"].to_str().unwrap().to_owned();
    let request = Request::get("/apis")
        .header("accept", aggregated)
        .header("if-none-match", tag);
    assert_eq!(server.send(request.body(Body::empty()).unwrap()).await.code, 304);
    let plain = server.get("/apis").await.json;
    assert_eq!(plain["kind"], "APIGroupList");
    assert_eq!(server.get("/api/v1").await.json["kind"], "APIResourceList");
    assert_eq!(server.get("/apis/storage.k8s.io").await.json["kind"], "APIGroup");
    server.shut_down().await;
}

#[tokio::test]
async fn large_answers_are_compressed_on_request() {
    let server = Server::start().await;
    for index in 0..4 {
        let mut object = config_map(&format!("m{index}"));
        object["data"]["a"] = json!("x".repeat(60_000));
        server
            .post("/api/v1/namespaces/default/configmaps", &object)
            .await;
    }
    let path = "/api/v1/configmaps";
    let request = Request::get(path)
        .header("accept-encoding", "gzip")
        .body(Body::empty())
        .unwrap();
    let packed = server.send(request).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.text.len() < 50_000);
    assert_eq!(server.get(path).await.headers.get("content-encoding"), None);
    server.shut_down().await;
}

//! Watches: order, selectors, initial events, bookmarks, ends.

use std::time::Duration;

use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Server, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The lines of a running watch.
struct Lines {
    pieces: futures::stream::BoxStream<'static, Vec<u8>>,
    buffer: Vec<u8>,
}

impl Lines {
    async fn open(server: &Server, query: &str) -> Self {
        let request = Request::get(format!("{MAPS}?watch=true&{query}"))
            .body(Body::empty())
            .unwrap();
        let answer = server.admin().send(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/json");
        let pieces = answer
            .into_body()
            .into_data_stream()
            .map(|piece| piece.unwrap().to_vec())
            .boxed();
        Lines {
            pieces,
            buffer: Vec::new(),
        }
    }

    /// The next event; nothing at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let piece = tokio::time::timeout(PATIENCE, self.pieces.next())
                .await
                .expect("an event in time");
            self.buffer.extend(piece?);
        }
    }

    async fn expect(&mut self, expected: &[(&str, &str)]) {
        for (kind, name) in expected {
            let event = self.next().await.unwrap();
            let found = (
                event["type"].as_str().unwrap(),
                event["object"]["metadata"]["name"].as_str().unwrap_or_default(),
            );
            assert_eq!(found, (*kind, *name), "{event}");
        }
    }
}

async fn revision(server: &Server) -> String {
    server.get(MAPS).await.json["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn labelled(name: &str, label: &str) -> Value {
    let mut object = config_map(name);
    object["metadata"]["labels"] = json!({"l": label});
    object
}

#[tokio::test]
async fn changes_come_in_order_from_a_revision() {
    let server = Server::start().await;
    let from = revision(&server).await;
    server.post(MAPS, &config_map("a")).await;
    server
        .merge(&format!("{MAPS}/a"), &json!({"data": {"a": "2"}}))
        .await;
    let mut lines = Lines::open(&server, &format!("resourceVersion={from}")).await;
    let deleted = server.delete(&format!("{MAPS}/a")).await;
    assert_eq!(deleted.code, 200);
    lines
        .expect(&[("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")])
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn the_deleted_object_carries_the_revision_of_its_deletion() {
    let server = Server::start().await;
    let created = server.post(MAPS, &config_map("a")).await.json;
    let from = created["metadata"]["resourceVersion"].as_str().unwrap();
    server.delete(&format!("{MAPS}/a")).await;
    let mut lines = Lines::open(&server, &format!("resourceVersion={from}")).await;
    let event = lines.next().await.unwrap();
    let number = |value: &str| value.parse::<u64>().unwrap();
    assert!(number(event["object"]["metadata"]["resourceVersion"].as_str().unwrap()) > number(from));
    assert_eq!(event["object"]["data"]["a"], "1");
    server.shut_down().await;
}

#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings() {
    let server = Server::start().await;
    let from = revision(&server).await;
    let mut lines = Lines::open(&server, &format!("resourceVersion={from}&labelSelector=l%3Dx")).await;
    server.post(MAPS, &labelled("a", "y")).await;
    server
        .merge(&format!("{MAPS}/a"), &json!({"metadata": {"labels": {"l": "x"}}}))
        .await;
    server
        .merge(&format!("{MAPS}/a"), &json!({"data": {"a": "2"}}))
        .await;
    let gone = server
        .merge(&format!("{MAPS}/a"), &json!({"metadata": {"labels": {"l": "y"}}}))
        .await
        .json;
    server.post(MAPS, &labelled("b", "x")).await;
    lines.expect(&[("ADDED", "a"), ("MODIFIED", "a")]).await;
    let event = lines.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["metadata"]["labels"]["l"]),
        (&json!("DELETED"), &json!("x"))
    );
    assert_eq!(
        event["object"]["metadata"]["resourceVersion"],
        gone["metadata"]["resourceVersion"]
    );
    lines.expect(&[("ADDED", "b")]).await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_namespace_is_watched_alone() {
    let server = Server::start().await;
    let from = revision(&server).await;
    let mut lines = Lines::open(&server, &format!("resourceVersion={from}")).await;
    server
        .post("/api/v1/namespaces/kube-system/configmaps", &config_map("other"))
        .await;
    server.post(MAPS, &config_map("mine")).await;
    lines.expect(&[("ADDED", "mine")]).await;
    server.shut_down().await;
}

#[tokio::test]
async fn initial_events_end_with_a_marked_bookmark() {
    let server = Server::start().await;
    server.post(MAPS, &labelled("a", "x")).await;
    server.post(MAPS, &labelled("b", "y")).await;
    let query =
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=l";
    for revision in ["", "&resourceVersion=0", "&resourceVersion=1"] {
        let mut lines = Lines::open(&server, &format!("{query}{revision}")).await;
        lines.expect(&[("ADDED", "a"), ("ADDED", "b")]).await;
        let mark = lines.next().await.unwrap();
        assert_eq!(
            (&mark["type"], &mark["object"]["kind"]),
            (&json!("BOOKMARK"), &json!("ConfigMap"))
        );
        assert_eq!(
            mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
            "true"
        );
        let name = format!("later{}", revision.len());
        server.post(MAPS, &labelled(&name, "z")).await;
        lines.expect(&[("ADDED", &name)]).await;
        server.delete(&format!("{MAPS}/{name}")).await;
    }
    server.shut_down().await;
}

#[tokio::test]
async fn initial_events_of_nothing_are_marked_too() {
    let server = Server::start().await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=none";
    let mut lines = Lines::open(&server, query).await;
    assert_eq!(lines.next().await.unwrap()["type"], "BOOKMARK");
    server.shut_down().await;
}

#[tokio::test]
async fn without_a_revision_the_state_comes_first() {
    let server = Server::start().await;
    server.post(MAPS, &labelled("a", "x")).await;
    for query in ["labelSelector=l", "labelSelector=l&resourceVersion=0"] {
        let mut lines = Lines::open(&server, query).await;
        lines.expect(&[("ADDED", "a")]).await;
    }
    server.shut_down().await;
}

#[tokio::test]
async fn one_name_can_be_watched_before_it_exists() {
    let server = Server::start().await;
    let from = revision(&server).await;
    let mut lines = Lines::open(
        &server,
        &format!("resourceVersion={from}&fieldSelector=metadata.name%3Dlate"),
    )
    .await;
    server.post(MAPS, &config_map("early")).await;
    server.post(MAPS, &config_map("late")).await;
    lines.expect(&[("ADDED", "late")]).await;
    server.shut_down().await;
}

#[tokio::test]
async fn too_old_a_revision_is_said_in_the_stream() {
    let first = Server::start().await;
    first.post(MAPS, &config_map("a")).await;
    let store = std::sync::Arc::clone(&first.store);
    first.shut_down().await;
    // A server that has just started knows the state, but not how it came to be.
    let server = Server::start_on(store, |_| {}).await;
    let mut lines = Lines::open(&server, "resourceVersion=1").await;
    let error = lines.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(error["object"]["reason"], "Expired");
    assert!(lines.next().await.is_none());
    server.shut_down().await;
}

#[tokio::test]
async fn a_watch_ends_at_its_deadline() {
    let server = Server::start().await;
    let from = revision(&server).await;
    let query = format!("resourceVersion={from}&timeoutSeconds=1&allowWatchBookmarks=true");
    let mut lines = Lines::open(&server, &query).await;
    let last = lines.next().await.unwrap();
    assert_eq!(last["type"], "BOOKMARK");
    assert!(lines.next().await.is_none());
    server.shut_down().await;
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let server = Server::start().await;
    let from = revision(&server).await;
    let mut lines = Lines::open(&server, &format!("resourceVersion={from}")).await;
    server.stop.cancel();
    assert!(lines.next().await.is_none());
    let refused = server.get(&format!("{MAPS}?watch=true")).await;
    assert_eq!(
        (
            refused.code.as_u16(),
            refused.headers["retry-after"].to_str().unwrap()
        ),
        (503, "1")
    );
    tokio::time::timeout(Duration::from_secs(5), server.server.stopped())
        .await
        .unwrap();
}

#[tokio::test]
async fn table_watches_show_rows() {
    let server = Server::start().await;
    let from = revision(&server).await;
    let request = Request::get(format!("{MAPS}?watch=1&resourceVersion={from}&timeoutSeconds=1")).header(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    );
    let client = server.admin();
    let answer = client.send(request.body(Body::empty()).unwrap()).await.unwrap();
    server.post(MAPS, &config_map("a")).await;
    let bytes = answer.into_body().collect_bytes().await.unwrap();
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap();
    let event: Value = serde_json::from_slice(line).unwrap();
    assert_eq!(
        (&event["object"]["kind"], &event["object"]["rows"][0]["cells"][0]),
        (&json!("Table"), &json!("a"))
    );
    server.shut_down().await;
}

//! What the recorder sends to an API server.

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::Value;

use super::*;

type Requests = Arc<Mutex<Vec<(String, String, Value)>>>;

/// A client that records requests and answers with the codes of `script`, then with 200.
fn client(requests: &Requests, script: Vec<u16>) -> Client {
    let requests = requests.clone();
    let script = Arc::new(Mutex::new(script));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (requests, script) = (requests.clone(), script.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("body").to_bytes();
            let body: Value = serde_json::from_slice(&body).expect("json body");
            requests.lock().push((
                parts.method.to_string(),
                parts.uri.path().to_string(),
                body.clone(),
            ));
            let code = if script.lock().is_empty() {
                200
            } else {
                script.lock().remove(0)
            };
            let answer = if code < 300 {
                serde_json::json!({"metadata": {}, "involvedObject": {}})
            } else {
                serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "", "reason": "", "code": code})
            };
            Ok::<_, Infallible>(
                Response::builder()
                    .status(code)
                    .body(Full::from(answer.to_string()))
                    .expect("response"),
            )
        }
    });
    Client::new(service, "default")
}

fn claim() -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: Some("ns".into()),
        name: Some("data".into()),
        uid: Some("u1".into()),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn first_creates_then_patches_the_count() {
    let requests = Requests::default();
    let recorder = Recorder::new(client(&requests, vec![]), "binder", "", CancellationToken::new());
    recorder.event(
        &claim(),
        EventType::Warning,
        "ProvisioningFailed",
        "no space".into(),
    );
    recorder.flush().await;
    recorder.event(
        &claim(),
        EventType::Warning,
        "ProvisioningFailed",
        "no space".into(),
    );
    recorder.flush().await;
    let requests = requests.lock().clone();
    assert_eq!(requests.len(), 2, "{requests:?}");
    let (method, path, body) = &requests[0];
    assert_eq!(
        (method.as_str(), path.as_str()),
        ("POST", "/api/v1/namespaces/ns/events")
    );
    let name = body["metadata"]["name"].as_str().expect("name");
    assert!(name.starts_with("data."), "{name}");
    assert_eq!(
        [
            &body["type"],
            &body["reason"],
            &body["message"],
            &body["source"]["component"]
        ],
        ["Warning", "ProvisioningFailed", "no space", "binder"]
    );
    assert_eq!(
        (&body["count"], &body["involvedObject"]["uid"]),
        (&1.into(), &"u1".into())
    );
    let (method, path, body) = &requests[1];
    assert_eq!(
        (method.as_str(), path),
        ("PATCH", &format!("/api/v1/namespaces/ns/events/{name}"))
    );
    assert_eq!(body["count"], 2);
}

#[tokio::test(start_paused = true)]
async fn an_expired_event_is_created_anew() {
    let requests = Requests::default();
    let recorder = Recorder::new(
        client(&requests, vec![200, 404]),
        "binder",
        "",
        CancellationToken::new(),
    );
    for _ in 0..2 {
        recorder.event(&claim(), EventType::Normal, "Provisioning", "started".into());
        recorder.flush().await;
    }
    let methods: Vec<String> = requests
        .lock()
        .iter()
        .map(|(method, ..)| method.clone())
        .collect();
    assert_eq!(methods, ["POST", "PATCH", "POST"]);
}

#[tokio::test(start_paused = true)]
async fn unavailable_is_retried_and_forbidden_is_not() {
    for (code, expected) in [(503, 2), (403, 1)] {
        let requests = Requests::default();
        let recorder = Recorder::new(
            client(&requests, vec![code]),
            "binder",
            "",
            CancellationToken::new(),
        );
        recorder.event(&claim(), EventType::Normal, "Provisioning", "started".into());
        recorder.flush().await;
        assert_eq!(requests.lock().len(), expected, "after {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_writes_what_is_queued_and_takes_no_more() {
    let requests = Requests::default();
    let stop = CancellationToken::new();
    let recorder = Recorder::new(client(&requests, vec![]), "binder", "", stop.clone());
    recorder.event(&claim(), EventType::Normal, "A", "a".into());
    stop.cancel();
    recorder.stopped().await;
    recorder.event(&claim(), EventType::Normal, "B", "b".into());
    recorder.flush().await;
    assert_eq!((requests.lock().len(), recorder.dropped()), (1, 1));
}

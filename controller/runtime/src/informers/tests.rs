//! Informers over a scripted API server.

use std::collections::VecDeque;
use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::cache::Change;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One answer: status code, then lines of the body; a watch that ends with `hang` stays open.
#[derive(Clone)]
struct Answer {
    code: u16,
    lines: Vec<Value>,
    hang: bool,
}

/// Requests seen (path and query) and answers still to give; the last answer is never used up.
#[derive(Clone, Default)]
struct Script {
    requests: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Script {
    fn new(answers: Vec<Answer>) -> Self {
        Self {
            requests: Arc::default(),
            answers: Arc::new(Mutex::new(answers.into())),
        }
    }

    fn client(&self) -> Client {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let answer = script.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Body> {
        self.requests.lock().push(request.uri().to_string());
        let mut answers = self.answers.lock();
        let answer = match answers.len() {
            0 => panic!("no answer left for {}", request.uri()),
            1 => answers[0].clone(),
            _ => answers.pop_front().expect("not empty"),
        };
        let frames: Vec<Result<Frame<Bytes>, Infallible>> = answer
            .lines
            .iter()
            .map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n")))))
            .collect();
        let stream = futures::stream::iter(frames);
        let body: Body = if answer.hang {
            StreamBody::new(stream.chain(futures::stream::pending())).boxed_unsync()
        } else {
            StreamBody::new(stream).boxed_unsync()
        };
        Response::builder()
            .status(answer.code)
            .body(body)
            .expect("valid response")
    }
}

fn node(name: &str, version: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
           "metadata": {"name": name, "uid": name, "resourceVersion": version.to_string()}})
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn list_end(version: u64) -> Value {
    event(
        "BOOKMARK",
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {
            "resourceVersion": version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}),
    )
}

/// Polls until the cache holds exactly `names`.
async fn holds(cache: &Cache<Node>, names: &[&str]) {
    let held = || {
        let mut held: Vec<String> = cache
            .list()
            .iter()
            .filter_map(|node| node.metadata.name.clone())
            .collect();
        held.sort();
        held
    };
    let poll = async {
        while held() != names {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(120), poll).await;
    assert!(in_time.is_ok(), "wanted {names:?}, last seen {:?}", held());
}

#[tokio::test(start_paused = true)]
async fn one_watch_per_kind_lists_and_follows() {
    let script = Script::new(vec![Answer {
        code: 200,
        lines: vec![
            event("ADDED", node("a", 1)),
            list_end(5),
            event("ADDED", node("b", 6)),
            event("DELETED", node("a", 7)),
        ],
        hang: true,
    }]);
    let informers = Informers::new(script.client(), CancellationToken::new());
    let cache = informers.cache::<Node>();
    let same = informers.cache::<Node>();
    cache.synced().await;
    holds(&same, &["b"]).await;
    assert_eq!(script.requests.lock().len(), 1, "{:?}", script.requests.lock());
    assert!(script.requests.lock()[0].contains("sendInitialEvents=true"));
    informers.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_selected_cache_has_its_own_watch() {
    let script = Script::new(vec![Answer {
        code: 200,
        lines: vec![list_end(5)],
        hang: true,
    }]);
    let informers = Informers::new(script.client(), CancellationToken::new());
    informers.cache::<Node>().synced().await;
    informers
        .cache_selected::<Node>("metadata.name=n1")
        .synced()
        .await;
    let requests = script.requests.lock().clone();
    assert_eq!(requests.len(), 2);
    assert!(
        requests[1].contains("fieldSelector=metadata.name%3Dn1"),
        "{}",
        requests[1]
    );
    informers.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn errors_and_expired_versions_lead_to_a_new_list() {
    let unavailable = Answer {
        code: 503,
        lines: vec![
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "starting", "reason": "ServiceUnavailable", "code": 503}),
        ],
        hang: false,
    };
    let expired = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too old", "reason": "Expired", "code": 410});
    let script = Script::new(vec![
        unavailable.clone(),
        Answer {
            code: 200,
            lines: vec![event("ADDED", node("a", 1)), list_end(5), event("ERROR", expired)],
            hang: false,
        },
        unavailable,
        Answer {
            code: 200,
            lines: vec![event("ADDED", node("b", 6)), list_end(9)],
            hang: true,
        },
    ]);
    let informers = Informers::new(script.client(), CancellationToken::new());
    let cache = informers.cache::<Node>();
    let log = Arc::new(Mutex::new(Vec::new()));
    let sink = log.clone();
    cache.on_change(move |change| {
        let sign = match change {
            Change::Added(_) => "+",
            Change::Updated { .. } => "~",
            Change::Removed(_) => "-",
        };
        sink.lock().push(format!(
            "{sign}{}",
            change.object().metadata.name.as_deref().unwrap_or("?")
        ));
    });
    holds(&cache, &["b"]).await;
    assert_eq!(*log.lock(), ["+a", "+b", "-a"]);
    informers.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn without_streaming_lists_pages_are_listed() {
    let script = Script::new(vec![
        Answer {
            code: 422,
            lines: vec![
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "sendInitialEvents is forbidden", "reason": "Invalid", "code": 422}),
            ],
            hang: false,
        },
        Answer {
            code: 200,
            lines: vec![
                json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": [node("a", 1)]}),
            ],
            hang: false,
        },
        Answer {
            code: 200,
            lines: vec![event("ADDED", node("b", 6))],
            hang: true,
        },
    ]);
    let informers = Informers::new(script.client(), CancellationToken::new());
    holds(&informers.cache::<Node>(), &["a", "b"]).await;
    informers.shutdown().await;
}

//! A small API server for tests: keeps objects, checks versions, follows watches. It knows no more rules than the
//! scheduler relies on.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An object's place: plural, namespace (empty for none), name.
type Place = (String, String, String);

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<Place, Value>,
    watchers: Vec<(String, mpsc::UnboundedSender<Value>)>,
    /// Writes as `METHOD path`, in order.
    log: Vec<String>,
    /// Answers to give instead of doing the next write whose log line contains the text.
    refusals: Vec<(String, u16)>,
}

/// The server. Clones share everything.
#[derive(Clone)]
pub(super) struct Api {
    state: Arc<Mutex<State>>,
    /// Lists of pods wait for this.
    pods_open: watch::Sender<bool>,
}

impl Api {
    pub(super) fn new() -> Self {
        Self {
            state: Arc::default(),
            pods_open: watch::Sender::new(true),
        }
    }

    pub(super) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Holds lists of pods back, or lets them go.
    pub(super) fn open_pods(&self, open: bool) {
        self.pods_open.send_replace(open);
    }

    /// Refuses the next write whose line in the log would contain `line`.
    pub(super) fn refuse(&self, line: &str, code: u16) {
        self.state.lock().refusals.push((line.into(), code));
    }

    pub(super) fn writes(&self, containing: &str) -> Vec<String> {
        let log = &self.state.lock().log;
        log.iter()
            .filter(|line| line.contains(containing))
            .cloned()
            .collect()
    }

    pub(super) fn get(&self, plural: &str, name: &str) -> Option<Value> {
        let state = self.state.lock();
        let found = state
            .objects
            .iter()
            .find(|((p, _, n), _)| p == plural && n == name);
        found.map(|(_, object)| object.clone())
    }

    /// Makes or replaces an object.
    pub(super) fn put(&self, plural: &str, object: Value) {
        self.state.lock().store(plural, object);
    }

    pub(super) fn delete(&self, plural: &str, name: &str) {
        let mut state = self.state.lock();
        let place = state
            .objects
            .keys()
            .find(|(p, _, n)| p == plural && n == name)
            .cloned();
        let mut object = state
            .objects
            .remove(&place.expect("it is there"))
            .expect("it is there");
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.announce(plural, "DELETED", object);
    }

    /// Messages of the events with this reason.
    pub(super) fn events(&self, reason: &str) -> Vec<String> {
        let state = self.state.lock();
        let events = state
            .objects
            .iter()
            .filter(|((plural, _, _), _)| plural == "events");
        let wanted = events.filter(|(_, event)| event["reason"] == reason);
        wanted
            .map(|(_, event)| event["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.expect("a body in memory").to_bytes();
        let segments: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
        // Without group and version.
        let path = if segments[0] == "api" {
            &segments[2..]
        } else {
            &segments[3..]
        };
        let (namespace, path) = match path {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            path => ("", path),
        };
        if parts.method == Method::GET {
            assert!(
                parts
                    .uri
                    .query()
                    .is_some_and(|query| query.contains("watch=true")),
                "{}",
                parts.uri
            );
            return self.watch(path[0]).await;
        }
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        self.state.lock().write(&parts.method, namespace, path, body)
    }

    async fn watch(&self, plural: &str) -> Response<Body> {
        if plural == "pods" {
            let mut open = self.pods_open.subscribe();
            open.wait_for(|open| *open).await.ok();
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        for (_, object) in state.objects.iter().filter(|((p, _, _), _)| p == plural) {
            sender
                .send(json!({"type": "ADDED", "object": object}))
                .expect("the receiver is here");
        }
        let bookmark = json!({"type": "BOOKMARK", "object": {
            "kind": "Any", "apiVersion": "v1",
            "metadata": {"resourceVersion": state.version.to_string(),
                         "annotations": {"k8s.io/initial-events-end": "true"}},
        }});
        sender.send(bookmark).expect("the receiver is here");
        state.watchers.push((plural.into(), sender));
        let lines = futures::stream::unfold(receiver, async |mut receiver| {
            let event: Value = receiver.recv().await?;
            Some((Ok(Frame::data(Bytes::from(format!("{event}\n")))), receiver))
        });
        Response::new(StreamBody::new(lines.boxed()).boxed_unsync())
    }
}

impl State {
    fn store(&mut self, plural: &str, mut object: Value) -> Value {
        self.version += 1;
        let meta = &mut object["metadata"];
        meta["resourceVersion"] = self.version.to_string().into();
        let text = |key: &str| meta[key].as_str().unwrap_or_default().to_owned();
        let place = (plural.to_owned(), text("namespace"), text("name"));
        if meta["uid"].is_null() {
            meta["uid"] = format!("uid-{}-{}", place.2, self.version).into();
        }
        let is_new = self.objects.insert(place, object.clone()).is_none();
        self.announce(plural, if is_new { "ADDED" } else { "MODIFIED" }, object.clone());
        object
    }

    fn announce(&mut self, plural: &str, kind: &str, object: Value) {
        let event = json!({"type": kind, "object": object});
        self.watchers
            .retain(|(watched, sender)| watched != plural || sender.send(event.clone()).is_ok());
    }

    fn write(&mut self, method: &Method, namespace: &str, path: &[&str], body: Value) -> Response<Body> {
        let line = format!("{method} {}", path.join("/"));
        if let Some(refused) = self.refusals.iter().position(|(text, _)| line.contains(text)) {
            let (_, code) = self.refusals.remove(refused);
            return status(code, "refused by the test");
        }
        let answer = match (method, path) {
            (&Method::POST, [plural]) => Ok(self.store(plural, body)),
            (&Method::POST, ["pods", name, "binding"]) => self.bind(namespace, name, &body),
            (&Method::PATCH, [plural, name, ..]) => self.patch(plural, namespace, name, body),
            _ => panic!("not expected of the scheduler: {line}"),
        };
        match answer {
            Ok(object) => {
                self.log.push(line);
                response(200, &object)
            }
            Err((code, message)) => status(code, message),
        }
    }

    fn bind(&mut self, namespace: &str, name: &str, binding: &Value) -> Result<Value, (u16, &'static str)> {
        let place = ("pods".to_owned(), namespace.to_owned(), name.to_owned());
        let mut pod = self.objects.get(&place).cloned().ok_or((404, "no such pod"))?;
        if pod["spec"]["nodeName"].is_string() || pod["metadata"]["uid"] != binding["metadata"]["uid"] {
            return Err((409, "the pod is bound or another one"));
        }
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        self.store("pods", pod);
        Ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    }

    fn patch(
        &mut self,
        plural: &str,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<Value, (u16, &'static str)> {
        let place = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let mut object = self.objects.get(&place).cloned().ok_or((404, "no such object"))?;
        for key in ["resourceVersion", "uid"] {
            let wanted = &patch["metadata"][key];
            if !wanted.is_null() && *wanted != object["metadata"][key] {
                return Err((409, "precondition"));
            }
        }
        merge(&mut object, patch);
        Ok(self.store(plural, object))
    }
}

/// RFC 7396.
fn merge(object: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *object = patch;
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().expect("made one").remove(&key);
        } else {
            merge(&mut object[key.as_str()], value);
        }
    }
}

fn status(code: u16, message: &str) -> Response<Body> {
    let reason = if code == 409 { "Conflict" } else { "Refused" };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                        "reason": reason, "message": message});
    response(code, &status)
}

fn response(code: u16, body: &Value) -> Response<Body> {
    let body = http_body_util::Full::new(Bytes::from(body.to_string())).boxed_unsync();
    Response::builder()
        .status(code)
        .body(body)
        .expect("a valid response")
}

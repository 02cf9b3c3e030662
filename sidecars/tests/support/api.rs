//! A small API server over `serde_json` values: list, watch, get, create, patch, delete with finalizers. No defaults,
//! no validation; what is asked of it is counted, and answers can be made to fail.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::crash::Crash;

type Body = UnsyncBoxBody<Bytes, Infallible>;
/// Plural, namespace, name.
type Key = (String, String, String);

#[derive(Clone, Debug)]
struct Change {
    version: u64,
    plural: String,
    kind: &'static str,
    object: Value,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Value>,
    changes: Vec<Change>,
    requests: Vec<String>,
    /// Codes to answer with instead of doing it, by `METHOD plural`.
    failures: HashMap<String, Vec<u16>>,
}

#[derive(Clone)]
pub struct Api {
    /// Where the process that uses it dies.
    pub crash: Crash,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            crash: Crash::default(),
            state: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }
}

struct Target {
    plural: String,
    namespace: String,
    name: Option<String>,
    subresource: Option<String>,
}

impl Api {
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Puts an object, as another client would.
    pub fn put(&self, plural: &str, mut object: Value) {
        let key = key_of(plural, &object);
        let mut state = self.state.lock();
        let kind = if state.objects.contains_key(&key) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}-{}", key.2, state.version));
        }
        self.write(&mut state, key, object, kind);
    }

    /// Changes an object, as another client would.
    pub fn edit(&self, plural: &str, namespace: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.get(plural, namespace, name).expect("object to edit exists");
        edit(&mut object);
        self.put(plural, object);
    }

    /// Deletes an object, as another client would: with finalizers, only marks it.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.state.lock();
        self.remove(&mut state, (plural.into(), namespace.into(), name.into()));
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state
            .lock()
            .objects
            .get(&(plural.into(), namespace.into(), name.into()))
            .cloned()
    }

    pub fn list(&self, plural: &str) -> Vec<Value> {
        let state = self.state.lock();
        state
            .objects
            .iter()
            .filter(|(key, _)| key.0 == plural)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The reasons of all events about objects of that name.
    pub fn reasons(&self, name: &str) -> Vec<String> {
        let about = |event: &Value| event["involvedObject"]["name"] == name;
        let events = self.list("events");
        events
            .iter()
            .filter(|e| about(e))
            .map(|e| e["reason"].as_str().unwrap_or_default().to_string())
            .collect()
    }

    /// Writes seen so far, but for events, as `METHOD plural[/subresource]`.
    pub fn writes(&self) -> Vec<String> {
        let state = self.state.lock();
        let is_write = |request: &&String| !request.starts_with("GET") && !request.ends_with(" events");
        state.requests.iter().filter(is_write).cloned().collect()
    }

    pub fn requests(&self) -> Vec<String> {
        self.state.lock().requests.clone()
    }

    /// The next request of that kind is answered with `code` and not done.
    pub fn fail(&self, method: &str, plural: &str, code: u16) {
        self.state
            .lock()
            .failures
            .entry(format!("{method} {plural}"))
            .or_default()
            .push(code);
    }

    pub fn dump(&self) -> Value {
        let state = self.state.lock();
        json!({"objects": state.objects.values().collect::<Vec<_>>(), "requests": state.requests})
    }

    fn write(&self, state: &mut State, key: Key, mut object: Value, kind: &'static str) -> Value {
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let is_gone = kind == "DELETED"
            || (object["metadata"]["deletionTimestamp"].is_string()
                && object["metadata"]["finalizers"]
                    .as_array()
                    .is_none_or(Vec::is_empty));
        let plural = key.0.clone();
        let kind = if is_gone { "DELETED" } else { kind };
        if is_gone {
            state.objects.remove(&key);
        } else {
            state.objects.insert(key, object.clone());
        }
        state.changes.push(Change {
            version: state.version,
            plural,
            kind,
            object: object.clone(),
        });
        self.changed.send_replace(state.version);
        object
    }

    fn remove(&self, state: &mut State, key: Key) -> Option<Value> {
        let mut object = state.objects.get(&key)?.clone();
        if object["metadata"]["deletionTimestamp"].is_string() {
            return Some(object);
        }
        let is_held = object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty());
        if is_held {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Some(self.write(state, key, object, if is_held { "MODIFIED" } else { "DELETED" }))
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if let Some(kinds) = discovery(parts.uri.path()) {
            return respond(200, &kinds);
        }
        let body = body.collect().await.expect("request body").to_bytes();
        let target = parse(parts.uri.path());
        let query = parts.uri.query().unwrap_or_default().to_string();
        let subresource = target
            .subresource
            .as_ref()
            .map(|name| format!("/{name}"))
            .unwrap_or_default();
        let line = format!("{} {}{subresource}", parts.method, target.plural);
        {
            let mut state = self.state.lock();
            state.requests.push(line.clone());
            if let Some(code) = state
                .failures
                .get_mut(&line)
                .filter(|codes| !codes.is_empty())
                .map(|codes| codes.remove(0))
            {
                return failure(code, "scripted failure");
            }
        }
        if parts.method == Method::GET && target.name.is_none() && query.contains("watch=true") {
            return self.watch(target.plural, &query);
        }
        let content_type = parts
            .headers
            .get("content-type")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let body: Value = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).expect("json")
        };
        let is_action = parts.method != Method::GET && target.plural != "events";
        let action = self.crash.begin(is_action).await;
        let answer = self.plain(&parts.method, target, content_type, body);
        self.crash.end(action).await;
        match answer {
            Ok(object) => respond(200, &object),
            Err((code, message)) => failure(code, &message),
        }
    }

    fn plain(
        &self,
        method: &Method,
        target: Target,
        content_type: &str,
        body: Value,
    ) -> Result<Value, (u16, String)> {
        let mut state = self.state.lock();
        let name = target
            .name
            .clone()
            .or_else(|| body["metadata"]["name"].as_str().map(str::to_string));
        let key: Key = (
            target.plural.clone(),
            target.namespace.clone(),
            name.clone().unwrap_or_default(),
        );
        match (method.as_str(), target.name.is_some()) {
            ("GET", false) => {
                let items: Vec<&Value> = state
                    .objects
                    .iter()
                    .filter(|(held, _)| held.0 == key.0 && (key.1.is_empty() || held.1 == key.1))
                    .map(|(_, object)| object)
                    .collect();
                let version = state.version.to_string();
                Ok(
                    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
                )
            }
            ("GET", true) => state.objects.get(&key).cloned().ok_or((404, "not found".into())),
            ("POST", _) if state.objects.contains_key(&key) => Err((409, "already exists".into())),
            ("POST", _) => {
                let mut object = body;
                let mut key = key;
                if let Some(prefix) = object["metadata"]["generateName"].as_str() {
                    key.2 = format!("{prefix}{}", state.version);
                    object["metadata"]["name"] = json!(key.2);
                }
                object["metadata"]["namespace"] = json!(key.1);
                object["metadata"]["uid"] = json!(format!("uid-of-{}-{}", key.2, state.version));
                Ok(self.write(&mut state, key, object, "ADDED"))
            }
            ("DELETE", _) => self.remove(&mut state, key).ok_or((404, "not found".into())),
            ("PATCH", _) => {
                let held = state
                    .objects
                    .get(&key)
                    .cloned()
                    .ok_or((404, "not found".to_string()))?;
                let patched = patch(held, content_type, body)?;
                Ok(self.write(&mut state, key, patched, "MODIFIED"))
            }
            (other, _) => Err((405, format!("{other} is not served"))),
        }
    }

    fn watch(&self, plural: String, query: &str) -> Response<Body> {
        let state = self.state.lock();
        let is_initial = query.contains("sendInitialEvents=true");
        let from = query
            .split('&')
            .find_map(|part| part.strip_prefix("resourceVersion=")?.parse::<u64>().ok());
        let mut first = Vec::new();
        let mut after = from.unwrap_or(0);
        if is_initial {
            let held = state.objects.iter().filter(|(key, _)| key.0 == plural);
            first.extend(held.map(|(_, object)| json!({"type": "ADDED", "object": object})));
            first.push(json!({"type": "BOOKMARK", "object": {"kind": "X", "apiVersion": "v1", "metadata": {
                "resourceVersion": state.version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}}));
            after = state.version;
        }
        drop(state);
        let api = self.clone();
        let changed = self.changed.subscribe();
        let later = futures::stream::unfold((api, changed, after), move |(api, mut changed, mut after)| {
            let plural = plural.clone();
            async move {
                loop {
                    let next: Vec<Change> = {
                        let state = api.state.lock();
                        let start = state.changes.partition_point(|change| change.version <= after);
                        state.changes[start..].to_vec()
                    };
                    if let Some(last) = next.last() {
                        after = last.version;
                        let lines: String = next
                            .iter()
                            .filter(|change| change.plural == plural)
                            .map(|change| {
                                format!("{}\n", json!({"type": change.kind, "object": change.object}))
                            })
                            .collect();
                        if !lines.is_empty() {
                            return Some((Bytes::from(lines), (api, changed, after)));
                        }
                    }
                    if changed.changed().await.is_err() {
                        return None;
                    }
                }
            }
        });
        let first = futures::stream::iter(first.into_iter().map(|line| Bytes::from(format!("{line}\n"))));
        let frames = first
            .chain(later)
            .map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        Response::builder()
            .status(200)
            .body(StreamBody::new(frames).boxed_unsync())
            .expect("response")
    }
}

/// Discovery of kinds that are waited for; they are always there.
fn discovery(path: &str) -> Option<Value> {
    let kinds: &[(&str, &str)] = match path {
        "/apis/snapshot.storage.k8s.io/v1" => &[
            ("volumesnapshots", "VolumeSnapshot"),
            ("volumesnapshotcontents", "VolumeSnapshotContent"),
            ("volumesnapshotclasses", "VolumeSnapshotClass"),
        ],
        "/apis/groupsnapshot.storage.k8s.io/v1" => &[
            ("volumegroupsnapshotcontents", "VolumeGroupSnapshotContent"),
            ("volumegroupsnapshotclasses", "VolumeGroupSnapshotClass"),
        ],
        "/apis/storage.k8s.io/v1" => &[("volumeattributesclasses", "VolumeAttributesClass")],
        _ => return None,
    };
    let resources: Vec<Value> = kinds
        .iter()
        .map(|(name, kind)| json!({"name": name, "singularName": "", "namespaced": false, "kind": kind, "verbs": []}))
        .collect();
    let group_version = path.trim_start_matches("/apis/");
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
    )
}

fn parse(path: &str) -> Target {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    let mut namespace = String::new();
    if parts[0] == "namespaces" && parts.len() > 2 {
        namespace = parts[1].to_string();
        parts.drain(..2);
    }
    let at = |index: usize| parts.get(index).map(|part| (*part).to_string());
    Target {
        plural: parts[0].to_string(),
        namespace,
        name: at(1),
        subresource: at(2),
    }
}

fn key_of(plural: &str, object: &Value) -> Key {
    let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_string();
    (plural.to_string(), part("namespace"), part("name"))
}

fn respond(code: u16, object: &Value) -> Response<Body> {
    let body = Full::from(object.to_string()).map_err(|never| match never {});
    Response::builder()
        .status(code)
        .body(body.boxed_unsync())
        .expect("response")
}

fn failure(code: u16, message: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "Scripted", "code": code,
    });
    respond(code, &status)
}

fn patch(mut held: Value, content_type: &str, patch: Value) -> Result<Value, (u16, String)> {
    if content_type.contains("json-patch") {
        for operation in patch.as_array().expect("a list of operations") {
            apply(&mut held, operation)?;
        }
        return Ok(held);
    }
    let wanted = &patch["metadata"]["resourceVersion"];
    if wanted.is_string() && *wanted != held["metadata"]["resourceVersion"] {
        return Err((409, "the object has been modified".into()));
    }
    merge(&mut held, &patch);
    Ok(held)
}

fn merge(held: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *held = patch.clone();
        return;
    };
    if !held.is_object() {
        *held = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            held.as_object_mut().expect("object").remove(name);
        } else {
            merge(&mut held[name], value);
        }
    }
}

fn apply(held: &mut Value, operation: &Value) -> Result<(), (u16, String)> {
    let path = operation["path"].as_str().expect("path");
    let value = operation["value"].clone();
    let (parent, last) = path.rsplit_once('/').expect("path with a slash");
    let last = last.replace("~1", "/").replace("~0", "~");
    let missing = || (422, format!("nothing at {path}"));
    match operation["op"].as_str() {
        Some("test") if held.pointer(path) == Some(&value) => Ok(()),
        Some("test") => Err((422, format!("test failed at {path}"))),
        Some("add") => {
            let parent = held.pointer_mut(parent).ok_or_else(missing)?;
            match parent {
                Value::Array(list) if last == "-" => list.push(value),
                Value::Object(fields) => {
                    fields.insert(last, value);
                }
                _ => return Err(missing()),
            }
            Ok(())
        }
        Some("remove") => {
            let parent = held.pointer_mut(parent).ok_or_else(missing)?;
            match parent {
                Value::Array(list) => {
                    list.remove(last.parse().map_err(|_| missing())?);
                }
                Value::Object(fields) => {
                    fields.remove(&last).ok_or_else(missing)?;
                }
                _ => return Err(missing()),
            }
            Ok(())
        }
        other => panic!("operation {other:?}"),
    }
}

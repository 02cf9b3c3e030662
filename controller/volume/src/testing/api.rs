//! An API server for tests of shells: objects in memory, versions, watches, merge and JSON patches, finalizers. It
//! knows no kinds and validates nothing; every write is noted.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::merge;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Debug)]
struct Logged {
    version: u64,
    resource: String,
    kind: &'static str,
    object: Value,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// Objects by resource, then `namespace/name`.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    log: Vec<Logged>,
    writes: Vec<String>,
    reads: Vec<String>,
    /// Clients made so far; each stands for a process.
    processes: u64,
    /// Processes up to this one are dead: none of their requests is answered any more.
    dead: u64,
    /// The write that is the last of its process, counted from 1, and whether it is still done.
    death: Option<(usize, bool)>,
    begun: usize,
}

/// The server. Clones share the objects.
#[derive(Clone)]
pub(crate) struct TestApi {
    state: Arc<Mutex<State>>,
    version: Arc<watch::Sender<u64>>,
}

/// What a path is about: `/api/v1/namespaces/ns/pods/web/status` and the like.
#[derive(Debug)]
struct Place {
    api_version: String,
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
}

impl Place {
    fn parse(path: &str) -> Self {
        let mut parts = path.trim_matches('/').split('/');
        let api_version = match parts.next() {
            Some("api") => parts.next().unwrap().to_string(),
            _ => format!("{}/{}", parts.next().unwrap(), parts.next().unwrap()),
        };
        let mut resource = parts.next().unwrap().to_string();
        let mut namespace = None;
        if resource == "namespaces" {
            namespace = parts.next().map(str::to_string);
            resource = parts.next().unwrap().to_string();
        }
        let mut next = || parts.next().map(str::to_string);
        Self {
            api_version,
            resource,
            namespace,
            name: next(),
            subresource: next(),
        }
    }

    fn key(&self) -> String {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        format!("{namespace}/{}", self.name.as_deref().unwrap_or_default())
    }
}

impl TestApi {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            version: Arc::new(watch::Sender::new(0)),
        }
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let process = {
            let mut state = self.state.lock();
            state.processes += 1;
            state.processes
        };
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(process, request).await) }
        });
        Client::new(service, "default")
    }

    /// The process of the last client dies at its `number`th write from now on: before it, or after it is done.
    pub(crate) fn die_at(&self, number: usize, is_done: bool) {
        let mut state = self.state.lock();
        state.death = Some((number, is_done));
        state.begun = 0;
    }

    /// Whether the process of the last client has died.
    pub(crate) fn is_dead(&self) -> bool {
        let state = self.state.lock();
        state.dead >= state.processes
    }

    /// No further process dies.
    pub(crate) fn live(&self) {
        self.state.lock().death = None;
    }

    /// A write of a process begins, or has been done; never returns if that is its death.
    async fn at_write(&self, process: u64, is_done: bool) {
        let is_dead = {
            let mut state = self.state.lock();
            if !is_done {
                state.begun += 1;
            }
            if state.death == Some((state.begun, is_done)) {
                state.dead = process;
            }
            state.dead >= process
        };
        if is_dead {
            self.announce();
            std::future::pending::<()>().await;
        }
    }

    /// Puts an object there as a user would, whatever was there; `resource` is its plural.
    pub(crate) fn put(&self, resource: &str, object: Value) {
        self.state.lock().store(resource, object, "ADDED");
        self.announce();
    }

    /// Changes an object as others would.
    pub(crate) fn change(&self, resource: &str, key: &str, patch: Value) {
        let mut state = self.state.lock();
        let mut object = state.objects[resource][key].clone();
        merge(&mut object, &patch);
        state.store(resource, object, "MODIFIED");
        drop(state);
        self.announce();
    }

    /// Deletes an object as a user would: finalizers hold it.
    pub(crate) fn delete(&self, resource: &str, key: &str) {
        self.state.lock().delete(resource, key);
        self.announce();
    }

    /// Takes the last finalizers off an object that is being deleted, which ends it.
    pub(crate) fn delete_now(&self, resource: &str, key: &str) {
        let mut state = self.state.lock();
        let mut object = state.objects[resource][key].clone();
        merge(&mut object, &json!({"metadata": {"finalizers": null}}));
        state.store(resource, object, "MODIFIED");
        state.delete(resource, key);
        drop(state);
        self.announce();
    }

    pub(crate) fn get(&self, resource: &str, key: &str) -> Option<Value> {
        self.state.lock().objects.get(resource)?.get(key).cloned()
    }

    pub(crate) fn list(&self, resource: &str) -> Vec<Value> {
        let state = self.state.lock();
        state
            .objects
            .get(resource)
            .into_iter()
            .flatten()
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The writes so far, as `PATCH persistentvolumes/pv1/status`, without events; starts a new list.
    pub(crate) fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().writes)
    }

    /// The single objects and lists read so far, without watches; starts a new list.
    pub(crate) fn take_reads(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().reads)
    }

    /// Reasons of the events written so far, sorted.
    pub(crate) fn event_reasons(&self) -> Vec<String> {
        let events = self.list("events");
        let mut reasons: Vec<String> = events
            .iter()
            .map(|event| event["reason"].as_str().unwrap_or_default().to_string())
            .collect();
        reasons.sort();
        reasons
    }

    /// Waits until `holds`; fails with what is there after ten seconds.
    pub(crate) async fn wait_until(&self, what: &str, holds: impl Fn(&TestApi) -> bool) {
        let mut version = self.version.subscribe();
        let waiting = async {
            while !holds(self) {
                version.changed().await.unwrap();
            }
        };
        let limit = std::time::Duration::from_secs(60);
        if tokio::time::timeout(limit, waiting).await.is_err() && !holds(self) {
            panic!("not reached: {what}; there is {:#?}", self.state.lock().objects);
        }
    }

    fn announce(&self) {
        let version = self.state.lock().version;
        self.version.send_replace(version);
    }

    async fn serve(&self, process: u64, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        if self.state.lock().dead >= process {
            std::future::pending::<()>().await;
        }
        if let Some(kinds) = snapshot_kinds(parts.uri.path()) {
            return respond(&kinds);
        }
        let place = Place::parse(parts.uri.path());
        let query = parts.uri.query().unwrap_or_default();
        let body = body.collect_bytes().await.unwrap();
        let content_type = parts
            .headers
            .get("content-type")
            .and_then(|value| value.to_str().ok());
        let is_json_patch = content_type == Some("application/json-patch+json");
        let is_write = parts.method != Method::GET && place.resource != "events";
        if is_write {
            self.at_write(process, false).await;
        }
        let answer = match parts.method {
            Method::GET if query.contains("watch=true") => return self.watch(&place, query),
            Method::GET => self.state.lock().read(&place),
            Method::POST => self
                .state
                .lock()
                .create(&place, serde_json::from_slice(&body).unwrap()),
            Method::PATCH => {
                let patch = serde_json::from_slice(&body).unwrap();
                self.state.lock().patch(&place, patch, is_json_patch)
            }
            Method::DELETE => self.state.lock().remove(&place),
            other => panic!("unexpected {other} {}", parts.uri),
        };
        self.announce();
        if is_write {
            self.at_write(process, true).await;
        }
        let (code, object) = match answer {
            Ok(object) => (200, object),
            Err((code, reason)) => (code, status(code, reason)),
        };
        let bytes = Bytes::from(object.to_string());
        Response::builder()
            .status(code)
            .body(Full::new(bytes).boxed_unsync())
            .unwrap()
    }

    /// A stream of what is there and of what changes. Only streaming lists and watches from a version are served.
    fn watch(&self, place: &Place, query: &str) -> Answer {
        let mut lines = Vec::new();
        let mut seen = 0;
        let state = self.state.lock();
        if query.contains("sendInitialEvents=true") {
            seen = state.version;
            for object in state
                .objects
                .get(&place.resource)
                .into_iter()
                .flatten()
                .map(|(_, object)| object)
            {
                lines.push(json!({"type": "ADDED", "object": object}));
            }
            let metadata = json!({
                "resourceVersion": seen.to_string(), "annotations": {"k8s.io/initial-events-end": "true"},
            });
            let kind = kind_of(&place.resource);
            let object =
                json!({"apiVersion": place.api_version, "kind": kind, "metadata": metadata, "spec": {}});
            lines.push(json!({"type": "BOOKMARK", "object": bookmark(object, &place.resource)}));
        } else if let Some(version) = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="))
        {
            seen = version.parse().unwrap();
        }
        drop(state);
        let changes = stream::unfold(
            (
                self.clone(),
                place.resource.clone(),
                self.version.subscribe(),
                seen,
            ),
            |(api, resource, mut version, seen)| async move {
                loop {
                    let (lines, last) = api.state.lock().since(&resource, seen);
                    if !lines.is_empty() {
                        return Some((lines, (api, resource, version, last)));
                    }
                    version.changed().await.ok()?;
                }
            },
        );
        let all = stream::iter([lines]).chain(changes).map(|lines| {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            Ok(Frame::data(Bytes::from(text)))
        });
        Response::new(StreamBody::new(all).boxed_unsync())
    }
}

/// Kinds whose required fields a bookmark must have to be readable.
fn bookmark(mut object: Value, resource: &str) -> Value {
    match resource {
        "storageclasses" => object["provisioner"] = json!(""),
        "volumeattachments" => object["spec"] = json!({"attacher": "", "nodeName": "", "source": {}}),
        "volumeattributesclasses" => object["driverName"] = json!(""),
        "pods" => object["spec"] = json!({"containers": []}),
        _ => {}
    }
    object
}

fn kind_of(resource: &str) -> &'static str {
    match resource {
        "persistentvolumes" => "PersistentVolume",
        "persistentvolumeclaims" => "PersistentVolumeClaim",
        "storageclasses" => "StorageClass",
        "pods" => "Pod",
        "nodes" => "Node",
        "volumeattachments" => "VolumeAttachment",
        "csidrivers" => "CSIDriver",
        "volumeattributesclasses" => "VolumeAttributesClass",
        "events" => "Event",
        "volumesnapshots" => "VolumeSnapshot",
        "volumesnapshotcontents" => "VolumeSnapshotContent",
        "volumesnapshotclasses" => "VolumeSnapshotClass",
        "volumegroupsnapshots" => "VolumeGroupSnapshot",
        "volumegroupsnapshotcontents" => "VolumeGroupSnapshotContent",
        "volumegroupsnapshotclasses" => "VolumeGroupSnapshotClass",
        other => panic!("unknown resource {other}"),
    }
}

const SNAPSHOTS: &str = "snapshot.storage.k8s.io/v1";
const GROUP_SNAPSHOTS: &str = "groupsnapshot.storage.k8s.io/v1";

/// Discovery of the snapshot kinds.
fn snapshot_kinds(path: &str) -> Option<Value> {
    let group_version = path.strip_prefix("/apis/")?;
    let plurals = match group_version {
        SNAPSHOTS => [
            "volumesnapshots",
            "volumesnapshotcontents",
            "volumesnapshotclasses",
        ],
        GROUP_SNAPSHOTS => [
            "volumegroupsnapshots",
            "volumegroupsnapshotcontents",
            "volumegroupsnapshotclasses",
        ],
        _ => return None,
    };
    let resources: Vec<Value> = plurals
        .iter()
        .map(|plural| {
            let is_namespaced = plural.ends_with("snapshots");
            json!({"name": plural, "singularName": "", "namespaced": is_namespaced, "kind": kind_of(plural), "verbs": []})
        })
        .collect();
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    }))
}

fn respond(object: &Value) -> Answer {
    Response::new(Full::new(Bytes::from(object.to_string())).boxed_unsync())
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

type Refusal = (u16, &'static str);

impl State {
    fn store(&mut self, resource: &str, mut object: Value, kind: &'static str) -> Value {
        self.version += 1;
        object["apiVersion"] = json!(match resource {
            "storageclasses" | "volumeattachments" | "csidrivers" | "volumeattributesclasses" =>
                "storage.k8s.io/v1",
            resource if resource.starts_with("volumegroupsnapshot") => GROUP_SNAPSHOTS,
            resource if resource.starts_with("volumesnapshot") => SNAPSHOTS,
            _ => "v1",
        });
        object["kind"] = json!(kind_of(resource));
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        let objects = self.objects.entry(resource.to_string()).or_default();
        objects.insert(key_of(&object), object.clone());
        self.log(resource, kind, object.clone());
        object
    }

    fn log(&mut self, resource: &str, kind: &'static str, object: Value) {
        self.log.push(Logged {
            version: self.version,
            resource: resource.to_string(),
            kind,
            object,
        });
    }

    /// Deletes, or marks as being deleted while there are finalizers.
    fn delete(&mut self, resource: &str, key: &str) -> Option<Value> {
        let mut object = self.objects.get(resource)?.get(key)?.clone();
        let is_held = object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|held| !held.is_empty());
        if is_held {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            return Some(self.store(resource, object, "MODIFIED"));
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.get_mut(resource)?.remove(key);
        self.log(resource, "DELETED", object.clone());
        Some(object)
    }

    fn note(&mut self, verb: &str, place: &Place) {
        if place.resource != "events" {
            let parts = [
                Some(place.key().trim_matches('/').to_string()),
                place.subresource.clone(),
            ];
            let rest: Vec<String> = parts
                .into_iter()
                .flatten()
                .filter(|part| !part.is_empty())
                .collect();
            let line = format!("{verb} {}/{}", place.resource, rest.join("/"));
            match verb {
                "GET" => self.reads.push(line),
                _ => self.writes.push(line),
            }
        }
    }

    fn find(&self, place: &Place) -> Result<Value, Refusal> {
        let objects = self.objects.get(&place.resource);
        let object = objects.and_then(|objects| objects.get(&place.key()));
        object.cloned().ok_or((404, "NotFound"))
    }

    fn read(&mut self, place: &Place) -> Result<Value, Refusal> {
        self.note("GET", place);
        if place.name.is_some() {
            return self.find(place);
        }
        let prefix = place.namespace.as_ref().map(|namespace| format!("{namespace}/"));
        let objects = self.objects.get(&place.resource).into_iter().flatten();
        let items: Vec<&Value> = objects
            .filter(|(key, _)| prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix)))
            .map(|(_, object)| object)
            .collect();
        Ok(json!({
            "apiVersion": place.api_version, "kind": format!("{}List", kind_of(&place.resource)),
            "metadata": {"resourceVersion": self.version.to_string()}, "items": items,
        }))
    }

    fn create(&mut self, place: &Place, object: Value) -> Result<Value, Refusal> {
        let named = Place {
            name: object["metadata"]["name"].as_str().map(str::to_string),
            api_version: place.api_version.clone(),
            resource: place.resource.clone(),
            namespace: place.namespace.clone(),
            subresource: None,
        };
        self.note("POST", &named);
        if self.find(&named).is_ok() {
            return Err((409, "AlreadyExists"));
        }
        Ok(self.store(&place.resource, object, "ADDED"))
    }

    fn patch(&mut self, place: &Place, patch: Value, is_json_patch: bool) -> Result<Value, Refusal> {
        self.note("PATCH", place);
        let old = self.find(place)?;
        let mut new = old.clone();
        if is_json_patch {
            let operations: json_patch::Patch = serde_json::from_value(patch).unwrap();
            json_patch::patch(&mut new, &operations).map_err(|_| (422, "Invalid"))?;
        } else {
            let version = &patch["metadata"]["resourceVersion"];
            if !version.is_null() && *version != old["metadata"]["resourceVersion"] {
                return Err((409, "Conflict"));
            }
            merge(&mut new, &patch);
        }
        // Each of status and the rest is written through its own path only.
        let mut kept = old.clone();
        if place.subresource.as_deref() == Some("status") {
            kept["status"] = new["status"].take();
        } else {
            let status = kept["status"].take();
            kept = new;
            merge(&mut kept, &json!({"status": null}));
            if !status.is_null() {
                kept["status"] = status;
            }
        }
        let is_deleting = !kept["metadata"]["deletionTimestamp"].is_null();
        let is_held = kept["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|held| !held.is_empty());
        let stored = self.store(&place.resource, kept, "MODIFIED");
        if is_deleting && !is_held {
            self.delete(&place.resource, &place.key());
        }
        Ok(stored)
    }

    fn remove(&mut self, place: &Place) -> Result<Value, Refusal> {
        self.note("DELETE", place);
        self.find(place)?;
        self.delete(&place.resource, &place.key())
            .ok_or((404, "NotFound"))
    }

    fn since(&self, resource: &str, version: u64) -> (Vec<Value>, u64) {
        let start = self.log.partition_point(|logged| logged.version <= version);
        let news = self.log[start..]
            .iter()
            .filter(|logged| logged.resource == resource);
        let lines = news
            .map(|logged| json!({"type": logged.kind, "object": logged.object}))
            .collect();
        (lines, self.version)
    }
}

fn key_of(object: &Value) -> String {
    let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_string();
    format!("{}/{}", part("namespace"), part("name"))
}

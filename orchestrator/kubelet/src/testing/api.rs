//! As much of an API server as a kubelet writes to: events, status of claims and pods, deletion of pods, tokens. What
//! it holds is in the caches it hands out.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Client;
use moorline_runtime::{Cache, Informers};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::objects::Objects;

/// What was written.
#[derive(Clone)]
pub(crate) struct Api {
    /// Reason and message.
    pub events: Arc<Mutex<Vec<(String, String)>>>,
    /// `allocatedResourceStatuses` (or `-`) and capacity after each write of a claim's status.
    pub claim_writes: Arc<Mutex<Vec<(String, String)>>>,
    /// Bodies of the deletions of pods, which take effect.
    pub deletions: Arc<Mutex<Vec<Value>>>,
    claims: Cache<PersistentVolumeClaim>,
    pods: Cache<Pod>,
}

impl Api {
    /// The server and the caches of a kubelet that stands on it.
    pub(crate) fn start(stop: &CancellationToken) -> (Self, Objects) {
        let api = Self {
            events: Arc::default(),
            claim_writes: Arc::default(),
            deletions: Arc::default(),
            claims: Cache::detached(),
            pods: Cache::detached(),
        };
        let own = api.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let own = own.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body
                    .collect()
                    .await
                    .map(|body| body.to_bytes())
                    .unwrap_or_default();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                Ok::<_, Infallible>(own.answer(&parts.method, parts.uri.path(), body))
            }
        });
        let informers = Informers::new(Client::new(service, "default"), stop.clone());
        let objects = Objects {
            informers,
            pods: api.pods.clone(),
            node: Cache::detached(),
            claims: api.claims.clone(),
            pvs: Cache::detached(),
            csi_drivers: Cache::detached(),
            attachments: Cache::detached(),
            config_maps: Cache::detached(),
            secrets: Cache::detached(),
        };
        (api, objects)
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> Response<Full<bytes::Bytes>> {
        let (code, value) = match path.split('/').collect::<Vec<_>>().as_slice() {
            [.., "events"] => {
                let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
                self.events.lock().push((text("reason"), text("message")));
                (201, body)
            }
            [.., "serviceaccounts", _, "token"] => {
                let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
                let status = json!({"token": "signed", "expirationTimestamp": expires.to_string()});
                (
                    201,
                    json!({"metadata": {}, "spec": {"audiences": []}, "status": status}),
                )
            }
            [.., namespace, "persistentvolumeclaims", name] => self.claim(namespace, name),
            [.., namespace, "persistentvolumeclaims", name, "status"] if method == Method::PATCH => {
                self.patch_claim(namespace, name, &body)
            }
            [.., namespace, "pods", name, "status"] if method == Method::PATCH => {
                self.patch_pod(namespace, name, &body)
            }
            [.., namespace, "pods", name] if method == Method::DELETE => {
                self.delete_pod(namespace, name, body)
            }
            _ => not_found(path),
        };
        let body = Full::new(bytes::Bytes::from(value.to_string()));
        Response::builder().status(code).body(body).unwrap()
    }

    fn claim(&self, namespace: &str, name: &str) -> (u16, Value) {
        match self.claims.get(Some(namespace), name) {
            Some(claim) => (200, json!(*claim)),
            None => not_found(name),
        }
    }

    fn patch_claim(&self, namespace: &str, name: &str, patch: &Value) -> (u16, Value) {
        let (code, mut claim) = self.claim(namespace, name);
        if code != 200 {
            return (code, claim);
        }
        if claim["metadata"]["resourceVersion"] != patch["metadata"]["resourceVersion"] {
            return conflict();
        }
        merge(&mut claim, patch);
        next_version(&mut claim);
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let status = &claim["status"];
        let entry = (
            text(&status["allocatedResourceStatuses"]["storage"]),
            text(&status["capacity"]["storage"]),
        );
        self.claim_writes.lock().push(entry);
        (200, claim)
    }
}

impl Api {
    fn patch_pod(&self, namespace: &str, name: &str, patch: &Value) -> (u16, Value) {
        let Some(pod) = self.pods.get(Some(namespace), name) else {
            return not_found(name);
        };
        let mut pod = json!(*pod);
        if pod["metadata"]["uid"] != patch["metadata"]["uid"] {
            return conflict();
        }
        merge(&mut pod, patch);
        next_version(&mut pod);
        (200, pod)
    }

    fn delete_pod(&self, namespace: &str, name: &str, options: Value) -> (u16, Value) {
        let Some(pod) = self.pods.get(Some(namespace), name) else {
            return not_found(name);
        };
        if json!(pod.metadata.uid) != options["preconditions"]["uid"] {
            return conflict();
        }
        self.deletions.lock().push(options);
        let mut last = json!(*pod);
        next_version(&mut last);
        self.pods.forget(&serde_json::from_value(last.clone()).unwrap());
        (200, last)
    }
}

fn conflict() -> (u16, Value) {
    (
        409,
        json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": ""}),
    )
}

/// Counts the object's version up.
pub(crate) fn next_version(object: &mut Value) {
    let version: u64 = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
}

fn not_found(what: &str) -> (u16, Value) {
    (
        404,
        json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": what}),
    )
}

/// Applies a JSON merge patch.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in changes {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

//! The users: they carry out the plan's steps over the API and don't give up because a server is away.

mod objects;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use http::{Request, header};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::driver::NAME;
use crate::plan::{Class, Op};
use objects::{claim, content, node, pod, policy, snapshot, snapshot_class, static_pv, storage_class};

/// Between two tries while the server is away.
const RETRY: Duration = Duration::from_secs(1);
/// How often something is tried that the server refuses in a way that may pass.
const TRIES: u32 = 60;
/// Names of the nodes.
pub(crate) const NODES: [&str; 3] = ["n0", "n1", "n2"];
/// A secret that nobody may find in any other object, in plain letters and as base64.
pub(crate) const MARKER: [&str; 2] = [
    "moorline-sim-planted-secret",
    "bW9vcmxpbmUtc2ltLXBsYW50ZWQtc2VjcmV0",
];

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const PODS: &str = "/api/v1/namespaces/default/pods";
const PVS: &str = "/api/v1/persistentvolumes";
const SNAPSHOTS: &str = "/apis/snapshot.storage.k8s.io/v1/namespaces/default/volumesnapshots";
const CONTENTS: &str = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents";
const SNAPSHOT_CLASSES: &str = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// All users.
#[derive(Clone)]
pub(crate) struct Users {
    pub(crate) client: kube::Client,
    pub(crate) backend: Arc<Mutex<Backend>>,
}

impl Users {
    /// Makes what every cluster has, then carries out the steps as they come, each in its own time.
    pub(crate) async fn run(self, mut ops: mpsc::UnboundedReceiver<Op>) -> anyhow::Result<()> {
        self.set_up().await;
        let tasks = tokio_util::task::TaskTracker::new();
        while let Some(op) = ops.next().await {
            let users = self.clone();
            tasks.spawn(async move { users.act(op).await });
        }
        Ok(())
    }

    async fn set_up(&self) {
        let secret = json!({
            "metadata": {"name": "driver-secret", "namespace": "kube-system"},
            "stringData": {"password": MARKER[0]},
        });
        self.create("/api/v1/namespaces/kube-system/secrets", &secret)
            .await;
        let driver =
            json!({"metadata": {"name": NAME}, "spec": {"attachRequired": true, "podInfoOnMount": false}});
        self.create("/apis/storage.k8s.io/v1/csidrivers", &driver).await;
        for class in [Class::Now, Class::Keep, Class::Later] {
            self.create("/apis/storage.k8s.io/v1/storageclasses", &storage_class(class))
                .await;
        }
        for name in NODES {
            self.create("/api/v1/nodes", &node(name)).await;
            let status = json!({"status": node(name)["status"]});
            self.patch(&format!("/api/v1/nodes/{name}/status"), &status).await;
            let csi_node = json!({
                "metadata": {"name": name},
                "spec": {"drivers": [{"name": NAME, "nodeID": name, "topologyKeys": []}]},
            });
            self.create("/apis/storage.k8s.io/v1/csinodes", &csi_node).await;
        }
        for definition in objects::snapshot_kinds() {
            self.create(DEFINITIONS, &definition).await;
        }
        for keep in [false, true] {
            // Not served at once.
            for _ in 0..TRIES {
                if self
                    .ask("POST", SNAPSHOT_CLASSES, Some(&snapshot_class(keep)))
                    .await
                    .is_some()
                {
                    break;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn act(&self, op: Op) {
        match op {
            Op::CreateClaim {
                n,
                class,
                gib,
                origin,
            } => self.create(CLAIMS, &claim(n, class, gib, origin)).await,
            Op::DeleteClaim { n } => self.delete(&format!("{CLAIMS}/c{n}"), None).await,
            Op::ResizeClaim { n, gib } => {
                let spec = json!({"spec": {"resources": {"requests": {"storage": format!("{gib}Gi")}}}});
                self.patch(&format!("{CLAIMS}/c{n}"), &spec).await;
            }
            Op::CreatePod { n, claim } => self.create(PODS, &pod(n, claim)).await,
            Op::DeletePod { n, by_force } => {
                self.delete(&format!("{PODS}/p{n}"), by_force.then_some(0)).await;
            }
            Op::LoseNode { node, down_millis } => self.give_up_node(NODES[node], down_millis).await,
            Op::CreatePv { n, retain, claim } => {
                let handle = self.backend.lock().make_static(n, 8 << 30);
                self.create(PVS, &static_pv(n, &handle, retain, claim)).await;
            }
            Op::DeletePv { n } => self.delete(&format!("{PVS}/static{n}"), None).await,
            Op::DeletePvOf { n } => {
                if let Some(name) = self.pv_of(n).await {
                    self.delete(&format!("{PVS}/{name}"), None).await;
                }
            }
            Op::SetPolicyOf { n, retain } => {
                if let Some(name) = self.pv_of(n).await {
                    let spec = json!({"spec": {"persistentVolumeReclaimPolicy": policy(retain)}});
                    self.patch(&format!("{PVS}/{name}"), &spec).await;
                }
            }
            Op::CreateSnapshot { .. }
            | Op::DeleteSnapshot { .. }
            | Op::CreateContent { .. }
            | Op::DeleteContent { .. }
            | Op::AdoptContent { .. }
            | Op::DeleteContentOf { .. } => self.act_on_snapshots(op).await,
        }
    }

    async fn act_on_snapshots(&self, op: Op) {
        match op {
            Op::CreateSnapshot { n, claim, keep } => {
                let source = json!({"persistentVolumeClaimName": format!("c{claim}")});
                self.create(SNAPSHOTS, &snapshot(n, source, Some(keep))).await;
            }
            Op::AdoptContent { n } => {
                let source = json!({"volumeSnapshotContentName": format!("content{n}")});
                self.create(SNAPSHOTS, &snapshot(n, source, None)).await;
            }
            Op::CreateContent { n, keep } => {
                let handle = self.backend.lock().make_static_snapshot(n, 1 << 30);
                self.create(CONTENTS, &content(n, &handle, keep)).await;
            }
            Op::DeleteSnapshot { n } => self.delete(&format!("{SNAPSHOTS}/s{n}"), None).await,
            Op::DeleteContent { n } => self.delete(&format!("{CONTENTS}/content{n}"), None).await,
            Op::DeleteContentOf { n } => {
                let snapshot = self.ask("GET", &format!("{SNAPSHOTS}/s{n}"), None).await;
                let snapshot = snapshot.unwrap_or_default();
                if let Some(name) = snapshot["status"]["boundVolumeSnapshotContentName"].as_str() {
                    self.delete(&format!("{CONTENTS}/{name}"), None).await;
                }
            }
            _ => {}
        }
    }

    /// An admin's part when a machine has died: the taint, the pods, and the way back.
    async fn give_up_node(&self, name: &str, down_millis: u64) {
        self.set_ready(name, false).await;
        let taint =
            json!([{"key": "node.kubernetes.io/out-of-service", "value": "gone", "effect": "NoExecute"}]);
        self.patch(
            &format!("/api/v1/nodes/{name}"),
            &json!({"spec": {"taints": taint}}),
        )
        .await;
        let listed = format!("{PODS}?fieldSelector=spec.nodeName%3D{name}");
        let pods = self.ask("GET", &listed, None).await.unwrap_or_default();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
            self.delete(&format!("{PODS}/{pod}"), Some(0)).await;
        }
        tokio::time::sleep(Duration::from_millis(down_millis)).await;
        self.patch(
            &format!("/api/v1/nodes/{name}"),
            &json!({"spec": {"taints": null}}),
        )
        .await;
        self.set_ready(name, true).await;
    }

    async fn set_ready(&self, name: &str, is_ready: bool) {
        let status = if is_ready { "True" } else { "Unknown" };
        let conditions = json!([{"type": "Ready", "status": status, "reason": "Sim", "message": ""}]);
        let path = format!("/api/v1/nodes/{name}/status");
        self.patch(&path, &json!({"status": {"conditions": conditions}}))
            .await;
    }

    async fn pv_of(&self, n: u32) -> Option<String> {
        let claim = self.ask("GET", &format!("{CLAIMS}/c{n}"), None).await?;
        claim["spec"]["volumeName"].as_str().map(str::to_owned)
    }

    async fn create(&self, path: &str, object: &Value) {
        self.ask("POST", path, Some(object)).await;
    }

    async fn patch(&self, path: &str, change: &Value) {
        self.ask("PATCH", path, Some(change)).await;
    }

    async fn delete(&self, path: &str, grace: Option<u32>) {
        let options = grace.map(
            |seconds| json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": seconds}),
        );
        self.ask("DELETE", path, options.as_ref()).await;
    }

    /// Asks until there is an answer; `None` when the server refuses for good.
    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        for _ in 0..TRIES {
            let content = if method == "PATCH" {
                "application/merge-patch+json"
            } else {
                "application/json"
            };
            let bytes = body
                .map(|value| value.to_string().into_bytes())
                .unwrap_or_default();
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::CONTENT_TYPE, content)
                .body(bytes)
                .expect("a fixed method and a path of plain letters");
            match self.client.request::<Value>(request).await {
                Ok(answer) => return Some(answer),
                // 403 passes: the namespace's service account may not be there yet.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => return None,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
        None
    }
}

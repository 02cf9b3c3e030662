//! A small API server and a scripted driver for tests of the sidecars: real HTTP bodies, real gRPC over a unix socket.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::panic,
    reason = "test code, and each test file uses a part of it"
)]

pub mod api;
pub mod contents;
pub mod crash;
pub mod driver;
pub mod process;

use std::time::Duration;

use moorline_runtime::Informers;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use api::Api;
pub use driver::{Driver, Step};

pub const DRIVER: &str = "test.csi.moorline.dev";

/// An API server, a driver, informers, and the tasks under test; all of them end with it.
pub struct World {
    pub api: Api,
    pub driver: Driver,
    pub informers: Informers,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    pub directory: tempfile::TempDir,
}

impl World {
    pub async fn new(controller_capabilities: &[i32]) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let api = Api::default();
        let stop = CancellationToken::new();
        let driver = Driver::new(
            directory.path().join("csi.sock"),
            controller_capabilities,
            api.crash.clone(),
        );
        driver.start().await;
        let informers = Informers::new(api.client(), stop.clone());
        Self {
            api,
            driver,
            informers,
            stop,
            tasks: TaskTracker::new(),
            directory,
        }
    }

    pub fn csi_address(&self) -> String {
        self.driver.socket().display().to_string()
    }

    /// A node with the driver, in a segment of its own.
    pub fn put_node(&self, name: &str) {
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"test.csi/node": name}}});
        self.api.put("nodes", node);
        let csi_node = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": name},
            "spec": {"drivers": [{"name": DRIVER, "nodeID": name, "topologyKeys": ["test.csi/node"]}]}});
        self.api.put("csinodes", csi_node);
    }

    /// Ends everything and waits for it.
    pub async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.tasks.wait()).await;
        assert!(ended.is_ok(), "the sidecar didn't end in time");
        self.informers.shutdown().await;
        self.driver.stop().await;
    }

    /// Polls until `seen` gives a value; panics with the log of the driver and the objects otherwise.
    pub async fn until<T>(&self, what: &str, seen: impl FnMut() -> Option<T>) -> T {
        self.within(Duration::from_secs(60), what, seen).await
    }

    pub async fn within<T>(&self, limit: Duration, what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(found) = seen() {
                return found;
            }
            if tokio::time::Instant::now() > deadline {
                panic!(
                    "{what}\ndriver: {:#?}\napi: {:#}",
                    self.driver.log(),
                    self.api.dump()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub fn class(binding_mode: &str, reclaim_policy: &str) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "fast"},
        "provisioner": DRIVER, "volumeBindingMode": binding_mode, "reclaimPolicy": reclaim_policy,
        "allowVolumeExpansion": true, "parameters": {"pool": "p1", "csi.storage.k8s.io/fstype": "ext4"},
    })
}

/// A claim that the binder has handed to the provisioner.
pub fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name, "namespace": "ns", "uid": format!("uid-{name}"),
            "annotations": {"volume.kubernetes.io/storage-provisioner": DRIVER},
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem", "storageClassName": "fast",
            "resources": {"requests": {"storage": "1Gi"}},
        },
        "status": {"phase": "Pending"},
    })
}

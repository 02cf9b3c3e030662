//! What several test modules need.

pub(crate) mod api;
pub(crate) mod csi_driver;
pub(crate) mod runtime;

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::{Config, ServingIdentity, Timings};

/// Whether the test runs as root; otherwise says that it is skipped.
pub(crate) fn is_root(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: {test}: needs root");
    }
    is_root
}

/// How long a test waits for what must happen.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(20);

/// Looks until it sees what it waits for; says what it saw last when that doesn't come.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => {
                assert!(
                    tokio::time::Instant::now() < deadline,
                    "waited for: {what}; last seen: {seen}"
                );
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// A configuration below `root`.
pub(crate) fn config(root: &Path) -> Config {
    Config {
        node_name: "n1".into(),
        root_dir: root.join("kubelet"),
        log_dir: root.join("logs"),
        listen: "127.0.0.1:0".parse().unwrap(),
        serving: ServingIdentity {
            certificate_pem: String::new(),
            key_pem: String::new(),
            client_ca_pem: String::new(),
        },
        node_ip: "127.0.0.1".parse().unwrap(),
        labels: BTreeMap::new(),
        max_pods: 110,
        version: "v1.36.0".into(),
        timings: Timings::default(),
    }
}

/// Pods, sandboxes and containers in every state.
pub(crate) mod pods {
    use std::path::PathBuf;

    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::Pod;
    use moorline_container_runtime::{
        ContainerId, ContainerState, ContainerStatus, ImageRef, Sandbox, SandboxId, SandboxState,
    };
    use serde_json::{Value, json};

    /// A time.
    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Pod `ns/p` with that spec.
    pub(crate) fn pod_with(spec: Value) -> Pod {
        let metadata = json!({"name": "p", "namespace": "ns", "uid": "u"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    /// Pod `ns/p` with containers of those names.
    pub(crate) fn pod(policy: &str, init: &[&str], main: &[&str]) -> Pod {
        let list = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        pod_with(json!({"restartPolicy": policy, "initContainers": list(init), "containers": list(main)}))
    }

    /// A sandbox of the pod.
    pub(crate) fn sandbox(attempt: u32, state: SandboxState) -> Sandbox {
        Sandbox {
            id: SandboxId(format!("sandbox-{attempt}")),
            pod_uid: "u".into(),
            pod_name: "p".into(),
            namespace: "ns".into(),
            attempt,
            state,
            created_at: at(1),
            labels: Default::default(),
            annotations: Default::default(),
        }
    }

    /// A container in the first sandbox.
    pub(crate) fn container(name: &str, attempt: u32) -> ContainerStatus {
        ContainerStatus {
            id: ContainerId(format!("{name}-{attempt}")),
            sandbox_id: SandboxId("sandbox-0".into()),
            pod_uid: "u".into(),
            name: name.into(),
            attempt,
            state: ContainerState::Created,
            created_at: at(1),
            started_at: None,
            finished_at: None,
            exit_code: None,
            signal: None,
            oom_killed: false,
            reason: String::new(),
            message: String::new(),
            termination_message: String::new(),
            log_path: PathBuf::new(),
            image: ImageRef::default(),
            pid: None,
            labels: Default::default(),
            annotations: Default::default(),
        }
    }

    pub(crate) fn created(name: &str, attempt: u32) -> ContainerStatus {
        container(name, attempt)
    }

    pub(crate) fn running(name: &str, attempt: u32) -> ContainerStatus {
        ContainerStatus {
            state: ContainerState::Running,
            started_at: Some(at(2)),
            ..container(name, attempt)
        }
    }

    pub(crate) fn exited(name: &str, attempt: u32, code: i32, finished: i64) -> ContainerStatus {
        ContainerStatus {
            state: ContainerState::Exited,
            started_at: Some(at(2)),
            finished_at: Some(at(finished)),
            exit_code: Some(code),
            ..container(name, attempt)
        }
    }
}

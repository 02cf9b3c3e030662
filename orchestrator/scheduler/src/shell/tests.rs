//! The scheduler over a small API server, in virtual time: what it writes, when, and what it tells the user.

use serde_json::{Value, json};

use super::*;

mod api;
mod pods;
mod volumes;

use api::Api;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Virtual time: passes at once when everybody waits.
const DEADLINE: Duration = Duration::from_secs(3_600);

/// A running scheduler and its API server with one node of one cpu.
struct Cluster {
    api: Api,
    stop: CancellationToken,
    informers: Informers,
    tasks: TaskTracker,
}

impl Cluster {
    fn start() -> Self {
        Self::start_with(Api::new())
    }

    fn start_with(api: Api) -> Self {
        api.put("nodes", node("n1", "1"));
        let stop = CancellationToken::new();
        let informers = Informers::new(api.client(), stop.clone());
        let tasks = TaskTracker::new();
        let running = run(Config::default(), informers.clone(), stop.clone());
        tasks.spawn(async move { running.await.expect("the scheduler runs until it is stopped") });
        Self {
            api,
            stop,
            informers,
            tasks,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(DEADLINE, self.tasks.wait())
            .await
            .expect("the scheduler stops");
        self.informers.shutdown().await;
    }

    /// Waits until `is_so`.
    async fn until(&self, what: &str, is_so: impl Fn(&Api) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so(&self.api) {
            assert!(
                Instant::now() < deadline,
                "waited in vain: {what}; writes: {:#?}",
                self.api.writes("")
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_bound(&self, pod: &str, node: &str) {
        self.until(&format!("{pod} on {node}"), |api| {
            node_of(api, pod).as_deref() == Some(node)
        })
        .await;
    }

    /// Waits until the pod's condition says why it has no node.
    async fn until_told(&self, pod: &str, reason: &str, message: &str) {
        let says = |api: &Api| {
            let pod = api.get("pods", pod).unwrap_or_default();
            let condition = &pod["status"]["conditions"][0];
            condition["type"] == "PodScheduled"
                && condition["status"] == "False"
                && condition["reason"] == reason
                && condition["message"]
                    .as_str()
                    .is_some_and(|text| text.contains(message))
        };
        self.until(&format!("{pod}: {message}"), says).await;
        self.until("the event", |api| {
            api.events("FailedScheduling")
                .iter()
                .any(|text| text.contains(message))
        })
        .await;
    }

    /// Lets everything happen that happens without anybody's doing.
    async fn quiet(&self) {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
}

fn node_of(api: &Api, pod: &str) -> Option<String> {
    Some(api.get("pods", pod)?["spec"]["nodeName"].as_str()?.to_owned())
}

fn node(name: &str, cpu: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": name, "labels": {"host": name}},
        "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "110"}},
    })
}

fn pod(name: &str, cpu: &str, claims: &[&str]) -> Value {
    let volumes: Vec<Value> = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {
            "schedulerName": "default-scheduler",
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
            "volumes": volumes,
        },
        "status": {"phase": "Pending"},
    })
}

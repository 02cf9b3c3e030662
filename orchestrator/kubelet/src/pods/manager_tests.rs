//! The life of pods with a runtime in memory: what the API is told, what the runtime is asked, what is left.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use moorline_runtime::Recorder;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::manager::{self, Parts, PodManager};
use crate::csi::drivers::Drivers;
use crate::node::object::Machine;
use crate::node::status::NodeReporter;
use crate::objects::Objects;
use crate::paths::Layout;
use crate::testing::api::Api;
use crate::testing::runtime::Runtime;
use crate::testing::{config, eventually};
use crate::volumes::manager::VolumeManager;
use crate::volumes::{reconcile, reconstruct};
use crate::wiring;

/// A kubelet's pods over an API and a runtime in memory.
pub(crate) struct World {
    place: tempfile::TempDir,
    api: Api,
    objects: Objects,
    pub runtime: Runtime,
    tasks: TaskTracker,
    /// The API and its writers.
    stop: CancellationToken,
    /// The kubelet.
    stop_kubelet: CancellationToken,
    running: Option<JoinHandle<()>>,
    managers: Option<(Arc<PodManager>, Arc<VolumeManager>)>,
}

impl World {
    pub(crate) fn new() -> Self {
        let stop = CancellationToken::new();
        let (api, objects) = Api::start(&stop);
        let mut world = Self {
            place: tempfile::tempdir().unwrap(),
            api,
            objects,
            runtime: Runtime::new(),
            tasks: TaskTracker::new(),
            stop,
            stop_kubelet: CancellationToken::new(),
            running: None,
            managers: None,
        };
        world.start();
        world
    }

    pub(crate) fn managers(&self) -> (Arc<PodManager>, Arc<VolumeManager>) {
        self.managers.clone().unwrap()
    }

    pub(crate) fn directory(&self) -> &Path {
        self.place.path()
    }

    fn layout(&self) -> Layout {
        Layout::new(self.place.path().join("kubelet"), self.place.path().join("logs"))
    }

    fn start(&mut self) {
        let stop = CancellationToken::new();
        let mut config = config(self.place.path());
        config.timings.restart_backoff_min = Duration::from_millis(200);
        let reporter = NodeReporter {
            config: Arc::new(config),
            machine: Machine::default(),
            listen: "127.0.0.1:1".parse().unwrap(),
        };
        let recorder = Recorder::new(self.objects.client().clone(), "kubelet", "n1", self.stop.clone());
        let (drivers, queue, layout) = (Arc::new(Drivers::default()), manager::queue(), self.layout());
        let volumes = crate::start::volumes(
            &reporter,
            &self.objects,
            &layout,
            &drivers,
            &recorder,
            queue.clone(),
        );
        volumes.adopt(reconstruct::scan(&layout).unwrap());
        let pods = PodManager::new(Parts {
            config: reporter.config.clone(),
            objects: self.objects.clone(),
            layout,
            volumes: volumes.clone(),
            runtime: Arc::new(self.runtime.clone()),
            images: Arc::new(self.runtime.clone()),
            recorder,
            queue,
            stop: stop.clone(),
        });
        wiring::connect(&self.objects, &drivers, &volumes, &pods);
        self.managers = Some((pods.clone(), volumes.clone()));
        let own = stop.clone();
        self.running = Some(self.tasks.spawn(async move {
            let volumes = reconcile::run(volumes, own);
            let (pods, ()) = tokio::join!(pods.run(), volumes);
            pods.unwrap();
        }));
        self.stop_kubelet = stop;
    }

    /// Containers go on without a kubelet.
    async fn kill(&mut self) {
        self.stop_kubelet.cancel();
        self.running.take().unwrap().await.unwrap();
    }

    pub(crate) fn put(&self, pod: Value) {
        self.objects.pods.observe(serde_json::from_value(pod).unwrap());
    }

    fn pod(&self) -> Option<Arc<Pod>> {
        self.objects.pods.get(Some("ns"), "p")
    }

    /// The user deletes the pod, with that many seconds of grace from now.
    fn delete(&self, grace: i64) {
        let mut pod = json!(*self.pod().unwrap());
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
        pod["metadata"]["deletionTimestamp"] = json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let version: u64 = pod["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        pod["metadata"]["resourceVersion"] = json!((version + 1).to_string());
        self.put(pod);
    }

    /// Waits until a value in the pod's JSON is as wanted.
    pub(crate) async fn shows(&self, pointer: &str, want: Value) {
        eventually(&format!("{pointer} is {want}"), || {
            let pod = self.pod().map(|pod| json!(*pod)).unwrap_or_default();
            let got = pod.pointer(pointer).cloned().unwrap_or_default();
            if got == want {
                Ok(())
            } else {
                Err(format!("{got} in {}", pod["status"]))
            }
        })
        .await;
    }

    async fn told(&self, reason: &str, part: &str) {
        eventually(reason, || {
            let events = self.api.events.lock().clone();
            let is_told = events
                .iter()
                .any(|(held, message)| held == reason && message.contains(part));
            if is_told {
                Ok(())
            } else {
                Err(format!("{events:?}"))
            }
        })
        .await;
    }

    async fn called(&self, call: &str) {
        eventually(call, || {
            let calls = self.runtime.calls();
            if calls.iter().any(|held| held == call) {
                Ok(())
            } else {
                Err(format!("{calls:?}"))
            }
        })
        .await;
    }

    /// The pod is gone from everywhere.
    async fn gone(&self) {
        eventually("the pod is gone", || {
            let directory = self.layout().pod("u").exists();
            if self.pod().is_none() && self.runtime.is_empty() && !directory {
                return Ok(());
            }
            Err(format!(
                "{:?} {:?} {directory}",
                self.pod().is_some(),
                self.runtime.calls()
            ))
        })
        .await;
    }

    pub(crate) async fn end(mut self) {
        self.kill().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

const STATUS: &str = "/status/containerStatuses/0";

fn pod(spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "1"}, "spec": spec});
    pod["spec"]["nodeName"] = json!("n1");
    pod
}

fn one(policy: &str) -> Value {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "image"}]}))
}

#[tokio::test]
async fn pod_runs_and_goes_without_a_trace() {
    let world = World::new();
    world.put(pod(json!({"containers": [{"name": "c", "image": "image",
        "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
        "volumeMounts": [{"name": "scratch", "mountPath": "/s"}]}],
        "volumes": [{"name": "scratch", "emptyDir": {}}]})));
    world.shows("/status/phase", json!("Running")).await;
    world.shows("/status/podIP", json!("127.0.0.1")).await;
    world.shows(&format!("{STATUS}/ready"), json!(true)).await;
    world
        .shows(&format!("{STATUS}/containerID"), json!("moorline://u-0-c-0"))
        .await;
    let scratch = world.runtime.last_config().mounts[0].host_path.clone();
    std::fs::write(scratch.join("file"), "x").unwrap();
    let logs = world.layout().pod_logs("ns", "p", "u");
    std::fs::create_dir_all(logs.join("c")).unwrap();
    world.told("Started", "Started container c").await;
    world.delete(30);
    world.gone().await;
    let calls = world.runtime.calls();
    let wanted = [
        "sandbox u-0",
        "create c 0",
        "exec true in u-0-c-0",
        "stop u-0-c-0",
        "stop sandbox u-0",
        "remove sandbox u-0",
    ];
    assert_eq!(calls, wanted);
    let deletions = world.api.deletions.lock().clone();
    assert_eq!(deletions.len(), 1);
    assert_eq!(deletions[0]["gracePeriodSeconds"], json!(0));
    assert!(!scratch.exists() && !logs.exists());
    world.told("Killing", "Stopping container c").await;
    world.end().await;
}

#[tokio::test]
async fn crashing_container_backs_off() {
    let world = World::new();
    world.put(one("Always"));
    world.shows("/status/phase", json!("Running")).await;
    world.runtime.exit("c", 3);
    world.shows(&format!("{STATUS}/restartCount"), json!(1)).await;
    world
        .shows(&format!("{STATUS}/lastState/terminated/exitCode"), json!(3))
        .await;
    world.runtime.exit("c", 4);
    world
        .shows(
            &format!("{STATUS}/state/waiting/reason"),
            json!("CrashLoopBackOff"),
        )
        .await;
    world
        .shows(&format!("{STATUS}/lastState/terminated/exitCode"), json!(4))
        .await;
    world
        .told("BackOff", "Back-off restarting failed container c in pod p_ns(u)")
        .await;
    world.shows(&format!("{STATUS}/restartCount"), json!(2)).await;
    world.delete(30);
    world.gone().await;
    world.end().await;
}

#[tokio::test]
async fn finished_pod_succeeds_or_fails() {
    for (code, phase) in [(0, "Succeeded"), (1, "Failed")] {
        let world = World::new();
        world.put(one("Never"));
        world.shows("/status/phase", json!("Running")).await;
        world.runtime.exit("c", code);
        world.shows("/status/phase", json!(phase)).await;
        world.called("stop sandbox u-0").await;
        assert!(!world.runtime.is_empty(), "its logs are kept");
        world.delete(30);
        world.gone().await;
        world.end().await;
    }
}

#[tokio::test]
async fn missing_image_is_waited_for() {
    let world = World::new();
    world.put(pod(json!({"containers": [{"name": "c", "image": "late"}]})));
    world
        .shows(&format!("{STATUS}/state/waiting/reason"), json!("ErrImagePull"))
        .await;
    world.told("Failed", "Failed to pull image \"late\"").await;
    world.runtime.add_image("late");
    world.shows("/status/phase", json!("Running")).await;
    world.delete(30);
    world.gone().await;
    world.end().await;
}

#[tokio::test]
async fn missing_config_map_is_waited_for() {
    let world = World::new();
    world.put(pod(json!({"containers": [{"name": "c", "image": "image",
        "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]}]})));
    world
        .shows(
            &format!("{STATUS}/state/waiting/reason"),
            json!("CreateContainerConfigError"),
        )
        .await;
    let object =
        json!({"metadata": {"namespace": "ns", "name": "cm", "resourceVersion": "1"}, "data": {"k": "v"}});
    world
        .objects
        .config_maps
        .observe(serde_json::from_value(object).unwrap());
    world.shows("/status/phase", json!("Running")).await;
    assert_eq!(
        world.runtime.last_config().env,
        [("X".to_owned(), "v".to_owned())]
    );
    world.end().await;
}

#[tokio::test]
async fn init_container_comes_first() {
    let world = World::new();
    world.put(pod(json!({"initContainers": [{"name": "i", "image": "image"}],
        "containers": [{"name": "c", "image": "image"}]})));
    world.called("create i 0").await;
    world
        .shows(
            &format!("{STATUS}/state/waiting/reason"),
            json!("PodInitializing"),
        )
        .await;
    assert!(!world.runtime.calls().contains(&"create c 0".to_owned()));
    world.runtime.exit("i", 0);
    world.shows("/status/phase", json!("Running")).await;
    world
        .shows("/status/initContainerStatuses/0/ready", json!(true))
        .await;
    world.end().await;
}

#[tokio::test]
async fn probes_decide_about_readiness_and_restarts() {
    let world = World::new();
    world.put(pod(json!({"containers": [{"name": "c", "image": "image",
        "readinessProbe": {"exec": {"command": ["true"]}},
        "livenessProbe": {"exec": {"command": ["false"]}, "failureThreshold": 1, "initialDelaySeconds": 1}}]})));
    world.shows(&format!("{STATUS}/ready"), json!(true)).await;
    world
        .told("Killing", "Container c failed liveness probe, will be restarted")
        .await;
    world.shows(&format!("{STATUS}/restartCount"), json!(1)).await;
    world.delete(0);
    world.gone().await;
    world.end().await;
}

#[tokio::test]
async fn restarted_kubelet_adopts_what_runs_and_restarts_what_died() {
    let mut world = World::new();
    world.put(pod(
        json!({"containers": [{"name": "c", "image": "image"}, {"name": "d", "image": "image"}]}),
    ));
    world.shows("/status/phase", json!("Running")).await;
    world.kill().await;
    world.runtime.exit("d", 1);
    world.start();
    world
        .shows("/status/containerStatuses/1/restartCount", json!(1))
        .await;
    world
        .shows("/status/containerStatuses/1/ready", json!(true))
        .await;
    world.shows(&format!("{STATUS}/restartCount"), json!(0)).await;
    assert_eq!(
        world.runtime.calls(),
        ["sandbox u-0", "create c 0", "create d 0", "create d 1"]
    );
    world.delete(0);
    world.gone().await;
    world.end().await;
}

#[tokio::test]
async fn pod_deleted_while_the_kubelet_was_away_is_taken_down() {
    for is_forced in [false, true] {
        let mut world = World::new();
        world.put(one("Always"));
        world.shows("/status/phase", json!("Running")).await;
        world.kill().await;
        if is_forced {
            world.objects.pods.forget(&world.pod().unwrap());
        } else {
            world.delete(0);
        }
        world.start();
        world.gone().await;
        world.end().await;
    }
}

#[tokio::test]
async fn shortened_grace_takes_effect() {
    let world = World::new();
    world.runtime.set_stubborn();
    world.put(one("Always"));
    world.shows("/status/phase", json!("Running")).await;
    world.delete(1000);
    world.called("stop u-0-c-0").await;
    world.delete(0);
    world.gone().await;
    assert_eq!(
        world
            .runtime
            .calls()
            .iter()
            .filter(|call| *call == "stop u-0-c-0")
            .count(),
        2
    );
    world.end().await;
}

#[tokio::test]
async fn new_pod_of_the_same_name_is_another_pod() {
    let world = World::new();
    world.put(one("Always"));
    world.shows("/status/phase", json!("Running")).await;
    let mut other = one("Always");
    other["metadata"]["uid"] = json!("w");
    other["metadata"]["resourceVersion"] = json!("100");
    world.put(other);
    world.called("create c 0").await;
    world.called("remove sandbox u-0").await;
    world.called("sandbox w-0").await;
    world
        .shows(&format!("{STATUS}/containerID"), json!("moorline://w-0-c-0"))
        .await;
    let old = world.layout().pod("u");
    eventually("the old directory is gone", || {
        if old.exists() { Err("there".into()) } else { Ok(()) }
    })
    .await;
    world.end().await;
}

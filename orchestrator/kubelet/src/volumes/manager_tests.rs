//! The volume manager with a driver on a socket and real mounts: each story ends with nothing left behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use moorline_runtime::Recorder;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Code;

use super::csi_mount::CsiVolumes;
use super::local::LocalVolumes;
use super::manager::{PodVolumes, VolumeManager};
use super::tokens::Tokens;
use super::{reconcile, reconstruct};
use crate::config::Timings;
use crate::csi::drivers::{self, Drivers};
use crate::node::status::InUseListener as _;
use crate::objects::Objects;
use crate::paths::Layout;
use crate::testing::api::Api;
use crate::testing::csi_driver::{Driver, Moment, NAME};
use crate::testing::{eventually, is_root};

/// A directory below which nothing stays mounted, also after a panic.
struct Place(tempfile::TempDir);

impl Drop for Place {
    fn drop(&mut self) {
        moorline_mount::mount::unmount_tree(self.0.path()).ok(); // Removing the directory says if something is left.
    }
}

struct World {
    place: Place,
    layout: Layout,
    api: Api,
    objects: Objects,
    driver: Driver,
    drivers: Arc<Drivers>,
    manager: Arc<VolumeManager>,
    tasks: TaskTracker,
    stop: CancellationToken,
    stop_manager: CancellationToken,
    running: JoinHandle<()>,
}

fn manager(
    objects: &Objects,
    layout: &Layout,
    drivers: &Arc<Drivers>,
    stop: &CancellationToken,
) -> Arc<VolumeManager> {
    let tokens = Tokens::default();
    let csi = CsiVolumes {
        objects: objects.clone(),
        layout: layout.clone(),
        drivers: drivers.clone(),
        tokens: tokens.clone(),
        node_name: "n1".into(),
    };
    let local = LocalVolumes {
        objects: objects.clone(),
        layout: layout.clone(),
        tokens,
        node_ip: "127.0.0.1".parse().unwrap(),
        allocatable: Default::default(),
    };
    let recorder = Recorder::new(objects.client().clone(), "kubelet", "n1", stop.clone());
    let timings = Timings {
        volume_retry_interval_min: Duration::from_millis(1),
        ..Timings::default()
    };
    Arc::new(VolumeManager::new(
        csi,
        local,
        recorder,
        &timings,
        Arc::new(|_: &str| {}),
    ))
}

impl World {
    fn new(stages: bool) -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        let root = place.0.path();
        let layout = Layout::new(root.join("kubelet"), root.join("logs"));
        let (tasks, stop, stop_manager) = (
            TaskTracker::new(),
            CancellationToken::new(),
            CancellationToken::new(),
        );
        let (api, objects) = Api::start(&stop);
        let driver = Driver::start(root, stages, &tasks, &stop);
        let drivers = Arc::new(Drivers::default());
        let manager = manager(&objects, &layout, &drivers, &stop);
        let running = tasks.spawn(reconcile::run(manager.clone(), stop_manager.clone()));
        let world = Self {
            place,
            layout,
            api,
            objects,
            driver,
            drivers,
            manager,
            tasks,
            stop,
            stop_manager,
            running,
        };
        world.cluster_object::<k8s_openapi::api::storage::v1::CSIDriver>(
            |object| world.objects.csi_drivers.observe(object),
            json!({"metadata": {"name": NAME, "resourceVersion": "1"}, "spec": {"attachRequired": false}}),
        );
        world.manager.settle();
        world
    }

    fn cluster_object<K: serde::de::DeserializeOwned>(&self, put: impl Fn(K), object: Value) {
        put(serde_json::from_value(object).unwrap());
    }

    async fn register(&self) {
        let client = drivers::connect(&self.driver.socket, Duration::from_secs(10));
        let capabilities = client.capabilities().await.unwrap();
        self.drivers.insert(drivers::Driver {
            name: NAME.into(),
            endpoint: self.driver.socket.clone(),
            node_id: "id-1".into(),
            capabilities,
            client,
        });
        self.manager.look_at_driver(NAME);
    }

    /// A claim bound to a PV of the driver.
    fn volume(&self, name: &str, change: impl FnOnce(&mut Value, &mut Value)) {
        let mut pv = json!({"metadata": {"name": format!("pv-{name}"), "resourceVersion": "1", "uid": format!("pv-{name}")},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Mi"},
                "claimRef": {"namespace": "ns", "name": name, "uid": format!("claim-{name}")},
                "csi": {"driver": NAME, "volumeHandle": format!("vol-{name}"), "fsType": "ext4"}}});
        let mut claim = json!({"metadata": {"namespace": "ns", "name": name, "resourceVersion": "1",
                "uid": format!("claim-{name}")},
            "spec": {"volumeName": format!("pv-{name}")},
            "status": {"phase": "Bound", "capacity": {"storage": "1Mi"}}});
        change(&mut pv, &mut claim);
        self.objects.pvs.observe(serde_json::from_value(pv).unwrap());
        self.objects
            .claims
            .observe(serde_json::from_value(claim).unwrap());
    }

    async fn want(&self, pod: &Arc<Pod>) -> PodVolumes {
        self.manager.sync_pod(pod, Timestamp::now()).await.unwrap()
    }

    async fn ready(&self, pod: &Arc<Pod>) -> PathBuf {
        self.want(pod).await;
        let uid = pod.metadata.uid.clone().unwrap();
        let path = eventually("the volumes of the pod are ready", || {
            match self.manager.pod_volumes(&uid, Timestamp::now()) {
                PodVolumes::Ready(volumes) => Ok(volumes.into_values().next().unwrap().path),
                pending => Err(format!("{pending:?}")),
            }
        });
        path.await
    }

    async fn released(&self, pod: &Arc<Pod>) {
        let uid = pod.metadata.uid.clone().unwrap();
        self.manager.release(&uid);
        eventually("the volumes of the pod are gone", || {
            if self.manager.release(&uid) {
                Ok(())
            } else {
                Err(format!("{:?}", self.manager.release_problem(&uid)))
            }
        })
        .await;
        self.manager.forget_pod(&uid);
    }

    async fn called(&self, call: &str) {
        eventually(call, || {
            let calls = self.driver.calls();
            if calls.iter().any(|held| held == call) {
                Ok(())
            } else {
                Err(format!("{calls:?}"))
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

    /// A second kubelet after the first one was killed.
    async fn restart(&mut self) {
        self.stop_manager.cancel();
        (&mut self.running).await.unwrap();
        self.drivers = Arc::new(Drivers::default());
        self.manager = manager(&self.objects, &self.layout, &self.drivers, &self.stop);
        self.manager.adopt(reconstruct::scan(&self.layout).unwrap());
        self.stop_manager = CancellationToken::new();
        self.running = self
            .tasks
            .spawn(reconcile::run(self.manager.clone(), self.stop_manager.clone()));
        self.register().await;
    }

    /// Nothing is mounted, no directory of a volume is left.
    async fn end(self) {
        let root = self.place.0.path().to_owned();
        eventually("nothing is left", || {
            let mounts = moorline_mount::mountinfo::read().unwrap();
            let below: Vec<&Path> = mounts
                .iter()
                .map(|entry| entry.mount_point.as_path())
                .filter(|path| path.starts_with(&root))
                .collect();
            let left = files_below(&root.join("kubelet/plugins"));
            if below.is_empty() && left.is_empty() {
                Ok(())
            } else {
                Err(format!("{below:?} {left:?}"))
            }
        })
        .await;
        self.stop_manager.cancel();
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return vec![];
    };
    let entries = entries.map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files_below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// A pod that mounts the claim `name`.
fn pod(uid: &str, name: &str) -> Arc<Pod> {
    pod_with(
        uid,
        json!({"name": "v", "persistentVolumeClaim": {"claimName": name}}),
        "volumeMounts",
    )
}

fn pod_with(uid: &str, volume: Value, list: &str) -> Arc<Pod> {
    let pod = json!({"metadata": {"name": format!("pod-{uid}"), "namespace": "ns", "uid": uid},
        "spec": {"containers": [{"name": "c", list: [{"name": "v", "mountPath": "/v", "devicePath": "/dev/v"}]}],
            "serviceAccountName": "sa", "volumes": [volume]}});
    Arc::new(serde_json::from_value(pod).unwrap())
}

#[tokio::test]
async fn two_pods_share_a_staged_volume() {
    if !is_root("two_pods_share_a_staged_volume") {
        return;
    }
    let world = World::new(true);
    world.register().await;
    world.volume("a", |_, _| {});
    let (first, second) = (pod("u1", "a"), pod("u2", "a"));
    let path = world.ready(&first).await;
    std::fs::write(path.join("file"), "data").unwrap();
    let other = world.ready(&second).await;
    assert_eq!(std::fs::read_to_string(other.join("file")).unwrap(), "data");
    assert!(world.layout.staging(NAME, "vol-a").join("vol_data.json").exists());
    world.released(&first).await;
    world.released(&second).await;
    world.called("unstage vol-a").await;
    let calls = world.driver.calls();
    assert_eq!(
        calls,
        [
            "stage vol-a",
            "publish vol-a",
            "publish vol-a",
            "unpublish vol-a",
            "unpublish vol-a",
            "unstage vol-a"
        ]
    );
    assert_eq!(
        std::fs::read_to_string(world.driver.data("vol-a").join("file")).unwrap(),
        "data"
    );
    world.end().await;
}

#[tokio::test]
async fn failures_are_told_and_tried_again() {
    if !is_root("failures_are_told_and_tried_again") {
        return;
    }
    for (method, moment, code) in [
        ("stage", Moment::Before, Code::Internal),
        ("stage", Moment::After, Code::DeadlineExceeded),
        ("publish", Moment::Before, Code::InvalidArgument),
        ("publish", Moment::After, Code::Unavailable),
        ("unpublish", Moment::Before, Code::Internal),
        ("unpublish", Moment::After, Code::Aborted),
        ("unstage", Moment::Before, Code::Internal),
        ("unstage", Moment::After, Code::Unavailable),
    ] {
        let world = World::new(true);
        world.register().await;
        world.volume("a", |_, _| {});
        world.driver.fail(method, moment, code);
        let pod = pod("u1", "a");
        world.ready(&pod).await;
        if method == "stage" || method == "publish" {
            let part = crate::csi::client::code_name(code);
            world
                .told(
                    "FailedMount",
                    &format!("for volume \"pv-a\" : rpc error: code = {part} desc = scripted"),
                )
                .await;
        }
        world.released(&pod).await;
        world.called("unstage vol-a").await;
        world.end().await;
    }
}

#[tokio::test]
async fn uncertain_stage_is_undone_when_the_pod_goes() {
    if !is_root("uncertain_stage_is_undone_when_the_pod_goes") {
        return;
    }
    let world = World::new(true);
    world.register().await;
    world.volume("a", |_, _| {});
    for _ in 0..1000 {
        world.driver.fail("stage", Moment::After, Code::DeadlineExceeded);
    }
    let pod = pod("u1", "a");
    world.want(&pod).await;
    world.called("stage vol-a").await;
    world.released(&pod).await;
    world.called("unstage vol-a").await;
    assert!(!world.driver.calls().contains(&"publish vol-a".to_owned()));
    world.end().await;
}

#[tokio::test]
async fn driver_may_come_late() {
    if !is_root("driver_may_come_late") {
        return;
    }
    let world = World::new(false);
    world.volume("a", |_, _| {});
    let pod = pod("u1", "a");
    world.want(&pod).await;
    world
        .told("FailedMount", "not found in the list of registered CSI drivers")
        .await;
    assert_eq!(world.driver.calls(), Vec::<String>::new());
    world.register().await;
    world.ready(&pod).await;
    world.released(&pod).await;
    assert_eq!(
        world.driver.calls(),
        ["publish vol-a", "unpublish vol-a"],
        "this driver doesn't stage"
    );
    world.end().await;
}

#[tokio::test]
async fn driver_that_went_away_is_named_to_pods_that_go() {
    if !is_root("driver_that_went_away_is_named_to_pods_that_go") {
        return;
    }
    let world = World::new(false);
    world.register().await;
    world.volume("a", |_, _| {});
    let pod = pod("u1", "a");
    world.ready(&pod).await;
    assert!(world.drivers.remove(NAME, &world.driver.socket));
    world.manager.release("u1");
    eventually("the driver is named", || {
        match world.manager.release_problem("u1") {
            Some(problem) if problem.contains("not found in the list of registered CSI drivers") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    world.register().await;
    world.released(&pod).await;
    world.end().await;
}

#[tokio::test]
async fn restarted_kubelet_keeps_what_living_pods_use() {
    if !is_root("restarted_kubelet_keeps_what_living_pods_use") {
        return;
    }
    let mut world = World::new(true);
    world.register().await;
    world.volume("a", |_, _| {});
    world.volume("b", |_, _| {});
    let (living, dead) = (pod("u1", "a"), pod("u2", "b"));
    let path = world.ready(&living).await;
    world.ready(&dead).await;
    std::fs::write(path.join("file"), "data").unwrap();
    let held = std::fs::File::open(path.join("file")).unwrap();
    world.restart().await;
    world.manager.settle();
    assert_eq!(
        world.manager.pods_with_mounts().into_iter().collect::<Vec<_>>(),
        ["u1", "u2"]
    );
    world.ready(&living).await;
    world.released(&dead).await;
    world.called("unstage vol-b").await;
    assert_eq!(std::io::read_to_string(held).unwrap(), "data");
    let calls = world.driver.calls();
    assert!(!calls.contains(&"unpublish vol-a".to_owned()), "{calls:?}");
    world.released(&living).await;
    world.called("unstage vol-a").await;
    world.end().await;
}

#[tokio::test]
async fn volume_staged_for_nobody_is_unstaged_after_a_restart() {
    if !is_root("volume_staged_for_nobody_is_unstaged_after_a_restart") {
        return;
    }
    let mut world = World::new(true);
    world.register().await;
    world.volume("a", |_, _| {});
    for _ in 0..1000 {
        world.driver.fail("publish", Moment::Before, Code::Internal);
    }
    let pod = pod("u1", "a");
    world.want(&pod).await;
    world.called("publish vol-a").await;
    world.restart().await;
    let before = world.driver.calls();
    assert!(
        !before.contains(&"unstage vol-a".to_owned()),
        "not before all pods are known"
    );
    world.manager.settle();
    world.called("unstage vol-a").await;
    world.end().await;
}

#[tokio::test]
async fn attached_volume_follows_the_hand_shake() {
    if !is_root("attached_volume_follows_the_hand_shake") {
        return;
    }
    let world = World::new(true);
    world.register().await;
    world.volume("a", |_, _| {});
    let csi_driver =
        json!({"metadata": {"name": NAME, "resourceVersion": "2"}, "spec": {"attachRequired": true}});
    world
        .objects
        .csi_drivers
        .observe(serde_json::from_value(csi_driver).unwrap());
    let pod = pod("u1", "a");
    world.want(&pod).await;
    let unique = format!("kubernetes.io/csi/{NAME}^vol-a");
    let mut in_use = world.manager.in_use();
    in_use
        .wait_for(|list| *list == Some(vec![unique.clone()]))
        .await
        .unwrap();
    assert_eq!(world.driver.calls(), Vec::<String>::new());
    let node = json!({"metadata": {"name": "n1", "resourceVersion": "3"}, "status": {"volumesInUse": [unique],
        "volumesAttached": [{"name": unique, "devicePath": ""}]}});
    let node: k8s_openapi::api::core::v1::Node = serde_json::from_value(node).unwrap();
    // What is held may be of an earlier time: only what this kubelet was told counts.
    world.objects.node.observe(node.clone());
    world.manager.look_at_waiting();
    let name = moorline_model::names::volume_attachment_name("vol-a", NAME, "n1");
    let attachment = json!({"metadata": {"name": name, "resourceVersion": "4"},
        "spec": {"attacher": NAME, "nodeName": "n1", "source": {"persistentVolumeName": "pv-a"}},
        "status": {"attached": true}});
    world
        .objects
        .attachments
        .observe(serde_json::from_value(attachment).unwrap());
    world.manager.look_at_attachment(&name);
    assert_eq!(world.driver.calls(), Vec::<String>::new());
    world.manager.was_told([unique.clone()].into(), node);
    world.ready(&pod).await;
    world.released(&pod).await;
    in_use.wait_for(|list| *list == Some(vec![])).await.unwrap();
    world.called("unstage vol-a").await;
    world.end().await;
}

#[tokio::test]
async fn published_volume_grows() {
    if !is_root("published_volume_grows") {
        return;
    }
    let world = World::new(true);
    world.register().await;
    world.volume("a", |_, _| {});
    let pod = pod("u1", "a");
    world.ready(&pod).await;
    world.driver.fail("expand", Moment::Before, Code::Unavailable);
    world.volume("a", |pv, claim| {
        pv["metadata"]["resourceVersion"] = json!("5");
        pv["spec"]["capacity"]["storage"] = json!("2Mi");
        claim["metadata"]["resourceVersion"] = json!("5");
        claim["status"]["allocatedResources"] = json!({"storage": "2Mi"});
        claim["status"]["allocatedResourceStatuses"] = json!({"storage": "NodeResizePending"});
    });
    world.manager.look_at(|_, _| true);
    world
        .told(
            "FileSystemResizeSuccessful",
            "MountVolume.NodeExpandVolume succeeded for volume \"pv-a\" n1",
        )
        .await;
    let writes = world.api.claim_writes.lock().clone();
    let write = |status: &str, size: &str| (status.to_owned(), size.to_owned());
    assert_eq!(writes, [write("NodeResizeInProgress", "1Mi"), write("-", "2Mi")]);
    let expands = world
        .driver
        .calls()
        .iter()
        .filter(|call| *call == "expand vol-a to 2097152")
        .count();
    assert_eq!(expands, 2, "the first answer was no final one");
    world.released(&pod).await;
    world.called("unstage vol-a").await;
    world.end().await;
}

#[tokio::test]
async fn impossible_growth_is_marked_infeasible() {
    if !is_root("impossible_growth_is_marked_infeasible") {
        return;
    }
    let world = World::new(true);
    world.register().await;
    world.driver.fail("expand", Moment::Before, Code::OutOfRange);
    world.volume("a", |pv, claim| {
        pv["spec"]["capacity"]["storage"] = json!("2Mi");
        claim["status"]["allocatedResources"] = json!({"storage": "2Mi"});
        claim["status"]["allocatedResourceStatuses"] = json!({"storage": "NodeResizePending"});
    });
    let pod = pod("u1", "a");
    world.ready(&pod).await;
    world.told("VolumeResizeFailed", "code = OutOfRange").await;
    eventually("the claim is marked", || {
        let writes = world.api.claim_writes.lock().clone();
        if writes
            .last()
            .is_some_and(|(status, _)| status == "NodeResizeInfeasible")
        {
            Ok(())
        } else {
            Err(format!("{writes:?}"))
        }
    })
    .await;
    world.released(&pod).await;
    world.called("unstage vol-a").await;
    world.end().await;
}

#[tokio::test]
async fn single_pod_volume_waits_for_the_other_pod() {
    if !is_root("single_pod_volume_waits_for_the_other_pod") {
        return;
    }
    let world = World::new(true);
    world.register().await;
    world.volume("a", |pv, _| {
        pv["spec"]["accessModes"] = json!(["ReadWriteOncePod"])
    });
    let (first, second) = (pod("u1", "a"), pod("u2", "a"));
    world.ready(&first).await;
    world.want(&second).await;
    world.told("FailedMount", "already in use by another pod").await;
    world.released(&first).await;
    world.ready(&second).await;
    world.released(&second).await;
    world.called("unstage vol-a").await;
    world.end().await;
}

#[tokio::test]
async fn block_volume_is_a_device_behind_a_symlink() {
    if !is_root("block_volume_is_a_device_behind_a_symlink") {
        return;
    }
    for stages in [true, false] {
        let mut world = World::new(stages);
        world.register().await;
        world.volume("a", |pv, _| pv["spec"]["volumeMode"] = json!("Block"));
        let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "a"}});
        let pod = pod_with("u1", volume, "volumeDevices");
        let path = world.ready(&pod).await;
        assert_eq!(path, world.layout.pod_device("u1", "pv-a"));
        assert_eq!(
            std::fs::read_link(&path).unwrap(),
            world.layout.block_publish_target("u1", "pv-a")
        );
        std::fs::write(&path, "x").unwrap();
        world.restart().await;
        world.manager.settle();
        world.released(&pod).await;
        if stages {
            world.called("unstage vol-a").await;
        }
        world.end().await;
    }
}

#[tokio::test]
async fn inline_volume_needs_a_driver_that_says_so() {
    if !is_root("inline_volume_needs_a_driver_that_says_so") {
        return;
    }
    let world = World::new(true);
    world.register().await;
    let inline = json!({"name": "v", "csi": {"driver": NAME, "volumeAttributes": {"k": "v"}}});
    let pod = pod_with("u1", inline, "volumeMounts");
    world.want(&pod).await;
    world
        .told("FailedMount", "volume mode \"Ephemeral\" not supported by driver")
        .await;
    let csi_driver = json!({"metadata": {"name": NAME, "resourceVersion": "2"}, "spec": {"podInfoOnMount": true,
        "volumeLifecycleModes": ["Ephemeral"], "tokenRequests": [{"audience": "vault"}]}});
    world
        .objects
        .csi_drivers
        .observe(serde_json::from_value(csi_driver).unwrap());
    world.manager.look_at_driver(NAME);
    world.ready(&pod).await;
    let contexts = world.driver.contexts();
    let context = contexts.last().unwrap();
    let get = |key: &str| context.get(key).map(String::as_str);
    assert_eq!(get("k"), Some("v"));
    assert_eq!(get("csi.storage.k8s.io/pod.name"), Some("pod-u1"));
    assert_eq!(get("csi.storage.k8s.io/serviceAccount.name"), Some("sa"));
    assert_eq!(get("csi.storage.k8s.io/ephemeral"), Some("true"));
    let tokens: Value =
        serde_json::from_str(get("csi.storage.k8s.io/serviceAccount.tokens").unwrap()).unwrap();
    assert_eq!(tokens["vault"]["token"], json!("signed"));
    world.released(&pod).await;
    let handle = crate::paths::inline_handle("u1", "v");
    assert_eq!(
        world.driver.calls(),
        [format!("publish {handle}"), format!("unpublish {handle}")],
        "no stage"
    );
    world.end().await;
}

#[tokio::test]
async fn content_of_a_config_map_volume_follows_the_object() {
    let world = World::new(true);
    let pod = pod_with(
        "u1",
        json!({"name": "v", "configMap": {"name": "cm"}}),
        "volumeMounts",
    );
    world.want(&pod).await;
    world.told("FailedMount", "configmap \"cm\" not found").await;
    let put = |version: &str, value: &str| {
        let object = json!({"metadata": {"namespace": "ns", "name": "cm", "resourceVersion": version}, "data": {"k": value}});
        world
            .objects
            .config_maps
            .observe(serde_json::from_value(object).unwrap());
        world.manager.refresh(|_| true);
    };
    put("1", "old");
    let path = world.ready(&pod).await;
    assert_eq!(std::fs::read_to_string(path.join("k")).unwrap(), "old");
    put("2", "new");
    eventually("the file follows", || {
        match std::fs::read_to_string(path.join("k")) {
            Ok(text) if text == "new" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    world.released(&pod).await;
    assert!(!path.exists());
    world.end().await;
}

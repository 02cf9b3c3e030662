//! The resizer against a scripted driver.

mod support;

use std::time::Duration;

use moorline_runtime::Backoff;
use moorline_sidecars::discovery::ControllerCapability;
use moorline_sidecars::resizer::{self, ResizerConfig};
use serde_json::{Value, json};
use support::{DRIVER, Step, World, claim};
use tonic::Code;

const EXPAND: i32 = ControllerCapability::ExpandVolume as i32;
const CREATE_DELETE: i32 = ControllerCapability::CreateDeleteVolume as i32;

fn start(world: &World) {
    let config = ResizerConfig {
        timeout: Duration::from_secs(3),
        retry_interval: Backoff {
            min: Duration::from_millis(20),
            max: Duration::from_millis(300),
        },
        ..ResizerConfig::new(world.csi_address())
    };
    let (informers, stop) = (world.informers.clone(), world.stop.clone());
    world
        .tasks
        .spawn(async move { resizer::run(config, informers, stop).await.expect("resizer") });
}

/// A bound claim of 1Gi whose volume the driver knows.
async fn world(node_expansion: bool) -> World {
    let world = World::new(&[EXPAND, CREATE_DELETE]).await;
    world.driver.set_node_expansion(node_expansion);
    world.driver.make("pvc-uid-data", 1 << 30);
    world.api.put(
        "persistentvolumes",
        json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "pvc-uid-data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": "ns", "name": "data", "uid": "uid-data"},
            "csi": {"driver": DRIVER, "volumeHandle": "vol-1"}},
        "status": {"phase": "Bound"}}),
    );
    let mut bound = claim("data");
    bound["spec"]["volumeName"] = json!("pvc-uid-data");
    bound["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
    world.api.put("persistentvolumeclaims", bound);
    world
}

fn request(world: &World, size: &str) {
    world.api.edit("persistentvolumeclaims", "ns", "data", |claim| {
        claim["spec"]["resources"]["requests"]["storage"] = json!(size);
    });
}

fn seen(world: &World) -> Value {
    world
        .api
        .get("persistentvolumeclaims", "ns", "data")
        .expect("claim")
}

fn stage(claim: &Value) -> Value {
    claim["status"]["allocatedResourceStatuses"]["storage"].clone()
}

fn conditions(claim: &Value) -> Vec<String> {
    let list = claim["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    list.iter()
        .map(|condition| condition["type"].as_str().unwrap_or_default().to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_node_work_the_kubelet_is_left_to_finish() {
    let world = world(true).await;
    start(&world);
    request(&world, "2Gi");
    let pending = || Some(seen(&world)).filter(|claim| stage(claim) == "NodeResizePending");
    let claim = world.until("controller side not done", pending).await;
    assert_eq!(conditions(&claim), ["FileSystemResizePending"]);
    assert_eq!(claim["status"]["allocatedResources"]["storage"], "2Gi");
    assert_eq!(claim["status"]["capacity"]["storage"], "1Gi");
    let pv = world
        .api
        .get("persistentvolumes", "", "pvc-uid-data")
        .expect("pv");
    assert_eq!(pv["spec"]["capacity"]["storage"], "2Gi");
    const REMEMBERED: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";
    assert_eq!(pv["metadata"]["annotations"][REMEMBERED], "1Gi");
    let three_writes = [
        "PATCH persistentvolumeclaims/status",
        "PATCH persistentvolumes",
        "PATCH persistentvolumeclaims/status",
    ];
    assert_eq!(world.api.writes(), three_writes);
    let told = || (world.api.reasons("data") == ["Resizing", "FileSystemResizeRequired"]).then_some(());
    world.until("events", told).await;

    // The kubelet finishes.
    world.api.edit("persistentvolumeclaims", "ns", "data", |claim| {
        claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "2Gi"},
            "allocatedResources": {"storage": "2Gi"}, "conditions": []});
    });
    let forgotten = || {
        let pv = world.api.get("persistentvolumes", "", "pvc-uid-data")?;
        pv["metadata"]["annotations"][REMEMBERED].is_null().then_some(())
    };
    world.until("old size still remembered", forgotten).await;
    assert_eq!(world.driver.calls("ControllerExpandVolume"), 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_node_work_everything_is_finished_here() {
    let world = world(false).await;
    start(&world);
    request(&world, "3Gi");
    let done = || Some(seen(&world)).filter(|claim| claim["status"]["capacity"]["storage"] == "3Gi");
    let claim = world.until("not expanded", done).await;
    assert_eq!((stage(&claim), conditions(&claim)), (Value::Null, vec![]));
    let annotations = &claim["metadata"]["annotations"];
    assert_eq!(
        annotations["volume.kubernetes.io/node-expansion-not-required"],
        "true"
    );
    let told = || (world.api.reasons("data") == ["Resizing", "VolumeResizeSuccessful"]).then_some(());
    world.until("events", told).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_are_asked_again_for_the_same_size() {
    for step in [
        Step::DoThenHang,
        Step::DoThenDie,
        Step::DoThenFail(Code::Unavailable),
        Step::Fail(Code::Aborted),
    ] {
        let world = world(false).await;
        world.driver.script("ControllerExpandVolume", &[step]);
        start(&world);
        request(&world, "2Gi");
        world
            .until("no call", || {
                (world.driver.calls("ControllerExpandVolume") >= 1).then_some(())
            })
            .await;
        if step == Step::DoThenDie {
            world.driver.start().await;
        }
        let done = || Some(seen(&world)).filter(|claim| claim["status"]["capacity"]["storage"] == "2Gi");
        world.until(&format!("not expanded after {step:?}"), done).await;
        assert_eq!(world.driver.calls("ControllerExpandVolume"), 2, "{step:?}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_infeasible_size_is_told_and_a_lower_one_taken_up() {
    let world = world(false).await;
    let refused = [Step::Fail(Code::OutOfRange); 50];
    world.driver.script("ControllerExpandVolume", &refused);
    start(&world);
    request(&world, "100Gi");
    let infeasible = || Some(seen(&world)).filter(|claim| stage(claim) == "ControllerResizeInfeasible");
    let claim = world.until("not infeasible", infeasible).await;
    assert!(conditions(&claim).contains(&"ControllerResizeError".to_string()));
    world.driver.forget_script();
    request(&world, "2Gi");
    let done = || Some(seen(&world)).filter(|claim| claim["status"]["capacity"]["storage"] == "2Gi");
    let claim = world.until("lower size not taken up", done).await;
    assert_eq!(claim["status"]["allocatedResources"]["storage"], "2Gi");
    assert_eq!(world.driver.volumes()["pvc-uid-data"].bytes, 2 << 30);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_in_use_waits_for_its_pod_to_end() {
    let world = world(false).await;
    world
        .driver
        .script("ControllerExpandVolume", &[Step::Fail(Code::FailedPrecondition)]);
    world.api.put("pods", json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]},
        "status": {"phase": "Running"}}));
    start(&world);
    request(&world, "2Gi");
    // Seen only in the second round, the first one learns it from the driver.
    let asked = || {
        world
            .api
            .requests()
            .iter()
            .filter(|request| *request == "GET pods")
            .nth(1)
            .map(|_| ())
    };
    world.until("pods not looked at", asked).await;
    assert_eq!(world.driver.calls("ControllerExpandVolume"), 1);
    world.api.delete("pods", "ns", "p");
    let done = || Some(seen(&world)).filter(|claim| claim["status"]["capacity"]["storage"] == "2Gi");
    world.until("not expanded after the pod's end", done).await;
    world.end().await;
}

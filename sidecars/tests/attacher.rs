//! The attacher against a scripted driver.

mod support;

use std::time::Duration;

use moorline_runtime::Backoff;
use moorline_sidecars::attacher::{self, AttacherConfig};
use moorline_sidecars::discovery::ControllerCapability;
use serde_json::{Value, json};
use support::{DRIVER, Step, World};
use tonic::Code;

const PUBLISH: i32 = ControllerCapability::PublishUnpublishVolume as i32;
const FINALIZER: &str = "external-attacher/test-csi-moorline-dev";

fn start(world: &World) {
    let quick = Backoff {
        min: Duration::from_millis(20),
        max: Duration::from_millis(200),
    };
    let config = AttacherConfig {
        timeout: Duration::from_secs(3),
        retry_interval: quick,
        ..AttacherConfig::new(world.csi_address())
    };
    let (informers, stop) = (world.informers.clone(), world.stop.clone());
    world
        .tasks
        .spawn(async move { attacher::run(config, informers, stop).await.expect("attacher") });
}

fn put_pv_and_node(world: &World) {
    world.api.put(
        "persistentvolumes",
        json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "pv1", "finalizers": ["kubernetes.io/pv-protection"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "csi": {"driver": DRIVER, "volumeHandle": "vol-1"}},
        "status": {"phase": "Bound"}}),
    );
    world.api.put(
        "csinodes",
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "n1"},
        "spec": {"drivers": [{"name": DRIVER, "nodeID": "id-of-n1"}]}}),
    );
}

fn put_attachment(world: &World) {
    world.api.put(
        "volumeattachments",
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": "va"},
        "spec": {"attacher": DRIVER, "nodeName": "n1", "source": {"persistentVolumeName": "pv1"}}}),
    );
}

fn attachment(world: &World) -> Option<Value> {
    world.api.get("volumeattachments", "", "va")
}

async fn attached(world: &World) -> Value {
    let attached = || attachment(world).filter(|held| held["status"]["attached"] == true);
    world.until("not attached", attached).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_does_not_attach_gets_a_yes_at_once() {
    let world = World::new(&[]).await;
    put_pv_and_node(&world);
    put_attachment(&world);
    start(&world);
    let held = attached(&world).await;
    assert_eq!(held["metadata"]["finalizers"], Value::Null);
    assert_eq!(world.api.writes(), ["PATCH volumeattachments/status"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_and_detach_with_three_and_one_writes() {
    let world = World::new(&[PUBLISH]).await;
    put_pv_and_node(&world);
    put_attachment(&world);
    start(&world);
    let held = attached(&world).await;
    assert_eq!(held["metadata"]["finalizers"], json!([FINALIZER]));
    assert_eq!(
        held["metadata"]["annotations"]["csi.alpha.kubernetes.io/node-id"],
        "id-of-n1"
    );
    assert_eq!(held["status"]["attachmentMetadata"], json!({"device": "/dev/x"}));
    assert_eq!(
        world.driver.published(),
        [("vol-1".to_string(), "id-of-n1".to_string())]
    );
    let pv = world.api.get("persistentvolumes", "", "pv1").expect("pv");
    assert_eq!(
        pv["metadata"]["finalizers"],
        json!(["kubernetes.io/pv-protection", FINALIZER])
    );
    let attach_writes = [
        "PATCH persistentvolumes",
        "PATCH volumeattachments",
        "PATCH volumeattachments/status",
    ];
    assert_eq!(world.api.writes(), attach_writes);

    // The node goes away for good, and with it its CSINode: the annotation remembers the id.
    world.api.delete("csinodes", "", "n1");
    world.api.delete("volumeattachments", "", "va");
    world
        .until("attachment left", || attachment(&world).is_none().then_some(()))
        .await;
    assert_eq!(world.driver.published(), []);
    assert_eq!(world.api.writes()[3..], ["PATCH volumeattachments"]);

    world.api.delete("persistentvolumes", "", "pv1");
    let is_released = || {
        let pv = world.api.get("persistentvolumes", "", "pv1")?;
        (pv["metadata"]["finalizers"] == json!(["kubernetes.io/pv-protection"])).then_some(())
    };
    world.until("PV still held", is_released).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_told_in_the_status_once_and_tried_again() {
    let world = World::new(&[PUBLISH]).await;
    put_pv_and_node(&world);
    let failing = [
        Step::Fail(Code::ResourceExhausted),
        Step::Fail(Code::ResourceExhausted),
        Step::DoThenHang,
    ];
    world.driver.script("ControllerPublishVolume", &failing);
    put_attachment(&world);
    start(&world);
    let failed = || attachment(&world).filter(|held| held["status"]["attachError"]["errorCode"] == 8);
    let held = world.until("no error in the status", failed).await;
    let message = held["status"]["attachError"]["message"]
        .as_str()
        .expect("message");
    assert_eq!(
        message,
        "rpc error: code = ResourceExhausted desc = scripted failure"
    );
    let held = attached(&world).await;
    assert_eq!(held["status"]["attachError"], Value::Null);
    assert_eq!(world.driver.calls("ControllerPublishVolume"), 4);
    // One error for two equal failures, one for the lost answer, one success.
    let status_writes = world
        .api
        .writes()
        .iter()
        .filter(|write| write.ends_with("/status"))
        .count();
    assert_eq!(status_writes, 3);

    world.driver.script(
        "ControllerUnpublishVolume",
        &[Step::Fail(Code::Internal), Step::DoThenDie],
    );
    world.api.delete("volumeattachments", "", "va");
    let failed = || attachment(&world).filter(|held| held["status"]["detachError"]["message"].is_string());
    world.until("no error in the status", failed).await;
    world
        .until("no second try", || {
            (world.driver.calls("ControllerUnpublishVolume") == 2).then_some(())
        })
        .await;
    world.driver.start().await;
    world
        .until("attachment left", || attachment(&world).is_none().then_some(()))
        .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attachment_that_can_not_start_stays_deletable() {
    let world = World::new(&[PUBLISH]).await;
    put_attachment(&world);
    start(&world);
    let failed = || attachment(&world).filter(|held| held["status"]["attachError"]["message"].is_string());
    let held = world.until("no error in the status", failed).await;
    assert_eq!(
        held["status"]["attachError"]["message"],
        "persistentvolume \"pv1\" not found"
    );
    world.api.delete("volumeattachments", "", "va");
    assert!(attachment(&world).is_none());
    assert_eq!(world.driver.calls("ControllerUnpublishVolume"), 0);
    world.end().await;
}

//! Modification of volumes by class, against a scripted driver.

mod support;

use std::time::Duration;

use moorline_runtime::Backoff;
use moorline_sidecars::discovery::ControllerCapability;
use moorline_sidecars::resizer::{self, ResizerConfig};
use serde_json::{Value, json};
use support::{DRIVER, Step, World, claim};
use tonic::Code;

const EXPAND: i32 = ControllerCapability::ExpandVolume as i32;
const MODIFY: i32 = ControllerCapability::ModifyVolume as i32;

fn start(world: &World) {
    start_with(world, Duration::from_millis(300), Duration::from_secs(60));
}

fn start_with(world: &World, retry_max: Duration, timeout: Duration) {
    let config = ResizerConfig {
        timeout,
        retry_interval: Backoff {
            min: Duration::from_millis(20),
            max: retry_max,
        },
        ..ResizerConfig::new(world.csi_address())
    };
    let (informers, stop) = (world.informers.clone(), world.stop.clone());
    world
        .tasks
        .spawn(async move { resizer::run(config, informers, stop).await.expect("resizer") });
}

fn put_class(world: &World, name: &str) {
    world.api.put(
        "volumeattributesclasses",
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": name},
            "driverName": DRIVER, "parameters": {"iops": name}}),
    );
}

/// A bound claim with class gold; silver is there, too.
async fn world(capabilities: &[i32]) -> World {
    let world = World::new(capabilities).await;
    world.driver.make("pvc-uid-data", 1 << 30);
    world.api.put(
        "persistentvolumes",
        json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "pvc-uid-data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "volumeAttributesClassName": "gold",
            "claimRef": {"namespace": "ns", "name": "data", "uid": "uid-data"},
            "csi": {"driver": DRIVER, "volumeHandle": "vol-1"}},
        "status": {"phase": "Bound"}}),
    );
    let mut bound = claim("data");
    bound["spec"]["volumeName"] = json!("pvc-uid-data");
    bound["spec"]["volumeAttributesClassName"] = json!("gold");
    bound["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"},
        "currentVolumeAttributesClassName": "gold"});
    world.api.put("persistentvolumeclaims", bound);
    put_class(&world, "gold");
    put_class(&world, "silver");
    world
}

fn wish(world: &World, class: &str) {
    world.api.edit("persistentvolumeclaims", "ns", "data", |claim| {
        claim["spec"]["volumeAttributesClassName"] = json!(class);
    });
}

fn seen(world: &World) -> Value {
    world
        .api
        .get("persistentvolumeclaims", "ns", "data")
        .expect("claim")
}

/// The recorded stage and target, as `Stage target`; empty when nothing is recorded.
fn recorded(claim: &Value) -> String {
    let record = &claim["status"]["modifyVolumeStatus"];
    let word = |key: &str| record[key].as_str().unwrap_or_default().to_string();
    [word("status"), word("targetVolumeAttributesClassName")]
        .join(" ")
        .trim()
        .to_string()
}

async fn until_current(world: &World, class: &str) -> Value {
    let done = || {
        Some(seen(world)).filter(|claim| {
            claim["status"]["currentVolumeAttributesClassName"] == class && recorded(claim).is_empty()
        })
    };
    world.until(&format!("class is not {class}"), done).await
}

async fn until_recorded(world: &World, expected: &str) -> Value {
    let found = || Some(seen(world)).filter(|claim| recorded(claim) == expected);
    world.until(&format!("not {expected}"), found).await
}

fn pv_class(world: &World) -> Value {
    let pv = world
        .api
        .get("persistentvolumes", "", "pvc-uid-data")
        .expect("pv");
    pv["spec"]["volumeAttributesClassName"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_gets_the_class_that_it_asks_for() {
    let world = world(&[MODIFY]).await;
    start(&world);
    wish(&world, "silver");
    let claim = until_current(&world, "silver").await;
    assert_eq!(claim["status"]["conditions"], json!([]));
    assert_eq!(pv_class(&world), "silver");
    assert_eq!(world.driver.parameters()["iops"], "silver");
    let three_writes = [
        "PATCH persistentvolumeclaims/status",
        "PATCH persistentvolumes",
        "PATCH persistentvolumeclaims/status",
    ];
    assert_eq!(world.api.writes(), three_writes);
    let told = || (world.api.reasons("data") == ["VolumeModify", "VolumeModifySuccessful"]).then_some(());
    world.until("events", told).await;
    world.end().await;
}

/// The classes that the driver was asked for, runs of the same one as one.
fn asked(world: &World) -> Vec<String> {
    let mut classes = world.driver.modifications();
    classes.dedup();
    classes
}

/// `step` befalls every call until the world has seen two of them and has changed its mind.
async fn a_lost_answer_is_asked_again(step: Step) {
    let world = world(&[MODIFY, EXPAND]).await;
    world.driver.script("ControllerModifyVolume", &[step; 200]);
    start_with(&world, Duration::from_millis(300), Duration::from_secs(2));
    wish(&world, "silver");
    until_recorded(&world, "InProgress silver").await;
    // Nothing is known of silver yet: gold has to wait for it.
    wish(&world, "gold");
    for calls in 1..=2 {
        let called = || (world.driver.calls("ControllerModifyVolume") >= calls).then_some(());
        world.until("not asked again", called).await;
        if calls == 2 {
            world.driver.forget_script();
        }
        if step == Step::DoThenDie {
            world.driver.start().await;
        }
    }
    let claim = until_current(&world, "gold").await;
    assert_eq!(claim["status"]["conditions"], json!([]), "{step:?}");
    assert_eq!(asked(&world), ["silver", "gold"], "{step:?}");
    assert_eq!(world.driver.parameters()["iops"], "gold");
    assert_eq!(pv_class(&world), "gold");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_are_asked_again_for_the_same_class() {
    for step in [
        Step::DoThenHang,
        Step::DoThenDie,
        Step::DoThenFail(Code::Unavailable),
        Step::Fail(Code::Aborted),
        Step::Fail(Code::ResourceExhausted),
    ] {
        a_lost_answer_is_asked_again(step).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_an_earlier_process_is_finished_first() {
    let world = world(&[MODIFY]).await;
    world.api.edit("persistentvolumeclaims", "ns", "data", |claim| {
        claim["status"]["modifyVolumeStatus"] =
            json!({"status": "InProgress", "targetVolumeAttributesClassName": "silver"});
    });
    start(&world);
    until_current(&world, "gold").await;
    assert_eq!(
        world.driver.calls("ControllerModifyVolume"),
        2,
        "silver, then gold"
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_infeasible_class_rests_and_another_one_is_taken_at_once() {
    let world = world(&[MODIFY]).await;
    world
        .driver
        .script("ControllerModifyVolume", &[Step::Fail(Code::InvalidArgument)]);
    start_with(&world, Duration::from_secs(3600), Duration::from_secs(60));
    wish(&world, "silver");
    let claim = until_recorded(&world, "Infeasible silver").await;
    let conditions = claim["status"]["conditions"].as_array().expect("conditions");
    let told: Vec<String> = conditions
        .iter()
        .map(|held| {
            let word = |key: &str| held[key].as_str().unwrap_or_default();
            format!("{} {}", word("type"), word("reason")).trim().to_string()
        })
        .collect();
    assert_eq!(told, ["ModifyingVolume", "ModifyVolumeError InvalidArgument"]);
    assert_eq!(world.driver.calls("ControllerModifyVolume"), 1);
    assert_eq!(pv_class(&world), "gold");
    // Back to what it had.
    wish(&world, "gold");
    let claim = until_current(&world, "gold").await;
    assert_eq!(claim["status"]["conditions"], json!([]));
    assert_eq!(world.driver.calls("ControllerModifyVolume"), 2);
    let reasons = || {
        let expected = [
            "VolumeModify",
            "VolumeModifyFailed",
            "VolumeModify",
            "VolumeModifySuccessful",
        ];
        (world.api.reasons("data") == expected).then_some(())
    };
    world.until("events", reasons).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_failure_is_tried_again_or_given_up_for_another_wish() {
    let world = world(&[MODIFY]).await;
    let refused = [Step::Fail(Code::Internal); 200];
    world.driver.script("ControllerModifyVolume", &refused);
    start(&world);
    wish(&world, "silver");
    let again = || (world.driver.calls("ControllerModifyVolume") >= 3).then_some(());
    world.until("not tried again", again).await;
    let claim = until_recorded(&world, "InProgress silver").await;
    assert_eq!(claim["status"]["conditions"][1]["reason"], "Internal");
    assert_eq!(
        world.api.writes().len(),
        2,
        "the same failure is written once: {:?}",
        world.api.writes()
    );
    wish(&world, "gold");
    until_recorded(&world, "InProgress gold").await;
    world.driver.forget_script();
    until_current(&world, "gold").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_comes_later_wakes_the_claim() {
    let world = world(&[MODIFY]).await;
    start(&world);
    wish(&world, "bronze");
    until_recorded(&world, "Pending").await;
    let told = || (world.api.reasons("data") == ["VolumeModifyFailed"]).then_some(());
    world.until("event", told).await;
    assert_eq!(world.driver.calls("ControllerModifyVolume"), 0);
    put_class(&world, "bronze");
    until_current(&world, "bronze").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_can_not_modify_is_not_asked_and_the_user_is_told() {
    let world = world(&[EXPAND]).await;
    start(&world);
    wish(&world, "silver");
    let told = || (world.api.reasons("data") == ["VolumeModifyFailed"]).then_some(());
    world.until("event", told).await;
    assert_eq!(world.driver.calls("ControllerModifyVolume"), 0);
    assert_eq!(recorded(&seen(&world)), "");
    assert!(
        !world
            .api
            .requests()
            .contains(&"GET volumeattributesclasses".to_string())
    );
    world.end().await;
}

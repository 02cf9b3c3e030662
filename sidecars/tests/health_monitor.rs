//! The health monitor over a small API server and a scripted driver: lists, single looks, trouble and its end, nodes.

mod support;

use std::time::Duration;

use moorline_proto::csi::controller_service_capability::rpc::Type as Can;
use moorline_sidecars::health_monitor::{HealthMonitorConfig, run};
use serde_json::{Value, json};
use support::process::Process;
use support::{DRIVER, Step, World};
use tonic::Code;

const ABNORMAL: &str = "VolumeConditionAbnormal";
const NORMAL: &str = "VolumeConditionNormal";

fn config(world: &World) -> HealthMonitorConfig {
    let mut config = HealthMonitorConfig::new(world.csi_address());
    config.list_volumes_interval = Duration::from_millis(20);
    config.monitor_interval = Duration::from_millis(20);
    config
}

fn start(world: &World, config: HealthMonitorConfig) -> Process {
    Process::start(world, |informers, stop| run(config, informers, stop))
}

/// A driver with the volumes vol-1 and vol-2, each of the claim `c<number>`.
async fn prepared(capability: Can) -> World {
    let world = World::new(&[capability as i32, Can::VolumeCondition as i32]).await;
    for number in [1, 2] {
        world.driver.make(&format!("v{number}"), 1 << 30);
        put_bound(&world, number);
    }
    world
}

fn put_bound(world: &World, number: u32) {
    let (claim, pv) = (format!("c{number}"), format!("pv{number}"));
    let uid = format!("u{number}");
    world.api.put(
        "persistentvolumeclaims",
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"namespace": "ns", "name": claim, "uid": uid},
            "spec": {"volumeName": pv}, "status": {"phase": "Bound"}}),
    );
    world.api.put(
        "persistentvolumes",
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": pv, "uid": format!("p{uid}")},
            "spec": {"csi": {"driver": DRIVER, "volumeHandle": format!("vol-{number}")},
                "claimRef": {"namespace": "ns", "name": claim, "uid": uid}},
            "status": {"phase": "Bound"}}),
    );
}

async fn told(world: &World, claim: &str, reason: &str) {
    world
        .until(&format!("{claim} told of {reason}"), || {
            world
                .api
                .reasons(claim)
                .iter()
                .any(|told| told == reason)
                .then_some(())
        })
        .await;
}

/// Waits for rounds that begin from now on and are over.
async fn rounds(world: &World, rpc: &str, count: usize) {
    let before = world.driver.calls(rpc);
    world
        .until("more rounds", || {
            (world.driver.calls(rpc) >= before + count).then_some(())
        })
        .await;
}

#[tokio::test]
async fn trouble_and_its_end_are_told_by_lists_and_by_single_looks() {
    for (capability, rpc) in [
        (Can::ListVolumes, "ListVolumes"),
        (Can::GetVolume, "ControllerGetVolume"),
    ] {
        let world = prepared(capability).await;
        let process = start(&world, config(&world));
        rounds(&world, rpc, 4).await;
        assert!(world.api.reasons("c2").is_empty(), "all are well");
        world.driver.set_condition("vol-2", Some("bad sectors"));
        told(&world, "c2", ABNORMAL).await;
        rounds(&world, rpc, 8).await;
        world.driver.set_condition("vol-2", None);
        told(&world, "c2", NORMAL).await;
        rounds(&world, rpc, 8).await;
        assert_eq!(world.api.reasons("c2"), [ABNORMAL, NORMAL], "{rpc}: each once");
        assert!(world.api.reasons("c1").is_empty(), "{rpc}: the other one is well");
        let event = world.api.list("events").remove(0);
        assert_eq!(event["message"], "bad sectors");
        assert_eq!(event["involvedObject"]["uid"], "u2");
        process.end().await;
        world.end().await;
    }
}

#[tokio::test]
async fn volumes_that_become_bound_later_are_seen() {
    let world = prepared(Can::GetVolume).await;
    world.driver.make("v3", 1);
    world.driver.set_condition("vol-3", Some("bad"));
    let process = start(&world, config(&world));
    rounds(&world, "ControllerGetVolume", 4).await;
    put_bound(&world, 3);
    told(&world, "c3", ABNORMAL).await;
    process.end().await;
    world.end().await;
}

#[tokio::test]
async fn a_driver_that_fails_is_asked_again() {
    for (capability, rpc) in [
        (Can::ListVolumes, "ListVolumes"),
        (Can::GetVolume, "ControllerGetVolume"),
    ] {
        let world = prepared(capability).await;
        world.driver.set_condition("vol-1", Some("bad"));
        world
            .driver
            .script(rpc, &[Step::Fail(Code::Unavailable), Step::Fail(Code::Internal)]);
        let process = start(&world, config(&world));
        told(&world, "c1", ABNORMAL).await;
        process.end().await;
        world.end().await;
    }
}

#[tokio::test]
async fn the_end_of_trouble_is_told_over_a_restart() {
    let world = prepared(Can::ListVolumes).await;
    world.driver.set_condition("vol-1", Some("bad"));
    let first = start(&world, config(&world));
    told(&world, "c1", ABNORMAL).await;
    first.end().await;
    world.driver.set_condition("vol-1", None);
    let second = start(&world, config(&world));
    told(&world, "c1", NORMAL).await;
    second.end().await;
    world.end().await;
}

#[tokio::test]
async fn a_driver_without_conditions_is_left_alone() {
    let world = World::new(&[Can::ListVolumes as i32]).await;
    world.driver.make("v1", 1);
    put_bound(&world, 1);
    let process = start(&world, config(&world));
    world
        .until("the driver is known", || {
            (world.driver.calls("Probe") > 0).then_some(())
        })
        .await;
    process.end().await;
    assert_eq!(world.driver.calls("ListVolumes"), 0);
    world.end().await;
}

fn node(status: &str, since: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {"conditions": [
        {"type": "Ready", "status": status, "lastTransitionTime": since}]}})
}

#[tokio::test]
async fn nodes_that_fail_are_told_where_asked_for() {
    let world = prepared(Can::ListVolumes).await;
    let pod = |name: &str, claim: &str, node: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "ns", "name": name}, "spec": {
            "nodeName": node, "containers": [],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}})
    };
    world.api.put("pods", pod("b", "c1", "n1"));
    world.api.put("pods", pod("a", "c1", "n1"));
    world.api.put("pods", pod("other", "c2", "n2"));
    world.api.put("nodes", node("False", "2020-01-01T00:00:00Z"));
    let mut config = config(&world);
    config.watches_nodes = true;
    let process = start(&world, config);
    told(&world, "c1", "NodeFailed").await;
    let event = world.api.list("events").remove(0);
    assert_eq!(
        event["message"],
        "Pods: [ a b ] consuming PVC: c1 in namespace: ns are now on a failed node: n1"
    );
    world.api.edit("nodes", "", "n1", |node| {
        node["status"]["conditions"][0] = json!({"type": "Ready", "status": "True",
            "lastTransitionTime": "2020-01-01T01:00:00Z"});
    });
    told(&world, "c1", "NodeRecovered").await;
    world.api.delete("nodes", "", "n1");
    world
        .until("told of the node that is gone", || {
            let events = world.api.list("events");
            let failures: u64 = events
                .iter()
                .filter(|event| event["reason"] == "NodeFailed")
                .map(|event| event["count"].as_u64().unwrap_or(1))
                .sum();
            (failures == 2).then_some(())
        })
        .await;
    assert!(world.api.reasons("c2").is_empty(), "it is used elsewhere");
    process.end().await;
    world.end().await;
}

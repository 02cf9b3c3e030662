//! All controller sidecars over one connection: a volume's life from claim to nothing.

mod support;

use std::time::Duration;

use moorline_sidecars::all::{self, AllConfig};
use moorline_sidecars::discovery::ControllerCapability;
use serde_json::json;
use support::{DRIVER, World, claim, class};

const CAPABILITIES: [i32; 3] = [
    ControllerCapability::CreateDeleteVolume as i32,
    ControllerCapability::PublishUnpublishVolume as i32,
    ControllerCapability::ExpandVolume as i32,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_serves_a_volumes_whole_life() {
    let world = World::new(&CAPABILITIES).await;
    world.api.put("storageclasses", class("Immediate", "Delete"));
    world.api.put(
        "csinodes",
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "n1"},
        "spec": {"drivers": [{"name": DRIVER, "nodeID": "id-of-n1"}]}}),
    );
    let config = AllConfig::new(world.csi_address());
    let (informers, stop) = (world.informers.clone(), world.stop.clone());
    world
        .tasks
        .spawn(async move { all::run(config, informers, stop).await.expect("sidecars") });

    world.api.put("persistentvolumeclaims", claim("data"));
    world
        .until("no PV", || world.api.get("persistentvolumes", "", "pvc-uid-data"))
        .await;
    // What the binder does.
    world.api.edit("persistentvolumes", "", "pvc-uid-data", |pv| {
        pv["status"] = json!({"phase": "Bound"})
    });
    world.api.edit("persistentvolumeclaims", "ns", "data", |claim| {
        claim["spec"]["volumeName"] = json!("pvc-uid-data");
        claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
    });
    world.api.put(
        "volumeattachments",
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": "va"},
        "spec": {"attacher": DRIVER, "nodeName": "n1", "source": {"persistentVolumeName": "pvc-uid-data"}}}),
    );
    world
        .until("not published", || {
            (world.driver.published().len() == 1).then_some(())
        })
        .await;
    world.api.edit("persistentvolumeclaims", "ns", "data", |claim| {
        claim["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
    });
    let is_grown = || {
        let claim = world.api.get("persistentvolumeclaims", "ns", "data")?;
        (claim["status"]["capacity"]["storage"] == "2Gi").then_some(())
    };
    world.until("not expanded", is_grown).await;

    // Everything goes at once: the volume may be deleted only after it is detached.
    world.api.delete("persistentvolumeclaims", "ns", "data");
    world.api.edit("persistentvolumes", "", "pvc-uid-data", |pv| {
        pv["status"] = json!({"phase": "Released"})
    });
    world.api.delete("volumeattachments", "", "va");
    let is_gone = || {
        world
            .api
            .get("persistentvolumes", "", "pvc-uid-data")
            .is_none()
            .then_some(())
    };
    world.within(Duration::from_secs(30), "PV left", is_gone).await;
    assert!(world.driver.volumes().is_empty() && world.driver.published().is_empty());
    let log = world.driver.log();
    let order = |rpc: &str| log.iter().position(|line| line.starts_with(rpc));
    assert!(
        order("ControllerUnpublishVolume") < order("DeleteVolume"),
        "{log:#?}"
    );
    let discoveries = log.iter().filter(|line| line.starts_with("Probe")).count();
    assert!(discoveries <= 2, "one discovery for all: {log:#?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_ends_it_also_before_the_driver_is_there() {
    let world = World::new(&CAPABILITIES).await;
    world.driver.stop().await;
    std::fs::remove_file(world.driver.socket()).expect("remove the socket");
    let config = AllConfig::new(world.csi_address());
    let (informers, stop) = (world.informers.clone(), world.stop.clone());
    world
        .tasks
        .spawn(async move { all::run(config, informers, stop).await.expect("sidecars") });
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liveness_is_asked_over_a_fresh_connection() {
    use moorline_sidecars::livenessprobe::check;
    let world = World::new(&[]).await;
    let timeout = Duration::from_millis(500);
    check(&world.csi_address(), timeout).await.expect("alive");
    world.driver.script("Probe", &[support::Step::DoThenHang]);
    let hanging = check(&world.csi_address(), timeout).await.expect_err("hangs");
    assert!(hanging.to_string().contains("DeadlineExceeded"), "{hanging}");
    world.driver.stop().await;
    check(&world.csi_address(), timeout).await.expect_err("gone");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_dies_while_it_introduces_itself_is_waited_for() {
    let world = World::new(&CAPABILITIES).await;
    world.api.put("storageclasses", class("Immediate", "Delete"));
    world.driver.script("GetPluginInfo", &[support::Step::DoThenDie]);
    let config = AllConfig::new(world.csi_address());
    let (informers, stop) = (world.informers.clone(), world.stop.clone());
    world
        .tasks
        .spawn(async move { all::run(config, informers, stop).await.expect("sidecars") });
    world
        .until("not asked", || {
            (world.driver.calls("GetPluginInfo") == 1).then_some(())
        })
        .await;
    world.driver.start().await;
    world.api.put("persistentvolumeclaims", claim("data"));
    world
        .until("no PV", || world.api.get("persistentvolumes", "", "pvc-uid-data"))
        .await;
    world.end().await;
}

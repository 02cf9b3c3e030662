//! The producer of CSIStorageCapacity objects against a scripted driver.

mod support;

use moorline_sidecars::discovery::ControllerCapability;
use moorline_sidecars::provisioner::{self, CapacityConfig, ProvisionerConfig};
use serde_json::{Value, json};
use support::{DRIVER, World, claim, class};

const CAPABILITIES: [i32; 2] = [
    ControllerCapability::CreateDeleteVolume as i32,
    ControllerCapability::GetCapacity as i32,
];

/// Node and capacity of all objects there are.
fn rooms(world: &World) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let room = |object: &Value| {
        let node = text(&object["nodeTopology"]["matchLabels"]["test.csi/node"]);
        (node, text(&object["capacity"]))
    };
    let mut rooms: Vec<_> = world.api.list("csistoragecapacities").iter().map(room).collect();
    rooms.sort();
    rooms
}

async fn until_rooms(world: &World, what: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(node, room)| ((*node).to_string(), (*room).to_string()))
        .collect();
    world
        .until(what, || (rooms(world) == expected).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_published_per_segment_and_class() {
    let world = World::new(&CAPABILITIES).await;
    world.driver.stop().await;
    world.driver.set_topology(&[("test.csi/node", "n1")]);
    world.driver.start().await;
    world.put_node("n1");
    world
        .api
        .put("storageclasses", class("WaitForFirstConsumer", "Delete"));
    // Of an earlier process, for a class that has gone.
    world.api.put("csistoragecapacities", json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIStorageCapacity",
        "metadata": {"name": "csisc-old", "namespace": "sidecars", "labels": {
            "csi.storage.k8s.io/drivername": DRIVER, "csi.storage.k8s.io/managed-by": "external-provisioner"}},
        "storageClassName": "gone", "capacity": "1Gi", "nodeTopology": {}}));
    let config = ProvisionerConfig {
        capacity: Some(CapacityConfig::new("sidecars")),
        ..ProvisionerConfig::new(world.csi_address())
    };
    let (informers, stop) = (world.informers.clone(), world.stop.clone());
    world.tasks.spawn(async move {
        provisioner::run(config, informers, stop)
            .await
            .expect("provisioner")
    });

    until_rooms(&world, "first room", &[("n1", "100Gi")]).await;
    world.put_node("n2");
    until_rooms(&world, "second room", &[("n1", "100Gi"), ("n2", "100Gi")]).await;
    let mut waiting = claim("data");
    waiting["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = json!("n1");
    world.api.put("persistentvolumeclaims", waiting);
    world
        .until("no PV", || world.api.get("persistentvolumes", "", "pvc-uid-data"))
        .await;
    until_rooms(
        &world,
        "room after provisioning",
        &[("n1", "99Gi"), ("n2", "99Gi")],
    )
    .await;
    world.api.edit("persistentvolumes", "", "pvc-uid-data", |pv| {
        pv["status"] = json!({"phase": "Released"})
    });
    until_rooms(&world, "room after deletion", &[("n1", "100Gi"), ("n2", "100Gi")]).await;
    world.api.delete("csinodes", "", "n2");
    world.api.delete("nodes", "", "n2");
    until_rooms(&world, "room of a node that went", &[("n1", "100Gi")]).await;
    world.api.delete("storageclasses", "", "fast");
    until_rooms(&world, "room of a class that went", &[]).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_topology_one_object_speaks_for_every_node() {
    let world = World::new(&CAPABILITIES).await;
    world.api.put("storageclasses", class("Immediate", "Delete"));
    let capacity = CapacityConfig {
        for_immediate_binding: true,
        ..CapacityConfig::new("sidecars")
    };
    let config = ProvisionerConfig {
        capacity: Some(capacity),
        ..ProvisionerConfig::new(world.csi_address())
    };
    let (informers, stop) = (world.informers.clone(), world.stop.clone());
    world.tasks.spawn(async move {
        provisioner::run(config, informers, stop)
            .await
            .expect("provisioner")
    });
    until_rooms(&world, "room", &[("", "100Gi")]).await;
    assert_eq!(
        world.api.list("csistoragecapacities")[0]["nodeTopology"],
        json!({})
    );
    // Somebody takes it away.
    let name = world.api.list("csistoragecapacities")[0]["metadata"]["name"].clone();
    let name = name.as_str().expect("name");
    world.api.delete("csistoragecapacities", "sidecars", name);
    until_rooms(&world, "room made again", &[("", "100Gi")]).await;
    world.end().await;
}

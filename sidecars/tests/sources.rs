//! Restores and clones: what the driver is asked for, and how long their sources are held.

mod support;

use std::time::Duration;

use moorline_proto::csi::volume_content_source::Type;
use moorline_runtime::Backoff;
use moorline_sidecars::discovery::ControllerCapability as Can;
use moorline_sidecars::provisioner::{self, ProvisionerConfig};
use serde_json::{Value, json};
use support::{DRIVER, Step, World, claim, class};
use tonic::Code;

const CLONING: &str = "provisioner.storage.kubernetes.io/cloning-protection";
const RESTORING: &str = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection";

async fn world() -> World {
    world_with(false).await
}

async fn world_with(cross_namespace_sources: bool) -> World {
    let can = [
        Can::CreateDeleteVolume,
        Can::CloneVolume,
        Can::CreateDeleteSnapshot,
    ];
    let world = World::new(&can.map(|capability| capability as i32)).await;
    world.api.put("storageclasses", class("Immediate", "Delete"));
    let config = ProvisionerConfig {
        timeout: Duration::from_secs(3),
        retry_interval: Backoff {
            min: Duration::from_millis(20),
            max: Duration::from_millis(200),
        },
        cross_namespace_sources,
        ..ProvisionerConfig::new(world.csi_address())
    };
    let (informers, stop) = (world.informers.clone(), world.stop.clone());
    world.tasks.spawn(async move {
        provisioner::run(config, informers, stop)
            .await
            .expect("provisioner")
    });
    world
}

fn put_snapshot(world: &World, is_ready: bool) {
    let snapshot = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"namespace": "ns", "name": "s", "uid": "su", "finalizers": ["others/own"]},
        "spec": {"source": {"persistentVolumeClaimName": "c"}},
        "status": {"boundVolumeSnapshotContentName": "k", "readyToUse": is_ready, "restoreSize": "1Gi"}});
    world.api.put("volumesnapshots", snapshot);
    let content = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {"name": "k", "uid": "ku"}, "spec": {
            "volumeSnapshotRef": {"namespace": "ns", "name": "s", "uid": "su"}, "deletionPolicy": "Delete",
            "driver": DRIVER, "source": {"volumeHandle": "v"}}, "status": {"snapshotHandle": "snap-1"}});
    world.api.put("volumesnapshotcontents", content);
}

fn filled_from(source: Value) -> Value {
    let mut filled = claim("data");
    filled["spec"]["dataSource"] = source;
    filled
}

fn from_snapshot() -> Value {
    filled_from(json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"}))
}

fn holds(world: &World, plural: &str, name: &str, finalizer: &str) -> bool {
    let object = world.api.get(plural, "ns", name).expect("the source is there");
    let held = object["metadata"]["finalizers"].as_array().cloned();
    held.unwrap_or_default().contains(&json!(finalizer))
}

/// The binder's part.
async fn bind(world: &World) {
    world
        .until("a PV", || world.api.get("persistentvolumes", "", "pvc-uid-data"))
        .await;
    world.api.edit("persistentvolumeclaims", "ns", "data", |claim| {
        claim["spec"]["volumeName"] = json!("pvc-uid-data");
        claim["status"]["phase"] = json!("Bound");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_waits_for_its_snapshot_and_holds_it_until_it_is_done() {
    let world = world().await;
    world.api.put("persistentvolumeclaims", from_snapshot());
    world
        .until("told why", || {
            world
                .api
                .reasons("data")
                .contains(&"ProvisioningFailed".to_string())
                .then_some(())
        })
        .await;
    put_snapshot(&world, false);
    // Made, but nobody hears of it: the end is unknown.
    let lost = [Step::DoThenFail(Code::Unavailable); 3];
    world.driver.script("CreateVolume", &lost);
    assert_eq!(world.driver.calls("CreateVolume"), 0, "not ready yet");
    put_snapshot(&world, true);
    world
        .until("asked", || (world.driver.calls("CreateVolume") > 0).then_some(()))
        .await;
    bind(&world).await;
    let sources: Vec<_> = world
        .driver
        .create_requests()
        .into_iter()
        .map(|request| request.volume_content_source.and_then(|source| source.r#type))
        .collect();
    assert_eq!(sources.len(), 4);
    for source in sources {
        let Some(Type::Snapshot(source)) = source else {
            panic!("not a snapshot: {source:?}");
        };
        assert_eq!(source.snapshot_id, "snap-1");
    }
    let writes = world.api.writes();
    assert_eq!(
        &writes[..2],
        ["PATCH volumesnapshots", "POST configmaps"],
        "held before anything is asked"
    );
    world
        .until("the snapshot let go", || {
            (!holds(&world, "volumesnapshots", "s", RESTORING)).then_some(())
        })
        .await;
    assert!(holds(&world, "volumesnapshots", "s", "others/own"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_held_while_the_end_is_unknown_and_let_go_when_the_claim_is() {
    let world = world().await;
    put_snapshot(&world, true);
    let lost = [Step::Fail(Code::Unavailable); 200];
    world.driver.script("CreateVolume", &lost);
    world.api.put("persistentvolumeclaims", from_snapshot());
    world
        .until("held", || {
            holds(&world, "volumesnapshots", "s", RESTORING).then_some(())
        })
        .await;
    world.api.delete("persistentvolumeclaims", "ns", "data");
    let asked = world.driver.calls("CreateVolume");
    world
        .until("asked on for the claim that is gone", || {
            (world.driver.calls("CreateVolume") > asked + 1).then_some(())
        })
        .await;
    assert!(
        holds(&world, "volumesnapshots", "s", RESTORING),
        "a volume may be filled"
    );
    world.driver.forget_script();
    world.driver.script("CreateVolume", &[Step::Fail(Code::NotFound)]);
    world
        .until("let go", || {
            (!holds(&world, "volumesnapshots", "s", RESTORING)).then_some(())
        })
        .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_names_its_source_and_what_an_earlier_process_held_is_let_go() {
    let world = world().await;
    let mut source = claim("old");
    source["metadata"]["finalizers"] = json!([CLONING]);
    source["spec"]["volumeName"] = json!("pv-old");
    source["status"]["phase"] = json!("Bound");
    let pv = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-old"},
        "spec": {"csi": {"driver": DRIVER, "volumeHandle": "vol-old"}, "capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": "ns", "name": "old", "uid": "uid-old"}}, "status": {"phase": "Bound"}});
    world.api.put("persistentvolumes", pv);
    world.api.put("persistentvolumeclaims", source);
    world
        .until("let go", || {
            (!holds(&world, "persistentvolumeclaims", "old", CLONING)).then_some(())
        })
        .await;
    world
        .driver
        .script("CreateVolume", &[Step::Fail(Code::Unavailable); 2]);
    let wanted = filled_from(json!({"kind": "PersistentVolumeClaim", "name": "old"}));
    world.api.put("persistentvolumeclaims", wanted);
    bind(&world).await;
    let request = world.driver.create_requests().pop().expect("a request");
    let source = request.volume_content_source.and_then(|source| source.r#type);
    let Some(Type::Volume(source)) = source else {
        panic!("not a volume: {source:?}");
    };
    assert_eq!(source.volume_id, "vol-old");
    world
        .until("let go again", || {
            (!holds(&world, "persistentvolumeclaims", "old", CLONING)).then_some(())
        })
        .await;
    let patches = world.api.writes();
    let patches = patches
        .iter()
        .filter(|write| *write == "PATCH persistentvolumeclaims")
        .count();
    assert_eq!(patches, 3, "let go, held, let go");
    world.end().await;
}

/// A snapshot of namespace `other`, and a claim of `ns` that is to be filled from it.
fn put_foreign(world: &World) {
    put_snapshot(world, true);
    let mut snapshot = world.api.get("volumesnapshots", "ns", "s").expect("just put");
    snapshot["metadata"]["namespace"] = json!("other");
    world.api.put("volumesnapshots", snapshot);
    world.api.edit("volumesnapshotcontents", "", "k", |content| {
        content["spec"]["volumeSnapshotRef"]["namespace"] = json!("other");
    });
    let mut filled = claim("data");
    filled["spec"]["dataSourceRef"] = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot",
        "name": "s", "namespace": "other"});
    world.api.put("persistentvolumeclaims", filled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_of_another_namespace_needs_its_grant() {
    let world = world_with(true).await;
    put_foreign(&world);
    let refused = || {
        (world
            .api
            .reasons("data")
            .contains(&"ProvisioningFailed".to_string()))
        .then_some(())
    };
    world.until("no event", refused).await;
    assert_eq!(world.driver.calls("CreateVolume"), 0);
    assert!(world.api.requests().contains(&"GET referencegrants".to_string()));
    world.api.put(
        "referencegrants",
        json!({"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
            "metadata": {"namespace": "other", "name": "g"}, "spec": {
                "from": [{"group": "", "kind": "PersistentVolumeClaim", "namespace": "ns"}],
                "to": [{"group": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"}]}}),
    );
    bind(&world).await;
    let asked = &world.driver.create_requests()[0];
    let source = asked
        .volume_content_source
        .clone()
        .and_then(|source| source.r#type);
    let Some(Type::Snapshot(snapshot)) = source else {
        panic!("{asked:?}");
    };
    assert_eq!(snapshot.snapshot_id, "snap-1");
    let released = || {
        let snapshot = world.api.get("volumesnapshots", "other", "s")?;
        (snapshot["metadata"]["finalizers"] == json!(["others/own"])).then_some(())
    };
    world.until("source still held", released).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_gate_other_namespaces_are_not_looked_into() {
    let world = world().await;
    put_foreign(&world);
    let refused = || {
        (world
            .api
            .reasons("data")
            .contains(&"ProvisioningFailed".to_string()))
        .then_some(())
    };
    world.until("no event", refused).await;
    assert_eq!(world.driver.calls("CreateVolume"), 0);
    assert!(!world.api.requests().contains(&"GET referencegrants".to_string()));
    world.end().await;
}

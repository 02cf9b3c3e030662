//! The provisioner against a scripted driver: claims, lost answers, failures, deletion.

mod support;

use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use moorline_runtime::Backoff;
use moorline_sidecars::discovery::ControllerCapability;
use moorline_sidecars::provisioner::{self, ProvisionerConfig};
use serde_json::{Value, json};
use support::{DRIVER, Step, World, claim, class};
use tonic::Code;

const CREATE_DELETE: i32 = ControllerCapability::CreateDeleteVolume as i32;
const PUBLISH: i32 = ControllerCapability::PublishUnpublishVolume as i32;

fn config(world: &World) -> ProvisionerConfig {
    let quick = Backoff {
        min: Duration::from_millis(20),
        max: Duration::from_millis(200),
    };
    ProvisionerConfig {
        timeout: Duration::from_secs(3),
        retry_interval: quick,
        ..ProvisionerConfig::new(world.csi_address())
    }
}

fn start(world: &World, config: ProvisionerConfig) {
    let (informers, stop) = (world.informers.clone(), world.stop.clone());
    world.tasks.spawn(async move {
        provisioner::run(config, informers, stop)
            .await
            .expect("provisioner")
    });
}

async fn world(binding_mode: &str) -> World {
    let world = World::new(&[CREATE_DELETE]).await;
    world.api.put("storageclasses", class(binding_mode, "Delete"));
    world
}

async fn pv_of(world: &World, name: &str) -> Value {
    let pv_name = format!("pvc-uid-{name}");
    world
        .until(&format!("no PV for {name}"), || {
            world.api.get("persistentvolumes", "", &pv_name)
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_becomes_a_pv_with_one_write_after_that_of_its_intent() {
    let world = world("Immediate").await;
    start(&world, config(&world));
    world.api.put("persistentvolumeclaims", claim("data"));
    let pv = pv_of(&world, "data").await;
    assert_eq!(
        pv["metadata"]["finalizers"],
        json!(["external-provisioner.volume.kubernetes.io/finalizer"])
    );
    let annotations = &pv["metadata"]["annotations"];
    assert_eq!(annotations["pv.kubernetes.io/provisioned-by"], DRIVER);
    assert_eq!(
        annotations["volume.kubernetes.io/provisioner-deletion-secret-name"],
        ""
    );
    let spec = &pv["spec"];
    assert_eq!(spec["capacity"], json!({"storage": "1Gi"}));
    assert_eq!(spec["persistentVolumeReclaimPolicy"], "Delete");
    assert_eq!(
        (&spec["storageClassName"], &spec["volumeMode"]),
        (&json!("fast"), &json!("Filesystem"))
    );
    assert_eq!(
        (&spec["claimRef"]["name"], &spec["claimRef"]["uid"]),
        (&json!("data"), &json!("uid-data"))
    );
    let csi = &spec["csi"];
    assert_eq!(
        (&csi["driver"], &csi["volumeHandle"], &csi["fsType"]),
        (&json!(DRIVER), &json!("vol-1"), &json!("ext4"))
    );
    assert_eq!(csi["volumeAttributes"]["made-by"], "script");
    let asked = &world.driver.create_requests()[0];
    assert_eq!((asked.name.as_str(), asked.parameters.len()), ("pvc-uid-data", 1));
    world
        .until("no event", || {
            (world.api.reasons("data") == ["ProvisioningSucceeded"]).then_some(())
        })
        .await;
    assert_eq!(world.api.writes(), ["POST configmaps", "POST persistentvolumes"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_and_passing_errors_end_with_one_volume() {
    let cases = [
        Step::DoThenHang,
        Step::DoThenDie,
        Step::DoThenFail(Code::Unavailable),
        Step::DoThenFail(Code::Aborted),
        Step::Fail(Code::DeadlineExceeded),
        Step::Fail(Code::Internal),
        Step::Fail(Code::ResourceExhausted),
    ];
    for step in cases {
        let world = world("Immediate").await;
        world.driver.script("CreateVolume", &[step]);
        start(&world, config(&world));
        world.api.put("persistentvolumeclaims", claim("data"));
        if step == Step::DoThenDie {
            world
                .until("no call", || {
                    (world.driver.calls("CreateVolume") == 1).then_some(())
                })
                .await;
            world.driver.stop().await;
            world.driver.start().await;
        }
        let pv = pv_of(&world, "data").await;
        assert_eq!(pv["spec"]["csi"]["volumeHandle"], "vol-1", "{step:?}");
        assert_eq!(world.driver.volumes().len(), 1, "{step:?}");
        let is_told = || {
            world
                .api
                .reasons("data")
                .contains(&"ProvisioningFailed".to_string())
                .then_some(())
        };
        world.until("no failure event", is_told).await;
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_deleted_during_an_uncertain_create_leaves_a_pv_to_reclaim() {
    let world = world("Immediate").await;
    world.driver.script("CreateVolume", &[Step::DoThenHang]);
    start(&world, config(&world));
    world.api.put("persistentvolumeclaims", claim("data"));
    world
        .until("no call", || {
            (world.driver.calls("CreateVolume") == 1).then_some(())
        })
        .await;
    world.api.delete("persistentvolumeclaims", "ns", "data");
    pv_of(&world, "data").await;
    // What the binder does with a PV whose claim is gone.
    world.api.edit("persistentvolumes", "", "pvc-uid-data", |pv| {
        pv["status"] = json!({"phase": "Released"})
    });
    world
        .until("volume left", || world.driver.volumes().is_empty().then_some(()))
        .await;
    world
        .until("PV left", || {
            world.api.list("persistentvolumes").is_empty().then_some(())
        })
        .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_error_after_claim_deletion_ends_the_matter() {
    let world = world("Immediate").await;
    world
        .driver
        .script("CreateVolume", &[Step::Fail(Code::Unavailable); 1000]);
    start(&world, config(&world));
    world.api.put("persistentvolumeclaims", claim("data"));
    world
        .until("no call", || {
            (world.driver.calls("CreateVolume") >= 1).then_some(())
        })
        .await;
    world.api.delete("persistentvolumeclaims", "ns", "data");
    let claims = world.informers.cache::<PersistentVolumeClaim>();
    world
        .until("deletion not seen", || claims.is_empty().then_some(()))
        .await;
    let before = world.driver.calls("CreateVolume");
    world
        .until("not asked again", || {
            (world.driver.calls("CreateVolume") > before).then_some(())
        })
        .await;
    world.driver.forget_script();
    world.driver.script("CreateVolume", &[Step::Fail(Code::Internal)]);
    let is_final = || {
        world
            .driver
            .log()
            .iter()
            .any(|line| line.contains("Internal"))
            .then_some(())
    };
    world.until("no final answer", is_final).await;
    // A claim that comes later is served, and the old one isn't.
    world.api.put("persistentvolumeclaims", claim("other"));
    pv_of(&world, "other").await;
    assert_eq!(
        world.driver.volumes().into_keys().collect::<Vec<_>>(),
        ["pvc-uid-other"]
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pv_write_that_fails_is_repeated_with_the_same_volume() {
    let world = world("Immediate").await;
    world.api.fail("POST", "persistentvolumes", 500);
    world.api.fail("POST", "persistentvolumes", 500);
    start(&world, config(&world));
    world.api.put("persistentvolumeclaims", claim("data"));
    assert_eq!(
        pv_of(&world, "data").await["spec"]["csi"]["volumeHandle"],
        "vol-1"
    );
    assert_eq!(world.driver.volumes().len(), 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_too_small_is_deleted_and_asked_for_again() {
    let world = world("Immediate").await;
    world.driver.set_bytes(Some(1024));
    start(&world, config(&world));
    world.api.put("persistentvolumeclaims", claim("data"));
    world
        .until("not deleted", || {
            (world.driver.calls("DeleteVolume") >= 1).then_some(())
        })
        .await;
    world.driver.set_bytes(Some(3 << 30));
    let pv = pv_of(&world, "data").await;
    assert_eq!(pv["spec"]["capacity"]["storage"], "3Gi");
    assert_eq!(world.driver.volumes().len(), 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_binding_waits_for_a_node_and_gives_it_back_when_it_has_no_room() {
    let world = world("WaitForFirstConsumer").await;
    world.driver.stop().await;
    world.driver.set_topology(&[("test.csi/node", "n2")]);
    world.driver.start().await;
    world.put_node("n1");
    world.put_node("n2");
    world
        .driver
        .script("CreateVolume", &[Step::Fail(Code::ResourceExhausted)]);
    start(
        &world,
        ProvisionerConfig {
            strict_topology: true,
            ..config(&world)
        },
    );
    const SELECTED: &str = "volume.kubernetes.io/selected-node";
    let mut waiting = claim("data");
    world.api.put("persistentvolumeclaims", waiting.clone());
    waiting["metadata"]["annotations"][SELECTED] = json!("n1");
    world.api.put("persistentvolumeclaims", waiting);
    let given_back = || {
        let claim = world.api.get("persistentvolumeclaims", "ns", "data")?;
        claim["metadata"]["annotations"][SELECTED].is_null().then_some(())
    };
    world.until("node not given back", given_back).await;
    assert_eq!(world.driver.calls("CreateVolume"), 1);
    world.api.edit("persistentvolumeclaims", "ns", "data", |claim| {
        claim["metadata"]["annotations"][SELECTED] = json!("n2");
    });
    let pv = pv_of(&world, "data").await;
    let term = &pv["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    assert_eq!(
        *term,
        json!({"key": "test.csi/node", "operator": "In", "values": ["n2"]})
    );
    let asked = world.driver.create_requests();
    let wanted = asked[0]
        .accessibility_requirements
        .as_ref()
        .expect("topology is asked for");
    assert_eq!(wanted.requisite[0].segments["test.csi/node"], "n2");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn released_volumes_are_deleted_with_retries_and_retained_ones_kept() {
    let world = world("Immediate").await;
    start(&world, config(&world));
    for name in ["gone", "kept"] {
        world.api.put("persistentvolumeclaims", claim(name));
        pv_of(&world, name).await;
    }
    world.driver.script(
        "DeleteVolume",
        &[Step::Fail(Code::FailedPrecondition), Step::DoThenHang],
    );
    world.api.edit("persistentvolumes", "", "pvc-uid-kept", |pv| {
        pv["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
    });
    for name in ["pvc-uid-gone", "pvc-uid-kept"] {
        world.api.edit("persistentvolumes", "", name, |pv| {
            pv["status"] = json!({"phase": "Released"})
        });
    }
    let left = || {
        world
            .api
            .get("persistentvolumes", "", "pvc-uid-gone")
            .is_none()
            .then_some(())
    };
    world.until("PV left", left).await;
    let is_released = || {
        let kept = world.api.get("persistentvolumes", "", "pvc-uid-kept")?;
        kept["metadata"]["finalizers"]
            .as_array()
            .is_none_or(Vec::is_empty)
            .then_some(())
    };
    world.until("finalizer left on a retained PV", is_released).await;
    assert_eq!(
        world.driver.volumes().into_keys().collect::<Vec<_>>(),
        ["pvc-uid-kept"]
    );
    assert_eq!(world.driver.calls("DeleteVolume"), 3);
    let told = || {
        world
            .api
            .reasons("pvc-uid-gone")
            .contains(&"VolumeFailedDelete".into())
            .then_some(())
    };
    world.until("no failure event", told).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attached_volume_is_not_deleted() {
    let world = World::new(&[CREATE_DELETE, PUBLISH]).await;
    world.api.put("storageclasses", class("Immediate", "Delete"));
    world.api.put(
        "volumeattachments",
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": "va"},
        "spec": {"attacher": DRIVER, "nodeName": "n1", "source": {"persistentVolumeName": "pvc-uid-data"}}}),
    );
    start(&world, config(&world));
    world.api.put("persistentvolumeclaims", claim("data"));
    pv_of(&world, "data").await;
    world.api.edit("persistentvolumes", "", "pvc-uid-data", |pv| {
        pv["status"] = json!({"phase": "Released"})
    });
    let told = || {
        world
            .api
            .reasons("pvc-uid-data")
            .contains(&"VolumeFailedDelete".into())
            .then_some(())
    };
    world.until("no event", told).await;
    assert_eq!(world.driver.calls("DeleteVolume"), 0);
    world.api.delete("volumeattachments", "", "va");
    world
        .until("volume left", || world.driver.volumes().is_empty().then_some(()))
        .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_claims_take_one_write_each_and_share_those_of_their_intents() {
    let world = world("Immediate").await;
    start(&world, config(&world));
    for number in 0..1000 {
        world
            .api
            .put("persistentvolumeclaims", claim(&format!("c{number}")));
    }
    let all = || (world.api.list("persistentvolumes").len() == 1000).then_some(());
    world
        .within(Duration::from_secs(60), "not all provisioned", all)
        .await;
    let (intents, others): (Vec<_>, Vec<_>) = world
        .api
        .writes()
        .into_iter()
        .partition(|write| write.ends_with(" configmaps"));
    assert_eq!(others.len(), 1000);
    // A few dozen on a machine that isn't busy; however slow it is, far fewer than claims.
    assert!(
        intents.len() <= 200,
        "{} writes of intents for 1000 claims",
        intents.len()
    );
    println!("{} writes of intents", intents.len());
    let gets = world
        .api
        .requests()
        .iter()
        .filter(|request| request.starts_with("GET"))
        .count();
    assert!(gets <= 6, "caches answer everything, but there were {gets} GETs");
    assert_eq!(world.driver.volumes().len(), 1000);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_comes_late_or_back_with_more_is_served() {
    let world = World::new(&[]).await;
    world.api.put("storageclasses", class("Immediate", "Delete"));
    world.driver.stop().await;
    start(&world, config(&world));
    world.api.put("persistentvolumeclaims", claim("data"));
    world.driver.start().await;
    let told = || {
        world
            .api
            .reasons("data")
            .contains(&"ProvisioningFailed".into())
            .then_some(())
    };
    world
        .until("a driver without capabilities isn't reported", told)
        .await;
    world.driver.stop().await;
    world.driver.set_capabilities(&[CREATE_DELETE]);
    world.driver.start().await;
    pv_of(&world, "data").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_waits_for_the_driver_to_appear_is_served_at_once() {
    let world = world("Immediate").await;
    world.driver.stop().await;
    world.driver.set_topology(&[("test.csi/node", "n1")]);
    world.driver.start().await;
    let slow = Backoff {
        min: Duration::from_secs(3600),
        max: Duration::from_secs(7200),
    };
    start(
        &world,
        ProvisionerConfig {
            retry_interval: slow,
            ..config(&world)
        },
    );
    world.api.put("persistentvolumeclaims", claim("data"));
    let told = || {
        world
            .api
            .reasons("data")
            .contains(&"ProvisioningFailed".into())
            .then_some(())
    };
    world.until("nothing told", told).await;
    world.put_node("n1");
    pv_of(&world, "data").await;
    world.end().await;
}

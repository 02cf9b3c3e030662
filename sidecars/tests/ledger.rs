//! The provisioner dies between any two of its actions: the next one finishes or removes what it began, whether the claim
//! is still there or not.

mod support;

use std::time::Duration;

use moorline_runtime::{Backoff, Informers};
use moorline_sidecars::discovery::ControllerCapability;
use moorline_sidecars::provisioner::{self, ProvisionerConfig};
use serde_json::json;
use support::crash::Moment;
use support::{Step, World, claim, class};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tonic::Code;

const CREATE_DELETE: i32 = ControllerCapability::CreateDeleteVolume as i32;
const VOLUME: &str = "pvc-uid-data";

/// A provisioner with caches and tasks of its own, as in a process of its own.
struct Process {
    runtime: Runtime,
}

impl Process {
    fn start(world: &World) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let quick = Backoff {
            min: Duration::from_millis(20),
            max: Duration::from_millis(100),
        };
        let config = ProvisionerConfig {
            timeout: Duration::from_secs(5),
            retry_interval: quick,
            ..ProvisionerConfig::new(world.csi_address())
        };
        let client = world.api.client();
        runtime.spawn(async move {
            let stop = CancellationToken::new();
            let informers = Informers::new(client, stop.clone());
            provisioner::run(config, informers, stop)
                .await
                .expect("provisioner")
        });
        Self { runtime }
    }

    /// Nothing of it goes on.
    fn kill(self, world: &World) {
        self.runtime.shutdown_background();
        world.api.crash.disarm();
    }
}

async fn world() -> World {
    let world = World::new(&[CREATE_DELETE]).await;
    world.api.put("storageclasses", class("Immediate", "Delete"));
    world
}

/// What the binder does with PVs whose claim is gone.
fn release_orphans(world: &World) {
    for pv in world.api.list("persistentvolumes") {
        let claim = pv["spec"]["claimRef"]["name"].as_str().unwrap_or_default();
        let name = pv["metadata"]["name"].as_str().unwrap_or_default();
        let is_released = pv["status"]["phase"] == "Released";
        if !is_released && world.api.get("persistentvolumeclaims", "ns", claim).is_none() {
            world.api.edit("persistentvolumes", "", name, |pv| {
                pv["status"] = json!({"phase": "Released"});
            });
        }
    }
}

fn intents(world: &World) -> Vec<String> {
    let objects = world.api.list("configmaps");
    let data = objects.iter().filter_map(|object| object["data"].as_object());
    data.flat_map(|data| data.keys().cloned()).collect()
}

fn asked_for(world: &World) -> usize {
    let line = format!("CreateVolume {VOLUME} ");
    world
        .driver
        .log()
        .iter()
        .filter(|seen| seen.starts_with(&line))
        .count()
}

/// A claim, and a provisioner that dies at this action of it. False if it has fewer.
async fn die(world: &World, number: usize, moment: Moment) -> bool {
    world.api.crash.arm(number, moment);
    world.api.put("persistentvolumeclaims", claim("data"));
    let process = Process::start(world);
    let is_over = || {
        let has_pv = world.api.get("persistentvolumes", "", VOLUME).is_some();
        (world.api.crash.is_dead() || (has_pv && number > 3)).then_some(())
    };
    world.until("neither dead nor done", is_over).await;
    let is_dead = world.api.crash.is_dead();
    process.kill(world);
    is_dead
}

/// Waits until neither volume nor PV of the claim is left, and everything that was to be asked has been.
async fn all_gone(world: &World, asked_at_least: usize) {
    let gone = || {
        release_orphans(world);
        let is_gone = world.driver.volumes().is_empty() && world.api.list("persistentvolumes").is_empty();
        (is_gone && asked_for(world) >= asked_at_least).then_some(())
    };
    world.until("a volume or PV is left", gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_any_two_actions_a_claim_gets_one_volume() {
    for (number, moment) in points(3) {
        let world = world().await;
        assert!(die(&world, number, moment).await, "{number} {moment:?}");
        let process = Process::start(&world);
        let saved = || world.api.get("persistentvolumes", "", VOLUME);
        let pv = world.until(&format!("{number} {moment:?}: no PV"), saved).await;
        assert_eq!(pv["spec"]["csi"]["volumeHandle"], "vol-1", "{number} {moment:?}");
        assert_eq!(world.driver.volumes().len(), 1, "{number} {moment:?}");
        process.kill(&world);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_any_two_actions_and_the_claim_deleted_leaves_nothing() {
    for (number, moment) in points(3) {
        let world = world().await;
        assert!(die(&world, number, moment).await, "{number} {moment:?}");
        world.api.delete("persistentvolumeclaims", "ns", "data");
        let has_pv = world.api.get("persistentvolumes", "", VOLUME).is_some();
        let is_known = intents(&world).contains(&VOLUME.to_string());
        let is_first_write = (number, moment) == (1, Moment::Before);
        assert_eq!(is_known, !is_first_write, "{number} {moment:?}");
        // The one that knows of it asks again; the one that doesn't never asked.
        let asked = asked_for(&world);
        assert!(is_known || asked == 0, "{number} {moment:?}");
        let process = Process::start(&world);
        all_gone(&world, asked + usize::from(is_known && !has_pv)).await;
        process.kill(&world);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_at_any_action_of_the_clean_up_leaves_nothing() {
    for (number, moment) in points(6) {
        let world = world().await;
        // The volume exists, and nobody was told.
        assert!(die(&world, 2, Moment::After).await);
        world.api.delete("persistentvolumeclaims", "ns", "data");
        world.api.crash.arm(number, moment);
        let process = Process::start(&world);
        let dead = || {
            release_orphans(&world);
            world.api.crash.is_dead().then_some(())
        };
        let what = format!("the clean-up has no action {number}");
        world.until(&what, dead).await;
        process.kill(&world);
        let process = Process::start(&world);
        all_gone(&world, 2).await;
        process.kill(&world);
        world.end().await;
    }
}

/// All points of death in so many actions.
fn points(actions: usize) -> impl Iterator<Item = (usize, Moment)> {
    (1..=actions).flat_map(|number| [(number, Moment::Before), (number, Moment::After)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_is_away_at_the_restart_is_waited_for() {
    let world = world().await;
    assert!(die(&world, 2, Moment::After).await);
    world.api.delete("persistentvolumeclaims", "ns", "data");
    world.driver.stop().await;
    let process = Process::start(&world);
    world
        .driver
        .script("CreateVolume", &[Step::Fail(Code::Unavailable); 3]);
    world.driver.start().await;
    all_gone(&world, 5).await;
    process.kill(&world);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_kept_by_the_user_is_never_taken_for_a_lost_one() {
    let world = world().await;
    let process = Process::start(&world);
    world.api.put("persistentvolumeclaims", claim("data"));
    let saved = || world.api.get("persistentvolumes", "", VOLUME).map(|_| ());
    world.until("no PV", saved).await;
    assert_eq!(intents(&world), [VOLUME], "nothing was written after it");
    world.api.edit("persistentvolumes", "", VOLUME, |pv| {
        pv["status"] = json!({"phase": "Bound"});
        pv["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
    });
    let let_go = || {
        let pv = world.api.get("persistentvolumes", "", VOLUME)?;
        let held = pv["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|all| !all.is_empty());
        (!held).then_some(())
    };
    world.until("the finalizer stays", let_go).await;
    assert!(intents(&world).is_empty(), "the intent goes before the finalizer");
    process.kill(&world);
    // The user deletes the objects and keeps the volume.
    world.api.delete("persistentvolumeclaims", "ns", "data");
    world.api.delete("persistentvolumes", "", VOLUME);
    let process = Process::start(&world);
    world.api.put("persistentvolumeclaims", claim("other"));
    let served = || {
        world
            .api
            .get("persistentvolumes", "", "pvc-uid-other")
            .map(|_| ())
    };
    world.until("the other claim isn't served", served).await;
    assert_eq!(asked_for(&world), 1);
    assert_eq!(
        world.driver.volumes().into_keys().collect::<Vec<_>>(),
        [VOLUME, "pvc-uid-other"]
    );
    process.kill(&world);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_asked_of_the_driver_before_the_intent_is_written() {
    let world = world().await;
    for code in [500, 503] {
        world.api.fail("POST", "configmaps", code);
    }
    let process = Process::start(&world);
    world.api.put("persistentvolumeclaims", claim("data"));
    let told = || {
        let reasons = world.api.reasons("data");
        reasons.contains(&"ProvisioningFailed".to_string()).then_some(())
    };
    world.until("the failed write isn't told", told).await;
    let saved = || world.api.get("persistentvolumes", "", VOLUME).map(|_| ());
    world.until("no PV", saved).await;
    assert_eq!(asked_for(&world), 1);
    let posts = |request: &&String| *request == "POST configmaps";
    assert_eq!(world.api.requests().iter().filter(posts).count(), 3);
    process.kill(&world);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_keep_a_ledger_claims_are_served_all_the_same() {
    for request in ["GET", "POST"] {
        let world = world().await;
        world.api.fail(request, "configmaps", 403);
        let process = Process::start(&world);
        world.api.put("persistentvolumeclaims", claim("data"));
        let saved = || world.api.get("persistentvolumes", "", VOLUME).map(|_| ());
        world.until("no PV", saved).await;
        process.kill(&world);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_was_deleted_is_made_anew() {
    let world = world().await;
    let process = Process::start(&world);
    world.api.put("persistentvolumeclaims", claim("data"));
    let saved = || world.api.get("persistentvolumes", "", VOLUME).map(|_| ());
    world.until("no PV", saved).await;
    for object in world.api.list("configmaps") {
        let (namespace, name) = (&object["metadata"]["namespace"], &object["metadata"]["name"]);
        let (namespace, name) = (
            namespace.as_str().unwrap_or_default(),
            name.as_str().unwrap_or_default(),
        );
        world.api.delete("configmaps", namespace, name);
    }
    world.api.put("persistentvolumeclaims", claim("other"));
    let served = || {
        world
            .api
            .get("persistentvolumes", "", "pvc-uid-other")
            .map(|_| ())
    };
    world.until("the other claim isn't served", served).await;
    assert!(intents(&world).contains(&"pvc-uid-other".to_string()));
    process.kill(&world);
    world.end().await;
}

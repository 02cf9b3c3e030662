//! The snapshotter over a small API server and a scripted driver: creation, readiness, deletion, failures, and its death
//! before and after each of its actions.

mod support;

use moorline_proto::csi::controller_service_capability::rpc::Type as Can;
use moorline_sidecars::snapshotter::run;
use serde_json::{Value, json};
use support::contents::{Contents, config};
use support::crash::Moment;
use support::process::Process;
use support::{DRIVER, Step, World};
use tonic::Code;

const CONTENTS: &str = "volumesnapshotcontents";
const FINALIZER: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
const BEING_CREATED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";
const ALL: [i32; 2] = [Can::CreateDeleteSnapshot as i32, Can::ListSnapshots as i32];

async fn started(capabilities: &[i32]) -> World {
    let world = World::new(capabilities).await;
    let class = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": {"name": "snap"}, "driver": DRIVER, "deletionPolicy": "Delete"});
    world.api.put("volumesnapshotclasses", class);
    let running = run(config(&world), world.informers.clone(), world.stop.clone());
    world
        .tasks
        .spawn(async move { running.await.expect("the snapshotter runs") });
    world
}

fn content(source: Value) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {"name": "k", "uid": "ku", "finalizers": [FINALIZER]},
        "spec": {
            "volumeSnapshotRef": {"namespace": "ns", "name": "s", "uid": "su"}, "deletionPolicy": "Delete",
            "driver": DRIVER, "volumeSnapshotClassName": "snap", "source": source,
        },
    })
}

fn dynamic() -> Value {
    content(json!({"volumeHandle": "vol-1"}))
}

const KIND: Contents = Contents {
    resource: CONTENTS,
    being_created: BEING_CREATED,
    being_deleted: BEING_DELETED,
};

fn get(world: &World) -> Option<Value> {
    KIND.get(world)
}

fn delete(world: &World) {
    KIND.delete(world);
}

async fn ready(world: &World) -> Value {
    KIND.ready(world).await
}

async fn gone(world: &World) {
    world
        .until("content and snapshot gone", || {
            (get(world).is_none() && world.driver.snapshots().is_empty()).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_snapshot_is_created_once_and_deleted() {
    let world = started(&ALL).await;
    world.api.put(CONTENTS, dynamic());
    let content = ready(&world).await;
    let status = &content["status"];
    assert_eq!(
        (&status["snapshotHandle"], &status["restoreSize"]),
        (&json!("snap-1"), &json!(1_i64 << 30))
    );
    assert!(
        status["creationTime"]
            .as_i64()
            .is_some_and(|nanos| nanos > 1_700_000_000_000_000_000),
        "a driver that doesn't say when means now: {status}"
    );
    let cut = &world.driver.snapshots()["snapshot-su"];
    assert_eq!(
        (cut.volume_id.as_str(), world.driver.calls("CreateSnapshot")),
        ("vol-1", 1)
    );
    let patch = format!("PATCH {CONTENTS}");
    assert_eq!(
        world.api.writes(),
        [patch.clone(), format!("{patch}/status"), patch],
        "marked, said, unmarked"
    );
    delete(&world);
    gone(&world).await;
    world.end().await;
}

#[tokio::test]
async fn readiness_is_polled() {
    let world = started(&ALL).await;
    world.driver.set_ready_after(1);
    world.api.put(CONTENTS, dynamic());
    let cut = world
        .until("cut, not ready, unmarked", || {
            let content = get(&world)?;
            let is_cut = content["status"]["readyToUse"] == false
                && content["metadata"]["annotations"][BEING_CREATED].is_null();
            is_cut.then_some(content)
        })
        .await;
    assert_eq!(cut["status"]["snapshotHandle"], "snap-1");
    ready(&world).await;
    assert_eq!(world.driver.snapshots().len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_refusal_is_told_once_and_takes_the_mark_and_is_tried_again() {
    let world = started(&ALL).await;
    world
        .driver
        .script("CreateSnapshot", &[Step::Fail(Code::InvalidArgument); 3]);
    world.api.put(CONTENTS, dynamic());
    ready(&world).await;
    world
        .until("told", || (!world.api.reasons("k").is_empty()).then_some(()))
        .await;
    assert_eq!(world.api.reasons("k"), ["SnapshotCreationFailed"]);
    assert_eq!(world.driver.calls("CreateSnapshot"), 4);
    world.end().await;
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again_even_when_all_is_deleted() {
    let world = started(&ALL).await;
    // Done, but nobody hears of it, for as long as the script goes.
    let lost = [Step::DoThenFail(Code::DeadlineExceeded); 4];
    world.driver.script("CreateSnapshot", &lost);
    world.api.put(CONTENTS, dynamic());
    world
        .until("made and not known", || {
            (!world.driver.snapshots().is_empty()).then_some(())
        })
        .await;
    delete(&world);
    gone(&world).await;
    assert_eq!(
        world.driver.calls("CreateSnapshot"),
        5,
        "asked until it was known"
    );
    world.end().await;
}

#[tokio::test]
async fn a_refused_snapshot_that_is_deleted_goes_without_a_call() {
    let world = started(&ALL).await;
    world
        .driver
        .script("CreateSnapshot", &[Step::Fail(Code::InvalidArgument); 50]);
    world.api.put(CONTENTS, dynamic());
    world
        .until("refused", || {
            (world.driver.calls("CreateSnapshot") > 0).then_some(())
        })
        .await;
    delete(&world);
    gone(&world).await;
    assert_eq!(world.driver.calls("DeleteSnapshot"), 0);
    world.end().await;
}

#[tokio::test]
async fn existing_snapshots_are_looked_up_or_believed_in() {
    for (capabilities, lists) in [(&ALL[..], 1), (&ALL[..1], 0)] {
        let world = started(capabilities).await;
        world.driver.cut("old");
        let mut existing = content(json!({"snapshotHandle": "old"}));
        existing["spec"]["volumeSnapshotClassName"] = Value::Null;
        world.api.put(CONTENTS, existing);
        let content = ready(&world).await;
        assert_eq!(content["status"]["snapshotHandle"], "old");
        assert_eq!(world.driver.calls("ListSnapshots"), lists);
        delete(&world);
        gone(&world).await;
        world.end().await;
    }
}

#[tokio::test]
async fn a_snapshot_that_is_not_listed_is_told() {
    let world = started(&ALL).await;
    world
        .api
        .put(CONTENTS, content(json!({"snapshotHandle": "nowhere"})));
    world
        .until("told", || {
            let message = get(&world)?["status"]["error"]["message"].as_str()?.to_string();
            message.contains("\"nowhere\"").then_some(())
        })
        .await;
    world
        .until("an event", || {
            (world.api.reasons("k") == ["SnapshotContentCheckandUpdateFailed"]).then_some(())
        })
        .await;
    world.end().await;
}

#[tokio::test]
async fn a_deletion_that_fails_is_tried_again() {
    let world = started(&ALL).await;
    world.api.put(CONTENTS, dynamic());
    ready(&world).await;
    world.driver.script(
        "DeleteSnapshot",
        &[Step::Fail(Code::Internal), Step::DoThenFail(Code::Unavailable)],
    );
    delete(&world);
    gone(&world).await;
    assert_eq!(world.driver.calls("DeleteSnapshot"), 3);
    world.end().await;
}

#[tokio::test]
async fn a_content_whose_snapshot_lives_keeps_its_data() {
    let world = started(&ALL).await;
    world.api.put(CONTENTS, dynamic());
    ready(&world).await;
    world.api.delete(CONTENTS, "", "k");
    // Something after it in the queue is done, so it has been looked at.
    let mut other = dynamic();
    other["metadata"] = json!({"name": "k2", "uid": "k2u", "finalizers": [FINALIZER]});
    other["spec"]["volumeSnapshotRef"]["uid"] = json!("su2");
    world.api.put(CONTENTS, other);
    world
        .until("the other one ready", || {
            let other = world.api.get(CONTENTS, "", "k2")?;
            (other["status"]["readyToUse"] == true).then_some(())
        })
        .await;
    assert!(get(&world).is_some());
    assert_eq!(
        (
            world.driver.snapshots().len(),
            world.driver.calls("DeleteSnapshot")
        ),
        (2, 0)
    );
    world.end().await;
}

fn start(world: &World) -> Process {
    Process::start(world, |informers, stop| run(config(world), informers, stop))
}

/// Kills it at its `number`th action; whether it got that far.
async fn kill_at(number: usize, moment: Moment, is_deleted_meanwhile: bool) -> bool {
    let world = World::new(&ALL).await;
    let class = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": {"name": "snap"}, "driver": DRIVER, "deletionPolicy": "Delete"});
    world.api.put("volumesnapshotclasses", class);
    world.api.crash.arm(number, moment);
    let first = start(&world);
    world.api.put(CONTENTS, dynamic());
    world
        .until("dead, or done", || {
            let is_ready = get(&world).is_some_and(|content| {
                content["status"]["readyToUse"] == true
                    && content["metadata"]["annotations"][BEING_CREATED].is_null()
            });
            (world.api.crash.is_dead() || is_ready).then_some(())
        })
        .await;
    if !world.api.crash.is_dead() {
        delete(&world);
        world
            .until("dead, or gone", || {
                (world.api.crash.is_dead() || get(&world).is_none()).then_some(())
            })
            .await;
    }
    let has_died = world.api.crash.is_dead();
    first.end().await;
    world.api.crash.disarm();
    if is_deleted_meanwhile && get(&world).is_some() {
        delete(&world);
    }
    let second = start(&world);
    if get(&world).is_some_and(|content| content["metadata"]["deletionTimestamp"].is_null()) {
        ready(&world).await;
        assert_eq!(
            world.driver.snapshots().len(),
            1,
            "{number} {moment:?}: one snapshot"
        );
        delete(&world);
    }
    gone(&world).await;
    second.end().await;
    world.end().await;
    has_died
}

#[tokio::test]
async fn killed_anywhere_it_loses_no_snapshot() {
    let mut deaths = 0;
    for moment in [Moment::Before, Moment::After] {
        for is_deleted_meanwhile in [false, true] {
            let mut number = 1;
            while kill_at(number, moment, is_deleted_meanwhile).await {
                number += 1;
            }
            deaths += number - 1;
        }
    }
    // Marked, created, said, unmarked, deleted, released; each before and after, each deleted meanwhile or not.
    assert!(deaths >= 24, "{deaths} deaths");
}

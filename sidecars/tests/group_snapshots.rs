//! The group half of the snapshotter over a small API server and a scripted driver: creation, readiness, deletion, secrets,
//! failures, and its death before and after each of its actions.

mod support;

use moorline_proto::csi::controller_service_capability::rpc::Type as Can;
use moorline_sidecars::snapshotter::{SnapshotterConfig, run};
use serde_json::{Value, json};
use support::contents::{Contents, config};
use support::crash::Moment;
use support::process::Process;
use support::{DRIVER, Step, World};
use tonic::Code;

const CONTENTS: &str = "volumegroupsnapshotcontents";
const FINALIZER: &str = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection";
const BEING_CREATED: &str = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-created";
const BEING_DELETED: &str = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-deleted";
const NAME: &str = "groupsnapshot-gu";

/// A world with a driver that takes groups, and a class.
async fn prepared() -> World {
    let world = World::new(&[Can::CreateDeleteSnapshot as i32]).await;
    world.driver.serve_groups();
    world.api.put("volumegroupsnapshotclasses", class(json!({})));
    world
}

fn class(parameters: Value) -> Value {
    json!({"apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshotClass",
        "metadata": {"name": "groups"}, "driver": DRIVER, "deletionPolicy": "Delete", "parameters": parameters})
}

fn start(world: &World, config: SnapshotterConfig) -> Process {
    Process::start(world, |informers, stop| run(config, informers, stop))
}

async fn started() -> (World, Process) {
    let world = prepared().await;
    let process = start(&world, config(&world));
    (world, process)
}

async fn end(world: World, process: Process) {
    process.end().await;
    world.end().await;
}

fn content(source: Value) -> Value {
    json!({
        "apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshotContent",
        "metadata": {"name": "k", "uid": "ku", "finalizers": [FINALIZER]},
        "spec": {
            "volumeGroupSnapshotRef": {"namespace": "ns", "name": "g", "uid": "gu"}, "deletionPolicy": "Delete",
            "driver": DRIVER, "volumeGroupSnapshotClassName": "groups", "source": source,
        },
    })
}

fn dynamic() -> Value {
    content(json!({"volumeHandles": ["vol-1", "vol-2"]}))
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
        .until("content and group gone", || {
            (get(world).is_none() && world.driver.groups().is_empty()).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_group_is_created_once_and_deleted_with_its_members() {
    let (world, process) = started().await;
    world.api.put(CONTENTS, dynamic());
    let content = ready(&world).await;
    let status = &content["status"];
    assert_eq!(status["volumeGroupSnapshotHandle"], "group-1");
    assert!(
        status["creationTime"].is_string(),
        "a driver that doesn't say when means now"
    );
    let members = status["volumeSnapshotInfoList"].as_array().unwrap();
    let seen: Vec<_> = members
        .iter()
        .map(|member| {
            (
                &member["volumeHandle"],
                &member["snapshotHandle"],
                &member["restoreSize"],
            )
        })
        .collect();
    let size = json!(1_i64 << 30);
    assert_eq!(
        seen,
        [
            (&json!("vol-1"), &json!("group-1-vol-1"), &size),
            (&json!("vol-2"), &json!("group-1-vol-2"), &size),
        ]
    );
    let cut = &world.driver.groups()[NAME];
    assert_eq!(cut.volume_ids, ["vol-1", "vol-2"]);
    let patch = format!("PATCH {CONTENTS}");
    assert_eq!(
        world.api.writes(),
        [patch.clone(), format!("{patch}/status"), patch],
        "marked, said, unmarked"
    );
    delete(&world);
    gone(&world).await;
    let log = world.driver.log();
    let deletion = log
        .iter()
        .find(|line| line.starts_with("DeleteVolumeGroupSnapshot"));
    let expected = "DeleteVolumeGroupSnapshot group-1 group-1-vol-1,group-1-vol-2 None";
    assert_eq!(deletion.map(String::as_str), Some(expected));
    end(world, process).await;
}

#[tokio::test]
async fn readiness_is_polled_and_members_follow() {
    let (world, process) = started().await;
    world.driver.set_ready_after(1);
    world.api.put(CONTENTS, dynamic());
    let content = ready(&world).await;
    let members = content["status"]["volumeSnapshotInfoList"].as_array().unwrap();
    assert!(
        members.iter().all(|member| member["readyToUse"] == true),
        "{members:?}"
    );
    assert_eq!(world.driver.groups().len(), 1);
    end(world, process).await;
}

#[tokio::test]
async fn a_group_that_leaves_volumes_out_is_not_ready_and_can_be_deleted() {
    let (world, process) = started().await;
    world.driver.leave_out(&["vol-2"]);
    world.api.put(CONTENTS, dynamic());
    let content = world
        .until("told", || {
            let content = get(&world)?;
            let message = content["status"]["error"]["message"].as_str()?.to_string();
            message.contains("vol-2").then_some(content)
        })
        .await;
    assert_eq!(content["status"]["readyToUse"], false);
    assert_eq!(content["status"]["volumeGroupSnapshotHandle"], "group-1");
    delete(&world);
    gone(&world).await;
    end(world, process).await;
}

#[tokio::test]
async fn a_refusal_is_told_and_tried_again() {
    let (world, process) = started().await;
    let rpc = "CreateVolumeGroupSnapshot";
    world
        .driver
        .script(rpc, &[Step::Fail(Code::FailedPrecondition); 3]);
    world.api.put(CONTENTS, dynamic());
    ready(&world).await;
    world
        .until("told", || {
            let reasons = world.api.reasons("k");
            reasons
                .contains(&"GroupSnapshotCreationFailed".to_string())
                .then_some(())
        })
        .await;
    end(world, process).await;
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again_even_when_all_is_deleted() {
    let (world, process) = started().await;
    // Done, but nobody hears of it, for as long as the script goes.
    let lost = [Step::DoThenFail(Code::DeadlineExceeded); 4];
    world.driver.script("CreateVolumeGroupSnapshot", &lost);
    world.api.put(CONTENTS, dynamic());
    world
        .until("made and not known", || {
            (!world.driver.groups().is_empty()).then_some(())
        })
        .await;
    delete(&world);
    gone(&world).await;
    assert_eq!(
        world.driver.calls("DeleteVolumeGroupSnapshot"),
        1,
        "known, so deleted"
    );
    end(world, process).await;
}

#[tokio::test]
async fn a_refused_group_that_is_deleted_goes_without_a_call() {
    let (world, process) = started().await;
    let rpc = "CreateVolumeGroupSnapshot";
    world
        .driver
        .script(rpc, &[Step::Fail(Code::InvalidArgument); 1000]);
    world.api.put(CONTENTS, dynamic());
    world
        .until("refused", || (world.driver.calls(rpc) > 0).then_some(()))
        .await;
    delete(&world);
    gone(&world).await;
    assert_eq!(world.driver.calls("DeleteVolumeGroupSnapshot"), 0);
    end(world, process).await;
}

#[tokio::test]
async fn existing_groups_are_looked_up() {
    let (world, process) = started().await;
    world.driver.cut_group("old", &["vol-1"]);
    let handles = json!({"volumeGroupSnapshotHandle": "old", "volumeSnapshotHandles": ["old-vol-1"]});
    let mut existing = content(json!({"groupSnapshotHandles": handles}));
    existing["spec"]["volumeGroupSnapshotClassName"] = Value::Null;
    world.api.put(CONTENTS, existing);
    let content = ready(&world).await;
    assert_eq!(content["status"]["volumeGroupSnapshotHandle"], "old");
    assert!(
        content["status"]["volumeSnapshotInfoList"].is_null(),
        "its members have objects"
    );
    delete(&world);
    gone(&world).await;
    let log = world.driver.log();
    assert!(
        log.iter()
            .any(|line| line == "DeleteVolumeGroupSnapshot old old-vol-1 None"),
        "{log:#?}"
    );
    end(world, process).await;
}

#[tokio::test]
async fn a_group_that_is_not_there_is_told() {
    let (world, process) = started().await;
    let handles = json!({"volumeGroupSnapshotHandle": "nowhere", "volumeSnapshotHandles": ["s"]});
    world
        .api
        .put(CONTENTS, content(json!({"groupSnapshotHandles": handles})));
    world
        .until("told", || {
            let reasons = world.api.reasons("k");
            reasons
                .contains(&"GroupSnapshotContentCheckandUpdateFailed".to_string())
                .then_some(())
        })
        .await;
    end(world, process).await;
}

#[tokio::test]
async fn secrets_and_names_reach_the_driver() {
    let world = prepared().await;
    let parameters = json!({
        "csi.storage.k8s.io/group-snapshotter-secret-name": "${volumegroupsnapshot.name}",
        "csi.storage.k8s.io/group-snapshotter-secret-namespace": "vault", "tier": "cold"});
    world.api.put("volumegroupsnapshotclasses", class(parameters));
    // "key" in base64.
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "vault", "name": "g"},
        "data": {"password": "a2V5"}});
    world.api.put("secrets", secret);
    let mut config = config(&world);
    config.extra_create_metadata = true;
    let process = start(&world, config);
    world.api.put(CONTENTS, dynamic());
    ready(&world).await;
    let told = world.driver.told();
    let expected = [
        ("csi.storage.k8s.io/volumegroupsnapshot/name", "g"),
        ("csi.storage.k8s.io/volumegroupsnapshot/namespace", "ns"),
        ("csi.storage.k8s.io/volumegroupsnapshotcontent/name", "k"),
        ("password", "key"),
        ("tier", "cold"),
    ];
    let told: Vec<_> = told
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(told, expected);
    end(world, process).await;
}

#[tokio::test]
async fn without_the_gate_no_group_is_taken() {
    let world = prepared().await;
    let mut config = config(&world);
    config.serves_groups = false;
    let process = start(&world, config);
    world.api.put(CONTENTS, dynamic());
    // A snapshot after it is taken.
    world.api.put(
        "volumesnapshotclasses",
        json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
            "metadata": {"name": "snap"}, "driver": DRIVER, "deletionPolicy": "Delete"}),
    );
    world.api.put(
        "volumesnapshotcontents",
        json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": "s", "uid": "sk"}, "spec": {
            "volumeSnapshotRef": {"namespace": "ns", "name": "s", "uid": "su"}, "deletionPolicy": "Delete",
            "driver": DRIVER, "volumeSnapshotClassName": "snap", "source": {"volumeHandle": "vol-1"}}}),
    );
    world
        .until("the snapshot", || {
            let content = world.api.get("volumesnapshotcontents", "", "s")?;
            (content["status"]["readyToUse"] == true).then_some(())
        })
        .await;
    assert!(get(&world).unwrap()["metadata"]["annotations"].is_null());
    assert!(world.driver.groups().is_empty());
    end(world, process).await;
}

/// Kills it at its `number`th action; whether it got that far.
async fn kill_at(number: usize, moment: Moment, is_deleted_meanwhile: bool) -> bool {
    let world = prepared().await;
    world.api.crash.arm(number, moment);
    let first = start(&world, config(&world));
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
    let second = start(&world, config(&world));
    if get(&world).is_some_and(|content| content["metadata"]["deletionTimestamp"].is_null()) {
        ready(&world).await;
        assert_eq!(world.driver.groups().len(), 1, "{number} {moment:?}: one group");
        delete(&world);
    }
    gone(&world).await;
    second.end().await;
    world.end().await;
    has_died
}

#[tokio::test]
async fn killed_anywhere_it_loses_no_group() {
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

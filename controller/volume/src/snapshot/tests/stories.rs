//! Stories of the whole controller, over an API server.

use super::*;
use crate::testing::api::TestApi;
use crate::testing::running::Running;

fn config() -> Config {
    let mut config = Config::default();
    config.retry_interval.min = std::time::Duration::from_millis(10);
    config.retry_interval.max = std::time::Duration::from_millis(200);
    config
}

/// A claim with its volume and a class, as they are before any snapshot.
fn prepared() -> TestApi {
    let api = TestApi::new();
    api.put("persistentvolumes", source_pv(json!({})));
    api.put(
        "persistentvolumeclaims",
        source(json!({"metadata": {"finalizers": null, "resourceVersion": null}})),
    );
    api.put("volumesnapshotclasses", class_json(&json!({})));
    api
}

fn wished() -> Value {
    snapshot_json(&json!({"metadata": {"finalizers": null, "resourceVersion": null}}))
}

fn start(api: &TestApi) -> Running {
    Running::start(api, |informers, stop| run(config(), informers, stop))
}

#[tokio::test]
async fn from_wish_to_readiness_to_nothing() {
    let api = prepared();
    let running = start(&api);
    api.put("volumesnapshots", wished());
    api.wait_until("bound", |api| {
        let snapshot = api.get("volumesnapshots", "ns/s").unwrap();
        snapshot["status"]["boundVolumeSnapshotContentName"] == NAMELESS
    })
    .await;
    let held = api.get("persistentvolumeclaims", "ns/c").unwrap();
    assert_eq!(
        held["metadata"]["finalizers"],
        json!([keys::PVC_AS_SOURCE_PROTECTION])
    );
    assert_eq!(
        api.take_writes(),
        [
            "PATCH volumesnapshots/ns/s",
            "PATCH persistentvolumeclaims/ns/c",
            "POST volumesnapshotcontents/snapcontent-su",
            "PATCH volumesnapshots/ns/s/status",
        ]
    );
    // The sidecar's part.
    let said = json!({"status": {"snapshotHandle": "h1", "creationTime": 1_500_000_000_000_000_000_i64,
        "restoreSize": 1024, "readyToUse": true}});
    api.change("volumesnapshotcontents", "/snapcontent-su", said);
    api.wait_until("ready, and the claim free", |api| {
        let snapshot = api.get("volumesnapshots", "ns/s").unwrap();
        let claim = api.get("persistentvolumeclaims", "ns/c").unwrap();
        snapshot["status"]["readyToUse"] == true
            && snapshot["status"]["restoreSize"] == "1Ki"
            && claim["metadata"]["finalizers"]
                .as_array()
                .is_none_or(Vec::is_empty)
    })
    .await;
    api.wait_until("told", |api| {
        api.event_reasons() == ["CreatingSnapshot", "SnapshotCreated", "SnapshotReady"]
    })
    .await;
    api.delete("volumesnapshots", "ns/s");
    api.wait_until("the content is to go", |api| {
        let content = api.get("volumesnapshotcontents", "/snapcontent-su").unwrap();
        content["metadata"]["annotations"][keys::SNAPSHOT_BEING_DELETED] == "yes"
            && content["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
    assert!(
        api.get("volumesnapshots", "ns/s").is_some(),
        "the snapshot stays until the backend is clean"
    );
    api.delete_now("volumesnapshotcontents", "/snapcontent-su");
    api.wait_until("gone", |api| api.get("volumesnapshots", "ns/s").is_none())
        .await;
    running.stop().await;
}

#[tokio::test]
async fn a_snapshot_waits_for_what_is_missing() {
    let api = prepared();
    api.change(
        "persistentvolumeclaims",
        "ns/c",
        json!({"status": {"phase": "Pending"}}),
    );
    api.delete("volumesnapshotclasses", "/snap");
    let running = start(&api);
    api.put("volumesnapshots", wished());
    let says = |api: &TestApi, part: &str| {
        let snapshot = api.get("volumesnapshots", "ns/s").unwrap();
        let status = &snapshot["status"];
        let message = status["error"]["message"].as_str().unwrap_or_default();
        message.contains(part) && status["readyToUse"] == false
    };
    api.wait_until("told about the class", |api| says(api, "\"snap\" not found"))
        .await;
    api.put("volumesnapshotclasses", class_json(&json!({})));
    api.wait_until("told about the claim", |api| {
        says(api, "not bound to a volume yet")
    })
    .await;
    api.change(
        "persistentvolumeclaims",
        "ns/c",
        json!({"status": {"phase": "Bound"}}),
    );
    api.wait_until("begun, and the error gone", |api| {
        let snapshot = api.get("volumesnapshots", "ns/s").unwrap();
        snapshot["status"]["boundVolumeSnapshotContentName"] == NAMELESS
            && snapshot["status"]["error"].is_null()
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_static_pair_is_bound_and_its_data_kept() {
    let api = prepared();
    api.put(
        "volumesnapshotcontents",
        content_json(
            &json!({"metadata": {"name": "k", "finalizers": null, "resourceVersion": null}, "spec": {
            "volumeSnapshotRef": {"uid": null}, "deletionPolicy": "Retain",
            "source": {"volumeHandle": null, "snapshotHandle": "h1"}}}),
        ),
    );
    let running = start(&api);
    let mut wish = wished();
    merge(
        &mut wish,
        &json!({"spec": {"volumeSnapshotClassName": null,
            "source": {"persistentVolumeClaimName": null, "volumeSnapshotContentName": "k"}}}),
    );
    api.put("volumesnapshots", wish);
    api.wait_until("bound both ways and protected", |api| {
        let content = api.get("volumesnapshotcontents", "/k").unwrap();
        let snapshot = api.get("volumesnapshots", "ns/s").unwrap();
        content["spec"]["volumeSnapshotRef"]["uid"] == "su"
            && content["metadata"]["finalizers"] == json!([keys::SNAPSHOT_CONTENT_BOUND_PROTECTION])
            && snapshot["status"]["boundVolumeSnapshotContentName"] == "k"
    })
    .await;
    api.delete("volumesnapshots", "ns/s");
    api.wait_until("gone, the content kept", |api| {
        api.get("volumesnapshots", "ns/s").is_none()
            && api.get("volumesnapshotcontents", "/k").is_some_and(|content| {
                content["metadata"]["annotations"][keys::SNAPSHOT_BEING_DELETED] == "yes"
                    && content["metadata"]["deletionTimestamp"].is_null()
            })
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_snapshot_stays_while_a_claim_is_filled_from_it() {
    let api = prepared();
    api.put(
        "volumesnapshotcontents",
        content_json(&json!({"status": {
        "snapshotHandle": "h1", "creationTime": 5, "readyToUse": true}})),
    );
    api.put("volumesnapshots", snapshot_json(&json!({})));
    let source = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    api.put(
        "persistentvolumeclaims",
        json!({"metadata": {"namespace": "ns", "name": "restored"}, "spec": {"dataSource": source},
            "status": {"phase": "Pending"}}),
    );
    let running = start(&api);
    api.wait_until("ready", |api| {
        api.get("volumesnapshots", "ns/s").unwrap()["status"]["readyToUse"] == true
    })
    .await;
    api.delete("volumesnapshots", "ns/s");
    api.wait_until("told", |api| {
        api.event_reasons().contains(&"SnapshotDeletePending".to_string())
    })
    .await;
    let content = api.get("volumesnapshotcontents", "/snapcontent-su").unwrap();
    assert!(content["metadata"]["deletionTimestamp"].is_null());
    api.change(
        "persistentvolumeclaims",
        "ns/restored",
        json!({"spec": {"volumeName": "pv2"}, "status": {"phase": "Bound"}}),
    );
    api.wait_until("deleted", |api| {
        let content = api.get("volumesnapshotcontents", "/snapcontent-su").unwrap();
        content["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
    running.stop().await;
}

/// What the sidecar and the driver would do.
fn play_sidecar(api: &TestApi) {
    for content in api.list("volumesnapshotcontents") {
        let meta = &content["metadata"];
        let key = format!("/{}", meta["name"].as_str().unwrap());
        let is_going = meta["deletionTimestamp"].is_string();
        if is_going && meta["annotations"][keys::SNAPSHOT_BEING_DELETED] == "yes" {
            api.delete_now("volumesnapshotcontents", &key);
        } else if !is_going && content["status"].is_null() {
            let said = json!({"status": {"snapshotHandle": "h1", "creationTime": 5, "readyToUse": true}});
            api.change("volumesnapshotcontents", &key, said);
        }
    }
}

fn is_free(api: &TestApi) -> bool {
    let claim = api.get("persistentvolumeclaims", "ns/c").unwrap();
    claim["metadata"]["finalizers"]
        .as_array()
        .is_none_or(Vec::is_empty)
}

fn is_ready(api: &TestApi) -> bool {
    api.get("volumesnapshots", "ns/s")
        .is_some_and(|snapshot| snapshot["status"]["readyToUse"] == true)
}

/// Kills the controller at its `number`th write; whether it came that far. Another one finishes its work.
async fn kill_at(number: usize, is_done: bool) -> bool {
    let api = prepared();
    let first = start(&api);
    api.die_at(number, is_done);
    api.put("volumesnapshots", wished());
    api.wait_until("dead, or ready", |api| {
        play_sidecar(api);
        api.is_dead() || (is_ready(api) && is_free(api))
    })
    .await;
    if !api.is_dead() {
        api.delete("volumesnapshots", "ns/s");
        api.wait_until("dead, or gone", |api| {
            play_sidecar(api);
            api.is_dead() || api.get("volumesnapshots", "ns/s").is_none()
        })
        .await;
    }
    let has_died = api.is_dead();
    first.kill();
    api.live();
    let second = start(&api);
    let is_living = api
        .get("volumesnapshots", "ns/s")
        .is_some_and(|snapshot| snapshot["metadata"]["deletionTimestamp"].is_null());
    if is_living {
        api.wait_until("ready after all", |api| {
            play_sidecar(api);
            is_ready(api) && is_free(api)
        })
        .await;
        assert_eq!(api.list("volumesnapshotcontents").len(), 1, "write {number}");
        api.delete("volumesnapshots", "ns/s");
    }
    api.wait_until("nothing left", |api| {
        play_sidecar(api);
        api.list("volumesnapshots").is_empty()
            && api.list("volumesnapshotcontents").is_empty()
            && is_free(api)
    })
    .await;
    second.stop().await;
    has_died
}

#[tokio::test]
async fn killed_anywhere_it_leaves_nothing_undone() {
    let mut deaths = 0;
    for is_done in [false, true] {
        let mut number = 1;
        while kill_at(number, is_done).await {
            number += 1;
        }
        deaths += number - 1;
    }
    // Finalizers, claim held, content, status, status, claim freed, mark, deletion, finalizers.
    assert!(deaths >= 2 * 8, "{deaths} deaths");
}

//! Stories of groups, over an API server.

use super::*;
use crate::snapshot::{Config, run};
use crate::testing::api::TestApi;
use crate::testing::running::Running;

fn config() -> Config {
    let mut config = Config::default();
    config.retry_interval.min = std::time::Duration::from_millis(10);
    config.retry_interval.max = std::time::Duration::from_millis(200);
    config
}

/// Two claims with their volumes and a class, as they are before any snapshot.
fn prepared() -> TestApi {
    let api = TestApi::new();
    for number in [1, 2] {
        let fresh = json!({"metadata": {"finalizers": null, "resourceVersion": null}});
        api.put("persistentvolumes", pv_json(number, &json!({})));
        api.put("persistentvolumeclaims", claim_json(number, &fresh));
    }
    api.put("volumegroupsnapshotclasses", class_json(&json!({})));
    api
}

fn wish(api: &TestApi) {
    let fresh = json!({"metadata": {"finalizers": null, "resourceVersion": null}});
    api.put("volumegroupsnapshots", group_json(&fresh));
}

fn start(api: &TestApi) -> Running {
    Running::start(api, |informers, stop| run(config(), informers, stop))
}

/// What the sidecar and the driver would do.
fn play_sidecar(api: &TestApi) {
    for resource in ["volumegroupsnapshotcontents", "volumesnapshotcontents"] {
        for content in api.list(resource) {
            let meta = &content["metadata"];
            let key = format!("/{}", meta["name"].as_str().unwrap());
            let annotations = &meta["annotations"];
            let is_marked = annotations[keys::GROUP_SNAPSHOT_BEING_DELETED] == "yes"
                || annotations[keys::SNAPSHOT_BEING_DELETED] == "yes";
            let is_group = resource == "volumegroupsnapshotcontents";
            if meta["deletionTimestamp"].is_string() && is_marked {
                api.delete_now(resource, &key);
            } else if is_group && content["status"].is_null() && meta["deletionTimestamp"].is_null() {
                api.change(resource, &key, cut(true));
            }
        }
    }
}

fn are_free(api: &TestApi) -> bool {
    let claims = api.list("persistentvolumeclaims");
    claims.iter().all(|claim| {
        claim["metadata"]["finalizers"]
            .as_array()
            .is_none_or(Vec::is_empty)
    })
}

fn is_whole(api: &TestApi) -> bool {
    let group = api.get("volumegroupsnapshots", NS_GROUP);
    let members = api.list("volumesnapshots");
    group.is_some_and(|group| group["status"]["readyToUse"] == true)
        && members.len() == 2
        && members.iter().all(|member| {
            member["status"]["readyToUse"] == true && member["status"]["volumeGroupSnapshotName"] == "g"
        })
        && are_free(api)
}

fn is_empty(api: &TestApi) -> bool {
    let kinds = [
        "volumegroupsnapshots",
        "volumegroupsnapshotcontents",
        "volumesnapshots",
        "volumesnapshotcontents",
    ];
    kinds.iter().all(|kind| api.list(kind).is_empty()) && are_free(api)
}

#[tokio::test]
async fn from_wish_to_readiness_to_nothing() {
    let api = prepared();
    let running = start(&api);
    wish(&api);
    api.wait_until("begun", |api| {
        let group = api.get("volumegroupsnapshots", NS_GROUP).unwrap();
        group["status"]["boundVolumeGroupSnapshotContentName"] == CONTENT
    })
    .await;
    assert!(!are_free(&api), "the claims are held");
    api.change("volumegroupsnapshotcontents", &format!("/{CONTENT}"), cut(true));
    api.wait_until("whole, and the claims free", is_whole).await;
    api.wait_until("told", |api| {
        let reasons = api.event_reasons();
        [
            "CreatingGroupSnapshot",
            "GroupSnapshotCreated",
            "GroupSnapshotReady",
        ]
        .iter()
        .all(|reason| reasons.iter().any(|told| told == reason))
    })
    .await;
    // A member alone can't go.
    let first = format!("ns/{}", member_name("gu", "h1"));
    api.delete("volumesnapshots", &first);
    api.wait_until("told", |api| {
        api.event_reasons().contains(&"SnapshotDeletePending".to_string())
    })
    .await;
    assert!(api.get("volumesnapshots", &first).is_some());
    api.delete("volumegroupsnapshots", NS_GROUP);
    api.wait_until("the content is to go", |api| {
        let content = api
            .get("volumegroupsnapshotcontents", &format!("/{CONTENT}"))
            .unwrap();
        content["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
    assert_eq!(
        api.list("volumegroupsnapshots").len(),
        1,
        "until the backend is clean"
    );
    api.wait_until("nothing left", |api| {
        play_sidecar(api);
        is_empty(api)
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_group_waits_for_all_of_its_claims() {
    let api = prepared();
    let pending = json!({"status": {"phase": "Pending"}});
    api.change("persistentvolumeclaims", "ns/c2", pending);
    let running = start(&api);
    wish(&api);
    api.wait_until("told", |api| {
        let group = api.get("volumegroupsnapshots", NS_GROUP).unwrap();
        let message = group["status"]["error"]["message"].as_str().unwrap_or_default();
        message.contains("\"c2\" is not bound")
    })
    .await;
    api.change(
        "persistentvolumeclaims",
        "ns/c2",
        json!({"status": {"phase": "Bound"}}),
    );
    api.wait_until("whole", |api| {
        play_sidecar(api);
        is_whole(api)
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_group_stays_while_a_claim_is_filled_from_a_member() {
    let api = prepared();
    let running = start(&api);
    wish(&api);
    api.wait_until("whole", |api| {
        play_sidecar(api);
        is_whole(api)
    })
    .await;
    let name = member_name("gu", "h2");
    let source = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name});
    api.put(
        "persistentvolumeclaims",
        json!({"metadata": {"namespace": "ns", "name": "restored"}, "spec": {"dataSource": source},
            "status": {"phase": "Pending"}}),
    );
    // Seen by the controller before the deletion is.
    api.wait_until("listed", |api| {
        api.get("persistentvolumeclaims", "ns/restored").is_some()
    })
    .await;
    api.delete("volumegroupsnapshots", NS_GROUP);
    api.wait_until("told", |api| {
        api.event_reasons().contains(&"SnapshotDeletePending".to_string())
    })
    .await;
    api.change(
        "persistentvolumeclaims",
        "ns/restored",
        json!({"spec": {"volumeName": "pv9"}, "status": {"phase": "Bound"}}),
    );
    api.wait_until("nothing left", |api| {
        play_sidecar(api);
        is_empty(api)
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_static_group_gets_its_members() {
    let api = prepared();
    api.put(
        "volumegroupsnapshotcontents",
        static_content(
            &json!({"metadata": {"name": "k", "finalizers": null, "resourceVersion": null},
            "spec": {"volumeGroupSnapshotRef": {"uid": null}, "deletionPolicy": "Retain"}}),
        ),
    );
    api.put(
        "volumesnapshotcontents",
        json!({"metadata": {"name": "k1"}, "spec": {"deletionPolicy": "Retain", "driver": "d",
            "source": {"snapshotHandle": "s1"}, "volumeSnapshotRef": {"namespace": "ns", "name": "m1"}},
            "status": {"snapshotHandle": "s1", "readyToUse": true, "creationTime": 5,
                "volumeGroupSnapshotHandle": "g1"}}),
    );
    api.put(
        "volumesnapshots",
        json!({"metadata": {"namespace": "ns", "name": "m1", "uid": "mu1"},
            "spec": {"source": {"volumeSnapshotContentName": "k1"}}}),
    );
    let running = start(&api);
    api.wait_until("the member is ready before the group is known", |api| {
        api.get("volumesnapshots", "ns/m1").unwrap()["status"]["readyToUse"] == true
    })
    .await;
    api.put(
        "volumegroupsnapshots",
        group_json(
            &json!({"metadata": {"finalizers": null, "resourceVersion": null}, "spec": {
            "source": {"selector": null, "volumeGroupSnapshotContentName": "k"},
            "volumeGroupSnapshotClassName": null}}),
        ),
    );
    api.wait_until("bound both ways", |api| {
        let content = api.get("volumegroupsnapshotcontents", "/k").unwrap();
        content["spec"]["volumeGroupSnapshotRef"]["uid"] == "gu"
    })
    .await;
    let found = json!({"status": {"volumeGroupSnapshotHandle": "g1", "readyToUse": true,
        "creationTime": "2026-01-01T00:00:00Z"}});
    api.change("volumegroupsnapshotcontents", "/k", found);
    api.wait_until("ready, and the member joined", |api| {
        let member = api.get("volumesnapshots", "ns/m1").unwrap();
        let group = api.get("volumegroupsnapshots", NS_GROUP).unwrap();
        group["status"]["readyToUse"] == true
            && member["status"]["volumeGroupSnapshotName"] == "g"
            && member["metadata"]["ownerReferences"][0]["uid"] == "gu"
    })
    .await;
    api.delete("volumegroupsnapshots", NS_GROUP);
    api.wait_until("group and member gone, contents kept", |api| {
        api.list("volumegroupsnapshots").is_empty()
            && api.list("volumesnapshots").is_empty()
            && api.list("volumegroupsnapshotcontents").len() == 1
            && api.list("volumesnapshotcontents").len() == 1
    })
    .await;
    running.stop().await;
}

/// Kills the controller at its `number`th write; whether it came that far. Another one finishes its work.
async fn kill_at(number: usize, is_done: bool) -> bool {
    let api = prepared();
    let first = start(&api);
    api.die_at(number, is_done);
    wish(&api);
    api.wait_until("dead, or whole", |api| {
        play_sidecar(api);
        api.is_dead() || is_whole(api)
    })
    .await;
    if !api.is_dead() {
        api.delete("volumegroupsnapshots", NS_GROUP);
        api.wait_until("dead, or nothing left", |api| {
            play_sidecar(api);
            api.is_dead() || is_empty(api)
        })
        .await;
    }
    let has_died = api.is_dead();
    first.kill();
    api.live();
    let second = start(&api);
    let is_living = api
        .get("volumegroupsnapshots", NS_GROUP)
        .is_some_and(|group| group["metadata"]["deletionTimestamp"].is_null());
    if is_living {
        api.wait_until("whole after all", |api| {
            play_sidecar(api);
            is_whole(api)
        })
        .await;
        assert_eq!(api.list("volumesnapshotcontents").len(), 2, "write {number}");
        api.delete("volumegroupsnapshots", NS_GROUP);
    }
    api.wait_until("nothing left", |api| {
        play_sidecar(api);
        is_empty(api)
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
    // Finalizer, two claims held, content, status; per member snapshot, content, status, status; status, two claims freed,
    // mark, deletion, two members deleted, finalizer; per member mark, deletion, finalizers.
    assert!(deaths >= 2 * 20, "{deaths} deaths");
}

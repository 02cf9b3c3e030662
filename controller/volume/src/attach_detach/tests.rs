//! The whole controller over an API server; the test plays kubelet, attacher and scheduler.

use moorline_model::{keys, names};
use serde_json::{Value, json};

use super::*;
use crate::testing::api::TestApi;
use crate::testing::merge;
use crate::testing::running::Running;

fn start(api: &TestApi) -> Running {
    Running::start(api, |informers, stop| run(Config::default(), informers, stop))
}

fn node(api: &TestApi, name: &str) {
    let metadata = json!({"name": name, "annotations": {keys::CONTROLLER_MANAGED_ATTACH: "true"}});
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    api.put(
        "nodes",
        json!({"metadata": metadata, "status": {"conditions": conditions}}),
    );
}

/// The PV `name` with its bound claim of the same name.
fn volume(api: &TestApi, name: &str, driver: &str, mode: &str) {
    let uid = format!("claim-{name}");
    let reference = json!({"namespace": "ns", "name": name, "uid": uid});
    let spec = json!({
        "accessModes": [mode], "capacity": {"storage": "1Gi"}, "claimRef": reference,
        "csi": {"driver": driver, "volumeHandle": format!("handle-{name}")},
    });
    api.put(
        "persistentvolumes",
        json!({"metadata": {"name": name}, "spec": spec, "status": {"phase": "Bound"}}),
    );
    api.put(
        "persistentvolumeclaims",
        json!({
            "metadata": {"namespace": "ns", "name": name, "uid": uid},
            "spec": {"volumeName": name}, "status": {"phase": "Bound"},
        }),
    );
}

fn pod(api: &TestApi, name: &str, node: &str, claim: &str) {
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    api.put(
        "pods",
        json!({
            "metadata": {"namespace": "ns", "name": name},
            "spec": {"containers": [], "nodeName": node, "volumes": volumes},
            "status": {"phase": "Running"},
        }),
    );
}

fn attachment_key(pv: &str, node: &str) -> String {
    format!(
        "/{}",
        names::volume_attachment_name(&format!("handle-{pv}"), "d", node)
    )
}

fn unique(pv: &str) -> String {
    names::unique_volume_name("d", &format!("handle-{pv}"))
}

fn is_reported(api: &TestApi, node: &str, pv: &str) -> bool {
    let node = api.get("nodes", &format!("/{node}")).unwrap();
    let listed = node["status"]["volumesAttached"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    listed.iter().any(|volume| volume["name"] == json!(unique(pv)))
}

fn set_in_use(api: &TestApi, node: &str, pvs: &[&str]) {
    let names: Vec<String> = pvs.iter().map(|pv| unique(pv)).collect();
    api.change(
        "nodes",
        &format!("/{node}"),
        json!({"status": {"volumesInUse": names}}),
    );
}

/// The attacher: says that it is attached, and holds the object until it has detached.
fn attach(api: &TestApi, key: &str) {
    let mut change = json!({"metadata": {"finalizers": ["external-attacher/d"]}});
    merge(&mut change, &json!({"status": {"attached": true}}));
    api.change("volumeattachments", key, change);
}

async fn wait_attached(api: &TestApi, pv: &str, node: &str) {
    let key = attachment_key(pv, node);
    api.wait_until("asked", |api| api.get("volumeattachments", &key).is_some())
        .await;
    attach(api, &key);
    api.wait_until("reported", |api| is_reported(api, node, pv)).await;
}

fn is_deleting(api: &TestApi, key: &str) -> bool {
    let attachment = api.get("volumeattachments", key);
    attachment.is_some_and(|attachment| !attachment["metadata"]["deletionTimestamp"].is_null())
}

#[tokio::test]
async fn volume_is_attached_reported_withdrawn_and_detached_in_this_order() {
    let api = TestApi::new();
    node(&api, "n1");
    volume(&api, "pv1", "d", "ReadWriteOnce");
    let running = start(&api);
    pod(&api, "web", "n1", "pv1");
    wait_attached(&api, "pv1", "n1").await;
    api.wait_until("told", |api| api.event_reasons() == ["SuccessfulAttachVolume"])
        .await;
    let key = attachment_key("pv1", "n1");
    let made = api.get("volumeattachments", &key).unwrap();
    let expected: Value =
        json!({"attacher": "d", "nodeName": "n1", "source": {"persistentVolumeName": "pv1"}});
    assert_eq!(made["spec"], expected);

    set_in_use(&api, "n1", &["pv1"]);
    api.delete("pods", "ns/web");
    // The node still uses it; a second volume shows that the controller has seen the deletion.
    volume(&api, "pv2", "d", "ReadWriteOnce");
    pod(&api, "other", "n1", "pv2");
    wait_attached(&api, "pv2", "n1").await;
    assert!(is_reported(&api, "n1", "pv1"));
    assert!(!is_deleting(&api, &key));

    api.take_writes();
    set_in_use(&api, "n1", &[]);
    api.wait_until("deleting", |api| is_deleting(api, &key)).await;
    let writes = api.take_writes();
    assert_eq!(
        writes,
        [
            "PATCH nodes/n1/status".to_string(),
            format!("DELETE volumeattachments{key}")
        ]
    );
    assert!(!is_reported(&api, "n1", "pv1") && is_reported(&api, "n1", "pv2"));
    api.delete_now("volumeattachments", &key);
    running.stop().await;
}

#[tokio::test]
async fn volume_for_one_node_waits_until_the_other_has_let_go() {
    let api = TestApi::new();
    node(&api, "n1");
    node(&api, "n2");
    volume(&api, "pv1", "d", "ReadWriteOnce");
    let running = start(&api);
    pod(&api, "first", "n1", "pv1");
    wait_attached(&api, "pv1", "n1").await;
    pod(&api, "second", "n2", "pv1");
    api.wait_until("told", |api| {
        api.event_reasons() == ["FailedAttachVolume", "SuccessfulAttachVolume"]
    })
    .await;
    let (there, here) = (attachment_key("pv1", "n1"), attachment_key("pv1", "n2"));
    assert!(api.get("volumeattachments", &here).is_none());
    api.delete("pods", "ns/first");
    api.wait_until("deleting", |api| is_deleting(api, &there)).await;
    assert!(
        api.get("volumeattachments", &here).is_none(),
        "not before it is detached"
    );
    api.delete_now("volumeattachments", &there);
    wait_attached(&api, "pv1", "n2").await;
    running.stop().await;
}

#[tokio::test]
async fn volume_for_many_nodes_is_attached_to_all() {
    let api = TestApi::new();
    volume(&api, "pv1", "d", "ReadWriteMany");
    for name in ["n1", "n2"] {
        node(&api, name);
        pod(&api, name, name, "pv1");
    }
    let running = start(&api);
    wait_attached(&api, "pv1", "n1").await;
    wait_attached(&api, "pv1", "n2").await;
    running.stop().await;
}

#[tokio::test]
async fn drivers_that_need_no_attaching_get_none() {
    let api = TestApi::new();
    node(&api, "n1");
    api.put(
        "csidrivers",
        json!({"metadata": {"name": "local"}, "spec": {"attachRequired": false}}),
    );
    volume(&api, "easy", "local", "ReadWriteOnce");
    volume(&api, "pv1", "d", "ReadWriteOnce");
    let running = start(&api);
    pod(&api, "easy", "n1", "easy");
    pod(&api, "web", "n1", "pv1");
    wait_attached(&api, "pv1", "n1").await;
    let api = running.stop().await;
    assert_eq!(api.list("volumeattachments").len(), 1);
}

#[tokio::test]
async fn attachers_errors_reach_the_pod() {
    let api = TestApi::new();
    node(&api, "n1");
    volume(&api, "pv1", "d", "ReadWriteOnce");
    let running = start(&api);
    pod(&api, "web", "n1", "pv1");
    let key = attachment_key("pv1", "n1");
    api.wait_until("asked", |api| api.get("volumeattachments", &key).is_some())
        .await;
    let error = json!({"status": {"attached": false, "attachError": {"message": "no such disk"}}});
    api.change("volumeattachments", &key, error);
    api.wait_until("told", |api| api.event_reasons() == ["FailedAttachVolume"])
        .await;
    let api = running.stop().await;
    assert!(
        api.list("events")[0]["message"]
            .as_str()
            .unwrap()
            .contains("no such disk")
    );
}

#[tokio::test]
async fn a_restart_finds_everything_and_writes_nothing() {
    let api = TestApi::new();
    node(&api, "n1");
    volume(&api, "pv1", "d", "ReadWriteOnce");
    pod(&api, "web", "n1", "pv1");
    let running = start(&api);
    wait_attached(&api, "pv1", "n1").await;
    set_in_use(&api, "n1", &["pv1"]);
    let api = running.stop().await;
    api.take_writes();
    // Another volume shows when the second life has looked at everything.
    volume(&api, "pv2", "d", "ReadWriteOnce");
    pod(&api, "other", "n1", "pv2");
    let running = start(&api);
    wait_attached(&api, "pv2", "n1").await;
    let api = running.stop().await;
    let name = attachment_key("pv2", "n1");
    assert_eq!(
        api.take_writes(),
        [
            format!("POST volumeattachments{name}"),
            "PATCH nodes/n1/status".to_string()
        ]
    );
}

#[tokio::test]
async fn attachment_whose_pv_is_gone_is_cleaned_up() {
    let api = TestApi::new();
    node(&api, "n1");
    let key = attachment_key("pv1", "n1");
    let spec = json!({"attacher": "d", "nodeName": "n1", "source": {"persistentVolumeName": "pv1"}});
    api.put(
        "volumeattachments",
        json!({"metadata": {"name": key.trim_start_matches('/')}, "spec": spec, "status": {"attached": true}}),
    );
    set_in_use(&api, "n1", &["pv1"]);
    let running = start(&api);
    api.wait_until("reported, as it is in use", |api| is_reported(api, "n1", "pv1"))
        .await;
    set_in_use(&api, "n1", &[]);
    api.wait_until("gone", |api| api.list("volumeattachments").is_empty())
        .await;
    let api = running.stop().await;
    assert!(!is_reported(&api, "n1", "pv1"));
}

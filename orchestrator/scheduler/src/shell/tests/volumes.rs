//! Pods with volumes: the plan is written, waited for, and given up when others give up. The test plays provisioner
//! and binder.

use super::*;

fn class(mode: &str) -> Value {
    json!({"metadata": {"name": "late", "uid": "late"}, "provisioner": "p", "volumeBindingMode": mode})
}

fn claim(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"],
                 "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    })
}

fn pv(name: &str, node: &str, claim: Option<&str>) -> Value {
    json!({
        "metadata": {"name": name, "uid": name},
        "spec": {
            "storageClassName": "late", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "p", "volumeHandle": name},
            "claimRef": claim.map(|claim| json!({"namespace": "ns", "name": claim, "uid": claim})),
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "host", "operator": "In", "values": [node]}]}]}},
        },
        "status": {"phase": if claim.is_some() { "Bound" } else { "Available" }},
    })
}

fn selected_node(api: &Api, claim: &str) -> Option<String> {
    Some(
        api.get("persistentvolumeclaims", claim)?["metadata"]["annotations"][SELECTED_NODE]
            .as_str()?
            .to_owned(),
    )
}

/// Provisions and binds, as the provisioner and the binder do.
fn bind_claim(api: &Api, name: &str, pv_name: &str) {
    let mut bound = api.get("persistentvolumeclaims", name).unwrap();
    bound["spec"]["volumeName"] = pv_name.into();
    bound["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = "yes".into();
    bound["status"]["phase"] = "Bound".into();
    api.put("persistentvolumeclaims", bound);
}

fn late_cluster() -> Cluster {
    let api = Api::new();
    api.put("storageclasses", class("WaitForFirstConsumer"));
    Cluster::start_with(api)
}

#[tokio::test(start_paused = true)]
async fn the_first_consumer_selects_the_node_and_waits_while_others_go_on() {
    let cluster = late_cluster();
    cluster.api.put("persistentvolumeclaims", claim("data"));
    cluster.api.put("pods", pod("p", "1m", &["data"]));
    cluster
        .until("the node is selected", |api| {
            selected_node(api, "data").as_deref() == Some("n1")
        })
        .await;
    cluster.api.put("pods", pod("plain", "1m", &[]));
    cluster.until_bound("plain", "n1").await;
    cluster.quiet().await;
    assert_eq!(node_of(&cluster.api, "p"), None, "its volume does not exist yet");
    cluster.api.put("persistentvolumes", pv("v", "n1", Some("data")));
    bind_claim(&cluster.api, "data", "v");
    cluster.until_bound("p", "n1").await;
    assert_eq!(cluster.api.writes("persistentvolumeclaims").len(), 1);
    assert_eq!(cluster.api.events("FailedScheduling"), Vec::<String>::new());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_existing_volume_is_reserved_for_the_claim() {
    let cluster = late_cluster();
    cluster.api.put("persistentvolumes", pv("v", "n1", None));
    cluster.api.put("persistentvolumeclaims", claim("data"));
    cluster.api.put("pods", pod("p", "1m", &["data"]));
    cluster
        .until("the volume is reserved", |api| {
            let pv = api.get("persistentvolumes", "v").unwrap();
            pv["spec"]["claimRef"]["uid"] == "data"
                && pv["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"] == "yes"
        })
        .await;
    assert_eq!(selected_node(&cluster.api, "data"), None, "nothing is to be made");
    bind_claim(&cluster.api, "data", "v");
    cluster.until_bound("p", "n1").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_existing_volume_goes_to_one_of_two_pods() {
    let cluster = late_cluster();
    cluster.api.put("persistentvolumes", pv("v", "n1", None));
    for name in ["a", "b"] {
        cluster.api.put("persistentvolumeclaims", claim(name));
        cluster.api.put("pods", pod(name, "1m", &[name]));
    }
    cluster
        .until("one reserves, one provisions", |api| {
            let owner = api.get("persistentvolumes", "v").unwrap()["spec"]["claimRef"]["uid"].clone();
            ["a", "b"].iter().any(|name| owner == *name)
                && ["a", "b"]
                    .iter()
                    .any(|name| owner != *name && selected_node(api, name).is_some())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_provisioner_that_gives_the_node_back_leads_to_a_new_decision() {
    let cluster = late_cluster();
    cluster.api.put("persistentvolumeclaims", claim("data"));
    cluster.api.put("pods", pod("p", "1m", &["data"]));
    cluster
        .until("the node is selected", |api| selected_node(api, "data").is_some())
        .await;
    // No space on n1, says the provisioner; meanwhile n1 is closed and n2 there.
    let mut closed = node("n1", "1");
    closed["spec"] = json!({"unschedulable": true});
    cluster.api.put("nodes", closed);
    cluster.api.put("nodes", node("n2", "1"));
    let mut given_back = cluster.api.get("persistentvolumeclaims", "data").unwrap();
    given_back["metadata"]["annotations"] = json!({});
    cluster.api.put("persistentvolumeclaims", given_back);
    cluster
        .until_told(
            "p",
            "SchedulerError",
            "provisioning of persistentvolumeclaim \"data\"",
        )
        .await;
    cluster
        .until("n2 is selected", |api| {
            selected_node(api, "data").as_deref() == Some("n2")
        })
        .await;
    cluster.api.put("persistentvolumes", pv("v", "n2", Some("data")));
    bind_claim(&cluster.api, "data", "v");
    cluster.until_bound("p", "n2").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn volumes_that_take_too_long_are_told_and_waited_for_again() {
    let cluster = late_cluster();
    cluster.api.put("persistentvolumeclaims", claim("data"));
    cluster.api.put("pods", pod("p", "1m", &["data"]));
    cluster
        .until_told("p", "SchedulerError", "not bound within 600s")
        .await;
    cluster.api.put("persistentvolumes", pv("v", "n1", Some("data")));
    bind_claim(&cluster.api, "data", "v");
    cluster.until_bound("p", "n1").await;
    assert_eq!(
        cluster.api.writes("persistentvolumeclaims").len(),
        1,
        "the selection stands"
    );
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_it_waits_gives_its_room_back() {
    let cluster = late_cluster();
    cluster.api.put("persistentvolumeclaims", claim("data"));
    cluster.api.put("pods", pod("p", "800m", &["data"]));
    cluster
        .until("the node is selected", |api| selected_node(api, "data").is_some())
        .await;
    cluster.api.put("pods", pod("q", "800m", &[]));
    cluster.until_told("q", "Unschedulable", "Insufficient cpu").await;
    cluster.api.delete("pods", "p");
    cluster.until_bound("q", "n1").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_missing_claim() {
    let cluster = late_cluster();
    cluster.api.put("pods", pod("p", "1m", &["data"]));
    let message = "0/1 nodes are available: persistentvolumeclaim \"data\" not found.";
    cluster.until_told("p", "Unschedulable", message).await;
    cluster.api.put("persistentvolumeclaims", claim("data"));
    cluster
        .until("the node is selected", |api| selected_node(api, "data").is_some())
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_immediate_claim_is_waited_for() {
    let api = Api::new();
    api.put("storageclasses", class("Immediate"));
    let cluster = Cluster::start_with(api);
    cluster.api.put("persistentvolumeclaims", claim("data"));
    cluster.api.put("pods", pod("p", "1m", &["data"]));
    let message = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.";
    cluster.until_told("p", "Unschedulable", message).await;
    cluster.api.put("persistentvolumes", pv("v", "n1", Some("data")));
    bind_claim(&cluster.api, "data", "v");
    cluster.until_bound("p", "n1").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_another_node_keeps_the_pod_waiting() {
    let cluster = late_cluster();
    cluster.api.put("persistentvolumes", pv("v", "n2", Some("data")));
    cluster.api.put("persistentvolumeclaims", claim("data"));
    bind_claim(&cluster.api, "data", "v");
    cluster.api.put("pods", pod("p", "1m", &["data"]));
    let message = "0/1 nodes are available: 1 node(s) had volume node affinity conflict.";
    cluster.until_told("p", "Unschedulable", message).await;
    cluster.api.put("nodes", node("n2", "1"));
    cluster.until_bound("p", "n2").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_for_one_pod_is_free_when_that_pod_ends() {
    let cluster = late_cluster();
    let mut alone = claim("data");
    alone["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
    cluster.api.put("persistentvolumes", pv("v", "n1", Some("data")));
    cluster.api.put("persistentvolumeclaims", alone);
    bind_claim(&cluster.api, "data", "v");
    cluster.api.put("pods", pod("first", "1m", &["data"]));
    cluster.until_bound("first", "n1").await;
    cluster.api.put("pods", pod("second", "1m", &["data"]));
    cluster
        .until_told("second", "Unschedulable", "ReadWriteOncePod access mode")
        .await;
    let mut ended = cluster.api.get("pods", "first").unwrap();
    ended["status"]["phase"] = "Succeeded".into();
    cluster.api.put("pods", ended);
    cluster.until_bound("second", "n1").await;
    cluster.stop().await;
}

/// The process dies after it has selected the node; the next one goes on from what it finds.
#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_the_last_run_stopped() {
    let cluster = late_cluster();
    cluster.api.put("persistentvolumeclaims", claim("data"));
    cluster.api.put("pods", pod("p", "1m", &["data"]));
    cluster
        .until("the node is selected", |api| selected_node(api, "data").is_some())
        .await;
    let api = cluster.api.clone();
    cluster.stop().await;
    let cluster = Cluster::start_with(api);
    cluster.quiet().await;
    cluster.api.put("persistentvolumes", pv("v", "n1", Some("data")));
    bind_claim(&cluster.api, "data", "v");
    cluster.until_bound("p", "n1").await;
    assert_eq!(cluster.api.writes("persistentvolumeclaims").len(), 1);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_pods_wait_for_their_volumes_at_once() {
    let cluster = late_cluster();
    const PODS: usize = 300;
    for number in 0..PODS {
        let name = format!("p{number}");
        cluster.api.put("persistentvolumeclaims", claim(&name));
        cluster.api.put("pods", pod(&name, "1m", &[&name]));
    }
    let mut roomy = node("n1", "1");
    roomy["status"]["allocatable"]["pods"] = "1000".into();
    cluster.api.put("nodes", roomy);
    let all = |holds: &dyn Fn(String) -> bool| (0..PODS).all(|number| holds(format!("p{number}")));
    cluster
        .until("all have a node selected", |api| {
            all(&|name| selected_node(api, &name).is_some())
        })
        .await;
    for number in (0..PODS).rev() {
        let name = format!("p{number}");
        cluster
            .api
            .put("persistentvolumes", pv(&format!("v{number}"), "n1", Some(&name)));
        bind_claim(&cluster.api, &name, &format!("v{number}"));
    }
    cluster
        .until("all are bound", |api| all(&|name| node_of(api, &name).is_some()))
        .await;
    cluster.stop().await;
}

//! Pods without volumes: room, conflicts, restarts.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_and_the_user_told() {
    let cluster = Cluster::start();
    cluster.api.put("pods", pod("p", "500m", &[]));
    cluster.until_bound("p", "n1").await;
    cluster
        .until("the event", |api| !api.events("Scheduled").is_empty())
        .await;
    assert_eq!(
        cluster.api.events("Scheduled"),
        ["Successfully assigned ns/p to n1"]
    );
    cluster.quiet().await;
    assert_eq!(cluster.api.writes("binding").len(), 1);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_other_schedulers_gated_and_placed_ones_are_left_alone() {
    let cluster = Cluster::start();
    let mut other = pod("other", "1m", &[]);
    other["spec"]["schedulerName"] = "another".into();
    let mut gated = pod("gated", "1m", &[]);
    gated["spec"]["schedulingGates"] = json!([{"name": "wait"}]);
    let mut placed = pod("placed", "1m", &[]);
    placed["spec"]["nodeName"] = "n9".into();
    let mut finished = pod("finished", "1m", &[]);
    finished["status"]["phase"] = "Succeeded".into();
    for pod in [other, gated.clone(), placed, finished] {
        cluster.api.put("pods", pod);
    }
    cluster.quiet().await;
    assert_eq!(cluster.api.writes(""), Vec::<String>::new());
    gated["spec"]["schedulingGates"] = json!([]);
    cluster.api.put("pods", gated);
    cluster.until_bound("gated", "n1").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_is_never_overcommitted_and_freed_room_is_used() {
    let cluster = Cluster::start();
    for number in 0..10 {
        cluster.api.put("pods", pod(&format!("p{number}"), "400m", &[]));
    }
    let bound = |api: &Api| {
        let names: Vec<_> = (0..10).map(|number| format!("p{number}")).collect();
        names
            .into_iter()
            .filter(|name| node_of(api, name).is_some())
            .collect::<Vec<_>>()
    };
    cluster.until("two are bound", |api| bound(api).len() == 2).await;
    cluster.quiet().await;
    assert_eq!(bound(&cluster.api).len(), 2, "there is room for two");
    let waiting = (0..10)
        .map(|number| format!("p{number}"))
        .find(|name| node_of(&cluster.api, name).is_none());
    let message = "0/1 nodes are available: 1 Insufficient cpu.";
    cluster
        .until_told(&waiting.unwrap(), "Unschedulable", message)
        .await;
    for gone in bound(&cluster.api) {
        cluster.api.delete("pods", &gone);
    }
    cluster
        .until("two others are bound", |api| bound(api).len() == 2)
        .await;
    cluster.api.put("nodes", node("n2", "8"));
    cluster
        .until("all others are bound", |api| bound(api).len() == 8)
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_told_already_is_not_written_again() {
    let cluster = Cluster::start();
    cluster.api.put("pods", pod("p", "9", &[]));
    cluster.until_told("p", "Unschedulable", "Insufficient cpu").await;
    for version in 0..20 {
        let mut changed = node("n1", "1");
        changed["metadata"]["labels"]["version"] = version.to_string().into();
        cluster.api.put("nodes", changed);
        cluster.quiet().await;
    }
    assert_eq!(cluster.api.writes("pods/p/status").len(), 1);
    cluster.stop().await;
}

/// A cluster that was full before the scheduler started, with the list of pods still on its way.
#[tokio::test(start_paused = true)]
async fn nothing_is_decided_before_all_pods_are_known() {
    let api = Api::new();
    api.open_pods(false);
    let mut there = pod("there", "800m", &[]);
    there["spec"]["nodeName"] = "n1".into();
    api.put("pods", pod("a-new", "500m", &[]));
    api.put("pods", there);
    let cluster = Cluster::start_with(api);
    cluster.quiet().await;
    assert_eq!(cluster.api.writes(""), Vec::<String>::new());
    cluster.api.open_pods(true);
    cluster
        .until_told("a-new", "Unschedulable", "Insufficient cpu")
        .await;
    assert_eq!(node_of(&cluster.api, "a-new"), None);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_binding_is_tried_again_and_trouble_told() {
    let cluster = Cluster::start();
    cluster.api.refuse("pods/p/binding", 409);
    cluster.api.put("pods", pod("p", "800m", &[]));
    cluster.until_bound("p", "n1").await;
    assert_eq!(
        cluster.api.events("FailedScheduling"),
        Vec::<String>::new(),
        "a conflict is nobody's trouble"
    );
    cluster.api.delete("pods", "p");
    cluster.api.refuse("pods/q/binding", 500);
    cluster.api.put("pods", pod("q", "800m", &[]));
    cluster
        .until_told("q", "SchedulerError", "refused by the test")
        .await;
    cluster.until_bound("q", "n1").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_binding_gives_its_room_to_others() {
    let cluster = Cluster::start();
    for _ in 0..4 {
        cluster.api.refuse("pods/stuck/binding", 500);
    }
    cluster.api.put("pods", pod("stuck", "800m", &[]));
    cluster.until_told("stuck", "SchedulerError", "refused").await;
    cluster.api.put("pods", pod("other", "800m", &[]));
    cluster
        .until("one of them is bound", |api| {
            node_of(api, "other").is_some() || node_of(api, "stuck").is_some()
        })
        .await;
    cluster.stop().await;
}

//! The demo's story through stock kubectl, and again through kube-rs.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api,
    api::{DeleteParams, LogParams, Patch, PatchParams, PostParams},
    runtime::wait::{await_condition, conditions},
};
use moorline_e2e::{cluster::TestCluster, require_kubectl, require_node, wait};
use serde_json::json;

use crate::manifests::{and_stay, claim, class, examples, pod};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_claim_becomes_a_filesystem_in_a_pod_and_is_gone_after_deletion_with_kubectl() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--driver-backend", "loop", "--host-image"]);
    let kubectl = cluster.kubectl();
    let quickstart = examples().join("quickstart");
    let applied = kubectl.run(&["apply", "-f", quickstart.to_str().unwrap()]);
    assert!(
        applied.contains("storageclass.storage.k8s.io/quickstart created"),
        "{applied}"
    );
    kubectl.run(&["wait", "--for=condition=Ready", "pod/writer", "--timeout=60s"]);
    wait::until("the first pod's log", LIMIT, || {
        let log = kubectl.call(&["logs", "writer"]).stdout;
        if log.contains("wrote /data/greeting") {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert_eq!(kubectl.field("pvc", "data", "{.status.phase}"), "Bound");
    let again = kubectl.run(&["apply", "-f", quickstart.to_str().unwrap()]);
    assert!(again.lines().all(|line| line.ends_with("unchanged")), "{again}");

    kubectl.run(&["delete", "pod", "writer", "--wait", "--timeout=60s"]);
    let reader = examples().join("reader/pod.yaml");
    kubectl.run(&["apply", "-f", reader.to_str().unwrap()]);
    kubectl.run(&["wait", "--for=condition=Ready", "pod/reader", "--timeout=60s"]);
    wait::until("the second pod reads the first one's data", LIMIT, || {
        let log = kubectl.call(&["logs", "reader"]).stdout;
        if log.contains("read: hello from") {
            Ok(())
        } else {
            Err(log)
        }
    });

    kubectl.run(&["delete", "pod", "reader", "--wait", "--timeout=60s"]);
    kubectl.run(&["delete", "pvc", "data", "--wait", "--timeout=60s"]);
    wait::until("the volume to be gone", LIMIT, || {
        let left = kubectl.call(&["get", "pv", "-o", "name"]).stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    cluster.finish();
}

#[test]
fn a_claim_grows_under_the_running_pod_and_df_shows_it() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--driver-backend", "loop", "--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.run(&["apply", "-f", examples().join("quickstart").to_str().unwrap()]);
    let size = || {
        let log = kubectl.call(&["logs", "writer", "--tail=1"]).stdout;
        log.split_whitespace()
            .nth(1)
            .and_then(|size| size.parse::<u64>().ok())
            .ok_or(log)
    };
    let before = wait::until("df in the pod", LIMIT, size);
    let grow = r#"{"spec":{"resources":{"requests":{"storage":"128Mi"}}}}"#;
    kubectl.run(&["patch", "pvc", "data", "-p", grow]);
    kubectl.wait_field("pvc", "data", "{.status.capacity.storage}", "128Mi", LIMIT);
    wait::until("df to show the growth", LIMIT, || match size() {
        Ok(after) if after > before + 50_000 => Ok(()),
        other => Err(other),
    });
    let shrink = r#"{"spec":{"resources":{"requests":{"storage":"64Mi"}}}}"#;
    let refused = kubectl.call(&["patch", "pvc", "data", "-p", shrink]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    kubectl.run(&[
        "delete",
        "-f",
        examples().join("quickstart").to_str().unwrap(),
        "--timeout=60s",
    ]);
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_story_through_kube_rs() {
    require_node!();
    let cluster = TestCluster::start(&["--host-image"]);
    let client = cluster.client().await;
    let parameters = PostParams::default();
    let classes: Api<k8s_openapi::api::storage::v1::StorageClass> = Api::all(client.clone());
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pvs: Api<PersistentVolume> = Api::all(client.clone());
    let yaml = class("story", "WaitForFirstConsumer", "Delete");
    classes
        .create(&parameters, &serde_saphyr::from_str(&yaml).unwrap())
        .await
        .unwrap();
    let yaml = claim("data", "story", "ReadWriteOnce", "16Mi");
    claims
        .create(&parameters, &serde_saphyr::from_str(&yaml).unwrap())
        .await
        .unwrap();
    let yaml = pod("app", "data", &and_stay("echo kept > /data/file; cat /data/file"));
    pods.create(&parameters, &serde_saphyr::from_str(&yaml).unwrap())
        .await
        .unwrap();
    let running = await_condition(pods.clone(), "app", conditions::is_pod_running());
    tokio::time::timeout(LIMIT, running)
        .await
        .expect("the pod runs in time")
        .unwrap();
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let log = futures::AsyncBufReadExt::lines(pods.log_stream("app", &follow).await.unwrap());
    let first = tokio::time::timeout(LIMIT, log.boxed().try_next())
        .await
        .expect("a line in time")
        .unwrap();
    assert_eq!(first.as_deref(), Some("kept"));

    let label = json!({"metadata": {"labels": {"seen": "yes"}}});
    let patched = pods
        .patch("app", &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap();
    assert_eq!(patched.metadata.labels.unwrap()["seen"], "yes");
    let uid = patched.metadata.uid.unwrap();
    pods.delete("app", &DeleteParams::default()).await.unwrap();
    let gone = await_condition(pods.clone(), "app", conditions::is_deleted(&uid));
    tokio::time::timeout(LIMIT, gone)
        .await
        .expect("the pod goes in time")
        .unwrap();
    claims.delete("data", &DeleteParams::default()).await.unwrap();
    wait::until_async("the volume to be gone", LIMIT, || async {
        let left = pvs
            .list(&kube::api::ListParams::default())
            .await
            .map_err(|error| error.to_string())?
            .items;
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    cluster.finish();
}

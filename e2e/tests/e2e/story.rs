//! The demo's story through stock kubectl, and again through kube-rs.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api,
    api::{DeleteParams, LogParams, Patch, PatchParams, PostParams},
    runtime::wait::{await_condition, conditions},
};
use moorline_e2e::{cluster::TestCluster, machine, require, require_kubectl, require_node, wait};
use serde_json::json;

use crate::manifests::{and_stay, claim, class, examples, pod, together};

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
    // For the pod, kubectl sends the order of lists that the server added to; that changes nothing, but is told.
    assert!(again.contains("persistentvolumeclaim/data unchanged"), "{again}");
    assert!(
        again.contains("storageclass.storage.k8s.io/quickstart unchanged"),
        "{again}"
    );
    assert_eq!(
        kubectl.field("pod", "writer", "{.status.containerStatuses[0].restartCount}"),
        "0"
    );

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
    let Some(fs_type) = machine::filesystem_that_grows_mounted() else {
        require!(
            false,
            "ext4 may not grow while mounted here (no CAP_SYS_RESOURCE), and mkfs.xfs is missing"
        );
        return;
    };
    let cluster = TestCluster::start(&["--driver-backend", "loop", "--host-image"]);
    let kubectl = cluster.kubectl();
    let parameters = format!("parameters: {{csi.storage.k8s.io/fstype: {fs_type}}}");
    kubectl.apply_ok(&together(&[
        class("grows", "WaitForFirstConsumer", "Delete") + &parameters,
        claim("data", "grows", "ReadWriteOnce", "320Mi"),
        pod(
            "app",
            "data",
            &and_stay("while :; do df -P -k /data | tail -n 1; sleep 1; done"),
        ),
    ]));
    let size = || {
        let log = kubectl.call(&["logs", "app", "--tail=1"]).stdout;
        log.split_whitespace()
            .nth(1)
            .and_then(|size| size.parse::<u64>().ok())
            .ok_or(log)
    };
    let before = wait::until("df in the pod", LIMIT, size);
    let grow = r#"{"spec":{"resources":{"requests":{"storage":"640Mi"}}}}"#;
    kubectl.run(&["patch", "pvc", "data", "-p", grow]);
    kubectl.wait_field("pvc", "data", "{.status.capacity.storage}", "640Mi", LIMIT);
    wait::until("df to show the growth", LIMIT, || match size() {
        Ok(after) if after > before + 250_000 => Ok(()),
        other => Err(other),
    });
    let shrink = r#"{"spec":{"resources":{"requests":{"storage":"64Mi"}}}}"#;
    let refused = kubectl.call(&["patch", "pvc", "data", "-p", shrink]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    kubectl.run(&["delete", "pod/app", "pvc/data", "--timeout=60s"]);
    cluster.finish();
}

#[test]
fn a_claim_whose_filesystem_cannot_grow_mounted_grows_with_the_next_pod() {
    require_node!();
    require_kubectl!();
    require!(
        machine::filesystem_that_grows_mounted() != Some("ext4"),
        "ext4 grows while mounted here: a_claim_grows_under_the_running_pod_and_df_shows_it covers that"
    );
    let cluster = TestCluster::start(&["--driver-backend", "loop", "--host-image"]);
    let kubectl = cluster.kubectl();
    let show = "df -P -k /data | tail -n 1";
    kubectl.apply_ok(&together(&[
        class("grows", "WaitForFirstConsumer", "Delete"),
        claim("data", "grows", "ReadWriteOnce", "64Mi"),
        pod("first", "data", &and_stay(show)),
    ]));
    kubectl.wait_field("pod", "first", "{.status.phase}", "Running", LIMIT);
    let grow = r#"{"spec":{"resources":{"requests":{"storage":"128Mi"}}}}"#;
    kubectl.run(&["patch", "pvc", "data", "-p", grow]);
    let why = kubectl.wait_event("data", "VolumeResizeFailed", LIMIT);
    assert!(why.contains("CAP_SYS_RESOURCE"), "{why}");
    kubectl.run(&["delete", "pod", "first", "--timeout=60s"]);
    kubectl.apply_ok(&pod("second", "data", &and_stay(show)));
    kubectl.wait_field("pvc", "data", "{.status.capacity.storage}", "128Mi", LIMIT);
    let size = wait::until("df in the second pod", LIMIT, || {
        let log = kubectl.call(&["logs", "second"]).stdout;
        log.split_whitespace()
            .nth(1)
            .and_then(|size| size.parse::<u64>().ok())
            .ok_or(log)
    });
    assert!(size > 100_000, "{size} KiB");
    kubectl.run(&["delete", "pod/second", "pvc/data", "--timeout=60s"]);
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

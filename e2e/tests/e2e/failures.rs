//! Failure as designed: each ends in a clear event or condition, and resumes by itself when the cause is gone.

use std::time::Duration;

use moorline_e2e::{cluster::TestCluster, require_kubectl, require_node, wait};

use crate::manifests::{and_stay, claim, class, pod, together};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_wrong_manifest_is_refused_with_the_field_at_fault() {
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    let kubectl = cluster.kubectl();
    let good = claim("data", "any", "ReadWriteOnce", "1Mi");
    for (manifest, says) in [
        (good.replace("accessModes", "accesModes"), "accesModes"),
        (good.replace("1Mi", "-1Mi"), "spec.resources"),
        (
            good.replace("ReadWriteOnce", "ReadWriteNever"),
            "spec.accessModes",
        ),
        (good.replace("name: data", "name: Data!"), "metadata.name"),
        (good.replace("[ReadWriteOnce]", "ReadWriteOnce"), "accessModes"),
    ] {
        let refused = kubectl.apply(&manifest);
        assert_eq!(refused.code, Some(1), "{manifest}{}", refused.stdout);
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
    assert_eq!(kubectl.run(&["get", "pvc", "-o", "name"]), "");
}

#[test]
fn a_claim_of_an_unknown_class_waits_and_goes_on_once_the_class_is_there() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(&claim("data", "later", "ReadWriteOnce", "1Mi"));
    let why = kubectl.wait_event("data", "ProvisioningFailed", LIMIT);
    assert!(why.contains("later"), "{why}");
    kubectl.apply_ok(&class("later", "Immediate", "Delete"));
    kubectl.wait_field("pvc", "data", "{.status.phase}", "Bound", LIMIT);
    kubectl.run(&["delete", "pvc", "data", "--timeout=60s"]);
    cluster.finish();
}

#[test]
fn a_claim_larger_than_the_pool_says_so_and_others_go_on() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(&together(&[
        class("now", "Immediate", "Delete"),
        claim("huge", "now", "ReadWriteOnce", "8Ei").replace("8Ei", "7Ei"),
        claim("fits", "now", "ReadWriteOnce", "1Mi"),
    ]));
    let why = kubectl.wait_event("huge", "ProvisioningFailed", LIMIT);
    assert!(
        why.contains("ResourceExhausted") || why.contains("OutOfRange"),
        "{why}"
    );
    kubectl.wait_field("pvc", "fits", "{.status.phase}", "Bound", LIMIT);
    assert_eq!(kubectl.field("pvc", "huge", "{.status.phase}"), "Pending");
    kubectl.run(&["delete", "pvc", "--all", "--timeout=60s"]);
    cluster.finish();
}

#[test]
fn a_pod_with_an_unknown_image_waits_and_says_what_to_do() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&[]);
    let kubectl = cluster.kubectl();
    kubectl.run(&["run", "app", "--image=example.test/none:1"]);
    let reason = "{.status.containerStatuses[0].state.waiting.reason}";
    wait::until("the pod to wait for its image", LIMIT, || {
        let seen = kubectl.field("pod", "app", reason);
        if ["ErrImagePull", "ImagePullBackOff"].contains(&seen.as_str()) {
            Ok(())
        } else {
            Err(seen)
        }
    });
    let why = kubectl.wait_event("app", "Failed", LIMIT);
    assert!(why.contains("moorline image load"), "{why}");
    kubectl.run(&["delete", "pod", "app", "--timeout=60s"]);
    cluster.finish();
}

#[test]
fn pods_keep_running_over_a_restart_of_the_node_and_a_pod_deleted_meanwhile_goes() {
    require_node!();
    require_kubectl!();
    let mut cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(&together(&[
        class("node", "WaitForFirstConsumer", "Delete"),
        claim("data", "node", "ReadWriteOnce", "1Mi"),
        pod(
            "app",
            "data",
            &and_stay("echo $$ > /data/pid; date +%s%N > /data/started; cat /data/started"),
        ),
    ]));
    kubectl.wait_field("pod", "app", "{.status.phase}", "Running", LIMIT);
    let started = wait::until("the log", LIMIT, || {
        let log = kubectl.run(&["logs", "app"]);
        if log.is_empty() { Err(log) } else { Ok(log) }
    });
    cluster.stop();
    cluster.up();
    kubectl.wait_field("pod", "app", "{.status.phase}", "Running", LIMIT);
    assert_eq!(
        kubectl.run(&["logs", "app"]),
        started,
        "the container is the same one"
    );
    assert_eq!(
        kubectl.field("pod", "app", "{.status.containerStatuses[0].restartCount}"),
        "0"
    );
    cluster.kill_9();
    cluster.up();
    assert_eq!(
        kubectl.run(&["logs", "app"]),
        started,
        "the container is the same one"
    );
    kubectl.run(&["delete", "pod/app", "pvc/data", "--timeout=60s"]);
    cluster.finish();
}

#[test]
fn a_container_that_fails_is_restarted_with_back_off() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(
        "
apiVersion: v1
kind: Pod
metadata: {name: fails}
spec:
  containers:
    - {name: app, image: moorline.local/host, command: [/bin/sh, -c, 'echo once; exit 3']}
",
    );
    wait::until("the pod to back off", LIMIT, || {
        let path = "{.status.containerStatuses[0].state.waiting.reason} {.status.containerStatuses[0].lastState.terminated.exitCode}";
        let seen = kubectl.field("pod", "fails", path);
        if seen == "CrashLoopBackOff 3" {
            Ok(())
        } else {
            Err(seen)
        }
    });
    assert_eq!(kubectl.run(&["logs", "fails", "--previous"]), "once");
    kubectl.run(&["delete", "pod", "fails", "--timeout=60s"]);
    cluster.finish();
}

//! Snapshots, restores and clones, as users see them through kubectl.

use std::time::Duration;

use moorline_e2e::{cluster::TestCluster, kubectl::Kubectl, require_kubectl, require_node, wait};

use crate::manifests::{claim, class, pod, together};

const LIMIT: Duration = Duration::from_secs(90);

/// A snapshot of a claim.
pub(crate) fn snapshot(name: &str, class: &str, claim: &str) -> String {
    format!(
        "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {{name: {name}}}
spec:
  volumeSnapshotClassName: {class}
  source: {{persistentVolumeClaimName: {claim}}}
"
    )
}

/// A claim whose volume is filled from something.
fn filled(name: &str, source: &str) -> String {
    claim(name, "now", "ReadWriteOnce", "8Mi").replace("spec:", &format!("spec:\n  dataSource: {{{source}}}"))
}

/// A claim that is filled from a snapshot.
pub(crate) fn restored(name: &str, snapshot: &str) -> String {
    filled(
        name,
        &format!("apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: {snapshot}"),
    )
}

/// Runs a pod to its end; what it wrote.
pub(crate) fn run_pod(kubectl: &Kubectl, name: &str, claim: &str, script: &str) -> String {
    kubectl.apply_ok(&pod(name, claim, script));
    kubectl.wait_field("pod", name, "{.status.phase}", "Succeeded", LIMIT);
    let log = kubectl.run(&["logs", name]);
    kubectl.run(&["delete", "pod", name, "--timeout=60s"]);
    log
}

/// Waits until the snapshot can be restored.
pub(crate) fn wait_ready(kubectl: &Kubectl, name: &str) {
    kubectl.wait_field("volumesnapshot", name, "{.status.readyToUse}", "true", LIMIT);
}

/// Waits until no object of the kind is left.
pub(crate) fn wait_none(kubectl: &Kubectl, resource: &str) {
    wait::until(&format!("no {resource} to be left"), LIMIT, || {
        let left = kubectl.call(&["get", resource, "-A", "-o", "name"]).stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn a_snapshot_gives_back_the_old_data_and_a_clone_has_the_new() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(&together(&[
        class("now", "Immediate", "Delete"),
        claim("data", "now", "ReadWriteOnce", "8Mi"),
    ]));
    run_pod(&kubectl, "writer", "data", "echo old > /data/file && sync");
    // The restore is asked for first: it waits, says why, and goes on by itself.
    kubectl.apply_ok(&restored("restored", "snap"));
    let why = kubectl.wait_event("restored", "ProvisioningFailed", LIMIT);
    assert!(why.contains("doesn't exist"), "{why}");
    let unnamed = snapshot("snap", "x", "data").replace("  volumeSnapshotClassName: x\n", "");
    kubectl.apply_ok(&unnamed);
    wait_ready(&kubectl, "snap");
    let class_name = kubectl.field("volumesnapshot", "snap", "{.spec.volumeSnapshotClassName}");
    assert_eq!(class_name, "moorline-local", "the driver's default class");
    assert_eq!(
        kubectl.field("volumesnapshot", "snap", "{.status.restoreSize}"),
        "8Mi"
    );
    kubectl.wait_event("snap", "SnapshotReady", LIMIT);
    run_pod(&kubectl, "changer", "data", "echo new > /data/file && sync");
    kubectl.apply_ok(&filled("cloned", "kind: PersistentVolumeClaim, name: data"));
    for (name, expected) in [("restored", "old"), ("cloned", "new")] {
        kubectl.wait_field("pvc", name, "{.status.phase}", "Bound", LIMIT);
        assert_eq!(
            run_pod(&kubectl, "reader", name, "cat /data/file"),
            expected,
            "{name}"
        );
    }
    wait::until("the sources to be released", LIMIT, || {
        let finalizers = [
            kubectl.field("volumesnapshot", "snap", "{.metadata.finalizers}"),
            kubectl.field("pvc", "data", "{.metadata.finalizers}"),
        ];
        let all = finalizers.join(" ");
        if all.contains("provisioner.storage.kubernetes.io") || all.contains("pvc-as-source-protection") {
            Err(all)
        } else {
            Ok(())
        }
    });
    // The source may go before what was made of it.
    kubectl.run(&["delete", "pvc", "data", "--timeout=60s"]);
    assert_eq!(run_pod(&kubectl, "reader", "restored", "cat /data/file"), "old");
    kubectl.run(&["delete", "volumesnapshot", "snap", "--timeout=60s"]);
    kubectl.run(&["delete", "pvc", "restored", "cloned", "--timeout=60s"]);
    wait_none(&kubectl, "volumesnapshotcontents");
    wait_none(&kubectl, "pv");
    cluster.finish();
}

#[test]
fn a_retained_snapshot_outlives_its_object_and_comes_back() {
    require_node!();
    require_kubectl!();
    let mut cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(&together(&[
        class("now", "Immediate", "Delete"),
        claim("data", "now", "ReadWriteOnce", "8Mi"),
        "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {name: keep}
driver: local.csi.moorline.dev
deletionPolicy: Retain
"
        .to_owned(),
    ]));
    let both =
        snapshot("bad", "keep", "data").replace("source: {", "source: {volumeSnapshotContentName: x, ");
    let refused = kubectl.apply(&both);
    assert!(refused.stderr.contains("exactly one of"), "{}", refused.stderr);
    run_pod(&kubectl, "writer", "data", "echo precious > /data/file && sync");
    kubectl.apply_ok(&snapshot("first", "keep", "data"));
    // Killed in mid-work, it goes on at the next start.
    cluster.kill_9();
    cluster.up();
    let kubectl = cluster.kubectl();
    wait_ready(&kubectl, "first");
    let content = kubectl.field(
        "volumesnapshot",
        "first",
        "{.status.boundVolumeSnapshotContentName}",
    );
    let handle = kubectl.field("volumesnapshotcontent", &content, "{.status.snapshotHandle}");
    kubectl.run(&["delete", "volumesnapshot/first", "pvc/data", "--timeout=60s"]);
    kubectl.run(&["delete", "volumesnapshotcontent", &content, "--timeout=60s"]);
    wait_none(&kubectl, "pv");
    kubectl.apply_ok(&format!(
        "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotContent
metadata: {{name: found}}
spec:
  driver: local.csi.moorline.dev
  deletionPolicy: Delete
  source: {{snapshotHandle: {handle:?}}}
  volumeSnapshotRef: {{namespace: default, name: again}}
---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {{name: again}}
spec:
  source: {{volumeSnapshotContentName: found}}
"
    ));
    wait_ready(&kubectl, "again");
    kubectl.apply_ok(&restored("back", "again"));
    assert_eq!(run_pod(&kubectl, "reader", "back", "cat /data/file"), "precious");
    kubectl.run(&["delete", "volumesnapshot/again", "pvc/back", "--timeout=60s"]);
    wait_none(&kubectl, "volumesnapshotcontents");
    wait_none(&kubectl, "pv");
    cluster.finish();
}

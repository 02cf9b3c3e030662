//! VolumeAttributesClasses, as users see them through kubectl: a volume changes while a pod uses it.

use std::time::Duration;

use moorline_e2e::{cluster::TestCluster, kubectl::Kubectl, require_kubectl, require_node, wait};
use serde_json::json;

use crate::{
    manifests::{and_stay, claim, class, pod, together},
    snapshots::wait_none,
};

const LIMIT: Duration = Duration::from_secs(90);

fn attributes(name: &str, parameter: &str) -> String {
    format!(
        "
apiVersion: storage.k8s.io/v1
kind: VolumeAttributesClass
metadata: {{name: {name}}}
driverName: local.csi.moorline.dev
parameters: {{{parameter}}}
"
    )
}

fn wish(kubectl: &Kubectl, class: &str) {
    let patch = json!({"spec": {"volumeAttributesClassName": class}}).to_string();
    kubectl.run(&["patch", "pvc", "data", "-p", &patch]);
}

/// Waits until the claim has the class, and nothing of the way there is left on it.
fn wait_current(kubectl: &Kubectl, class: &str) {
    let path = "{.status.currentVolumeAttributesClassName}/{.status.modifyVolumeStatus}/{.status.conditions}";
    kubectl.wait_field("pvc", "data", path, &format!("{class}//"), LIMIT);
    let pv = kubectl.field("pvc", "data", "{.spec.volumeName}");
    let of_pv = kubectl.field("pv", &pv, "{.spec.volumeAttributesClassName}");
    assert_eq!(of_pv, class);
}

/// Waits until the volume's filesystem is mounted with, or without, discard.
fn wait_discard(cluster: &TestCluster, is_on: bool) {
    wait::until(&format!("discard to be {is_on}"), LIMIT, || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let state = cluster.state();
        let ours: Vec<&str> = mounts
            .lines()
            .filter(|line| line.contains(state.to_str().unwrap()) && line.contains("/dev/loop"))
            .collect();
        let has_discard = |line: &&str| {
            line.rsplit(' ')
                .next()
                .unwrap()
                .split(',')
                .any(|option| option == "discard")
        };
        if !ours.is_empty() && ours.iter().all(|line| has_discard(line) == is_on) {
            Ok(())
        } else {
            Err(ours.join("\n"))
        }
    });
}

#[test]
fn a_volume_changes_its_class_while_a_pod_uses_it() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--host-image", "--driver-backend", "loop"]);
    let kubectl = cluster.kubectl();
    let data = claim("data", "now", "ReadWriteOnce", "32Mi")
        .replace("spec:", "spec:\n  volumeAttributesClassName: keep");
    kubectl.apply_ok(&together(&[
        class("now", "Immediate", "Delete"),
        attributes("keep", "discard: 'false'"),
        attributes("trim", "discard: 'true'"),
        attributes("wrong", "colour: blue"),
        data,
        pod("app", "data", &and_stay("echo here > /data/file")),
    ]));
    kubectl.wait_field("pod", "app", "{.status.phase}", "Running", LIMIT);
    wait_current(&kubectl, "keep");
    wait_discard(&cluster, false);

    wish(&kubectl, "trim");
    wait_current(&kubectl, "trim");
    wait_discard(&cluster, true);
    kubectl.wait_event("data", "VolumeModifySuccessful", LIMIT);

    wish(&kubectl, "wrong");
    let record =
        "{.status.modifyVolumeStatus.status} {.status.modifyVolumeStatus.targetVolumeAttributesClassName}";
    kubectl.wait_field("pvc", "data", record, "Infeasible wrong", LIMIT);
    let why = kubectl.wait_event("data", "VolumeModifyFailed", LIMIT);
    assert!(why.contains("colour is unknown"), "{why}");
    let reason = "{.status.conditions[?(@.type==\"ModifyVolumeError\")].reason}";
    assert_eq!(kubectl.field("pvc", "data", reason), "InvalidArgument");
    wait_discard(&cluster, true);
    wish(&kubectl, "trim");
    wait_current(&kubectl, "trim");

    wish(&kubectl, "later");
    kubectl.wait_field(
        "pvc",
        "data",
        "{.status.modifyVolumeStatus.status}",
        "Pending",
        LIMIT,
    );
    kubectl.apply_ok(&attributes("later", "discard: 'false'"));
    wait_current(&kubectl, "later");
    wait_discard(&cluster, false);
    let restarts = "{.status.phase} {.status.containerStatuses[0].restartCount}";
    assert_eq!(kubectl.field("pod", "app", restarts), "Running 0");

    kubectl.run(&["delete", "pod/app", "pvc/data", "--timeout=90s"]);
    wait_none(&kubectl, "pv");
    cluster.finish();
}

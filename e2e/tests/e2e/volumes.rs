//! Kinds of volumes and policies: block, static, Retain, ReadWriteOncePod.

use std::time::Duration;

use moorline_e2e::{cluster::TestCluster, require_kubectl, require_node, wait};

use crate::manifests::{and_stay, claim, class, examples, pod, together};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_block_volume_is_a_device_in_the_pod() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--driver-backend", "loop", "--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.run(&[
        "apply",
        "-f",
        examples()
            .join("quickstart/1-storageclass.yaml")
            .to_str()
            .unwrap(),
    ]);
    let block = examples().join("block/block.yaml");
    kubectl.run(&["apply", "-f", block.to_str().unwrap()]);
    wait::until("the pod to read back from its device", LIMIT, || {
        let log = kubectl.call(&["logs", "raw"]);
        if log.stdout.contains("block-data") {
            Ok(())
        } else {
            Err((log, kubectl.call(&["describe", "pod", "raw"]).stdout))
        }
    });
    kubectl.run(&["delete", "-f", block.to_str().unwrap(), "--timeout=60s"]);
    wait::until("the volume to be gone", LIMIT, || {
        let left = kubectl.call(&["get", "pv", "-o", "name"]).stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    cluster.finish();
}

#[test]
fn a_static_volume_binds_to_the_claim_it_fits_and_is_kept_when_retained() {
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    let kubectl = cluster.kubectl();
    for (pv, size) in [("small", "1Gi"), ("fits", "5Gi"), ("large", "50Gi")] {
        kubectl.apply_ok(&format!(
            "
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {pv}}}
spec:
  capacity: {{storage: {size}}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: manual
  csi: {{driver: example.test, volumeHandle: {pv}}}
"
        ));
        kubectl.wait_field("pv", pv, "{.status.phase}", "Available", LIMIT);
    }
    kubectl.apply_ok(&claim("wants", "manual", "ReadWriteOnce", "4Gi"));
    kubectl.wait_field("pvc", "wants", "{.status.phase}", "Bound", LIMIT);
    assert_eq!(kubectl.field("pvc", "wants", "{.spec.volumeName}"), "fits");
    assert_eq!(kubectl.field("pvc", "wants", "{.status.capacity.storage}"), "5Gi");
    assert_eq!(kubectl.field("pv", "fits", "{.spec.claimRef.name}"), "wants");
    kubectl.run(&["delete", "pvc", "wants", "--timeout=30s"]);
    kubectl.wait_field("pv", "fits", "{.status.phase}", "Released", LIMIT);
    // A released volume is nobody's until an admin says so.
    kubectl.apply_ok(&claim("again", "manual", "ReadWriteOnce", "4Gi"));
    kubectl.wait_field("pvc", "again", "{.status.phase}", "Bound", LIMIT);
    assert_eq!(kubectl.field("pvc", "again", "{.spec.volumeName}"), "large");
}

#[test]
fn a_retained_volume_outlives_its_claim_with_its_data() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(&together(&[
        class("keep", "Immediate", "Retain"),
        claim("data", "keep", "ReadWriteOnce", "8Mi"),
        pod("app", "data", "echo precious > /data/file && sync"),
    ]));
    kubectl.wait_field("pod", "app", "{.status.phase}", "Succeeded", LIMIT);
    let pv = kubectl.field("pvc", "data", "{.spec.volumeName}");
    kubectl.run(&["delete", "pod/app", "pvc/data", "--timeout=60s"]);
    kubectl.wait_field("pv", &pv, "{.status.phase}", "Released", LIMIT);
    // The admin hands it to a new claim.
    kubectl.run(&["patch", "pv", &pv, "-p", r#"{"spec":{"claimRef":null}}"#]);
    kubectl.wait_field("pv", &pv, "{.status.phase}", "Available", LIMIT);
    kubectl.apply_ok(&together(&[
        claim("second", "keep", "ReadWriteOnce", "8Mi")
            .replace("spec:", &format!("spec:\n  volumeName: {pv}")),
        pod("reader", "second", "cat /data/file"),
    ]));
    kubectl.wait_field("pod", "reader", "{.status.phase}", "Succeeded", LIMIT);
    assert_eq!(kubectl.run(&["logs", "reader"]), "precious");
    kubectl.run(&["delete", "pod/reader", "pvc/second", "--timeout=60s"]);
    cluster.finish();
}

#[test]
fn a_second_pod_on_a_read_write_once_pod_claim_waits_until_the_first_is_gone() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    let stay = and_stay("true");
    kubectl.apply_ok(&together(&[
        class("once", "WaitForFirstConsumer", "Delete"),
        claim("data", "once", "ReadWriteOncePod", "8Mi"),
        pod("first", "data", &stay),
    ]));
    kubectl.wait_field("pod", "first", "{.status.phase}", "Running", LIMIT);
    kubectl.apply_ok(&pod("second", "data", &stay));
    let why = kubectl.wait_event("second", "FailedScheduling", LIMIT);
    assert!(why.contains("ReadWriteOncePod"), "{why}");
    assert_eq!(kubectl.field("pod", "second", "{.status.phase}"), "Pending");
    kubectl.run(&["delete", "pod", "first", "--timeout=60s"]);
    kubectl.wait_field("pod", "second", "{.status.phase}", "Running", LIMIT);
    kubectl.run(&["delete", "pod/second", "pvc/data", "--timeout=60s"]);
    cluster.finish();
}

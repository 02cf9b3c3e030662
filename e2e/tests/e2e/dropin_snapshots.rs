//! csi-snapshotter and snapshot-controller as programs of their own: under upstream's names and flags, with the roles of
//! their manifests.

use std::time::Duration;

use moorline_e2e::{
    cluster::TestCluster,
    process::{self, Part},
    require_kubectl, require_node, wait,
};
use nix::sys::signal::Signal;

use crate::{
    deploy::{Request, deploy},
    dropins::{
        NAMESPACE, Sidecar, check_requests_in, kubeconfig_of, link, start_alone, start_controller, wait_for,
    },
    group_snapshots::{group, labelled},
    interruptions::{CSI_DRIVER, DRIVER, driver_socket, start_driver},
    manifests::{claim, class, together},
    orphans::volumes,
    snapshots::{restored, run_pod, snapshot, wait_none, wait_ready},
};

const LIMIT: Duration = Duration::from_secs(90);
const SNAPSHOT_CLASS: &str = "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {name: local}
driver: local.csi.moorline.dev
deletionPolicy: Delete
";
const GROUP_CLASS: &str = "
apiVersion: groupsnapshot.storage.k8s.io/v1
kind: VolumeGroupSnapshotClass
metadata: {name: local}
driver: local.csi.moorline.dev
deletionPolicy: Delete
";

fn start_snapshot_controller(cluster: &TestCluster) -> Sidecar {
    let manifest = deploy().join("snapshot-controller/rbac.yaml");
    let kubectl = cluster.kubectl();
    kubectl.run(&["apply", "--server-side", "-f", manifest.to_str().unwrap()]);
    let kubeconfig = kubeconfig_of(cluster, "kube-system", "snapshot-controller");
    start_alone(
        cluster,
        "snapshot-controller",
        &[
            format!("--kubeconfig={}", kubeconfig.display()),
            "--leader-election".to_owned(),
            "--leader-election-namespace=kube-system".to_owned(),
            "--kube-api-qps=50".to_owned(),
        ],
    )
}

/// The volume controllers, without that of snapshots.
fn start_others(cluster: &TestCluster) -> Vec<Part> {
    let args = [
        "controllers".to_owned(),
        format!("--kubeconfig={}", cluster.kubeconfig().display()),
        "--leader-elect=false".to_owned(),
    ];
    let log = cluster.root().join("controllers.log");
    let controllers = Part::start_program(&process::binary(), &args, &[], &log);
    let socket = driver_socket(cluster);
    let args = [
        format!("--csi-address={}", socket.display()),
        format!("--kubelet-registration-path={}", socket.display()),
        format!(
            "--plugin-registration-path={}",
            cluster.state().join("kubelet/plugins_registry").display()
        ),
    ];
    let log = cluster.root().join("registrar.log");
    let registrar = Part::start_program(&link(cluster, "csi-node-driver-registrar"), &args, &[], &log);
    vec![controllers, registrar]
}

/// What only some classes, or a first or second replica, need.
fn is_occasional(request: &Request) -> bool {
    matches!(
        (request.resource.as_str(), request.verb.as_str()),
        ("secrets" | "nodes", _) | (_, "list") | ("events", "patch") | ("leases", "create" | "update")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_served_by_the_programs_of_external_snapshotters_names() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-driver", "--no-controllers", "--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "namespace", NAMESPACE]);
    let driver = start_driver(&cluster, &[]);
    let others = start_others(&cluster);
    let provisioner = start_controller(&cluster, "csi-provisioner");
    let snapshotter = start_controller(&cluster, "csi-snapshotter");
    let controller = start_snapshot_controller(&cluster);

    kubectl.apply_ok(&together(&[
        CSI_DRIVER.to_owned(),
        class("now", "Immediate", "Delete"),
        SNAPSHOT_CLASS.to_owned(),
        GROUP_CLASS.to_owned(),
        labelled(&claim("data", "now", "ReadWriteOnce", "8Mi"), "data"),
    ]));
    run_pod(&kubectl, "writer", "data", "echo old > /data/file && sync");
    kubectl.apply_ok(&snapshot("snap", "local", "data"));
    wait_ready(&kubectl, "snap");
    kubectl.wait_event("snap", "SnapshotReady", LIMIT);
    run_pod(&kubectl, "changer", "data", "echo new > /data/file && sync");
    kubectl.apply_ok(&restored("restored", "snap"));
    assert_eq!(run_pod(&kubectl, "reader", "restored", "cat /data/file"), "old");
    kubectl.apply_ok(&group("both", "local"));
    kubectl.wait_field(
        "volumegroupsnapshot",
        "both",
        "{.status.readyToUse}",
        "true",
        LIMIT,
    );
    kubectl.run(&["delete", "volumegroupsnapshot", "both", "--timeout=90s"]);
    wait_none(&kubectl, "volumegroupsnapshotcontents");
    let all = ["volumesnapshot/snap", "pvc/data", "pvc/restored"];
    kubectl.run(&[&["delete", "--timeout=90s"][..], &all].concat());
    wait_none(&kubectl, "volumesnapshotcontents");
    wait_none(&kubectl, "pv");
    wait::until_async("no volume to be left", LIMIT, || async {
        match volumes(&driver_socket(&cluster)).await? {
            none if none.is_empty() => Ok(()),
            some => Err(format!("{some:?}")),
        }
    })
    .await;

    let called = |method: &str| {
        format!(
            "csi_sidecar_operations_seconds_count{{driver_name=\"{DRIVER}\",method_name=\"/csi.v1.{method}\",grpc_status_code=\"OK\"}}"
        )
    };
    wait_for(
        &snapshotter.address,
        "/metrics",
        &[
            &called("Controller/CreateSnapshot"),
            &called("Controller/DeleteSnapshot"),
            &called("GroupController/CreateVolumeGroupSnapshot"),
            &called("GroupController/DeleteVolumeGroupSnapshot"),
            "workqueue_adds_total{name=\"csi-snapshotter-groupsnapshotcontent\"}",
            "workqueue_adds_total{name=\"csi-snapshotter-content\"}",
            "leader_election_master_status{name=\"external-snapshotter-leader-local-csi-moorline-dev\"} 1",
        ],
    );
    wait_for(
        &controller.address,
        "/metrics",
        &["leader_election_master_status{name=\"snapshot-controller-leader\"} 1"],
    );
    for sidecar in [&snapshotter, &controller] {
        wait_for(&sidecar.address, "/healthz", &["200 OK"]);
        wait_for(&sidecar.address, "/healthz/leader-election", &["200 OK"]);
    }
    // It speaks of trouble only, and reads again what somebody else has written meanwhile.
    let is_trouble = |request: &Request| {
        let of_trouble = [
            ("events", "create"),
            ("volumesnapshotcontents", "get"),
            ("volumegroupsnapshotcontents", "get"),
        ];
        is_occasional(request) || of_trouble.contains(&(&request.resource, &request.verb))
    };
    check_requests_in(&kubectl, NAMESPACE, &snapshotter, is_trouble);
    check_requests_in(&kubectl, "kube-system", &controller, is_occasional);
    for sidecar in [provisioner, snapshotter, controller] {
        sidecar.part.signal(Signal::SIGTERM);
        let log = std::fs::read_to_string(&sidecar.log).unwrap();
        assert_eq!(sidecar.part.wait_exit(LIMIT), Some(0), "{}: {log}", sidecar.name);
    }
    for (namespace, lease) in [
        (NAMESPACE, "external-snapshotter-leader-local-csi-moorline-dev"),
        ("kube-system", "snapshot-controller-leader"),
    ] {
        let holder = "jsonpath={.spec.holderIdentity}";
        let held = kubectl.run(&["-n", namespace, "get", "lease", lease, "-o", holder]);
        assert_eq!(held, "", "{lease} is given back");
    }
    for other in others {
        other.signal(Signal::SIGTERM);
        assert_eq!(other.wait_exit(LIMIT), Some(0));
    }
    driver.kill_9();
    cluster.finish();
}

#[test]
fn the_snapshot_controller_ends_where_there_are_no_snapshot_kinds() {
    let mut cluster = TestCluster::start(&[
        "--no-kubelet",
        "--no-driver",
        "--no-controllers",
        "--no-snapshots",
    ]);
    let kubeconfig = format!("--kubeconfig={}", cluster.kubeconfig().display());
    let args = [
        "sidecar",
        "snapshot-controller",
        &kubeconfig,
        "--retry-crd-interval-max=0s",
    ];
    let (code, _, stderr) = process::run(&args);
    assert_eq!(code, Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with(
            "error: the API server has had no VolumeSnapshot, VolumeSnapshotContent, VolumeSnapshotClass"
        ),
        "{stderr}"
    );
    cluster.stop();
}

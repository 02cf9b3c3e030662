//! csi-external-health-monitor-controller as a program of its own, with the role of its manifest.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_e2e::{cluster::TestCluster, require_kubectl, require_node};
use nix::sys::signal::Signal;

use crate::{
    deploy::Request,
    dropins::{NAMESPACE, check_requests_in, start_controller_with, wait_for},
    interruptions::DRIVER,
    manifests::{claim, class, together},
    snapshots::{run_pod, wait_none},
};

const LIMIT: Duration = Duration::from_secs(90);
const MARKER: &str = "marker-of-the-health-test";

/// The directory with the marker in it.
fn find_marked(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?;
    let entries: Vec<_> = entries.filter_map(Result::ok).collect();
    if entries.iter().any(|entry| entry.file_name() == MARKER) {
        return Some(directory.to_owned());
    }
    let is_directory = |entry: &&fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let mut below = entries.iter().filter(is_directory);
    below.find_map(|entry| find_marked(&entry.path()))
}

/// What only some events, or a first or second replica, need.
fn is_occasional(request: &Request) -> bool {
    matches!(
        (request.resource.as_str(), request.verb.as_str()),
        (_, "list") | ("events", "patch") | ("leases", "create" | "update")
    )
}

#[test]
fn volumes_that_are_not_well_are_told_by_the_program_of_the_health_monitors_name() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "namespace", NAMESPACE]);
    kubectl.apply_ok(&together(&[
        class("now", "Immediate", "Delete"),
        claim("data", "now", "ReadWriteOnce", "8Mi"),
        claim("other", "now", "ReadWriteOnce", "8Mi"),
    ]));
    run_pod(&kubectl, "writer", "data", &format!("echo x > /data/{MARKER}"));
    let more = ["--list-volumes-interval=1s", "--enable-node-watcher"];
    let monitor = start_controller_with(&cluster, "csi-external-health-monitor-controller", &more);
    let data = find_marked(&cluster.state()).expect("the volume's data");
    let away = data.with_extension("away");
    fs::rename(&data, &away).unwrap();
    let why = kubectl.wait_event("data", "VolumeConditionAbnormal", LIMIT);
    assert!(why.contains("is missing"), "{why}");
    fs::rename(&away, &data).unwrap();
    kubectl.wait_event("data", "VolumeConditionNormal", LIMIT);
    let selector = "--field-selector=reason=VolumeConditionAbnormal,involvedObject.name=other";
    let told = kubectl.call(&["get", "events", selector, "-o", "name"]).stdout;
    assert_eq!(told, "", "the other volume is well");

    let called = format!(
        "csi_sidecar_operations_seconds_count{{driver_name=\"{DRIVER}\",method_name=\"/csi.v1.Controller/ListVolumes\",grpc_status_code=\"OK\"}}"
    );
    let leads =
        "leader_election_master_status{name=\"external-health-monitor-leader-local-csi-moorline-dev\"} 1";
    wait_for(&monitor.address, "/metrics", &[&called, leads]);
    check_requests_in(&kubectl, NAMESPACE, &monitor, is_occasional);
    monitor.part.signal(Signal::SIGTERM);
    let log = fs::read_to_string(&monitor.log).unwrap();
    assert_eq!(monitor.part.wait_exit(LIMIT), Some(0), "{log}");
    kubectl.run(&["delete", "pvc", "data", "other", "--timeout=60s"]);
    wait_none(&kubectl, "pv");
    cluster.finish();
}

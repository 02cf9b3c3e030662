//! `moorline up` as a program: flags, exit codes, signals, the state directory, wrong usage.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use moorline_e2e::{cluster::TestCluster, machine, process, require, require_kubectl, require_node};
use nix::sys::signal::Signal;

use crate::manifests::{and_stay, claim, class, pod, together};

/// Flags for a cluster that needs no root.
const CONTROL_PLANE: [&str; 2] = ["--no-kubelet", "--no-driver"];

#[test]
fn up_writes_a_private_kubeconfig_and_drains_on_sigterm() {
    let mut cluster = TestCluster::start(&CONTROL_PLANE);
    let mode = std::fs::metadata(cluster.kubeconfig())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for entry in walk(&cluster.state().join("pki")) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        let mode = std::fs::metadata(&entry).unwrap().permissions().mode() & 0o777;
        assert!(
            !name.ends_with(".key") || mode == 0o600,
            "{name} has mode {mode:o}"
        );
    }
    cluster.signal(Signal::SIGTERM);
    assert_eq!(
        cluster.wait_exit(Duration::from_secs(30)),
        Some(0),
        "{}",
        cluster.log_text()
    );
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect()
}

#[test]
fn a_second_up_on_the_same_state_is_refused_with_the_pid_that_holds_it() {
    let cluster = TestCluster::start(&CONTROL_PLANE);
    let state = cluster.state();
    let state = state.to_str().unwrap();
    let (code, _, stderr) = process::run(&[
        "up",
        "--no-kubelet",
        "--no-driver",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
        state,
    ]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains(&format!("in use by process {}", cluster.pid())),
        "{stderr}"
    );
}

#[test]
fn objects_survive_kill_9_and_the_same_kubeconfig_goes_on() {
    let mut cluster = TestCluster::start(&CONTROL_PLANE);
    require_kubectl!();
    cluster
        .kubectl()
        .run(&["create", "configmap", "kept", "--from-literal=a=b"]);
    cluster.kill_9();
    cluster.up();
    assert_eq!(cluster.kubectl().field("configmap", "kept", "{.data.a}"), "b");
}

#[test]
fn an_address_that_is_taken_is_named_in_the_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("s");
    let (code, _, stderr) = process::run(&[
        "up",
        "--no-kubelet",
        "--no-driver",
        "--listen",
        &address,
        "--state-dir",
        state.to_str().unwrap(),
    ]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&address), "{stderr}");
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_wrong() {
    for (args, says) in [
        (vec!["up", "--listen", "nonsense"], "--listen"),
        (vec!["up", "--driver-backend", "tape"], "tape"),
        (vec!["up", "--no-such-flag"], "--no-such-flag"),
        (vec!["sail"], "sail"),
        (vec![], "Usage"),
    ] {
        let (code, _, stderr) = process::run(&args);
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
}

#[test]
fn values_that_cannot_work_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("s");
    let state_text = state.to_str().unwrap();
    let long = format!("/tmp/{}", "x".repeat(120));
    for (args, says) in [
        (
            vec![
                "up",
                "--no-kubelet",
                "--no-driver",
                "--node-name",
                "Not_A_Name",
                "--state-dir",
                state_text,
            ],
            "--node-name",
        ),
        (
            vec!["up", "--no-kubelet", "--no-driver", "--state-dir", long.as_str()],
            "shorter path",
        ),
    ] {
        let (code, _, stderr) = process::run(&args);
        assert_eq!(code, Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
    assert!(!state.exists());
}

#[test]
fn a_store_file_that_is_not_ours_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s/store/moorline.redb");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "this is somebody's diary").unwrap();
    let state = dir.path().join("s");
    let (code, _, stderr) = process::run(&[
        "up",
        "--no-kubelet",
        "--no-driver",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
        state.to_str().unwrap(),
    ]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("moorline.redb"), "{stderr}");
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "this is somebody's diary"
    );
}

#[test]
fn down_refuses_to_purge_what_is_no_state_directory() {
    require!(machine::is_root(), "needs root");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("precious"), "data").unwrap();
    let (code, _, stderr) = process::run(&["down", "--purge", "--state-dir", dir.path().to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(dir.path().join("precious").exists());
}

#[test]
fn down_with_purge_ends_what_runs_and_deletes_the_state() {
    require_node!();
    require_kubectl!();
    let mut cluster = TestCluster::start(&["--host-image", "--driver-backend", "loop"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(&together(&[
        class("purge", "WaitForFirstConsumer", "Delete"),
        claim("data", "purge", "ReadWriteOnce", "16Mi"),
        pod("app", "data", &and_stay("true")),
    ]));
    kubectl.wait_field(
        "pod",
        "app",
        "{.status.phase}",
        "Running",
        Duration::from_secs(60),
    );
    let state = cluster.state();
    let state = state.to_str().unwrap();
    let (code, _, stderr) = process::run(&["down", "--purge", "--state-dir", state]);
    assert_eq!(code, Some(1), "a running cluster isn't purged: {stderr}");
    cluster.stop();
    assert!(
        !machine::held_below(cluster.root()).is_empty(),
        "pods outlive the cluster"
    );
    let (code, stdout, stderr) = process::run(&["down", "--purge", "--state-dir", state]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("stopped 1 pods"), "{stdout}");
    assert!(!cluster.state().exists());
    let held = machine::held_below(cluster.root());
    assert!(held.is_empty(), "{held:?}");
}

#[test]
fn a_whole_node_starts_drains_and_leaves_nothing() {
    require_node!();
    TestCluster::start(&[]).finish();
}

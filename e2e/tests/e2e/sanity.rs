//! The reference driver before the Go world's judge: csi-sanity, unmodified.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use moorline_e2e::{machine, process::Part, require, require_node, wait};

/// Starts the reference driver alone and waits until it listens.
fn start_driver(dir: &Path, backend: &str) -> Part {
    let args = [
        "driver".to_owned(),
        "--node-id=n1".to_owned(),
        format!("--backend={backend}"),
        format!("--endpoint=unix://{}/csi.sock", dir.display()),
        format!("--pool-dir={}/pool", dir.display()),
    ];
    let driver = Part::start(&args, &dir.join("driver.log"));
    let socket = dir.join("csi.sock");
    wait::until("the driver's socket", Duration::from_secs(20), || {
        std::os::unix::net::UnixStream::connect(&socket).map(drop)
    });
    driver
}

fn csi_sanity() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join("go/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(home)
        .map(|dir| dir.join("csi-sanity"))
        .find(|file| file.is_file())
}

/// Runs the suite and gives its exit code and what it printed.
fn judge(backend: &str, access_type: &str) -> (Option<i32>, String) {
    let dir = tempfile::Builder::new()
        .prefix("moorline-sanity-")
        .tempdir()
        .unwrap();
    let driver = start_driver(dir.path(), backend);
    let output = Command::new(csi_sanity().unwrap())
        .arg(format!("--csi.endpoint=unix://{}/csi.sock", dir.path().display()))
        .arg(format!("--csi.stagingdir={}/staging", dir.path().display()))
        .arg(format!("--csi.mountdir={}/mount", dir.path().display()))
        .arg(format!("--csi.testvolumeaccesstype={access_type}"))
        .args([
            "--csi.testvolumesize=67108864",
            "--csi.testvolumeexpandsize=134217728",
            "--ginkgo.no-color",
        ])
        .output()
        .unwrap();
    driver.kill_9();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    let held = machine::held_below(dir.path());
    if !held.is_empty() {
        moorline_mount::mount::unmount_tree(dir.path()).unwrap();
        for device in moorline_mount::loop_device::list().unwrap() {
            if device.backing_file.starts_with(dir.path()) {
                moorline_mount::loop_device::detach(&device.device).unwrap();
            }
        }
        text.push_str(&format!("\nleft behind: {held:?}"));
    }
    (output.status.code().filter(|_| held.is_empty()), text)
}

/// The lines that say what happened, for a failure's message.
fn summary(text: &str) -> String {
    let telling = |line: &&str| {
        ["[FAIL]", "Ran ", "Passed", "Failed", "left behind", "Summarizing"]
            .iter()
            .any(|word| line.contains(word))
    };
    text.lines().filter(telling).collect::<Vec<_>>().join("\n")
}

fn assert_passes(backend: &str, access_type: &str) {
    let (code, text) = judge(backend, access_type);
    println!(
        "csi-sanity, backend {backend}, access type {access_type}:\n{}",
        summary(&text)
    );
    assert_eq!(code, Some(0), "{}\n{text}", summary(&text));
}

#[test]
fn the_dir_backend_passes_csi_sanity() {
    require_node!();
    require!(
        csi_sanity().is_some(),
        "csi-sanity is missing (go install github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity)"
    );
    assert_passes("dir", "mount");
}

#[test]
fn the_loop_backend_passes_csi_sanity_with_filesystems() {
    require_node!();
    require!(
        csi_sanity().is_some(),
        "csi-sanity is missing (go install github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity)"
    );
    assert_passes("loop", "mount");
}

#[test]
fn the_loop_backend_passes_csi_sanity_with_block_devices() {
    require_node!();
    require!(
        csi_sanity().is_some(),
        "csi-sanity is missing (go install github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity)"
    );
    assert_passes("loop", "block");
}

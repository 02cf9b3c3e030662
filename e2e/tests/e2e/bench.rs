//! The benchmarks with tiny counts: that they run and give each figure, not how large it is.

use std::process::Command;

use moorline_e2e::{process, require_node};

/// The program that `cargo xtask bench` builds and runs.
fn bench(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_moorline-bench"))
        .args(args)
        .env("MOORLINE_BIN", process::binary())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn volumes_are_counted_until_all_are_bound() {
    require_node!();
    for backend in ["null", "dir"] {
        let told = bench(&["volumes", "--count", "20", "--backend", backend]);
        for figure in ["volumes per second", "p50", "p99", "peak RSS", "CPU"] {
            assert!(told.contains(figure), "{figure}: {told}");
        }
    }
}

#[test]
fn start_and_first_pod_are_timed() {
    require_node!();
    let told = bench(&["start", "--runs", "1", "--idle", "1"]);
    for figure in ["cold start to ready", "idle RSS", "pod to running"] {
        assert!(told.contains(figure), "{figure}: {told}");
    }
}

//! The benchmarks with tiny counts: that they run and give each figure, not how large it is.

use std::{process::Command, time::Duration};

use moorline_e2e::{
    process, require, require_node,
    scratch::{PoolFilesystem, ScratchPool},
};

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

/// The peer is a second driver of ours, so that a ratio is known to be near 1 and both are asked the same.
#[test]
fn the_driver_is_measured_beside_a_peer() {
    require_node!();
    let missing = PoolFilesystem::Xfs.missing();
    require!(missing.is_none(), missing.unwrap_or_default());
    let pool = ScratchPool::plain(&std::env::temp_dir()).unwrap();
    let socket = pool.root().join("peer.sock");
    let args = [
        "driver".to_owned(),
        "--node-id=peer".to_owned(),
        format!("--endpoint=unix://{}", socket.display()),
        format!("--pool-dir={}/volumes-of-peer", pool.path().display()),
    ];
    let mut peer = process::Part::start(&args, &pool.root().join("peer.log"));
    peer.wait_for_socket(&socket, Duration::from_secs(30)).unwrap();
    let endpoint = format!("unix://{},pid={}", socket.display(), peer.pid());
    let small = ["--clients=1,4", "--existing=0,20", "--many=100", "--seconds=0.2"];
    let told = bench(&[&["driver", "--output=json", "--peer", &endpoint][..], &small].concat());
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let lines = told["lines"].as_array().unwrap();
    // Probe once, four other loads with and without existing volumes, each with two numbers of clients.
    assert_eq!(lines.len(), 2 + 4 * 2 * 2, "{told:#}");
    for line in lines {
        for who in ["ours", "peer"] {
            assert!(line[who]["calls_per_second"].as_f64() > Some(0.0), "{line:#}");
        }
        assert!(line["ratio"].as_f64() > Some(0.0), "{line:#}");
    }
    let figures = told["figures"].as_array().unwrap();
    let both = |figure: &&serde_json::Value| figure["ours"].is_number() && figure["peer"].is_number();
    assert_eq!(figures.iter().filter(both).count(), 4, "{told:#}");
    assert_eq!(figures.len(), 7, "{told:#}");
    peer.terminate(Duration::from_secs(30)).unwrap();
    assert_eq!(pool.left_behind(), Vec::<String>::new());
    pool.remove().unwrap();
}

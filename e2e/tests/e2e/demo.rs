//! `moorline demo`, as the README's first command runs it.

use std::process::Command;

use moorline_e2e::{machine, process, require, require_node};

const STEPS: [&str; 18] = [
    "cluster ready",
    "claim seen",
    "node selected",
    "CreateVolume",
    "bound",
    "attached",
    "staged",
    "published",
    "container started",
    "data written",
    "same data read",
    "df before",
    "ControllerExpand",
    "claim has grown",
    "df after",
    "claim gone",
    "DeleteVolume",
    "nothing",
];

#[test]
fn the_demo_shows_every_step_and_leaves_nothing() {
    require_node!();
    let (code, stdout, stderr) = process::run(&["demo"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    for step in STEPS {
        assert!(stdout.contains(step), "step {step:?} is missing:\n{stdout}");
    }
    let last = stdout.lines().last().unwrap_or_default();
    assert!(last.contains("nothing left behind"), "{stdout}");
    assert!(!stdout.contains('\u{1b}'), "a pipe gets plain lines: {stdout:?}");
}

#[test]
fn the_demo_can_answer_with_one_json_document() {
    require_node!();
    let (code, stdout, stderr) = process::run(&["demo", "--output", "json", "--driver-backend", "dir"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).expect("one JSON document");
    assert_eq!(report["ok"], true, "{report:#}");
    assert_eq!(report["leftBehind"], serde_json::json!([]), "{report:#}");
    let steps: Vec<&str> = report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|step| step["step"].as_str())
        .collect();
    for step in STEPS.iter().filter(|step| **step != "staged") {
        assert!(steps.contains(step), "step {step:?} is missing: {steps:?}");
    }
}

#[test]
fn without_root_the_demo_says_what_it_needs_and_why() {
    require!(machine::is_root(), "needs root to become somebody else");
    require!(machine::has_tool("setpriv"), "setpriv is missing");
    // The binary may lie where only root can reach it.
    let dir = tempfile::Builder::new()
        .prefix("moorline-e2e-")
        .tempdir_in("/tmp")
        .unwrap();
    let copy = dir.path().join("moorline");
    std::fs::copy(process::binary(), &copy).unwrap();
    let mut open = std::fs::metadata(dir.path()).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .arg("demo")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("needs root") && stderr.contains("--no-kubelet"),
        "{stderr}"
    );
}

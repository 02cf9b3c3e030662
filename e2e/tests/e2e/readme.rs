//! Where each command of the README is run; this test fails when the README shows one that is not accounted for. Most
//! are run by a test; the developers' own verbs by `.ci/run`, which has to have that very command.

use std::path::Path;

/// Commands that the README shows, each with where it is run.
const TESTED: &[(&str, &str)] = &[
    (
        "cargo run --release -- demo",
        "demo::the_demo_shows_every_step_and_leaves_nothing",
    ),
    ("cargo xtask test", "this very run"),
    ("cargo xtask check", CI),
    (
        "moorline up --host-image",
        "failures::pods_keep_running_over_a_restart_of_the_node_and_a_pod_deleted_meanwhile_goes",
    ),
    (
        "kubectl apply -f examples/quickstart",
        "story::a_claim_becomes_a_filesystem_in_a_pod_and_is_gone_after_deletion_with_kubectl",
    ),
    (
        "kubectl get pods,pvc,pv",
        "crash::killed_at_random_moments_of_the_story_each_start_goes_on_to_the_same_end",
    ),
    (
        "kubectl logs writer",
        "story::a_claim_becomes_a_filesystem_in_a_pod_and_is_gone_after_deletion_with_kubectl",
    ),
    (
        "moorline sidecars --csi-address",
        "interruptions::a_driver_killed_in_mid_call_is_waited_for_and_every_claim_gets_one_volume",
    ),
    (
        "moorline down --purge",
        "command_line::down_with_purge_ends_what_runs_and_deletes_the_state",
    ),
    // With smaller counts; bench::* does the same with the benchmarks' program alone.
    ("cargo xtask bench volumes --count", CI),
    ("cargo xtask bench start", CI),
    ("cargo xtask bench driver", CI),
    ("cargo build --profile driver -p moorline-driver", CI),
    // A part of it; sanity::* makes each of its runs.
    ("cargo xtask sanity", CI),
];

/// Run by `.ci/run`.
const CI: &str = ".ci/run";

fn workspace_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(name);
    std::fs::read_to_string(path).unwrap()
}

fn readme_commands() -> Vec<String> {
    let text = workspace_file("README.md");
    let mut commands = Vec::new();
    let mut inside = false;
    for line in text.replace("\\\n", " ").lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside {
            let command = line.split(" #").next().unwrap_or_default().trim();
            if !command.is_empty() {
                commands.push(command.to_owned());
            }
        }
    }
    commands
}

#[test]
fn every_command_of_the_readme_is_accounted_for() {
    let commands = readme_commands();
    assert!(!commands.is_empty(), "the README shows no command");
    for command in &commands {
        let set_up = ["git clone", "cd ", "export KUBECONFIG", "sudo "]
            .iter()
            .any(|start| command.starts_with(start));
        let tested = TESTED.iter().any(|(known, _)| command.contains(known));
        assert!(
            set_up || tested,
            "nothing is said of {command:?}: add a test and name it here"
        );
    }
}

#[test]
fn what_ci_is_said_to_run_it_runs() {
    let script = workspace_file(".ci/run");
    for (command, _) in TESTED.iter().filter(|(_, by)| *by == CI) {
        let is_run = script.lines().any(|line| line.trim_start().starts_with(command));
        assert!(is_run, ".ci/run doesn't run {command:?}");
    }
    assert!(
        script.lines().any(|line| line
            .split_ascii_whitespace()
            .take(3)
            .eq(["cargo", "xtask", "test"])),
        ".ci/run doesn't run the tests"
    );
}

#[test]
fn every_test_that_is_named_exists() {
    let tests = TESTED.iter().filter_map(|(_, by)| by.split_once("::"));
    for (module, test) in tests {
        let source = workspace_file(&format!("e2e/tests/e2e/{module}.rs"));
        assert!(
            source.contains(&format!("fn {test}(")),
            "there is no {module}::{test}"
        );
    }
}

//! What users see of a pod, case by case.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::pods::backoff::{Limits, RestartBackoff};
use crate::pods::memory::{ProbeResults, Problem, ProblemKind};
use crate::testing::pods::{at, exited, pod, pod_with, running, sandbox};

const LIMITS: Limits = Limits {
    min: Duration::from_secs(10),
    max: Duration::from_secs(300),
};

fn status_of(pod: &Pod, containers: &[ContainerStatus], memory: &Memory, has_ended: bool) -> PodStatus {
    let sandboxes = [sandbox(0, SandboxState::Ready)];
    let facts = Facts {
        pod,
        sandboxes: &sandboxes,
        containers,
        memory,
        backoff: LIMITS,
        node_ip: "10.0.0.1".parse().unwrap(),
        has_ended,
    };
    compute(&facts, at(100))
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn phase_follows_the_containers() {
    let none = Memory::default();
    let one = |policy: &str| pod(policy, &[], &["a"]);
    let two = |policy: &str| pod(policy, &[], &["a", "b"]);
    let init = |policy: &str| pod(policy, &["i"], &["a"]);
    let cases = [
        ("nothing started", one("Always"), vec![], false, "Pending"),
        ("runs", one("Always"), vec![running("a", 0)], false, "Running"),
        (
            "one of two runs",
            two("Always"),
            vec![running("a", 0)],
            false,
            "Pending",
        ),
        (
            "crashed, comes again",
            one("Always"),
            vec![exited("a", 0, 1, 9)],
            false,
            "Running",
        ),
        (
            "succeeded, always",
            one("Always"),
            vec![exited("a", 0, 0, 9)],
            false,
            "Running",
        ),
        (
            "succeeded",
            one("Never"),
            vec![exited("a", 0, 0, 9)],
            false,
            "Succeeded",
        ),
        (
            "failed",
            one("Never"),
            vec![exited("a", 0, 1, 9)],
            false,
            "Failed",
        ),
        (
            "failed, on failure",
            one("OnFailure"),
            vec![exited("a", 0, 1, 9)],
            false,
            "Running",
        ),
        (
            "one failed, one runs",
            two("Never"),
            vec![exited("a", 0, 1, 9), running("b", 0)],
            false,
            "Running",
        ),
        (
            "one failed",
            two("Never"),
            vec![exited("a", 0, 1, 9), exited("b", 0, 0, 9)],
            false,
            "Failed",
        ),
        (
            "init runs",
            init("Always"),
            vec![running("i", 0)],
            false,
            "Pending",
        ),
        (
            "init failed",
            init("Never"),
            vec![exited("i", 0, 1, 9)],
            false,
            "Failed",
        ),
        (
            "init done",
            init("Always"),
            vec![exited("i", 0, 0, 9)],
            false,
            "Pending",
        ),
        (
            "init done, main runs",
            init("Always"),
            vec![exited("i", 0, 0, 9), running("a", 0)],
            false,
            "Running",
        ),
        (
            "deleted while running well",
            one("Always"),
            vec![exited("a", 0, 0, 9)],
            true,
            "Succeeded",
        ),
        (
            "deleted and killed",
            one("Always"),
            vec![exited("a", 0, 137, 9)],
            true,
            "Failed",
        ),
        ("deleted before it ran", one("Always"), vec![], true, "Failed"),
    ];
    for (name, pod, containers, has_ended, want) in cases {
        let status = status_of(&pod, &containers, &none, has_ended);
        assert_eq!(status.phase.as_deref(), Some(want), "{name}");
    }
}

/// `(ready, started, state, last state)` in short words.
fn shown(pod: &Pod, containers: &[ContainerStatus], memory: &Memory) -> (bool, bool, String, String) {
    let status = status_of(pod, containers, memory, false)
        .container_statuses
        .unwrap()
        .remove(0);
    let word = |state: Option<ApiState>| {
        let state = state.unwrap_or_default();
        let waiting = state
            .waiting
            .map(|waiting| format!("waiting {}", waiting.reason.unwrap_or_default()));
        let running = state.running.map(|_| "running".to_owned());
        let ended = state
            .terminated
            .map(|ended| format!("{} {}", ended.reason.unwrap_or_default(), ended.exit_code));
        waiting.or(running).or(ended).unwrap_or_default()
    };
    (
        status.ready,
        status.started.unwrap_or_default(),
        word(status.state),
        word(status.last_state),
    )
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn container_states_are_those_users_know() {
    let plain = || pod("Always", &[], &["a"]);
    let with_init = || pod("Always", &["i"], &["a"]);
    let readiness = || pod_with(serde_json::json!({"containers": [{"name": "a", "readinessProbe": {}}]}));
    let problem = |kind| {
        let problem = Problem {
            kind,
            message: "why".into(),
            image: "i".into(),
            since: at(99),
            delay: Duration::from_secs(10),
        };
        Memory {
            problems: BTreeMap::from([("a".into(), problem)]),
            ..Memory::default()
        }
    };
    let mut old_image = problem(ProblemKind::Image);
    old_image.problems.get_mut("a").unwrap().since = at(95);
    let looping = Memory {
        backoff: BTreeMap::from([(
            "a".into(),
            RestartBackoff {
                delay: Duration::from_secs(20),
                since: at(80),
            },
        )]),
        ..Memory::default()
    };
    let probed = |is_ready| {
        let results = ProbeResults {
            is_ready: Some(is_ready),
            ..ProbeResults::default()
        };
        Memory {
            probes: BTreeMap::from([(running("a", 0).id, results)]),
            ..Memory::default()
        }
    };
    let none = Memory::default;
    let want = |ready, started, state: &str, last: &str| (ready, started, state.to_owned(), last.to_owned());
    let cases = [
        (
            "nothing yet",
            plain(),
            vec![],
            none(),
            want(false, false, "waiting ContainerCreating", ""),
        ),
        (
            "before init",
            with_init(),
            vec![],
            none(),
            want(false, false, "waiting PodInitializing", ""),
        ),
        (
            "runs",
            plain(),
            vec![running("a", 0)],
            none(),
            want(true, true, "running", ""),
        ),
        (
            "not probed yet",
            readiness(),
            vec![running("a", 0)],
            none(),
            want(false, true, "running", ""),
        ),
        (
            "ready",
            readiness(),
            vec![running("a", 0)],
            probed(true),
            want(true, true, "running", ""),
        ),
        (
            "not ready",
            readiness(),
            vec![running("a", 0)],
            probed(false),
            want(false, true, "running", ""),
        ),
        (
            "image",
            plain(),
            vec![],
            problem(ProblemKind::Image),
            want(false, false, "waiting ErrImagePull", ""),
        ),
        (
            "image, later",
            plain(),
            vec![],
            old_image,
            want(false, false, "waiting ImagePullBackOff", ""),
        ),
        (
            "configuration",
            plain(),
            vec![],
            problem(ProblemKind::Config),
            want(false, false, "waiting CreateContainerConfigError", ""),
        ),
        (
            "crash loop",
            plain(),
            vec![exited("a", 3, 1, 95)],
            looping,
            want(false, false, "waiting CrashLoopBackOff", "Error 1"),
        ),
        (
            "ended",
            plain(),
            vec![exited("a", 0, 0, 95)],
            none(),
            want(false, false, "Completed 0", ""),
        ),
        (
            "runs again",
            plain(),
            vec![exited("a", 0, 3, 90), running("a", 1)],
            none(),
            want(true, true, "running", "Error 3"),
        ),
    ];
    for (name, pod, containers, memory, want) in cases {
        assert_eq!(shown(&pod, &containers, &memory), want, "{name}");
    }
}

#[test]
fn crash_loop_message_is_upstreams() {
    let pod = pod("Always", &[], &["a"]);
    let message = backoff_message(
        &pod,
        &pod.spec.as_ref().unwrap().containers[0],
        Duration::from_secs(160),
    );
    assert_eq!(
        message,
        "back-off 2m40s restarting failed container=a pod=p_ns(u)"
    );
}

#[test]
fn conditions_keep_their_times_and_those_of_others() {
    let mut pod = pod("Always", &[], &["a"]);
    let condition = |kind: &str, status: &str| PodCondition {
        type_: kind.into(),
        status: status.into(),
        last_transition_time: Some(Time(at(7))),
        ..Default::default()
    };
    let held = vec![
        condition("Ready", "False"),
        condition("PodScheduled", "True"),
        condition("other/gate", "True"),
    ];
    pod.status = Some(PodStatus {
        conditions: Some(held),
        ..Default::default()
    });
    let times = |containers: &[ContainerStatus]| -> Vec<(String, String, i64)> {
        let conditions = status_of(&pod, containers, &Memory::default(), false)
            .conditions
            .unwrap_or_default();
        conditions
            .into_iter()
            .map(|held| {
                (
                    held.type_,
                    held.status,
                    held.last_transition_time.unwrap().0.as_second(),
                )
            })
            .collect()
    };
    let row = |kind: &str, status: &str, time| (kind.to_owned(), status.to_owned(), time);
    assert_eq!(
        times(&[]),
        [
            row("PodReadyToStartContainers", "True", 100),
            row("Initialized", "True", 100),
            row("Ready", "False", 7),
            row("ContainersReady", "False", 100),
            row("PodScheduled", "True", 7),
            row("other/gate", "True", 7),
        ]
    );
    assert_eq!(times(&[running("a", 0)])[2], row("Ready", "True", 100));
}

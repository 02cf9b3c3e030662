//! The state table of one pod, case by case.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::pods::memory::{ProbeResults, Problem, ProblemKind};
use crate::testing::pods::{at, container, created, exited, pod, pod_with, running, sandbox};

const LIMITS: Limits = Limits {
    min: Duration::from_secs(10),
    max: Duration::from_secs(300),
};

struct Case {
    pod: Pod,
    fate: Fate,
    sandboxes: Vec<Sandbox>,
    containers: Vec<ContainerStatus>,
    are_volumes_ready: bool,
    are_volumes_released: bool,
    are_volumes_gone: bool,
    has_directory: bool,
    memory: Memory,
}

fn case(pod: Pod) -> Case {
    Case {
        pod,
        fate: Fate::Live,
        sandboxes: vec![sandbox(0, SandboxState::Ready)],
        containers: vec![],
        are_volumes_ready: true,
        are_volumes_released: false,
        are_volumes_gone: false,
        has_directory: true,
        memory: Memory::default(),
    }
}

impl Case {
    fn decide(&self, now: i64) -> Next {
        decide(
            &Seen {
                pod: &self.pod,
                fate: self.fate,
                sandboxes: &self.sandboxes,
                containers: &self.containers,
                are_volumes_ready: self.are_volumes_ready,
                are_volumes_released: self.are_volumes_released,
                are_volumes_gone: self.are_volumes_gone,
                has_directory: self.has_directory,
                memory: &self.memory,
                backoff: LIMITS,
            },
            at(now),
        )
    }
}

fn start(name: &str, attempt: u32) -> Action {
    Action::StartContainer {
        name: name.into(),
        attempt,
        after: None,
    }
}

fn again(name: &str, attempt: u32, after: i64) -> Action {
    Action::StartContainer {
        name: name.into(),
        attempt,
        after: Some(at(after)),
    }
}

fn stopped(status: &ContainerStatus, grace: u64, reason: StopReason) -> Action {
    stop(status, Duration::from_secs(grace), reason)
}

fn wait(until: Option<i64>) -> Next {
    Next::Wait { until: until.map(at) }
}

fn check(cases: Vec<(&str, Case, i64, Next)>) {
    for (name, case, now, want) in cases {
        assert_eq!(case.decide(now), want, "{name}");
    }
}

fn one_main(policy: &str) -> Pod {
    pod(policy, &[], &["main"])
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn living_pod_gets_sandbox_then_containers() {
    let always = || one_main("Always");
    let bad_sandbox = Problem {
        kind: ProblemKind::Create,
        message: "no".into(),
        image: String::new(),
        since: at(90),
        delay: Duration::from_secs(20),
    };
    check(vec![
        (
            "nothing yet",
            Case {
                sandboxes: vec![],
                ..case(always())
            },
            100,
            Next::Do(vec![Action::StartSandbox { attempt: 0 }]),
        ),
        (
            "sandbox failed just now",
            Case {
                sandboxes: vec![],
                memory: Memory {
                    sandbox_problem: Some(bad_sandbox.clone()),
                    ..Memory::default()
                },
                ..case(always())
            },
            100,
            wait(Some(110)),
        ),
        (
            "sandbox failed a while ago",
            Case {
                sandboxes: vec![],
                memory: Memory {
                    sandbox_problem: Some(bad_sandbox),
                    ..Memory::default()
                },
                ..case(always())
            },
            110,
            Next::Do(vec![Action::StartSandbox { attempt: 0 }]),
        ),
        (
            "sandbox died",
            Case {
                sandboxes: vec![sandbox(0, SandboxState::NotReady)],
                ..case(always())
            },
            100,
            Next::Do(vec![Action::StartSandbox { attempt: 1 }]),
        ),
        (
            "volumes are waited for",
            Case {
                are_volumes_ready: false,
                ..case(always())
            },
            100,
            wait(None),
        ),
        (
            "first start",
            case(always()),
            100,
            Next::Do(vec![start("main", 0)]),
        ),
        (
            "created but not started before a crash",
            Case {
                containers: vec![created("main", 0)],
                ..case(always())
            },
            100,
            Next::Do(vec![start("main", 0)]),
        ),
        (
            "runs",
            Case {
                containers: vec![running("main", 0)],
                ..case(always())
            },
            100,
            wait(None),
        ),
        (
            "runs while volumes are mounted again after a restart",
            Case {
                containers: vec![running("main", 0)],
                are_volumes_ready: false,
                ..case(always())
            },
            100,
            wait(None),
        ),
        (
            "attempts go on counting in a new sandbox",
            Case {
                sandboxes: vec![
                    sandbox(0, SandboxState::NotReady),
                    sandbox(1, SandboxState::Ready),
                ],
                containers: vec![exited("main", 4, 137, 90)],
                ..case(always())
            },
            100,
            Next::Do(vec![start("main", 5)]),
        ),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn ended_containers_follow_policy_and_backoff() {
    let backoff = |delay: u64, since: i64| Memory {
        backoff: BTreeMap::from([(
            "main".into(),
            RestartBackoff {
                delay: Duration::from_secs(delay),
                since: at(since),
            },
        )]),
        ..Memory::default()
    };
    let ended = |policy: &str, code: i32| Case {
        containers: vec![exited("main", 0, code, 95)],
        ..case(one_main(policy))
    };
    let image = Problem {
        kind: ProblemKind::Image,
        message: "gone".into(),
        image: "i".into(),
        since: at(99),
        delay: Duration::from_secs(10),
    };
    let with_image = || Memory {
        problems: BTreeMap::from([("main".into(), image.clone())]),
        ..Memory::default()
    };
    check(vec![
        (
            "first end, always",
            ended("Always", 0),
            100,
            Next::Do(vec![again("main", 1, 95)]),
        ),
        (
            "failed, on failure",
            ended("OnFailure", 1),
            100,
            Next::Do(vec![again("main", 1, 95)]),
        ),
        ("succeeded, on failure", ended("OnFailure", 0), 100, wait(None)),
        ("failed, never", ended("Never", 1), 100, wait(None)),
        (
            "crash loop",
            Case {
                memory: backoff(20, 60),
                ..ended("Always", 1)
            },
            100,
            wait(Some(115)),
        ),
        (
            "crash loop is over",
            Case {
                memory: backoff(20, 60),
                ..ended("Always", 1)
            },
            115,
            Next::Do(vec![again("main", 1, 95)]),
        ),
        (
            "image failed: shown as back-off in a moment",
            Case {
                memory: with_image(),
                ..case(one_main("Always"))
            },
            100,
            wait(Some(101)),
        ),
        (
            "image failed: tried again later",
            Case {
                memory: with_image(),
                ..case(one_main("Always"))
            },
            105,
            wait(Some(109)),
        ),
        (
            "image is tried again",
            Case {
                memory: with_image(),
                ..case(one_main("Always"))
            },
            109,
            Next::Do(vec![start("main", 0)]),
        ),
    ]);
}

#[test]
fn init_containers_come_first_and_one_by_one() {
    let two = || pod("Always", &["first", "second"], &["main"]);
    let never = || pod("Never", &["first"], &["main"]);
    check(vec![
        ("first", case(two()), 100, Next::Do(vec![start("first", 0)])),
        (
            "first runs",
            Case {
                containers: vec![running("first", 0)],
                ..case(two())
            },
            100,
            wait(None),
        ),
        (
            "first is done",
            Case {
                containers: vec![exited("first", 0, 0, 90)],
                ..case(two())
            },
            100,
            Next::Do(vec![start("second", 0)]),
        ),
        (
            "first failed",
            Case {
                containers: vec![exited("first", 0, 1, 90)],
                ..case(two())
            },
            100,
            Next::Do(vec![again("first", 1, 90)]),
        ),
        (
            "first failed for good",
            Case {
                containers: vec![exited("first", 0, 1, 90)],
                ..case(never())
            },
            100,
            wait(None),
        ),
        (
            "all done",
            Case {
                containers: vec![exited("first", 0, 0, 90), exited("second", 0, 0, 91)],
                ..case(two())
            },
            100,
            Next::Do(vec![start("main", 0)]),
        ),
        (
            "main was there, init containers are not run again",
            Case {
                containers: vec![exited("main", 0, 1, 95)],
                ..case(two())
            },
            100,
            Next::Do(vec![again("main", 1, 95)]),
        ),
    ]);
}

#[test]
fn sidecars_start_before_and_stop_after_main_containers() {
    let side: fn() -> Value = || json!([{"name": "side", "restartPolicy": "Always"}]);
    let pod = |policy: &str| {
        pod_with(json!({"restartPolicy": policy, "initContainers": side(), "containers": [{"name": "main"}]}))
    };
    check(vec![
        (
            "sidecar first",
            case(pod("Always")),
            100,
            Next::Do(vec![start("side", 0)]),
        ),
        (
            "then main",
            Case {
                containers: vec![running("side", 0)],
                ..case(pod("Always"))
            },
            100,
            Next::Do(vec![start("main", 0)]),
        ),
        (
            "sidecar that ends comes again",
            Case {
                containers: vec![exited("side", 0, 0, 90), running("main", 0)],
                ..case(pod("Never"))
            },
            100,
            Next::Do(vec![again("side", 1, 90)]),
        ),
        (
            "main is done",
            Case {
                containers: vec![running("side", 0), exited("main", 0, 0, 95)],
                ..case(pod("Never"))
            },
            100,
            Next::Do(vec![stopped(
                &running("side", 0),
                30,
                StopReason::MainContainersEnded,
            )]),
        ),
        (
            "all done",
            Case {
                containers: vec![exited("side", 0, 143, 96), exited("main", 0, 0, 95)],
                ..case(pod("Never"))
            },
            100,
            wait(None),
        ),
    ]);
}

#[test]
fn failed_probe_stops_the_container_once() {
    let probed = |has_failed| Memory {
        probes: BTreeMap::from([(
            running("main", 0).id,
            ProbeResults {
                has_failed,
                ..ProbeResults::default()
            },
        )]),
        ..Memory::default()
    };
    let runs = |memory| Case {
        containers: vec![running("main", 0)],
        memory,
        ..case(one_main("Always"))
    };
    let stopping = Memory {
        stopping: BTreeMap::from([(running("main", 0).id, at(130))]),
        ..probed(true)
    };
    check(vec![
        ("healthy", runs(probed(false)), 100, wait(None)),
        (
            "failed",
            runs(probed(true)),
            100,
            Next::Do(vec![stopped(&running("main", 0), 30, StopReason::ProbeFailed)]),
        ),
        ("being stopped", runs(stopping), 100, wait(None)),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn deleted_pod_is_taken_apart_in_order() {
    let end = Fate::End {
        kill_at: at(110),
        is_in_api: true,
    };
    let ending = || Case {
        fate: end,
        ..case(one_main("Always"))
    };
    let stopping = |deadline: i64| Memory {
        stopping: BTreeMap::from([(running("main", 0).id, at(deadline))]),
        ..Memory::default()
    };
    let stop_main = |grace| Next::Do(vec![stopped(&running("main", 0), grace, StopReason::PodEnds)]);
    let dead = || Case {
        containers: vec![exited("main", 0, 143, 99)],
        ..ending()
    };
    let not_ready = || vec![sandbox(0, SandboxState::NotReady)];
    let id = || sandbox(0, SandboxState::Ready).id;
    check(vec![
        (
            "runs",
            Case {
                containers: vec![running("main", 0)],
                ..ending()
            },
            100,
            stop_main(10),
        ),
        (
            "being stopped",
            Case {
                containers: vec![running("main", 0)],
                memory: stopping(110),
                ..ending()
            },
            100,
            wait(None),
        ),
        (
            "grace was shortened",
            Case {
                containers: vec![running("main", 0)],
                memory: stopping(130),
                ..ending()
            },
            100,
            stop_main(10),
        ),
        (
            "grace has passed",
            Case {
                containers: vec![running("main", 0)],
                ..ending()
            },
            120,
            stop_main(0),
        ),
        (
            "containers dead",
            dead(),
            100,
            Next::Do(vec![Action::StopSandbox(id())]),
        ),
        (
            "sandbox stopped",
            Case {
                sandboxes: not_ready(),
                ..dead()
            },
            100,
            Next::Do(vec![Action::ReleaseVolumes]),
        ),
        (
            "volumes are going",
            Case {
                sandboxes: not_ready(),
                are_volumes_released: true,
                ..dead()
            },
            100,
            wait(None),
        ),
        (
            "volumes gone",
            Case {
                sandboxes: not_ready(),
                are_volumes_released: true,
                are_volumes_gone: true,
                ..dead()
            },
            100,
            Next::Do(vec![Action::RemoveSandbox(id()), Action::RemoveDirectory]),
        ),
        (
            "nothing left",
            Case {
                sandboxes: vec![],
                containers: vec![],
                are_volumes_released: true,
                are_volumes_gone: true,
                has_directory: false,
                ..ending()
            },
            100,
            Next::Do(vec![Action::DeleteFromApi]),
        ),
        (
            "nothing left and not in the API",
            Case {
                fate: Fate::End {
                    kill_at: at(101),
                    is_in_api: false,
                },
                sandboxes: vec![],
                are_volumes_released: true,
                are_volumes_gone: true,
                has_directory: false,
                ..ending()
            },
            100,
            Next::Gone,
        ),
    ]);
}

#[test]
fn finished_pod_gives_its_volumes_back_and_keeps_its_logs() {
    let done = || Case {
        fate: Fate::Done,
        containers: vec![exited("main", 0, 0, 99)],
        sandboxes: vec![sandbox(0, SandboxState::NotReady)],
        ..case(one_main("Never"))
    };
    check(vec![
        (
            "sandbox lives",
            Case {
                sandboxes: vec![sandbox(0, SandboxState::Ready)],
                ..done()
            },
            100,
            Next::Do(vec![Action::StopSandbox(sandbox(0, SandboxState::Ready).id)]),
        ),
        ("volumes", done(), 100, Next::Do(vec![Action::ReleaseVolumes])),
        (
            "that is all",
            Case {
                are_volumes_released: true,
                are_volumes_gone: true,
                ..done()
            },
            100,
            wait(None),
        ),
    ]);
}

#[test]
fn old_containers_are_removed() {
    let history = Case {
        containers: vec![
            exited("main", 0, 1, 10),
            exited("main", 1, 1, 20),
            exited("main", 2, 1, 30),
            running("main", 3),
        ],
        ..case(one_main("Always"))
    };
    let removed = |attempt| Action::RemoveContainer(container("main", attempt).id);
    assert_eq!(history.decide(100), Next::Do(vec![removed(0), removed(1)]));
}

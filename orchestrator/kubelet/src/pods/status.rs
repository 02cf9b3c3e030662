//! What a pod's status says, computed from what is there. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus as ApiStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use moorline_container_runtime::{ContainerState, ContainerStatus, Sandbox, SandboxState};

use super::decide::restarts;
use super::memory::Memory;
use super::{init_containers, is_sidecar, main_containers};

/// Scheme of container ids in the API.
const ID_SCHEME: &str = "moorline://";

/// Everything a status is made of.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    pub pod: &'a Pod,
    pub sandboxes: &'a [Sandbox],
    pub containers: &'a [ContainerStatus],
    pub memory: &'a Memory,
    pub backoff: super::backoff::Limits,
    pub node_ip: IpAddr,
    /// All containers are dead and none will come.
    pub has_ended: bool,
}

/// The newest container of a name.
pub(crate) fn latest<'a>(containers: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    containers
        .iter()
        .filter(|status| status.name == name)
        .max_by_key(|status| status.attempt)
}

fn previous<'a>(containers: &'a [ContainerStatus], current: &ContainerStatus) -> Option<&'a ContainerStatus> {
    let older = containers
        .iter()
        .filter(|status| status.name == current.name && status.attempt < current.attempt);
    older.max_by_key(|status| status.attempt)
}

/// Runs, and its startup probe has passed if there is one.
pub(crate) fn started(container: &Container, status: &ContainerStatus, memory: &Memory) -> bool {
    let has_passed = || {
        memory
            .probes
            .get(&status.id)
            .is_some_and(|results| results.is_started == Some(true))
    };
    status.state == ContainerState::Running && (container.startup_probe.is_none() || has_passed())
}

fn ready(container: &Container, status: &ContainerStatus, memory: &Memory) -> bool {
    let has_passed = || {
        memory
            .probes
            .get(&status.id)
            .is_some_and(|results| results.is_ready == Some(true))
    };
    started(container, status, memory) && (container.readiness_probe.is_none() || has_passed())
}

/// Every main container has ended and none is started again, or an init container failed for good.
pub(crate) fn is_done(pod: &Pod, containers: &[ContainerStatus]) -> bool {
    has_failed_init(pod, containers)
        || main_containers(pod).iter().all(|container| {
            let held = latest(containers, &container.name);
            held.is_some_and(|status| {
                status.state == ContainerState::Exited && !restarts(pod, container, status)
            })
        })
}

fn has_failed_init(pod: &Pod, containers: &[ContainerStatus]) -> bool {
    init_containers(pod)
        .iter()
        .filter(|container| !is_sidecar(container))
        .any(|container| {
            latest(containers, &container.name).is_some_and(|status| {
                status.state == ContainerState::Exited
                    && status.exit_code != Some(0)
                    && !restarts(pod, container, status)
            })
        })
}

/// The phase; a pod that ended or whose containers are done is `Succeeded` or `Failed`.
pub(crate) fn phase(facts: &Facts<'_>) -> &'static str {
    let (pod, containers) = (facts.pod, facts.containers);
    let is_running = |container: &Container| {
        latest(containers, &container.name).is_some_and(|status| status.state == ContainerState::Running)
    };
    let any_running = main_containers(pod)
        .iter()
        .chain(init_containers(pod))
        .any(is_running);
    if (facts.has_ended || is_done(pod, containers)) && !any_running {
        let all_good = main_containers(pod).iter().all(|container| {
            let held = latest(containers, &container.name);
            held.is_some_and(|status| status.state == ContainerState::Exited && status.exit_code == Some(0))
        });
        return if all_good { "Succeeded" } else { "Failed" };
    }
    if !incomplete_init(pod, containers, facts.memory).is_empty() {
        return "Pending";
    }
    let has_begun = |container: &Container| {
        latest(containers, &container.name).is_some_and(|status| status.state != ContainerState::Created)
    };
    if main_containers(pod).iter().all(has_begun) {
        "Running"
    } else {
        "Pending"
    }
}

/// Names of the init containers that keep the main ones from starting.
fn incomplete_init(pod: &Pod, containers: &[ContainerStatus], memory: &Memory) -> Vec<String> {
    if main_containers(pod)
        .iter()
        .any(|container| latest(containers, &container.name).is_some())
    {
        return Vec::new();
    }
    let is_incomplete = |container: &&Container| {
        let held = latest(containers, &container.name);
        if is_sidecar(container) {
            return !held.is_some_and(|status| started(container, status, memory));
        }
        !held.is_some_and(|status| status.state == ContainerState::Exited && status.exit_code == Some(0))
    };
    init_containers(pod)
        .iter()
        .filter(is_incomplete)
        .map(|container| container.name.clone())
        .collect()
}

/// The whole status. What other writers own (scheduling, QoS class, nominated node) is kept.
pub(crate) fn compute(facts: &Facts<'_>, now: Timestamp) -> PodStatus {
    let held = facts.pod.status.clone().unwrap_or_default();
    let phase = phase(facts);
    let list = |containers: &[Container], is_init: bool| -> Vec<ApiStatus> {
        containers
            .iter()
            .map(|container| container_status(facts, container, is_init, now))
            .collect()
    };
    let init = list(init_containers(facts.pod), true);
    let ip = facts.node_ip.to_string();
    let has_sandbox = facts
        .sandboxes
        .iter()
        .any(|sandbox| sandbox.state == SandboxState::Ready);
    let had_ip = held.pod_ip.is_some();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(facts, phase, now)),
        container_statuses: Some(list(main_containers(facts.pod), false)),
        init_container_statuses: (!init.is_empty()).then_some(init),
        host_ip: Some(ip.clone()),
        host_ips: Some(vec![HostIP { ip: ip.clone() }]),
        pod_ip: (has_sandbox || had_ip).then(|| ip.clone()),
        pod_ips: (has_sandbox || had_ip).then(|| vec![PodIP { ip }]),
        start_time: held.start_time.clone().or(Some(Time(now))),
        ..held
    }
}

fn container_status(facts: &Facts<'_>, container: &Container, is_init: bool, now: Timestamp) -> ApiStatus {
    let current = latest(facts.containers, &container.name);
    let image = container.image.clone().unwrap_or_default();
    let Some(status) = current else {
        return ApiStatus {
            name: container.name.clone(),
            image,
            state: Some(waiting(facts, container, is_init, now)),
            last_state: Some(ApiState::default()),
            started: Some(false),
            ..Default::default()
        };
    };
    let is_over = status.state == ContainerState::Exited;
    let comes_again = is_over && !facts.has_ended && restarts(facts.pod, container, status);
    let problem = facts.memory.problems.get(&container.name);
    let (state, last) =
        if comes_again && (problem.is_some() || in_backoff(facts, container, status, now).is_some()) {
            (
                waiting_again(facts, container, status, now),
                Some(terminated(status)),
            )
        } else {
            (
                api_state(status),
                previous(facts.containers, status).map(terminated),
            )
        };
    // A finished init container counts as ready.
    let is_finished_init = is_init && is_over && status.exit_code == Some(0) && !is_sidecar(container);
    ApiStatus {
        name: container.name.clone(),
        image,
        image_id: status.image.id.clone(),
        container_id: Some(format!("{ID_SCHEME}{}", status.id)),
        restart_count: i32::try_from(status.attempt).unwrap_or(i32::MAX),
        ready: ready(container, status, facts.memory) || is_finished_init,
        started: Some(started(container, status, facts.memory)),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        ..Default::default()
    }
}

fn api_state(status: &ContainerStatus) -> ApiState {
    match status.state {
        ContainerState::Created => waiting_state("ContainerCreating", None),
        ContainerState::Running => ApiState {
            running: Some(ContainerStateRunning {
                started_at: status.started_at.map(Time),
            }),
            ..Default::default()
        },
        ContainerState::Exited => terminated(status),
    }
}

fn terminated(status: &ContainerStatus) -> ApiState {
    let exit_code = status.exit_code.unwrap_or(137);
    let reason = match status.reason.as_str() {
        "" if exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    let message = if status.termination_message.is_empty() {
        &status.message
    } else {
        &status.termination_message
    };
    ApiState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("{ID_SCHEME}{}", status.id)),
            exit_code,
            signal: status.signal.filter(|signal| *signal != 0),
            reason: Some(reason.to_owned()),
            message: Some(message.clone()).filter(|message| !message.is_empty()),
            started_at: status.started_at.map(Time),
            finished_at: status.finished_at.map(Time),
        }),
        ..Default::default()
    }
}

fn waiting_state(reason: &str, message: Option<String>) -> ApiState {
    ApiState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        }),
        ..Default::default()
    }
}

/// State of a container that never was.
fn waiting(facts: &Facts<'_>, container: &Container, is_init: bool, now: Timestamp) -> ApiState {
    if let Some(problem) = facts.memory.problems.get(&container.name) {
        let (reason, message) = problem.shown(now);
        return waiting_state(reason, Some(message));
    }
    let waits_for_init = !is_init && !init_containers(facts.pod).is_empty();
    let reason = if waits_for_init || is_init {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    waiting_state(reason, None)
}

fn in_backoff(
    facts: &Facts<'_>,
    container: &Container,
    status: &ContainerStatus,
    now: Timestamp,
) -> Option<Timestamp> {
    let held = facts.memory.backoff.get(&container.name).copied();
    let finished_at = status.finished_at.unwrap_or(status.created_at);
    super::backoff::RestartBackoff::until(held, finished_at, facts.backoff).filter(|until| *until > now)
}

/// Containers that wait before they are started again, with the end that they wait after.
pub(crate) fn backing_off(facts: &Facts<'_>, now: Timestamp) -> Vec<(String, Timestamp)> {
    let all = init_containers(facts.pod)
        .iter()
        .chain(main_containers(facts.pod));
    let waiting = all.filter_map(|container| {
        let status = latest(facts.containers, &container.name)?;
        let is_over = status.state == ContainerState::Exited && restarts(facts.pod, container, status);
        in_backoff(facts, container, status, now).filter(|_| is_over)?;
        Some((
            container.name.clone(),
            status.finished_at.unwrap_or(status.created_at),
        ))
    });
    waiting.collect()
}

/// State of a container that ended and will be started again.
fn waiting_again(
    facts: &Facts<'_>,
    container: &Container,
    status: &ContainerStatus,
    now: Timestamp,
) -> ApiState {
    if let Some(problem) = facts.memory.problems.get(&container.name) {
        let (reason, message) = problem.shown(now);
        return waiting_state(reason, Some(message));
    }
    match (
        in_backoff(facts, container, status, now),
        facts.memory.backoff.get(&container.name),
    ) {
        (Some(_), Some(held)) => waiting_state(
            "CrashLoopBackOff",
            Some(backoff_message(facts.pod, container, held.delay)),
        ),
        (_, _) => terminated(status),
    }
}

/// Text of the back-off, as Go prints durations.
pub(crate) fn backoff_message(pod: &Pod, container: &Container, delay: std::time::Duration) -> String {
    let (minutes, seconds) = (delay.as_secs() / 60, delay.as_secs() % 60);
    let delay = if minutes > 0 {
        format!("{minutes}m{seconds}s")
    } else {
        format!("{seconds}s")
    };
    format!(
        "back-off {delay} restarting failed container={} pod={}",
        container.name,
        super::display(pod)
    )
}

struct Verdict {
    kind: &'static str,
    is_true: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn of(kind: &'static str, is_true: bool) -> Self {
        Self {
            kind,
            is_true,
            reason: None,
            message: None,
        }
    }
}

fn conditions(facts: &Facts<'_>, phase: &str, now: Timestamp) -> Vec<PodCondition> {
    let held = facts
        .pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let has_sandbox = facts
        .sandboxes
        .iter()
        .any(|sandbox| sandbox.state == SandboxState::Ready);
    let mut verdicts = vec![
        Verdict::of("PodReadyToStartContainers", has_sandbox),
        initialized(facts, phase),
        readiness(facts, phase, "Ready"),
        readiness(facts, phase, "ContainersReady"),
    ];
    // It is here, so it was scheduled, whatever was said of earlier attempts.
    if !held
        .iter()
        .any(|condition| condition.type_ == "PodScheduled" && condition.status == "True")
    {
        verdicts.push(Verdict::of("PodScheduled", true));
    }
    let ours: Vec<&str> = verdicts.iter().map(|verdict| verdict.kind).collect();
    let kept = held
        .iter()
        .filter(|condition| !ours.contains(&condition.type_.as_str()))
        .cloned();
    let generation = facts.pod.metadata.generation;
    let made = verdicts.iter().map(|verdict| {
        let status = if verdict.is_true { "True" } else { "False" };
        let before = held
            .iter()
            .find(|condition| condition.type_ == verdict.kind && condition.status == status);
        PodCondition {
            type_: verdict.kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.map(str::to_owned),
            message: verdict.message.clone(),
            last_transition_time: before
                .and_then(|before| before.last_transition_time.clone())
                .or(Some(Time(now))),
            last_probe_time: None,
            observed_generation: generation,
        }
    });
    made.chain(kept).collect()
}

fn initialized(facts: &Facts<'_>, phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return Verdict {
            reason: Some("PodCompleted"),
            ..Verdict::of("Initialized", true)
        };
    }
    let incomplete = incomplete_init(facts.pod, facts.containers, facts.memory);
    if incomplete.is_empty() {
        return Verdict::of("Initialized", true);
    }
    Verdict {
        reason: Some("ContainersNotInitialized"),
        message: Some(format!(
            "containers with incomplete status: [{}]",
            incomplete.join(" ")
        )),
        ..Verdict::of("Initialized", false)
    }
}

fn readiness(facts: &Facts<'_>, phase: &str, kind: &'static str) -> Verdict {
    match phase {
        "Succeeded" => {
            return Verdict {
                reason: Some("PodCompleted"),
                ..Verdict::of(kind, false)
            };
        }
        "Failed" => {
            return Verdict {
                reason: Some("PodFailed"),
                ..Verdict::of(kind, false)
            };
        }
        _ => {}
    }
    let sidecars = init_containers(facts.pod)
        .iter()
        .filter(|container| is_sidecar(container));
    let unready: Vec<String> = sidecars
        .chain(main_containers(facts.pod))
        .filter(|container| {
            !latest(facts.containers, &container.name)
                .is_some_and(|status| ready(container, status, facts.memory))
        })
        .map(|container| container.name.clone())
        .collect();
    if unready.is_empty() {
        return Verdict::of(kind, true);
    }
    Verdict {
        reason: Some("ContainersNotReady"),
        message: Some(format!("containers with unready status: [{}]", unready.join(" "))),
        ..Verdict::of(kind, false)
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;

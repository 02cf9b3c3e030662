//! What to do next about one pod. Pure.
//!
//! ```text
//!  living:  sandbox ──> init containers, one after the other ──> main containers ──exit──> again, by policy
//!  ending:  stop containers ──> stop sandbox ──> release volumes ──> remove what is left ──> delete from the API
//!  done:    the same as ending, up to releasing volumes: logs stay until the pod is deleted
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use moorline_container_runtime::{
    ContainerId, ContainerState, ContainerStatus, Sandbox, SandboxId, SandboxState,
};

use super::backoff::{Limits, RestartBackoff};
use super::memory::Memory;
use super::status::{is_done, started};
use super::{find_container, init_containers, is_sidecar, main_containers};

/// A stop that would come this much earlier replaces the one under way.
const SHORTER: SignedDuration = SignedDuration::from_secs(1);
/// Grace of containers that are restarted or whose pod is gone without having named one.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// What is to become of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Live,
    /// Its containers have ended for good, or the API says so.
    Done,
    /// Deleted; what lives at `kill_at` is killed.
    End {
        kill_at: Timestamp,
        is_in_api: bool,
    },
}

/// Everything a decision about a pod rests on.
#[derive(Debug, Clone)]
pub(crate) struct Seen<'a> {
    pub pod: &'a Pod,
    pub fate: Fate,
    /// All of the pod's, oldest first.
    pub sandboxes: &'a [Sandbox],
    /// All of the pod's, oldest first.
    pub containers: &'a [ContainerStatus],
    pub are_volumes_ready: bool,
    /// The volume manager was told that the containers are dead.
    pub are_volumes_released: bool,
    /// Nothing of the pod's volumes is left.
    pub are_volumes_gone: bool,
    pub has_directory: bool,
    pub memory: &'a Memory,
    pub backoff: Limits,
}

/// Why a container is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    PodEnds,
    ProbeFailed,
    MainContainersEnded,
}

/// One step. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    StartSandbox {
        attempt: u32,
    },
    StartContainer {
        name: String,
        attempt: u32,
        after: Option<Timestamp>,
    },
    StopContainer {
        id: ContainerId,
        name: String,
        grace: Duration,
        reason: StopReason,
    },
    RemoveContainer(ContainerId),
    StopSandbox(SandboxId),
    RemoveSandbox(SandboxId),
    ReleaseVolumes,
    RemoveDirectory,
    DeleteFromApi,
}

/// The outcome of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    Do(Vec<Action>),
    /// Until something changes, or that time.
    Wait {
        until: Option<Timestamp>,
    },
    /// Nothing is left of it.
    Gone,
}

/// Decides.
pub(crate) fn decide(seen: &Seen<'_>, now: Timestamp) -> Next {
    match seen.fate {
        Fate::Live => live(seen, now),
        Fate::Done => done(seen, now),
        Fate::End { kill_at, is_in_api } => end(seen, kill_at, is_in_api, now),
    }
}

fn is_running(status: &&ContainerStatus) -> bool {
    status.state == ContainerState::Running
}

fn until(kill_at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(kill_at.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// Steps that stop what runs: main containers at once, sidecars after them. `None` when nothing runs.
fn stop_all(seen: &Seen<'_>, kill_at: Timestamp, now: Timestamp) -> Option<Vec<Action>> {
    let running: Vec<&ContainerStatus> = seen.containers.iter().filter(is_running).collect();
    if running.is_empty() {
        return None;
    }
    let is_side = |status: &ContainerStatus| find_container(seen.pod, &status.name).is_some_and(is_sidecar);
    let has_main = running.iter().any(|status| !is_side(status));
    let now_due = running.into_iter().filter(|status| !has_main || !is_side(status));
    let stops = now_due.filter(|status| {
        let under_way = seen.memory.stopping.get(&status.id);
        under_way.is_none_or(|deadline| deadline.duration_since(kill_at) > SHORTER)
    });
    Some(
        stops
            .map(|status| stop(status, until(kill_at, now), StopReason::PodEnds))
            .collect(),
    )
}

fn stop(status: &ContainerStatus, grace: Duration, reason: StopReason) -> Action {
    Action::StopContainer {
        id: status.id.clone(),
        name: status.name.clone(),
        grace,
        reason,
    }
}

/// Stops containers and sandbox, then has the volumes released; `None` when that is all done.
fn tear_down(seen: &Seen<'_>, kill_at: Timestamp, now: Timestamp) -> Option<Next> {
    if let Some(stops) = stop_all(seen, kill_at, now) {
        return Some(if stops.is_empty() {
            Next::Wait { until: None }
        } else {
            Next::Do(stops)
        });
    }
    let ready = seen
        .sandboxes
        .iter()
        .filter(|sandbox| sandbox.state == SandboxState::Ready);
    let stops: Vec<Action> = ready
        .map(|sandbox| Action::StopSandbox(sandbox.id.clone()))
        .collect();
    if !stops.is_empty() {
        return Some(Next::Do(stops));
    }
    (!seen.are_volumes_released).then(|| Next::Do(vec![Action::ReleaseVolumes]))
}

fn done(seen: &Seen<'_>, now: Timestamp) -> Next {
    let grace = seen
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    let grace = grace.map_or(
        SignedDuration::try_from(DEFAULT_GRACE).unwrap_or_default(),
        SignedDuration::from_secs,
    );
    let kill_at = now.saturating_add(grace).unwrap_or(now);
    tear_down(seen, kill_at, now).unwrap_or(Next::Wait { until: None })
}

fn end(seen: &Seen<'_>, kill_at: Timestamp, is_in_api: bool, now: Timestamp) -> Next {
    if let Some(next) = tear_down(seen, kill_at, now) {
        return next;
    }
    if !seen.are_volumes_gone {
        return Next::Wait { until: None };
    }
    let mut removals: Vec<Action> = seen
        .sandboxes
        .iter()
        .map(|sandbox| Action::RemoveSandbox(sandbox.id.clone()))
        .collect();
    if seen.has_directory {
        removals.push(Action::RemoveDirectory);
    }
    if !removals.is_empty() {
        return Next::Do(removals);
    }
    if is_in_api {
        Next::Do(vec![Action::DeleteFromApi])
    } else {
        Next::Gone
    }
}

/// Steps gathered for a living pod, and the earliest time at which another look is needed.
#[derive(Default)]
struct Plan {
    actions: Vec<Action>,
    until: Option<Timestamp>,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.until = Some(self.until.map_or(at, |held| held.min(at)));
    }
}

fn live(seen: &Seen<'_>, now: Timestamp) -> Next {
    let ready = seen
        .sandboxes
        .iter()
        .rev()
        .find(|sandbox| sandbox.state == SandboxState::Ready);
    let Some(sandbox) = ready else {
        return no_sandbox(seen, now);
    };
    let mut plan = Plan::default();
    tidy(seen, sandbox, &mut plan);
    stop_failed(seen, sandbox, &mut plan);
    let is_initialized = initialize(seen, sandbox, now, &mut plan);
    if is_initialized {
        for container in main_containers(seen.pod) {
            advance(seen, sandbox, container, now, &mut plan);
        }
        stop_sidecars_of_ended(seen, sandbox, &mut plan);
    }
    if plan.actions.is_empty() {
        Next::Wait { until: plan.until }
    } else {
        Next::Do(plan.actions)
    }
}

fn no_sandbox(seen: &Seen<'_>, now: Timestamp) -> Next {
    if let Some(problem) = seen
        .memory
        .sandbox_problem
        .as_ref()
        .filter(|problem| problem.until() > now)
    {
        return Next::Wait {
            until: Some(problem.until()),
        };
    }
    let attempt = seen
        .sandboxes
        .iter()
        .map(|sandbox| sandbox.attempt + 1)
        .max()
        .unwrap_or(0);
    Next::Do(vec![Action::StartSandbox { attempt }])
}

/// Of each container the last two ends are kept, of sandboxes the one before.
fn tidy(seen: &Seen<'_>, current: &Sandbox, plan: &mut Plan) {
    for sandbox in seen
        .sandboxes
        .iter()
        .filter(|sandbox| sandbox.attempt + 1 < current.attempt)
    {
        plan.actions.push(Action::RemoveSandbox(sandbox.id.clone()));
    }
    for status in seen
        .containers
        .iter()
        .filter(|status| status.state == ContainerState::Exited)
    {
        let newer = seen
            .containers
            .iter()
            .filter(|other| other.name == status.name && other.attempt > status.attempt);
        if newer.count() >= 2 {
            plan.actions.push(Action::RemoveContainer(status.id.clone()));
        }
    }
}

/// The newest container of a name in the sandbox.
fn latest<'a>(seen: &Seen<'a>, sandbox: &Sandbox, name: &str) -> Option<&'a ContainerStatus> {
    let held = seen
        .containers
        .iter()
        .filter(|status| status.name == name && status.sandbox_id == sandbox.id);
    held.max_by_key(|status| status.attempt)
}

/// The attempt after all that ever were, in any sandbox.
fn next_attempt(seen: &Seen<'_>, name: &str) -> u32 {
    seen.containers
        .iter()
        .filter(|status| status.name == name)
        .map(|status| status.attempt + 1)
        .max()
        .unwrap_or(0)
}

fn stop_failed(seen: &Seen<'_>, sandbox: &Sandbox, plan: &mut Plan) {
    for status in seen
        .containers
        .iter()
        .filter(is_running)
        .filter(|status| status.sandbox_id == sandbox.id)
    {
        let has_failed = seen
            .memory
            .probes
            .get(&status.id)
            .is_some_and(|results| results.has_failed);
        if has_failed && !seen.memory.stopping.contains_key(&status.id) {
            let spec = seen.pod.spec.as_ref();
            let seconds = spec.and_then(|spec| spec.termination_grace_period_seconds);
            let grace = seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map(Duration::from_secs);
            plan.actions.push(stop(
                status,
                grace.unwrap_or(DEFAULT_GRACE),
                StopReason::ProbeFailed,
            ));
        }
    }
}

/// Takes init containers a step further; true when the main containers' time has come.
fn initialize(seen: &Seen<'_>, sandbox: &Sandbox, now: Timestamp, plan: &mut Plan) -> bool {
    let has_begun = main_containers(seen.pod)
        .iter()
        .any(|container| latest(seen, sandbox, &container.name).is_some());
    for container in init_containers(seen.pod) {
        let held = latest(seen, sandbox, &container.name);
        if is_sidecar(container) {
            advance(seen, sandbox, container, now, plan);
            let is_started = held.is_some_and(|status| started(container, status, seen.memory));
            if !is_started && !has_begun {
                return false;
            }
            continue;
        }
        // Main containers were there, so this one has done its work; it may have been removed since.
        if has_begun {
            continue;
        }
        let is_over =
            held.is_some_and(|status| status.state == ContainerState::Exited && status.exit_code == Some(0));
        if !is_over {
            advance(seen, sandbox, container, now, plan);
            return false;
        }
    }
    true
}

/// One container a step further: start it, start it again, or nothing.
fn advance(seen: &Seen<'_>, sandbox: &Sandbox, container: &Container, now: Timestamp, plan: &mut Plan) {
    let name = &container.name;
    let (attempt, after) = match latest(seen, sandbox, name) {
        None => (next_attempt(seen, name), None),
        Some(status) => match status.state {
            ContainerState::Running => return,
            ContainerState::Created => (status.attempt, None),
            ContainerState::Exited => {
                if !restarts(seen.pod, container, status) {
                    return;
                }
                let finished_at = status.finished_at.unwrap_or(status.created_at);
                let held = seen.memory.backoff.get(name).copied();
                if let Some(until) =
                    RestartBackoff::until(held, finished_at, seen.backoff).filter(|until| *until > now)
                {
                    plan.wake(until);
                    return;
                }
                (status.attempt + 1, Some(finished_at))
            }
        },
    };
    if let Some(problem) = seen
        .memory
        .problems
        .get(name)
        .filter(|problem| problem.until() > now)
    {
        plan.wake(
            problem
                .turns_at()
                .filter(|at| *at > now)
                .unwrap_or(problem.until()),
        );
        return;
    }
    if seen.are_volumes_ready {
        plan.actions.push(Action::StartContainer {
            name: name.clone(),
            attempt,
            after,
        });
    }
}

/// Whether a container that ended is started again.
pub(crate) fn restarts(pod: &Pod, container: &Container, status: &ContainerStatus) -> bool {
    if is_sidecar(container) {
        return true;
    }
    let is_init = init_containers(pod)
        .iter()
        .any(|held| held.name == container.name);
    let policy = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
        .unwrap_or("Always");
    match policy {
        "Never" => false,
        "OnFailure" => status.exit_code != Some(0),
        // An init container that succeeded has done its work.
        _ => !is_init || status.exit_code != Some(0),
    }
}

fn stop_sidecars_of_ended(seen: &Seen<'_>, sandbox: &Sandbox, plan: &mut Plan) {
    if !is_done(seen.pod, seen.containers) {
        return;
    }
    plan.actions
        .retain(|action| !matches!(action, Action::StartContainer { .. }));
    for container in init_containers(seen.pod)
        .iter()
        .filter(|container| is_sidecar(container))
    {
        let held = latest(seen, sandbox, &container.name).filter(is_running);
        if let Some(status) = held.filter(|status| !seen.memory.stopping.contains_key(&status.id)) {
            plan.actions
                .push(stop(status, DEFAULT_GRACE, StopReason::MainContainersEnded));
        }
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

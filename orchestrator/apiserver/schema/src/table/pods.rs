//! Pods: how many containers are ready, what state the pod is in, how often it restarted.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, age, is_terminating, name, object_age, text_or};
use crate::object::{at, list, text};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::text("Ready", "How many containers are ready, of how many."),
    Column::text("Status", "The state of the pod and its containers in one word."),
    Column::text("Restarts", "How often containers were restarted, and when last."),
    AGE,
    Column::text("IP", "Address of the pod.").wide(),
    Column::text("Node", "Node on which the pod runs.").wide(),
    Column::text("Nominated Node", "Node on which room is being made for the pod.").wide(),
    Column::text(
        "Readiness Gates",
        "How many further conditions of readiness hold, of how many.",
    )
    .wide(),
];

pub(super) fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let seen = summary(pod);
    let restarts = match seen.last_restart {
        Some(last) if seen.restarts != 0 => format!("{} ({} ago)", seen.restarts, age::since(last, now)),
        _ => seen.restarts.to_string(),
    };
    vec![
        name(pod),
        format!("{}/{}", seen.ready, seen.total).into(),
        seen.status.into(),
        restarts.into(),
        object_age(pod, now),
        address(pod).into(),
        text_or(pod, &["spec", "nodeName"], "<none>").into(),
        text_or(pod, &["status", "nominatedNodeName"], "<none>").into(),
        readiness_gates(pod).into(),
    ]
}

fn address(pod: &Value) -> &str {
    let first = list(pod, &["status", "podIPs"])
        .first()
        .map_or("", |one| text(one, &["ip"]));
    if first.is_empty() {
        text_or(pod, &["status", "podIP"], "<none>")
    } else {
        first
    }
}

struct Summary<'a> {
    ready: usize,
    total: usize,
    status: String,
    restarts: i64,
    last_restart: Option<&'a str>,
}

fn summary(pod: &Value) -> Summary<'_> {
    let is_sidecar = |name: &str| {
        let mut containers = list(pod, &["spec", "initContainers"]).iter();
        containers.any(|one| text(one, &["name"]) == name && text(one, &["restartPolicy"]) == "Always")
    };
    let sidecars = list(pod, &["spec", "initContainers"])
        .iter()
        .filter(|one| is_sidecar(text(one, &["name"])));
    let mut seen = Summary {
        ready: 0,
        total: list(pod, &["spec", "containers"]).len() + sidecars.count(),
        status: phase(pod).to_owned(),
        restarts: 0,
        last_restart: None,
    };
    let initializing = look_at_init_containers(pod, &is_sidecar, &mut seen);
    if !initializing || condition(pod, "Initialized") == Some("True") {
        // From here on only restarts of sidecars and main containers count.
        let statuses = list(pod, &["status", "initContainerStatuses"]).iter();
        let running_along: Vec<&Value> = statuses.filter(|one| is_sidecar(text(one, &["name"]))).collect();
        (seen.restarts, seen.last_restart) = (0, None);
        running_along
            .iter()
            .for_each(|one| count_restarts(one, &mut seen));
        look_at_containers(pod, &mut seen);
    }
    if is_terminating(pod) {
        if text(pod, &["status", "reason"]) == "NodeLost" {
            "Unknown".clone_into(&mut seen.status);
        } else if !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut seen.status);
        }
    }
    seen
}

fn phase(pod: &Value) -> &str {
    let gated = list(pod, &["status", "conditions"])
        .iter()
        .any(|one| text(one, &["type"]) == "PodScheduled" && text(one, &["reason"]) == "SchedulingGated");
    if gated {
        "SchedulingGated"
    } else {
        text_or(pod, &["status", "reason"], text(pod, &["status", "phase"]))
    }
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a str> {
    let mut conditions = list(pod, &["status", "conditions"]).iter();
    conditions
        .find(|one| text(one, &["type"]) == kind)
        .map(|one| text(one, &["status"]))
}

fn count_restarts<'a>(status: &'a Value, seen: &mut Summary<'a>) {
    seen.restarts += status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
    let finished = text(status, &["lastState", "terminated", "finishedAt"]);
    // Times of the API have one form, so that the later one is also the greater text.
    if !finished.is_empty() && seen.last_restart.is_none_or(|last| last < finished) {
        seen.last_restart = Some(finished);
    }
}

/// Why a container ended, with a word for those that didn't say.
fn end_of(terminated: &Value) -> String {
    let number = |field: &str| terminated.get(field).and_then(Value::as_i64).unwrap_or(0);
    match (text(terminated, &["reason"]), number("signal")) {
        ("", 0) => format!("ExitCode:{}", number("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Says whether the pod is still (or again) at its init containers; then the status tells at which.
fn look_at_init_containers<'a>(
    pod: &'a Value,
    is_sidecar: &dyn Fn(&str) -> bool,
    seen: &mut Summary<'a>,
) -> bool {
    let count = list(pod, &["spec", "initContainers"]).len();
    for (index, status) in list(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
        count_restarts(status, seen);
        let terminated = at(status, &["state", "terminated"]);
        let exit_code = terminated.map(|ended| ended.get("exitCode").and_then(Value::as_i64).unwrap_or(0));
        let started = status.get("started").and_then(Value::as_bool) == Some(true);
        let waiting = text(status, &["state", "waiting", "reason"]);
        match (terminated, exit_code) {
            (Some(_), Some(0)) => continue,
            _ if is_sidecar(text(status, &["name"])) && started => {
                seen.ready += usize::from(super::flag(status, &["ready"], false));
                continue;
            }
            (Some(ended), _) => seen.status = format!("Init:{}", end_of(ended)),
            (None, _) if !matches!(waiting, "" | "PodInitializing") => {
                seen.status = format!("Init:{waiting}")
            }
            (None, _) => seen.status = format!("Init:{index}/{count}"),
        }
        return true;
    }
    false
}

fn look_at_containers<'a>(pod: &'a Value, seen: &mut Summary<'a>) {
    let mut any_running = false;
    for status in list(pod, &["status", "containerStatuses"]).iter().rev() {
        count_restarts(status, seen);
        let waiting = text(status, &["state", "waiting", "reason"]);
        if !waiting.is_empty() {
            waiting.clone_into(&mut seen.status);
        } else if let Some(ended) = at(status, &["state", "terminated"]) {
            seen.status = end_of(ended);
        } else if super::flag(status, &["ready"], false) && at(status, &["state", "running"]).is_some() {
            any_running = true;
            seen.ready += 1;
        }
    }
    if seen.status == "Completed" && any_running {
        let ready = condition(pod, "Ready") == Some("True");
        if ready { "Running" } else { "NotReady" }.clone_into(&mut seen.status);
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let holding = gates
        .iter()
        .filter(|gate| condition(pod, text(gate, &["conditionType"])) == Some("True"));
    format!("{}/{}", holding.count(), gates.len())
}

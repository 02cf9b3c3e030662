//! Workloads: what makes pods from a template, and how many of them there are.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, age, is_terminating, labels, name, object_age, text_or};
use crate::object::{at, list, map, text};
use crate::selector::{describe, describe_labels};
use crate::time;

const CONTAINERS: Column = Column::text("Containers", "Names of the containers in the template.").wide();
const IMAGES: Column = Column::text("Images", "Images of the containers in the template.").wide();
const SELECTOR: Column = Column::text("Selector", "Which pods belong to it.").wide();

fn count(object: &Value, path: &[&str]) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

/// Names and images of the containers of a template's spec.
fn containers(spec: Option<&Value>) -> [Value; 2] {
    let joined = |field: &str| -> Value {
        let containers = spec.map_or(&[][..], |spec| list(spec, &["containers"]));
        let all: Vec<&str> = containers.iter().map(|one| text(one, &[field])).collect();
        all.join(",").into()
    };
    [joined("name"), joined("image")]
}

fn template(object: &Value) -> Option<&Value> {
    at(object, &["spec", "template", "spec"])
}

fn or_none(text: String) -> Value {
    if text.is_empty() {
        "<none>".into()
    } else {
        text.into()
    }
}

/// The `LabelSelector` at a path.
fn selector(object: &Value, path: &[&str]) -> Value {
    or_none(at(object, path).map(describe).unwrap_or_default())
}

pub(super) const DEPLOYMENT_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Ready", "How many pods are ready, of how many wanted."),
    Column::text("Up-to-date", "How many pods are made from the current template."),
    Column::text("Available", "How many pods have been ready for long enough."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn deployment_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(template(object));
    vec![
        name(object),
        ready(object),
        count(object, &["status", "updatedReplicas"]).into(),
        count(object, &["status", "availableReplicas"]).into(),
        object_age(object, now),
        names,
        images,
        selector(object, &["spec", "selector"]),
    ]
}

fn ready(object: &Value) -> Value {
    let (ready, wanted) = (["status", "readyReplicas"], ["spec", "replicas"]);
    format!("{}/{}", count(object, &ready), count(object, &wanted)).into()
}

pub(super) const REPLICAS_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Desired", "How many pods are wanted.").of("integer"),
    Column::text("Current", "How many pods there are.").of("integer"),
    Column::text("Ready", "How many pods are ready.").of("integer"),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn replicas_row(object: &Value, selector: Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(template(object));
    vec![
        name(object),
        count(object, &["spec", "replicas"]).into(),
        count(object, &["status", "replicas"]).into(),
        count(object, &["status", "readyReplicas"]).into(),
        object_age(object, now),
        names,
        images,
        selector,
    ]
}

pub(super) fn replica_set_row(object: &Value, now: Timestamp) -> Vec<Value> {
    replicas_row(object, selector(object, &["spec", "selector"]), now)
}

pub(super) fn replication_controller_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let labels = map(object, &["spec", "selector"]).map(describe_labels);
    replicas_row(object, or_none(labels.unwrap_or_default()), now)
}

pub(super) const STATEFUL_SET_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Ready", "How many pods are ready, of how many wanted."),
    AGE,
    CONTAINERS,
    IMAGES,
];

pub(super) fn stateful_set_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(template(object));
    vec![
        name(object),
        ready(object),
        object_age(object, now),
        names,
        images,
    ]
}

pub(super) const DAEMON_SET_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Desired", "How many nodes should have a pod.").of("integer"),
    Column::text("Current", "How many nodes have a pod.").of("integer"),
    Column::text("Ready", "How many of these pods are ready.").of("integer"),
    Column::text("Up-to-date", "How many pods are made from the current template.").of("integer"),
    Column::text("Available", "How many pods have been ready for long enough.").of("integer"),
    Column::text("Node Selector", "Labels of the nodes that get a pod."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn daemon_set_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = |field: &str| -> Value { count(object, &["status", field]).into() };
    let [names, images] = containers(template(object));
    vec![
        name(object),
        status("desiredNumberScheduled"),
        status("currentNumberScheduled"),
        status("numberReady"),
        status("updatedNumberScheduled"),
        status("numberAvailable"),
        labels(object, &["spec", "template", "spec", "nodeSelector"]).into(),
        object_age(object, now),
        names,
        images,
        selector(object, &["spec", "selector"]),
    ]
}

pub(super) const REVISION_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Controller", "Whose revision it is."),
    Column::text("Revision", "Its number.").of("integer"),
    AGE,
];

pub(super) fn revision_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut owners = list(object, &["metadata", "ownerReferences"]).iter();
    let controller = owners.find(|owner| at(owner, &["controller"]).and_then(Value::as_bool) == Some(true));
    let controller = controller.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let kind = text(owner, &["kind"]).to_lowercase();
            let group = text(owner, &["apiVersion"])
                .split_once('/')
                .map(|(group, _)| group);
            let dot = if group.is_some() { "." } else { "" };
            format!(
                "{kind}{dot}{}/{}",
                group.unwrap_or_default(),
                text(owner, &["name"])
            )
        },
    );
    vec![
        name(object),
        controller.into(),
        count(object, &["revision"]).into(),
        object_age(object, now),
    ]
}

pub(super) const POD_TEMPLATE_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Containers", "Names of the containers in the template."),
    Column::text("Images", "Images of the containers in the template."),
    Column::text("Pod Labels", "Labels of the pods made from it."),
];

pub(super) fn pod_template_row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(at(object, &["template", "spec"]));
    vec![
        name(object),
        names,
        images,
        labels(object, &["template", "metadata", "labels"]).into(),
    ]
}

pub(super) const JOB_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Status", "Whether it runs, or how it ended."),
    Column::text("Completions", "How many pods succeeded, of how many wanted."),
    Column::text("Duration", "How long it has run, or ran."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn job_row(job: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(template(job));
    vec![
        name(job),
        job_status(job).into(),
        completions(job).into(),
        duration(job, now).into(),
        object_age(job, now),
        names,
        images,
        selector(job, &["spec", "selector"]),
    ]
}

fn job_status(job: &Value) -> &'static str {
    let is_true = |kind: &str| {
        let mut conditions = list(job, &["status", "conditions"]).iter();
        conditions.any(|one| text(one, &["type"]) == kind && text(one, &["status"]) == "True")
    };
    match () {
        () if is_true("Complete") => "Complete",
        () if is_true("Failed") => "Failed",
        () if is_terminating(job) => "Terminating",
        () if is_true("Suspended") => "Suspended",
        () if is_true("FailureTarget") => "FailureTarget",
        () if is_true("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let succeeded = count(job, &["status", "succeeded"]);
    match (
        at(job, &["spec", "completions"]).and_then(Value::as_i64),
        count(job, &["spec", "parallelism"]),
    ) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, ..=1) => format!("{succeeded}/1"),
        (None, parallel) => format!("{succeeded}/1 of {parallel}"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let Some(start) = time::parse(text(job, &["status", "startTime"])) else {
        return String::new();
    };
    let end = time::parse(text(job, &["status", "completionTime"])).unwrap_or(now);
    super::human_duration(end.duration_since(start).as_secs())
}

pub(super) const CRON_JOB_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Schedule", "When it makes jobs."),
    Column::text("Timezone", "The time zone of the schedule."),
    Column::text("Suspend", "Whether it makes none at present."),
    Column::text("Active", "How many of its jobs run.").of("integer"),
    Column::text("Last Schedule", "How long ago it made the last one."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn cron_job_row(cron: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(at(cron, &["spec", "jobTemplate", "spec", "template", "spec"]));
    let suspend = match at(cron, &["spec", "suspend"]).and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let last = match text(cron, &["status", "lastScheduleTime"]) {
        "" => "<none>".to_owned(),
        last => age::since(last, now),
    };
    vec![
        name(cron),
        text(cron, &["spec", "schedule"]).into(),
        text_or(cron, &["spec", "timeZone"], "<none>").into(),
        suspend.into(),
        list(cron, &["status", "active"]).len().into(),
        last.into(),
        object_age(cron, now),
        names,
        images,
        selector(cron, &["spec", "jobTemplate", "spec", "selector"]),
    ]
}

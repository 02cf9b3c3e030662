//! What limits, scales, ranks and admits other objects.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, flag, human_duration, name, object_age, text_or};
use crate::object::{at, list, map, text};

/// A number or share as it stands, or what is said if there is none.
fn number_or(object: &Value, path: &[&str], absent: &str) -> Value {
    match at(object, path) {
        None => absent.into(),
        Some(Value::String(text)) => text.as_str().into(),
        Some(number) => number.to_string().into(),
    }
}

fn count(object: &Value, path: &[&str]) -> Value {
    at(object, path).and_then(Value::as_i64).unwrap_or(0).into()
}

pub(super) const BUDGET_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Min Available", "How many pods must be there."),
    Column::text("Max Unavailable", "How many pods may be missing."),
    Column::text("Allowed Disruptions", "How many pods may be evicted now.").of("integer"),
    AGE,
];

pub(super) fn budget_row(budget: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(budget),
        number_or(budget, &["spec", "minAvailable"], "N/A"),
        number_or(budget, &["spec", "maxUnavailable"], "N/A"),
        count(budget, &["status", "disruptionsAllowed"]),
        object_age(budget, now),
    ]
}

pub(super) const QUOTA_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Request", "What is used and allowed of what is requested."),
    Column::text("Limit", "What is used and allowed of what is limited."),
    AGE,
];

pub(super) fn quota_row(quota: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in map(quota, &["status", "hard"]).into_iter().flatten() {
        let used = text_or(quota, &["status", "used", resource], "0");
        let term = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
        if resource.starts_with("limits.") {
            limits.push(term);
        } else {
            requests.push(term);
        }
    }
    vec![
        name(quota),
        requests.join(", ").into(),
        limits.join(", ").into(),
        object_age(quota, now),
    ]
}

pub(super) const PRIORITY_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Value", "The priority; higher comes first.").of("integer"),
    Column::text("Global-Default", "Whether pods without a class get it.").of("boolean"),
    AGE,
    Column::text("PreemptionPolicy", "Whether pods of lower priority give way."),
];

pub(super) fn priority_row(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(class),
        count(class, &["value"]),
        flag(class, &["globalDefault"], false).into(),
        object_age(class, now),
        text(class, &["preemptionPolicy"]).into(),
    ]
}

pub(super) const RUNTIME_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Handler", "The runtime's own name for it."),
    AGE,
];

pub(super) fn runtime_row(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(class),
        text(class, &["handler"]).into(),
        object_age(class, now),
    ]
}

pub(super) const AUTOSCALER_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Reference", "What is scaled."),
    Column::text("Targets", "What is measured, and what is aimed at."),
    Column::text("MinPods", "The least number of pods."),
    Column::text("MaxPods", "The largest number of pods.").of("integer"),
    Column::text("Replicas", "How many pods there are.").of("integer"),
    AGE,
];

pub(super) fn autoscaler_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let target = |field: &str| text(object, &["spec", "scaleTargetRef", field]);
    vec![
        name(object),
        format!("{}/{}", target("kind"), target("name")).into(),
        targets(object).into(),
        number_or(object, &["spec", "minReplicas"], "<unset>"),
        count(object, &["spec", "maxReplicas"]),
        count(object, &["status", "currentReplicas"]),
        object_age(object, now),
    ]
}

/// The metrics by which it is scaled; more than two are only counted.
fn targets(object: &Value) -> String {
    const SHOWN: usize = 2;
    let metrics = list(object, &["spec", "metrics"]);
    let current = list(object, &["status", "currentMetrics"]);
    let mut terms: Vec<String> = Vec::new();
    for (index, metric) in metrics.iter().take(SHOWN).enumerate() {
        let kind = text(metric, &["type"]);
        let mut field = kind.to_owned();
        if let Some(first) = field.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        let aim = at(metric, &[&field, "target"]).cloned().unwrap_or_default();
        let now = current
            .get(index)
            .and_then(|one| at(one, &[&field, "current"]))
            .cloned()
            .unwrap_or_default();
        let resource = text(metric, &[&field, "name"]);
        let prefix = if resource.is_empty() {
            String::new()
        } else {
            format!("{resource}: ")
        };
        terms.push(format!(
            "{prefix}{}/{}",
            measure(&now, "<unknown>"),
            measure(&aim, "<auto>")
        ));
    }
    match metrics.len() {
        0 => "<none>".to_owned(),
        1..=SHOWN => terms.join(", "),
        count => format!("{} + {} more...", terms.join(", "), count - SHOWN),
    }
}

fn measure(value: &Value, absent: &str) -> String {
    if let Some(share) = at(value, &["averageUtilization"]) {
        return format!("{share}%");
    }
    match (text(value, &["averageValue"]), text(value, &["value"])) {
        ("", "") => absent.to_owned(),
        ("", value) => value.to_owned(),
        (average, _) => average.to_owned(),
    }
}

pub(super) const REQUEST_COLUMNS: &[Column] = &[
    NAME,
    AGE,
    Column::text("SignerName", "Who is asked to sign."),
    Column::text("Requestor", "Who asks."),
    Column::text("RequestedDuration", "How long the certificate should hold."),
    Column::text("Condition", "What was decided."),
];

pub(super) fn request_row(request: &Value, now: Timestamp) -> Vec<Value> {
    let seconds = at(request, &["spec", "expirationSeconds"]).and_then(Value::as_i64);
    let has = |kind: &str| {
        let mut conditions = list(request, &["status", "conditions"]).iter();
        conditions.any(|one| text(one, &["type"]) == kind)
    };
    let mut words = Vec::new();
    match (has("Denied"), has("Approved")) {
        (true, _) => words.push("Denied"),
        (false, true) => words.push("Approved"),
        (false, false) => words.push("Pending"),
    }
    if has("Failed") {
        words.push("Failed");
    }
    if !text(request, &["status", "certificate"]).is_empty() {
        words.push("Issued");
    }
    vec![
        name(request),
        object_age(request, now),
        text_or(request, &["spec", "signerName"], "<none>").into(),
        text(request, &["spec", "username"]).into(),
        seconds.map_or_else(|| "<none>".to_owned(), human_duration).into(),
        words.join(",").into(),
    ]
}

pub(super) const WEBHOOKS_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Webhooks", "How many webhooks there are.").of("integer"),
    AGE,
];

pub(super) fn webhooks_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        list(object, &["webhooks"]).len().into(),
        object_age(object, now),
    ]
}

pub(super) const VALIDATING_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Validations", "How many rules there are.").of("integer"),
    Column::text("ParamKind", "The kind of its parameters."),
    AGE,
];
pub(super) const MUTATING_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Mutations", "How many changes there are.").of("integer"),
    Column::text("ParamKind", "The kind of its parameters."),
    AGE,
];

pub(super) fn validating_row(policy: &Value, now: Timestamp) -> Vec<Value> {
    policy_row(policy, "validations", now)
}

pub(super) fn mutating_row(policy: &Value, now: Timestamp) -> Vec<Value> {
    policy_row(policy, "mutations", now)
}

fn policy_row(policy: &Value, rules: &str, now: Timestamp) -> Vec<Value> {
    let parameters = at(policy, &["spec", "paramKind"]).map_or_else(
        || "<unset>".to_owned(),
        |kind| format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"])),
    );
    vec![
        name(policy),
        list(policy, &["spec", rules]).len().into(),
        parameters.into(),
        object_age(policy, now),
    ]
}

pub(super) const POLICY_BINDING_COLUMNS: &[Column] = &[
    NAME,
    Column::text("PolicyName", "The policy that is put to use."),
    Column::text("ParamRef", "Its parameters."),
    AGE,
];

pub(super) fn policy_binding_row(binding: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = at(binding, &["spec", "paramRef"]).map_or_else(
        || "<unset>".to_owned(),
        |reference| match (text(reference, &["namespace"]), text(reference, &["name"])) {
            (_, "") => "*".to_owned(),
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        },
    );
    vec![
        name(binding),
        text(binding, &["spec", "policyName"]).into(),
        parameters.into(),
        object_age(binding, now),
    ]
}

pub(super) const API_SERVICE_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Service", "The service behind it; local is this server."),
    Column::text("Available", "Whether it answers."),
    AGE,
];

pub(super) fn api_service_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = at(object, &["spec", "service"]).map_or_else(
        || "Local".to_owned(),
        |service| format!("{}/{}", text(service, &["namespace"]), text(service, &["name"])),
    );
    let mut conditions = list(object, &["status", "conditions"]).iter();
    let available = conditions.find(|one| text(one, &["type"]) == "Available");
    let available = available.map_or_else(
        || "Unknown".to_owned(),
        |one| match (text(one, &["status"]), text(one, &["reason"])) {
            ("True", _) => "True".to_owned(),
            (status, reason) => format!("{status} ({reason})"),
        },
    );
    vec![
        name(object),
        service.into(),
        available.into(),
        object_age(object, now),
    ]
}

pub(super) const FLOW_COLUMNS: &[Column] = &[
    NAME,
    Column::text("PriorityLevel", "The level its requests belong to."),
    Column::text("MatchingPrecedence", "Lower ones are looked at first.").of("integer"),
    Column::text("DistinguisherMethod", "How flows are told apart."),
    AGE,
    Column::text("MissingPL", "Whether the level is missing."),
];

pub(super) fn flow_row(flow: &Value, now: Timestamp) -> Vec<Value> {
    let mut conditions = list(flow, &["status", "conditions"]).iter();
    let dangling = conditions.find(|one| text(one, &["type"]) == "Dangling");
    vec![
        name(flow),
        text(flow, &["spec", "priorityLevelConfiguration", "name"]).into(),
        count(flow, &["spec", "matchingPrecedence"]),
        text_or(flow, &["spec", "distinguisherMethod", "type"], "<none>").into(),
        object_age(flow, now),
        dangling.map_or("?", |one| text(one, &["status"])).into(),
    ]
}

pub(super) const LEVEL_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Type", "Whether it is limited."),
    Column::text("NominalConcurrencyShares", "Its share of the server's time."),
    Column::text("Queues", "How many queues it has."),
    Column::text("HandSize", "How many queues a flow may use."),
    Column::text("QueueLengthLimit", "How long a queue may become."),
    AGE,
];

pub(super) fn level_row(level: &Value, now: Timestamp) -> Vec<Value> {
    let queuing = |field: &str| {
        let path = ["spec", "limited", "limitResponse", "queuing", field];
        number_or(level, &path, "<none>")
    };
    vec![
        name(level),
        text(level, &["spec", "type"]).into(),
        number_or(level, &["spec", "limited", "nominalConcurrencyShares"], "<none>"),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        object_age(level, now),
    ]
}

pub(super) const AGED_COLUMNS: &[Column] = &[NAME, AGE];

pub(super) fn aged_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), object_age(object, now)]
}

pub(super) const DEVICE_CLAIM_COLUMNS: &[Column] = &[
    NAME,
    Column::text("State", "Whether devices were found, and are in use."),
    AGE,
];

pub(super) fn device_claim_row(claim: &Value, now: Timestamp) -> Vec<Value> {
    let mut states = Vec::new();
    if super::is_terminating(claim) {
        states.push("deleted");
    }
    if at(claim, &["status", "allocation"]).is_none() {
        states.push("pending");
    } else {
        states.push("allocated");
        if !list(claim, &["status", "reservedFor"]).is_empty() {
            states.push("reserved");
        }
    }
    vec![name(claim), states.join(",").into(), object_age(claim, now)]
}

pub(super) const DEVICES_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Node", "Where the devices are."),
    Column::text("Driver", "Whose devices they are."),
    Column::text("Pool", "The pool they are part of."),
    AGE,
];

pub(super) fn devices_row(slice: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(slice),
        text(slice, &["spec", "nodeName"]).into(),
        text(slice, &["spec", "driver"]).into(),
        text(slice, &["spec", "pool", "name"]).into(),
        object_age(slice, now),
    ]
}

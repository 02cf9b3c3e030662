//! Jobs, and CronJobs that make them.

use serde_json::{Map, Value};

use super::faults::Faults;
use super::templates::{self, Fit};
use super::{schedules, selectors};
use crate::names;
use crate::object::{at, list, map, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");
const METADATA: Place<'static> = Place::top("metadata");
const PARALLELISM_INDEXED_MAX: i64 = 100_000;
const FAILURE_RULES_MAX: usize = 20;
const MANAGED_BY_BYTES_MAX: usize = 63;
/// The controller adds eleven characters to the name of a CronJob.
const CRON_JOB_NAME_MAX: usize = names::LABEL_LENGTH_MAX - 11;
const COUNTS: [&str; 7] = [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
];
/// The labels by which a Job finds its pods, and what of the Job they hold.
const OWN_LABELS: [(&str, &str); 4] = [
    ("batch.kubernetes.io/controller-uid", "uid"),
    ("batch.kubernetes.io/job-name", "name"),
    ("controller-uid", "uid"),
    ("job-name", "name"),
];
/// What may change in the template of a suspended Job that never ran: where its pods go.
const MAY_MOVE: [&str; 4] = ["nodeSelector", "affinity", "tolerations", "schedulingGates"];

fn flag(value: &Value, path: &[&str]) -> bool {
    at(value, path).and_then(Value::as_bool) == Some(true)
}

fn number(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// What is asked of a new Job only.
pub(super) fn new_job(job: &Value, faults: &mut Faults) {
    generated_selector(job, faults);
    let completions = number(job, &["spec", "completions"]).filter(|&count| count > 0);
    let is_indexed = text(job, &["spec", "completionMode"]) == "Indexed";
    if let Some(count) = completions.filter(|_| is_indexed) {
        // The pod with the highest index must have a host name.
        let name = text(job, &["metadata", "name"]);
        let host = format!("{name}-{}", count - 1);
        if !names::dns1123_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            faults.invalid(&METADATA.field("name"), name, &detail);
        }
    }
}

/// A selector that the server made finds exactly the pods of its Job.
fn generated_selector(job: &Value, faults: &mut Faults) {
    let Some(selector) = at(job, &["spec", "selector"]) else {
        return;
    };
    if flag(job, &["spec", "manualSelector"]) {
        return;
    }
    let template = SPEC.field("template");
    let metadata = template.field("metadata");
    let place = metadata.field("labels");
    let labels = map(job, &["spec", "template", "metadata", "labels"]);
    let mut expected = Map::new();
    for (label, field) in OWN_LABELS {
        let value = text(job, &["metadata", field]);
        expected.insert(label.to_owned(), value.into());
        let found = labels
            .and_then(|labels| labels.get(label))
            .and_then(Value::as_str);
        let detail = format!("must be '{value}'");
        match found {
            None => faults.required(&place.key(label), &detail),
            Some(found) if found != value => {
                let all = Value::Object(labels.cloned().unwrap_or_default());
                faults.invalid(&place.key(label), all, &detail);
            }
            Some(_) => {}
        }
    }
    let pods = serde_json::json!({ "metadata": { "labels": expected } });
    if templates::fit(Some(selector), Some(&pods)) == Fit::Misses {
        faults.invalid(
            &SPEC.field("selector"),
            selector.clone(),
            "`selector` not auto-generated",
        );
    }
}

pub(super) fn job(job: &Value, faults: &mut Faults) {
    let empty = Value::Object(Map::new());
    let spec = at(job, &["spec"]).unwrap_or(&empty);
    self::spec(&SPEC, spec, faults);
    let selector = at(spec, &["selector"]);
    match selector {
        None => faults.required(&SPEC.field("selector"), ""),
        Some(selector) => selectors::labels(&SPEC.field("selector"), selector, faults),
    }
    let template = at(spec, &["template"]);
    if templates::fit(selector, template) == Fit::Misses {
        templates::misses(&SPEC.field("template"), template, faults);
    }
}

/// The spec of a Job, also inside a CronJob.
fn spec(place: &Place<'_>, spec: &Value, faults: &mut Faults) {
    for name in COUNTS {
        faults.non_negative(&place.field(name), at(spec, &[name]));
    }
    managed_by(place, spec, faults);
    completion_mode(place, spec, faults);
    failure_policy(place, spec, faults);
    let empty = Value::Object(Map::new());
    let template = at(spec, &["template"]).unwrap_or(&empty);
    let here = place.field("template");
    templates::template(&here, template, faults);
    let inner = here.field("spec");
    let restart = inner.field("restartPolicy");
    match text(template, &["spec", "restartPolicy"]) {
        "" => faults.required(&restart, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if at(spec, &["podFailurePolicy"]).is_some() => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            faults.invalid(&restart, "OnFailure", detail);
        }
        "OnFailure" | "Never" => {}
        policy => faults.not_supported(&restart, policy, &["OnFailure", "Never"]),
    }
}

fn managed_by(place: &Place<'_>, spec: &Value, faults: &mut Faults) {
    let Some(manager) = at(spec, &["managedBy"]).and_then(Value::as_str) else {
        return;
    };
    let place = place.field("managedBy");
    match manager.split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            faults.invalid_each(&place, domain, &names::dns1123_subdomain(domain));
        }
        _ => faults.invalid(
            &place,
            manager,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
    }
    if manager.len() > MANAGED_BY_BYTES_MAX {
        faults.too_long(&place, MANAGED_BY_BYTES_MAX);
    }
}

fn completion_mode(place: &Place<'_>, spec: &Value, faults: &mut Faults) {
    let mode = text(spec, &["completionMode"]);
    let is_indexed = mode == "Indexed";
    faults.one_of_if_set(&place.field("completionMode"), mode, &["Indexed", "NonIndexed"]);
    if is_indexed {
        if at(spec, &["completions"]).is_none() {
            faults.required(&place.field("completions"), "when completion mode is Indexed");
        }
        let parallelism = number(spec, &["parallelism"]).filter(|&count| count > PARALLELISM_INDEXED_MAX);
        if let Some(count) = parallelism {
            let detail = format!(
                "must be less than or equal to {PARALLELISM_INDEXED_MAX} when completion mode is Indexed"
            );
            faults.invalid(&place.field("parallelism"), count, &detail);
        }
    } else if let Some(limit) = at(spec, &["backoffLimitPerIndex"]) {
        faults.invalid(
            &place.field("backoffLimitPerIndex"),
            limit.clone(),
            "requires indexed completion mode",
        );
    }
    if at(spec, &["maxFailedIndexes"]).is_some() && at(spec, &["backoffLimitPerIndex"]).is_none() {
        faults.required(
            &place.field("backoffLimitPerIndex"),
            "when maxFailedIndexes is specified",
        );
    }
}

fn failure_policy(place: &Place<'_>, spec: &Value, faults: &mut Faults) {
    let replacement = text(spec, &["podReplacementPolicy"]);
    let here = place.field("podReplacementPolicy");
    let Some(policy) = at(spec, &["podFailurePolicy"]) else {
        return faults.one_of_if_set(&here, replacement, &["Failed", "TerminatingOrFailed"]);
    };
    faults.one_of_if_set(&here, replacement, &["Failed"]);
    let place = place.field("podFailurePolicy");
    let place = place.field("rules");
    let rules = list(policy, &["rules"]);
    if rules.len() > FAILURE_RULES_MAX {
        faults.too_many(&place, rules.len() as u64, FAILURE_RULES_MAX as u64);
    }
    for (index, rule) in rules.iter().enumerate() {
        failure_rule(&place.index(index), rule, faults);
    }
}

fn failure_rule(place: &Place<'_>, rule: &Value, faults: &mut Faults) {
    let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
    faults.one_of(&place.field("action"), text(rule, &["action"]), &actions);
    let codes = at(rule, &["onExitCodes"]);
    let conditions = list(rule, &["onPodConditions"]);
    match (codes, conditions.is_empty()) {
        (Some(_), false) => {
            let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
            faults.invalid(place, rule.clone(), detail);
        }
        (None, true) => {
            let detail = "specifying one of OnExitCodes and OnPodConditions is required";
            faults.invalid(place, rule.clone(), detail);
        }
        _ => {}
    }
    if let Some(codes) = codes {
        exit_codes(&place.field("onExitCodes"), codes, faults);
    }
    let place = place.field("onPodConditions");
    for (index, condition) in conditions.iter().enumerate() {
        let here = place.index(index);
        let kind = text(condition, &["type"]);
        faults.invalid_each(&here.field("type"), kind, &names::qualified_name(kind));
        faults.one_of(
            &here.field("status"),
            text(condition, &["status"]),
            &["False", "True", "Unknown"],
        );
    }
}

fn exit_codes(place: &Place<'_>, codes: &Value, faults: &mut Faults) {
    let operator = text(codes, &["operator"]);
    faults.one_of(&place.field("operator"), operator, &["In", "NotIn"]);
    let values = list(codes, &["values"]);
    let here = place.field("values");
    if values.is_empty() {
        faults.invalid(&here, Value::Array(Vec::new()), "at least one value is required");
    }
    for (index, value) in values.iter().enumerate() {
        if value.as_i64() == Some(0) && operator == "In" {
            faults.invalid(&here.index(index), 0, "must not be 0 for the In operator");
        }
        if values[..index].contains(value) {
            faults.duplicate(&here.index(index), value.clone());
        }
    }
}

pub(super) fn job_update(old: &Value, new: &Value, faults: &mut Faults) {
    let field = |object, name| at(object, &["spec", name]);
    let is_indexed = text(new, &["spec", "completionMode"]) == "Indexed";
    let (before, after) = (field(old, "completions"), field(new, "completions"));
    let place = SPEC.field("completions");
    if !is_indexed || before.is_none() || after.is_none() {
        faults.immutable(&place, before, after);
    } else if before != after && after != field(new, "parallelism") {
        faults.invalid(
            &place,
            after.cloned().unwrap_or_default(),
            "can only be modified in tandem with spec.parallelism",
        );
    }
    faults.immutable(
        &SPEC.field("selector"),
        field(old, "selector"),
        field(new, "selector"),
    );
    let may_move = flag(old, &["spec", "suspend"]) && at(old, &["status", "startTime"]).is_none();
    let fixed = |object: &Value| -> Option<Value> {
        let mut template = at(object, &["spec", "template"])?.clone();
        if may_move {
            drop_fields(&mut template, "metadata", &["labels", "annotations"]);
            drop_fields(&mut template, "spec", &MAY_MOVE);
        }
        Some(template)
    };
    if fixed(old) != fixed(new) {
        faults.immutable(
            &SPEC.field("template"),
            field(old, "template"),
            field(new, "template"),
        );
    }
    for name in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        faults.immutable(&SPEC.field(name), field(old, name), field(new, name));
    }
}

fn drop_fields(template: &mut Value, part: &str, names: &[&str]) {
    let Some(part) = template.get_mut(part).and_then(Value::as_object_mut) else {
        return;
    };
    part.retain(|name, _| !names.contains(&name.as_str()));
}

/// What is asked of a new CronJob only.
pub(super) fn new_cron_job(cron: &Value, faults: &mut Faults) {
    let name = text(cron, &["metadata", "name"]);
    if name.len() > CRON_JOB_NAME_MAX {
        let detail = format!("must be no more than {CRON_JOB_NAME_MAX} characters");
        faults.invalid(&METADATA.field("name"), name, &detail);
    }
}

pub(super) fn cron_job(cron: &Value, faults: &mut Faults) {
    schedule(cron, faults);
    for name in [
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
    ] {
        faults.non_negative(&SPEC.field(name), at(cron, &["spec", name]));
    }
    faults.one_of(
        &SPEC.field("concurrencyPolicy"),
        text(cron, &["spec", "concurrencyPolicy"]),
        &["Allow", "Forbid", "Replace"],
    );
    let place = SPEC.field("jobTemplate");
    let place = place.field("spec");
    let empty = Value::Object(Map::new());
    let job = at(cron, &["spec", "jobTemplate", "spec"]).unwrap_or(&empty);
    spec(&place, job, faults);
    if let Some(selector) = at(job, &["selector"]) {
        faults.invalid(
            &place.field("selector"),
            selector.clone(),
            "`selector` will be auto-generated",
        );
    }
    if flag(job, &["manualSelector"]) {
        faults.not_supported(&place.field("manualSelector"), true, &["nil", "false"]);
    }
}

fn schedule(cron: &Value, faults: &mut Faults) {
    let place = SPEC.field("schedule");
    let zone = at(cron, &["spec", "timeZone"]).and_then(Value::as_str);
    match text(cron, &["spec", "schedule"]) {
        "" => faults.required(&place, ""),
        schedule if schedule.contains("TZ") => {
            let detail = if zone.is_some() {
                "cannot use both timeZone field and TZ or CRON_TZ in schedule"
            } else {
                "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            };
            faults.invalid(&place, schedule, detail);
        }
        schedule => {
            if let Some(fault) = schedules::fault(schedule) {
                faults.invalid(&place, schedule, &fault);
            }
        }
    }
    let place = SPEC.field("timeZone");
    match zone {
        Some("") => faults.invalid(&place, "", "timeZone must be nil or non-empty string"),
        Some(zone) if zone.eq_ignore_ascii_case("local") => {
            let detail = "timeZone must be an explicit time zone as defined in \
                https://www.iana.org/time-zones";
            faults.invalid(&place, zone, detail);
        }
        Some(zone) if !is_zone_name(zone) => {
            faults.invalid(&place, zone, &format!("unknown time zone {zone}"));
        }
        _ => {}
    }
}

/// Whether a text has the form of the names of time zones.
fn is_zone_name(zone: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte))
    };
    zone.split('/').all(is_part)
}

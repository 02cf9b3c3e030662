//! Jobs and what makes them by the clock.

use serde_json::{Map, Value};

use super::{child, elements, existing, pods};
use crate::object::{is_empty, set_default, set_if_empty};

const RETRIES: i32 = 6;

pub(super) fn job(object: &mut Map<String, Value>) {
    let Some(spec) = child(object, "spec") else { return };
    template(spec);
    if is_unset(spec, "completions") && is_unset(spec, "parallelism") {
        set_default(spec, "completions", 1);
    }
    set_default(spec, "parallelism", 1);
    // Counted per index, the sum is not limited.
    let retries = if is_unset(spec, "backoffLimitPerIndex") {
        RETRIES
    } else {
        i32::MAX
    };
    set_default(spec, "backoffLimit", retries);
    set_default(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    let replacement = if is_unset(spec, "podFailurePolicy") {
        "TerminatingOrFailed"
    } else {
        "Failed"
    };
    set_default(spec, "podReplacementPolicy", replacement);
    let labels = existing(spec, "template")
        .and_then(|template| existing(template, "metadata"))
        .and_then(|metadata| metadata.get("labels"))
        .filter(|labels| !is_empty(Some(labels)))
        .cloned();
    if let (Some(labels), Some(metadata)) = (labels, child(object, "metadata")) {
        set_if_empty(metadata, "labels", labels);
    }
}

pub(super) fn cron_job(object: &mut Map<String, Value>) {
    let Some(spec) = child(object, "spec") else { return };
    set_if_empty(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    set_default(spec, "successfulJobsHistoryLimit", 3);
    set_default(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = child(spec, "jobTemplate").and_then(|template| child(template, "spec")) {
        template(job);
    }
}

/// The part of a Job's spec that is completed inside a CronJob too.
fn template(spec: &mut Map<String, Value>) {
    if let Some(template) = child(spec, "template") {
        pods::template(template);
    }
    let Some(policy) = existing(spec, "podFailurePolicy") else {
        return;
    };
    for rule in elements(policy, "rules") {
        for condition in elements(rule, "onPodConditions") {
            set_if_empty(condition, "status", "True");
        }
    }
}

fn is_unset(spec: &Map<String, Value>, name: &str) -> bool {
    spec.get(name).is_none_or(Value::is_null)
}

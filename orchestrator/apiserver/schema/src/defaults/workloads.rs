//! What makes pods from a template: Deployments and their kin.

use serde_json::{Map, Value, json};

use super::{child, elements, existing, pods, storage};
use crate::object::{is_empty, set_default, set_if_empty};

const REVISIONS_KEPT: i32 = 10;

pub(super) fn pod_template(object: &mut Map<String, Value>) {
    if let Some(template) = child(object, "template") {
        pods::template(template);
    }
}

/// The spec, with its template completed.
fn spec(object: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    let spec = child(object, "spec")?;
    pod_template(spec);
    Some(spec)
}

fn is_rolling(strategy: &Map<String, Value>) -> bool {
    strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate")
}

/// The rolling update of a strategy, which is of that type unless it says otherwise.
fn rolling<'o>(spec: &'o mut Map<String, Value>, strategy: &str) -> Option<&'o mut Map<String, Value>> {
    let strategy = child(spec, strategy)?;
    set_if_empty(strategy, "type", "RollingUpdate");
    if is_rolling(strategy) {
        child(strategy, "rollingUpdate")
    } else {
        None
    }
}

pub(super) fn deployment(object: &mut Map<String, Value>) {
    let Some(spec) = spec(object) else { return };
    set_default(spec, "replicas", 1);
    if let Some(rolling) = rolling(spec, "strategy") {
        set_default(rolling, "maxUnavailable", "25%");
        set_default(rolling, "maxSurge", "25%");
    }
    set_default(spec, "revisionHistoryLimit", REVISIONS_KEPT);
    set_default(spec, "progressDeadlineSeconds", 600);
}

pub(super) fn replica_set(object: &mut Map<String, Value>) {
    if let Some(spec) = spec(object) {
        set_default(spec, "replicas", 1);
    }
}

pub(super) fn stateful_set(object: &mut Map<String, Value>) {
    let Some(spec) = spec(object) else { return };
    set_if_empty(spec, "podManagementPolicy", "OrderedReady");
    if let Some(rolling) = rolling(spec, "updateStrategy") {
        set_default(rolling, "partition", 0);
        set_default(rolling, "maxUnavailable", 1);
    }
    if let Some(policy) = child(spec, "persistentVolumeClaimRetentionPolicy") {
        set_if_empty(policy, "whenDeleted", "Retain");
        set_if_empty(policy, "whenScaled", "Retain");
    }
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", REVISIONS_KEPT);
    for claim in elements(spec, "volumeClaimTemplates") {
        claim.insert("apiVersion".to_owned(), "v1".into());
        claim.insert("kind".to_owned(), "PersistentVolumeClaim".into());
        storage::claim(claim);
    }
}

pub(super) fn daemon_set(object: &mut Map<String, Value>) {
    let Some(spec) = spec(object) else { return };
    if let Some(rolling) = rolling(spec, "updateStrategy") {
        set_default(rolling, "maxUnavailable", 1);
        set_default(rolling, "maxSurge", 0);
    }
    set_default(spec, "revisionHistoryLimit", REVISIONS_KEPT);
}

/// The oldest of them: what it says nothing of it takes from the labels of its template.
pub(super) fn replication_controller(object: &mut Map<String, Value>) {
    let labels = existing(object, "spec")
        .and_then(|spec| existing(spec, "template"))
        .and_then(|template| existing(template, "metadata"))
        .and_then(|metadata| metadata.get("labels"))
        .filter(|labels| !is_empty(Some(labels)))
        .cloned();
    if let Some(metadata) = child(object, "metadata").filter(|_| labels.is_some()) {
        set_if_empty(metadata, "labels", labels.clone().unwrap_or_else(|| json!({})));
    }
    let Some(spec) = child(object, "spec") else { return };
    if let Some(template) = existing(spec, "template") {
        pods::template(template);
    }
    if let Some(labels) = labels {
        set_if_empty(spec, "selector", labels);
    }
    set_default(spec, "replicas", 1);
}

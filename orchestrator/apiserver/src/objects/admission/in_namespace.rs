//! What the namespace of an object asks for: its limits, and how much its pods may.

use serde_json::Value;

use super::pod_security::{self, Level, Policy};
use super::{collection, limits};
use crate::http::Failure;
use crate::objects::{Call, tree};

/// The limits of the call's namespace; mostly there are none.
pub(super) fn limit_ranges(call: &Call<'_>) -> Vec<Value> {
    let prefix = format!("{}/", call.namespace.unwrap_or_default());
    let ranges = collection(call.api, "", "limitranges").filter(|ranges| ranges.has_any(&prefix));
    let entries = ranges.map(|ranges| ranges.snapshot(&prefix, || 0).entries);
    entries.into_iter().flatten().map(|entry| entry.value()).collect()
}

/// Holds pods and claims to the limits.
pub(super) fn check_limits(call: &Call<'_>, old: Option<&Value>, new: &Value) -> Result<(), Failure> {
    let facts = call.resource.facts;
    let is_limited = match (facts.group, facts.plural) {
        ("", "pods") => old.is_none(),
        ("", "persistentvolumeclaims") => true,
        _ => false,
    };
    if !is_limited {
        return Ok(());
    }
    let ranges = limit_ranges(call);
    limits::check(facts.plural, new, &ranges).map_err(|why| {
        let name = tree::text(new, &["metadata", "name"]);
        Failure::forbidden(call.resource.about(name), &why)
    })
}

/// Holds pods to the Pod Security Standards; who writes workloads is told what their pods would meet.
pub(super) fn check_security(call: &Call<'_>, old: Option<&Value>, new: &Value) -> Result<(), Failure> {
    let facts = call.resource.facts;
    if (facts.group, facts.plural) == ("", "namespaces") {
        return check_labels(call, old, new);
    }
    let is_pod = (facts.group, facts.plural) == ("", "pods");
    let template = if is_pod {
        Some(new)
    } else {
        pod_security::template(facts.group, facts.plural, new)
    };
    let Some(pod) = template else { return Ok(()) };
    let namespace = call.namespace.unwrap_or_default();
    let found = collection(call.api, "", "namespaces").and_then(|namespaces| namespaces.get(namespace));
    let Some(found) = found else { return Ok(()) };
    let (policy, faults) = Policy::of(found.facts.labels.as_ref());
    if policy.allows_everything()
        || (is_pod && old.is_some_and(|old| !pod_security::is_significant(old, new)))
    {
        return Ok(());
    }
    if !faults.is_empty() {
        tracing::debug!(
            namespace,
            "The labels of a namespace name no level of pod security."
        );
    }
    let violations = pod_security::violations(policy.enforce, pod);
    if is_pod && !violations.is_empty() {
        let told = pod_security::describe(&violations);
        let why = format!("violates PodSecurity {:?}: {told}", policy.enforce.to_string());
        let name = tree::text(new, &["metadata", "name"]);
        return Err(Failure::forbidden(call.resource.about(name), &why));
    }
    let told = |violations: &[pod_security::Violation]| pod_security::describe(violations);
    let noted = pod_security::violations(policy.audit, pod);
    if !noted.is_empty() {
        // There is no audit log yet to note it in.
        tracing::debug!(
            namespace,
            violations = told(&noted),
            "A pod goes beyond what is audited."
        );
    }
    let warned = pod_security::violations(policy.warn, pod);
    if !warned.is_empty() {
        let text = format!(
            "would violate PodSecurity {:?}: {}",
            policy.warn.to_string(),
            told(&warned)
        );
        call.notes.warn(text);
    }
    Ok(())
}

/// Labels of a namespace name levels that there are; who enforces more is told which pods go beyond that.
fn check_labels(call: &Call<'_>, old: Option<&Value>, new: &Value) -> Result<(), Failure> {
    let labels = |object: &Value| {
        tree::at(object, &["metadata", "labels"])
            .and_then(Value::as_object)
            .cloned()
    };
    let (policy, faults) = Policy::of(labels(new).as_ref());
    let before = old.map(|old| Policy::of(labels(old).as_ref()));
    let name = tree::text(new, &["metadata", "name"]);
    let is_old_fault = before.as_ref().is_some_and(|(_, before)| *before == faults);
    if !faults.is_empty() && !is_old_fault {
        return Err(Failure::invalid(call.resource.about_kind(name), faults));
    }
    let Some((before, _)) = before else { return Ok(()) };
    let is_stricter = policy.enforce != before.enforce && policy.enforce.level != Level::Privileged;
    let is_relaxed =
        policy.enforce.is_of_version_of(before.enforce) && policy.enforce.level <= before.enforce.level;
    if !is_stricter || is_relaxed {
        return Ok(());
    }
    let pods = collection(call.api, "", "pods").map(|pods| pods.snapshot(&format!("{name}/"), || 0).entries);
    let pods: Vec<Value> = pods.into_iter().flatten().map(|entry| entry.value()).collect();
    for warning in pod_security::existing(name, policy.enforce, &pods) {
        call.notes.warn(warning);
    }
    Ok(())
}

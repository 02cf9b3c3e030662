//! What a kind does to its objects before they are stored: who may write status, what counts as a new generation. Pure.

pub(crate) mod definition;
mod pod;
pub(crate) mod service;
mod workload;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use moorline_schema::registry::{Cardinality, Kind, Registry};
use moorline_schema::{ResourceFacts, custom};
use serde_json::{Value, json};

use super::{metadata, tree};

/// Which part of an object a request writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// The object's own path.
    Main,
    /// The status subresource.
    Status,
    /// The word on whether a certificate is issued.
    Approval,
    /// The scheduler's word on a pod; it writes spec and status.
    Binding,
}

/// Whether the generation of such objects is counted.
fn counts_generation(facts: &ResourceFacts) -> bool {
    facts.custom
        || matches!(
            (facts.group, facts.plural),
            ("", "pods" | "replicationcontrollers")
                | (
                    "apps",
                    "daemonsets" | "deployments" | "replicasets" | "statefulsets"
                )
                | ("batch", "cronjobs" | "jobs")
                | ("policy", "poddisruptionbudgets")
                | (
                    "networking.k8s.io",
                    "ingresses" | "ingressclasses" | "networkpolicies"
                )
                | ("discovery.k8s.io", "endpointslices")
                | ("scheduling.k8s.io", "priorityclasses")
                | ("flowcontrol.apiserver.k8s.io", _)
                | ("admissionregistration.k8s.io", _)
                | ("resource.k8s.io", "deviceclasses" | "resourceslices")
                | ("storage.k8s.io", "csidrivers")
                | (custom::GROUP, custom::DEFINITIONS)
        )
}

/// What becomes of an object's dependents if the delete doesn't say: the oldest kinds leave them alone.
pub(crate) fn leaves_orphans(facts: &ResourceFacts) -> bool {
    !facts.custom
        && matches!(
            (facts.group, facts.plural),
            ("", "replicationcontrollers") | ("batch", "jobs")
        )
}

/// Whether an update may create the object.
pub(crate) fn is_created_by_update(facts: &ResourceFacts) -> bool {
    let is_any = matches!(
        facts.plural,
        "leases" | "events" | "endpoints" | "services" | "limitranges"
    );
    !facts.custom && (is_any || facts.group == "rbac.authorization.k8s.io")
}

/// Whether a delete answers with the object itself and not with a bare success.
pub(crate) fn is_shown_when_deleted(facts: &ResourceFacts) -> bool {
    let is_builtin = !facts.custom;
    is_builtin
        && matches!(
            facts.plural,
            "pods"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "services"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
                | "storageclasses"
                | "volumeattachments"
                | "csidrivers"
                | "csinodes"
                | "volumeattributesclasses"
        )
}

/// The time a deleted object is given, if the request says nothing.
pub(crate) fn grace_seconds(facts: &ResourceFacts, object: &Value, asked: Option<i64>) -> i64 {
    if facts.group.is_empty() && facts.plural == "pods" {
        pod::grace_seconds(object, asked)
    } else {
        0
    }
}

/// Puts a new object into its first state.
pub(crate) fn prepare_create(facts: &ResourceFacts, object: &mut Value, now: Timestamp) {
    if counts_generation(facts) {
        tree::map_mut(object, &["metadata"]).insert("generation".to_owned(), json!(1));
    }
    if facts.custom {
        if facts.subresource("status").is_some() {
            tree::map_mut(object, &[]).remove("status");
        }
        return;
    }
    let status = match (facts.group, facts.plural) {
        (custom::GROUP, custom::DEFINITIONS) => definition::first_status(object),
        ("", "pods") => json!({ "phase": "Pending", "qosClass": pod::qos_class(object) }),
        ("", "persistentvolumes") => {
            json!({ "phase": "Pending", "lastPhaseTransitionTime": tree::time(now) })
        }
        ("", "persistentvolumeclaims") => json!({ "phase": "Pending" }),
        ("", "services") => {
            service::complete(None, object);
            json!({ "loadBalancer": {} })
        }
        ("storage.k8s.io", "volumeattachments") => json!({ "attached": false }),
        ("", "namespaces") => {
            prepare_namespace(object);
            json!({ "phase": "Active" })
        }
        ("", "secrets") => return take_string_data(object),
        // A node brings its status with it.
        ("", "nodes") => return,
        ("apps", "daemonsets") => {
            workload::count_templates(None, object);
            first_status(facts)
        }
        ("batch", "jobs") => {
            workload::select_own_pods(object);
            first_status(facts)
        }
        _ if facts.subresource("status").is_some() => first_status(facts),
        _ => return,
    };
    tree::map_mut(object, &[]).insert("status".to_owned(), status);
}

/// A status of which nothing is known yet: the counts that every status has, at zero.
fn first_status(facts: &ResourceFacts) -> Value {
    let registry = Registry::builtin();
    let status = registry
        .get(facts.type_id)
        .field("status")
        .map(|field| field.kind);
    let Some(Kind::Message(status)) = status else {
        return json!({});
    };
    let fields = registry.get(status).json.iter();
    let counts = fields.filter(|field| field.keep_empty && field.cardinality == Cardinality::One);
    let counts = counts.filter_map(|field| match field.kind {
        Kind::Int32 | Kind::Int64 => Some((field.name.to_owned(), json!(0))),
        Kind::Bool => Some((field.name.to_owned(), json!(false))),
        _ => None,
    });
    Value::Object(counts.collect())
}

fn prepare_namespace(object: &mut Value) {
    let name = tree::text(object, &["metadata", "name"]).to_owned();
    tree::map_mut(object, &["metadata", "labels"])
        .insert("kubernetes.io/metadata.name".to_owned(), name.into());
    let spec = tree::map_mut(object, &["spec"]);
    let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers
        .as_array_mut()
        .filter(|list| !list.contains(&json!("kubernetes")))
    {
        list.push(json!("kubernetes"));
    }
}

/// Restores what the endpoint must not touch and counts the generation. `new` has its metadata filled in.
pub(crate) fn prepare_update(facts: &ResourceFacts, endpoint: Endpoint, old: &Value, new: &mut Value) {
    match endpoint {
        Endpoint::Main => {
            if facts.subresource("status").is_some() {
                let status = old.get("status").cloned();
                tree::set(tree::map_mut(new, &[]), "status", status);
            }
            prepare_main(facts, old, new);
        }
        Endpoint::Status => prepare_status(facts, old, new),
        Endpoint::Approval => {
            prepare_status(facts, old, new);
            let certificate = tree::at(old, &["status", "certificate"]).cloned();
            tree::set(tree::map_mut(new, &["status"]), "certificate", certificate);
        }
        Endpoint::Binding => count_generation(facts, old, new),
    }
}

fn prepare_main(facts: &ResourceFacts, old: &Value, new: &mut Value) {
    match (facts.group, facts.plural) {
        // Only the finalize subresource takes these away.
        ("", "namespaces") => {
            let finalizers = tree::at(old, &["spec", "finalizers"]).cloned();
            tree::set(tree::map_mut(new, &["spec"]), "finalizers", finalizers);
            prepare_namespace_labels(new);
        }
        ("", "secrets") => take_string_data(new),
        ("", "services") => service::complete(Some(old), new),
        (custom::GROUP, custom::DEFINITIONS) => definition::note_storage_version(new),
        ("apps", "daemonsets") => workload::count_templates(Some(old), new),
        // What was asked for is not changed any more.
        ("certificates.k8s.io", _) => {
            tree::set(tree::map_mut(new, &[]), "spec", old.get("spec").cloned());
        }
        _ => {}
    }
    count_generation(facts, old, new);
}

/// Anything outside of metadata and status makes a new generation; of a Deployment, annotations too.
fn count_generation(facts: &ResourceFacts, old: &Value, new: &mut Value) {
    if !counts_generation(facts) {
        return;
    }
    let has_status = !facts.custom || facts.subresource("status").is_some();
    let is_content = |name: &str| name != "metadata" && !(name == "status" && has_status);
    let fields = |object: &Value| {
        object
            .as_object()
            .map_or(0, |map| map.keys().filter(|name| is_content(name)).count())
    };
    let is_same = fields(old) == fields(new)
        && new
            .as_object()
            .into_iter()
            .flatten()
            .all(|(name, value)| !is_content(name) || old.get(name) == Some(value));
    let is_noted = (facts.group, facts.plural) == ("apps", "deployments")
        && tree::at(old, &["metadata", "annotations"]) != tree::at(new, &["metadata", "annotations"]);
    if !is_same || is_noted {
        metadata::raise_generation(new);
    }
}

fn prepare_namespace_labels(new: &mut Value) {
    let name = tree::text(new, &["metadata", "name"]).to_owned();
    tree::map_mut(new, &["metadata", "labels"]).insert("kubernetes.io/metadata.name".to_owned(), name.into());
}

/// Only `status` and, for most kinds, labels, annotations and finalizers come from the request.
fn prepare_status(facts: &ResourceFacts, old: &Value, new: &mut Value) {
    let status = new.get("status").cloned();
    let mut metadata = new["metadata"].clone();
    let kept = match (facts.group, facts.plural) {
        ("storage.k8s.io", "volumeattachments") => old["metadata"].clone(),
        _ if facts.custom => old["metadata"].clone(),
        (group, plural) => {
            let is_deployment = (group, plural) == ("apps", "deployments");
            let kept = ["ownerReferences", "labels"].into_iter();
            for field in kept.take(if is_deployment { 2 } else { 1 }) {
                let value = tree::at(old, &["metadata", field]).cloned();
                tree::set(tree::map_mut(&mut metadata, &[]), field, value);
            }
            metadata
        }
    };
    let mut result = old.clone();
    let map = tree::map_mut(&mut result, &[]);
    tree::set(map, "status", status);
    map.insert("metadata".to_owned(), kept);
    if (facts.group, facts.plural) == ("", "pods") {
        pod::keep_qos_class(old, &mut result);
    }
    *new = result;
}

/// `stringData` is for writing only: it goes into `data`.
fn take_string_data(object: &mut Value) {
    let map = tree::map_mut(object, &[]);
    let Some(Value::Object(texts)) = map.remove("stringData") else {
        return;
    };
    let data = tree::map_mut(object, &["data"]);
    for (name, text) in texts {
        let encoded = BASE64_STANDARD.encode(text.as_str().unwrap_or_default());
        data.insert(name, encoded.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(group: &str, plural: &str) -> &'static ResourceFacts {
        Registry::builtin().resource(group, "v1", plural).unwrap()
    }

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn first_states() {
        let cases = [
            ("", "persistentvolumeclaims", json!({"phase": "Pending"})),
            ("", "pods", json!({"phase": "Pending", "qosClass": "BestEffort"})),
            ("", "namespaces", json!({"phase": "Active"})),
            ("", "nodes", json!({"own": true})),
            ("storage.k8s.io", "volumeattachments", json!({"attached": false})),
            ("apps", "deployments", json!({})),
            ("apps", "replicasets", json!({"replicas": 0})),
            ("batch", "jobs", json!({})),
            (
                "apps",
                "daemonsets",
                json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}),
            ),
        ];
        for (group, plural, expected) in cases {
            let mut object = json!({"metadata": {"name": "x"}, "spec": {}, "status": {"own": true}});
            prepare_create(facts(group, plural), &mut object, now());
            assert_eq!(object["status"], expected, "{plural}");
        }
    }

    #[test]
    fn main_keeps_status_and_status_keeps_spec() {
        let old =
            json!({"metadata": {"name": "x", "labels": {"a": "1"}}, "spec": {"n": 1}, "status": {"s": 1}});
        let asked =
            json!({"metadata": {"name": "x", "labels": {"a": "2"}}, "spec": {"n": 2}, "status": {"s": 2}});
        let claims = facts("", "persistentvolumeclaims");
        let mut main = asked.clone();
        prepare_update(claims, Endpoint::Main, &old, &mut main);
        assert_eq!((&main["spec"], &main["status"]), (&asked["spec"], &old["status"]));
        let mut status = asked.clone();
        prepare_update(claims, Endpoint::Status, &old, &mut status);
        assert_eq!(
            (&status["spec"], &status["status"]),
            (&old["spec"], &asked["status"])
        );
        assert_eq!(status["metadata"]["labels"]["a"], "2");
        let mut attachment = asked.clone();
        prepare_update(
            facts("storage.k8s.io", "volumeattachments"),
            Endpoint::Status,
            &old,
            &mut attachment,
        );
        assert_eq!(attachment["metadata"]["labels"]["a"], "1");
    }

    #[test]
    fn only_a_changed_spec_is_a_new_generation() {
        let old = json!({"metadata": {"generation": 1}, "spec": {"n": 1}, "status": {}});
        let pods = facts("", "pods");
        let mut label = old.clone();
        label["metadata"]["labels"] = json!({"a": "b"});
        prepare_update(pods, Endpoint::Main, &old, &mut label);
        assert_eq!(label["metadata"]["generation"], 1);
        let mut spec = old.clone();
        spec["spec"]["n"] = json!(2);
        prepare_update(pods, Endpoint::Main, &old, &mut spec);
        assert_eq!(spec["metadata"]["generation"], 2);
    }

    #[test]
    fn annotations_of_a_deployment_are_a_new_generation_and_its_status_keeps_labels() {
        let old =
            json!({"metadata": {"generation": 1, "labels": {"a": "1"}}, "spec": {"n": 1}, "status": {}});
        for (plural, generation, label) in [("deployments", 2, "1"), ("statefulsets", 1, "2")] {
            let mut noted = old.clone();
            noted["metadata"]["annotations"] = json!({"a": "b"});
            prepare_update(facts("apps", plural), Endpoint::Main, &old, &mut noted);
            assert_eq!(noted["metadata"]["generation"], generation, "{plural}");
            let mut status = old.clone();
            status["metadata"]["labels"]["a"] = json!("2");
            prepare_update(facts("apps", plural), Endpoint::Status, &old, &mut status);
            assert_eq!(status["metadata"]["labels"]["a"], label, "{plural}");
        }
    }

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"metadata": {}, "stringData": {"a": "hello"}, "data": {"b": "eA=="}});
        prepare_create(facts("", "secrets"), &mut secret, now());
        assert_eq!(secret["data"], json!({"a": "aGVsbG8=", "b": "eA=="}));
        assert!(secret.get("stringData").is_none());
    }
}

//! Whether an object, or a change of one, is allowed; upstream's rules in upstream's words.

mod access;
mod admission;
mod affinity;
mod autoscaling;
mod certificates;
mod claims;
mod cluster;
mod containers;
mod disruption;
pub(crate) mod faults;
mod jobs;
pub(crate) mod metadata;
mod networking;
mod numbers;
mod pod_change;
mod pods;
mod probes;
mod quotas;
mod resources;
mod schedules;
mod scheduling;
mod security;
mod selectors;
mod service_fields;
mod services;
mod slices;
mod sources;
mod storage;
mod structural;
mod templates;
mod volumes;
mod workload_status;
mod workloads;

use serde_json::Value;

use crate::custom::checks;
use crate::registry::{Gvk, Registry};
use faults::Faults;

/// One fault of an object: goes into `details.causes` of a 422 answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cause {
    /// Such as `FieldValueRequired`.
    pub reason: &'static str,
    /// Such as `Required value: must be set`.
    pub message: String,
    /// Such as `spec.accessModes`.
    pub field: String,
}

/// All faults of an object to be created, as it would be stored: named and with its defaults. Empty if it is allowed.
#[must_use]
pub fn create(registry: &Registry, gvk: Gvk<'_>, object: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    metadata::create(registry, gvk, object, &mut faults);
    content(registry, gvk, object, &mut faults);
    match (gvk.group, gvk.kind) {
        ("", "Pod") => pods::new_pod(object, &mut faults),
        ("batch", "Job") => jobs::new_job(object, &mut faults),
        ("batch", "CronJob") => jobs::new_cron_job(object, &mut faults),
        _ => {}
    }
    faults.into_causes()
}

/// All faults of a change of the main resource; `new` as it would be stored. A pod's node is set through its binding
/// alone, so that doesn't pass here.
#[must_use]
pub fn update(registry: &Registry, gvk: Gvk<'_>, old: &Value, new: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    metadata::update(old, new, &mut faults);
    // What was stored under older rules may stay as it is: only what changes is checked again.
    if without_metadata_differs(old, new) {
        content(registry, gvk, new, &mut faults);
    }
    match (gvk.group, gvk.kind) {
        ("", "Pod") => pod_change::update(old, new, &mut faults),
        ("", "PersistentVolume") => volumes::update(old, new, &mut faults),
        ("", "PersistentVolumeClaim") => claims::update(old, new, &mut faults),
        ("", "ConfigMap" | "Secret") => cluster::immutable_data(old, new, &mut faults),
        ("", "Service") => services::update(old, new, &mut faults),
        ("storage.k8s.io", "StorageClass") => storage::class_update(old, new, &mut faults),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver_update(old, new, &mut faults),
        ("storage.k8s.io", "CSINode") => storage::csi_node_update(old, new, &mut faults),
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment_update(old, new, &mut faults),
        ("storage.k8s.io", "CSIStorageCapacity") => storage::capacity_update(old, new, &mut faults),
        ("storage.k8s.io", "VolumeAttributesClass") => storage::attributes_update(old, new, &mut faults),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => checks::update(old, new, &mut faults),
        ("apps", "StatefulSet") => workloads::stateful_set_update(old, new, &mut faults),
        ("apps", "ControllerRevision") => workloads::revision_update(old, new, &mut faults),
        ("apps", _) => workloads::selector_stays(old, new, &mut faults),
        ("batch", "Job") => jobs::job_update(old, new, &mut faults),
        ("", "ResourceQuota") => quotas::quota_update(old, new, &mut faults),
        ("discovery.k8s.io", "EndpointSlice") => slices::update(old, new, &mut faults),
        ("scheduling.k8s.io", "PriorityClass") => scheduling::priority_class_update(old, new, &mut faults),
        ("node.k8s.io", "RuntimeClass") => scheduling::runtime_class_update(old, new, &mut faults),
        ("networking.k8s.io", "IngressClass") => networking::ingress_class_update(old, new, &mut faults),
        ("networking.k8s.io", "ServiceCIDR") => networking::service_range_update(old, new, &mut faults),
        ("networking.k8s.io", "IPAddress") => networking::address_update(old, new, &mut faults),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            access::binding_update(old, new, &mut faults);
        }
        _ => {}
    }
    faults.into_causes()
}

/// All faults of a change through the status subresource; `new` as it would be stored.
#[must_use]
pub fn status_update(_registry: &Registry, gvk: Gvk<'_>, old: &Value, new: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    metadata::update(old, new, &mut faults);
    match (gvk.group, gvk.kind) {
        ("", "Pod") => pod_change::status(old, new, &mut faults),
        ("", "PersistentVolumeClaim") => claims::status(new, &mut faults),
        ("", "Node") => cluster::node_status(new, &mut faults),
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment_status(new, &mut faults),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => checks::stored_versions(new, &mut faults),
        ("policy", "PodDisruptionBudget") => disruption::status(new, &mut faults),
        ("certificates.k8s.io", _) => certificates::status(old, new, &mut faults),
        ("" | "apps" | "batch", kind) => workload_status::update(kind, old, new, &mut faults),
        _ => {}
    }
    faults.into_causes()
}

/// The rules for an object's content, the same for new and for changed ones.
fn content(registry: &Registry, gvk: Gvk<'_>, object: &Value, faults: &mut Faults) {
    match (gvk.group, gvk.kind) {
        ("", "Pod") => pods::pod(object, faults),
        ("", "PersistentVolume") => volumes::pv(object, faults),
        ("", "PersistentVolumeClaim") => claims::claim(object, faults),
        ("", "ConfigMap") => cluster::config_map(object, faults),
        ("", "Secret") => cluster::secret(object, faults),
        ("", "Node") => cluster::node(object, faults),
        ("", "ServiceAccount") => cluster::service_account(object, faults),
        ("", "Event") => cluster::event(object, faults),
        ("", "Service") => services::service(object, faults),
        ("", "Endpoints") => services::endpoints(object, faults),
        ("", "ResourceQuota") => quotas::quota(object, faults),
        ("", "LimitRange") => quotas::limit_range(object, faults),
        ("policy", "PodDisruptionBudget") => disruption::budget(object, faults),
        ("discovery.k8s.io", "EndpointSlice") => slices::slice(object, faults),
        ("admissionregistration.k8s.io", kind) => admission_rules(kind, object, faults),
        ("", "PodTemplate") => workloads::pod_template(object, faults),
        ("", "ReplicationController") => workloads::replication_controller(object, faults),
        ("apps", "Deployment") => workloads::deployment(object, faults),
        ("apps", "ReplicaSet") => workloads::replica_set(object, faults),
        ("apps", "StatefulSet") => workloads::stateful_set(object, faults),
        ("apps", "DaemonSet") => workloads::daemon_set(object, faults),
        ("apps", "ControllerRevision") => workloads::revision(object, faults),
        ("batch", "Job") => jobs::job(object, faults),
        ("batch", "CronJob") => jobs::cron_job(object, faults),
        ("coordination.k8s.io", "Lease") => cluster::lease(object, faults),
        ("storage.k8s.io", "StorageClass") => storage::class(object, faults),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver(object, faults),
        ("storage.k8s.io", "CSINode") => storage::csi_node(object, faults),
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment(object, faults),
        ("storage.k8s.io", "CSIStorageCapacity") => storage::capacity(object, faults),
        ("storage.k8s.io", "VolumeAttributesClass") => storage::attributes(object, faults),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => checks::definition(object, faults),
        ("rbac.authorization.k8s.io", "Role") => access::role(object, true, faults),
        ("rbac.authorization.k8s.io", "ClusterRole") => access::role(object, false, faults),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            access::binding(object, gvk.kind == "RoleBinding", faults);
        }
        _ => {
            structural::object(registry, gvk, object, faults);
            beyond_structure(gvk, object, faults);
        }
    }
}

/// What is asked of kinds whose schema says most of it.
fn beyond_structure(gvk: Gvk<'_>, object: &Value, faults: &mut Faults) {
    match (gvk.group, gvk.kind) {
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::autoscaler(object, faults),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::request(object, faults),
        ("networking.k8s.io", "Ingress") => networking::ingress(object, faults),
        ("networking.k8s.io", "IngressClass") => networking::ingress_class(object, faults),
        ("networking.k8s.io", "NetworkPolicy") => networking::network_policy(object, faults),
        ("networking.k8s.io", "ServiceCIDR") => networking::service_range(object, faults),
        ("networking.k8s.io", "IPAddress") => networking::address(object, faults),
        ("node.k8s.io", "RuntimeClass") => scheduling::runtime_class(object, faults),
        ("scheduling.k8s.io", "PriorityClass") => scheduling::priority_class(object, faults),
        _ => {}
    }
}

fn admission_rules(kind: &str, object: &Value, faults: &mut Faults) {
    match kind {
        "MutatingWebhookConfiguration" => admission::webhooks(object, true, faults),
        "ValidatingWebhookConfiguration" => admission::webhooks(object, false, faults),
        "MutatingAdmissionPolicy" => admission::policy(object, false, faults),
        "ValidatingAdmissionPolicy" => admission::policy(object, true, faults),
        "MutatingAdmissionPolicyBinding" => admission::policy_binding(object, false, faults),
        "ValidatingAdmissionPolicyBinding" => admission::policy_binding(object, true, faults),
        _ => {}
    }
}

fn without_metadata_differs(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return true;
    };
    let is_content = |name: &&String| !matches!(name.as_str(), "metadata" | "status");
    let names = old
        .keys()
        .chain(new.keys().filter(|name| !old.contains_key(*name)));
    names
        .filter(is_content)
        .any(|name| old.get(name) != new.get(name))
}

/// The message of a 422 answer: `Pod "x" is invalid: spec.containers: Required value`, several causes in brackets.
#[must_use]
pub fn summary(kind: &str, name: &str, causes: &[Cause]) -> String {
    let texts: Vec<String> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    let joined = if texts.len() == 1 {
        texts.concat()
    } else {
        format!("[{}]", texts.join(", "))
    };
    format!("{kind} {name:?} is invalid: {joined}")
}

#[cfg(test)]
mod tests;

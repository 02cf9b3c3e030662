//! What the server fills in where the client said nothing.
//!
//! Only what upstream's types default by themselves. What upstream's admission adds (a pod's service account and
//! priority, a claim's class, protection finalizers) is the API server's.

mod admission;
mod autoscaling;
mod cluster;
mod containers;
mod definitions;
mod devices;
mod jobs;
mod limits;
mod networking;
mod pods;
mod services;
mod storage;
mod workloads;

use serde_json::{Map, Value};

use crate::registry::{Gvk, Registry};

/// Fills in upstream's defaults for an object of a kind. Applying it again changes nothing.
pub fn apply(_registry: &Registry, gvk: Gvk<'_>, object: &mut Value) {
    let Value::Object(object) = object else { return };
    match (gvk.group, gvk.kind) {
        ("", "Pod") => pods::pod(object),
        ("", "PersistentVolume") => storage::pv(object),
        ("", "PersistentVolumeClaim") => storage::claim(object),
        ("storage.k8s.io", "StorageClass") => storage::class(object),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver(object),
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment(object),
        ("", "Secret") => cluster::secret(object),
        ("", "Namespace") => cluster::namespace(object),
        ("", "Node") => cluster::node(object),
        ("", "Service") => services::service(object),
        ("", "Endpoints") => services::endpoints(object),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => cluster::role_binding(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definitions::definition(object),
        ("", "PodTemplate") => workloads::pod_template(object),
        ("", "ReplicationController") => workloads::replication_controller(object),
        ("apps", "Deployment") => workloads::deployment(object),
        ("apps", "ReplicaSet") => workloads::replica_set(object),
        ("apps", "StatefulSet") => workloads::stateful_set(object),
        ("apps", "DaemonSet") => workloads::daemon_set(object),
        ("batch", "Job") => jobs::job(object),
        ("batch", "CronJob") => jobs::cron_job(object),
        ("", "LimitRange") => limits::limit_range(object),
        ("scheduling.k8s.io", "PriorityClass") => limits::priority_class(object),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => limits::flow_schema(object),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => limits::priority_level(object),
        ("networking.k8s.io", "NetworkPolicy") => networking::network_policy(object),
        ("networking.k8s.io", "IngressClass") => networking::ingress_class(object),
        ("discovery.k8s.io", "EndpointSlice") => networking::endpoint_slice(object),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::autoscaler(object),
        ("admissionregistration.k8s.io", kind) => admission(kind, object),
        ("apiregistration.k8s.io", "APIService") => admission::api_service(object),
        ("resource.k8s.io", "ResourceClaim") => {
            if let Some(spec) = existing(object, "spec") {
                devices::claim(spec);
            }
        }
        ("resource.k8s.io", "ResourceClaimTemplate") => {
            if let Some(spec) = existing(object, "spec").and_then(|spec| existing(spec, "spec")) {
                devices::claim(spec);
            }
        }
        ("authentication.k8s.io", "TokenRequest") => cluster::token_request(object),
        _ => {}
    }
}

fn admission(kind: &str, object: &mut Map<String, Value>) {
    match kind {
        "MutatingWebhookConfiguration" => admission::webhooks(object, true),
        "ValidatingWebhookConfiguration" => admission::webhooks(object, false),
        "MutatingAdmissionPolicy" | "ValidatingAdmissionPolicy" => admission::policy(object),
        "MutatingAdmissionPolicyBinding" | "ValidatingAdmissionPolicyBinding" => {
            admission::policy_binding(object);
        }
        _ => {}
    }
}

/// The object in a field, made if it isn't there; nothing if the field holds something else.
fn child<'o>(object: &'o mut Map<String, Value>, name: &str) -> Option<&'o mut Map<String, Value>> {
    let value = object.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// The object in a field, if it is there.
fn existing<'o>(object: &'o mut Map<String, Value>, name: &str) -> Option<&'o mut Map<String, Value>> {
    object.get_mut(name)?.as_object_mut()
}

/// The objects in a list.
fn elements<'o>(
    object: &'o mut Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'o mut Map<String, Value>> + use<'o> {
    let list = object.get_mut(name).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests;

//! What `kubectl get` prints: columns and rows by kind.

mod access;
mod age;
mod cluster;
mod events;
mod networking;
mod pods;
mod policies;
mod services;
mod storage;
mod workloads;

use jiff::Timestamp;
use serde_json::Value;

use crate::object::{at, text};

pub use age::human_duration;

/// A column of a `Table`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// Heading, such as `Name`.
    pub name: &'static str,
    /// JSON type of its cells: `string`, `integer`, `boolean`, `date`.
    pub kind: &'static str,
    /// `name` for the first column, else empty.
    pub format: &'static str,
    /// 0: always shown; 1: with `-o wide` only.
    pub priority: i32,
    /// What it shows.
    pub description: &'static str,
}

impl Column {
    const fn text(name: &'static str, description: &'static str) -> Column {
        Column {
            name,
            kind: "string",
            format: "",
            priority: 0,
            description,
        }
    }

    const fn of(self, kind: &'static str) -> Column {
        Column { kind, ..self }
    }

    const fn wide(self) -> Column {
        Column { priority: 1, ..self }
    }

    /// The entry of `columnDefinitions`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "priority": self.priority,
            "description": self.description,
        })
    }
}

const NAME: Column = Column {
    format: "name",
    ..Column::text("Name", "Name of the object, unique in its namespace.")
};
const AGE: Column = Column::text("Age", "How long ago the object was created.");
const CREATED_AT: Column = Column::text("Created At", "When the object was created.").of("date");
const DEFAULT: &[Column] = &[NAME, CREATED_AT];

/// How one kind is printed.
struct Printer {
    columns: &'static [Column],
    row: fn(&Value, Timestamp) -> Vec<Value>,
}

fn printer(group: &str, kind: &str) -> Printer {
    let (columns, row): (_, fn(&Value, Timestamp) -> Vec<Value>) = match (group, kind) {
        ("", "Pod") => (pods::COLUMNS, pods::row),
        ("", "Node") => (cluster::NODE_COLUMNS, cluster::node_row),
        ("", "Namespace") => (cluster::NAMESPACE_COLUMNS, cluster::namespace_row),
        ("", "ConfigMap") => (cluster::CONFIG_MAP_COLUMNS, cluster::config_map_row),
        ("", "Secret") => (cluster::SECRET_COLUMNS, cluster::secret_row),
        ("", "ServiceAccount") => (cluster::SERVICE_ACCOUNT_COLUMNS, cluster::service_account_row),
        ("coordination.k8s.io", "Lease") => (cluster::LEASE_COLUMNS, cluster::lease_row),
        ("", "Event") => (events::COLUMNS, events::core_row),
        ("events.k8s.io", "Event") => (events::COLUMNS, events::row),
        ("", "Service") => (services::SERVICE_COLUMNS, services::service_row),
        ("", "Endpoints") => (services::ENDPOINTS_COLUMNS, services::endpoints_row),
        ("apps", "Deployment") => (workloads::DEPLOYMENT_COLUMNS, workloads::deployment_row),
        ("apps", "ReplicaSet") => (workloads::REPLICAS_COLUMNS, workloads::replica_set_row),
        ("", "ReplicationController") => (workloads::REPLICAS_COLUMNS, workloads::replication_controller_row),
        ("apps", "StatefulSet") => (workloads::STATEFUL_SET_COLUMNS, workloads::stateful_set_row),
        ("apps", "DaemonSet") => (workloads::DAEMON_SET_COLUMNS, workloads::daemon_set_row),
        ("apps", "ControllerRevision") => (workloads::REVISION_COLUMNS, workloads::revision_row),
        ("", "PodTemplate") => (workloads::POD_TEMPLATE_COLUMNS, workloads::pod_template_row),
        ("batch", "Job") => (workloads::JOB_COLUMNS, workloads::job_row),
        ("batch", "CronJob") => (workloads::CRON_JOB_COLUMNS, workloads::cron_job_row),
        ("", "PersistentVolume") => (storage::PV_COLUMNS, storage::pv_row),
        ("", "PersistentVolumeClaim") => (storage::CLAIM_COLUMNS, storage::claim_row),
        ("storage.k8s.io", "StorageClass") => (storage::CLASS_COLUMNS, storage::class_row),
        ("storage.k8s.io", "VolumeAttachment") => (storage::ATTACHMENT_COLUMNS, storage::attachment_row),
        ("storage.k8s.io", "CSINode") => (storage::CSI_NODE_COLUMNS, storage::csi_node_row),
        ("storage.k8s.io", "CSIDriver") => (storage::CSI_DRIVER_COLUMNS, storage::csi_driver_row),
        ("storage.k8s.io", "CSIStorageCapacity") => (storage::CAPACITY_COLUMNS, storage::capacity_row),
        ("storage.k8s.io", "VolumeAttributesClass") => (storage::ATTRIBUTES_COLUMNS, storage::attributes_row),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            (access::BINDING_COLUMNS, access::binding_row)
        }
        (group, kind) => return further_printer(group, kind),
    };
    Printer { columns, row }
}

/// The kinds of which this server keeps the objects and does nothing else with them.
fn further_printer(group: &str, kind: &str) -> Printer {
    let (columns, row): (_, fn(&Value, Timestamp) -> Vec<Value>) = match (group, kind) {
        ("", "ComponentStatus") => (cluster::COMPONENT_COLUMNS, cluster::component_row),
        ("", "ResourceQuota") => (policies::QUOTA_COLUMNS, policies::quota_row),
        ("policy", "PodDisruptionBudget") => (policies::BUDGET_COLUMNS, policies::budget_row),
        ("scheduling.k8s.io", "PriorityClass") => (policies::PRIORITY_COLUMNS, policies::priority_row),
        ("node.k8s.io", "RuntimeClass") => (policies::RUNTIME_COLUMNS, policies::runtime_row),
        ("autoscaling", "HorizontalPodAutoscaler") => {
            (policies::AUTOSCALER_COLUMNS, policies::autoscaler_row)
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            (policies::REQUEST_COLUMNS, policies::request_row)
        }
        ("admissionregistration.k8s.io", kind) if kind.ends_with("WebhookConfiguration") => {
            (policies::WEBHOOKS_COLUMNS, policies::webhooks_row)
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            (policies::VALIDATING_COLUMNS, policies::validating_row)
        }
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => {
            (policies::MUTATING_COLUMNS, policies::mutating_row)
        }
        ("admissionregistration.k8s.io", _) => {
            (policies::POLICY_BINDING_COLUMNS, policies::policy_binding_row)
        }
        ("apiregistration.k8s.io", "APIService") => {
            (policies::API_SERVICE_COLUMNS, policies::api_service_row)
        }
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => (policies::FLOW_COLUMNS, policies::flow_row),
        ("flowcontrol.apiserver.k8s.io", _) => (policies::LEVEL_COLUMNS, policies::level_row),
        ("resource.k8s.io", "ResourceClaim") => (policies::DEVICE_CLAIM_COLUMNS, policies::device_claim_row),
        ("resource.k8s.io", "ResourceSlice") => (policies::DEVICES_COLUMNS, policies::devices_row),
        ("resource.k8s.io", _) => (policies::AGED_COLUMNS, policies::aged_row),
        ("discovery.k8s.io", "EndpointSlice") => (networking::SLICE_COLUMNS, networking::slice_row),
        ("networking.k8s.io", "Ingress") => (networking::INGRESS_COLUMNS, networking::ingress_row),
        ("networking.k8s.io", "IngressClass") => {
            (networking::INGRESS_CLASS_COLUMNS, networking::ingress_class_row)
        }
        ("networking.k8s.io", "NetworkPolicy") => (networking::POLICY_COLUMNS, networking::policy_row),
        ("networking.k8s.io", "IPAddress") => (networking::ADDRESS_COLUMNS, networking::address_row),
        ("networking.k8s.io", "ServiceCIDR") => (networking::RANGE_COLUMNS, networking::range_row),
        // Roles too: upstream prints just their names and when they were made.
        _ => (DEFAULT, default_row),
    };
    Printer { columns, row }
}

/// The column with which every table begins.
pub(crate) fn name_column() -> Value {
    NAME.to_json()
}

/// How long ago a time of the API was.
pub(crate) fn age_of(text: &str, now: Timestamp) -> String {
    age::since(text, now)
}

/// The columns of a kind.
#[must_use]
pub fn columns(group: &str, kind: &str) -> &'static [Column] {
    printer(group, kind).columns
}

/// The cells of an object, one for each of [`columns`].
#[must_use]
pub fn row(group: &str, kind: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    (printer(group, kind).row)(object, now)
}

fn default_row(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(object, &["metadata", "creationTimestamp"]).into(),
    ]
}

fn name(object: &Value) -> Value {
    text(object, &["metadata", "name"]).into()
}

fn object_age(object: &Value, now: Timestamp) -> Value {
    age::since(text(object, &["metadata", "creationTimestamp"]), now).into()
}

/// The text at a path, or what stands for absence.
fn text_or<'a>(object: &'a Value, path: &[&str], absent: &'a str) -> &'a str {
    match text(object, path) {
        "" => absent,
        found => found,
    }
}

fn flag(object: &Value, path: &[&str], default: bool) -> bool {
    at(object, path).and_then(Value::as_bool).unwrap_or(default)
}

/// Deleted but not gone.
fn is_terminating(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some()
}

/// `a=b,c=d`, sorted, or `<none>`.
fn labels(object: &Value, path: &[&str]) -> String {
    let Some(map) = crate::object::map(object, path).filter(|map| !map.is_empty()) else {
        return "<none>".to_owned();
    };
    let pairs: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests;

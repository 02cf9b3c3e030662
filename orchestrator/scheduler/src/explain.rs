//! Why a pod has no node, for people who ask: the decision is made anew from what can be read of the cluster.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::ResourceExt as _;
use moorline_model::{Actor, Explanation, pod, volume_match::Candidates};

use crate::{
    decide::{Next, decide},
    ledger::Ledger,
    snapshot::{Objects, PodFacts, Snapshot},
};

/// Why the pod has no node. `pods` are all pods of the cluster.
pub fn scheduling(waiting: &Arc<Pod>, objects: &Objects, pods: &[Arc<Pod>]) -> Option<Explanation> {
    if pod::node_name(waiting).is_some() || pod::is_finished(waiting) {
        return None;
    }
    let gates = waiting
        .spec
        .as_ref()
        .and_then(|spec| spec.scheduling_gates.as_ref());
    if let Some(gate) = gates.and_then(|gates| gates.first()) {
        return Some(Explanation::new(
            "SchedulingGated",
            format!(
                "the scheduling gate {} keeps the pod from getting a node",
                gate.name
            ),
            Actor::User,
            "remove the gate from spec.schedulingGates when its condition is met",
        ));
    }
    let mut ledger = Ledger::default();
    for pod in pods {
        ledger.observe(pod);
    }
    let mut free_pvs = Candidates::default();
    for pv in objects.pvs.list() {
        free_pvs.upsert(pv);
    }
    let snapshot = Snapshot {
        objects,
        ledger: &ledger,
        free_pvs: &free_pvs,
        promised: &HashMap::new(),
    };
    Some(match decide(&PodFacts::gather(waiting, objects), &snapshot) {
        Next::Unschedulable { message } => Explanation::new(
            "FailedScheduling",
            message,
            Actor::User,
            "change the pod or its claims, or the nodes, so that one of them fits",
        ),
        Next::Place { node, plan } if plan.is_empty() => Explanation::new(
            "SchedulingDue",
            format!(
                "node {} fits, the scheduler has to bind the pod to it",
                node.name_any()
            ),
            Actor::Scheduler,
            "check that the scheduler runs",
        ),
        Next::Place { node, plan } => {
            let bind = plan
                .bind
                .iter()
                .map(|(claim, pv)| format!("{} (gets {})", claim.name_any(), name(pv)));
            let make = plan
                .provision
                .iter()
                .map(|claim| format!("{} (a new volume)", claim.name_any()));
            let claims: Vec<String> = bind.chain(make).collect();
            Explanation::new(
                "VolumeBinding",
                format!(
                    "node {} fits, and the pod goes there once its claims are bound: {}",
                    node.name_any(),
                    claims.join(", ")
                ),
                Actor::Scheduler,
                "see how the claims are, below",
            )
        }
    })
}

fn name(pv: &PersistentVolume) -> String {
    pv.name_any()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    /// A pod of these fields of `spec`, with the claim `data`.
    fn pod(spec: Value) -> Arc<Pod> {
        let mut whole = json!({"containers": [{"name": "c"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
        whole
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        Arc::new(object(
            json!({"metadata": {"name": "web", "namespace": "ns", "uid": "web"}, "spec": whole,
            "status": {"phase": "Pending"}}),
        ))
    }

    /// One node, a delayed class, and the claim `data` as given.
    fn cluster(claim: Option<Value>, node_spec: Value) -> Objects {
        let objects = Objects::detached();
        objects.nodes.observe(object(json!({
            "metadata": {"name": "n1", "resourceVersion": "1"}, "spec": node_spec,
            "status": {"allocatable": {"cpu": "4", "memory": "1Gi", "pods": "10"}},
        })));
        objects.classes.observe(object(json!({
            "metadata": {"name": "late", "resourceVersion": "1"}, "provisioner": "d", "volumeBindingMode": "WaitForFirstConsumer",
        })));
        if let Some(spec) = claim {
            objects.claims.observe(object(json!({
                "metadata": {"name": "data", "namespace": "ns", "uid": "data", "resourceVersion": "1"}, "spec": spec,
                "status": {"phase": "Pending"},
            })));
        }
        objects
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn a_pod_without_a_node_is_explained() {
        let late = || {
            Some(
                json!({"storageClassName": "late", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}),
            )
        };
        let cordoned = json!({"unschedulable": true});
        let no_claim = json!({"volumes": []});
        let neighbour: Arc<Pod> = Arc::new(object(
            json!({"metadata": {"name": "b", "namespace": "ns", "uid": "b"},
            "spec": {"containers": [], "nodeName": "n1"}}),
        ));
        let with_pv = |objects: Objects| {
            objects.pvs.observe(object(json!({
                "metadata": {"name": "pv1", "resourceVersion": "1"}, "status": {"phase": "Available"},
                "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}},
            })));
            objects
        };
        for (name, pod, objects, expected) in [
            (
                "has a node",
                pod(json!({"nodeName": "n1"})),
                cluster(late(), json!({})),
                None,
            ),
            (
                "gated",
                pod(json!({"schedulingGates": [{"name": "quota"}]})),
                cluster(late(), json!({})),
                Some(("SchedulingGated", Actor::User, "gate quota keeps")),
            ),
            (
                "no claim",
                pod(json!({})),
                cluster(None, json!({})),
                Some((
                    "FailedScheduling",
                    Actor::User,
                    "persistentvolumeclaim \"data\" not found",
                )),
            ),
            (
                "no node",
                pod(json!({})),
                cluster(late(), cordoned),
                Some(("FailedScheduling", Actor::User, "node(s) were unschedulable")),
            ),
            (
                "fits",
                pod(no_claim),
                cluster(None, json!({})),
                Some(("SchedulingDue", Actor::Scheduler, "node n1 fits")),
            ),
            (
                "a volume that is there",
                pod(json!({})),
                with_pv(cluster(late(), json!({}))),
                Some(("VolumeBinding", Actor::Scheduler, "data (gets pv1)")),
            ),
            (
                "volumes first",
                pod(json!({})),
                cluster(late(), json!({})),
                Some(("VolumeBinding", Actor::Scheduler, "data (a new volume)")),
            ),
        ] {
            let found = scheduling(&pod, &objects, &[Arc::clone(&neighbour)]);
            match (&found, expected) {
                (None, None) => {}
                (Some(found), Some((reason, actor, text))) => {
                    assert_eq!((found.reason, found.actor), (reason, actor), "{name}: {found:?}");
                    assert!(found.message.contains(text), "{name}: {found:?}");
                }
                _ => panic!("{name}: {found:?}"),
            }
        }
    }
}

//! What is taken on each node, kept up to date pod by pod instead of summed anew for each decision.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::requests::{Resources, of_pod};

/// One pod on one node.
#[derive(Debug, Clone)]
struct Placed {
    pod: Arc<Pod>,
    node_name: String,
    requests: Resources,
    /// True while the API does not show it on its node yet.
    assumed: bool,
}

/// What is taken on one node.
#[derive(Debug, Clone, Default)]
pub struct NodeUse {
    /// Sum of requests.
    pub requests: Resources,
    /// Pods by uid.
    pub pods: BTreeMap<String, Arc<Pod>>,
}

/// Pods by node, and claims by the pods that use them. Pure: fed with changes, asked for sums.
#[derive(Debug, Default)]
pub struct Ledger {
    placed: HashMap<String, Placed>,
    nodes: HashMap<String, NodeUse>,
    users: HashMap<(String, String), BTreeSet<String>>,
}

impl Ledger {
    /// Takes a pod's present state into account.
    pub fn observe(&mut self, pod: &Arc<Pod>) {
        let uid = pod.uid().unwrap_or_default();
        match node_of(pod).filter(|_| !is_finished(pod)) {
            Some(node_name) => self.place(uid, pod, node_name.to_owned(), false),
            // An assumed pod is not on its node in the API yet; only its end takes it off here.
            None if self.placed.get(&uid).is_some_and(|placed| placed.assumed) && !is_finished(pod) => {}
            None => self.remove(&uid),
        }
    }

    /// Reserves room for a pod that is being bound.
    pub fn assume(&mut self, pod: &Arc<Pod>, node_name: &str) {
        self.place(pod.uid().unwrap_or_default(), pod, node_name.to_owned(), true);
    }

    /// True if the pod has a node, in the API or by assumption.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// Gives an assumed pod's room back, unless the API meanwhile shows it on its node.
    pub fn forget(&mut self, uid: &str) {
        if self.placed.get(uid).is_some_and(|placed| placed.assumed) {
            self.remove(uid);
        }
    }

    fn place(&mut self, uid: String, pod: &Arc<Pod>, node_name: String, assumed: bool) {
        self.remove(&uid);
        let requests = of_pod(pod);
        let node = self.nodes.entry(node_name.clone()).or_default();
        node.requests.add(&requests, 1);
        node.pods.insert(uid.clone(), Arc::clone(pod));
        for claim in claims_of(pod) {
            self.users.entry(claim).or_default().insert(uid.clone());
        }
        self.placed.insert(
            uid,
            Placed {
                pod: Arc::clone(pod),
                node_name,
                requests,
                assumed,
            },
        );
    }

    /// Takes a pod off; one that is not there is no matter.
    pub fn remove(&mut self, uid: &str) {
        let Some(placed) = self.placed.remove(uid) else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(&placed.node_name) {
            node.requests.add(&placed.requests, -1);
            node.pods.remove(uid);
            if node.pods.is_empty() {
                self.nodes.remove(&placed.node_name);
            }
        }
        for claim in claims_of(&placed.pod) {
            if let Some(users) = self.users.get_mut(&claim) {
                users.remove(uid);
                if users.is_empty() {
                    self.users.remove(&claim);
                }
            }
        }
    }

    /// What is taken on a node; `None` when nothing is.
    pub fn node(&self, node_name: &str) -> Option<&NodeUse> {
        self.nodes.get(node_name)
    }

    /// True if a pod other than `uid` that has a node uses the claim.
    pub fn is_claim_used(&self, namespace: &str, claim: &str, uid: &str) -> bool {
        let key = (namespace.to_owned(), claim.to_owned());
        self.users
            .get(&key)
            .is_some_and(|users| users.iter().any(|user| user != uid))
    }
}

/// The node of a pod, once it has one.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// True once nothing of the pod runs or will run.
pub fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Namespace and name of each claim the pod uses, generic ephemeral ones included.
pub fn claims_of(pod: &Pod) -> Vec<(String, String)> {
    let namespace = pod.namespace().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let names = volumes.filter_map(
        |volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => Some(source.claim_name.clone()),
            (None, Some(_)) => Some(moorline_model::names::ephemeral_claim_name(
                &pod.name_any(),
                &volume.name,
            )),
            (None, None) => None,
        },
    );
    names.map(|name| (namespace.clone(), name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, node: Option<&str>, phase: &str) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": uid, "namespace": "ns", "uid": uid},
            "spec": {
                "nodeName": node,
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}],
                "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
            },
            "status": {"phase": phase},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn cpu(ledger: &Ledger, node: &str) -> i64 {
        ledger.node(node).map_or(0, |node| node.requests.get("cpu"))
    }

    #[test]
    fn a_pod_counts_from_assumption_to_its_end_and_once() {
        let mut ledger = Ledger::default();
        ledger.assume(&pod("a", None, "Pending"), "n1");
        assert_eq!(cpu(&ledger, "n1"), 1000);
        ledger.observe(&pod("a", None, "Pending"));
        assert_eq!(
            cpu(&ledger, "n1"),
            1000,
            "an old view does not take an assumed pod off"
        );
        ledger.observe(&pod("a", Some("n1"), "Running"));
        ledger.observe(&pod("a", Some("n1"), "Running"));
        assert_eq!(cpu(&ledger, "n1"), 1000);
        ledger.forget("a");
        assert_eq!(cpu(&ledger, "n1"), 1000, "what the API shows is not forgotten");
        ledger.observe(&pod("a", Some("n1"), "Succeeded"));
        assert_eq!(cpu(&ledger, "n1"), 0);
    }

    #[test]
    fn claims_of_templates_count_and_volumes_without_claims_do_not() {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                {"name": "c", "emptyDir": {}},
            ]},
        });
        let claims = claims_of(&serde_json::from_value(pod).unwrap());
        let names: Vec<String> = claims
            .iter()
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .collect();
        assert_eq!(names, ["ns/data", "ns/web-b"]);
    }

    #[test]
    fn a_failed_binding_gives_room_and_claim_back() {
        let mut ledger = Ledger::default();
        ledger.assume(&pod("a", None, "Pending"), "n1");
        assert!(ledger.is_claim_used("ns", "data", "b") && !ledger.is_claim_used("ns", "data", "a"));
        ledger.forget("a");
        assert!(ledger.node("n1").is_none() && !ledger.is_claim_used("ns", "data", "b"));
    }
}

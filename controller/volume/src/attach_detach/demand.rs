//! Which nodes want a PV attached, and for which pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;
use moorline_model::claim::ClaimPhase;
use moorline_model::{claim, pod, volume};

/// Whether volumes of the driver have to be attached. Without a CSIDriver object they have to.
pub fn needs_attach(driver: Option<&CSIDriver>) -> bool {
    driver.is_none_or(|driver| driver.spec.attach_required != Some(false))
}

/// Whether claim and PV are bound to each other, so that pods using the claim use the PV.
pub fn is_bound_pair(pv: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim::phase(claim) == Some(ClaimPhase::Bound)
        && claim::volume_name(claim) == pv.metadata.name.as_deref()
        && volume::claim_uid(pv).is_some_and(|uid| claim.metadata.uid.as_deref() == Some(uid))
}

/// Whether the pod, if it has a node, wants the claim's volume there: it is not over, and a claim made for a pod is
/// its own.
pub fn is_wanting(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let uses = |volume: &pod::ClaimVolume<'_>| {
        Some(&volume.claim_name) == claim.metadata.name.as_ref()
            && (!volume.is_ephemeral || pod::owns_claim(pod, claim))
    };
    !pod::is_terminated(pod) && pod::claim_volumes(pod).iter().any(uses)
}

/// The nodes that want the PV attached, with the pods there.
pub fn wanting_nodes(
    pv: &PersistentVolume,
    claim: Option<&PersistentVolumeClaim>,
    pods: &[Arc<Pod>],
) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut nodes: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    let Some(claim) = claim.filter(|claim| is_bound_pair(pv, claim)) else {
        return nodes;
    };
    for pod in pods.iter().filter(|pod| is_wanting(pod, claim)) {
        if let Some(node_name) = pod::node_name(pod) {
            nodes.entry(node_name.to_string()).or_default().push(pod.clone());
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, node: Option<&str>, phase: &str, volumes: Value) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name},
            "spec": {"containers": [], "nodeName": node, "volumes": volumes},
            "status": {"phase": phase},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn pair(claim_phase: &str, volume_name: &str, uid: &str) -> (PersistentVolume, PersistentVolumeClaim) {
        let reference = json!({"namespace": "ns", "name": "web-data", "uid": uid});
        let owner =
            json!([{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "web", "controller": true}]);
        let pv = json!({"metadata": {"name": "pv1"}, "spec": {"claimRef": reference}});
        let claim = json!({
            "metadata": {"namespace": "ns", "name": "web-data", "uid": "c", "ownerReferences": owner},
            "spec": {"volumeName": volume_name},
            "status": {"phase": claim_phase},
        });
        (
            serde_json::from_value(pv).unwrap(),
            serde_json::from_value(claim).unwrap(),
        )
    }

    #[test]
    fn demand() {
        let direct = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "web-data"}}]);
        let ephemeral = json!([{"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
        let pods = vec![
            pod("a", Some("n1"), "Running", direct.clone()),
            pod("b", Some("n1"), "Pending", direct.clone()),
            pod("c", Some("n2"), "Running", direct.clone()),
            pod("over", Some("n3"), "Succeeded", direct.clone()),
            pod("homeless", None, "Pending", direct),
            pod("web", Some("n4"), "Running", ephemeral.clone()),
        ];
        let demand = |pv: &PersistentVolume, claim: &PersistentVolumeClaim| -> Vec<String> {
            wanting_nodes(pv, Some(claim), &pods)
                .into_iter()
                .map(|(node, pods)| format!("{node}:{}", pods.len()))
                .collect()
        };
        let (pv, claim) = pair("Bound", "pv1", "c");
        assert_eq!(demand(&pv, &claim), ["n1:2", "n2:1", "n4:1"]);
        assert!(wanting_nodes(&pv, None, &pods).is_empty());
        for (phase, volume_name, uid) in [
            ("Pending", "pv1", "c"),
            ("Bound", "pv2", "c"),
            ("Bound", "pv1", "d"),
            ("Bound", "pv1", ""),
        ] {
            let (pv, claim) = pair(phase, volume_name, uid);
            assert!(demand(&pv, &claim).is_empty(), "{phase} {volume_name} {uid}");
        }
        let mut impostor = claim;
        impostor.metadata.owner_references = None;
        assert_eq!(demand(&pv, &impostor), ["n1:2", "n2:1"]);
    }

    #[test]
    fn attaching_is_needed_unless_the_driver_says_no() {
        let driver = |required: Value| -> CSIDriver {
            serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {"attachRequired": required}}))
                .unwrap()
        };
        assert!(needs_attach(None));
        assert!(needs_attach(Some(&driver(json!(null)))));
        assert!(needs_attach(Some(&driver(json!(true)))));
        assert!(!needs_attach(Some(&driver(json!(false)))));
    }
}

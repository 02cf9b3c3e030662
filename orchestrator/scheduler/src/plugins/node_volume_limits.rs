//! NodeVolumeLimits: a driver may say how many of its volumes a node can have.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;
use moorline_model::{claim, names};

use crate::{
    ledger::claims_of,
    snapshot::{Candidate, Objects, PodFacts, Snapshot},
    verdict::{Rejection, Verdict},
};

/// Volumes by driver; a claim that has no volume yet counts by its own name under its class's provisioner.
type Volumes = BTreeMap<String, BTreeSet<String>>;

fn count(claim: &PersistentVolumeClaim, objects: &Objects, volumes: &mut Volumes) {
    let pv = claim::volume_name(claim).and_then(|name| objects.pvs.get(None, name));
    let (driver, volume) = match pv.as_ref().and_then(|pv| pv.spec.as_ref()?.csi.as_ref()) {
        Some(csi) => (
            csi.driver.clone(),
            names::unique_volume_name(&csi.driver, &csi.volume_handle),
        ),
        None => {
            let Some(class) = objects.classes.get(None, claim::class_name(claim)) else {
                return;
            };
            let namespace = claim.namespace().unwrap_or_default();
            (
                class.provisioner.clone(),
                format!("claim {namespace}/{}", claim.name_any()),
            )
        }
    };
    volumes.entry(driver).or_default().insert(volume);
}

fn used_on(candidate: &Candidate<'_>, snapshot: &Snapshot<'_>) -> Volumes {
    let objects = snapshot.objects;
    let mut volumes = Volumes::new();
    for pod in candidate.in_use.iter().flat_map(|in_use| in_use.pods.values()) {
        for (namespace, name) in claims_of(pod) {
            if let Some(claim) = objects.claims.get(Some(&namespace), &name) {
                count(&claim, objects, &mut volumes);
            }
        }
    }
    let node_name = candidate.node.name_any();
    for attachment in objects
        .attachments
        .list()
        .iter()
        .filter(|va| va.spec.node_name == node_name)
    {
        let pv = attachment.spec.source.persistent_volume_name.as_deref();
        let pv = pv.and_then(|name| objects.pvs.get(None, name));
        if let Some(csi) = pv.as_ref().and_then(|pv| pv.spec.as_ref()?.csi.as_ref()) {
            let name = names::unique_volume_name(&csi.driver, &csi.volume_handle);
            volumes.entry(csi.driver.clone()).or_default().insert(name);
        }
    }
    volumes
}

/// Refuses nodes where the pod's volumes would be more than a driver allows. Without a limit nothing is counted.
pub fn filter(pod: &PodFacts<'_>, candidate: &Candidate<'_>, snapshot: &Snapshot<'_>) -> Verdict {
    let objects = snapshot.objects;
    let Some(csi_node) = objects.csi_nodes.get(None, &candidate.node.name_any()) else {
        return Ok(());
    };
    let limits: BTreeMap<&str, i32> = csi_node
        .spec
        .drivers
        .iter()
        .filter_map(|driver| Some((driver.name.as_str(), driver.allocatable.as_ref()?.count?)))
        .collect();
    if limits.is_empty() || pod.claims.is_empty() {
        return Ok(());
    }
    let mut wanted = Volumes::new();
    pod.claims
        .iter()
        .filter_map(|claim| claim.object.as_ref())
        .for_each(|claim| count(claim, objects, &mut wanted));
    let used = used_on(candidate, snapshot);
    for (driver, volumes) in &wanted {
        let Some(limit) = limits.get(driver.as_str()) else {
            continue;
        };
        let nothing = BTreeSet::new();
        let there = used.get(driver).unwrap_or(&nothing);
        let new = volumes.difference(there).count();
        // A volume that is on the node already costs nothing.
        if new > 0 && i64::try_from(there.len() + new).unwrap_or(i64::MAX) > i64::from(*limit) {
            return Err(Rejection::because("node(s) exceed max volume count"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{Node, Pod};
    use moorline_model::volume_match::Candidates;
    use serde_json::{Value, json};

    use super::*;
    use crate::{ledger::Ledger, snapshot::PromisedPvs};

    fn object<K: serde::de::DeserializeOwned>(mut value: Value) -> K {
        value["metadata"]["resourceVersion"] = json!("1");
        serde_json::from_value(value).unwrap()
    }

    fn pod(name: &str, claim: &str) -> Arc<Pod> {
        Arc::new(object(json!({
            "metadata": {"name": name, "namespace": "ns", "uid": name},
            "spec": {"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]},
        })))
    }

    /// Claims `c1` and `c2` with volumes of driver `d`, `new` of a class of it, `odd` of no class.
    fn cluster(limit: Value) -> Objects {
        let objects = Objects::detached();
        objects
            .csi_nodes
            .observe(object(json!({"metadata": {"name": "n1"}, "spec": {"drivers": [
            {"name": "d", "nodeID": "x", "allocatable": {"count": limit}}]}})));
        objects
            .classes
            .observe(object(json!({"metadata": {"name": "fast"}, "provisioner": "d"})));
        let claims = [
            ("c1", "pv1", ""),
            ("c2", "pv2", ""),
            ("new", "", "fast"),
            ("odd", "", "gone"),
        ];
        for (name, pv, class) in claims {
            objects.claims.observe(object(
                json!({"metadata": {"name": name, "namespace": "ns", "uid": name},
                "spec": {"volumeName": pv, "storageClassName": class}}),
            ));
        }
        for name in ["pv1", "pv2"] {
            objects.pvs.observe(object(json!({"metadata": {"name": name},
                "spec": {"csi": {"driver": "d", "volumeHandle": name}}})));
        }
        objects
    }

    #[test]
    fn a_node_takes_as_many_volumes_as_the_driver_says() {
        let attached: Value = json!({"metadata": {"name": "va"}, "spec": {"attacher": "d", "nodeName": "n1",
            "source": {"persistentVolumeName": "pv2"}}});
        for (name, limit, is_attached, claim, expected) in [
            ("one more than there may be", json!(1), false, "c2", false),
            ("the volume that is there", json!(1), false, "c1", true),
            ("room for one more", json!(2), false, "c2", true),
            ("no limit", Value::Null, false, "c2", true),
            ("a volume to be made counts", json!(1), false, "new", false),
            ("a claim of nobody doesn't", json!(1), false, "odd", true),
            ("what is attached counts", json!(2), true, "new", false),
            ("what is attached is there", json!(1), true, "c2", true),
        ] {
            let objects = cluster(limit);
            if is_attached {
                objects.attachments.observe(object(attached.clone()));
            }
            let mut ledger = Ledger::default();
            ledger.assume(&pod("there", "c1"), "n1");
            let node: Node = object(json!({"metadata": {"name": "n1"}}));
            let candidate = Candidate {
                node: &node,
                in_use: ledger.node("n1"),
            };
            let snapshot = Snapshot {
                objects: &objects,
                ledger: &ledger,
                free_pvs: &Candidates::default(),
                promised: &PromisedPvs::new(),
            };
            let wanted = pod("new", claim);
            let verdict = filter(&PodFacts::gather(&wanted, &objects), &candidate, &snapshot);
            assert_eq!(verdict.is_ok(), expected, "{name}: {verdict:?}");
        }
    }
}

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

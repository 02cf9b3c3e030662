//! VolumeBinding: a pod goes only where its volumes are, or can be made.
//!
//! Before any node is looked at, [`pre_filter`] sorts the claims: bound ones tie the pod to where their volumes can be
//! used; those that wait for their first consumer are bound by this pod's coming, to an existing volume or a new one.
//! [`filter`] plans that for one node; [`progress`] tells, after the plan was written, how far it has come.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::{CSIStorageCapacity, StorageClass},
};
use kube::ResourceExt as _;
use moorline_model::{
    Amount, claim, keys,
    label_selector::Selector,
    node_affinity::{NodeFacts, pv_fits_node},
    pod, topology, volume,
    volume_match::ClaimRequest,
};

use crate::{
    snapshot::{ClaimFacts, Objects, PodFacts, Snapshot},
    verdict::Rejection,
};

type Claim = Arc<PersistentVolumeClaim>;

/// The claims of a pod by what has to be done for them.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// Bound both ways.
    pub bound: Vec<Claim>,
    /// Waiting for their first consumer.
    pub delayed: Vec<Claim>,
}

/// What has to be written for the pod's claims once a node is chosen.
#[derive(Debug, Clone, Default)]
pub struct VolumePlan {
    /// Claims that get an existing volume.
    pub bind: Vec<(Claim, Arc<PersistentVolume>)>,
    /// Claims for which the provisioner shall make a volume for the node.
    pub provision: Vec<Claim>,
}

impl VolumePlan {
    /// True when nothing has to be written.
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

const AFFINITY_CONFLICT: &str = "node(s) had volume node affinity conflict";
const NOTHING_TO_BIND: &str = "node(s) didn't find available persistent volumes to bind";
const NOT_ENOUGH_SPACE: &str = "node(s) did not have enough free storage";
const PV_MISSING: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// Sorts the pod's claims.
///
/// # Errors
/// The reason why no node can take the pod as things stand.
pub fn pre_filter(pod: &PodFacts<'_>, objects: &Objects) -> Result<Claims, String> {
    let mut claims = Claims::default();
    for facts in &pod.claims {
        let object = check_claim(pod, facts)?;
        if claim::is_fully_bound(object) {
            claims.bound.push(Arc::clone(object));
        } else if is_delayed(object, objects) && claim::volume_name(object).is_none() {
            claims.delayed.push(Arc::clone(object));
        } else {
            return Err("pod has unbound immediate PersistentVolumeClaims".into());
        }
    }
    Ok(claims)
}

fn check_claim<'c>(pod: &PodFacts<'_>, facts: &'c ClaimFacts) -> Result<&'c Claim, String> {
    let name = &facts.name;
    let Some(object) = &facts.object else {
        return Err(if facts.is_ephemeral {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
        } else {
            format!("persistentvolumeclaim \"{name}\" not found")
        });
    };
    if facts.is_ephemeral && !pod::owns_claim(pod.pod, object) {
        return Err(format!(
            "PVC {}/{name} was not created for pod {} (pod is not owner)",
            facts.namespace,
            pod.pod.name_any()
        ));
    }
    if claim::phase(object) == Some(claim::ClaimPhase::Lost) {
        let pv = claim::volume_name(object).unwrap_or_default();
        return Err(format!(
            "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{pv}\""
        ));
    }
    if object.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    Ok(object)
}

fn class_of(claim: &PersistentVolumeClaim, objects: &Objects) -> Option<Arc<StorageClass>> {
    objects.classes.get(None, claim::class_name(claim))
}

fn is_delayed(claim: &PersistentVolumeClaim, objects: &Objects) -> bool {
    class_of(claim, objects).is_some_and(|class| claim::is_delayed(&class))
}

/// Plans the pod's volumes for one node.
///
/// # Errors
/// The reason against the node.
pub fn filter(claims: &Claims, node: &Node, snapshot: &Snapshot<'_>) -> Result<VolumePlan, Rejection> {
    let objects = snapshot.objects;
    for bound in &claims.bound {
        let pv = claim::volume_name(bound).and_then(|name| objects.pvs.get(None, name));
        let Some(pv) = pv else {
            return Err(Rejection::because(PV_MISSING));
        };
        if !fits(&pv, node) {
            return Err(Rejection::because(AFFINITY_CONFLICT));
        }
    }
    let mut plan = VolumePlan::default();
    let mut delayed = claims.delayed.clone();
    delayed.sort_by_key(|claim| claim::requested_storage(claim).unwrap_or(Amount::ZERO).bytes());
    for wanted in delayed {
        match claim::selected_node(&wanted) {
            Some(name) if name != node.name_any() => return Err(Rejection::because(AFFINITY_CONFLICT)),
            // Provisioning for this node was asked for before; it is gone on with.
            Some(_) => plan.provision.push(wanted),
            None => match find_pv(&wanted, node, snapshot, &plan) {
                Some(pv) => plan.bind.push((wanted, pv)),
                None => plan.provision.push(wanted),
            },
        }
    }
    for wanted in &plan.provision {
        check_provisionable(wanted, node, objects)?;
    }
    Ok(plan)
}

fn fits(pv: &PersistentVolume, node: &Node) -> bool {
    // A malformed affinity allows no node.
    pv_fits_node(pv, NodeFacts::from(node)).unwrap_or(false)
}

fn find_pv(
    wanted: &PersistentVolumeClaim,
    node: &Node,
    snapshot: &Snapshot<'_>,
    plan: &VolumePlan,
) -> Option<Arc<PersistentVolume>> {
    // A claim that can't be understood matches nothing; the binder tells the user.
    let request = ClaimRequest::try_from(wanted).ok()?;
    let uid = wanted.uid().unwrap_or_default();
    let is_promised = |pv: &PersistentVolume| {
        let name = pv.name_any();
        let to_other = snapshot.promised.get(&name).is_some_and(|to| *to != uid);
        to_other || plan.bind.iter().any(|(_, taken)| taken.name_any() == name)
    };
    snapshot
        .free_pvs
        .find_for_node(&request, is_promised, |pv| fits(pv, node))
        .cloned()
}

fn check_provisionable(
    wanted: &PersistentVolumeClaim,
    node: &Node,
    objects: &Objects,
) -> Result<(), Rejection> {
    let Some(class) = class_of(wanted, objects) else {
        return Err(Rejection::because(NOTHING_TO_BIND));
    };
    if class.provisioner.is_empty() || class.provisioner == keys::NO_PROVISIONER {
        return Err(Rejection::because(NOTHING_TO_BIND));
    }
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    if !topology::is_allowed(terms, NodeFacts::from(node).labels) {
        return Err(Rejection::because(NOTHING_TO_BIND));
    }
    if has_space(wanted, &class, node, objects) {
        Ok(())
    } else {
        Err(Rejection::because(NOT_ENOUGH_SPACE))
    }
}

/// True if the driver does not tell its free space, or tells that there is enough for this one claim.
fn has_space(wanted: &PersistentVolumeClaim, class: &StorageClass, node: &Node, objects: &Objects) -> bool {
    let driver = objects.csi_drivers.get(None, &class.provisioner);
    let tells = driver.is_some_and(|driver| driver.spec.storage_capacity == Some(true));
    let Ok(size) = claim::requested_storage(wanted) else {
        return true;
    };
    if !tells || size.is_zero() {
        return true;
    }
    let of_class = |capacity: &CSIStorageCapacity| capacity.storage_class_name == class.name_any();
    objects
        .capacities
        .list()
        .iter()
        .filter(|capacity| of_class(capacity))
        .any(|capacity| {
            let limit = capacity
                .maximum_volume_size
                .as_ref()
                .or(capacity.capacity.as_ref());
            let enough = limit
                .and_then(|limit| Amount::try_from(limit).ok())
                .is_some_and(|limit| limit >= size);
            enough && reaches(capacity, node)
        })
}

fn reaches(capacity: &CSIStorageCapacity, node: &Node) -> bool {
    let Some(topology) = &capacity.node_topology else {
        return false;
    };
    Selector::parse(topology).is_ok_and(|selector| selector.matches(node.metadata.labels.as_ref()))
}

/// How far the binding of a pod's volumes has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Somebody still has to act.
    Waiting,
    /// All claims are bound, and usable on the node.
    Bound,
    /// It can't come to an end as planned: schedule anew.
    GaveUp(String),
}

/// Compares the plan with what is observed.
pub fn progress(plan: &VolumePlan, node: &Node, objects: &Objects) -> Progress {
    let to_bind = plan
        .bind
        .iter()
        .map(|(claim, pv)| static_progress(claim, pv, node, objects));
    let to_provision = plan
        .provision
        .iter()
        .map(|claim| dynamic_progress(claim, node, objects));
    let mut all = Progress::Bound;
    for one in to_bind.chain(to_provision) {
        match one {
            Progress::GaveUp(why) => return Progress::GaveUp(why),
            Progress::Waiting => all = Progress::Waiting,
            Progress::Bound => {}
        }
    }
    all
}

fn now_of(planned: &PersistentVolumeClaim, objects: &Objects) -> Result<Claim, Progress> {
    let name = planned.name_any();
    let now = objects.claims.get(planned.namespace().as_deref(), &name);
    match now.filter(|now| now.uid() == planned.uid() && now.metadata.deletion_timestamp.is_none()) {
        Some(now) => Ok(now),
        None => Err(Progress::GaveUp(format!(
            "persistentvolumeclaim \"{name}\" was deleted"
        ))),
    }
}

fn static_progress(planned: &Claim, pv: &PersistentVolume, node: &Node, objects: &Objects) -> Progress {
    let claim = match now_of(planned, objects) {
        Ok(claim) => claim,
        Err(gave_up) => return gave_up,
    };
    let Some(pv) = objects.pvs.get(None, &pv.name_any()) else {
        return Progress::GaveUp(format!("persistentvolume \"{}\" was deleted", pv.name_any()));
    };
    if !fits(&pv, node) {
        return Progress::GaveUp(format!(
            "node affinity of persistentvolume \"{}\" no longer matches",
            pv.name_any()
        ));
    }
    if volume::claim_uid(&pv) != planned.metadata.uid.as_deref() {
        return Progress::GaveUp(format!(
            "persistentvolume \"{}\" was given to another claim",
            pv.name_any()
        ));
    }
    if claim::is_fully_bound(&claim) {
        Progress::Bound
    } else {
        Progress::Waiting
    }
}

fn dynamic_progress(planned: &Claim, node: &Node, objects: &Objects) -> Progress {
    let claim = match now_of(planned, objects) {
        Ok(claim) => claim,
        Err(gave_up) => return gave_up,
    };
    if let Some(name) = claim::volume_name(&claim) {
        // The volume may become visible after the claim that names it.
        let Some(pv) = objects.pvs.get(None, name) else {
            return Progress::Waiting;
        };
        if !fits(&pv, node) {
            return Progress::GaveUp(format!(
                "persistentvolume \"{name}\" can't be used on node {}",
                node.name_any()
            ));
        }
    }
    if claim::is_fully_bound(&claim) {
        return Progress::Bound;
    }
    if claim::selected_node(&claim) != Some(node.name_any().as_str()) {
        let name = planned.name_any();
        return Progress::GaveUp(format!(
            "provisioning of persistentvolumeclaim \"{name}\" for this node was given up"
        ));
    }
    Progress::Waiting
}

#[cfg(test)]
mod tests;

//! Claims: are they bound, and if not, who has to give them a volume; have they the size they ask for?

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimCondition, Pod},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::ResourceExt as _;
use moorline_model::{
    Actor, Candidates, ClaimRequest, Explanation,
    claim::{self, ClaimPhase},
    keys, pod, snapshot,
};
use moorline_sidecars::explain::{self, Provisioning};
use moorline_volume_controllers::{
    binder::{
        claim_sync::{self, ClaimSeen, describe},
        why::Why,
    },
    pvc_protection,
};

use super::{Walk, deleted};
use crate::diagnose::{
    facts::first_seen,
    target::{Kind, ObjectName},
};

/// The binder's name in events; what it tells of provisioning is not the provisioner's word.
const BINDER: &str = "persistentvolume-controller";

/// What the binder looks at.
const NEEDED: [&str; 3] = ["persistentvolumes", "storageclasses", "pods"];

/// Where a claim stands.
pub(super) fn state(claim: &PersistentVolumeClaim) -> String {
    let class = match claim::explicit_class_name(claim) {
        Some(name) if !name.is_empty() => format!("class {name:?}"),
        Some(_) | None => "no class".to_owned(),
    };
    let size = |sizes: Option<&BTreeMap<String, Quantity>>| {
        let quantity = sizes.and_then(|sizes| sizes.get("storage"));
        quantity.map_or_else(|| "no size".to_owned(), |quantity| quantity.0.clone())
    };
    let spec = claim.spec.as_ref();
    let asked = size(spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref()));
    let has = size(claim.status.as_ref().and_then(|status| status.capacity.as_ref()));
    let phase = claim::phase(claim).unwrap_or(ClaimPhase::Pending);
    match (phase, claim::volume_name(claim)) {
        (ClaimPhase::Bound, Some(pv)) => format!("Bound to {pv}, {has}, {class}"),
        (phase, Some(pv)) => format!("{}, names {pv}, asks for {asked}, {class}", phase.as_str()),
        (phase, None) => format!("{}, no volume, asks for {asked}, {class}", phase.as_str()),
    }
}

impl Walk<'_> {
    /// Looks at a claim and at what it depends on.
    pub(super) fn claim(&mut self, claim: &Arc<PersistentVolumeClaim>) {
        let Some(object) = self.enter(Kind::PersistentVolumeClaim, &claim.metadata) else {
            return;
        };
        self.claim_deletion(&object, claim);
        if self.is_blind(&object, &claim.metadata, &NEEDED) {
            return;
        }
        let seen = self.claim_seen(claim);
        match claim_sync::why(&seen) {
            Some(why) => self.unbound(&object, claim, &seen, &why),
            None if claim::phase(claim) == Some(ClaimPhase::Bound) => {
                self.resizing(&object, claim);
                if let Some(pv) = &seen.pv {
                    self.volume(pv);
                }
            }
            None => self.binding_due(&object, claim, &seen),
        }
    }

    /// What the binder would look at.
    fn claim_seen(&self, claim: &Arc<PersistentVolumeClaim>) -> ClaimSeen {
        let objects = &self.facts.objects;
        let class_name = claim::class_name(claim);
        let mut seen = ClaimSeen {
            claim: Arc::clone(claim),
            pv: None,
            class: (!class_name.is_empty())
                .then(|| objects.classes.get(None, class_name))
                .flatten(),
            default_class: None,
            unscheduled_pods: Vec::new(),
            unreadable: None,
            is_provisioning_on: true,
        };
        if let Some(pv_name) = claim::volume_name(claim) {
            seen.pv = objects.pvs.get(None, pv_name);
            return seen;
        }
        let is_delayed = seen.class.as_ref().is_some_and(|class| claim::is_delayed(class));
        match ClaimRequest::try_from(&**claim) {
            Ok(request) => {
                let mut candidates = Candidates::default();
                objects
                    .pvs
                    .list()
                    .into_iter()
                    .for_each(|pv| candidates.upsert(pv));
                seen.pv = candidates
                    .find_for_claim(&request, is_delayed, |_| false)
                    .cloned();
            }
            Err(error) => seen.unreadable = Some(describe(&error)),
        }
        if claim::explicit_class_name(claim).is_none() {
            let classes = objects.classes.list();
            let default = claim::default_class(classes.iter().map(Arc::as_ref));
            seen.default_class = default.map(|class| class.name_any());
        }
        let users = self.users(claim).into_iter();
        seen.unscheduled_pods = users
            .filter(|user| pod::node_name(user).is_none())
            .map(|user| user.name_any())
            .collect();
        seen.unscheduled_pods.sort();
        seen
    }

    /// The pods that use a claim.
    fn users(&self, claim: &PersistentVolumeClaim) -> Vec<Arc<Pod>> {
        let mut pods = self.pods_of(claim);
        pods.retain(|user| {
            let volumes = pod::claim_volumes(user);
            volumes
                .iter()
                .any(|volume| Some(&volume.claim_name) == claim.metadata.name.as_ref())
        });
        pods
    }

    /// The pods of a claim's namespace.
    fn pods_of(&self, claim: &PersistentVolumeClaim) -> Vec<Arc<Pod>> {
        let mut pods = self.facts.pods.list();
        pods.retain(|user| user.metadata.namespace == claim.metadata.namespace);
        pods
    }

    fn claim_deletion(&mut self, object: &ObjectName, claim: &PersistentVolumeClaim) {
        let above = self.findings.len();
        if let Some(explanation) = pvc_protection::why_held(claim, &self.pods_of(claim)) {
            self.add(object, explanation, deleted(&claim.metadata));
        }
        let held = |finalizer| {
            let mut finalizers = claim.metadata.finalizers.iter().flatten();
            claim.metadata.deletion_timestamp.is_some() && finalizers.any(|held| held == finalizer)
        };
        if held(keys::PVC_AS_SOURCE_PROTECTION) {
            let explanation = Explanation::new(
                "SnapshotSource",
                "it is being deleted, and a snapshot of it is not cut yet",
                Actor::SnapshotController,
                "see how its snapshots are: moorline diagnose volumesnapshot NAME",
            );
            self.add(object, explanation, deleted(&claim.metadata));
        }
        if held(keys::CLONING_PROTECTION) {
            let explanation = Explanation::new(
                "CloneSource",
                "it is being deleted, and another claim is still being cloned from it",
                Actor::Provisioner,
                "see how the claims with this one as their dataSource are, or delete them",
            );
            self.add(object, explanation, deleted(&claim.metadata));
        }
        let explained = [
            keys::PVC_PROTECTION,
            keys::PVC_AS_SOURCE_PROTECTION,
            keys::CLONING_PROTECTION,
        ];
        self.foreign_finalizers(object, &claim.metadata, &explained, above);
    }

    fn unbound(&mut self, object: &ObjectName, claim: &PersistentVolumeClaim, seen: &ClaimSeen, why: &Why) {
        let own = why.explanation();
        let since = self.since(&claim.metadata, own.reason);
        match why {
            Why::Provisioning { .. } => {
                self.provisioning(object, claim, seen, own);
            }
            Why::PodsNotScheduled(pods) => {
                let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
                let is_known = |name: &String| {
                    self.looked_at
                        .contains(&ObjectName::new(Kind::Pod, namespace, name))
                };
                if pods.iter().all(is_known) {
                    // The question is about the pod, and its own answer stands above.
                    return;
                }
                self.add(object, own, since);
                for name in pods {
                    if let Some(waiting) = self.facts.pods.get(Some(namespace), name) {
                        self.pod(&waiting);
                    }
                }
            }
            _ => self.add(object, own, since),
        }
    }

    /// A provisioner was asked: what it refuses, what it said, or nothing yet.
    fn provisioning(
        &mut self,
        object: &ObjectName,
        claim: &PersistentVolumeClaim,
        seen: &ClaimSeen,
        asked: Explanation,
    ) {
        let needed: &[&str] = match snapshot::sources_of(claim).is_empty() {
            true => &["volumeattributesclasses"],
            false => &[
                "volumeattributesclasses",
                "volumesnapshots/*",
                "volumesnapshotcontents",
            ],
        };
        if self.is_blind(object, &claim.metadata, needed) {
            return;
        }
        let facts = self.facts;
        let namespace = claim.metadata.namespace.as_deref();
        let attributes_class = facts
            .attributes_classes
            .get(None, claim::attributes_class_name(claim));
        let source_claim =
            source_claim_name(claim).and_then(|name| facts.objects.claims.get(namespace, name));
        let source_pv = source_claim.as_deref().and_then(claim::volume_name);
        let source_pv = source_pv.and_then(|name| facts.objects.pvs.get(None, name));
        let (from, name) = snapshot::sources_of(claim).into_iter().next().unwrap_or_default();
        let snapshot = facts.snapshots.get(Some(&from), &name);
        let content = snapshot.as_deref().and_then(|snapshot| snapshot.content_name());
        let content = content.and_then(|name| facts.contents.get(None, &name));
        let refused = explain::provisioning(&Provisioning {
            claim: Some(claim),
            class: seen.class.as_deref(),
            attributes_class: attributes_class.as_deref(),
            source_claim: source_claim.as_deref(),
            source_pv: source_pv.as_deref(),
            snapshot: snapshot.as_deref(),
            content: content.as_deref(),
        });
        let told = facts.event(claim.metadata.uid.as_deref(), "ProvisioningFailed", |teller| {
            teller != BINDER
        });
        let (explanation, since) = match (refused, told) {
            (Some(refused), _) => {
                let since = self.since(&claim.metadata, refused.reason);
                (refused, since)
            }
            (None, Some(event)) => (
                explain::create_failed(event.message.as_deref().unwrap_or_default()),
                first_seen(event),
            ),
            (None, None) => {
                let since = self.since(&claim.metadata, asked.reason);
                (asked, since)
            }
        };
        let above = self.findings.len();
        if let Some(source) = &source_claim {
            self.claim(source);
        }
        if let Some(snapshot) = &snapshot {
            self.snapshot(snapshot);
        }
        self.add_above(above, object, explanation, since, Actor::Provisioner);
    }

    /// The binder has found a volume and has to write it down.
    fn binding_due(&mut self, object: &ObjectName, claim: &PersistentVolumeClaim, seen: &ClaimSeen) {
        let message = match &seen.pv {
            Some(pv) => format!(
                "PersistentVolume {} fits, and has to be bound to it",
                pv.name_any()
            ),
            None => "it has to be looked at, and to get its class".to_owned(),
        };
        let explanation = Explanation::new(
            "BindingDue",
            message,
            Actor::Binder,
            "check that the volume controllers run",
        );
        self.add(object, explanation, super::created(&claim.metadata));
    }

    /// A bound claim that asks for more than it has.
    fn resizing(&mut self, object: &ObjectName, claim: &PersistentVolumeClaim) {
        let pv = claim::volume_name(claim).and_then(|name| self.facts.objects.pvs.get(None, name));
        if let Some(pending) = condition(claim, "FileSystemResizePending") {
            let since = pending.last_transition_time.as_ref().map(|time| time.0);
            let users = self.users(claim);
            let explanation = if users.iter().any(|user| pod::node_name(user).is_some()) {
                Explanation::new(
                    "FileSystemResizePending",
                    "the volume has grown, and the filesystem on it has to grow where it is mounted",
                    Actor::Kubelet,
                    "see what the kubelet of the pod's node logs about the volume",
                )
            } else {
                Explanation::new(
                    "FileSystemResizePending",
                    "the volume has grown; the filesystem on it grows when a pod mounts it next",
                    Actor::User,
                    "nothing, or start a pod that uses the claim",
                )
            };
            self.add(object, explanation, since);
            return;
        }
        let Some(own) = explain::resizing(claim, pv.as_deref(), self.facts.now) else {
            return;
        };
        let told = self
            .facts
            .event(claim.metadata.uid.as_deref(), "VolumeResizeFailed", |_| true);
        let (explanation, since) = match told {
            Some(event) if own.reason == "Resizing" => (
                resize_failed(claim, event.message.as_deref().unwrap_or_default()),
                first_seen(event),
            ),
            Some(_) | None => {
                let begun =
                    condition(claim, "Resizing").and_then(|found| found.last_transition_time.as_ref());
                (own, begun.map(|time| time.0))
            }
        };
        self.add(object, explanation, since);
    }
}

/// What the driver said to a request for more, and who can help.
fn resize_failed(claim: &PersistentVolumeClaim, told: &str) -> Explanation {
    let statuses = claim
        .status
        .as_ref()
        .and_then(|status| status.allocated_resource_statuses.as_ref());
    let stage = statuses.and_then(|statuses| statuses.get("storage"));
    let is_infeasible = stage.is_some_and(|stage| stage.ends_with("Infeasible"));
    if is_infeasible {
        Explanation::new(
            "VolumeResizeFailed",
            told,
            Actor::User,
            "ask for less (not less than status.capacity), or have the admin make room; it is tried again every few minutes",
        )
    } else {
        explain::failed("VolumeResizeFailed", told.to_owned(), Actor::Resizer)
    }
}

/// The claim that a claim is cloned from.
fn source_claim_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    let spec = claim.spec.as_ref()?;
    let source = spec
        .data_source
        .as_ref()
        .map(|source| (&source.kind, &source.name));
    let reference = spec
        .data_source_ref
        .as_ref()
        .map(|source| (&source.kind, &source.name));
    let (kind, name) = reference.or(source)?;
    (kind == "PersistentVolumeClaim").then_some(name.as_str())
}

fn condition<'a>(
    claim: &'a PersistentVolumeClaim,
    condition_type: &str,
) -> Option<&'a PersistentVolumeClaimCondition> {
    let conditions = claim.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == condition_type && condition.status == "True")
}

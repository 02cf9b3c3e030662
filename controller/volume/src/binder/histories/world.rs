//! A small API server, the caches of a binder, and the others who write. Every write is checked against the promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use moorline_model::volume::PvPhase;
use moorline_model::{Candidates, ClaimRequest, claim, keys, volume};
use serde_json::{Value, json};

use crate::binder::claim_sync::{self, ClaimNext, ClaimSeen};
use crate::binder::step::{Step, Target};
use crate::binder::volume_sync::{self, Confirmation, VolumeNext, VolumeSeen};
use crate::testing::{self, merge};

pub(super) const CLAIMS: usize = 3;
pub(super) const PVS: usize = 3;
/// Rounds within which everything has to come to rest.
const ROUNDS: usize = 40;

type Objects = BTreeMap<String, Value>;

#[derive(Debug, Default)]
pub(super) struct World {
    version: u64,
    uids: u64,
    claims: Objects,
    pvs: Objects,
    cached_claims: Objects,
    cached_pvs: Objects,
}

fn typed<K: serde::de::DeserializeOwned>(value: &Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value.clone()).unwrap())
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][key].as_str()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

impl World {
    pub(super) fn claim_name(number: usize) -> String {
        format!("c{number}")
    }

    pub(super) fn pv_name(number: usize) -> String {
        format!("pv{number}")
    }

    pub(super) fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }

    pub(super) fn pv(&self, name: &str) -> Option<&Value> {
        self.pvs.get(name)
    }

    fn stamp(&mut self, object: &mut Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
    }

    fn new_uid(&mut self) -> Value {
        self.uids += 1;
        json!(format!("uid{}", self.uids))
    }

    fn insert_pv(&mut self, name: String, spec: Value, annotations: Value) {
        let uid = self.new_uid();
        let other = json!({
            "metadata": {"name": name, "uid": uid, "annotations": annotations},
            "spec": spec, "status": {"phase": "Pending"},
        });
        let mut pv = serde_json::to_value(&*testing::pv(other)).unwrap();
        self.stamp(&mut pv);
        self.pvs.insert(name, pv);
    }

    // ---- users, admins, scheduler, provisioner ----

    pub(super) fn create_claim(&mut self, number: usize, class: &str, gib: u32) {
        let name = Self::claim_name(number);
        if self.claims.contains_key(&name) {
            return;
        }
        let uid = self.new_uid();
        let mut claim = serde_json::to_value(&*testing::claim(json!({
            "metadata": {"name": name, "uid": uid},
            "spec": {"storageClassName": class, "resources": {"requests": {"storage": format!("{gib}Gi")}}},
        })))
        .unwrap();
        self.stamp(&mut claim);
        self.claims.insert(name, claim);
    }

    pub(super) fn delete_claim(&mut self, number: usize) {
        self.claims.remove(&Self::claim_name(number));
    }

    pub(super) fn name_pv(&mut self, number: usize, pv: usize) {
        let name = Self::claim_name(number);
        let Some(mut claim) = self.claims.get(&name).cloned() else {
            return;
        };
        if text(&claim, "/spec/volumeName").is_empty() {
            claim["spec"]["volumeName"] = json!(Self::pv_name(pv));
            self.stamp(&mut claim);
            self.claims.insert(name, claim);
        }
    }

    pub(super) fn create_pv(&mut self, number: usize, gib: u32, reserved_for: Option<usize>, is_block: bool) {
        let name = Self::pv_name(number);
        if self.pvs.contains_key(&name) {
            return;
        }
        let reference = reserved_for.map(|claim| json!({"namespace": "ns", "name": Self::claim_name(claim)}));
        let mode = if is_block { "Block" } else { "Filesystem" };
        let spec =
            json!({"capacity": {"storage": format!("{gib}Gi")}, "claimRef": reference, "volumeMode": mode});
        self.insert_pv(name, spec, json!({}));
    }

    pub(super) fn free_pv(&mut self, number: usize) {
        let name = Self::pv_name(number);
        if let Some(mut pv) = self.pvs.get(&name).cloned()
            && text(&pv, "/status/phase") == "Released"
        {
            merge(&mut pv, &json!({"spec": {"claimRef": null}}));
            self.stamp(&mut pv);
            self.pvs.insert(name, pv);
        }
    }

    pub(super) fn delete_pv(&mut self, number: usize) {
        self.pvs.remove(&Self::pv_name(number));
    }

    pub(super) fn select_node(&mut self, number: usize) {
        let name = Self::claim_name(number);
        if let Some(mut claim) = self.claims.get(&name).cloned()
            && text(&claim, "/spec/storageClassName") == "late"
        {
            claim["metadata"]["annotations"][keys::SELECTED_NODE] = json!("n1");
            self.stamp(&mut claim);
            self.claims.insert(name, claim);
        }
    }

    pub(super) fn reserve_pv(&mut self, number: usize, pv: usize) {
        let pv_name = Self::pv_name(pv);
        let claim = self.claims.get(&Self::claim_name(number)).cloned();
        let pv = self.pvs.get(&pv_name).cloned();
        if let (Some(claim), Some(mut pv)) = (claim, pv)
            && text(&claim, "/spec/volumeName").is_empty()
            && pv["spec"]["claimRef"].is_null()
        {
            let reference = json!({"namespace": "ns", "name": claim["metadata"]["name"], "uid": claim["metadata"]["uid"]});
            pv["spec"]["claimRef"] = reference;
            pv["metadata"]["annotations"][keys::BOUND_BY_CONTROLLER] = json!(keys::YES);
            self.stamp(&mut pv);
            self.pvs.insert(pv_name, pv);
        }
    }

    /// Makes the PVs of claims that name it, and deletes those of its PVs that are released.
    pub(super) fn provision(&mut self) {
        for claim in self.claims.clone().into_values() {
            let pv_name = format!("pvc-{}", text(&claim, "/metadata/uid"));
            let is_asked = annotation(&claim, keys::STORAGE_PROVISIONER).is_some();
            let is_unbound = text(&claim, "/spec/volumeName").is_empty();
            if is_asked && is_unbound && !self.pvs.contains_key(&pv_name) {
                let spec = json!({
                    "claimRef": {"namespace": "ns", "name": claim["metadata"]["name"], "uid": claim["metadata"]["uid"]},
                    "storageClassName": claim["spec"]["storageClassName"],
                    "persistentVolumeReclaimPolicy": "Delete",
                });
                self.insert_pv(pv_name, spec, json!({keys::PROVISIONED_BY: "csi.example.com"}));
            }
        }
        self.pvs.retain(|_, pv| {
            let is_own = annotation(pv, keys::PROVISIONED_BY).is_some();
            !(is_own && text(pv, "/status/phase") == "Released")
        });
    }

    // ---- the binder's caches ----

    pub(super) fn deliver_claim(&mut self, name: &str) {
        deliver(&self.claims, &mut self.cached_claims, name);
    }

    pub(super) fn deliver_pv(&mut self, name: &str) {
        deliver(&self.pvs, &mut self.cached_pvs, name);
    }

    pub(super) fn deliver_all(&mut self) {
        self.cached_claims = self.claims.clone();
        self.cached_pvs = self.pvs.clone();
    }

    /// The binder dies and comes back: it lists everything.
    pub(super) fn restart(&mut self) {
        self.deliver_all();
    }

    // ---- the binder ----

    /// Looks at a claim as the shell does; dies after `writes`. Returns the writes done.
    pub(super) fn sync_claim(&mut self, name: &str, writes: usize) -> usize {
        let Some(cached) = self.cached_claims.get(name) else {
            return 0;
        };
        let mut seen = self.gather(typed(cached));
        let mut done = 0;
        while done < writes {
            let step = match claim_sync::decide(&seen) {
                ClaimNext::Do(step) => step,
                ClaimNext::Settled | ClaimNext::Wait(_) | ClaimNext::Refuse(_) => break,
            };
            self.check_claim_step(&step, &seen);
            let is_done = match step.target() {
                Target::Pv | Target::PvStatus => {
                    let pv = seen.pv.clone().unwrap();
                    let written = self.write_pv(&step, &pv, Some(&seen.claim));
                    written.map(|pv| seen.pv = Some(pv)).is_some()
                }
                Target::Claim | Target::ClaimStatus => {
                    let written = self.write_claim(&step, &seen);
                    written.map(|claim| seen.claim = claim).is_some()
                }
            };
            if !is_done {
                break;
            }
            done += 1;
        }
        done
    }

    fn gather(&self, claim: Arc<PersistentVolumeClaim>) -> ClaimSeen {
        let class_name = claim::class_name(&claim).to_string();
        let class: Option<Arc<StorageClass>> = match class_name.as_str() {
            "" => None,
            "late" => Some(testing::class(
                json!({"metadata": {"name": "late"}, "volumeBindingMode": "WaitForFirstConsumer"}),
            )),
            name => Some(testing::class(json!({"metadata": {"name": name}}))),
        };
        let is_delayed = class.as_ref().is_some_and(|class| claim::is_delayed(class));
        let pv = match claim::volume_name(&claim) {
            Some(pv_name) => {
                let is_bound = claim::is_bind_completed(&claim);
                let live = self.pvs.get(pv_name).filter(|_| is_bound);
                self.cached_pvs.get(pv_name).or(live).map(typed)
            }
            None if claim::is_bind_completed(&claim) => None,
            None => {
                let mut candidates = Candidates::default();
                self.cached_pvs
                    .values()
                    .for_each(|pv| candidates.upsert(typed(pv)));
                let request = ClaimRequest::try_from(&*claim).unwrap();
                candidates
                    .find_for_claim(&request, is_delayed, |_| false)
                    .cloned()
            }
        };
        ClaimSeen {
            claim,
            pv,
            class,
            default_class: None,
            unscheduled_pods: Vec::new(),
            unreadable: None,
            is_provisioning_on: true,
        }
    }

    /// Looks at a PV as the shell does; dies after `writes`. Returns the writes done.
    pub(super) fn sync_pv(&mut self, name: &str, writes: usize) -> usize {
        let Some(cached) = self.cached_pvs.get(name) else {
            return 0;
        };
        let pv: Arc<PersistentVolume> = typed(cached);
        let claim_name = volume::claim_ref(&pv)
            .and_then(|reference| reference.name.clone())
            .unwrap_or_default();
        let cached_claim = self.cached_claims.get(&claim_name).map(typed);
        let claim = match volume_sync::confirm(&pv, cached_claim) {
            Confirmation::Present(claim) => Some(claim),
            Confirmation::Absent => None,
            Confirmation::AskServer => self
                .claims
                .get(&claim_name)
                .map(typed::<PersistentVolumeClaim>)
                .filter(|claim| claim.metadata.uid.as_deref() == volume::claim_uid(&pv)),
        };
        let mut seen = VolumeSeen { pv, claim };
        let mut done = 0;
        while done < writes {
            let VolumeNext::Do(step) = volume_sync::decide(&seen) else {
                break;
            };
            let Some(pv) = self.write_pv(&step, &seen.pv, None) else {
                break;
            };
            seen.pv = pv;
            done += 1;
        }
        done
    }

    fn write_pv(
        &mut self,
        step: &Step,
        pv: &PersistentVolume,
        claim: Option<&Arc<PersistentVolumeClaim>>,
    ) -> Option<Arc<PersistentVolume>> {
        let name = pv.metadata.name.clone().unwrap();
        let patch = step.pv_patch(pv, claim.map(Arc::as_ref));
        let old = self.pvs.get(&name)?.clone();
        let new = self.patched(&old, &patch, step.target() == Target::PvStatus)?;
        self.check_pv_write(&old, &new);
        self.pvs.insert(name.clone(), new.clone());
        self.cached_pvs.insert(name, new.clone());
        Some(typed(&new))
    }

    fn write_claim(&mut self, step: &Step, seen: &ClaimSeen) -> Option<Arc<PersistentVolumeClaim>> {
        let name = seen.claim.metadata.name.clone().unwrap();
        let patch = step.claim_patch(&seen.claim, seen.pv.as_deref());
        let old = self.claims.get(&name)?.clone();
        let new = self.patched(&old, &patch, step.target() == Target::ClaimStatus)?;
        let mark = |claim: &Value| annotation(claim, keys::BIND_COMPLETED).is_some();
        assert!(mark(&new) || !mark(&old), "I8: bind-completed is never removed");
        self.claims.insert(name.clone(), new.clone());
        self.cached_claims.insert(name, new.clone());
        Some(typed(&new))
    }

    /// The object after a merge patch to it or to its status, unless it was decided on another version.
    fn patched(&mut self, old: &Value, patch: &Value, is_status: bool) -> Option<Value> {
        if patch["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"] {
            return None;
        }
        let mut new = old.clone();
        merge(&mut new, patch);
        let mut kept = old.clone();
        if is_status {
            kept["status"] = new["status"].take();
        } else {
            new["status"] = kept["status"].take();
            kept = new;
        }
        assert_ne!(&kept, old, "a write that changes nothing: {patch}");
        self.stamp(&mut kept);
        Some(kept)
    }

    // ---- promises ----

    fn check_claim_step(&self, step: &Step, seen: &ClaimSeen) {
        let is_late = claim::class_name(&seen.claim) == "late";
        if let Step::NameProvisioner(_) = step {
            let is_selected = claim::selected_node(&seen.claim).is_some();
            assert!(
                !is_late || is_selected,
                "I11: no provisioner before a node is selected"
            );
        }
        if let (Step::LinkClaim, Some(pv)) = (step, &seen.pv) {
            assert_eq!(
                volume::claim_uid(pv),
                seen.claim.metadata.uid.as_deref(),
                "PV first"
            );
            let request = ClaimRequest::try_from(&*seen.claim).unwrap();
            let is_users = claim::volume_name(&seen.claim).is_some();
            let is_fit =
                volume::capacity(pv).unwrap() >= request.size && volume::is_block(pv) == request.is_block;
            assert!(is_users || is_fit, "I5: too small or of another mode");
        }
    }

    fn check_pv_write(&self, old: &Value, new: &Value) {
        let uid = |pv: &Value| text(pv, "/spec/claimRef/uid").to_string();
        let (old_uid, new_uid) = (uid(old), uid(new));
        let is_handed_over = !old_uid.is_empty() && !new_uid.is_empty() && old_uid != new_uid;
        assert!(
            !is_handed_over,
            "I3: a link goes from one claim to another in one write"
        );

        let is_ours = annotation(old, keys::BOUND_BY_CONTROLLER).is_some();
        let is_removed = !old["spec"]["claimRef"].is_null() && new["spec"]["claimRef"].is_null();
        assert!(is_ours || !is_removed, "I4: a user's link is removed");

        let is_released =
            text(new, "/status/phase") == "Released" && text(old, "/status/phase") != "Released";
        let living = self
            .claims
            .values()
            .find(|claim| text(claim, "/metadata/uid") == old_uid);
        if let (true, Some(claim)) = (is_released, living) {
            let is_spare = annotation(old, keys::PROVISIONED_BY).is_some();
            let is_elsewhere = claim["spec"]["volumeName"] != old["metadata"]["name"];
            assert!(
                is_spare && is_elsewhere,
                "I2: a living claim's volume is released"
            );
        }
    }

    /// Lets everybody act until nobody has anything to do.
    pub(super) fn come_to_rest(&mut self) {
        for _ in 0..ROUNDS {
            self.provision();
            self.deliver_all();
            let mut writes = 0;
            for name in self.pvs.keys().cloned().collect::<Vec<_>>() {
                writes += self.sync_pv(&name, usize::MAX);
            }
            for name in self.claims.keys().cloned().collect::<Vec<_>>() {
                writes += self.sync_claim(&name, usize::MAX);
            }
            let version = self.version;
            self.provision();
            if writes == 0 && version == self.version {
                return;
            }
        }
        panic!("I6: no rest after {ROUNDS} rounds: {self:#?}");
    }

    /// Bound both ways or not at all.
    pub(super) fn check_rest(&self) {
        for (name, claim) in &self.claims {
            let pv_name = text(claim, "/spec/volumeName");
            let pv = self.pvs.get(pv_name);
            let is_linked_back = pv.is_some_and(|pv| {
                text(pv, "/spec/claimRef/uid") == text(claim, "/metadata/uid")
                    && text(pv, "/spec/claimRef/name") == name
                    && text(pv, "/status/phase") == PvPhase::Bound.as_str()
            });
            match text(claim, "/status/phase") {
                "Bound" => assert!(is_linked_back, "{name} is bound one way only: {self:#?}"),
                "Lost" => assert!(!is_linked_back, "{name} is lost though linked: {self:#?}"),
                "Pending" => {
                    assert!(
                        annotation(claim, keys::BIND_COMPLETED).is_none(),
                        "{name}: {self:#?}"
                    );
                    let is_asked =
                        annotation(claim, keys::STORAGE_PROVISIONER).is_some() && pv_name.is_empty();
                    assert!(!is_asked, "{name} has a provisioner and no PV: {self:#?}");
                }
                other => panic!("{name} is {other}"),
            }
        }
        for (name, pv) in &self.pvs {
            let uid = text(pv, "/spec/claimRef/uid");
            let living = self
                .claims
                .values()
                .find(|claim| text(claim, "/metadata/uid") == uid);
            let expected = match (uid, living) {
                ("", _) => vec!["Available"],
                (_, None) => vec!["Released"],
                // Volume modes differ: whatever it was, users are told.
                (_, Some(claim)) if text(claim, "/spec/volumeName") != name => {
                    vec!["Pending", "Available", "Bound", "Released"]
                }
                (_, Some(_)) => vec!["Bound"],
            };
            assert!(expected.contains(&text(pv, "/status/phase")), "{name}: {self:#?}");
        }
    }
}

fn deliver(from: &Objects, to: &mut Objects, name: &str) {
    match from.get(name) {
        Some(object) => to.insert(name.to_string(), object.clone()),
        None => to.remove(name),
    };
}

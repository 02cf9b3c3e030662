//! Gathers what claims and PVs look like, asks the deciders, does what they say.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use moorline_model::claim::ClaimPhase;
use moorline_model::{ClaimRequest, claim, pod, volume};
use moorline_runtime::{Cache, EventType, Index, Outcome, Queue, Recorder};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Config;
use super::claim_sync::{self, ClaimNext, ClaimSeen, describe};
use super::matching::{Matching, Taken};
use super::step::{Step, Target};
use super::unmatched::Unmatched;
use super::volume_sync::{self, Confirmation, VolumeNext, VolumeSeen};
use super::why::Why;
use crate::key::ObjectKey;
use crate::told::{Tell, Told};
use crate::write_error::WriteError;

/// More writes than any single look needs; reaching it means that a write didn't have its effect.
const STEPS_MAX: usize = 8;

pub(super) struct Binder {
    pub(super) config: Config,
    pub(super) client: Client,
    pub(super) claims: Cache<PersistentVolumeClaim>,
    pub(super) pvs: Cache<PersistentVolume>,
    pub(super) classes: Cache<StorageClass>,
    /// Pods by the claims they use, as `namespace/name`.
    pub(super) pods: Index<String, Pod>,
    /// Claims by the PV they name.
    pub(super) claims_by_pv: Index<String, PersistentVolumeClaim>,
    pub(super) matching: Matching,
    pub(super) unmatched: Arc<Mutex<Unmatched>>,
    pub(super) claim_queue: Queue<ObjectKey>,
    pub(super) pv_queue: Queue<String>,
    pub(super) recorder: Recorder,
    pub(super) told: Told<Why>,
}

/// The answer to a write: the object as it is now.
enum Written {
    Pv(Arc<PersistentVolume>),
    Claim(Arc<PersistentVolumeClaim>),
}

impl Binder {
    /// Looks at one claim and does what there is to do.
    pub(super) async fn sync_claim(&self, key: &ObjectKey) -> Result<Outcome, kube::Error> {
        let Some(claim) = self.claims.get(Some(&key.namespace), &key.name) else {
            self.unmatched.lock().remove(key);
            return Ok(Outcome::Settled);
        };
        let (mut seen, _taken) = self.gather_claim(claim).await?;
        for _ in 0..STEPS_MAX {
            let step = match claim_sync::decide(&seen) {
                ClaimNext::Settled => {
                    self.unmatched.lock().remove(key);
                    self.told
                        .forget(seen.claim.metadata.uid.as_deref().unwrap_or_default());
                    return Ok(Outcome::Settled);
                }
                ClaimNext::Do(step) => step,
                ClaimNext::Wait(why) => return Ok(self.wait(key, &seen, why)),
                ClaimNext::Refuse(why) => {
                    tracing::debug!(claim.key = %key, ?why, "Claim is refused");
                    return Ok(self.wait(key, &seen, why));
                }
            };
            tracing::debug!(claim.key = %key, ?step, "Writing");
            match self.write(&step, seen.pv.as_ref(), Some(&seen.claim)).await {
                Ok(Written::Pv(pv)) => seen.pv = Some(pv),
                Ok(Written::Claim(claim)) => seen.claim = claim,
                Err(WriteError::Conflict) => return Ok(Outcome::Retry),
                // Its deletion wakes whoever has to know.
                Err(WriteError::Gone) => return Ok(Outcome::Settled),
                Err(WriteError::Other(error)) => return Err(error),
            }
            match step {
                // Another class may have other PVs: the change itself has the claim looked at again.
                Step::AssignClass(_) => return Ok(Outcome::Settled),
                Step::LoseClaim(why) => self.tell(&*seen.claim, &why),
                _ => {}
            }
        }
        tracing::warn!(claim.key = %key, "Writes to the claim have no effect");
        Ok(Outcome::Retry)
    }

    /// Everything that matters for the claim, with the guard that keeps a chosen free PV from other workers.
    async fn gather_claim(
        &self,
        claim: Arc<PersistentVolumeClaim>,
    ) -> Result<(ClaimSeen, Option<Taken>), kube::Error> {
        let class_name = claim::class_name(&claim);
        let class = (!class_name.is_empty())
            .then(|| self.classes.get(None, class_name))
            .flatten();
        let mut seen = ClaimSeen {
            claim: claim.clone(),
            pv: None,
            class,
            default_class: None,
            unscheduled_pods: Vec::new(),
            unreadable: None,
            is_provisioning_on: self.config.is_provisioning_on,
        };
        if let Some(pv_name) = claim::volume_name(&claim) {
            seen.pv = self.find_pv(&claim, pv_name).await?;
            return Ok((seen, None));
        }
        if claim::is_bind_completed(&claim) {
            return Ok((seen, None));
        }
        let is_delayed = seen.class.as_ref().is_some_and(|class| claim::is_delayed(class));
        let chosen = match ClaimRequest::try_from(&*claim) {
            Ok(request) => self.matching.choose(&request, is_delayed),
            Err(error) => {
                seen.unreadable = Some(describe(&error));
                None
            }
        };
        let Some((pv, taken)) = chosen else {
            seen.default_class = self.default_class(&claim);
            seen.unscheduled_pods = self.unscheduled_pods(&claim);
            return Ok((seen, None));
        };
        seen.pv = Some(pv);
        Ok((seen, taken))
    }

    /// The PV that a claim names. Before a bound claim is called lost, the API server is asked: the cache may lag.
    async fn find_pv(
        &self,
        claim: &PersistentVolumeClaim,
        pv_name: &str,
    ) -> Result<Option<Arc<PersistentVolume>>, kube::Error> {
        if let Some(pv) = self.pvs.get(None, pv_name) {
            return Ok(Some(pv));
        }
        let would_be_lost = claim::is_bind_completed(claim) && claim::phase(claim) != Some(ClaimPhase::Lost);
        if !would_be_lost {
            return Ok(None);
        }
        let pv = Api::<PersistentVolume>::all(self.client.clone())
            .get_opt(pv_name)
            .await?;
        Ok(pv.map(|pv| {
            self.pvs.observe(pv.clone());
            Arc::new(pv)
        }))
    }

    /// The name of the default class, looked up only for a claim that could get it.
    fn default_class(&self, claim: &PersistentVolumeClaim) -> Option<String> {
        if claim::explicit_class_name(claim).is_some() {
            return None;
        }
        let classes = self.classes.list();
        let default = claim::default_class(classes.iter().map(Arc::as_ref))?;
        default.metadata.name.clone()
    }

    fn unscheduled_pods(&self, claim: &PersistentVolumeClaim) -> Vec<String> {
        let pods = self.pods.get(&ObjectKey::of(claim).to_string());
        let unscheduled = pods.iter().filter(|pod| pod::node_name(pod).is_none());
        let mut names: Vec<String> = unscheduled.map(|pod| pod.name_any()).collect();
        names.sort();
        names
    }

    fn wait(&self, key: &ObjectKey, seen: &ClaimSeen, why: Why) -> Outcome {
        if claim::volume_name(&seen.claim).is_none() {
            let is_delayed = seen.class.as_ref().is_some_and(|class| claim::is_delayed(class));
            let class = claim::class_name(&seen.claim);
            self.unmatched.lock().insert(key.clone(), class, !is_delayed);
        }
        let uid = seen.claim.metadata.uid.as_deref().unwrap_or_default();
        let patience = match why.telling().map(|telling| telling.event_type) {
            Some(EventType::Normal) => self.config.patience,
            Some(EventType::Warning) | None => std::time::Duration::ZERO,
        };
        match self.told.check(uid, why.clone(), patience, Instant::now()) {
            Tell::Now => {
                self.tell(&*seen.claim, &why);
                Outcome::After(self.config.resync_interval)
            }
            Tell::In(rest) => Outcome::After(rest.min(self.config.resync_interval)),
            Tell::No => Outcome::After(self.config.resync_interval),
        }
    }

    /// Looks at one PV and does what there is to do.
    pub(super) async fn sync_pv(&self, name: &String) -> Result<Outcome, kube::Error> {
        let Some(pv) = self.pvs.get(None, name) else {
            return Ok(Outcome::Settled);
        };
        let claim = self.find_claim(&pv).await?;
        let mut seen = VolumeSeen { pv, claim };
        for _ in 0..STEPS_MAX {
            let step = match volume_sync::decide(&seen) {
                VolumeNext::Settled => return Ok(Outcome::Settled),
                VolumeNext::Do(step) => step,
                VolumeNext::AwaitClaim => {
                    if let Some(claim) = &seen.claim {
                        self.claim_queue.add(ObjectKey::of(&**claim));
                    }
                    return Ok(Outcome::Settled);
                }
                VolumeNext::Refuse(why) => {
                    self.refuse_pv(&seen, &why);
                    return Ok(Outcome::Settled);
                }
            };
            tracing::debug!(pv.name = name, ?step, "Writing");
            match self.write(&step, Some(&seen.pv), None).await {
                Ok(Written::Pv(pv)) => seen.pv = pv,
                Ok(Written::Claim(_)) => {}
                Err(WriteError::Conflict) => return Ok(Outcome::Retry),
                Err(WriteError::Gone) => return Ok(Outcome::Settled),
                Err(WriteError::Other(error)) => return Err(error),
            }
            if let Step::FailPv(why) = &step {
                self.tell(&*seen.pv, why);
            }
        }
        tracing::warn!(pv.name = name, "Writes to the PV have no effect");
        Ok(Outcome::Retry)
    }

    /// The claim that the PV names by UID, if it exists; confirmed by the API server where the cache may be wrong.
    async fn find_claim(
        &self,
        pv: &PersistentVolume,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, kube::Error> {
        let Some(reference) = volume::claim_ref(pv) else {
            return Ok(None);
        };
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let name = reference.name.as_deref().unwrap_or_default();
        match volume_sync::confirm(pv, self.claims.get(Some(namespace), name)) {
            Confirmation::Present(claim) => Ok(Some(claim)),
            Confirmation::Absent => Ok(None),
            Confirmation::AskServer => {
                let claims = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), namespace);
                let live = claims.get_opt(name).await?;
                let is_named =
                    |claim: &PersistentVolumeClaim| claim.metadata.uid.as_deref() == volume::claim_uid(pv);
                Ok(live.filter(is_named).map(|claim| {
                    self.claims.observe(claim.clone());
                    Arc::new(claim)
                }))
            }
        }
    }

    fn refuse_pv(&self, seen: &VolumeSeen, why: &Why) {
        let uid = seen.pv.metadata.uid.as_deref().unwrap_or_default();
        if self
            .told
            .check(uid, why.clone(), std::time::Duration::ZERO, Instant::now())
            == Tell::Now
        {
            self.tell(&*seen.pv, why);
            if let Some(claim) = &seen.claim {
                self.tell(&**claim, why);
            }
        }
    }

    fn tell<K: kube::Resource<DynamicType = ()>>(&self, object: &K, why: &Why) {
        if let Some(telling) = why.telling() {
            self.recorder
                .event_on(object, telling.event_type, telling.reason, telling.message);
        }
    }

    /// Does one write and takes its answer into the caches.
    async fn write(
        &self,
        step: &Step,
        pv: Option<&Arc<PersistentVolume>>,
        claim: Option<&Arc<PersistentVolumeClaim>>,
    ) -> Result<Written, WriteError> {
        let params = PatchParams {
            field_manager: Some(super::COMPONENT.to_string()),
            ..Default::default()
        };
        match (step.target(), pv, claim) {
            (target @ (Target::Pv | Target::PvStatus), Some(pv), _) => {
                let patch = Patch::Merge(step.pv_patch(pv, claim.map(Arc::as_ref)));
                let pvs = Api::<PersistentVolume>::all(self.client.clone());
                let name = pv.name_any();
                let written = match target {
                    Target::Pv => pvs.patch(&name, &params, &patch).await?,
                    _ => pvs.patch_status(&name, &params, &patch).await?,
                };
                self.pvs.observe(written.clone());
                Ok(Written::Pv(Arc::new(written)))
            }
            (target, pv, Some(claim)) => {
                let patch = Patch::Merge(step.claim_patch(claim, pv.map(Arc::as_ref)));
                let namespace = claim.namespace().unwrap_or_default();
                let claims = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &namespace);
                let name = claim.name_any();
                let written = match target {
                    Target::Claim => claims.patch(&name, &params, &patch).await?,
                    _ => claims.patch_status(&name, &params, &patch).await?,
                };
                self.claims.observe(written.clone());
                Ok(Written::Claim(Arc::new(written)))
            }
            // The deciders never write an object that wasn't seen; if one did, looking again is all there is to do.
            (_, _, None) => Err(WriteError::Gone),
        }
    }
}

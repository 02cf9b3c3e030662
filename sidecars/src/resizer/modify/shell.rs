//! The effectful side of modification: gathers what is seen, does what was decided, writes what came of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::Client;
use moorline_model::claim;
use moorline_runtime::{
    Cache, Change, EventType, Informers, Outcome, Queue, Recorder, run_workers, until_served,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::super::{ClaimName, ResizerConfig, name_of, write};
use super::status::{self, Failure};
use super::{Marks, Modification, Next, Refusal, Seen, can_modify, decide, is_candidate, recorded, wished};
use crate::api::WriteError;
use crate::connection::call;
use crate::driver::Driver;
use crate::rpc_class::{ModifyFailure, code_name, describe, modify_volume};
use crate::secrets;

/// Actions done in one go for a claim; each changes what is seen.
const STEPS_MAX: usize = 4;
const API_VERSION: &str = "storage.k8s.io/v1";
const FAILED: &str = "VolumeModifyFailed";

/// Why a claim is looked at again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModifyError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("modify volume: {0}")]
    Driver(String),
    #[error(transparent)]
    Secret(#[from] secrets::SecretReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("claim doesn't settle")]
    Unsettled,
}

/// Everything that modification needs.
struct Modifier {
    driver: Driver,
    config: ResizerConfig,
    client: Client,
    claims: Cache<PersistentVolumeClaim>,
    pvs: Cache<PersistentVolume>,
    /// None where the driver can't modify: then they don't matter, and needn't be readable.
    classes: Option<Cache<VolumeAttributesClass>>,
    recorder: Recorder,
    marks: Mutex<HashMap<ClaimName, Marks>>,
}

/// Modifies the volumes of a discovered driver until `stop`. Waits, without limit, until the API server has the kind of
/// classes.
pub(in super::super) async fn serve(
    config: ResizerConfig,
    driver: Driver,
    informers: Informers,
    recorder: Recorder,
    stop: CancellationToken,
) {
    let can_modify = can_modify(&driver.facts);
    if can_modify && !until_served(informers.client(), API_VERSION, &["VolumeAttributesClass"], &stop).await {
        return;
    }
    let workers = config.workers;
    let queue_name = format!("{}-pvc-modify", driver.facts.driver_name);
    let queue = Queue::new(config.retry_interval).observed(&driver.connection.metrics().queues, &queue_name);
    let modifier = Arc::new(Modifier {
        client: informers.client().clone(),
        claims: informers.cache(),
        pvs: informers.cache(),
        classes: can_modify.then(|| informers.cache()),
        recorder,
        marks: Mutex::default(),
        driver,
        config,
    });
    let synced = async {
        modifier.claims.synced().await;
        modifier.pvs.synced().await;
        if let Some(classes) = &modifier.classes {
            classes.synced().await;
        }
    };
    if stop.run_until_cancelled(synced).await.is_none() {
        return;
    }
    modifier.feed(&queue, &stop);
    run_workers(queue, workers, stop, move |key| {
        let modifier = modifier.clone();
        async move { modifier.reconcile(key).await }
    })
    .await;
}

impl Modifier {
    /// Puts into the queue what changes, now and until `stop`.
    fn feed(&self, queue: &Queue<ClaimName>, stop: &CancellationToken) {
        let on_claims = queue.clone();
        self.claims
            .on_change_until(stop.clone(), move |change| match change {
                Change::Added(held) if is_candidate(held) => on_claims.add(name_of(held)),
                Change::Updated { old, new } if is_candidate(new) || is_candidate(old) => {
                    if wished(old) == wished(new) {
                        on_claims.add_unless_failing(name_of(new));
                    } else {
                        on_claims.add(name_of(new));
                    }
                }
                Change::Added(_) | Change::Updated { .. } => {}
                // So that its marks go.
                Change::Removed(held) => on_claims.add(name_of(held)),
            });
        let Some(classes) = &self.classes else {
            return;
        };
        let (on_classes, claims) = (queue.clone(), self.claims.clone());
        classes.on_change_until(stop.clone(), move |change| {
            let Change::Added(class) = change else {
                return;
            };
            let name = class.metadata.name.as_deref();
            let held = claims.list();
            let waiting = held.iter().filter(|held| is_candidate(held));
            waiting
                .filter(|held| wished(held) == name || recorded(held) == name)
                .for_each(|held| on_classes.add(name_of(held)));
        });
    }

    /// One look at one claim, and all steps that can be done now.
    async fn reconcile(&self, key: ClaimName) -> Result<Outcome, ModifyError> {
        for _ in 0..STEPS_MAX {
            let held = self.claims.get(Some(&key.namespace), &key.name);
            let pv_name = held.as_deref().and_then(claim::volume_name).unwrap_or_default();
            let pv = self.pvs.get(None, pv_name);
            let class = |name: Option<&str>| self.classes.as_ref()?.get(None, name?);
            let (wished, recorded) = (
                class(held.as_deref().and_then(wished)),
                class(held.as_deref().and_then(recorded)),
            );
            let seen = Seen {
                claim: held.as_deref(),
                pv: pv.as_deref(),
                wished: wished.as_deref(),
                recorded: recorded.as_deref(),
                marks: self.marks.lock().get(&key).cloned().unwrap_or_default(),
                driver: &self.driver.facts,
                has_extra_metadata: self.config.extra_modify_metadata,
            };
            let next = decide(&seen, Timestamp::now());
            let (Some(held), Some(pv)) = (held.as_deref(), pv.as_deref()) else {
                self.marks.lock().remove(&key);
                return match next {
                    // The binder has written the name of a PV that this process hasn't heard of yet.
                    Next::Refuse(refusal) => Err(refusal.into()),
                    _ => Ok(Outcome::Settled),
                };
            };
            if let Some(outcome) = self.act(&key, (held, pv), next).await? {
                return Ok(outcome);
            }
        }
        Err(ModifyError::Unsettled)
    }

    /// Does one thing; `None`: to be looked at again at once.
    async fn act(
        &self,
        key: &ClaimName,
        (held, pv): (&PersistentVolumeClaim, &PersistentVolume),
        next: Next,
    ) -> Result<Option<Outcome>, ModifyError> {
        match next {
            Next::Settled => return Ok(Some(Outcome::Settled)),
            Next::CallOff => {
                self.patch_claim(key, status::called_off(held)).await?;
                self.event(
                    held,
                    EventType::Normal,
                    "VolumeModifyCanceled",
                    "Modification is called off.",
                );
            }
            Next::Pend { target } => {
                self.patch_claim(key, status::pending(held)).await?;
                let message = Refusal::NoClass(target).to_string();
                self.event(held, EventType::Warning, FAILED, &message);
            }
            Next::Begin { target } => {
                self.patch_claim(key, status::begin(held, &target, Timestamp::now()))
                    .await?;
                let message = format!(
                    "external resizer is modifying volume {} with vac {target}",
                    key.name
                );
                self.event(held, EventType::Normal, "VolumeModify", &message);
            }
            Next::Modify(modification) => {
                self.modify(key, held, pv, *modification).await?;
                return Ok(Some(Outcome::Settled));
            }
            Next::Reject { target, refusal } => {
                let failure = Failure {
                    reason: code_name(tonic::Code::InvalidArgument),
                    message: &refusal.to_string(),
                    is_uncertain: false,
                    is_infeasible: true,
                };
                self.failed(key, held, &target, &failure).await?;
                return Ok(Some(Outcome::Settled));
            }
            Next::Wait { until } => {
                let wait = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
                return Ok(Some(Outcome::After(wait)));
            }
            Next::Refuse(refusal) => {
                self.tell(key, held, &refusal.to_string());
                // Discovery starts anew when the driver comes back with other abilities.
                return match refusal {
                    Refusal::Incapable => Ok(Some(Outcome::Settled)),
                    refusal => Err(refusal.into()),
                };
            }
        }
        Ok(None)
    }

    async fn modify(
        &self,
        key: &ClaimName,
        held: &PersistentVolumeClaim,
        pv: &PersistentVolume,
        modification: Modification,
    ) -> Result<(), ModifyError> {
        let Modification {
            target,
            mut request,
            secret,
        } = modification;
        request.secrets = match secrets::read(&self.client, secret.as_ref()).await {
            Ok(secrets) => secrets,
            Err(error) => {
                self.tell(key, held, &error.to_string());
                return Err(error.into());
            }
        };
        let mut controller = self.driver.connection.controller();
        let answer = call(self.config.timeout, request, |request| {
            controller.controller_modify_volume(request)
        })
        .await;
        if let Err(failure) = answer {
            return self.modify_failed(key, held, &target, &failure).await;
        }
        // The PV first: a claim that says it is done is not looked at again.
        if let Some(patch) = status::pv_class(pv, &target) {
            self.patch_pv(pv, patch).await?;
        }
        self.patch_claim(key, status::finished(held, &target)).await?;
        self.marks.lock().remove(key);
        let message = format!(
            "external resizer modified volume {} with vac {target} successfully",
            key.name
        );
        self.event(held, EventType::Normal, "VolumeModifySuccessful", &message);
        Ok(())
    }

    async fn modify_failed(
        &self,
        key: &ClaimName,
        held: &PersistentVolumeClaim,
        target: &str,
        failure: &Status,
    ) -> Result<(), ModifyError> {
        let class = modify_volume(failure);
        let now = Timestamp::now();
        let slow = jiff::SignedDuration::try_from(self.config.retry_interval.max).unwrap_or_default();
        let is_infeasible = class == ModifyFailure::Infeasible;
        {
            let mut all = self.marks.lock();
            let marks = all.entry(key.clone()).or_default();
            marks.failed = (class != ModifyFailure::Uncertain).then(|| target.to_string());
            marks.slow_until = is_infeasible.then(|| now.saturating_add(slow).unwrap_or(Timestamp::MAX));
        }
        let why = describe(failure);
        let known = Failure {
            reason: code_name(failure.code()),
            message: failure.message(),
            is_uncertain: class == ModifyFailure::Uncertain,
            is_infeasible,
        };
        self.failed(key, held, target, &known).await?;
        Err(ModifyError::Driver(why))
    }

    /// Writes down and tells what went wrong, unless that is known.
    async fn failed(
        &self,
        key: &ClaimName,
        held: &PersistentVolumeClaim,
        target: &str,
        failure: &Failure<'_>,
    ) -> Result<(), ModifyError> {
        if let Some(patch) = status::failed(held, target, failure, Timestamp::now()) {
            self.patch_claim(key, patch).await?;
        }
        let mut message = format!(
            "modify volume to class {target:?} failed: {}: {}",
            failure.reason, failure.message
        );
        if failure.is_uncertain {
            message.push_str(&format!(". Still modifying to class {target:?}"));
        }
        self.tell(key, held, &message);
        Ok(())
    }

    /// A warning, unless it is the one that was told last.
    fn tell(&self, key: &ClaimName, held: &PersistentVolumeClaim, message: &str) {
        let mut all = self.marks.lock();
        let told = &mut all.entry(key.clone()).or_default().told;
        if told.as_deref() != Some(message) {
            *told = Some(message.to_string());
            self.event(held, EventType::Warning, FAILED, message);
        }
    }

    fn event(&self, held: &PersistentVolumeClaim, kind: EventType, reason: &str, message: &str) {
        self.recorder.event_on(held, kind, reason, message.to_string());
    }

    async fn patch_pv(&self, pv: &PersistentVolume, patch: Value) -> Result<(), ModifyError> {
        Ok(write::patch_pv(&self.client, &self.pvs, pv, patch).await?)
    }

    async fn patch_claim(&self, key: &ClaimName, patch: Value) -> Result<(), ModifyError> {
        Ok(write::patch_claim_status(&self.client, &self.claims, key, patch).await?)
    }
}

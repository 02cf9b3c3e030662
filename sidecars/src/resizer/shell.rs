//! The effectful side of expansion: gathers what is seen, does what was decided, writes what came of it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, ListParams};
use moorline_model::{Amount, claim, keys};
use moorline_proto::csi::ControllerExpandVolumeResponse;
use moorline_runtime::{EventType, Outcome};
use serde_json::{Value, json};
use tonic::Status;

use super::claim::{Expansion, Marks, Next, Refusal, Seen, decide};
use super::{ClaimName, Resizer, status, write};
use crate::api::WriteError;
use crate::connection::call;
use crate::rpc_class::{ExpandFailure, describe, expand_volume};
use crate::secrets;

/// Actions done in one go for a claim; each changes what is seen.
const STEPS_MAX: usize = 6;

/// Why a claim is looked at again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResizeError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("expand volume: {0}")]
    Driver(String),
    #[error(transparent)]
    Secret(#[from] secrets::SecretReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("list pods of the claim's namespace")]
    Pods(#[source] Box<kube::Error>),
    #[error("claim doesn't settle")]
    Unsettled,
}

impl Resizer {
    /// One look at one claim, and all steps that can be done now.
    pub(super) async fn reconcile(&self, key: ClaimName) -> Result<Outcome, ResizeError> {
        for _ in 0..STEPS_MAX {
            let held = self.claims.get(Some(&key.namespace), &key.name);
            let pv_name = held.as_deref().and_then(claim::volume_name).unwrap_or_default();
            let pv = self.pvs.get(None, pv_name);
            let marks = self.marks.lock().get(&key).cloned().unwrap_or_default();
            let seen = Seen {
                claim: held.as_deref(),
                pv: pv.as_deref(),
                is_used_by_pod: marks.is_in_use && self.is_used_by_pod(&key).await?,
                marks,
                driver: &self.driver.facts,
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
            match next {
                Next::Settled => return Ok(Outcome::Settled),
                Next::RemovePreResizeCapacity => self.remove_pre_resize_capacity(pv).await?,
                Next::Mark { target } => self.mark(&key, held, target).await?,
                Next::Expand(expansion) => self.expand(&key, held, pv, *expansion).await?,
                Next::Wait { until } => {
                    let wait = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
                    return Ok(Outcome::After(wait));
                }
                Next::Refuse(refusal) => {
                    self.failed_event(held, &refusal.to_string());
                    return Err(refusal.into());
                }
            }
        }
        Err(ResizeError::Unsettled)
    }

    async fn mark(
        &self,
        key: &ClaimName,
        held: &PersistentVolumeClaim,
        target: Amount,
    ) -> Result<(), ResizeError> {
        self.patch_claim(key, status::mark(held, target, Timestamp::now()))
            .await?;
        let pv_name = claim::volume_name(held).unwrap_or_default();
        let message = format!("External resizer is resizing volume {pv_name}");
        self.recorder
            .event_on(held, EventType::Normal, "Resizing", message);
        Ok(())
    }

    async fn expand(
        &self,
        key: &ClaimName,
        held: &PersistentVolumeClaim,
        pv: &PersistentVolume,
        expansion: Expansion,
    ) -> Result<(), ResizeError> {
        let target = expansion.target;
        let answer = match expansion.request {
            None => Ok(ControllerExpandVolumeResponse {
                capacity_bytes: 0,
                node_expansion_required: true,
            }),
            Some(mut request) => {
                request.secrets = secrets::read(&self.client, expansion.secret.as_ref()).await?;
                let mut controller = self.driver.connection.controller();
                call(self.config.timeout, request, |r| {
                    controller.controller_expand_volume(r)
                })
                .await
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(status) => return self.expand_failed(key, held, &status).await,
        };
        self.marks.lock().remove(key);
        // 0 means that the driver doesn't say: it has what was asked for.
        let size = if answer.capacity_bytes == 0 {
            target
        } else {
            Amount::from_bytes(answer.capacity_bytes)
        };
        let needs_node = answer.node_expansion_required;
        let old_capacity = claim::status_capacity(held).ok().flatten().filter(|_| needs_node);
        if let Some(patch) = status::pv_capacity(pv, size, old_capacity) {
            self.patch_pv(pv, patch).await?;
        }
        if needs_node {
            self.patch_claim(key, status::node_pending(held, Timestamp::now()))
                .await?;
            let message = "Require file system resize of volume on node".to_string();
            self.recorder
                .event_on(held, EventType::Normal, "FileSystemResizeRequired", message);
        } else {
            self.patch_claim(key, status::finished(held, size)).await?;
            let message = "Resize volume succeeded".to_string();
            self.recorder
                .event_on(held, EventType::Normal, "VolumeResizeSuccessful", message);
        }
        Ok(())
    }

    async fn expand_failed(
        &self,
        key: &ClaimName,
        held: &PersistentVolumeClaim,
        failure: &Status,
    ) -> Result<(), ResizeError> {
        let why = describe(failure);
        self.failed_event(held, &why);
        let now = Timestamp::now();
        let class = expand_volume(failure);
        let slow = jiff::SignedDuration::try_from(self.config.retry_interval.max).unwrap_or_default();
        let is_infeasible = class == ExpandFailure::Infeasible;
        let marks = Marks {
            has_failed: class != ExpandFailure::Uncertain,
            is_in_use: class == ExpandFailure::InUse,
            slow_until: is_infeasible.then(|| now.saturating_add(slow).unwrap_or(Timestamp::MAX)),
        };
        self.marks.lock().insert(key.clone(), marks);
        if class != ExpandFailure::Uncertain {
            self.patch_claim(key, status::failed(held, &why, is_infeasible, now))
                .await?;
        }
        Err(ResizeError::Driver(why))
    }

    /// Asked live, and only for claims whose volume the driver has called busy: watching all pods for that rare case
    /// costs more memory than all the rest.
    async fn is_used_by_pod(&self, key: &ClaimName) -> Result<bool, ResizeError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let pods = pods
            .list(&ListParams::default())
            .await
            .map_err(|error| ResizeError::Pods(Box::new(error)))?;
        let is_running = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed"))
        };
        let uses = |pod: &Pod| {
            let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            let mut claims = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
            claims.any(|source| source.claim_name == key.name)
        };
        Ok(pods.items.iter().any(|pod| is_running(pod) && uses(pod)))
    }

    async fn remove_pre_resize_capacity(&self, pv: &PersistentVolume) -> Result<(), ResizeError> {
        self.patch_pv(
            pv,
            json!({"metadata": {"annotations": {keys::PRE_RESIZE_CAPACITY: null}}}),
        )
        .await
    }

    async fn patch_pv(&self, pv: &PersistentVolume, patch: Value) -> Result<(), ResizeError> {
        Ok(write::patch_pv(&self.client, &self.pvs, pv, patch).await?)
    }

    async fn patch_claim(&self, key: &ClaimName, patch: Value) -> Result<(), ResizeError> {
        Ok(write::patch_claim_status(&self.client, &self.claims, key, patch).await?)
    }

    fn failed_event(&self, held: &PersistentVolumeClaim, why: &str) {
        let pv_name = claim::volume_name(held).unwrap_or_default();
        let driver_name = &self.driver.facts.driver_name;
        let message = format!("resize volume {pv_name:?} by resizer {driver_name:?} failed: {why}");
        self.recorder
            .event_on(held, EventType::Warning, "VolumeResizeFailed", message);
    }
}

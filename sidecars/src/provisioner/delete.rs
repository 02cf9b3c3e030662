//! The effectful side of released PVs: deletes volumes, keeps finalizers.

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{Api, DeleteParams, Preconditions};
use moorline_model::{keys, volume};
use moorline_proto::csi::DeleteVolumeRequest;
use moorline_runtime::{EventType, Outcome};

use super::Provisioner;
use super::ledger::LedgerError;
use super::provision::BUSY_INTERVAL;
use super::volume::{Deletion, Next, Refusal, Seen, decide};
use crate::api::{WriteError, code};
use crate::connection::call;
use crate::finalizers::{self, Edited};
use crate::rpc_class::describe;
use crate::secrets;

/// Why a PV is looked at again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeleteError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("delete volume {volume_id}: {why}")]
    Driver { volume_id: String, why: String },
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Provisioner {
    /// One look at one PV.
    pub(super) async fn reconcile_volume(&self, name: String) -> Result<Outcome, DeleteError> {
        let Some(_busy) = self.memory.begin(&name) else {
            return Ok(Outcome::After(BUSY_INTERVAL));
        };
        let held = self.pvs.get(None, &name);
        let class = held
            .as_deref()
            .and_then(|pv| self.classes.get(None, volume::class_name(pv)));
        let is_attached = self
            .attachments
            .as_ref()
            .is_some_and(|(by_pv, _)| !by_pv.get(name.as_str()).is_empty());
        let seen = Seen {
            pv: held.as_deref(),
            class: class.as_deref(),
            is_attached,
            node: self.node.as_ref(),
            driver: &self.driver.facts,
        };
        let next = decide(&seen);
        let Some(pv) = held.as_deref() else {
            return Ok(Outcome::Settled);
        };
        match next {
            Next::Settled => Ok(Outcome::Settled),
            Next::AddFinalizer => {
                self.edit_finalizers(pv, &name, finalizers::add).await?;
                Ok(Outcome::Settled)
            }
            Next::RemoveFinalizer => {
                self.ledger.cleared(&name).await?;
                self.edit_finalizers(pv, &name, finalizers::remove).await?;
                Ok(Outcome::Settled)
            }
            Next::Delete(deletion) => {
                let started = tokio::time::Instant::now();
                let result = self.delete_volume(pv, &deletion).await;
                let metrics = self.driver.connection.metrics();
                metrics.deleted(volume::class_name(pv), result.is_ok(), started.elapsed());
                result?;
                self.refresh_capacity(volume::class_name(pv));
                self.delete_pv(pv, &name).await?;
                Ok(Outcome::Settled)
            }
            Next::Refuse(refusal) => {
                self.delete_failed(pv, refusal.to_string());
                Err(refusal.into())
            }
        }
    }

    async fn delete_volume(&self, pv: &PersistentVolume, deletion: &Deletion) -> Result<(), DeleteError> {
        let secrets = secrets::read(&self.client, deletion.secret.as_ref())
            .await
            .unwrap_or_else(|error| {
                // A Secret that went away with its namespace must not keep the volume for ever; a driver that can't
                // delete without it will say so.
                tracing::warn!(pv.name = pv.metadata.name, %error, "Deleting the volume without its secret");
                std::collections::HashMap::new()
            });
        let request = DeleteVolumeRequest {
            volume_id: deletion.volume_id.clone(),
            secrets,
        };
        let mut controller = self.driver.connection.controller();
        let answer = call(self.config.timeout, request, |request| {
            controller.delete_volume(request)
        })
        .await;
        match answer {
            Ok(_) => Ok(()),
            Err(status) => {
                let why = describe(&status);
                self.delete_failed(pv, why.clone());
                Err(DeleteError::Driver {
                    volume_id: deletion.volume_id.clone(),
                    why,
                })
            }
        }
    }

    /// The volume is gone: so shall be its PV. Others may hold it a little longer.
    async fn delete_pv(&self, pv: &PersistentVolume, name: &str) -> Result<(), DeleteError> {
        // An intent that outlives its PV would be taken for a volume that was never handed over.
        self.ledger.cleared(name).await?;
        let mut current = pv.clone();
        if pv.metadata.deletion_timestamp.is_none() {
            let pvs: Api<PersistentVolume> = Api::all(self.client.clone());
            let uid = pv.metadata.uid.clone();
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid,
                    resource_version: None,
                }),
                ..Default::default()
            };
            match pvs.delete(name, &params).await {
                Ok(answer) => match answer
                    .left()
                    .filter(|pv| pv.metadata.deletion_timestamp.is_some())
                {
                    Some(deleting) => {
                        self.pvs.observe(deleting.clone());
                        current = deleting;
                    }
                    // It is gone at once: nothing held it.
                    None => {
                        self.pvs.forget(pv);
                        return Ok(());
                    }
                },
                Err(error) if code(&error) == Some(404) => return Ok(()),
                Err(error) => {
                    return Err(WriteError::new(format!("delete persistent volume {name}"), error).into());
                }
            }
        }
        self.edit_finalizers(&current, name, finalizers::remove).await
    }

    async fn edit_finalizers(
        &self,
        pv: &PersistentVolume,
        name: &str,
        edit: finalizers::Edit,
    ) -> Result<(), DeleteError> {
        let edited =
            finalizers::apply(&self.client, pv, (None, name), keys::PROVISIONER_FINALIZER, edit).await;
        let edited = edited.map_err(|error| WriteError::new(format!("patch finalizers of {name}"), error))?;
        match edited {
            Edited::Unchanged => {}
            Edited::Changed(pv) => self.pvs.observe(pv),
            Edited::Gone => self.pvs.forget(pv),
        }
        Ok(())
    }

    fn delete_failed(&self, pv: &PersistentVolume, why: String) {
        self.recorder
            .event_on(pv, EventType::Warning, "VolumeFailedDelete", why);
    }
}

/// Whether a PV may concern a provisioner at all: cheap, for change handlers.
pub(super) fn is_candidate(pv: &PersistentVolume, driver_name: &str) -> bool {
    pv.spec
        .as_ref()
        .and_then(|spec| spec.csi.as_ref())
        .is_some_and(|csi| csi.driver == driver_name)
        && (volume::phase(pv) == volume::PvPhase::Released
            || pv.metadata.deletion_timestamp.is_some()
            || needs_finalizer_upkeep(pv))
}

fn needs_finalizer_upkeep(pv: &PersistentVolume) -> bool {
    let has_finalizer = pv
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == keys::PROVISIONER_FINALIZER);
    let is_delete = volume::reclaim_policy(pv) == Some(volume::ReclaimPolicy::Delete);
    has_finalizer != is_delete
}

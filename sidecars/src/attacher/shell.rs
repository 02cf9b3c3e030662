//! The effectful side of attachments: gathers what is seen, does what was decided, writes what came of it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeError};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use moorline_model::{keys, mutant};
use moorline_runtime::Outcome;
use serde_json::{Value, json};
use tonic::Status;

use super::Attacher;
use super::attachment::{Next, Publication, Refusal, Seen, Unpublication, decide, may_release};
use crate::api::{WriteError, code, merge_patch};
use crate::connection::call;
use crate::finalizers::{self, Edited};
use crate::rpc_class::describe;
use crate::secrets;

/// Actions done in one go for an attachment; each of them changes what is seen, so there are never more.
const STEPS_MAX: usize = 8;

/// Why an attachment is looked at again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{rpc}: {why}")]
    Driver { rpc: &'static str, why: String },
    #[error(transparent)]
    Secret(#[from] secrets::SecretReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("attachment doesn't settle")]
    Unsettled,
}

/// Which of the two errors in the status is meant.
#[derive(Clone, Copy)]
enum Phase {
    Attach,
    Detach,
}

impl Attacher {
    /// One look at one attachment, and all steps that can be done now.
    pub(super) async fn reconcile_attachment(&self, name: String) -> Result<Outcome, AttachError> {
        for _ in 0..STEPS_MAX {
            let Some(held) = self.attachments.get(None, &name) else {
                return Ok(Outcome::Settled);
            };
            let pv_name = held
                .spec
                .source
                .persistent_volume_name
                .as_deref()
                .unwrap_or_default();
            let pv = self.pvs.get(None, pv_name);
            let seen = Seen {
                attachment: Some(&held),
                pv: pv.as_deref(),
                node_id: self.node_id(&held.spec.node_name),
                driver: &self.driver.facts,
                default_fs_type: &self.config.default_fs_type,
            };
            match decide(&seen) {
                Next::Settled => return Ok(Outcome::Settled),
                Next::MarkAttached => {
                    self.write_status(&held, json!({"attached": true})).await?;
                }
                Next::HoldPv => self.hold_pv(pv.as_deref()).await?,
                Next::Prepare { node_id } => self.prepare(&held, &node_id).await?,
                Next::Publish(publication) => self.publish(&held, *publication).await?,
                Next::Unpublish(unpublication) => {
                    self.unpublish(&held, *unpublication).await?;
                    return Ok(Outcome::Settled);
                }
                Next::Refuse(refusal) => {
                    let phase = match held.metadata.deletion_timestamp {
                        Some(_) => Phase::Detach,
                        None => Phase::Attach,
                    };
                    self.write_error(&held, phase, refusal.to_string(), None).await?;
                    return Err(refusal.into());
                }
            }
        }
        Err(AttachError::Unsettled)
    }

    /// Takes our finalizer from a PV that is to go and that no attachment names.
    pub(super) async fn reconcile_pv(&self, name: String) -> Result<Outcome, AttachError> {
        let Some(pv) = self.pvs.get(None, &name) else {
            return Ok(Outcome::Settled);
        };
        let is_attached = !self.by_pv.get(name.as_str()).is_empty();
        if may_release(&pv, is_attached, &self.driver.facts.driver_name) {
            self.edit_pv_finalizer(&pv, finalizers::remove).await?;
        }
        // Still attached: the end of its last attachment brings it back here.
        Ok(Outcome::Settled)
    }

    fn node_id(&self, node_name: &str) -> Option<String> {
        let csi_node = self.csi_nodes.get(None, node_name)?;
        let driver = csi_node
            .spec
            .drivers
            .iter()
            .find(|driver| driver.name == self.driver.facts.driver_name)?;
        Some(driver.node_id.clone())
    }

    async fn hold_pv(&self, pv: Option<&PersistentVolume>) -> Result<(), AttachError> {
        match pv {
            Some(pv) => self.edit_pv_finalizer(pv, finalizers::add).await,
            None => Err(AttachError::Unsettled),
        }
    }

    async fn edit_pv_finalizer(
        &self,
        pv: &PersistentVolume,
        edit: finalizers::Edit,
    ) -> Result<(), AttachError> {
        let name = pv.metadata.name.as_deref().unwrap_or_default();
        let finalizer = keys::attacher_finalizer(&self.driver.facts.driver_name);
        let edited = finalizers::apply(&self.client, pv, (None, name), &finalizer, edit)
            .await
            .map_err(|error| {
                WriteError::new(format!("patch finalizers of persistent volume {name}"), error)
            })?;
        match edited {
            Edited::Unchanged => {}
            Edited::Changed(pv) => self.pvs.observe(pv),
            Edited::Gone => self.pvs.forget(pv),
        }
        Ok(())
    }

    async fn prepare(&self, held: &VolumeAttachment, node_id: &str) -> Result<(), AttachError> {
        let finalizer = keys::attacher_finalizer(&self.driver.facts.driver_name);
        let mut finalizers = held.metadata.finalizers.clone().unwrap_or_default();
        if !finalizers.contains(&finalizer) {
            finalizers.push(finalizer);
        }
        // The resourceVersion guards the list; one patch, so that the two never come apart.
        let patch = json!({"metadata": {
            "resourceVersion": held.metadata.resource_version,
            "finalizers": finalizers,
            "annotations": {keys::ATTACHMENT_NODE_ID: node_id},
        }});
        let name = held.metadata.name.as_deref().unwrap_or_default();
        let prepared: VolumeAttachment = merge_patch(&self.client, (None, name), None, patch)
            .await
            .map_err(|error| WriteError::new(format!("prepare volume attachment {name}"), error))?;
        self.attachments.observe(prepared);
        Ok(())
    }

    async fn publish(&self, held: &VolumeAttachment, publication: Publication) -> Result<(), AttachError> {
        let mut request = publication.request;
        request.secrets = match secrets::read(&self.client, publication.secret.as_ref()).await {
            Ok(secrets) => secrets,
            Err(error) => {
                self.write_error(held, Phase::Attach, error.to_string(), None)
                    .await?;
                return Err(error.into());
            }
        };
        let mut controller = self.driver.connection.controller();
        let answer = call(self.config.timeout, request, |r| {
            controller.controller_publish_volume(r)
        })
        .await;
        match answer {
            Ok(answer) => {
                let metadata = answer.publish_context;
                let status = json!({"attached": true, "attachmentMetadata": metadata, "attachError": null});
                self.write_status(held, status).await
            }
            Err(status) => {
                self.write_error(held, Phase::Attach, describe(&status), error_code(&status))
                    .await?;
                Err(AttachError::Driver {
                    rpc: "ControllerPublishVolume",
                    why: describe(&status),
                })
            }
        }
    }

    async fn unpublish(
        &self,
        held: &VolumeAttachment,
        unpublication: Unpublication,
    ) -> Result<(), AttachError> {
        let mut request = unpublication.request;
        request.secrets = match secrets::read(&self.client, unpublication.secret.as_ref()).await {
            Ok(secrets) => secrets,
            Err(error) => {
                self.write_error(held, Phase::Detach, error.to_string(), None)
                    .await?;
                return Err(error.into());
            }
        };
        let mut controller = self.driver.connection.controller();
        let answer = call(self.config.timeout, request, |r| {
            controller.controller_unpublish_volume(r)
        })
        .await;
        if let Err(status) = answer
            && !mutant::is_on("detach-anyway")
        {
            self.write_error(held, Phase::Detach, describe(&status), None)
                .await?;
            return Err(AttachError::Driver {
                rpc: "ControllerUnpublishVolume",
                why: describe(&status),
            });
        }
        // The finalizer first: once it is gone nobody unpublishes again, whatever happens to the status.
        let name = held.metadata.name.as_deref().unwrap_or_default();
        let finalizer = keys::attacher_finalizer(&self.driver.facts.driver_name);
        let left = finalizers::apply(&self.client, held, (None, name), &finalizer, finalizers::remove)
            .await
            .map_err(|error| WriteError::new(format!("release volume attachment {name}"), error))?;
        match left {
            Edited::Unchanged => {}
            Edited::Gone => self.attachments.forget(held),
            Edited::Changed(left) => {
                let status = json!({"attached": false, "attachmentMetadata": null, "detachError": null});
                self.attachments.observe(left);
                self.write_status(held, status).await?;
            }
        }
        Ok(())
    }

    async fn write_status(&self, held: &VolumeAttachment, status: Value) -> Result<(), AttachError> {
        let name = held.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({"status": status});
        match merge_patch::<VolumeAttachment>(&self.client, (None, name), Some("status"), patch).await {
            Ok(written) => {
                self.attachments.observe(written);
                Ok(())
            }
            Err(error) if code(&error) == Some(404) => Ok(()),
            Err(error) => {
                Err(WriteError::new(format!("write status of volume attachment {name}"), error).into())
            }
        }
    }

    async fn write_error(
        &self,
        held: &VolumeAttachment,
        phase: Phase,
        message: String,
        error_code: Option<i32>,
    ) -> Result<(), AttachError> {
        let status = held.status.as_ref();
        let (field, known) = match phase {
            Phase::Attach => (
                "attachError",
                status.and_then(|status| status.attach_error.as_ref()),
            ),
            Phase::Detach => (
                "detachError",
                status.and_then(|status| status.detach_error.as_ref()),
            ),
        };
        let is_known = known
            .is_some_and(|known| known.message.as_ref() == Some(&message) && known.error_code == error_code);
        if is_known {
            // The same as last time: not worth a write.
            return Ok(());
        }
        let error = VolumeError {
            error_code,
            message: Some(message),
            time: Some(Time(Timestamp::now())),
        };
        let mut patch = json!({"attached": status.is_some_and(|status| status.attached)});
        patch[field] = json!(error);
        self.write_status(held, patch).await
    }
}

/// The numeric code, if the error is the driver's own.
fn error_code(status: &Status) -> Option<i32> {
    std::error::Error::source(status)
        .is_none()
        .then(|| i32::from(status.code()))
}

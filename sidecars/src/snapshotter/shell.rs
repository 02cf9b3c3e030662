//! The effectful side of contents: does what was decided, writes what came of it.

use jiff::Timestamp;
use moorline_model::keys;
use moorline_model::snapshot::VolumeSnapshotContent;
use moorline_proto::csi::{CreateSnapshotRequest, DeleteSnapshotRequest, ListSnapshotsRequest};
use moorline_runtime::{EventType, Outcome};
use serde_json::{Value, json};

use super::Snapshotter;
use super::content::{Call, Next, Refusal, Seen, decide, poll_interval};
use super::status::{self, AnswerError};
use crate::api::{WriteError, code, merge_patch};
use crate::connection::call;
use crate::finalizers::{self, Edited};
use crate::rpc_class::{SnapshotFailure, create_snapshot, describe};
use crate::secrets;

/// More writes than any single look needs; reaching it means that a write didn't have its effect.
const STEPS_MAX: usize = 6;
const CREATE_FAILED: &str = "SnapshotCreationFailed";
const CHECK_FAILED: &str = "SnapshotContentCheckandUpdateFailed";
const DELETE_FAILED: &str = "SnapshotDeleteError";

/// Why a content is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{rpc}: {why}")]
    Driver { rpc: &'static str, why: String },
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error(transparent)]
    Secret(#[from] secrets::SecretReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("writes have no effect")]
    Unsettled,
}

impl Snapshotter {
    /// One look at one content.
    pub(super) async fn reconcile(&self, name: String) -> Result<Outcome, SnapshotError> {
        for _ in 0..STEPS_MAX {
            let Some(content) = self.contents.get(None, &name) else {
                return Ok(Outcome::Settled);
            };
            let class_name = content.spec.volume_snapshot_class_name.as_deref();
            let class = class_name.and_then(|name| self.classes.get(None, name));
            let seen = Seen {
                content: Some(&content),
                class: class.as_deref(),
                driver: &self.driver.facts,
                config: &self.config,
            };
            match decide(&seen) {
                Next::Settled => return Ok(Outcome::Settled),
                Next::MarkBeingCreated => self.mark(&content, true).await?,
                Next::Unmark => self.mark(&content, false).await?,
                Next::Create(call) => {
                    if self.create(&content, *call).await? {
                        continue;
                    }
                    return Ok(Outcome::After(poll_interval(&content, Timestamp::now())));
                }
                Next::Look(call) => {
                    if self.look(&content, *call).await? {
                        continue;
                    }
                    return Ok(Outcome::After(poll_interval(&content, Timestamp::now())));
                }
                Next::AssumeReady { handle } => {
                    let status = status::assumed(&handle, Timestamp::now());
                    self.write_status(&content, status).await?;
                }
                Next::Delete(call) => {
                    self.delete(&content, *call).await?;
                    return Ok(Outcome::Settled);
                }
                Next::Release => {
                    self.release(&content).await?;
                    return Ok(Outcome::Settled);
                }
                Next::Refuse(refusal) => {
                    self.failed(&content, CREATE_FAILED, &refusal.to_string()).await?;
                    return Err(refusal.into());
                }
            }
        }
        Err(SnapshotError::Unsettled)
    }

    /// Asks for the snapshot, for the first time or again. Whether it is done: ready, or to be deleted.
    async fn create(
        &self,
        content: &VolumeSnapshotContent,
        creation: Call<CreateSnapshotRequest>,
    ) -> Result<bool, SnapshotError> {
        let mut request = creation.request;
        request.secrets = match secrets::read(&self.client, creation.secret.as_ref()).await {
            Ok(secrets) => secrets,
            Err(error) => {
                self.failed(content, CREATE_FAILED, &error.to_string()).await?;
                return Err(error.into());
            }
        };
        let mut controller = self.driver.connection.controller();
        let answer = call(self.config.timeout, request, |request| {
            controller.create_snapshot(request)
        })
        .await;
        let why = match answer {
            Ok(answer) => match status::of_snapshot(answer.snapshot.as_ref(), Timestamp::now()) {
                Ok(status) => {
                    let is_ready = status["readyToUse"] == json!(true);
                    let written = self.write_status(content, status).await?;
                    if written.is_being_created() {
                        self.mark(&written, false).await?;
                    }
                    return Ok(is_ready || written.metadata.deletion_timestamp.is_some());
                }
                Err(error) => {
                    self.failed(content, CREATE_FAILED, &error.to_string()).await?;
                    return Err(error.into());
                }
            },
            Err(status) => {
                let why = describe(&status);
                if create_snapshot(&status) == SnapshotFailure::Final && content.is_being_created() {
                    // Nothing exists: the content may go, and its claim with it.
                    self.mark(content, false).await?;
                }
                why
            }
        };
        let message = format!("failed to take snapshot of the volume: {why}");
        self.failed(content, CREATE_FAILED, &message).await?;
        if content.metadata.deletion_timestamp.is_some() && !content.is_being_created() {
            return Ok(true);
        }
        Err(SnapshotError::Driver {
            rpc: "CreateSnapshot",
            why,
        })
    }

    /// Asks how a snapshot is. Whether it is ready.
    async fn look(
        &self,
        content: &VolumeSnapshotContent,
        look: Call<ListSnapshotsRequest>,
    ) -> Result<bool, SnapshotError> {
        let mut request = look.request;
        let snapshot_id = request.snapshot_id.clone();
        request.secrets = match secrets::read(&self.client, look.secret.as_ref()).await {
            Ok(secrets) => secrets,
            Err(error) => {
                self.failed(content, CHECK_FAILED, &error.to_string()).await?;
                return Err(error.into());
            }
        };
        let mut controller = self.driver.connection.controller();
        let answer = call(self.config.timeout, request, |request| {
            controller.list_snapshots(request)
        })
        .await;
        let error = match answer {
            Ok(answer) => {
                let listed = answer
                    .entries
                    .iter()
                    .filter_map(|entry| entry.snapshot.as_ref())
                    .find(|snapshot| snapshot.snapshot_id == snapshot_id);
                let said = match listed {
                    Some(snapshot) => status::of_snapshot(Some(snapshot), Timestamp::now()),
                    None => Err(AnswerError::NotListed(snapshot_id)),
                };
                match said {
                    Ok(status) => {
                        let is_ready = status["readyToUse"] == json!(true);
                        self.write_status(content, status).await?;
                        return Ok(is_ready);
                    }
                    Err(error) => SnapshotError::from(error),
                }
            }
            Err(status) => SnapshotError::Driver {
                rpc: "ListSnapshots",
                why: describe(&status),
            },
        };
        self.failed(content, CHECK_FAILED, &error.to_string()).await?;
        Err(error)
    }

    async fn delete(
        &self,
        content: &VolumeSnapshotContent,
        deletion: Call<DeleteSnapshotRequest>,
    ) -> Result<(), SnapshotError> {
        let mut request = deletion.request;
        request.secrets = match secrets::read(&self.client, deletion.secret.as_ref()).await {
            Ok(secrets) => secrets,
            Err(error) => {
                self.failed(content, DELETE_FAILED, &error.to_string()).await?;
                return Err(error.into());
            }
        };
        let mut controller = self.driver.connection.controller();
        let answer = call(self.config.timeout, request, |request| {
            controller.delete_snapshot(request)
        })
        .await;
        if let Err(status) = answer {
            let why = describe(&status);
            let message = format!("Failed to delete snapshot: {why}");
            self.failed(content, DELETE_FAILED, &message).await?;
            return Err(SnapshotError::Driver {
                rpc: "DeleteSnapshot",
                why,
            });
        }
        // Killed before this, the next start deletes what is deleted, which is no error.
        self.release(content).await
    }

    async fn release(&self, content: &VolumeSnapshotContent) -> Result<(), SnapshotError> {
        let name = content.metadata.name.as_deref().unwrap_or_default();
        let finalizer = keys::SNAPSHOT_CONTENT_BOUND_PROTECTION;
        let released = finalizers::apply(&self.client, content, (None, name), finalizer, finalizers::remove)
            .await
            .map_err(|error| WriteError::new(format!("release volume snapshot content {name}"), error))?;
        match released {
            Edited::Unchanged => {}
            Edited::Changed(content) => self.contents.observe(content),
            Edited::Gone => self.contents.forget(content),
        }
        Ok(())
    }

    /// Sets or takes the mark that a snapshot may be coming into being.
    async fn mark(
        &self,
        content: &VolumeSnapshotContent,
        is_being_created: bool,
    ) -> Result<(), SnapshotError> {
        let value = is_being_created.then_some(keys::YES);
        let patch = json!({"metadata": {
            "uid": content.metadata.uid,
            "annotations": {keys::SNAPSHOT_BEING_CREATED: value},
        }});
        let name = content.metadata.name.as_deref().unwrap_or_default();
        let marked: VolumeSnapshotContent = merge_patch(&self.client, (None, name), None, patch)
            .await
            .map_err(|error| WriteError::new(format!("annotate volume snapshot content {name}"), error))?;
        self.contents.observe(marked);
        Ok(())
    }

    async fn write_status(
        &self,
        content: &VolumeSnapshotContent,
        status: Value,
    ) -> Result<VolumeSnapshotContent, SnapshotError> {
        let name = content.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({"status": status});
        let written: VolumeSnapshotContent = merge_patch(&self.client, (None, name), Some("status"), patch)
            .await
            .map_err(|error| {
                WriteError::new(format!("write status of volume snapshot content {name}"), error)
            })?;
        self.contents.observe(written.clone());
        Ok(written)
    }

    /// Tells what is wrong, in the status and as an event, unless it is known.
    async fn failed(
        &self,
        content: &VolumeSnapshotContent,
        reason: &str,
        message: &str,
    ) -> Result<(), SnapshotError> {
        let known = content.status.as_ref().and_then(|status| status.error.as_ref());
        if known.and_then(|error| error.message.as_deref()) == Some(message) {
            return Ok(());
        }
        self.recorder
            .event_on(content, EventType::Warning, reason, message.to_string());
        let is_ready = content.status.as_ref().and_then(|status| status.ready_to_use) == Some(true);
        let error =
            json!({"time": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), "message": message});
        // A snapshot that can't be deleted is still one.
        let status = json!({"error": error, "readyToUse": is_ready});
        match self.write_status(content, status).await {
            Err(SnapshotError::Write(error)) if code(&error.source) == Some(404) => Ok(()),
            written => written.map(|_| ()),
        }
    }
}

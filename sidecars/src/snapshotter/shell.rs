//! The effectful side of contents of either kind: does what was decided, writes what came of it.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use moorline_model::keys;
use moorline_runtime::{EventType, Outcome};
use serde_json::{Value, json};
use tonic::Status;

use super::Work;
use super::kind::{Call, CallError, Content, Kind, Next, Refusal};
use super::status::{self, AnswerError};
use crate::api::{WriteError, code, merge_patch};
use crate::finalizers::{self, Edited};
use crate::rpc_class::{SnapshotFailure, create_snapshot, describe};
use crate::secrets;

/// More writes than any single look needs; reaching it means that a write didn't have its effect.
const STEPS_MAX: usize = 6;
/// A snapshot that isn't ready is looked at again within these bounds.
const POLL_MIN: Duration = Duration::from_secs(1);
const POLL_MAX: Duration = Duration::from_secs(15);

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

impl<K: Kind> Work<K> {
    /// One look at one content.
    pub(super) async fn reconcile(&self, name: String) -> Result<Outcome, SnapshotError> {
        for _ in 0..STEPS_MAX {
            let Some(content) = self.contents.get(None, &name) else {
                return Ok(Outcome::Settled);
            };
            match self.kind.decide(&content, &self.driver.facts, &self.config) {
                Next::Settled => return Ok(Outcome::Settled),
                Next::MarkBeingCreated => self.mark(&content, true).await?,
                Next::Unmark => self.mark(&content, false).await?,
                Next::Create(call) => {
                    if self.create(&content, *call).await? {
                        continue;
                    }
                    return Ok(Outcome::After(poll_interval(content.meta(), Timestamp::now())));
                }
                Next::Look(call) => {
                    if self.look(&content, *call).await? {
                        continue;
                    }
                    return Ok(Outcome::After(poll_interval(content.meta(), Timestamp::now())));
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
                    let reason = match refusal {
                        Refusal::NoMembers => K::NAMES.delete_failed,
                        _ => K::NAMES.create_failed,
                    };
                    self.failed(&content, reason, &refusal.to_string()).await?;
                    return Err(refusal.into());
                }
            }
        }
        Err(SnapshotError::Unsettled)
    }

    /// The Secret of a call. One that can't be read is told.
    async fn secrets<R>(
        &self,
        content: &K::Content,
        call: &Call<R>,
        reason: &str,
    ) -> Result<HashMap<String, String>, SnapshotError> {
        match secrets::read(&self.client, call.secret.as_ref()).await {
            Ok(secrets) => Ok(secrets),
            Err(error) => {
                self.failed(content, reason, &error.to_string()).await?;
                Err(error.into())
            }
        }
    }

    /// Asks for it, for the first time or again. Whether it is done: ready, or to be deleted.
    async fn create(&self, content: &K::Content, creation: Call<K::Create>) -> Result<bool, SnapshotError> {
        let reason = K::NAMES.create_failed;
        let secrets = self.secrets(content, &creation, reason).await?;
        let timeout = self.config.timeout;
        let answer = self
            .kind
            .create(&self.driver, timeout, creation.request, secrets)
            .await;
        let why = match answer {
            Ok(status) => {
                let is_ready = status["readyToUse"] == json!(true);
                let written = self.write_status(content, status).await?;
                if written.is_being_created() {
                    self.mark(&written, false).await?;
                }
                return Ok(is_ready || written.meta().deletion_timestamp.is_some());
            }
            Err(CallError::Answer(error)) => {
                self.failed(content, reason, &error.to_string()).await?;
                return Err(error.into());
            }
            Err(CallError::Status(status)) => {
                if create_snapshot(&status) == SnapshotFailure::Final && content.is_being_created() {
                    // Nothing exists: the content may go, and its claim with it.
                    self.mark(content, false).await?;
                }
                describe(&status)
            }
        };
        let message = format!("{}: {why}", K::NAMES.create_failed_text);
        self.failed(content, reason, &message).await?;
        if content.meta().deletion_timestamp.is_some() && !content.is_being_created() {
            return Ok(true);
        }
        Err(refused::<K>(0, why))
    }

    /// Asks how it is. Whether it is ready.
    async fn look(&self, content: &K::Content, look: Call<K::Look>) -> Result<bool, SnapshotError> {
        let reason = K::NAMES.check_failed;
        let secrets = self.secrets(content, &look, reason).await?;
        let timeout = self.config.timeout;
        let error = match self.kind.look(&self.driver, timeout, look.request, secrets).await {
            Ok(status) => {
                let is_ready = status["readyToUse"] == json!(true);
                self.write_status(content, status).await?;
                return Ok(is_ready);
            }
            Err(CallError::Answer(error)) => SnapshotError::from(error),
            Err(CallError::Status(status)) => refused::<K>(1, describe(&status)),
        };
        self.failed(content, reason, &error.to_string()).await?;
        Err(error)
    }

    async fn delete(&self, content: &K::Content, deletion: Call<K::Delete>) -> Result<(), SnapshotError> {
        let reason = K::NAMES.delete_failed;
        let secrets = self.secrets(content, &deletion, reason).await?;
        let timeout = self.config.timeout;
        let answer: Result<(), Status> = self
            .kind
            .delete(&self.driver, timeout, deletion.request, secrets)
            .await;
        if let Err(status) = answer {
            let why = describe(&status);
            let message = format!("{}: {why}", K::NAMES.delete_failed_text);
            self.failed(content, reason, &message).await?;
            return Err(refused::<K>(2, why));
        }
        // Killed before this, the next start deletes what is deleted, which is no error.
        self.release(content).await
    }

    async fn release(&self, content: &K::Content) -> Result<(), SnapshotError> {
        let name = name_of(content);
        let finalizer = K::NAMES.finalizer;
        let released = finalizers::apply(&self.client, content, (None, name), finalizer, finalizers::remove)
            .await
            .map_err(|error| WriteError::new(format!("release {} {name}", K::NAMES.what), error))?;
        match released {
            Edited::Unchanged => {}
            Edited::Changed(content) => self.contents.observe(content),
            Edited::Gone => self.contents.forget(content),
        }
        Ok(())
    }

    /// Sets or takes the mark that a snapshot may be coming into being.
    async fn mark(&self, content: &K::Content, is_being_created: bool) -> Result<(), SnapshotError> {
        let value = is_being_created.then_some(keys::YES);
        let patch = json!({"metadata": {
            "uid": content.meta().uid,
            "annotations": {K::NAMES.mark: value},
        }});
        let name = name_of(content);
        let marked: K::Content = merge_patch(&self.client, (None, name), None, patch)
            .await
            .map_err(|error| WriteError::new(format!("annotate {} {name}", K::NAMES.what), error))?;
        self.contents.observe(marked);
        Ok(())
    }

    async fn write_status(&self, content: &K::Content, status: Value) -> Result<K::Content, SnapshotError> {
        let name = name_of(content);
        let patch = json!({"status": status});
        let written: K::Content = merge_patch(&self.client, (None, name), Some("status"), patch)
            .await
            .map_err(|error| WriteError::new(format!("write status of {} {name}", K::NAMES.what), error))?;
        self.contents.observe(written.clone());
        Ok(written)
    }

    /// Tells what is wrong, in the status and as an event, unless it is known.
    async fn failed(&self, content: &K::Content, reason: &str, message: &str) -> Result<(), SnapshotError> {
        if content.error().and_then(|error| error.message.as_deref()) == Some(message) {
            return Ok(());
        }
        self.recorder
            .event_on(content, EventType::Warning, reason, message.to_string());
        // A snapshot that can't be deleted is still one.
        let status = json!({"error": trouble(message, Timestamp::now()), "readyToUse": content.is_ready()});
        match self.write_status(content, status).await {
            Err(SnapshotError::Write(error)) if code(&error.source) == Some(404) => Ok(()),
            written => written.map(|_| ()),
        }
    }
}

/// An error as statuses tell it.
pub(super) fn trouble(message: &str, now: Timestamp) -> Value {
    json!({"time": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), "message": message})
}

fn refused<K: Kind>(rpc: usize, why: String) -> SnapshotError {
    SnapshotError::Driver {
        rpc: K::NAMES.rpcs[rpc],
        why,
    }
}

fn name_of<C: Content>(content: &C) -> &str {
    content.meta().name.as_deref().unwrap_or_default()
}

/// How long until a snapshot that isn't ready is looked at again: a quarter of its age, so that short work is noticed
/// soon and long work isn't asked for all the time.
pub(crate) fn poll_interval(meta: &ObjectMeta, now: Timestamp) -> Duration {
    let made = meta.creation_timestamp.as_ref().map(|time| time.0);
    let age = made
        .and_then(|made| Duration::try_from(now.duration_since(made)).ok())
        .unwrap_or_default();
    (age / 4).clamp(POLL_MIN, POLL_MAX)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::testing::at;

    #[test]
    fn polling_slows_down_with_age() {
        for (age, expected) in [(0, 1), (-5, 1), (8, 2), (40, 10), (4000, 15)] {
            let meta = ObjectMeta {
                creation_timestamp: Some(Time(at(0))),
                ..Default::default()
            };
            let interval = poll_interval(&meta, at(age));
            assert_eq!(interval, Duration::from_secs(expected), "{age}");
        }
        assert_eq!(poll_interval(&ObjectMeta::default(), at(0)), POLL_MIN);
    }
}

//! Writes that both halves of the controller make. What was written is known at once, not only when the watch says so.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use moorline_model::snapshot::SnapshotError;
use moorline_runtime::{Cache, Outcome};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::finalizer;
use crate::write_error::WriteError;

/// More writes than any single look needs; reaching it means that a write didn't have its effect.
pub(super) const STEPS_MAX: usize = 12;
/// Another look after somebody else was faster.
pub(super) const CONFLICT_INTERVAL: Duration = Duration::from_millis(50);

/// One kind, as it is written: the API, and the cache that has to know of it.
pub(super) struct Writer<'a, K> {
    pub(super) api: Api<K>,
    pub(super) cache: &'a Cache<K>,
}

impl<K> Writer<'_, K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    /// Takes the answer to a write; an object whose last finalizer has gone is gone.
    fn took(&self, written: K) {
        let meta = written.meta();
        let is_gone = meta.deletion_timestamp.is_some() && meta.finalizers.as_ref().is_none_or(Vec::is_empty);
        if is_gone {
            self.cache.forget(&written);
        } else {
            self.cache.observe(written);
        }
    }

    /// A patch that guards itself.
    pub(super) async fn patch<P: Serialize + Debug>(
        &self,
        name: &str,
        patch: &Patch<P>,
    ) -> Result<(), WriteError> {
        let written = self.api.patch(name, &PatchParams::default(), patch).await?;
        self.took(written);
        Ok(())
    }

    /// Appends finalizers, none of which the object has.
    pub(super) async fn add_finalizers(&self, object: &K, names: &[&str]) -> Result<(), WriteError> {
        let operations = finalizer::additions(object.meta(), names);
        self.patch(&object.name_any(), &finalizer::json_patch::<K>(operations))
            .await
    }

    /// Takes those away that the object has.
    pub(super) async fn remove_finalizers(&self, object: &K, names: &[&str]) -> Result<(), WriteError> {
        let Some(operations) = finalizer::removals(object.meta(), names) else {
            return Ok(());
        };
        self.patch(&object.name_any(), &finalizer::json_patch::<K>(operations))
            .await
    }

    /// Merges `metadata` and `spec` into the object as it was seen.
    pub(super) async fn merge(
        &self,
        object: &K,
        mut metadata: Value,
        spec: Option<Value>,
    ) -> Result<(), WriteError> {
        metadata["resourceVersion"] = json!(object.meta().resource_version);
        let mut patch = json!({"metadata": metadata});
        if let Some(spec) = spec {
            patch["spec"] = spec;
        }
        self.patch(&object.name_any(), &Patch::Merge(patch)).await
    }

    /// The same on behalf of another object: one that has gone is to be looked at again, and is no news of that other.
    pub(super) async fn merge_other(
        &self,
        object: &K,
        metadata: Value,
        spec: Option<Value>,
    ) -> Result<(), WriteError> {
        self.other(object, self.merge(object, metadata, spec).await)
    }

    fn other(&self, object: &K, written: Result<(), WriteError>) -> Result<(), WriteError> {
        match written {
            Err(WriteError::Gone) => {
                self.cache.forget(object);
                Ok(())
            }
            written => written,
        }
    }

    /// Merges into the status of the very object that was seen: another one of the same name must not inherit it.
    pub(super) async fn merge_status(&self, object: &K, status: Value) -> Result<(), WriteError> {
        let patch = json!({
            "metadata": {"resourceVersion": object.meta().resource_version}, "status": status,
        });
        let written = self
            .api
            .patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        self.took(written);
        Ok(())
    }

    /// The same on behalf of another object.
    pub(super) async fn merge_status_of_other(&self, object: &K, status: Value) -> Result<(), WriteError> {
        self.other(object, self.merge_status(object, status).await)
    }

    /// Makes the object, or learns which one has its name: an earlier try, whose answer was lost, and the next look sees
    /// whether it is ours.
    pub(super) async fn create(&self, object: &K) -> Result<(), CreateError> {
        match self.api.create(&PostParams::default(), object).await {
            Ok(made) => {
                self.cache.observe(made);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = self.api.get_opt(&object.name_any()).await?;
                self.cache.observe(found.ok_or(CreateError::Vanished)?);
                Ok(())
            }
            Err(error) => Err(CreateError::Api(error)),
        }
    }

    /// Deletes the very object that was seen, on behalf of another one; one that has gone is to be looked at again.
    pub(super) async fn delete(&self, object: &K) -> Result<(), WriteError> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.meta().uid.clone(),
                resource_version: None,
            }),
            ..Default::default()
        };
        let deleted = match self.api.delete(&object.name_any(), &params).await {
            Ok(either) => {
                match either.left() {
                    Some(going) => self.took(going),
                    None => self.cache.forget(object),
                }
                Ok(())
            }
            Err(error) => Err(WriteError::from(error)),
        };
        self.other(object, deleted)
    }
}

/// An object that wasn't made.
pub(super) enum CreateError {
    /// One of its name was in the way, and went.
    Vanished,
    /// The API server refuses it, or gave no answer.
    Api(kube::Error),
}

impl From<kube::Error> for CreateError {
    fn from(error: kube::Error) -> Self {
        Self::Api(error)
    }
}

impl From<CreateError> for WriteError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Vanished => Self::Conflict,
            CreateError::Api(error) => error.into(),
        }
    }
}

/// What a write means for the look that made it; `None`: go on.
pub(super) fn settled_by(written: Result<(), WriteError>) -> Result<Option<Outcome>, kube::Error> {
    match written {
        Ok(()) => Ok(None),
        Err(WriteError::Conflict) => Ok(Some(Outcome::After(CONFLICT_INTERVAL))),
        // Its going wakes whoever has to know.
        Err(WriteError::Gone) => Ok(Some(Outcome::Settled)),
        Err(WriteError::Other(error)) => Err(error),
    }
}

/// The part of a status that tells of trouble; `None` if it says so already.
pub(super) fn trouble(known: Option<&SnapshotError>, is_ready: bool, message: &str) -> Option<Value> {
    if known.and_then(|error| error.message.as_deref()) == Some(message) && !is_ready {
        return None;
    }
    let error = SnapshotError {
        time: Some(Time(Timestamp::now())),
        message: Some(message.to_string()),
    };
    Some(json!({"error": error, "readyToUse": false}))
}

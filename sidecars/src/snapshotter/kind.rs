//! What the work on contents has to know of their kind: snapshots, and groups of them.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::SecretReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use moorline_model::claim::annotation;
use moorline_model::secret_template::TemplateError;
use moorline_model::snapshot::{PARAMETER_PREFIX, SnapshotError, SnapshotSecret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tonic::Status;

use super::SnapshotterConfig;
use super::status::AnswerError;
use crate::discovery::DriverFacts;
use crate::driver::Driver;

/// A content of some kind.
pub(crate) trait Content:
    kube::Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Name of the CSI driver.
    fn driver(&self) -> &str;
    /// Name of its class.
    fn class_name(&self) -> Option<&str>;
    /// Whether both stand for the same.
    fn has_spec_of(&self, other: &Self) -> bool;
    /// The last trouble.
    fn error(&self) -> Option<&SnapshotError>;
    /// Whether volumes can be made from it.
    fn is_ready(&self) -> bool;
    /// Whether it carries the mark of a creation.
    fn is_being_created(&self) -> bool;
}

/// Names that differ by kind.
pub(crate) struct Names {
    /// What it is called in texts.
    pub(crate) what: &'static str,
    /// Annotation: the driver's creation is under way.
    pub(crate) mark: &'static str,
    /// Our finalizer.
    pub(crate) finalizer: &'static str,
    /// Its work queue, in metrics.
    pub(crate) queue: &'static str,
    /// Reason of events: creation failed.
    pub(crate) create_failed: &'static str,
    /// Text in front of the driver's own.
    pub(crate) create_failed_text: &'static str,
    /// Reason of events: a look failed.
    pub(crate) check_failed: &'static str,
    /// Reason of events: deletion failed.
    pub(crate) delete_failed: &'static str,
    /// Text in front of the driver's own.
    pub(crate) delete_failed_text: &'static str,
    /// The driver's calls of creation, look and deletion.
    pub(crate) rpcs: [&'static str; 3],
}

/// A kind of contents, with what else decisions about them rest on.
pub(crate) trait Kind: Send + Sync + 'static {
    type Content: Content;
    type Create: Send + Sync;
    type Look: Send + Sync;
    type Delete: Send + Sync;

    const NAMES: Names;

    /// What to do next about one content.
    fn decide(
        &self,
        content: &Self::Content,
        driver: &DriverFacts,
        config: &SnapshotterConfig,
    ) -> NextOf<Self>;

    /// Asks for it, for the first time or again; the status that the answer makes.
    fn create(
        &self,
        driver: &Driver,
        timeout: Duration,
        request: Self::Create,
        secrets: HashMap<String, String>,
    ) -> impl Future<Output = Result<Value, CallError>> + Send;

    /// Asks how it is; the status that the answer makes.
    fn look(
        &self,
        driver: &Driver,
        timeout: Duration,
        request: Self::Look,
        secrets: HashMap<String, String>,
    ) -> impl Future<Output = Result<Value, CallError>> + Send;

    /// Has it deleted.
    fn delete(
        &self,
        driver: &Driver,
        timeout: Duration,
        request: Self::Delete,
        secrets: HashMap<String, String>,
    ) -> impl Future<Output = Result<(), Status>> + Send;
}

/// What came of a call.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The driver's error, or none at all.
    Status(Status),
    /// An answer that says nothing.
    Answer(AnswerError),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<AnswerError> for CallError {
    fn from(error: AnswerError) -> Self {
        Self::Answer(error)
    }
}

/// The answer of a kind's decider.
pub(crate) type NextOf<K> = Next<<K as Kind>::Create, <K as Kind>::Look, <K as Kind>::Delete>;

/// What to do next about a content, given the requests of its kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next<C, L, D> {
    /// Nothing until something changes.
    Settled,
    /// Before the driver is asked: a snapshot may exist from here on.
    MarkBeingCreated,
    /// The driver is asked, for the first time or again.
    Create(Box<Call<C>>),
    /// How an existing one is.
    Look(Box<Call<L>>),
    /// The driver can't say how it is: this status is assumed.
    AssumeReady {
        /// The driver's id.
        handle: String,
    },
    /// The backend's part goes.
    Delete(Box<Call<D>>),
    /// The mark of a creation that has ended.
    Unmark,
    /// Our finalizer goes, and the object with it.
    Release,
    /// Nothing can be asked of the driver now.
    Refuse(Refusal),
}

/// A call of the driver, but for the content of the secret.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call<R> {
    pub(crate) request: R,
    pub(crate) secret: Option<SecretReference>,
}

impl<R> Call<R> {
    pub(crate) fn boxed(request: R, secret: Option<SecretReference>) -> Box<Self> {
        Box::new(Self { request, secret })
    }
}

/// Why nothing can be asked of the driver now.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("content names no snapshot class")]
    NoClassNamed,
    #[error("snapshot class {0:?} not found")]
    NoClass(String),
    #[error("snapshot class parameter {0:?} is unknown; the prefix {PARAMETER_PREFIX:?} is reserved")]
    Parameter(String),
    #[error(transparent)]
    Secret(#[from] TemplateError),
    #[error("content names no snapshots of the group, without which no driver deletes it")]
    NoMembers,
}

/// A class's parameters, as drivers see them.
pub(crate) fn for_driver<'a>(
    parameters: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<HashMap<String, String>, Refusal> {
    let known: Vec<_> = SnapshotSecret::ALL
        .into_iter()
        .map(SnapshotSecret::keys)
        .collect();
    let is_known = |key: &str| {
        known
            .iter()
            .any(|(name, namespace)| [*name, *namespace].contains(&key))
    };
    let mut left = HashMap::new();
    for (key, value) in parameters {
        if !key.starts_with(PARAMETER_PREFIX) {
            left.insert(key.clone(), value.clone());
        } else if !is_known(key) {
            return Err(Refusal::Parameter(key.clone()));
        }
    }
    Ok(left)
}

/// The Secret that two annotations name.
pub(crate) fn deletion_secret(meta: &ObjectMeta, keys: [&str; 2]) -> Option<SecretReference> {
    let part = |key| {
        annotation(meta, key)
            .filter(|value| !value.is_empty())
            .map(str::to_string)
    };
    let [name, namespace] = keys.map(part);
    (name.is_some() && namespace.is_some()).then_some(SecretReference { name, namespace })
}

/// Whether this snapshotter is the one for the content's node.
pub(crate) fn is_of_node(meta: &ObjectMeta, config: &SnapshotterConfig) -> bool {
    let Some(node_name) = &config.node_name else {
        return true;
    };
    let labels = meta.labels.as_ref();
    labels.and_then(|labels| labels.get(moorline_model::keys::SNAPSHOT_MANAGED_BY)) == Some(node_name)
}

//! Creating objects.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use moorline_schema::{Gvk, validation};
use serde_json::Value;

use super::commit::{self, Committed};
use super::owners::{self, Owners};
use super::quotas::{self, Charged};
use super::render::Renderer;
use super::{Call, admission, decode, forms, metadata, rules, services, strategy, tree};
use crate::cache::{Collection, entry};
use crate::hooks::{self, Operation};
use crate::http::{Answer, Cause, Failure};

/// So many names are tried when they are generated.
const GENERATED_NAMES_TRIED_MAX: usize = 8;
/// A write is tried so often if what goes along with it changes.
const COMMITS_TRIED_MAX: usize = 8;

/// `POST` to a collection.
pub(crate) async fn create(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    let mut decoded = decode::object(call, body)?;
    let owners = Owners::of(&mut decoded.value);
    let stored = store_new(call, decoded.value, owners).await?;
    let renderer = Renderer::new(call.resource.clone(), call.form, call.query)?;
    let answer = renderer.answer(StatusCode::CREATED, &stored, Timestamp::now());
    Ok(with_warnings(answer, &decoded.warnings))
}

/// Stores a new object and gives its final bytes.
pub(crate) async fn store_new(call: &Call<'_>, object: Value, owners: Owners) -> Result<Bytes, Failure> {
    let object = if call.resource.is_converted() {
        forms::to_stored(call.collection()?.resource, object)
    } else {
        object
    };
    let given = tree::text(&object, &["metadata", "name"]).to_owned();
    let prefix = tree::text(&object, &["metadata", "generateName"]).to_owned();
    if !given.is_empty() {
        return store_named(call, object, &given, owners).await;
    }
    if prefix.is_empty() {
        let cause = Cause {
            reason: "FieldValueRequired",
            message: "Required value: name or generateName is required".to_owned(),
            field: "metadata.name".to_owned(),
        };
        return Err(Failure::invalid(call.resource.about_kind(""), vec![cause]));
    }
    let mut tried = 1;
    loop {
        let name = metadata::generated_name(&prefix, rand::random());
        match store_named(call, object.clone(), &name, owners.clone()).await {
            Err(failure) if failure.reason() == "AlreadyExists" && tried < GENERATED_NAMES_TRIED_MAX => {
                tried += 1
            }
            outcome => return outcome,
        }
    }
}

async fn store_named(
    call: &Call<'_>,
    mut object: Value,
    name: &str,
    owners: Owners,
) -> Result<Bytes, Failure> {
    check_new(call, &object)?;
    let now = Timestamp::now();
    let uid = uuid::Uuid::new_v4().to_string();
    let namespace = call.namespace.filter(|_| call.resource.facts.namespaced);
    metadata::fill_new(&mut object, name, namespace, &uid, now);
    let facts = call.resource.ruling_facts()?;
    rules::complete(call, &mut object)?;
    // What the server adds from here on has no owner.
    let managed = owners::after(call, owners, None, &object)?;
    admission::create(call, &mut object).await?;
    hooks::mutate(call, Operation::Create, None, Some(&mut object)).await?;
    strategy::prepare_create(facts, &mut object, now);
    let _numbers = services::assign(call, None, &mut object).await?;
    rules::complete(call, &mut object)?;
    let causes = rules::check_new(call, &object).await?;
    if !causes.is_empty() {
        return Err(invalid(call, name, causes));
    }
    admission::check(call, None, &object)?;
    hooks::validate(call, Operation::Create, None, Some(&object)).await?;
    for _ in 0..COMMITS_TRIED_MAX {
        let charged = quotas::charge(call, None, &object).await?;
        if let Some(json) = commit_new(call, name, &object, managed.as_deref(), &charged).await? {
            return Ok(json);
        }
    }
    Err(commit::beside())
}

/// Stores a finished object; nothing if something that goes along with it was changed by somebody else meanwhile.
async fn commit_new(
    call: &Call<'_>,
    name: &str,
    object: &Value,
    managed: Option<&str>,
    charged: &Charged,
) -> Result<Option<Bytes>, Failure> {
    let collection = call.collection()?;
    let facts = call.resource.ruling_facts()?;
    let path = call.path_of(name);
    let encoded = |managed: Option<&str>| entry::encode_apart(&collection.head, object, managed);
    if call.query.dry_run()? {
        return match collection.get(&path) {
            Some(_) => Err(Failure::already_exists(call.resource.about(name))),
            None => Ok(Some(encoded(managed))),
        };
    }
    let mut stored = encoded(managed);
    let along = || {
        let mut along = services::along(call.api, facts, None, Some(object));
        charged.join(&mut along);
        along
    };
    let put = |stored: Bytes| commit::put_along(call.api, collection, (&path, 0), stored, along());
    let mut committed = put(stored.clone()).await;
    // An object that is too large only with its owners goes without them.
    if commit::is_too_large(&committed) && managed.is_some() {
        stored = encoded(None);
        committed = put(stored.clone()).await;
    }
    match committed? {
        Committed::Done { revision } => Ok(Some(entry::with_revision(&collection.head, &stored, revision))),
        Committed::Conflict { .. } => Err(Failure::already_exists(call.resource.about(name))),
        Committed::Beside => Ok(None),
    }
}

/// What makes no sense in a new object.
fn check_new(call: &Call<'_>, object: &Value) -> Result<(), Failure> {
    let revision = tree::text(object, &["metadata", "resourceVersion"]);
    if !matches!(revision, "" | "0") {
        return Err(Failure::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let stated = tree::text(object, &["metadata", "namespace"]);
    match call.namespace {
        Some(namespace) if call.resource.facts.namespaced && !stated.is_empty() && stated != namespace => {
            let message =
                "the namespace of the provided object does not match the namespace sent on the request";
            Err(Failure::bad_request(message))
        }
        None if call.resource.facts.namespaced => Err(Failure::bad_request(
            "an empty namespace may not be set during creation",
        )),
        _ => Ok(()),
    }
}

/// The kind in which the collection's objects are stored.
pub(crate) fn stored_gvk(collection: &Collection) -> Gvk<'static> {
    let facts = collection.resource;
    Gvk {
        group: facts.group,
        version: facts.version,
        kind: facts.kind,
    }
}

/// The failure for an object with faults.
pub(crate) fn invalid(call: &Call<'_>, name: &str, causes: Vec<validation::Cause>) -> Failure {
    let causes = causes.into_iter().map(|cause| Cause {
        reason: cause.reason,
        message: cause.message,
        field: cause.field,
    });
    Failure::invalid(call.resource.about_kind(name), causes.collect())
}

/// Adds a `Warning` header for each text.
pub(crate) fn with_warnings(mut answer: Answer, warnings: &[String]) -> Answer {
    for warning in warnings {
        let escaped = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = http::HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            answer.headers_mut().append(http::header::WARNING, value);
        }
    }
    answer
}

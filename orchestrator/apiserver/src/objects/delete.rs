//! Deleting objects: at once, after a time, or once all finalizers are gone.
//!
//! ```text
//! present --DELETE--> gone                                     (no finalizers, no grace)
//! present --DELETE--> deleting --finalizers gone, grace 0--> gone
//! deleting --DELETE with a shorter grace--> deleting
//! ```

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use moorline_schema::{ResourceFacts, custom};
use serde_json::{Value, json};

use super::commit::{self, Committed};
use super::render::Renderer;
use super::select::Selector;
use super::{Call, admission, create, decode, metadata, services, strategy, tree, update};
use crate::cache::Entry;
use crate::cache::entry::{self, Apart};
use crate::hooks;
use crate::http::failure::{About, success};
use crate::http::{Answer, Cause, Failure, body, negotiation};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Upstream's words to those who delete a Job and say nothing of its pods.
const PODS_STAY: &str = "child pods are preserved by default when jobs are deleted; set \
    propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";
const ATTEMPTS_MAX: usize = 8;
/// Of a collection that is deleted.
const DELETES_AT_ONCE: usize = 16;

/// What becomes of the objects that belong to the deleted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

/// What a delete asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    grace_seconds: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    revision: Option<String>,
    dry_run: bool,
}

/// `DELETE` of one object.
pub(crate) async fn delete(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    let name = call.name()?;
    let options = options(call, body)?;
    let deleted = delete_named(call, name, &options).await?;
    let facts = call.resource.facts;
    let leaves_pods = options.propagation.is_none() && (facts.group, facts.plural) == ("batch", "jobs");
    let warnings: &[String] = if leaves_pods { &[PODS_STAY.to_owned()] } else { &[] };
    answer(call, name, deleted).map(|answer| create::with_warnings(answer, warnings))
}

/// `DELETE` of a collection.
pub(crate) async fn delete_collection(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    let options = options(call, body)?;
    let collection = call.collection()?;
    let selector = Selector::parse(call.query, &call.resource, collection)?;
    let snapshot = collection.snapshot(&call.path_prefix(), || call.api.caches.revision());
    let chosen = snapshot
        .entries
        .into_iter()
        .filter(|entry| selector.matches(entry));
    let mut deletes = futures::stream::iter(chosen.map(|entry| delete_entry(call, entry, &options)))
        .buffer_unordered(DELETES_AT_ONCE);
    while let Some(outcome) = deletes.next().await {
        match outcome {
            // Somebody else was faster.
            Err(failure) if failure.code() == StatusCode::NOT_FOUND => {}
            outcome => drop(outcome?),
        }
    }
    Ok(body::json(
        StatusCode::OK,
        &success(
            About {
                group: "",
                resource: "",
                name: "",
            },
            "",
        ),
    ))
}

async fn delete_entry(call: &Call<'_>, entry: Arc<Entry>, options: &Options) -> Result<Deleted, Failure> {
    let namespace = Some(entry.namespace()).filter(|namespace| !namespace.is_empty());
    let one = Call {
        namespace: call.namespace.or(namespace),
        name: Some(entry.name()),
        resource: call.resource.clone(),
        ..*call
    };
    delete_named(&one, entry.name(), options).await
}

/// What is left of a deleted object.
#[derive(Debug)]
pub(crate) struct Deleted {
    pub(crate) json: Bytes,
    pub(crate) uid: Box<str>,
    pub(crate) is_gone: bool,
}

/// Deletes one object.
pub(crate) async fn delete_named(call: &Call<'_>, name: &str, options: &Options) -> Result<Deleted, Failure> {
    admission::delete(call, name)?;
    let collection = call.collection()?;
    let path = call.path_of(name);
    let mut current = collection.get(&path).ok_or_else(|| call.not_found(name))?;
    let mut is_shown = false;
    for _ in 0..ATTEMPTS_MAX {
        check_preconditions(call, name, &current, options)?;
        let Apart {
            object: mut new,
            managed,
        } = current.apart();
        if !is_shown {
            hooks::delete(call, &new).await?;
            is_shown = true;
        }
        let changes = mark(call, &mut new, options, Timestamp::now());
        let is_gone = update::is_done(collection.resource, &new);
        let stored = entry::encode_apart(&collection.head, &new, managed);
        let deleted = |revision: u64| Deleted {
            json: entry::with_revision(&collection.head, &stored, revision),
            uid: current.facts.uid.clone(),
            is_gone,
        };
        if options.dry_run || (!changes && !is_gone) {
            return Ok(deleted(current.revision));
        }
        let committed = if is_gone {
            let along = services::along(call.api, collection.resource, Some(&new), None);
            commit::remove_along(call.api, collection, (&path, current.revision), along).await?
        } else {
            commit::put(call.api, collection, &path, stored.clone(), current.revision).await?
        };
        match committed {
            Committed::Done { revision } => return Ok(deleted(revision)),
            Committed::Conflict { current: None } => return Err(call.not_found(name)),
            Committed::Conflict { current: Some(newer) } => current = newer,
            Committed::Beside => {}
        }
    }
    Err(Failure::modified(call.resource.about(name)))
}

/// Marks an object for deletion; false if it says all that already.
fn mark(call: &Call<'_>, object: &mut Value, options: &Options, now: Timestamp) -> bool {
    let before = object.clone();
    let grace = strategy::grace_seconds(call.resource.facts, object, options.grace_seconds).max(0);
    let marked = tree::at(object, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    let was_deleting = metadata::is_deleting(object);
    // A second request can only make it faster.
    if !was_deleting || marked.is_some_and(|marked| grace < marked) {
        let end = now + SignedDuration::from_secs(grace);
        let metadata = tree::map_mut(object, &["metadata"]);
        metadata.insert("deletionTimestamp".to_owned(), tree::time(end));
        metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        if metadata.contains_key("generation") {
            metadata::raise_generation(object);
        }
    }
    set_finalizers(object, propagation(call.resource.facts, object, options));
    let facts = call.resource.facts;
    if (facts.group, facts.plural) == (custom::GROUP, custom::DEFINITIONS) && !was_deleting {
        strategy::definition::mark_deleted(object);
    }
    if facts.group.is_empty() && facts.plural == "namespaces" && !was_deleting {
        tree::map_mut(object, &["status"]).insert("phase".to_owned(), json!("Terminating"));
    }
    *object != before
}

/// What becomes of the dependents: what the request says, else what the object says, else what its kind does.
fn propagation(facts: &ResourceFacts, object: &Value, options: &Options) -> Option<Propagation> {
    let finalizers = tree::list(object, &["metadata", "finalizers"]);
    let is_settled = finalizers.iter().any(|one| one == FOREGROUND || one == ORPHAN);
    let leaves_orphans = !is_settled && strategy::leaves_orphans(facts);
    options
        .propagation
        .or(leaves_orphans.then_some(Propagation::Orphan))
}

/// Both ways of treating dependents are finalizers that the garbage collector takes away.
fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut finalizers: Vec<Value> = tree::list(object, &["metadata", "finalizers"]).to_vec();
    finalizers.retain(|one| one != FOREGROUND && one != ORPHAN);
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(json!(FOREGROUND)),
        Propagation::Orphan => finalizers.push(json!(ORPHAN)),
    }
    let metadata = tree::map_mut(object, &["metadata"]);
    tree::set(
        metadata,
        "finalizers",
        (!finalizers.is_empty()).then_some(Value::Array(finalizers)),
    );
}

fn check_preconditions(
    call: &Call<'_>,
    name: &str,
    current: &Entry,
    options: &Options,
) -> Result<(), Failure> {
    let conflict = |what: &str, wanted: &str, found: &str| {
        let why =
            format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
        Failure::conflict(call.resource.about(name), &why).with_uid(&current.facts.uid)
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| **uid != *current.facts.uid) {
        return Err(conflict("UID", uid, &current.facts.uid));
    }
    let revision = current.revision.to_string();
    if let Some(wanted) = options.revision.as_deref().filter(|wanted| **wanted != *revision) {
        return Err(conflict("ResourceVersion", wanted, &revision));
    }
    Ok(())
}

fn answer(call: &Call<'_>, name: &str, deleted: Deleted) -> Result<Answer, Failure> {
    if deleted.is_gone && !strategy::is_shown_when_deleted(call.resource.facts) {
        return Ok(body::json(
            StatusCode::OK,
            &success(call.resource.about(name), &deleted.uid),
        ));
    }
    let renderer = Renderer::new(call.resource.clone(), call.form, call.query)?;
    Ok(renderer.answer(StatusCode::OK, &deleted.json, Timestamp::now()))
}

/// Reads the options from the body and, where that says nothing, from the parameters.
pub(crate) fn options(call: &Call<'_>, body: &Bytes) -> Result<Options, Failure> {
    let stated = if body.is_empty() {
        Value::Null
    } else {
        decode_options(call, body)?
    };
    options_of(&stated, call)
}

fn decode_options(call: &Call<'_>, body: &Bytes) -> Result<Value, Failure> {
    let form = negotiation::body_form(call.header(header::CONTENT_TYPE))?;
    let type_id = call.api.registry.type_by_id("meta/v1.DeleteOptions");
    let type_id = type_id.ok_or_else(|| Failure::internal("DeleteOptions is unknown"))?;
    // Clients write several versions; the fields are the same in all.
    let stated = |text: &[u8]| {
        moorline_schema::decode::type_meta(text)
            .map(|meta| meta.api_version)
            .unwrap_or_default()
    };
    let api_version = match form {
        negotiation::BodyForm::Protobuf => String::new(),
        _ => stated(body),
    };
    let expected = decode::Expected {
        type_id,
        api_version,
        kind: "DeleteOptions",
    };
    if form == negotiation::BodyForm::Protobuf {
        let decoded = moorline_schema::decode::protobuf(call.api.registry, body);
        return decoded
            .map(|(_, _, value)| value)
            .map_err(|error| Failure::bad_request(error.to_string()));
    }
    decode::typed(
        call.api.registry,
        &expected,
        form,
        body,
        decode::strictness(call.query)?,
    )
    .map(|body| body.value)
}

/// Options from a decoded body and the request's parameters.
pub(crate) fn options_of(stated: &Value, call: &Call<'_>) -> Result<Options, Failure> {
    let query = call.query;
    let grace = tree::at(stated, &["gracePeriodSeconds"]).and_then(Value::as_i64);
    let grace_seconds = grace.or(query.number("gracePeriodSeconds")?);
    if grace_seconds.is_some_and(|seconds| seconds < 0) {
        return Err(invalid_option(
            "gracePeriodSeconds",
            "Invalid value: must be greater than or equal to 0",
        ));
    }
    let orphan = tree::at(stated, &["orphanDependents"]).and_then(Value::as_bool);
    let orphan = orphan.or(query.optional_flag("orphanDependents")?);
    let policy = match tree::text(stated, &["propagationPolicy"]) {
        "" => query.get("propagationPolicy").unwrap_or_default(),
        policy => policy,
    };
    let propagation = match (policy, orphan) {
        ("", None) => None,
        ("", Some(true)) | ("Orphan", None) => Some(Propagation::Orphan),
        ("", Some(false)) | ("Background", None) => Some(Propagation::Background),
        ("Foreground", None) => Some(Propagation::Foreground),
        ("Orphan" | "Background" | "Foreground", Some(_)) => {
            let why = "Invalid value: orphanDependents and deletionPropagation cannot be both set";
            return Err(invalid_option("propagationPolicy", why));
        }
        _ => {
            let why = "Unsupported value: supported values: \"Background\", \"Foreground\", \"Orphan\"";
            return Err(invalid_option("propagationPolicy", why));
        }
    };
    let dry_run = tree::list(stated, &["dryRun"]).iter().any(|value| value == "All") || query.dry_run()?;
    let condition = |name: &str| {
        tree::at(stated, &["preconditions", name])
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    Ok(Options {
        grace_seconds,
        propagation,
        uid: condition("uid"),
        revision: condition("resourceVersion"),
        dry_run,
    })
}

fn invalid_option(field: &str, message: &str) -> Failure {
    let about = About {
        group: "meta.k8s.io",
        resource: "DeleteOptions",
        name: "",
    };
    let cause = Cause {
        reason: "FieldValueInvalid",
        message: message.to_owned(),
        field: field.to_owned(),
    };
    Failure::invalid(about, vec![cause])
}

//! Changing objects: read, make the new state, check it, compare and swap; again if somebody was faster.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use moorline_schema::ResourceFacts;
use moorline_schema::managed_fields::Live;
use serde_json::Value;

use super::commit::{self, Committed};
use super::create::{self, invalid};
use super::owners::{self, Owners};
use super::quotas::{self, Charged};
use super::render::Renderer;
use super::strategy::Endpoint;
use super::{Call, admission, decode, forms, metadata, rules, services, strategy, tree};
use crate::cache::Entry;
use crate::cache::entry::{self, Apart};
use crate::hooks::{self, Operation};
use crate::http::{Answer, Failure};

/// A change that rests on what the server read itself is tried so often.
const ATTEMPTS_MAX: usize = 8;

/// A new state somebody asks for.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// In the form in which the resource is served.
    pub(crate) value: Value,
    pub(crate) owners: Owners,
    pub(crate) warnings: Vec<String>,
}

/// What a change led to.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) json: Bytes,
    pub(crate) warnings: Vec<String>,
}

/// `PUT` of an object or its status.
pub(crate) async fn update(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    let name = call.name()?;
    let mut decoded = decode::object(call, body)?;
    check_names(call, name, &decoded.value)?;
    let owners = Owners::of(&mut decoded.value);
    let renderer = Renderer::new(call.resource.clone(), call.form, call.query)?;
    let facts = call.resource.facts;
    let is_missing = call.collection()?.get(&call.path_of(name)).is_none();
    if is_missing && call.subresource.is_none() && strategy::is_created_by_update(facts) {
        let revision = tree::text(&decoded.value, &["metadata", "resourceVersion"]);
        // A revision says that the client changes something that was there.
        if matches!(revision, "" | "0") {
            let json = create::store_new(call, decoded.value, owners).await?;
            let answer = renderer.answer(StatusCode::CREATED, &json, Timestamp::now());
            return Ok(create::with_warnings(answer, &decoded.warnings));
        }
    }
    let changed = change(call, name, |_| {
        Ok(Proposal {
            value: decoded.value.clone(),
            owners: owners.clone(),
            warnings: decoded.warnings.clone(),
        })
    })
    .await?;
    let answer = renderer.answer(StatusCode::OK, &changed.json, Timestamp::now());
    Ok(create::with_warnings(answer, &changed.warnings))
}

/// Changes an object to what `propose` makes of its state, which is given as served, apart from its owners. A revision in
/// the proposal other than the object's is a conflict.
pub(crate) async fn change(
    call: &Call<'_>,
    name: &str,
    propose: impl Fn(Live<'_>) -> Result<Proposal, Failure>,
) -> Result<Changed, Failure> {
    let collection = call.collection()?;
    let path = call.path_of(name);
    let mut current = collection.get(&path).ok_or_else(|| call.not_found(name))?;
    for _ in 0..ATTEMPTS_MAX {
        let Apart { object, managed } = current.apart();
        let served = call.resource.served(&object);
        let seen = Live {
            object: &served,
            managed,
        };
        let proposal = propose(seen)?;
        check_names(call, name, &proposal.value)?;
        check_preconditions(call, &current, &proposal.value)?;
        let is_pinned = is_pinned(&proposal.value, &served);
        // Custom objects are held to the rules of the version they are written in, others to those of their stored form.
        let new = if call.resource.is_converted() {
            let old = Live {
                object: &object,
                managed,
            };
            let value = forms::to_stored(collection.resource, proposal.value);
            finish(call, name, old, value, proposal.owners).await?
        } else {
            finish(call, name, seen, proposal.value, proposal.owners).await?
        };
        match store(call, &current, &new).await? {
            Stored::Done(json) => {
                return Ok(Changed {
                    json,
                    warnings: proposal.warnings,
                });
            }
            Stored::Conflict(_) if is_pinned => return Err(Failure::modified(call.resource.about(name))),
            Stored::Conflict(None) => return Err(call.not_found(name)),
            Stored::Conflict(Some(newer)) => current = newer,
            Stored::Beside => {}
        }
    }
    Err(Failure::modified(call.resource.about(name)))
}

/// Whether the client itself named the revision: then nobody else may decide to try again.
fn is_pinned(proposed: &Value, served: &Value) -> bool {
    let revision = |object: &Value| tree::text(object, &["metadata", "resourceVersion"]).to_owned();
    // A patch that says nothing carries the revision of what it was applied to; this is told apart by `patch`.
    !revision(proposed).is_empty() && revision(proposed) == revision(served)
}

enum Stored {
    Done(Bytes),
    Conflict(Option<Arc<Entry>>),
    /// Something that goes along with it was changed by somebody else meanwhile.
    Beside,
}

async fn store(call: &Call<'_>, current: &Entry, new: &Finished) -> Result<Stored, Failure> {
    let collection = call.collection()?;
    let mut stored = entry::encode_apart(&collection.head, &new.object, new.managed.as_deref());
    let same = entry::with_revision(&collection.head, &stored, current.revision);
    if (same == current.json && !current.is_stale) || call.query.dry_run()? {
        return Ok(Stored::Done(same));
    }
    let (api, path, revision) = (call.api, &current.path, current.revision);
    let is_done = is_done(collection.resource, &new.object);
    let along = || {
        let after = (!is_done).then_some(&new.object);
        let mut along = services::along(api, collection.resource, new.before.as_ref(), after);
        new.charged.join(&mut along);
        along
    };
    let at = (&**path, revision);
    let mut committed = if is_done {
        commit::remove_along(api, collection, at, along()).await
    } else {
        commit::put_along(api, collection, at, stored.clone(), along()).await
    };
    // An object that is too large only with its owners goes without them.
    if commit::is_too_large(&committed) && new.managed.is_some() {
        stored = entry::encode_apart(&collection.head, &new.object, None);
        committed = commit::put_along(api, collection, at, stored.clone(), along()).await;
    }
    Ok(match committed? {
        Committed::Done { revision } => {
            Stored::Done(entry::with_revision(&collection.head, &stored, revision))
        }
        Committed::Conflict { current } => Stored::Conflict(current),
        Committed::Beside => Stored::Beside,
    })
}

/// Whether nothing holds the object any more: its deletion was asked for, its time is over, its finalizers are gone.
pub(crate) fn is_done(facts: &ResourceFacts, object: &Value) -> bool {
    let grace = tree::at(object, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    let holds_content = facts.group.is_empty()
        && facts.plural == "namespaces"
        && !tree::list(object, &["spec", "finalizers"]).is_empty();
    metadata::is_deleting(object)
        && grace.unwrap_or(0) == 0
        && tree::list(object, &["metadata", "finalizers"]).is_empty()
        && !holds_content
}

/// A state that may be stored.
struct Finished {
    object: Value,
    managed: Option<String>,
    /// The state before, where more than the object itself has to follow.
    before: Option<Value>,
    /// Held until the object is stored.
    _numbers: services::Held,
    /// What is used of quotas.
    charged: Charged,
}

/// Completes and checks a proposed state. `old` and `new` are in the form whose rules hold.
async fn finish(
    call: &Call<'_>,
    name: &str,
    seen: Live<'_>,
    mut new: Value,
    owners: Owners,
) -> Result<Finished, Failure> {
    let old = seen.object;
    let facts = call.resource.ruling_facts()?;
    let causes = metadata::fill_update(&mut new, old);
    if !causes.is_empty() {
        return Err(Failure::invalid(call.resource.about_kind(name), causes));
    }
    rules::complete(call, &mut new)?;
    let managed = owners::after(call, owners, Some(seen), &new)?;
    let endpoint = match call.subresource.map(|sub| sub.name) {
        Some("status") => Endpoint::Status,
        Some("approval") => Endpoint::Approval,
        Some("binding") => Endpoint::Binding,
        _ => Endpoint::Main,
    };
    // Bindings were shown when they were made.
    let is_shown = endpoint != Endpoint::Binding;
    if is_shown && hooks::mutate(call, Operation::Update, Some(old), Some(&mut new)).await? {
        rules::complete(call, &mut new)?;
    }
    strategy::prepare_update(facts, endpoint, old, &mut new);
    let numbers = services::assign(call, Some(old), &mut new).await?;
    admission::update(call, old, &new)?;
    let managed = owners::without_idle_times(seen, &new, managed);
    let causes = match endpoint {
        Endpoint::Main | Endpoint::Status | Endpoint::Approval => {
            rules::check_change(call, endpoint, old, &new).await?
        }
        // All that a binding changes was checked with the binding.
        Endpoint::Binding => Vec::new(),
    };
    if causes.is_empty() {
        admission::check(call, Some(old), &new)?;
        if is_shown {
            hooks::validate(call, Operation::Update, Some(old), Some(&new)).await?;
        }
        let charged = quotas::charge(call, Some(old), &new).await?;
        Ok(Finished {
            charged,
            object: new,
            managed,
            before: services::is_service(facts).then(|| old.clone()),
            _numbers: numbers,
        })
    } else {
        Err(invalid(call, name, causes))
    }
}

fn check_names(call: &Call<'_>, name: &str, object: &Value) -> Result<(), Failure> {
    let stated = tree::text(object, &["metadata", "name"]);
    if stated != name {
        let message =
            format!("the name of the object ({stated}) does not match the name on the URL ({name})");
        return Err(Failure::bad_request(message));
    }
    let stated = tree::text(object, &["metadata", "namespace"]);
    let is_other = call
        .namespace
        .is_some_and(|namespace| !stated.is_empty() && stated != namespace);
    if is_other && call.resource.facts.namespaced {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Failure::bad_request(message));
    }
    Ok(())
}

/// A revision or uid in the new state must be the object's.
fn check_preconditions(call: &Call<'_>, current: &Entry, object: &Value) -> Result<(), Failure> {
    let about = call.resource.about(call.name.unwrap_or_default());
    let revision = tree::text(object, &["metadata", "resourceVersion"]);
    if !matches!(revision, "" | "0") && revision != current.revision.to_string() {
        return Err(Failure::modified(about));
    }
    let uid = tree::text(object, &["metadata", "uid"]);
    if !uid.is_empty() && uid != &*current.facts.uid {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            current.facts.uid
        );
        return Err(Failure::conflict(about, &why).with_uid(uid));
    }
    Ok(())
}

//! Gets and lists, from the caches; pages of an older state from the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use moorline_store::{Range, Revision, StoreError};

use super::Call;
use super::list_options::{self, Continue, ListState};
use super::render::{ListMetadata, Renderer};
use super::select::Selector;
use crate::cache::{Collection, Entry};
use crate::http::{Answer, Failure};

/// How long a read waits for a revision that the client has seen elsewhere.
const REVISION_WAIT_MAX: Duration = Duration::from_secs(3);

/// One object.
pub(crate) async fn get(call: &Call<'_>) -> Result<Answer, Failure> {
    let name = call.name()?;
    if let Some(revision) = call.query.number::<u64>("resourceVersion")? {
        wait_for(call, revision).await?;
    }
    let entry = call
        .collection()?
        .get(&call.path_of(name))
        .ok_or_else(|| call.not_found(name))?;
    let renderer = Renderer::new(call.resource.clone(), call.form, call.query)?;
    Ok(renderer.answer(StatusCode::OK, &entry.json, Timestamp::now()))
}

/// A collection, or a part of it.
pub(crate) async fn list(call: &Call<'_>) -> Result<Answer, Failure> {
    let collection = Arc::clone(call.collection()?);
    let limit = call.query.number::<u64>("limit")?.filter(|&limit| limit > 0);
    let state = list_options::list_state(call.query, limit)?;
    let selector = Selector::parse(call.query, &call.resource, &collection)?;
    let renderer = Renderer::new(call.resource.clone(), call.form, call.query)?;
    // A list of any state is served whole, as upstream does from its cache.
    let limit = limit
        .filter(|_| state != ListState::Any)
        .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let read = read(call, &collection, state).await?;
    let page = page(call, &read, &selector, limit);
    Ok(renderer.list(page.0.iter().map(Arc::as_ref), &page.1, Timestamp::now()))
}

/// All objects from some path on, at one revision.
struct Read {
    entries: Vec<Arc<Entry>>,
    revision: u64,
}

/// Cuts out what matches, up to the limit, and says how to go on.
fn page(
    call: &Call<'_>,
    read: &Read,
    selector: &Selector,
    limit: Option<usize>,
) -> (Vec<Arc<Entry>>, ListMetadata) {
    let mut metadata = ListMetadata {
        revision: read.revision,
        ..ListMetadata::default()
    };
    let mut matching = read.entries.iter().filter(|entry| selector.matches(entry));
    let Some(limit) = limit else {
        return (matching.cloned().collect(), metadata);
    };
    let found: Vec<Arc<Entry>> = matching.by_ref().take(limit).cloned().collect();
    let rest = matching.count();
    if let (Some(last), true) = (found.last(), rest > 0) {
        let start = format!("{}\0", &last.path[call.path_prefix().len()..]);
        metadata.continue_token = Some(
            Continue {
                revision: Some(read.revision),
                start,
            }
            .encode(),
        );
        metadata.remaining = selector.is_empty().then_some(rest as u64);
    }
    (found, metadata)
}

async fn read(call: &Call<'_>, collection: &Collection, state: ListState) -> Result<Read, Failure> {
    let prefix = call.path_prefix();
    match state {
        ListState::Newest | ListState::Any => Ok(from_cache(call, collection, &prefix, "")),
        ListState::NotOlderThan(revision) => {
            wait_for(call, revision).await?;
            Ok(from_cache(call, collection, &prefix, ""))
        }
        ListState::Exact(revision) => {
            wait_for(call, revision).await?;
            at_revision(call, collection, revision, "").await
        }
        ListState::Continue(Continue {
            revision: Some(revision),
            start,
        }) => at_revision(call, collection, revision, &start).await,
        ListState::Continue(Continue {
            revision: None,
            start,
        }) => Ok(from_cache(call, collection, &prefix, &start)),
    }
}

fn from_cache(call: &Call<'_>, collection: &Collection, prefix: &str, start: &str) -> Read {
    let snapshot = collection.snapshot(prefix, || call.api.caches.revision());
    let first = format!("{prefix}{start}");
    let mut entries = snapshot.entries;
    let skip = entries.partition_point(|entry| *entry.path < *first);
    entries.drain(..skip);
    Read {
        entries,
        revision: snapshot.revision,
    }
}

/// The state at a revision: the cache's if nothing changed since, else the store's.
async fn at_revision(
    call: &Call<'_>,
    collection: &Collection,
    revision: u64,
    start: &str,
) -> Result<Read, Failure> {
    let prefix = call.path_prefix();
    let current = from_cache(call, collection, &prefix, start);
    if collection.revision() <= revision && current.revision >= revision {
        return Ok(Read { revision, ..current });
    }
    let whole = Range::prefix(format!("{}{prefix}", collection.prefix).as_bytes());
    let start = Bytes::from(format!("{}{prefix}{start}", collection.prefix));
    let range = Range {
        start: start.clone(),
        at: Some(Revision(revision)),
        ..whole
    };
    let found = match call.api.store.range(range).await {
        Ok(found) => found,
        Err(StoreError::Compacted { .. }) => return Err(expired(&start, collection, &prefix)),
        Err(StoreError::FutureRevision { .. }) => {
            return Err(Failure::revision_too_large(revision, call.api.caches.revision()));
        }
        Err(error) => return Err(error.into()),
    };
    let entries = found.kvs.iter().filter_map(|kv| {
        let path = std::str::from_utf8(&kv.key)
            .ok()?
            .strip_prefix(&*collection.prefix)?;
        Some(Arc::new(collection.entry(path, &kv.value, kv.mod_revision.0)))
    });
    Ok(Read {
        entries: entries.collect(),
        revision,
    })
}

fn expired(start: &[u8], collection: &Collection, prefix: &str) -> Failure {
    let skip = collection.prefix.len() + prefix.len();
    let start = String::from_utf8_lossy(&start[skip..]).into_owned();
    if start.is_empty() {
        return Failure::expired("The resourceVersion for the provided list is too old.");
    }
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                   list without the continue parameter, or use the continue token in this response to retrieve the \
                   remainder of the results. Continuing with the provided token results in an inconsistent list.";
    Failure::expired(message).with_continue(
        Continue {
            revision: None,
            start,
        }
        .encode(),
    )
}

/// Waits until a revision is known here.
pub(crate) async fn wait_for(call: &Call<'_>, revision: u64) -> Result<(), Failure> {
    if call.api.caches.reached(revision, REVISION_WAIT_MAX).await {
        return Ok(());
    }
    Err(Failure::revision_too_large(revision, call.api.caches.revision()))
}

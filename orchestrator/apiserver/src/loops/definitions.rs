//! Gives definitions their names, serves what is established, and empties what is deleted.
//!
//! ```text
//! new --names free--> established (served) --DELETE--> terminating --instances gone--> gone
//!  \--names taken--> not accepted
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use moorline_schema::Registry;
use moorline_schema::custom::{CLEANUP_FINALIZER, DEFINITIONS, Definition, GROUP, naming};
use serde_json::{Value, json};

use super::Caller;
use crate::cache::{Caches, Collection};
use crate::http::Failure;
use crate::objects::{metadata, tree};

/// Changes are gathered for so long before deleted definitions are looked at again.
const GATHER_INTERVAL: Duration = Duration::from_millis(20);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Instances that are deleted at a time.
const DELETES_AT_ONCE: usize = 16;

/// Works on all definitions, for as long as it is polled.
pub(crate) async fn run(caller: Caller) {
    let Ok(definitions) = caller.collection(GROUP, DEFINITIONS) else {
        return;
    };
    let mut changed = definitions.subscribe();
    let mut any_change = caller.api.caches.follow();
    loop {
        changed.borrow_and_update();
        any_change.borrow_and_update();
        let (failed, waits) = match round(&caller, &definitions).await {
            Ok(waits) => (false, waits),
            // Somebody else was faster: that change is looked at next.
            Err(failure) if matches!(failure.code().as_u16(), 404 | 409) => (false, false),
            Err(failure) => {
                tracing::warn!(%failure, "A definition cannot be worked on; it is tried again.");
                (true, false)
            }
        };
        if failed {
            tokio::time::sleep(RETRY_INTERVAL).await;
        } else if waits {
            any_change.changed().await.ok();
            tokio::time::sleep(GATHER_INTERVAL).await;
        } else {
            changed.changed().await.ok();
        }
    }
}

/// The definitions that were established before a start.
pub(crate) fn established(registry: &Registry, caches: &Caches) -> Vec<Value> {
    let facts = registry.resource(GROUP, "v1", DEFINITIONS);
    let stored = facts.and_then(|facts| caches.collection(facts));
    let entries = stored.map(|stored| stored.snapshot("", || 0).entries);
    let objects = entries.into_iter().flatten().map(|entry| entry.value());
    objects
        .filter(|object| naming::is_true(object, "Established"))
        .collect()
}

/// Looks at all definitions once. True if some wait for their instances to go.
async fn round(caller: &Caller, definitions: &Collection) -> Result<bool, Failure> {
    let mut objects: Vec<Value> = definitions
        .snapshot("", || 0)
        .entries
        .iter()
        .map(|entry| entry.value())
        .collect();
    // The older one keeps a name that two want.
    objects.sort_by_key(|object| {
        let accepted = naming::is_true(object, "NamesAccepted");
        let created = tree::text(object, &["metadata", "creationTimestamp"]).to_owned();
        (
            !accepted,
            created,
            tree::text(object, &["metadata", "name"]).to_owned(),
        )
    });
    let now = tree::time(Timestamp::now());
    let mut changed = Vec::new();
    for index in 0..objects.len() {
        if metadata::is_deleting(&objects[index]) {
            continue;
        }
        let status = status_of(&objects, index, now.as_str().unwrap_or_default());
        if objects[index]["status"] != status {
            objects[index]["status"] = status;
            changed.push(index);
        }
    }
    let established: Vec<Value> = objects
        .iter()
        .filter(|object| naming::is_true(object, "Established"))
        .cloned()
        .collect();
    let api = &caller.api;
    api.customs
        .serve(api.registry, &api.caches, &*api.store, &established)
        .await?;
    for index in changed {
        write_status(caller, definitions, &objects[index]).await?;
    }
    let mut waits = false;
    for object in objects.iter().filter(|object| metadata::is_deleting(object)) {
        waits |= !empty(caller, definitions, object).await?;
    }
    Ok(waits)
}

fn status_of(objects: &[Value], index: usize, now: &str) -> Value {
    let object = &objects[index];
    let others: Vec<&Value> = objects
        .iter()
        .enumerate()
        .filter(|(other, one)| *other != index && one["spec"]["group"] == object["spec"]["group"])
        .map(|(_, one)| one)
        .collect();
    let failure = Definition::read(object).err().map(|error| error.to_string());
    naming::status(object, &others, failure.as_deref(), now)
}

async fn write_status(caller: &Caller, definitions: &Collection, object: &Value) -> Result<(), Failure> {
    let name = tree::text(object, &["metadata", "name"]);
    caller
        .subresource(definitions.resource, name, "status", "update", object.clone())
        .await
        .map(drop)
}

/// Deletes the instances of a deleted definition, and lets it go once there are none; true if it is let go.
async fn empty(caller: &Caller, definitions: &Collection, object: &Value) -> Result<bool, Failure> {
    let name = tree::text(object, &["metadata", "name"]);
    let finalizers = tree::list(object, &["metadata", "finalizers"]);
    if !finalizers.contains(&json!(CLEANUP_FINALIZER)) {
        return Ok(true);
    }
    // It takes nothing new any more: it was served as terminating above.
    if let Some(instances) = caller.api.customs.served().stored(name) {
        delete_all(caller, &instances).await?;
        if instances.has_any("") {
            report(caller, definitions, object).await?;
            return Ok(false);
        }
    }
    caller
        .change(definitions.resource, name, |value| {
            let metadata = tree::map_mut(value, &["metadata"]);
            metadata.remove("resourceVersion");
            if let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
                list.retain(|one| *one != json!(CLEANUP_FINALIZER));
            }
        })
        .await?;
    Ok(true)
}

async fn delete_all(caller: &Caller, instances: &Arc<Collection>) -> Result<(), Failure> {
    let entries = instances.snapshot("", || 0).entries.into_iter();
    let deletes = entries
        .filter(|entry| !entry.facts.is_deleting)
        .map(|entry| async move {
            caller
                .delete(
                    instances.resource,
                    &entry.path,
                    Some(&*entry.facts.uid),
                    Some("Background"),
                )
                .await
        });
    let mut outcomes = futures::stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE);
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            // Gone or made anew meanwhile: the next round sees it.
            Err(failure) if !matches!(failure.code().as_u16(), 404 | 409) => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

/// Says in the definition's conditions that instances are still there.
async fn report(caller: &Caller, definitions: &Collection, object: &Value) -> Result<(), Failure> {
    let mut object = object.clone();
    let before = object["status"].clone();
    let message = "CustomResource deletion is in progress".to_owned();
    let condition = ("Terminating", true, "InstanceDeletionInProgress", message);
    let now = tree::time(Timestamp::now());
    naming::set_condition(&mut object["status"], condition, now.as_str().unwrap_or_default());
    if object["status"] == before {
        return Ok(());
    }
    write_status(caller, definitions, &object).await
}

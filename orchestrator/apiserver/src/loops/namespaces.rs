//! Empties namespaces that are deleted, then lets them go.
//!
//! ```text
//! Terminating --delete content--> content left (finalizers, pods ending) --it goes--> empty --finalize--> gone
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::Caller;
use crate::cache::{Collection, Entry};
use crate::http::Failure;
use crate::objects::tree;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Changes are gathered for so long before the namespaces are looked at again.
const GATHER_INTERVAL: Duration = Duration::from_millis(20);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Objects that are deleted at a time.
const DELETES_AT_ONCE: usize = 16;

/// Works on all deleted namespaces, for as long as it is polled.
pub(crate) async fn run(caller: Caller) {
    let Ok(namespaces) = caller.collection("", "namespaces") else {
        return;
    };
    let mut changed = namespaces.subscribe();
    let mut any_change = caller.api.caches.follow();
    loop {
        changed.borrow_and_update();
        any_change.borrow_and_update();
        let deleted = namespaces
            .snapshot("", || 0)
            .entries
            .into_iter()
            .filter(|entry| entry.facts.is_deleting);
        let deleted: Vec<Arc<Entry>> = deleted.collect();
        let mut failed = false;
        for namespace in &deleted {
            if let Err(failure) = empty(&caller, namespace).await {
                let is_race = matches!(failure.code().as_u16(), 404 | 409);
                failed |= !is_race;
                if !is_race {
                    tracing::warn!(namespace = namespace.name(), %failure, "A namespace cannot be emptied; it is tried again.");
                }
            }
        }
        let wait = async {
            if deleted.is_empty() {
                changed.changed().await.ok();
            } else if failed {
                tokio::time::sleep(RETRY_INTERVAL).await;
            } else {
                any_change.changed().await.ok();
                tokio::time::sleep(GATHER_INTERVAL).await;
            }
        };
        wait.await;
    }
}

async fn empty(caller: &Caller, namespace: &Entry) -> Result<(), Failure> {
    let prefix = format!("{}/", namespace.name());
    let collections: Vec<Arc<Collection>> = caller.api.caches.all();
    for collection in collections
        .iter()
        .filter(|collection| collection.resource.namespaced)
    {
        delete_content(caller, collection, &prefix).await?;
    }
    let left: Vec<Arc<Collection>> = collections
        .into_iter()
        .filter(|collection| collection.resource.namespaced && collection.has_any(&prefix))
        .collect();
    if left.is_empty() {
        return finalize(caller, namespace).await;
    }
    report(caller, namespace, &left, &prefix).await
}

async fn delete_content(caller: &Caller, collection: &Collection, prefix: &str) -> Result<(), Failure> {
    use futures::StreamExt;
    let entries = collection.snapshot(prefix, || 0).entries.into_iter();
    let entries = entries.filter(|entry| !entry.facts.is_deleting);
    let deletes = entries.map(|entry| async move {
        caller
            .delete(
                collection.resource,
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

async fn finalize(caller: &Caller, namespace: &Entry) -> Result<(), Failure> {
    let mut value = namespace.value();
    let finalizers = tree::list(&value, &["spec", "finalizers"])
        .iter()
        .filter(|one| **one != json!("kubernetes"));
    let finalizers: Vec<Value> = finalizers.cloned().collect();
    tree::map_mut(&mut value, &["spec"]).insert("finalizers".to_owned(), finalizers.into());
    tree::map_mut(&mut value, &["metadata"]).remove("resourceVersion");
    let facts = caller.collection("", "namespaces")?.resource;
    caller
        .subresource(facts, &namespace.path, "finalize", "update", value)
        .await
        .map(drop)
}

/// Says in the namespace's conditions what is left in it.
async fn report(
    caller: &Caller,
    namespace: &Entry,
    left: &[Arc<Collection>],
    prefix: &str,
) -> Result<(), Failure> {
    let counts = left
        .iter()
        .map(|collection| (collection.resource, collection.snapshot(prefix, || 0).entries));
    let counts: Vec<_> = counts.collect();
    let resources: Vec<String> = counts
        .iter()
        .map(|(facts, entries)| {
            let dot = if facts.group.is_empty() { "" } else { "." };
            format!(
                "{}{dot}{} has {} resource instances",
                facts.plural,
                facts.group,
                entries.len()
            )
        })
        .collect();
    let mut finalizers: Vec<&str> = counts
        .iter()
        .flat_map(|(_, entries)| entries)
        .flat_map(|entry| entry.facts.finalizers.iter().map(|one| &**one))
        .collect();
    finalizers.sort_unstable();
    finalizers.dedup();
    let conditions = conditions(&resources, &finalizers);
    let mut value = namespace.value();
    let same = |old: &[Value]| {
        let plain = |list: &[Value]| -> Vec<(String, String)> {
            list.iter()
                .map(|one| {
                    (
                        tree::text(one, &["type"]).to_owned(),
                        tree::text(one, &["message"]).to_owned(),
                    )
                })
                .collect()
        };
        plain(old) == plain(&conditions)
    };
    if same(tree::list(&value, &["status", "conditions"])) {
        return Ok(());
    }
    tree::map_mut(&mut value, &["status"]).insert("conditions".to_owned(), conditions.into());
    tree::map_mut(&mut value, &["metadata"]).remove("resourceVersion");
    let facts = caller.collection("", "namespaces")?.resource;
    caller
        .subresource(facts, &namespace.path, "status", "update", value)
        .await
        .map(drop)
}

fn conditions(resources: &[String], finalizers: &[&str]) -> Vec<Value> {
    let now = tree::time(Timestamp::now());
    let condition = |kind: &str, status: bool, reason: &str, message: String| {
        let status = if status { "True" } else { "False" };
        json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now })
    };
    let remaining = format!("Some resources are remaining: {}", resources.join(", "));
    let (holds, held) = if finalizers.is_empty() {
        (false, "All content-preserving finalizers finished".to_owned())
    } else {
        (
            true,
            format!(
                "Some content in the namespace has finalizers remaining: {}",
                finalizers.join(", ")
            ),
        )
    };
    let held_reason = if holds {
        "SomeFinalizersRemain"
    } else {
        "ContentHasNoFinalizers"
    };
    vec![
        condition(
            "NamespaceContentRemaining",
            true,
            "SomeResourcesRemain",
            remaining,
        ),
        condition("NamespaceFinalizersRemaining", holds, held_reason, held),
    ]
}

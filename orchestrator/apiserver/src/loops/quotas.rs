//! Counts what is used of quotas: when they are made or changed, and whenever something they count was written or went.

use std::collections::HashMap;
use std::time::Duration;

use super::Caller;
use crate::cache::entry::Apart;
use crate::cache::{Collection, Entry};
use crate::http::Failure;
use crate::objects::{commit, quotas};

/// Changes are gathered for so long before quotas are counted anew.
const GATHER_INTERVAL: Duration = Duration::from_millis(50);
/// Pods whose time to end is over are found after so long.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(60);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What was counted: the quota's revision and those of the collections it counts.
type Seen = HashMap<String, Vec<u64>>;

/// Counts for as long as it is polled.
pub(crate) async fn run(caller: Caller) {
    let Ok(quotas) = caller.collection("", "resourcequotas") else {
        return;
    };
    let mut own = quotas.subscribe();
    let mut any = caller.api.caches.follow();
    let mut seen = Seen::new();
    loop {
        own.borrow_and_update();
        any.borrow_and_update();
        if quotas.len() == 0 {
            seen.clear();
            own.changed().await.ok();
            continue;
        }
        if let Err(failure) = round(&caller, &quotas, &mut seen).await {
            tracing::warn!(%failure, "A quota cannot be counted; it is tried again.");
            tokio::time::sleep(RETRY_INTERVAL).await;
            continue;
        }
        match tokio::time::timeout(RECOUNT_INTERVAL, any.changed()).await {
            Ok(_) => tokio::time::sleep(GATHER_INTERVAL).await,
            Err(_) => seen.clear(),
        }
    }
}

async fn round(caller: &Caller, quotas: &Collection, seen: &mut Seen) -> Result<(), Failure> {
    let entries = quotas.snapshot("", || 0).entries;
    seen.retain(|path, _| entries.iter().any(|entry| *entry.path == **path));
    for entry in entries {
        let state = state(caller, &entry);
        if seen.get(&*entry.path) != Some(&state) {
            count(caller, quotas, &entry.path, seen).await?;
        }
    }
    Ok(())
}

fn state(caller: &Caller, quota: &Entry) -> Vec<u64> {
    let counted = quotas::counted(&caller.api, &quota.value());
    let mut state: Vec<u64> = counted.iter().map(|collection| collection.revision()).collect();
    state.sort_unstable();
    state.push(quota.revision);
    state
}

/// Counts one quota in its turn, and writes down what changed.
async fn count(caller: &Caller, quotas: &Collection, path: &str, seen: &mut Seen) -> Result<(), Failure> {
    let (namespace, _) = super::caller::split(path);
    let namespace = namespace.unwrap_or_default();
    let _turn = caller.api.quota_turns.take(namespace).await;
    let Some(entry) = quotas.get(path) else {
        return Ok(());
    };
    let state = state(caller, &entry);
    let Apart { object, managed } = entry.apart();
    let used = quotas::count(&caller.api, namespace, &object);
    let stored = quotas::with_usage(quotas, &object, managed, &used);
    if quotas::differs(quotas, &entry, &stored) {
        // If somebody else wrote it meanwhile, its revision is another one, and it is counted again.
        commit::put(&caller.api, quotas, path, stored, entry.revision).await?;
    } else {
        seen.insert(path.to_owned(), state);
    }
    Ok(())
}

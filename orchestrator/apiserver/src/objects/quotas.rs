//! Quotas: who writes an object is charged for it in the same transaction, so that no two writes use the same rest.
//!
//! Within a namespace that has quotas, charges are made one after another. What is freed is found by the loop that counts
//! anew (`loops::quotas`), which takes its turn like a writer.

pub(crate) mod usage;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use moorline_schema::ResourceFacts;
use moorline_store::{Compare, Op, Revision};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use super::pod_resources::{self, Amounts, amounts, zero};
use super::services::Along;
use super::{Call, tree};
use crate::api::Api;
use crate::cache::entry::{self, Apart};
use crate::cache::{Collection, Entry};
use crate::http::Failure;
use usage::{Kind, Write};

/// Turns that nobody takes any more are forgotten beyond so many.
const TURNS_MAX: usize = 1024;

/// Whose turn it is in each namespace.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for a turn in a namespace; it ends with the guard.
    pub(crate) async fn take(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            if turns.len() > TURNS_MAX {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            Arc::clone(turns.entry(namespace.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

/// What is written along with a charged object. The turn is held until that is done.
#[derive(Debug, Default)]
pub(crate) struct Charged {
    along: Along,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Charged {
    /// Adds the quotas' new states to what is written along.
    pub(crate) fn join(&self, along: &mut Along) {
        along.compare.extend(self.along.compare.iter().cloned());
        along.ops.extend(self.along.ops.iter().cloned());
    }
}

/// The quotas, if quotas can be about a resource at all.
pub(crate) fn quotas(api: &Api, facts: &ResourceFacts) -> Option<Arc<Collection>> {
    let is_event = facts.plural == "events" && matches!(facts.group, "" | "events.k8s.io");
    let quotas = api.registry.resource("", "v1", "resourcequotas")?;
    let quotas = api.caches.collection(quotas)?;
    (facts.namespaced && !is_event).then_some(quotas)
}

/// Charges the quotas of the namespace for an object that is about to be stored.
pub(crate) async fn charge(call: &Call<'_>, old: Option<&Value>, new: &Value) -> Result<Charged, Failure> {
    let facts = call.resource.ruling_facts()?;
    let is_charged = call.subresource.is_none()
        && (old.is_none()
            || (facts.group.is_empty() && matches!(facts.plural, "services" | "persistentvolumeclaims")));
    let namespace = call.namespace.unwrap_or_default();
    let prefix = format!("{namespace}/");
    let found = quotas(call.api, facts).filter(|quotas| is_charged && quotas.has_any(&prefix));
    let Some(quotas) = found else {
        return Ok(Charged::default());
    };
    let turn = call.api.quota_turns.take(namespace).await;
    let kind = Kind {
        group: facts.group,
        plural: facts.plural,
    };
    let write = Write {
        kind,
        old,
        new,
        now: Timestamp::now(),
    };
    let mut charged = Charged {
        along: Along::default(),
        _turn: Some(turn),
    };
    for entry in quotas.snapshot(&prefix, || 0).entries {
        let Apart { object, managed } = entry.apart();
        let used = used(call.api, namespace, &object);
        let after = usage::charge(&object, &used, &write).map_err(|why| {
            let name = tree::text(new, &["metadata", "name"]);
            Failure::forbidden(call.resource.about(name), &why)
        })?;
        if let Some(after) = after {
            charged.along.compare.push(Compare {
                key: quotas.key(&entry.path),
                mod_revision: Revision(entry.revision),
            });
            charged.along.ops.push(Op::Put {
                key: quotas.key(&entry.path),
                value: with_usage(&quotas, &object, managed, &after),
                lease: None,
            });
        }
    }
    Ok(charged)
}

/// What the status says is used; what it does not say yet is counted.
fn used(api: &Api, namespace: &str, quota: &Value) -> Amounts {
    let stated = amounts(tree::at(quota, &["status", "used"]));
    let hard = tree::at(quota, &["spec", "hard"]).and_then(Value::as_object);
    let is_known = hard
        .into_iter()
        .flatten()
        .all(|(name, _)| stated.contains_key(name));
    if is_known {
        stated
    } else {
        count(api, namespace, quota)
    }
}

/// Counts what is used of all that a quota names.
pub(crate) fn count(api: &Api, namespace: &str, quota: &Value) -> Amounts {
    let hard = amounts(tree::at(quota, &["spec", "hard"]));
    let mut used: Amounts = hard.keys().map(|name| (name.clone(), zero())).collect();
    for collection in counted(api, quota) {
        let facts = collection.resource;
        let kind = Kind {
            group: facts.group,
            plural: facts.plural,
        };
        let entries = collection.snapshot(&format!("{namespace}/"), || 0).entries;
        let names: Vec<&String> = hard.keys().filter(|name| kind.is_counted_by(name)).collect();
        if !usage::has_scopes(quota) && names.iter().all(|name| kind.is_mere_count(name)) {
            let count = moorline_schema::quantity::Quantity::parse(&entries.len().to_string());
            let each = names
                .iter()
                .filter_map(|name| Some(((*name).clone(), count.ok()?)));
            pod_resources::add(&mut used, &each.collect());
            continue;
        }
        for entry in entries {
            let object = entry.value();
            if usage::is_in_scope(quota, kind, &object) {
                let mut own = usage::usage(kind, &object, Timestamp::now());
                own.retain(|name, _| hard.contains_key(name));
                pod_resources::add(&mut used, &own);
            }
        }
    }
    used
}

/// The collections of what a quota counts.
pub(crate) fn counted(api: &Api, quota: &Value) -> Vec<Arc<Collection>> {
    let hard = amounts(tree::at(quota, &["spec", "hard"]));
    let is_counted = |collection: &Arc<Collection>| {
        let facts = collection.resource;
        let kind = Kind {
            group: facts.group,
            plural: facts.plural,
        };
        facts.namespaced && hard.keys().any(|name| kind.is_counted_by(name))
    };
    api.caches.all().into_iter().filter(is_counted).collect()
}

/// The bytes of a quota of which this is used.
pub(crate) fn with_usage(quotas: &Collection, quota: &Value, managed: Option<&str>, used: &Amounts) -> Bytes {
    let mut quota = quota.clone();
    let hard = tree::at(&quota, &["spec", "hard"]).cloned();
    let told = |name: &String| used.get(name).copied().unwrap_or_else(zero).to_string();
    let names = hard.as_ref().and_then(Value::as_object).into_iter().flatten();
    let used: serde_json::Map<String, Value> =
        names.map(|(name, _)| (name.clone(), told(name).into())).collect();
    let status = tree::map_mut(&mut quota, &["status"]);
    tree::set(status, "hard", hard);
    status.insert("used".to_owned(), json!(used));
    entry::encode_apart(&quotas.head, &quota, managed)
}

/// Whether a quota's bytes say something else than these.
pub(crate) fn differs(quotas: &Collection, entry: &Entry, stored: &[u8]) -> bool {
    entry::with_revision(&quotas.head, stored, entry.revision) != entry.json
}

//! Admission by others: webhooks that are called, policies that are evaluated.
//!
//! What is configured is compiled when it was changed, and looked at without waiting: a request that nobody wants to see
//! costs a comparison of revisions.
//!
//! | module | answers |
//! | --- | --- |
//! | `matching` | is this request any business of a webhook or policy? |
//! | `conditions` | do their conditions hold? |
//! | `review` | what is a webhook asked, and what does its answer say? |
//! | `targets`, `client` | where is it, and how is it called? |
//! | `webhooks` | calls them in their order |
//! | `policies` | evaluates policies for their bindings and parameters |
//! | `mutations` | changes objects as policies say |

pub(crate) mod client;
mod conditions;
mod matching;
mod mutations;
mod policies;
mod review;
mod subject;
mod targets;
mod webhooks;

use std::sync::Arc;

use arc_swap::ArcSwap;
use moorline_schema::ResourceFacts;
use serde_json::Value;

use crate::cache::{Caches, Collection};
use crate::http::Failure;
use crate::objects::Call;
use client::Client;
pub(crate) use matching::Operation;
use policies::Policy;
use subject::Subject;
use webhooks::Hook;

const GROUP: &str = "admissionregistration.k8s.io";
/// What is compiled, in the order of [`Sets`].
const CONFIGURATIONS: [&str; 6] = [
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// Everything that is configured at one moment.
#[derive(Debug, Default)]
struct Sets {
    /// Of the collections it was made from.
    revisions: Vec<u64>,
    mutating: Vec<Hook>,
    validating: Vec<Hook>,
    policies: Vec<Policy>,
    mutations: Vec<Policy>,
}

/// Webhooks and policies.
#[derive(Debug)]
pub(crate) struct Hooks {
    collections: Vec<Arc<Collection>>,
    current: ArcSwap<Sets>,
    client: Client,
}

impl Hooks {
    pub(crate) fn new(caches: &Caches) -> Self {
        let all = caches.all();
        let find = |plural: &&str| {
            let is_it = |one: &&Arc<Collection>| {
                let facts = one.resource;
                facts.group == GROUP && !facts.custom && facts.plural == *plural
            };
            all.iter().find(is_it).cloned()
        };
        Hooks {
            collections: CONFIGURATIONS.iter().filter_map(find).collect(),
            current: ArcSwap::default(),
            client: Client::new(),
        }
    }

    /// Ends all connections to webhooks.
    pub(crate) async fn close(&self) {
        self.client.close().await;
    }

    fn sets(&self) -> Arc<Sets> {
        let current = self.current.load_full();
        let is_fresh = current.revisions.len() == self.collections.len()
            && self
                .collections
                .iter()
                .zip(&current.revisions)
                .all(|(one, revision)| one.revision() == *revision);
        if is_fresh {
            return current;
        }
        let revisions: Vec<u64> = self.collections.iter().map(|one| one.revision()).collect();
        let [
            mutating,
            validating,
            policies,
            bindings,
            mutations,
            mutation_bindings,
        ] = [0, 1, 2, 3, 4, 5].map(|index| self.objects(index));
        let compiled = Arc::new(Sets {
            revisions,
            mutating: webhooks::compile(&mutating, true),
            validating: webhooks::compile(&validating, false),
            policies: policies::compile(&policies, &bindings),
            mutations: policies::compile(&mutations, &mutation_bindings),
        });
        self.current.store(Arc::clone(&compiled));
        compiled
    }

    /// In the order of their names.
    fn objects(&self, index: usize) -> Vec<Value> {
        let entries = self
            .collections
            .get(index)
            .map(|one| one.snapshot("", || 0).entries);
        entries.into_iter().flatten().map(|entry| entry.value()).collect()
    }
}

/// Whether requests for a resource are nobody's business: whoever configures admission can always mend it.
fn is_exempt(facts: &ResourceFacts) -> bool {
    facts.group == GROUP && !facts.custom
}

/// Whether a call is shown to anybody at all.
fn is_shown(call: &Call<'_>) -> bool {
    call.shows && !is_exempt(call.resource.facts)
}

/// Lets webhooks change an object that is created or updated, or look at one that goes; true if it was changed. The
/// object is in the form in which it is stored, or the version in which it is written.
pub(crate) async fn mutate(
    call: &Call<'_>,
    operation: Operation,
    old: Option<&Value>,
    object: Option<&mut Value>,
) -> Result<bool, Failure> {
    let sets = call.api.hooks.sets();
    if (sets.mutating.is_empty() && sets.mutations.is_empty()) || !is_shown(call) {
        return Ok(false);
    }
    let Some(object) = object else {
        return webhooks::mutate(&sets.mutating, call, operation, old, None).await;
    };
    let by_policies = mutations::mutate(&sets.mutations, call, (operation, old), object, false)?;
    let by_webhooks = webhooks::mutate(&sets.mutating, call, operation, old, Some(&mut *object)).await?;
    if by_webhooks {
        mutations::mutate(&sets.mutations, call, (operation, old), object, true)?;
    }
    Ok(by_policies || by_webhooks)
}

/// Asks those who validate.
pub(crate) async fn validate(
    call: &Call<'_>,
    operation: Operation,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Result<(), Failure> {
    let sets = call.api.hooks.sets();
    if (sets.validating.is_empty() && sets.policies.is_empty()) || !is_shown(call) {
        return Ok(());
    }
    let subject = Subject::new(call, operation, old, new);
    policies::validate(&sets.policies, &subject)?;
    webhooks::validate(&sets.validating, &subject).await
}

/// Has a deletion looked at; `old` is what goes.
pub(crate) async fn delete(call: &Call<'_>, old: &Value) -> Result<(), Failure> {
    mutate(call, Operation::Delete, Some(old), None).await?;
    validate(call, Operation::Delete, Some(old), None).await
}

/// Has a part of an object admitted that is no object of its own: a binding, an eviction, a token, a scale.
pub(crate) async fn admit_part(
    call: &Call<'_>,
    operation: Operation,
    old: Option<&Value>,
    part: &mut Value,
) -> Result<(), Failure> {
    mutate(call, operation, old, Some(part)).await?;
    validate(call, operation, old, Some(part)).await
}

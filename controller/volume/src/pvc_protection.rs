//! Keeps a claim that is being deleted until no pod uses it.
//!
//! The pod cache can prove that a claim is used, not that it isn't: before the finalizer goes, the API server is asked.
//! Claims are worked on by namespace, so that one list of pods serves all that are deleted together.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, ListParams, PatchParams};
use kube::{Client, ResourceExt};
use moorline_model::{Actor, Explanation, keys, mutant, pod};
use moorline_runtime::{Backoff, Cache, Change, Index, Informers, Outcome, Queue, run_workers};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::binder::pods_by_claim;
use crate::finalizer;
use crate::key::ObjectKey;
use crate::write_error::WriteError;

/// What is known about pods that use a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A pod uses it.
    Used,
    /// The cache shows no such pod; it may be behind.
    NoneSeen,
    /// The API server has no such pod.
    None,
}

/// What to do next about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Settled,
    /// Protect it: it was made without.
    AddFinalizer,
    /// Ask the API server whether a pod uses it.
    AskServer,
    /// Let it go.
    RemoveFinalizer,
}

/// What to do next about one claim. Pure.
pub fn decide(claim: &PersistentVolumeClaim, usage: Usage) -> Next {
    let is_protected = finalizer::is_present(&claim.metadata, keys::PVC_PROTECTION);
    match (claim.metadata.deletion_timestamp.is_some(), is_protected, usage) {
        (false, true, _) => Next::Settled,
        (false, false, _) => Next::AddFinalizer,
        // A finalizer can't be added to an object that is being deleted.
        (true, false, _) => Next::Settled,
        (true, true, Usage::Used) if mutant::is_on("no-claim-protection") => Next::RemoveFinalizer,
        (true, true, Usage::Used) => Next::Settled,
        (true, true, Usage::NoneSeen) => Next::AskServer,
        (true, true, Usage::None) => Next::RemoveFinalizer,
    }
}

/// Whether the pod keeps the claim from being deleted: it has a node (even if it has finished) and uses the claim. A
/// claim made for the pod doesn't wait for a pod that is shut down, because such a pod may be waiting for the claim.
pub fn is_user(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let is_same_namespace = pod.metadata.namespace == claim.metadata.namespace;
    if !is_same_namespace || pod::node_name(pod).is_none() {
        return false;
    }
    let is_shut_down =
        pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0);
    pod::claim_volumes(pod)
        .iter()
        .filter(|volume| Some(&volume.claim_name) == claim.metadata.name.as_ref())
        .any(|volume| !volume.is_ephemeral || (pod::owns_claim(pod, claim) && !is_shut_down))
}

/// Why a claim that is being deleted is still there, if it is this controller that keeps it. `pods` are those of its
/// namespace, read from the API server.
pub fn why_held(claim: &PersistentVolumeClaim, pods: &[Arc<Pod>]) -> Option<Explanation> {
    if claim.metadata.deletion_timestamp.is_none()
        || !finalizer::is_present(&claim.metadata, keys::PVC_PROTECTION)
    {
        return None;
    }
    let mut users: Vec<String> = pods
        .iter()
        .filter(|pod| is_user(pod, claim))
        .map(|pod| pod.name_any())
        .collect();
    users.sort();
    let usage = if users.is_empty() {
        Usage::None
    } else {
        Usage::Used
    };
    Some(match decide(claim, usage) {
        Next::RemoveFinalizer => Explanation::new(
            "DeletionAllowed",
            "no pod uses the claim any more; its finalizer kubernetes.io/pvc-protection has to be taken off",
            Actor::Protection,
            "check that the volume controllers run",
        ),
        Next::Settled | Next::AddFinalizer | Next::AskServer => Explanation::new(
            "ClaimInUse",
            format!(
                "it is being deleted, and pods still use it: {}; the finalizer kubernetes.io/pvc-protection keeps it",
                users.join(", ")
            ),
            Actor::User,
            format!(
                "delete the pods, finished ones too: kubectl delete pod {} -n {}",
                users.join(" "),
                claim.namespace().unwrap_or_default()
            ),
        ),
    })
}

/// Settings of the controller.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespaces worked on at once.
    pub workers: usize,
    /// Finalizers of one namespace written at once.
    pub writes: usize,
    /// Delay before a namespace whose writes failed is looked at again.
    pub backoff: Backoff,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 8,
            writes: 16,
            backoff: Backoff {
                min: Duration::from_millis(50),
                max: Duration::from_secs(60),
            },
        }
    }
}

struct Protection {
    config: Config,
    client: Client,
    claims: Cache<PersistentVolumeClaim>,
    pods: Index<String, Pod>,
    /// Claims to look at, by namespace.
    pending: Mutex<HashMap<String, BTreeSet<String>>>,
    queue: Queue<String>,
}

/// Runs the controller until `stop`; writes under way are finished.
pub async fn run(config: Config, informers: Informers, stop: CancellationToken) {
    let claims = informers.cache::<PersistentVolumeClaim>();
    let pods = informers.cache::<Pod>();
    let all_synced = async { tokio::join!(claims.synced(), pods.synced()) };
    if stop.run_until_cancelled(all_synced).await.is_none() {
        return;
    }
    let protection = Arc::new(Protection {
        client: informers.client().clone(),
        claims: claims.clone(),
        pods: pods_by_claim(&pods),
        pending: Mutex::default(),
        queue: Queue::new(config.backoff),
        config,
    });
    let on_claim = Arc::downgrade(&protection);
    claims.on_change(move |change| {
        if let Some(protection) = on_claim.upgrade() {
            protection.claim_changed(change);
        }
    });
    let on_pod = Arc::downgrade(&protection);
    pods.on_change(move |change| {
        if let Some(protection) = on_pod.upgrade() {
            protection.pod_changed(change);
        }
    });
    let queue = protection.queue.clone();
    let workers = protection.config.workers;
    run_workers(queue, workers, stop, move |namespace| {
        let protection = protection.clone();
        async move { protection.sync(&namespace).await }
    })
    .await;
}

impl Protection {
    fn claim_changed(&self, change: &Change<PersistentVolumeClaim>) {
        if let Change::Added(claim) | Change::Updated { new: claim, .. } = change
            && decide(claim, Usage::NoneSeen) != Next::Settled
        {
            self.add(&ObjectKey::of(&**claim));
        }
    }

    /// A pod that goes may free claims that are being deleted; so may one that has lost its node or its claim.
    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = match change {
            Change::Added(_) => return,
            Change::Updated { old, .. } => old,
            Change::Removed(pod) => pod,
        };
        let namespace = pod.namespace().unwrap_or_default();
        for volume in pod::claim_volumes(pod) {
            let claim = self.claims.get(Some(&namespace), &volume.claim_name);
            if claim.is_some_and(|claim| claim.metadata.deletion_timestamp.is_some()) {
                self.add(&ObjectKey::new(namespace.clone(), volume.claim_name));
            }
        }
    }

    fn add(&self, claim: &ObjectKey) {
        let mut pending = self.pending.lock();
        pending
            .entry(claim.namespace.clone())
            .or_default()
            .insert(claim.name.clone());
        drop(pending);
        self.queue.add(claim.namespace.clone());
    }

    /// Looks at the claims of a namespace that are waiting for it.
    async fn sync(&self, namespace: &str) -> Result<Outcome, kube::Error> {
        let names = self.pending.lock().remove(namespace).unwrap_or_default();
        let result = self.sync_claims(namespace, &names).await;
        if !matches!(result, Ok(Outcome::Settled)) {
            // Looking again at those that were done costs little.
            let mut pending = self.pending.lock();
            pending.entry(namespace.to_string()).or_default().extend(names);
        }
        result
    }

    async fn sync_claims(&self, namespace: &str, names: &BTreeSet<String>) -> Result<Outcome, kube::Error> {
        let claims: Vec<_> = names
            .iter()
            .filter_map(|name| self.claims.get(Some(namespace), name))
            .map(|claim| (decide(&claim, self.seen_usage(&claim)), claim))
            .collect();
        let mut live_pods = Vec::new();
        if claims.iter().any(|(next, _)| *next == Next::AskServer) {
            let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
            live_pods = pods.list(&ListParams::default()).await?.items;
        }
        let writes = claims.into_iter().map(|(next, claim)| {
            let next = match next {
                Next::AskServer if live_pods.iter().any(|pod| is_user(pod, &claim)) => Next::Settled,
                Next::AskServer => decide(&claim, Usage::None),
                next => next,
            };
            async move { self.write(next, &claim).await }
        });
        let mut writes = futures::stream::iter(writes).buffer_unordered(self.config.writes);
        let mut outcome = Outcome::Settled;
        while let Some(written) = writes.next().await {
            match written {
                Ok(()) | Err(WriteError::Gone) => {}
                Err(WriteError::Conflict) => outcome = Outcome::Retry,
                Err(WriteError::Other(error)) => return Err(error),
            }
        }
        Ok(outcome)
    }

    fn seen_usage(&self, claim: &PersistentVolumeClaim) -> Usage {
        let pods = self.pods.get(&ObjectKey::of(claim).to_string());
        if pods.iter().any(|pod| is_user(pod, claim)) {
            Usage::Used
        } else {
            Usage::NoneSeen
        }
    }

    async fn write(&self, next: Next, claim: &PersistentVolumeClaim) -> Result<(), WriteError> {
        let operations = match next {
            Next::Settled | Next::AskServer => return Ok(()),
            Next::AddFinalizer => Some(finalizer::addition(&claim.metadata, keys::PVC_PROTECTION)),
            Next::RemoveFinalizer => finalizer::removal(&claim.metadata, keys::PVC_PROTECTION),
        };
        let Some(operations) = operations else {
            return Ok(());
        };
        let claims = Api::<PersistentVolumeClaim>::namespaced(
            self.client.clone(),
            &claim.namespace().unwrap_or_default(),
        );
        let patch = finalizer::json_patch::<PersistentVolumeClaim>(operations);
        claims
            .patch(&claim.name_any(), &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;

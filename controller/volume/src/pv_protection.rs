//! Keeps a PV that is being deleted as long as it is Bound. Only the phase counts, which makes the phase a matter of
//! safety.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt;
use kube::api::{Api, PatchParams};
use moorline_model::volume::PvPhase;
use moorline_model::{Actor, Explanation, keys, mutant, volume};
use moorline_runtime::{Backoff, Cache, Change, Informers, Outcome, Queue, run_workers};
use tokio_util::sync::CancellationToken;

use crate::finalizer;
use crate::write_error::WriteError;

/// What to do next about a PV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Settled,
    /// Protect it: it was made without.
    AddFinalizer,
    /// Let it go.
    RemoveFinalizer,
}

/// What to do next about one PV. Pure.
pub fn decide(pv: &PersistentVolume) -> Next {
    let is_protected = finalizer::is_present(&pv.metadata, keys::PV_PROTECTION);
    let is_bound = volume::phase(pv) == PvPhase::Bound;
    match (pv.metadata.deletion_timestamp.is_some(), is_protected, is_bound) {
        (false, true, _) => Next::Settled,
        (false, false, _) => Next::AddFinalizer,
        // A finalizer can't be added to an object that is being deleted.
        (true, false, _) => Next::Settled,
        (true, true, true) if mutant::is_on("no-pv-protection") => Next::RemoveFinalizer,
        (true, true, true) => Next::Settled,
        (true, true, false) => Next::RemoveFinalizer,
    }
}

/// Why a PV that is being deleted is still there, if it is this controller that keeps it.
pub fn why_held(pv: &PersistentVolume) -> Option<Explanation> {
    if pv.metadata.deletion_timestamp.is_none() || !finalizer::is_present(&pv.metadata, keys::PV_PROTECTION) {
        return None;
    }
    let reference = volume::claim_ref(pv).cloned().unwrap_or_default();
    let (namespace, name) = (
        reference.namespace.unwrap_or_default(),
        reference.name.unwrap_or_default(),
    );
    Some(match decide(pv) {
        Next::Settled | Next::AddFinalizer => Explanation::new(
            "VolumeBound",
            format!("it is being deleted, and claim {namespace}/{name} is still bound to it"),
            Actor::User,
            format!("delete the claim: kubectl delete pvc {name} -n {namespace}"),
        ),
        Next::RemoveFinalizer => Explanation::new(
            "DeletionAllowed",
            "it is not bound any more; its finalizer kubernetes.io/pv-protection has to be taken off",
            Actor::Protection,
            "check that the volume controllers run",
        ),
    })
}

/// Settings of the controller.
#[derive(Clone, Debug)]
pub struct Config {
    /// PVs worked on at once.
    pub workers: usize,
    /// Delay before a PV whose write failed is looked at again.
    pub backoff: Backoff,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 16,
            backoff: Backoff {
                min: Duration::from_millis(50),
                max: Duration::from_secs(60),
            },
        }
    }
}

/// Runs the controller until `stop`; writes under way are finished.
pub async fn run(config: Config, informers: Informers, stop: CancellationToken) {
    let pvs = informers.cache::<PersistentVolume>();
    let queue = Queue::new(config.backoff);
    let sink = queue.clone();
    pvs.on_change(move |change| {
        if let Change::Added(pv) | Change::Updated { new: pv, .. } = change
            && decide(pv) != Next::Settled
        {
            sink.add(pv.name_any());
        }
    });
    let api = Arc::new(Api::<PersistentVolume>::all(informers.client().clone()));
    run_workers(queue, config.workers, stop, move |name: String| {
        let (pvs, api) = (pvs.clone(), api.clone());
        async move { sync(&pvs, &api, &name).await }
    })
    .await;
}

async fn sync(
    pvs: &Cache<PersistentVolume>,
    api: &Api<PersistentVolume>,
    name: &str,
) -> Result<Outcome, kube::Error> {
    let Some(pv) = pvs.get(None, name) else {
        return Ok(Outcome::Settled);
    };
    let operations = match decide(&pv) {
        Next::Settled => None,
        Next::AddFinalizer => Some(finalizer::addition(&pv.metadata, keys::PV_PROTECTION)),
        Next::RemoveFinalizer => finalizer::removal(&pv.metadata, keys::PV_PROTECTION),
    };
    let Some(operations) = operations else {
        return Ok(Outcome::Settled);
    };
    let patch = finalizer::json_patch::<PersistentVolume>(operations);
    let written = api.patch(name, &PatchParams::default(), &patch).await;
    match written.map_err(WriteError::from) {
        Ok(_) | Err(WriteError::Gone) => Ok(Outcome::Settled),
        Err(WriteError::Conflict) => Ok(Outcome::Retry),
        Err(WriteError::Other(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::api::TestApi;
    use crate::testing::running::Running;

    #[test]
    fn decisions() {
        let cases = [
            ("living and protected", false, true, "Bound", Next::Settled),
            (
                "living and unprotected",
                false,
                false,
                "Pending",
                Next::AddFinalizer,
            ),
            ("deleting, Bound", true, true, "Bound", Next::Settled),
            (
                "deleting, Released",
                true,
                true,
                "Released",
                Next::RemoveFinalizer,
            ),
            ("deleting, Failed", true, true, "Failed", Next::RemoveFinalizer),
            (
                "deleting, Available",
                true,
                true,
                "Available",
                Next::RemoveFinalizer,
            ),
            ("deleting, Pending", true, true, "Pending", Next::RemoveFinalizer),
            ("deleting, unprotected", true, false, "Released", Next::Settled),
        ];
        for (name, is_deleting, is_protected, phase, expected) in cases {
            let metadata = json!({
                "name": "pv1",
                "deletionTimestamp": is_deleting.then_some("2026-01-01T00:00:00Z"),
                "finalizers": if is_protected { vec!["a/b", keys::PV_PROTECTION] } else { vec!["a/b"] },
            });
            let pv =
                serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase}})).unwrap();
            assert_eq!(decide(&pv), expected, "{name}");
        }
    }

    #[test]
    fn why_a_pv_stays() {
        let of = |is_deleting: bool, is_protected: bool, phase: &str| -> Option<Explanation> {
            let pv = json!({
                "metadata": {
                    "name": "pv1",
                    "deletionTimestamp": is_deleting.then_some("2026-01-01T00:00:00Z"),
                    "finalizers": if is_protected { vec![keys::PV_PROTECTION] } else { vec!["a/b"] },
                },
                "spec": {"claimRef": {"namespace": "ns", "name": "data"}},
                "status": {"phase": phase},
            });
            why_held(&serde_json::from_value(pv).unwrap())
        };
        assert_eq!(of(false, true, "Bound"), None);
        assert_eq!(of(true, false, "Bound"), None, "somebody else keeps it");
        let bound = of(true, true, "Bound").unwrap();
        assert_eq!((bound.reason, bound.actor), ("VolumeBound", Actor::User));
        assert_eq!(bound.advice, "delete the claim: kubectl delete pvc data -n ns");
        let released = of(true, true, "Released").unwrap();
        assert_eq!(
            (released.reason, released.actor),
            ("DeletionAllowed", Actor::Protection)
        );
    }

    #[tokio::test]
    async fn pv_goes_when_it_is_no_longer_bound() {
        let api = TestApi::new();
        let finalizers = json!([keys::PV_PROTECTION]);
        api.put("persistentvolumes", json!({"metadata": {"name": "bare"}}));
        let bound =
            json!({"metadata": {"name": "pv1", "finalizers": finalizers}, "status": {"phase": "Bound"}});
        api.put("persistentvolumes", bound);
        let running = Running::start(&api, |informers, stop| run(Config::default(), informers, stop));
        api.delete("persistentvolumes", "/pv1");
        api.wait_until("protected", |api| {
            api.get("persistentvolumes", "/bare").unwrap()["metadata"]["finalizers"] == finalizers
        })
        .await;
        assert!(api.get("persistentvolumes", "/pv1").is_some());
        api.change(
            "persistentvolumes",
            "/pv1",
            json!({"status": {"phase": "Released"}}),
        );
        api.wait_until("gone", |api| api.get("persistentvolumes", "/pv1").is_none())
            .await;
        running.stop().await;
    }
}
